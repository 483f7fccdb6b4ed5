//! Which transaction would be lost with the server: the oldest commit in WAL that is not archived.
//!
//! Guarantees bounded work: a look reads at most so many bytes, and what an earlier one has read for good is not read again.
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
    /// When the oldest transaction was committed that is in no archived segment; `Some(None)` if there is none so far, `None`
    /// if that cannot be told. `pending` was counted a moment ago, in `pg_wal/archive_status`.
    pub fn look(
        &mut self,
        pg_wal: &Path,
        pending: &Pending,
        size: SegmentSize,
    ) -> Option<Option<Timestamp>> {
        let Some(first) = first_unarchived(pg_wal, pending)? else {
            // All that was written is archived, and the next segment has not been begun.
            return Some(None);
        };
        if self.first != Some(first) {
            *self = OldestCommit {
                first: Some(first),
                next: Some(first),
                found: None,
            };
        }
        let mut left = LOOK_BYTES_MAX;
        while self.found.is_none()
            && let Some(name) = self.next
            && left > 0
        {
            let read = commit_in(&pg_wal.join(name.to_string()), name, size.bytes().min(left));
            let Some((found, is_over)) = read else {
                // It is not there yet, or not any more.
                break;
            };
            self.found = found;
            left = left.saturating_sub(size.bytes());
            if !is_over {
                break;
            }
            self.next = name.next(size);
        }
        Some(self.found)
    }
}

/// The first segment of the server's that is not archived: the first that is ready, or the one that is being written. The outer
/// `None`: the folder cannot be read.
fn first_unarchived(pg_wal: &Path, pending: &Pending) -> Option<Option<SegmentName>> {
    if let Some(first) = pending.first_segment {
        return Some(Some(first));
    }
    let status = pg_wal.join("archive_status");
    let names = std::fs::read_dir(pg_wal).ok()?;
    let names = names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let written = names.filter(|name: &SegmentName| {
        is_its_own(pg_wal, name) && !status.join(format!("{name}.done")).exists()
    });
    // Of the newest timeline; what lies before its beginning is archived, or never will be.
    let newest_first = |name: &SegmentName| (Reverse(name.timeline().get()), name.position());
    Some(written.min_by_key(newest_first))
}

/// Whether the file holds the segment that its name says: one that was recycled bears the name of a later one.
fn is_its_own(pg_wal: &Path, name: &SegmentName) -> bool {
    let mut head = [0; LONG_PAGE_HEADER_BYTES];
    let read = open_regular(&pg_wal.join(name.to_string()))
        .and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && LongPageHeader::parse(&head).is_ok_and(|header| header.check_name(name).is_ok())
}

/// When the first transaction of a segment was committed, and whether WAL goes on in the next segment. Reads at most
/// `bytes_max`; `None` if it cannot be read.
fn commit_in(path: &Path, name: SegmentName, bytes_max: u64) -> Option<(Option<Timestamp>, bool)> {
    let mut file = open_regular(path).ok()?.take(bytes_max);
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
        if found.is_some() {
            return Some((found, false));
        }
        // The server is writing here.
        if fed.is_err() {
            return Some((None, false));
        }
    }
    let is_over = reader.finish().is_ok_and(|summary| !summary.is_cut());
    Some((None, is_over))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_wal_has_nothing_to_lose_and_none_that_cannot_be_read_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let status = folder.path().join("archive_status");
        std::fs::create_dir(&status).unwrap();
        let pending = Pending::count(&status).unwrap();
        let size = SegmentSize::DEFAULT;
        // One that was made beforehand and holds nothing yet.
        std::fs::write(folder.path().join("000000010000000000000002"), [0; 100]).unwrap();
        let look = |folder: &Path| OldestCommit::default().look(folder, &pending, size);
        assert_eq!(look(folder.path()), Some(None));
        assert_eq!(look(&folder.path().join("absent")), None);
    }
}
