//! What a server still has to archive: the names in `archive_status` that end in `.ready`, counted.
//!
//! Guarantees: memory does not grow with their number; `archive_status` is read and never written; the time one reading took
//! is told, so that a caller can bound its share. Leaves to `ahead/archiving/ready.rs`: which of them are begun next.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use wal::{SegmentName, SegmentSize, WalFileName};

/// The server's suffix for files that are to be archived.
const SUFFIX: &str = ".ready";

/// How many names are kept of those that are counted.
const NAMES_MAX: usize = 10;

/// A name that is ready. They order as the server takes them: timeline history files before all others, then by name
/// (`ready_file_comparator`, pgarch.c, 15 to 19).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReadyName {
    is_no_history: bool,
    text: String,
}

impl ReadyName {
    /// The name, and its place among the others, of a file of `archive_status`; `None` if it is no such note.
    pub(crate) fn of(file: &OsStr) -> Option<(ReadyName, WalFileName)> {
        let text = file.to_str()?.strip_suffix(SUFFIX)?;
        let name = text.parse().ok()?;
        let place = ReadyName {
            is_no_history: !matches!(name, WalFileName::TimelineHistory(_)),
            text: text.to_owned(),
        };
        Some((place, name))
    }

    /// The server's note.
    fn note(&self) -> String {
        format!("{}{SUFFIX}", self.text)
    }
}

/// What one reading has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// How many files.
    pub files: u64,
    /// How many of them are segments.
    pub segments: u64,
    /// The first of them.
    pub first_segment: Option<SegmentName>,
    /// The one that the server archives first: a timeline history file before all others, else the lowest name.
    pub oldest: Option<WalFileName>,
    /// The first ten in the order in which the server archives them, the oldest among them.
    pub first: Vec<WalFileName>,
    /// Since when the oldest is ready, by the clock of the file system.
    pub oldest_since: Option<SystemTime>,
    /// How long the reading took.
    pub took: Duration,
}

impl Pending {
    /// Counts what lies in `archive_status`.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn count(archive_status: &Path) -> io::Result<Pending> {
        let begun = Instant::now();
        let (mut files, mut segments) = (0, 0);
        let mut first_segment: Option<SegmentName> = None;
        let mut first = BTreeMap::new();
        for entry in std::fs::read_dir(archive_status)? {
            let Some((place, name)) = ReadyName::of(&entry?.file_name()) else {
                continue;
            };
            files += 1;
            if let WalFileName::Segment(segment) = name {
                segments += 1;
                first_segment = Some(first_segment.map_or(segment, |first| first.min(segment)));
            }
            let is_full = first.len() >= NAMES_MAX;
            if !is_full
                || first
                    .last_key_value()
                    .is_some_and(|(last, _)| place < *last)
            {
                first.insert(place, name);
            }
            if first.len() > NAMES_MAX {
                first.pop_last();
            }
        }
        let oldest_since = first.first_key_value().and_then(|(place, _)| {
            let path = archive_status.join(place.note());
            path.metadata().and_then(|file| file.modified()).ok()
        });
        Ok(Pending {
            files,
            segments,
            first_segment,
            oldest: first.first_key_value().map(|(_, name)| *name),
            first: first.into_values().collect(),
            oldest_since,
            took: begun.elapsed(),
        })
    }

    /// Bytes of WAL in the segments.
    pub fn bytes(&self, size: SegmentSize) -> u64 {
        self.segments.saturating_mul(size.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_files_are_counted_and_the_first_is_the_one_that_the_server_takes_first() {
        let folder = tempfile::tempdir().unwrap();
        let touch = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();
        let pending = Pending::count(folder.path()).unwrap();
        assert_eq!((pending.files, pending.oldest), (0, None));
        for name in [
            "000000020000000000000007.ready",
            "000000020000000000000008.ready",
            "000000020000000000000005.done",
            "000000010000000000000006.partial.ready",
            "not a name.ready",
        ] {
            touch(name);
        }
        let pending = Pending::count(folder.path()).unwrap();
        assert_eq!((pending.files, pending.segments), (3, 2));
        let oldest = pending.oldest.map(|name| name.to_string());
        assert_eq!(oldest.as_deref(), Some("000000010000000000000006.partial"));
        assert!(pending.oldest_since.is_some());
        assert_eq!(pending.bytes(SegmentSize::DEFAULT), 2 * 16 * 1024 * 1024);
        touch("00000003.history.ready");
        let pending = Pending::count(folder.path()).unwrap();
        let oldest = pending.oldest.map(|name| name.to_string());
        assert_eq!(oldest.as_deref(), Some("00000003.history"));
        for number in 0..20 {
            touch(&format!("0000000300000000000000{number:02X}.ready"));
        }
        let pending = Pending::count(folder.path()).unwrap();
        let first: Vec<_> = pending.first.iter().map(ToString::to_string).collect();
        assert_eq!((pending.files, first.len()), (24, NAMES_MAX));
        let ends = (first.first(), first.get(1), first.last());
        let expected = [
            "00000003.history",
            "000000010000000000000006.partial",
            "000000030000000000000005",
        ];
        let expected = expected.map(str::to_owned);
        assert_eq!(ends, (expected.first(), expected.get(1), expected.last()));
        assert!(Pending::count(&folder.path().join("absent")).is_err());
    }
}
