//! Remembers which files could not be restored, so that the log says when that is over, and after how long.
//!
//! Guarantees: nothing is said to be over but what the same file, or a later segment, has shown; one outage ends with one
//! line, however many files it met; memory is bounded.

use module::{Failure, Level, Report, WalFileName};
use std::time::Instant;

/// How many files are remembered. A standby asks for a few names in turn; with more the oldest stay.
const FILES_MAX: usize = 32;

/// Files that could not be restored, each with the time of its first failure.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    files: Vec<(WalFileName, Instant)>,
}

impl Trouble {
    /// A try to restore `file` has failed.
    pub(crate) fn failed(&mut self, file: WalFileName) {
        let known = self.files.iter().any(|(name, _)| *name == file);
        if !known && self.files.len() < FILES_MAX {
            self.files.push((file, Instant::now()));
        }
    }

    /// There is an answer about `file`. With what the log should say, if that ends a trouble.
    pub(crate) fn answered(&mut self, file: &WalFileName) -> Option<Report> {
        let settled = self.files.iter().any(|(name, _)| settles(file, name));
        if !settled {
            return None;
        }
        // One that is still in trouble is asked for again, and begins anew.
        let since = self.files.drain(..).map(|(_, since)| since).min()?;
        let after = since.elapsed().as_secs();
        let message = format!("the archive answers again, about file \"{file}\", after {after} s");
        Some(Report::of(Level::Log, Failure::new(message)))
    }
}

/// Whether an answer about `now` shows that the trouble with `then` is over: recovery does not go back.
fn settles(now: &WalFileName, then: &WalFileName) -> bool {
    match (now, then) {
        (WalFileName::Segment(now), WalFileName::Segment(then)) => {
            now.position() >= then.position()
        }
        _ => now == then,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: &str = "000000010000000000000005";

    fn ends(failed: &[&str], answered: &str) -> bool {
        let mut trouble = Trouble::default();
        for name in failed {
            trouble.failed(name.parse().unwrap());
        }
        trouble.answered(&answered.parse().unwrap()).is_some()
    }

    #[test]
    fn trouble_ends_with_an_answer_about_the_same_file_or_a_later_segment() {
        for (answered, over) in [
            (FIVE, true),
            ("000000010000000000000006", true),
            ("000000010000000000000004", false),
            ("00000002.history", false),
        ] {
            assert_eq!(ends(&[FIVE], answered), over, "{answered}");
        }
        assert!(ends(&["00000002.history"], "00000002.history"));
        assert!(!ends(&[], FIVE));
    }

    #[test]
    fn an_outage_that_met_several_files_ends_once() {
        let mut trouble = Trouble::default();
        for name in [FIVE, "00000002.history"] {
            trouble.failed(name.parse().unwrap());
        }
        assert!(trouble.answered(&FIVE.parse().unwrap()).is_some());
        assert!(
            trouble
                .answered(&"00000002.history".parse().unwrap())
                .is_none()
        );
    }
}
