//! Are two files' contents equal, byte for byte to their ends? And if not, in words: where, and whose is
//! which.
//!
//! Whole files are compared, never only up to the end of valid WAL: a partial segment and the last segment
//! of a timeline end in stale bytes, and a difference there still means two different writers.

use std::time::SystemTime;

use wal::{LONG_PAGE_HEADER_BYTES, LongPageHeader};

use crate::codec::{CHUNK_BYTES, Contents};
use crate::error::Error;
use crate::options::Cancel;
use crate::time::rfc3339;

/// What a comparison found.
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
        if left_now != right_now {
            let common = left_now
                .iter()
                .zip(right_now)
                .take_while(|(l, r)| l == r)
                .count();
            let at = at + common as u64;
            return Ok(Comparison::Differ {
                at,
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
