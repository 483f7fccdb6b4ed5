//! Which modules have taken which files that are not acknowledged yet.
//!
//! Guarantees that a file is forgotten once it is acknowledged, and that what is never acknowledged (a status
//! file removed by hand, say) takes no more than a bounded amount of memory.

use module::WalFileName;
use std::collections::VecDeque;

/// How many files are remembered. The server goes on with one file until it is archived; only a timeline
/// history file comes in between (pgarch.c, `pgarch_readyXlog`, 15 to 18).
const FILES_MAX: usize = 16;

/// The files that some have and others have not.
#[derive(Debug, Default)]
pub(super) struct Taken(VecDeque<(WalFileName, Vec<usize>)>);

impl Taken {
    /// Whether the module of this number has taken the file.
    pub(super) fn has(&self, file: &WalFileName, module: usize) -> bool {
        self.0
            .iter()
            .any(|(name, by)| name == file && by.contains(&module))
    }

    /// The module of this number has taken the file.
    pub(super) fn add(&mut self, file: &WalFileName, module: usize) {
        if let Some((_, by)) = self.0.iter_mut().find(|(name, _)| name == file) {
            by.push(module);
            return;
        }
        if self.0.len() >= FILES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((*file, vec![module]));
    }

    /// Nothing counts any more that the module of this number has taken.
    pub(super) fn forget_module(&mut self, module: usize) {
        for (_, by) in &mut self.0 {
            by.retain(|number| *number != module);
        }
    }

    /// The file is acknowledged, and will not come again.
    pub(super) fn forget(&mut self, file: &WalFileName) {
        self.0.retain(|(name, _)| name != file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(number: u32) -> WalFileName {
        format!("0000000100000000{number:08X}").parse().unwrap()
    }

    #[test]
    fn what_one_module_took_another_has_not_and_all_is_forgotten_once_acknowledged() {
        let mut taken = Taken::default();
        taken.add(&segment(1), 0);
        taken.add(&segment(1), 2);
        let by = |taken: &Taken| [0, 1, 2].map(|module| taken.has(&segment(1), module));
        assert_eq!(by(&taken), [true, false, true]);
        assert!(!taken.has(&segment(2), 0));
        taken.forget_module(2);
        assert_eq!(by(&taken), [true, false, false]);
        taken.forget(&segment(1));
        assert_eq!(by(&taken), [false; 3]);
    }

    #[test]
    fn files_that_are_never_acknowledged_are_forgotten_oldest_first() {
        let mut taken = Taken::default();
        for number in 0..100 {
            taken.add(&segment(number), 0);
        }
        assert_eq!(taken.0.len(), FILES_MAX);
        assert!(taken.has(&segment(99), 0) && !taken.has(&segment(0), 0));
    }
}
