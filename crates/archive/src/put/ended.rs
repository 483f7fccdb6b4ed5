//! A segment in which WAL ends, though its name says that it is complete.
//!
//! A standby that archives what it receives (`archive_mode = always`) hands its segment over when the server that it receives
//! from has left the timeline inside it (`WalReceiverMain`, 15 to 19): a complete name, and a file that is cut. Stored
//! under that name it would stand in the way of the segment that another server may complete, and recovery would take WAL for
//! ended there. So
//! * it counts as archived where what is stored under its name holds all its records;
//! * it is stored as the partial segment that a promotion makes of such a file, or found to be stored as one, once its folder
//!   shows that the server has left the timeline;
//! * else it is not complete, and not archived.
//!
//! A folder shows that by a timeline history file that leaves the timeline in the segment and not before its WAL ends, which a
//! walreceiver writes before it hands the segment over; or by one that leaves it anywhere before the next segment, with WAL
//! of the later timeline beside it. A history alone may be one that recovery has rejected. Whether the server is in recovery
//! does not matter: on a standby everything of the next timeline waits behind this name.
//!
//! Partial segments are compared by their records: behind the end of WAL each server has stale bytes of its own.
//!
//! Guarantees that records which are acknowledged are stored, or lie behind the place where their server left their timeline:
//! that is told with a warning.

use wal::{LONG_PAGE_HEADER_BYTES, Lsn, SegmentEnd, SegmentSummary, WalFileName};

use super::{Made, Offer, Put};
use crate::error::{Error, ErrorKind, Mark};
use crate::format::compare::compare_wal;
use crate::format::workspace::Workspace;
use crate::pg_wal::folder::{has_wal_of, histories_in};
use crate::store::key::key_of;
use crate::store::waist::Object;

/// Bytes of the header of a page that is not the first.
const SHORT_PAGE_HEADER_BYTES: u64 = 24;

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
        if let Some(summary) = summary {
            return Ok(summary.is_cut().then(|| summary.clone()));
        }
        // Records are read for this alone if nothing shows that WAL goes on.
        let Some(size) = self.owner.segment_size else {
            return Ok(None);
        };
        match own.next(size) {
            Some(next) if !self.source.has_sibling(&next) => {
                Ok(self.read_records(own)?.filter(SegmentSummary::is_cut))
            }
            _ => Ok(None),
        }
    }

    /// Whether this is a partial segment in which WAL ends, as far as its records can be read.
    pub(super) fn is_cut_partial(&mut self) -> Result<bool, Error> {
        let WalFileName::Partial(own) = *self.name else {
            return Ok(false);
        };
        let summary = self.read_records(own)?;
        Ok(summary.is_some_and(|summary| summary.is_cut()))
    }

    /// Archives a segment of whose name there is a file.
    pub(super) fn put_beside(
        mut self,
        object: Object,
        workspace: &mut Workspace,
    ) -> Result<Put, Error> {
        match self.must_be_stored(object) {
            Ok(()) => Ok(Put::AlreadyStored),
            // What is there cannot be read: the partial segment is beside it, and not in the way.
            Err(error) if error.mark() == Some(Mark::CannotCompare) => {
                match self.ends_inside(None)? {
                    Some(summary) if self.was_left(&summary) => {
                        self.put_partial(&summary, workspace)
                    }
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Archives a segment in which WAL ends, as the file's header says.
    pub(super) fn put_ended(
        self,
        summary: &SegmentSummary,
        workspace: &mut Workspace,
    ) -> Result<Put, Error> {
        self.must_fit(summary)?;
        if let Some(object) = self.archive.store.open(&self.key)? {
            return self.put_beside(object, workspace);
        }
        if self.was_left(summary) {
            return self.put_partial(summary, workspace);
        }
        Err(Error::unusable(format!(
            "{} is not complete: its WAL ends after {} bytes, without a switch to the next segment",
            self.source.shown,
            wal_bytes(summary)
        ))
        .with_hint(format!(
            "It will be archived as \"{}\" once this server has left timeline {}. If the server that wrote it is gone for \
             good, copy it to a file of that name, and archive that.",
            WalFileName::Partial(summary.name),
            summary.name.timeline()
        )))
    }

    fn put_partial(
        self,
        summary: &SegmentSummary,
        workspace: &mut Workspace,
    ) -> Result<Put, Error> {
        let name = WalFileName::Partial(summary.name);
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

    /// Whether the folder shows that the server has left the segment's timeline: see the file's header.
    fn was_left(&self, summary: &SegmentSummary) -> bool {
        let Some(folder) = self.source.directory() else {
            return false;
        };
        let (header, timeline) = (&summary.header, self.name.timeline());
        let begin = header.address.0;
        let next = begin.saturating_add(header.segment_size.bytes());
        // Of a segment without a record of its own it is not known where the one before ended.
        let has_records = summary.first.is_some() || summary.records > 0;
        let end = if has_records {
            begin + wal_bytes(summary)
        } else {
            0
        };
        histories_in(folder).iter().any(|history| {
            let left = history.left(timeline).filter(|left| left.0 < next);
            left.is_some_and(|left| left.0 >= end || has_wal_of(folder, history.timeline()))
        })
    }

    /// Whether the stored file of this name, whose bytes are others, holds the same records as this one as far as both go, and
    /// goes as far as this one, unless what is behind was left with the timeline.
    ///
    /// Fails with [`ErrorKind::Conflict`] if only that is missing.
    pub(super) fn agrees_with_stored(&mut self) -> Result<bool, Error> {
        let (WalFileName::Segment(own) | WalFileName::Partial(own)) = *self.name else {
            return Ok(false);
        };
        let Some(ours) = self.read_records(own)? else {
            return Ok(false);
        };
        let is_partial = matches!(self.name, WalFileName::Partial(_));
        if !is_partial && !ours.is_cut() {
            return Ok(false);
        }
        let object = self.reopened()?;
        let mut stored = self.archive.decode(object, &self.key)?;
        self.source.rewind()?;
        let (cancel, what) = (self.cancel, self.what());
        let check = || cancel.check(&what);
        let compared = match compare_wal(own, &mut stored, &mut self.source, check) {
            Err(error) if error.kind() == ErrorKind::Damaged => return Ok(false),
            compared => compared?,
        };
        let Some(theirs) = compared.stored else {
            return Ok(false);
        };
        let (here, there) = (wal_bytes(&ours), wal_bytes(&theirs));
        if compared.differ.is_some_and(|at| at < here.min(there)) {
            return Ok(false);
        }
        if there < here {
            self.may_drop(&ours, there)?;
        }
        Ok(true)
    }

    /// Whether records behind so many bytes of the segment may be acknowledged without being stored.
    fn may_drop(&self, ours: &SegmentSummary, stored: u64) -> Result<(), Error> {
        let begin = ours.header.address.0;
        let (from, to) = (Lsn(begin + stored), Lsn(begin + wal_bytes(ours)));
        let shown = self.archive.shown(&self.key);
        if self.was_left(ours) {
            self.archive.run.warn(format!(
                "WAL of timeline {} from {from} to {to} is not archived: {} holds it, archive file \"{shown}\" does not, \
                 and this server has left the timeline",
                self.name.timeline(),
                self.source.shown
            ));
            return Ok(());
        }
        Err(Error::conflict(format!(
            "archive file \"{shown}\" already exists with the same records, but ends at {from}, and {} at {to}",
            self.source.shown
        ))
        .with_hint(format!(
            "To keep those records, move \"{shown}\" away by hand, and archive the file again."
        )))
    }
}

/// How many bytes of a segment are WAL: all, unless WAL ends in it. A page of which only the header is there does not count.
pub(super) fn wal_bytes(summary: &SegmentSummary) -> u64 {
    let header = &summary.header;
    match summary.end() {
        SegmentEnd::Full | SegmentEnd::Switched(_) => header.segment_size.bytes(),
        // A record that was never finished may have begun in an earlier segment.
        SegmentEnd::Ended(lsn) if lsn < header.address => 0,
        SegmentEnd::Ended(lsn) => {
            let bytes = lsn.offset_in_segment(header.segment_size);
            let in_page = bytes % u64::from(header.block_size);
            let is_bare = if bytes == in_page {
                in_page <= LONG_PAGE_HEADER_BYTES as u64
            } else {
                in_page == SHORT_PAGE_HEADER_BYTES
            };
            if is_bare { bytes - in_page } else { bytes }
        }
    }
}

#[cfg(test)]
mod tests;
