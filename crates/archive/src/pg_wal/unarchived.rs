//! Which transaction would be lost with the server: the oldest commit in WAL that is not archived.
//!
//! Guarantees bounded work: a look reads at most so many bytes, and what an earlier one has read for good is not read again;
//! what it does not come to is not known, and not taken for nothing.
//! WAL that is being written is read as far as its records go. Leaves to its owner how often to look.

use std::cmp::Reverse;
use std::io::Read;
use std::path::Path;

use wal::{
    LONG_PAGE_HEADER_BYTES, LongPageHeader, Meaning, SegmentName, SegmentReader, SegmentSize,
    Timestamp,
};

use crate::base::regular::open_regular;
use crate::format::codec::CHUNK_BYTES;
use crate::pg_wal::pending::Pending;

/// The most bytes that one look reads.
const LOOK_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What one look has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unarchived {
    /// The first segment that is not archived: all WAL of its timeline before it is. It need not have been begun. `None` if that
    /// cannot be told.
    pub first: Option<SegmentName>,
    /// When the oldest transaction was committed that is in no archived segment; the inner `None` if there is none so far, the
    /// outer if that cannot be told.
    pub oldest_commit: Option<Option<Timestamp>>,
}

/// What is known so far.
#[derive(Debug, Default)]
pub struct OldestCommit {
    /// The first segment that is not archived, as of the last look.
    first: Option<SegmentName>,
    /// The next segment to be read: those before it hold no commit.
    next: Option<SegmentName>,
    found: Option<Timestamp>,
}

impl OldestCommit {
    /// Looks. `pending` was counted a moment ago, in `pg_wal/archive_status`.
    pub fn look(&mut self, pg_wal: &Path, pending: &Pending, size: SegmentSize) -> Unarchived {
        let Some(first) = first_unarchived(pg_wal, pending, size) else {
            return Unarchived::default();
        };
        if self.first != Some(first) {
            *self = OldestCommit {
                first: Some(first),
                next: Some(first),
                found: None,
            };
        }
        Unarchived {
            first: Some(first),
            oldest_commit: self.look_on(pg_wal, size),
        }
    }

    /// Reads on where the last look ended; `None` if there is more than it may read, or something cannot be read.
    fn look_on(&mut self, pg_wal: &Path, size: SegmentSize) -> Option<Option<Timestamp>> {
        let mut left = LOOK_BYTES_MAX;
        while self.found.is_none() {
            let name = self.next?;
            let path = pg_wal.join(name.to_string());
            if !is_its_own(&path, &name) {
                // WAL goes no further: the segment has not been begun, or is a recycled one.
                return path.parent().is_some_and(Path::exists).then_some(None);
            }
            match commit_in(&path, name, left)? {
                Looked::Commit(at) => self.found = Some(at),
                Looked::EndsInside => return Some(None),
                Looked::NotYet => return None,
                Looked::Over => {
                    left = left.saturating_sub(size.bytes());
                    self.next = name.next(size);
                }
            }
        }
        Some(self.found)
    }
}

/// The first segment of the server's that is not archived: the first that is ready; else the first that has no note, which is
/// being written; else the one behind the last that is noted as archived.
fn first_unarchived(pg_wal: &Path, pending: &Pending, size: SegmentSize) -> Option<SegmentName> {
    if let Some(first) = pending.first_segment {
        return Some(first);
    }
    let status = pg_wal.join("archive_status");
    let names = std::fs::read_dir(pg_wal).ok()?;
    let names = names.filter_map(|entry| -> Option<SegmentName> {
        entry.ok()?.file_name().to_str()?.parse().ok()
    });
    let (done, open): (Vec<SegmentName>, Vec<SegmentName>) =
        names.partition(|name| status.join(format!("{name}.done")).exists());
    // Of the newest timeline; what lies before its beginning is archived, or never will be.
    let newest_first = |name: &SegmentName| (Reverse(name.timeline().get()), name.position());
    let written = open
        .into_iter()
        .filter(|name| is_its_own(&pg_wal.join(name.to_string()), name))
        .min_by_key(newest_first);
    let last = done
        .into_iter()
        .max_by_key(|name| (name.timeline().get(), name.position()));
    match (written, last) {
        (Some(written), Some(last)) if written.timeline() < last.timeline() => last.next(size),
        (Some(written), _) => Some(written),
        (None, last) => last?.next(size),
    }
}

/// Whether the file holds the segment that its name says: one that was recycled bears the name of a later one.
fn is_its_own(path: &Path, name: &SegmentName) -> bool {
    let mut head = [0; LONG_PAGE_HEADER_BYTES];
    let read = open_regular(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && LongPageHeader::parse(&head).is_ok_and(|header| header.check_name(name).is_ok())
}

/// What a segment holds.
enum Looked {
    /// A commit, at this time.
    Commit(Timestamp),
    /// None, and WAL ends in it.
    EndsInside,
    /// None, and WAL goes on in the next one.
    Over,
    /// None so far, and there is more than may be read.
    NotYet,
}

/// Reads a segment up to its first commit, and at most so many bytes; `None` if it cannot be read.
fn commit_in(path: &Path, name: SegmentName, bytes_max: u64) -> Option<Looked> {
    let file = open_regular(path).ok()?;
    let bytes_all = file.metadata().ok()?.len();
    let mut file = file.take(bytes_max);
    let mut reader = SegmentReader::new(name);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut found = None;
    loop {
        let bytes = file.read(&mut chunk).ok()?;
        if bytes == 0 {
            break;
        }
        let fed = reader.feed(chunk.get(..bytes)?, |record| {
            if let Meaning::Commit { at, .. } = record.meaning()
                && found.is_none()
            {
                found = Some(at);
            }
        });
        if let Some(at) = found {
            return Some(Looked::Commit(at));
        }
        // The server is writing here.
        if fed.is_err() {
            return Some(Looked::EndsInside);
        }
    }
    if bytes_max < bytes_all {
        return Some(Looked::NotYet);
    }
    let is_over = reader.finish().is_ok_and(|summary| !summary.is_cut());
    Some(if is_over {
        Looked::Over
    } else {
        Looked::EndsInside
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segment_behind_the_last_archived_one_is_the_first_that_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let status = folder.path().join("archive_status");
        std::fs::create_dir(&status).unwrap();
        let pending = Pending::count(&status).unwrap();
        let size = SegmentSize::DEFAULT;
        let look = |folder: &Path| OldestCommit::default().look(folder, &pending, size);
        // One that was made beforehand and holds nothing yet.
        std::fs::write(folder.path().join("000000010000000000000006"), [0; 100]).unwrap();
        assert_eq!(look(folder.path()), Unarchived::default());
        for name in ["000000010000000000000004", "000000010000000000000005"] {
            std::fs::write(folder.path().join(name), "").unwrap();
            std::fs::write(status.join(format!("{name}.done")), "").unwrap();
        }
        let found = look(folder.path());
        let first = found.first.map(|name| name.to_string());
        assert_eq!(first.as_deref(), Some("000000010000000000000006"));
        assert_eq!(found.oldest_commit, Some(None));
        assert_eq!(look(&folder.path().join("absent")), Unarchived::default());
    }

    #[test]
    fn a_segment_that_is_ready_and_cannot_be_read_is_not_taken_for_one_without_commits() {
        let folder = tempfile::tempdir().unwrap();
        let status = folder.path().join("archive_status");
        std::fs::create_dir(&status).unwrap();
        std::fs::write(status.join("000000010000000000000004.ready"), "").unwrap();
        let pending = Pending::count(&status).unwrap();
        let gone = OldestCommit::default().look(
            &folder.path().join("absent"),
            &pending,
            SegmentSize::DEFAULT,
        );
        assert!(gone.first.is_some());
        assert_eq!(gone.oldest_commit, None);
    }
}
