//! WAL files made up for tests: right in everything that an archive looks at, meaningless behind that.

use std::io::{Cursor, Write};

use fastrand::Rng;
use wal::{
    LONG_PAGE_HEADER_BYTES, Lsn, RECORD_HEADER_BYTES, RecordHeader, ResourceManager, SegmentName,
    SegmentSize, SystemIdentifier, TimelineId,
};

/// PostgreSQL 15's page magic, the flag of a long header, and the usual page size.
const MAGIC: u16 = 0xD110;
const LONG_HEADER: u16 = 0x0002;
const BLOCK_BYTES: u32 = 8192;
/// The record after which a segment is unused (`pg_control.h`).
const XLOG_SWITCH: u8 = 0x40;

/// A segment of that name, size and system. `variant` chooses what stands behind the header.
///
/// Empty if there is no such segment at that size.
pub fn segment(
    name: &SegmentName,
    size: SegmentSize,
    system: SystemIdentifier,
    variant: u64,
) -> Vec<u8> {
    let Some(start) = name.start(size) else {
        return Vec::new();
    };
    let length = usize::try_from(size.bytes()).unwrap_or_default();
    let mut random = Rng::with_seed(variant);
    // Real WAL compresses about threefold: half random, half repeated.
    let pattern: Vec<u8> = (0..512)
        .map(|i| if i < 256 { random.u8(..) } else { 0 })
        .collect();
    let mut bytes = pattern.repeat(length / pattern.len());
    let header = [
        &MAGIC.to_ne_bytes()[..],
        &LONG_HEADER.to_ne_bytes(),
        &name.timeline().get().to_ne_bytes(),
        &start.0.to_ne_bytes(),
        // No record goes on from the page before; and padding.
        &[0; 8],
        &system.0.to_ne_bytes(),
        &u32::try_from(size.bytes())
            .unwrap_or_default()
            .to_ne_bytes(),
        &BLOCK_BYTES.to_ne_bytes(),
        &switch_behind(start, size),
    ]
    .concat();
    // A vector as long as a segment has room for a header, so this cannot fail.
    let _ = Cursor::new(bytes.as_mut_slice()).write_all(&header);
    bytes
}

/// A switch as the segment's only record, behind that of the segment before: nobody looks at what stands behind it.
fn switch_behind(start: Lsn, size: SegmentSize) -> [u8; RECORD_HEADER_BYTES] {
    let before = start.0.saturating_sub(size.bytes()) + LONG_PAGE_HEADER_BYTES as u64;
    let switch = RecordHeader {
        bytes: 0,
        xid: 0,
        previous: Lsn(if start.0 == 0 { 0 } else { before }),
        info: XLOG_SWITCH,
        manager: ResourceManager::XLOG,
        crc: 0,
    };
    switch.before(&[])
}

/// The timeline history file of a timeline that left its parent at `switchpoint`, which reads like
/// `0/3000000`.
pub fn timeline_history(parent: TimelineId, switchpoint: &str, reason: &str) -> Vec<u8> {
    format!("{}\t{switchpoint}\t{reason}\n", parent.get()).into_bytes()
}
