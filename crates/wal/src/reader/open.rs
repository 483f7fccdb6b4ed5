//! A record that goes over the end of a page.
//!
//! Guarantees bounded memory, however long the record is: what lies on the first page, and as much of the rest as taking it
//! apart needs.

use crate::crc::Crc;
use crate::record::FRONT_BYTES;
use crate::record_header::checksum;
use crate::{Lsn, RECORD_HEADER_BYTES, RecordHeader};

/// How many bytes of a record are kept at least, if it has them.
pub(crate) const KEPT_BYTES: usize = RECORD_HEADER_BYTES + FRONT_BYTES;

/// A record of which some bytes are still to come.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    /// LSN at which the record begins.
    pub(crate) lsn: Lsn,
    /// How long it is, in bytes.
    pub(crate) total: u32,
    /// How many of them have been seen.
    pub(crate) seen: u32,
    /// Of those seen, and not of the header.
    pub(crate) crc: Crc,
    /// Its first bytes: those on its first page, and up to [`KEPT_BYTES`].
    pub(crate) kept: Vec<u8>,
}

impl Open {
    /// A record of which these bytes lie on the page that it begins on; `kept` is memory to use again.
    pub(crate) fn begin(lsn: Lsn, total: u32, bytes: &[u8], mut kept: Vec<u8>) -> Open {
        kept.clear();
        kept.extend_from_slice(bytes);
        let seen = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let rest = bytes.get(RECORD_HEADER_BYTES..).unwrap_or_default();
        Open {
            lsn,
            total,
            seen,
            crc: Crc::default().and(rest),
            kept,
        }
    }

    /// How many bytes are still to come.
    pub(crate) fn remaining(&self) -> u32 {
        self.total.saturating_sub(self.seen)
    }

    /// The next bytes of it.
    pub(crate) fn go_on(&mut self, bytes: &[u8]) {
        let of_header = RECORD_HEADER_BYTES
            .saturating_sub(self.seen as usize)
            .min(bytes.len());
        self.crc = self.crc.and(bytes.get(of_header..).unwrap_or_default());
        self.seen = self
            .seen
            .saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        let room = KEPT_BYTES.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept
            .extend_from_slice(bytes.get(..room).unwrap_or_default());
    }

    /// The header, once all of it has been seen.
    pub(crate) fn header(&self) -> Option<RecordHeader> {
        self.kept.first_chunk().map(RecordHeader::read)
    }

    /// What the checksum of the record is, once all of it has been seen.
    pub(crate) fn checksum(&self) -> Option<u32> {
        self.kept
            .first_chunk()
            .map(|header| checksum(header, self.crc))
    }

    /// Without the bytes that were kept only to look at its page again.
    pub(crate) fn trimmed(mut self) -> Open {
        self.kept.truncate(KEPT_BYTES);
        self.kept.shrink_to_fit();
        self
    }

    /// The first bytes behind the header.
    pub(crate) fn front(&self) -> &[u8] {
        self.kept.get(RECORD_HEADER_BYTES..).unwrap_or_default()
    }
}
