//! Which files the server has ready to be archived: `archive_status`, read and never written.
//!
//! Guarantees: names come in the server's own order, timeline history files first and then by name
//! (`ready_file_comparator`, pgarch.c, 15 to 18); memory does not grow with their number; reading the directory
//! takes a bounded share of the time however large it is, because a reading waits in proportion to what the
//! last one took. So a backlog costs the same per file whatever its length.
//! Left to others: whether a name that was ready still is when its turn comes.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use wal::WalFileName;

use crate::base::clock::Clock;
use crate::pg_wal::pending::ReadyName;

/// How many names are kept of one reading, the first ones.
const NAMES_MAX: usize = 1024;

/// A reading may take one part in so many of the time.
const READING_SHARE: u32 = 20;

/// Names read and not yet taken.
pub(crate) struct Ready {
    names: VecDeque<WalFileName>,
    not_before: Option<Instant>,
    clock: Clock,
}

impl Ready {
    /// Nothing has been read yet.
    pub(crate) fn new(clock: Clock) -> Ready {
        Ready {
            names: VecDeque::new(),
            not_before: None,
            clock,
        }
    }

    /// The next name of the last reading, which stays the next one.
    pub(crate) fn peek(&self) -> Option<&WalFileName> {
        self.names.front()
    }

    /// Forgets the names: the directory is to be read again.
    pub(crate) fn clear(&mut self) {
        self.names.clear();
    }

    /// The next name of the last reading.
    pub(crate) fn next(&mut self) -> Option<WalFileName> {
        self.names.pop_front()
    }

    /// Whether all names have been taken and the directory may be read again.
    pub(crate) fn wants_reading(&self) -> bool {
        self.names.is_empty() && self.not_before.is_none_or(|at| self.clock.now() >= at)
    }

    /// Takes over the names of a reading.
    pub(crate) fn fill(&mut self, reading: Reading) {
        self.names = reading.names;
        self.not_before = Some(self.clock.now() + reading.took * READING_SHARE);
    }
}

/// Names that one reading of the directory has found.
pub(crate) struct Reading {
    names: VecDeque<WalFileName>,
    took: Duration,
}

impl Reading {
    /// Reads the directory. One that cannot be read holds nothing: looking ahead is no duty.
    pub(crate) fn of(archive_status: &Path) -> Reading {
        let begun = Instant::now();
        let mut first = BTreeMap::new();
        for entry in std::fs::read_dir(archive_status)
            .into_iter()
            .flatten()
            .flatten()
        {
            first.extend(ReadyName::of(&entry.file_name()));
            if first.len() > NAMES_MAX {
                first.pop_last();
            }
        }
        Reading {
            names: first.into_values().collect(),
            took: begun.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names_of(reading: Reading) -> Vec<String> {
        let mut ready = Ready::new(Clock::given());
        ready.fill(reading);
        std::iter::from_fn(|| ready.next().map(|name| name.to_string())).collect()
    }

    #[test]
    fn history_files_come_first_then_all_by_name_and_what_is_not_ready_never() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "000000010000000000000003.ready",
            "000000010000000000000002.00000028.backup.ready",
            "000000010000000000000001.done",
            "000000010000000000000002.ready",
            "000000010000000000000004.partial.ready",
            "00000002.history.ready",
            "00000003.history.done",
            "xlogtemp.1.ready",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(
            names_of(Reading::of(dir.path())),
            [
                "00000002.history",
                "000000010000000000000002",
                "000000010000000000000002.00000028.backup",
                "000000010000000000000003",
                "000000010000000000000004.partial",
            ]
        );
    }

    #[test]
    fn of_a_long_backlog_the_first_names_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for number in 1..=NAMES_MAX + 50 {
            fs::write(
                dir.path()
                    .join(format!("0000000100000000{number:08X}.ready")),
                "",
            )
            .unwrap();
        }
        let names = names_of(Reading::of(dir.path()));
        assert_eq!(names.len(), NAMES_MAX);
        assert_eq!(names[0], "000000010000000000000001");
    }

    #[test]
    fn a_reading_is_not_repeated_before_its_share_of_the_time_has_come() {
        let clock = Clock::given();
        let mut ready = Ready::new(clock.clone());
        assert!(ready.wants_reading());
        let took = Duration::from_secs(60);
        ready.fill(Reading {
            names: VecDeque::new(),
            took,
        });
        clock.pass(took * READING_SHARE - Duration::from_millis(1));
        assert!(!ready.wants_reading());
        clock.pass(Duration::from_millis(1));
        assert!(ready.wants_reading());
    }
}
