//! What a server still has to archive: the names in `archive_status` that end in `.ready`, counted.
//!
//! Guarantees: memory does not grow with their number; `archive_status` is read and never written; the time one reading took
//! is told, so that a caller can bound its share. Leaves to `ahead/archiving/ready.rs`: which of them are begun next.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use wal::{SegmentName, SegmentSize, WalFileName};

/// The server's suffix for files that are to be archived.
const SUFFIX: &str = ".ready";

/// What one reading has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// How many files.
    pub files: u64,
    /// How many of them are segments.
    pub segments: u64,
    /// The first of them.
    pub first_segment: Option<SegmentName>,
    /// The one that the server archives first: a timeline history file before all others, else the lowest name
    /// (`ready_file_comparator`, pgarch.c, 15 to 19).
    pub oldest: Option<WalFileName>,
    /// Since when that one is ready, by the clock of the file system.
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
        let mut oldest: Option<(bool, String, WalFileName)> = None;
        for entry in std::fs::read_dir(archive_status)? {
            let file = entry?.file_name();
            let Some(text) = file.to_str().and_then(|file| file.strip_suffix(SUFFIX)) else {
                continue;
            };
            let Ok(name) = text.parse::<WalFileName>() else {
                continue;
            };
            files += 1;
            if let WalFileName::Segment(segment) = name {
                segments += 1;
                first_segment = Some(first_segment.map_or(segment, |first| first.min(segment)));
            }
            let is_other = !matches!(name, WalFileName::TimelineHistory(_));
            let is_first = oldest
                .as_ref()
                .is_none_or(|(other, least, _)| (is_other, text) < (*other, least.as_str()));
            if is_first {
                oldest = Some((is_other, text.to_owned(), name));
            }
        }
        let oldest_since = oldest.as_ref().and_then(|(_, text, _)| {
            let path = archive_status.join(format!("{text}{SUFFIX}"));
            path.metadata().and_then(|file| file.modified()).ok()
        });
        Ok(Pending {
            files,
            segments,
            first_segment,
            oldest: oldest.map(|(_, _, name)| name),
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
        assert!(Pending::count(&folder.path().join("absent")).is_err());
    }
}
