//! What is known of a segment once it was read, and how two of them fit together.
//!
//! Guarantees that segments can be read in any order, by any number of readers, and still be checked as one stream: the record
//! that goes over their boundary included. Which segment follows which is left to the caller.

use super::head::Head;
use super::open::Open;
use crate::damage::{Damage, JoinProblem};
use crate::record_header::RecordProblem;
use crate::{LongPageHeader, Lsn, Record, ResourceManager, SegmentName, TimelineId};

/// A segment that was read to its end without finding damage. About 200 bytes, and up to 2 kB
/// for each of the two records that may go over its ends.
#[derive(Clone, Debug)]
pub struct SegmentSummary {
    /// The name that it was read under.
    pub name: SegmentName,
    /// The header of its first page.
    pub header: LongPageHeader,
    /// The timeline at its end: the one in its name, except where WAL ends before.
    pub timeline: TimelineId,
    /// How many records end in it and were checked; the one from the segment before is not among them.
    pub records: u64,
    /// Where the first record begins that does, and where the one before it; `None` if none begins here.
    pub first: Option<(Lsn, Lsn)>,
    /// Where the last record begins that ends here, or the one that a promotion gave up.
    pub(crate) last: Option<Lsn>,
    pub(crate) head: Head,
    pub(crate) tail: Tail,
    /// Whether the record before the segment was given up at its beginning.
    pub(crate) gives_up: bool,
}

/// How a segment ends.
#[derive(Clone, Debug)]
pub(crate) enum Tail {
    /// With the end of a record.
    Full,
    /// In the middle of a record.
    Open(Box<Open>),
    /// In the middle of a record that began in an earlier segment: it has nothing else.
    Through,
    /// With a switch: the rest is unused.
    Switched(Lsn),
    /// WAL ends at this LSN, before the end of the segment.
    Ended(Lsn),
}

/// How the WAL in a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentEnd {
    /// It goes on in the next segment.
    Full,
    /// The rest of the segment is unused, since the record at this place; WAL goes on in the next segment.
    Switched(Lsn),
    /// No record that follows the others begins here: the rest is what the file held before, or zeros. A record that began here
    /// and was never finished counts as the end, too.
    Ended(Lsn),
}

impl SegmentSummary {
    /// How the segment ends.
    #[must_use]
    pub fn end(&self) -> SegmentEnd {
        match self.tail {
            Tail::Full | Tail::Open(_) | Tail::Through => SegmentEnd::Full,
            Tail::Switched(lsn) => SegmentEnd::Switched(lsn),
            Tail::Ended(lsn) => SegmentEnd::Ended(lsn),
        }
    }

    /// Whether WAL ends in the segment: it does not go on in the next one.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        matches!(self.tail, Tail::Ended(_))
    }

    /// Whether `next`, by its name, goes on where this segment ends: it is the next one on the same timeline, or on one that
    /// begins in it.
    #[must_use]
    pub fn precedes(&self, next: &SegmentSummary) -> bool {
        let end = self
            .header
            .address
            .0
            .checked_add(self.header.segment_size.bytes());
        end == Some(next.header.address.0) && self.name.timeline() == next.header.timeline
    }

    /// Checks that `next` goes on where this segment ends, and `visit`s the record that goes over the boundary, if there is one
    /// and it ends there. What is known of a record that goes on even further is handed to `next`.
    ///
    /// # Errors
    /// When `next` is not what was written behind this segment, or the record between them is damaged.
    pub fn join(
        &self,
        next: &mut SegmentSummary,
        visit: impl FnOnce(&Record<'_>),
    ) -> Result<(), Damage> {
        let at = next.header.address;
        let wrong = |problem| Damage::new(at, problem);
        self.check_place(next).map_err(wrong)?;
        // A record that was given up at the boundary has no end.
        let expected = match &self.tail {
            Tail::Open(_) | Tail::Through if next.gives_up => 0,
            Tail::Open(open) => open.remaining(),
            Tail::Through => self.head.remaining(),
            _ => 0,
        };
        let found = next.head.total;
        if found != expected {
            return Err(wrong(JoinProblem::Head { found, expected }));
        }
        let open = match &self.tail {
            Tail::Open(open) if found > 0 => open,
            // The place of its beginning is not known.
            Tail::Through => return Ok(()),
            _ => return check_previous(self.last, next),
        };
        let whole = next.head.behind(open);
        if whole.remaining() > 0 {
            if matches!(next.tail, Tail::Through) {
                next.tail = Tail::Open(Box::new(whole));
                next.last = self.last;
            }
            return Ok(());
        }
        check_whole(&whole, self.last)?;
        check_previous(Some(whole.lsn), next)?;
        if self.begins_over_boundary(next) && !is_about_wal(&whole) {
            return Err(wrong(self.other_timeline(next)));
        }
        if next.first.is_none() {
            next.last = Some(whole.lsn);
        }
        if let Some(header) = whole.header() {
            let bytes = page_bytes(next, u64::from(next.head.total));
            let end = Lsn(at.0.saturating_add(bytes));
            visit(&Record {
                lsn: whole.lsn,
                end,
                header,
                magic: next.header.magic,
                front: whole.front(),
            });
        }
        Ok(())
    }

    fn check_place(&self, next: &SegmentSummary) -> Result<(), JoinProblem> {
        if self.header.system != next.header.system {
            return Err(JoinProblem::System {
                found: next.header.system,
                expected: self.header.system,
            });
        }
        if self
            .header
            .address
            .0
            .checked_add(self.header.segment_size.bytes())
            != Some(next.header.address.0)
        {
            return Err(JoinProblem::Address {
                found: next.header.address,
            });
        }
        if matches!(self.tail, Tail::Ended(_)) {
            return Err(JoinProblem::Ended);
        }
        let found = next.header.timeline;
        // A timeline may begin at the boundary, and be left for another in the same segment.
        let begins = found <= next.name.timeline() && found > self.name.timeline();
        if found == self.timeline || begins || self.begins_over_boundary(next) {
            Ok(())
        } else {
            Err(self.other_timeline(next))
        }
    }

    /// Whether the record that goes over the boundary is the one that begins this segment's timeline, or comes just before it:
    /// pages of that timeline are those of the next segment.
    fn begins_over_boundary(&self, next: &SegmentSummary) -> bool {
        let found = next.header.timeline;
        found == self.name.timeline() && found > self.timeline && matches!(self.tail, Tail::Open(_))
    }

    fn other_timeline(&self, next: &SegmentSummary) -> JoinProblem {
        JoinProblem::Timeline {
            found: next.header.timeline,
            expected: self.timeline,
        }
    }
}

/// Whether a record is about WAL itself, as all are that begin a timeline (`StartupXLOG`, 15 to 18).
fn is_about_wal(whole: &Open) -> bool {
    let header = whole.header();
    header.is_some_and(|header| header.manager == ResourceManager::XLOG)
}

/// Whether a record that went over the boundary is what was written.
fn check_whole(whole: &Open, previous: Option<Lsn>) -> Result<(), Damage> {
    let problem = match (whole.header(), whole.checksum()) {
        (Some(header), Some(found)) => match header.check(whole.lsn, previous) {
            Ok(()) if header.crc == found => return Ok(()),
            Ok(()) => RecordProblem::Checksum {
                found: header.crc,
                expected: found,
            },
            Err(problem) => problem,
        },
        _ => RecordProblem::Incomplete { bytes: whole.total },
    };
    Err(Damage::new(whole.lsn, problem))
}

/// Whether the first record of `next` follows the one at `previous`.
fn check_previous(previous: Option<Lsn>, next: &SegmentSummary) -> Result<(), Damage> {
    match (previous, next.first) {
        (Some(expected), Some((lsn, found))) if expected != found => {
            Err(Damage::new(lsn, JoinProblem::Previous { found, expected }))
        }
        _ => Ok(()),
    }
}

/// How many bytes of the segment the first `count` bytes of WAL take with the headers of their pages, rounded up to where
/// the next record may begin.
fn page_bytes(segment: &SegmentSummary, count: u64) -> u64 {
    let page = u64::from(segment.header.block_size);
    let (long, short) = (
        super::page::header_bytes(true) as u64,
        super::page::header_bytes(false) as u64,
    );
    let count = count.next_multiple_of(8);
    match count.checked_sub(page - long) {
        None => long + count,
        Some(0) => page,
        Some(rest) => {
            page + (rest - 1) / (page - short) * page + short + (rest - 1) % (page - short) + 1
        }
    }
}
