//! Segments in a directory, read one after the other as one stream.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use wal::{ReadError, Record, SegmentName, SegmentReader, SegmentSummary, WalFileName};

/// How many bytes are handed to a reader at once, as the engine does.
const PIECE_BYTES: usize = 256 * 1024;

/// The names of a timeline's segments in a directory, in order.
pub(crate) fn of_timeline(dir: &Path, timeline: u32) -> Result<Vec<SegmentName>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let parsed = name.to_str().and_then(|name| name.parse().ok());
        if let Some(WalFileName::Segment(segment)) = parsed
            && segment.timeline().get() == timeline
        {
            names.push(segment);
        }
    }
    names.sort();
    Ok(names)
}

/// Reads a segment.
pub(crate) fn read(
    name: SegmentName,
    bytes: &[u8],
    mut visit: impl FnMut(&Record<'_>),
) -> Result<SegmentSummary, ReadError> {
    let mut reader = SegmentReader::new(name);
    for piece in bytes.chunks(PIECE_BYTES) {
        reader.feed(piece, &mut visit)?;
    }
    reader.finish()
}

/// Reads segments that follow one another; `visit` makes something of each record, and `take` gets that in the order of the
/// records. Returns the bytes read.
pub(crate) fn read_all<T>(
    dir: &Path,
    names: &[SegmentName],
    mut visit: impl FnMut(&Record<'_>) -> T,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<u64> {
    let mut before: Option<SegmentSummary> = None;
    let mut bytes = 0;
    for name in names {
        let file = fs::read(dir.join(name.to_string()))?;
        bytes += file.len() as u64;
        let mut seen = Vec::new();
        let mut summary = read(*name, &file, |record| seen.push(visit(record)))
            .with_context(|| format!("in \"{name}\""))?;
        if let Some(before) = &before {
            let mut over = None;
            before.join(&mut summary, |record| over = Some(visit(record)))?;
            over.map_or(Ok(()), &mut take)?;
        }
        seen.into_iter().try_for_each(&mut take)?;
        before = Some(summary);
    }
    Ok(bytes)
}
