//! What lies in a folder of WAL, as a server's `pg_wal` is one: segments, by their records, and timeline history files.
//!
//! Guarantees that what is there is what can be read and understood: any other file counts as none, is not waited for, and is not
//! read further than such a file may be long. Whose WAL it is, is left to the caller.

use std::io::Read;
use std::path::Path;

use wal::{
    LONG_PAGE_HEADER_BYTES, LongPageHeader, SegmentName, SegmentReader, SegmentSummary,
    TimelineHistory, TimelineId, WalFileName,
};

use crate::base::regular::open_regular;
use crate::error::Error;
use crate::format::check::HISTORY_BYTES_MAX;
use crate::format::codec::{CHUNK_BYTES, Contents};
use crate::pg_wal::source::Source;

/// What the records of a segment in this folder say. Reads it to its end.
pub fn segment_in(folder: &Path, name: SegmentName) -> Option<SegmentSummary> {
    let mut source = Source::open(&folder.join(name.to_string())).ok()?;
    summary_of(&mut source, name, || Ok(())).ok()?
}

/// What the records of a segment say, wherever it comes from; `None` if they are not right.
///
/// Fails if its contents cannot be had, and as `check` does, which is asked between two pieces of them.
pub(crate) fn summary_of(
    contents: &mut dyn Contents,
    name: SegmentName,
    check: impl Fn() -> Result<(), Error>,
) -> Result<Option<SegmentSummary>, Error> {
    let mut reader = SegmentReader::new(name);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        check()?;
        let bytes = contents.fill(&mut chunk)?;
        let now = chunk.get(..bytes).unwrap_or_default();
        if reader.feed(now, |_| ()).is_err() {
            return Ok(None);
        }
        if bytes < CHUNK_BYTES {
            return Ok(reader.finish().ok());
        }
    }
}

/// The timeline history file of this timeline in this folder.
pub fn history_in(folder: &Path, timeline: TimelineId) -> Option<TimelineHistory> {
    let name = WalFileName::TimelineHistory(timeline).to_string();
    let file = open_regular(&folder.join(name)).ok()?;
    let mut text = Vec::new();
    let read = file.take(HISTORY_BYTES_MAX + 1).read_to_end(&mut text);
    if read.ok()? as u64 > HISTORY_BYTES_MAX {
        return None;
    }
    TimelineHistory::parse(timeline, &text).ok()
}

/// All the timeline history files in this folder, the oldest timeline's first.
pub fn histories_in(folder: &Path) -> Vec<TimelineHistory> {
    let mut histories: Vec<TimelineHistory> = names_in(folder)
        .filter_map(|name| match name {
            WalFileName::TimelineHistory(timeline) => history_in(folder, timeline),
            _ => None,
        })
        .collect();
    histories.sort_by_key(TimelineHistory::timeline);
    histories
}

/// Whether this folder holds a segment of this timeline: one that begins as its name says, and is not what a recycled one held.
pub(crate) fn has_wal_of(folder: &Path, timeline: TimelineId) -> bool {
    names_in(folder).any(|name| match name {
        WalFileName::Segment(segment) if segment.timeline() == timeline => {
            header_in(folder, segment).is_some_and(|header| header.check_name(&segment).is_ok())
        }
        _ => false,
    })
}

/// The names of WAL files in this folder, in no order.
fn names_in(folder: &Path) -> impl Iterator<Item = WalFileName> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The first page's header of a segment in this folder.
pub(crate) fn header_in(folder: &Path, name: SegmentName) -> Option<LongPageHeader> {
    let mut head = [0; LONG_PAGE_HEADER_BYTES];
    let mut file = open_regular(&folder.join(name.to_string())).ok()?;
    file.read_exact(&mut head).ok()?;
    LongPageHeader::parse(&head).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fixtures::Written;

    #[test]
    fn a_segment_is_there_only_if_its_records_are_right() {
        let mut wal = Written::new();
        wal.fill(1 << 20);
        let (name, bytes) = wal.segments(1).remove(0);
        let dir = tempfile::tempdir().unwrap();
        assert!(segment_in(dir.path(), name).is_none());
        let path = dir.path().join(name.to_string());
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(segment_in(dir.path(), name).unwrap().name, name);
        let mut damaged = bytes.clone();
        damaged[5000] ^= 4;
        for wrong in [&damaged[..], &bytes[..bytes.len() / 2], b""] {
            std::fs::write(&path, wrong).unwrap();
            assert!(segment_in(dir.path(), name).is_none());
        }
    }

    #[test]
    fn histories_are_those_that_can_be_understood_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| std::fs::write(dir.path().join(name), text).unwrap();
        write("0000000A.history", b"1\t0/5000000\tx\n");
        write("00000002.history", b"1\t0/3000000\tx\n");
        write("00000003.history", b"rubbish");
        write("00000004.history.zst", b"1\t0/3000000\tx\n");
        std::fs::create_dir(dir.path().join("00000005.history")).unwrap();
        // Lines without end, of which the first ones would do.
        let long = b"1\t0/3000000\tx\n#".repeat(100_000);
        write("00000006.history", &long);
        let timelines: Vec<u32> = histories_in(dir.path())
            .iter()
            .map(|history| history.timeline().get())
            .collect();
        assert_eq!(timelines, [2, 10]);
        assert!(histories_in(&dir.path().join("none")).is_empty());
    }
}
