//! Are two files' contents equal, byte for byte to their ends? And if not, in words: where, and whose is
//! which.
//!
//! Whole files are compared. Of a segment in which WAL ends the rest is stale bytes, each server's own: callers that ask where
//! WAL ends ([`compare_wal`]) may find that the records are the same.

use std::time::SystemTime;

use wal::{LONG_PAGE_HEADER_BYTES, LongPageHeader, SegmentName, SegmentReader, SegmentSummary};

use crate::base::time::rfc3339;
use crate::cancel::Cancel;
use crate::error::Error;
use crate::format::codec::{CHUNK_BYTES, Contents};

/// Result of a comparison.
pub(crate) enum Comparison {
    Equal,
    /// They differ from this byte on. The first bytes of both are kept to tell whose they are.
    Differ {
        at: u64,
        left: Vec<u8>,
        right: Vec<u8>,
    },
}

/// What went wrong while comparing, and on which side.
pub(crate) enum Side {
    Left(Error),
    Right(Error),
    Neither(Error),
}

/// Compares from where both stand to the end of both.
pub(crate) fn compare(
    left: &mut dyn Contents,
    right: &mut dyn Contents,
    cancel: &Cancel,
    what: &str,
) -> Result<Comparison, Side> {
    let (mut left_chunk, mut right_chunk) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let (mut left_head, mut right_head) = (Vec::new(), Vec::new());
    let mut at = 0;
    loop {
        cancel.check(what).map_err(Side::Neither)?;
        let left_bytes = left.fill(&mut left_chunk).map_err(Side::Left)?;
        let right_bytes = right.fill(&mut right_chunk).map_err(Side::Right)?;
        let left_now = left_chunk.get(..left_bytes).unwrap_or_default();
        let right_now = right_chunk.get(..right_bytes).unwrap_or_default();
        keep_head(&mut left_head, left_now);
        keep_head(&mut right_head, right_now);
        if let Some(offset) = first_difference(left_now, right_now) {
            return Ok(Comparison::Differ {
                at: at + offset,
                left: left_head,
                right: right_head,
            });
        }
        at += left_bytes as u64;
        if left_bytes < CHUNK_BYTES {
            return Ok(Comparison::Equal);
        }
    }
}

/// A stored segment beside another file.
pub(crate) struct WalComparison {
    /// Where the two begin to differ; `None` if they are equal.
    pub(crate) differ: Option<u64>,
    /// What the records of the stored one say; `None` if they are not right.
    pub(crate) stored: Option<SegmentSummary>,
}

/// Compares a stored segment with another file to the end of both, and reads the records of the stored one.
pub(crate) fn compare_wal(
    name: SegmentName,
    stored: &mut dyn Contents,
    other: &mut dyn Contents,
    check: impl Fn() -> Result<(), Error>,
) -> Result<WalComparison, Error> {
    let (mut stored_chunk, mut other_chunk) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut reader = Some(SegmentReader::new(name));
    let (mut at, mut differ) = (0, None);
    loop {
        check()?;
        let bytes = stored.fill(&mut stored_chunk)?;
        let now = stored_chunk.get(..bytes).unwrap_or_default();
        if differ.is_none() {
            let other_bytes = other.fill(&mut other_chunk)?;
            let beside = other_chunk.get(..other_bytes).unwrap_or_default();
            differ = first_difference(now, beside).map(|offset| at + offset);
        }
        at += bytes as u64;
        reader = reader.and_then(|mut reader| {
            let fed = reader.feed(now, |_| ());
            fed.is_ok().then_some(reader)
        });
        if bytes < CHUNK_BYTES {
            let stored = reader.and_then(|reader| reader.finish().ok());
            return Ok(WalComparison { differ, stored });
        }
    }
}

/// The first offset at which the two are not the same; where one of them ends, if that is all.
fn first_difference(left: &[u8], right: &[u8]) -> Option<u64> {
    if left == right {
        return None;
    }
    let pairs = left.iter().zip(right);
    Some(pairs.take_while(|(left, right)| left == right).count() as u64)
}

/// Says of one file whose it is, as far as its first bytes tell, and when it was written.
pub(crate) fn describe(head: &[u8], modified: SystemTime) -> String {
    let time = rfc3339(modified);
    match LongPageHeader::parse(head) {
        Ok(header) => format!(
            "system identifier {}, timeline {}, written {time}",
            header.system, header.timeline
        ),
        Err(_) => format!("written {time}"),
    }
}

fn keep_head(head: &mut Vec<u8>, chunk: &[u8]) {
    let room = LONG_PAGE_HEADER_BYTES.saturating_sub(head.len());
    head.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
}
