//! The end of a record that began in an earlier segment.
//!
//! Guarantees what is needed to check that record once its beginning is known, in bounded memory, and whichever of the two
//! segments is read first.

use super::open::{KEPT_BYTES, Open};
use crate::RECORD_HEADER_BYTES;
use crate::crc::Crc;

/// How many of the first bytes may belong to the record's header: records begin at multiples of eight.
const MAYBE_HEADER: usize = RECORD_HEADER_BYTES - 8;

/// The bytes that a segment begins with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    /// How many there are in this segment and later ones.
    pub(crate) total: u32,
    /// How many have been seen in this segment.
    pub(crate) seen: u32,
    /// Of those behind the first [`MAYBE_HEADER`].
    crc: Crc,
    /// The first ones, up to [`KEPT_BYTES`].
    kept: Vec<u8>,
}

impl Head {
    pub(crate) fn new(total: u32) -> Head {
        Head {
            total,
            ..Head::default()
        }
    }

    /// How many bytes are still to come.
    pub(crate) fn remaining(&self) -> u32 {
        self.total.saturating_sub(self.seen)
    }

    /// The next bytes of it.
    pub(crate) fn go_on(&mut self, bytes: &[u8]) {
        let maybe_header = MAYBE_HEADER
            .saturating_sub(self.seen as usize)
            .min(bytes.len());
        self.crc = self.crc.and(bytes.get(maybe_header..).unwrap_or_default());
        self.seen = self
            .seen
            .saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        let room = KEPT_BYTES.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept
            .extend_from_slice(bytes.get(..room).unwrap_or_default());
    }

    /// The record, with what this segment has of it behind what is known of it already.
    pub(crate) fn behind(&self, open: &Open) -> Open {
        let mut whole = open.clone();
        let first = self.kept.get(..MAYBE_HEADER).unwrap_or(&self.kept);
        whole.go_on(first);
        let rest = (self.seen as usize).saturating_sub(first.len());
        whole.crc = whole.crc.and_those_of(self.crc, rest);
        whole.seen = whole
            .seen
            .saturating_add(u32::try_from(rest).unwrap_or(u32::MAX));
        let room = KEPT_BYTES.saturating_sub(whole.kept.len());
        let more = self.kept.get(first.len()..).unwrap_or_default();
        whole
            .kept
            .extend_from_slice(more.get(..room.min(more.len())).unwrap_or_default());
        whole
    }
}
