//! A segment in which WAL ends, though its name says that it is complete.
//!
//! A standby that archives what it receives (`archive_mode = always`) hands its segment over when the server that it receives
//! from has left the timeline inside it (`WalReceiverMain`, 15 to 19): a complete name, and a file that is cut. Stored
//! under that name it would stand in the way of the segment that another server may complete, and recovery would take WAL for
//! ended there. So
//! * it counts as archived where what is stored under its name holds all its records;
//! * it is stored as the partial segment that a promotion makes of such a file, or found to be stored as one, once a timeline
//!   history file beside it says that the timeline was left inside it;
//! * else it is not complete, and not archived.
//!
//! Partial segments are compared by their records: behind the end of WAL each server has stale bytes of its own.
//!
//! Guarantees that records which are acknowledged, and not stored under the segment's own name, are ones that the first segment
//! of the timeline that was followed holds, too (`XLogInitNewTimeline`, 15 to 19).

use wal::{LONG_PAGE_HEADER_BYTES, LongPageHeader, Lsn, SegmentEnd, SegmentSummary, WalFileName};

use super::{Made, Offer, Put};
use crate::compare::compare_wal;
use crate::error::Error;
use crate::key::key_of;
use crate::wal_folder::histories_in;
use crate::workspace::Workspace;

/// Bytes of a page's header that say whose page it is.
const PAGE_HEAD_BYTES: usize = 16;

impl Offer<'_> {
    /// What the records of a segment say in which WAL ends; `None` for every other file. `summary` is of its records, where they
    /// were read.
    pub(super) fn ends_inside(
        &mut self,
        summary: Option<&SegmentSummary>,
    ) -> Result<Option<SegmentSummary>, Error> {
        let WalFileName::Segment(own) = *self.name else {
            return Ok(None);
        };
        let summary = match summary {
            Some(summary) => Some(summary.clone()),
            None if self.may_end_inside()? => self.read_records(own)?,
            None => None,
        };
        Ok(summary.filter(|summary| matches!(summary.end(), SegmentEnd::Ended(_))))
    }

    /// Whether records have to be read to tell, where nobody has asked for that: the last page is not of its place, as after the
    /// end of WAL or a switch, or the timeline was left in this segment.
    fn may_end_inside(&mut self) -> Result<bool, Error> {
        let mut head = [0; LONG_PAGE_HEADER_BYTES];
        self.source.read_at(&mut head, 0)?;
        let Ok(header) = LongPageHeader::parse(&head) else {
            return Ok(false);
        };
        let last = header.segment_size.bytes() - u64::from(header.block_size);
        let mut page = [0; PAGE_HEAD_BYTES];
        self.source.read_at(&mut page, last)?;
        let reaches = header.is_page_at(Lsn(header.address.0 + last), &page);
        Ok(!reaches || self.left_in(&header, header.address).is_some())
    }

    /// Archives a segment in which WAL ends, as the file's header says.
    pub(super) fn put_ended(
        mut self,
        summary: &SegmentSummary,
        workspace: &mut Workspace,
    ) -> Result<Put, Error> {
        if let Some(object) = self.archive.store.open(&self.key)? {
            self.must_be_stored(object)?;
            return Ok(Put::AlreadyStored);
        }
        let name = WalFileName::Partial(summary.name);
        if !self.was_left(summary) {
            return Err(self.not_yet(summary, &name));
        }
        let mut partial = Offer {
            name: &name,
            key: key_of(&name),
            ..self
        };
        if let Made::Exists = partial.create(workspace)? {
            let object = partial.reopened()?;
            partial.must_be_stored(object)?;
        }
        Ok(Put::AsPartial)
    }

    fn not_yet(&self, summary: &SegmentSummary, partial: &WalFileName) -> Error {
        let end = wal_bytes(summary);
        Error::unusable(format!(
            "{} is not complete: its WAL ends after {end} bytes, without a switch to the next segment",
            self.source.shown
        ))
        .with_hint(format!(
            "It will be archived as \"{partial}\" once a timeline history file beside it says that timeline {} was left \
             there. If the server that wrote it is gone for good, archive a copy of that name.",
            summary.name.timeline()
        ))
    }

    /// Whether a timeline history file beside the segment says that its timeline was left in it, not before WAL ends in it.
    fn was_left(&self, summary: &SegmentSummary) -> bool {
        let from = Lsn(summary.header.address.0 + wal_bytes(summary));
        self.left_in(&summary.header, from).is_some()
    }

    /// Where a timeline history file beside the segment says that its timeline was left in it, at this place or behind.
    fn left_in(&self, header: &LongPageHeader, from: Lsn) -> Option<Lsn> {
        let timeline = self.name.timeline();
        let size = header.segment_size;
        histories_in(self.source.directory()?)
            .iter()
            .filter_map(|history| history.left(timeline))
            .find(|left| *left >= from && left.segment(size) == header.address.segment(size))
    }

    /// Whether the stored file of this name, whose bytes are others, holds the same records as this one as far as both go, and
    /// nothing more is asked: it goes as far as this one, or the timeline was left in this one.
    pub(super) fn agrees_with_stored(&mut self) -> Result<bool, Error> {
        let (WalFileName::Segment(own) | WalFileName::Partial(own)) = *self.name else {
            return Ok(false);
        };
        let Some(ours) = self.read_records(own)? else {
            return Ok(false);
        };
        let is_partial = matches!(self.name, WalFileName::Partial(_));
        if !is_partial && !matches!(ours.end(), SegmentEnd::Ended(_)) {
            return Ok(false);
        }
        let object = self.reopened()?;
        let mut stored = self.archive.decode(object, &self.key)?;
        self.source.rewind()?;
        let (cancel, what) = (self.cancel, self.what());
        let check = || cancel.check(&what);
        let compared = compare_wal(own, &mut stored, &mut self.source, check)?;
        let Some(theirs) = compared.stored else {
            return Ok(false);
        };
        let shared = wal_bytes(&ours).min(wal_bytes(&theirs));
        let agree = compared.differ.is_none_or(|at| at >= shared);
        let goes_as_far = wal_bytes(&theirs) >= wal_bytes(&ours);
        Ok(agree && (goes_as_far || is_partial || self.was_left(&ours)))
    }
}

/// How many bytes of a segment are WAL: all, unless WAL ends in it.
pub(super) fn wal_bytes(summary: &SegmentSummary) -> u64 {
    let size = summary.header.segment_size;
    match summary.end() {
        SegmentEnd::Full | SegmentEnd::Switched(_) => size.bytes(),
        SegmentEnd::Ended(lsn) => lsn.offset_in_segment(size),
    }
}

#[cfg(test)]
mod tests;
