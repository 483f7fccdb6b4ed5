//! The header of a WAL record.
//!
//! Guarantees the fields as they lie in WAL on a machine of this byte order, and that a header which passes
//! [`RecordHeader::check`] is one that the server would read on from. The checksum, which needs the rest of the record,
//! is left to the reader.

use crate::crc::Crc;
use crate::{Lsn, ResourceManager};

/// How many bytes a record's header has; no record is shorter.
///
/// Source: `SizeOfXLogRecord` in `xlogrecord.h`, 15 to 18.
pub const RECORD_HEADER_BYTES: usize = 24;

/// The longest record believed: the server's own bound for one piece of memory (`MaxAllocSize`), which 15 leaves to
/// its reader; 16 and later stop at 1020 MB (`XLogRecordMaxSize`).
const RECORD_BYTES_MAX: u32 = 0x3FFF_FFFF;

/// How many of the header's bytes its checksum covers, after the rest of the record.
const COVERED_BYTES: usize = 20;

/// Where the place of the record before stands.
const PREVIOUS_AT: std::ops::Range<usize> = 8..16;

/// A record's header.
///
/// Source: `XLogRecord` in `xlogrecord.h`, 15 to 18.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// How long the record is with its header, in bytes, without the headers of pages that it goes over.
    pub bytes: u32,
    /// The transaction that wrote it; 0 for none.
    pub xid: u32,
    /// Where the record before it begins.
    pub previous: Lsn,
    /// What the resource manager did, in the high half; flags of WAL itself in the low one.
    pub info: u8,
    /// The resource manager that wrote the record and replays it.
    pub manager: ResourceManager,
    /// CRC-32C of the record: first what is behind the header, then the header up to this field.
    pub crc: u32,
}

impl RecordHeader {
    /// Takes the fields apart.
    #[inline]
    pub(crate) fn read(bytes: &[u8; RECORD_HEADER_BYTES]) -> RecordHeader {
        let [
            b0,
            b1,
            b2,
            b3,
            x0,
            x1,
            x2,
            x3,
            p0,
            p1,
            p2,
            p3,
            p4,
            p5,
            p6,
            p7,
            info,
            manager,
            _,
            _,
            c0,
            c1,
            c2,
            c3,
        ] = *bytes;
        RecordHeader {
            bytes: u32::from_ne_bytes([b0, b1, b2, b3]),
            xid: u32::from_ne_bytes([x0, x1, x2, x3]),
            previous: Lsn(u64::from_ne_bytes([p0, p1, p2, p3, p4, p5, p6, p7])),
            info,
            manager: ResourceManager(manager),
            crc: u32::from_ne_bytes([c0, c1, c2, c3]),
        }
    }

    /// The header's bytes for a record that goes on with `rest`; length and checksum are made to fit.
    #[must_use]
    pub fn before(&self, rest: &[u8]) -> [u8; RECORD_HEADER_BYTES] {
        let bytes = u32::try_from(RECORD_HEADER_BYTES + rest.len()).unwrap_or(u32::MAX);
        let [b0, b1, b2, b3] = bytes.to_ne_bytes();
        let [x0, x1, x2, x3] = self.xid.to_ne_bytes();
        let [p0, p1, p2, p3, p4, p5, p6, p7] = self.previous.0.to_ne_bytes();
        let mut header = [
            b0,
            b1,
            b2,
            b3,
            x0,
            x1,
            x2,
            x3,
            p0,
            p1,
            p2,
            p3,
            p4,
            p5,
            p6,
            p7,
            self.info,
            self.manager.0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        let crc = checksum(&header, Crc::default().and(rest));
        if let Some(field) = header.last_chunk_mut() {
            *field = crc.to_ne_bytes();
        }
        header
    }

    /// Whether this can be the header of the record at `lsn`, with the record before it at `previous` if that is known.
    ///
    /// Source: `ValidXLogRecordHeader` in `xlogreader.c`, 15 to 18; but a resource manager that is not known here is left to
    /// the checksum, since later versions and forks have more of them.
    #[inline]
    pub(crate) fn check(&self, lsn: Lsn, previous: Option<Lsn>) -> Result<(), RecordProblem> {
        if self.bytes == 0 {
            return Err(RecordProblem::Zero);
        }
        if !(RECORD_HEADER_BYTES as u32..=RECORD_BYTES_MAX).contains(&self.bytes) {
            return Err(RecordProblem::Length { bytes: self.bytes });
        }
        match previous {
            Some(expected) if self.previous != expected => Err(RecordProblem::Previous {
                found: self.previous,
                expected,
            }),
            None if self.previous >= lsn => Err(RecordProblem::Later {
                found: self.previous,
            }),
            _ => Ok(()),
        }
    }

    /// What the resource manager did: the high half of `info`.
    #[must_use]
    #[inline]
    pub fn operation(&self) -> u8 {
        self.info & 0xF0
    }

    /// Whether the rest of its segment is unused (`XLOG_SWITCH`).
    #[must_use]
    #[inline]
    pub fn is_switch(&self) -> bool {
        self.manager == ResourceManager::XLOG && self.operation() == 0x40
    }
}

/// The checksum of a record whose rest has the checksum `rest`.
#[inline]
pub(crate) fn checksum(header: &[u8; RECORD_HEADER_BYTES], rest: Crc) -> u32 {
    rest.and(header.get(..COVERED_BYTES).unwrap_or_default())
        .value()
}

/// The same header as it would be behind another record.
pub(crate) fn behind(
    header: &[u8; RECORD_HEADER_BYTES],
    previous: Lsn,
) -> [u8; RECORD_HEADER_BYTES] {
    let mut changed = *header;
    if let Some(field) = changed.get_mut(PREVIOUS_AT) {
        field.copy_from_slice(&previous.0.to_ne_bytes());
    }
    changed
}

/// The same header with another length.
pub(crate) fn of_length(
    header: &[u8; RECORD_HEADER_BYTES],
    bytes: u32,
) -> [u8; RECORD_HEADER_BYTES] {
    let mut changed = *header;
    if let Some(field) = changed.get_mut(..4) {
        field.copy_from_slice(&bytes.to_ne_bytes());
    }
    changed
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordProblem {
    #[error("there are zeros where a record should begin")]
    Zero,
    #[error("the record has an impossible length of {bytes} bytes")]
    Length { bytes: u32 },
    #[error(
        "the record names {found} as the place of the record before it, which is at {expected}"
    )]
    Previous { found: Lsn, expected: Lsn },
    #[error("the record names {found}, which lies behind it, as the place of the record before it")]
    Later { found: Lsn },
    #[error("the record has checksum {found:08X} instead of {expected:08X}")]
    Checksum { found: u32, expected: u32 },
    #[error("the record of {bytes} bytes is not all there")]
    Incomplete { bytes: u32 },
    #[error("the bytes between the end of the record and the next one are not zero")]
    Padding,
    #[error("the record should say that the one at {expected} was never finished")]
    Overwrite { expected: Lsn },
}
