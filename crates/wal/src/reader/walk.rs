//! The way through a segment, page by page and record by record.
//!
//! Guarantees what the head of this directory's `mod.rs` says. Whatever happens, a step forward is a whole page.

use std::mem;

use super::ReadError;
use super::evidence;
use super::head::Head;
use super::open::Open;
use super::page::{PageHeader, Whose, header_bytes};
use super::summary::{SegmentSummary, Tail};
use super::timelines::{self, PageTimelines};
use crate::crc::Crc;
use crate::damage::{Damage, PageProblem};
use crate::record_header::{RecordProblem, checksum};
use crate::{
    LongPageHeader, Lsn, Meaning, RECORD_HEADER_BYTES, Record, RecordHeader, ResourceManager,
    SegmentName,
};

/// What is expected next.
#[derive(Debug)]
enum Stage {
    /// Records, one after the other, up to the end of the page.
    Records,
    /// Nothing: a switch at this place has ended the segment.
    Switched(Lsn),
    /// Nothing: something is wrong. It is damage if WAL goes on later.
    Ended(Damage),
}

/// The way through a segment.
#[derive(Debug)]
pub(crate) struct Walk {
    name: SegmentName,
    pub(crate) header: LongPageHeader,
    /// Where the next page begins.
    page_at: Lsn,
    stage: Stage,
    timelines: PageTimelines,
    head: Head,
    open: Option<Open>,
    /// Memory to use again.
    spare: Vec<u8>,
    /// Where the last record begins that was read, or is known from the first one's header.
    previous: Option<Lsn>,
    /// A record that was not finished, which the next one has to name.
    given_up: Option<Lsn>,
    gives_up: bool,
    first: Option<(Lsn, Lsn)>,
    last: Option<Lsn>,
    records: u64,
}

impl Walk {
    pub(crate) fn new(name: SegmentName, header: LongPageHeader) -> Walk {
        Walk {
            name,
            header,
            page_at: header.address,
            stage: Stage::Records,
            timelines: PageTimelines::new(name.timeline(), header.timeline),
            head: Head::default(),
            open: None,
            spare: Vec::new(),
            previous: None,
            given_up: None,
            gives_up: false,
            first: None,
            last: None,
            records: 0,
        }
    }

    /// Reads a page.
    pub(crate) fn page(
        &mut self,
        page: &[u8],
        visit: &mut impl FnMut(&Record<'_>),
    ) -> Result<(), ReadError> {
        let at = self.page_at;
        self.page_at = Lsn(at.0.saturating_add(page.len() as u64));
        let is_first = at == self.header.address;
        let Some(header) = PageHeader::read(page) else {
            return Ok(());
        };
        let whose = header.whose(at, self.header.magic, is_first);
        match (&self.stage, whose) {
            (Stage::Switched(_), _) | (Stage::Ended(_), Whose::Anothers(_)) => return Ok(()),
            // WAL goes on behind the damage.
            (Stage::Ended(damage), _) => return Err(damage.clone().into()),
            (Stage::Records, Whose::Damaged(problem)) => {
                return Err(Damage::new(at, problem).into());
            }
            (Stage::Records, Whose::Anothers(problem)) => {
                return Ok(self.no_page(page, &header, at, problem)?);
            }
            (Stage::Records, Whose::Ours) => {}
        }
        self.timelines
            .page(at, header.timeline)
            .map_err(|problem| Damage::new(at, problem))?;
        let skipped = header_bytes(is_first);
        let rest = page.get(skipped..).unwrap_or_default();
        let lsn = Lsn(at.0 + skipped as u64);
        let taken = self.begin_page(&header, rest, at, is_first, visit)?;
        if let Some(taken) = taken {
            self.records(rest, taken, lsn, visit)?;
        }
        Ok(())
    }

    /// Something that is not this place's page.
    fn no_page(
        &mut self,
        page: &[u8],
        header: &PageHeader,
        at: Lsn,
        problem: PageProblem,
    ) -> Result<(), Damage> {
        let rest = page.get(header_bytes(false)..).unwrap_or_default();
        let lsn = Lsn(at.0 + header_bytes(false) as u64);
        let goes_on = match &self.open {
            Some(open) => {
                // The page holds the rest of the record after all; or the record was never longer than the page before.
                let remaining = open.remaining();
                let rest = rest.get(..remaining as usize);
                let is_rest = rest.is_some_and(|rest| {
                    let mut whole = open.clone();
                    whole.go_on(rest);
                    header.remaining == remaining
                        && whole.header().map(|header| header.crc) == whole.checksum()
                });
                is_rest || evidence::of_record(&open.kept, open.lsn, self.previous, true)
            }
            None => evidence::of_record(rest, lsn, self.previous, false),
        };
        let damage = Damage::new(at, problem);
        if goes_on {
            return Err(damage);
        }
        self.end(damage);
        Ok(())
    }

    /// WAL ends, unless a later page says otherwise.
    fn end(&mut self, damage: Damage) {
        self.stage = Stage::Ended(damage);
    }

    /// What the page begins with: the rest of a record, or none. Returns how many bytes that takes; `None` if all of them.
    fn begin_page(
        &mut self,
        header: &PageHeader,
        rest: &[u8],
        at: Lsn,
        is_first: bool,
        visit: &mut impl FnMut(&Record<'_>),
    ) -> Result<Option<usize>, Damage> {
        if is_first {
            self.gives_up = header.overwrites();
            self.head = Head::new(header.remaining);
        } else if header.overwrites()
            && let Some(open) = self.open.take()
        {
            self.given_up = Some(open.lsn);
            self.spare = open.kept;
            return Ok(Some(0));
        } else if header.overwrites() && self.head.remaining() > 0 {
            // The record that began in an earlier segment was given up here.
            self.head = Head::default();
            self.gives_up = true;
            return Ok(Some(0));
        }
        let expected = match &self.open {
            Some(open) => open.remaining(),
            None => self.head.remaining(),
        };
        let is_expected = header.remaining == expected && header.continues() == (expected > 0);
        if !is_expected || (!is_first && header.overwrites()) {
            return Err(Damage::new(
                at,
                PageProblem::Remaining {
                    found: header.remaining,
                    expected,
                },
            ));
        }
        let taken = (expected as usize).min(rest.len());
        let bytes = rest.get(..taken).unwrap_or_default();
        let Some(mut open) = self.open.take() else {
            self.head.go_on(bytes);
            return if expected as usize > rest.len() {
                Ok(None)
            } else {
                self.padding(rest, taken, at).map(Some)
            };
        };
        let had_header = open.header().is_some();
        open.go_on(bytes);
        if !had_header && let Some(header) = open.header() {
            // A page that goes on with it is sign enough that there was a record.
            header
                .check(open.lsn, self.previous)
                .map_err(|problem| Damage::new(open.lsn, problem))?;
        }
        if open.remaining() > 0 {
            self.open = Some(open);
            return Ok(None);
        }
        let next = self.padding(rest, taken, at)?;
        let end = Lsn(at.0.saturating_add((header_bytes(is_first) + next) as u64));
        self.close(&open, end, visit)?;
        self.spare = open.kept;
        Ok(Some(next))
    }

    /// Checks the bytes from the end of a record to where the next one may begin, and returns that place.
    fn padding(&self, rest: &[u8], end: usize, page_at: Lsn) -> Result<usize, Damage> {
        let next = end.next_multiple_of(8);
        match rest.get(end..next) {
            Some(bytes) if bytes.iter().any(|byte| *byte != 0) => {
                Err(Damage::new(page_at, RecordProblem::Padding))
            }
            _ => Ok(next),
        }
    }

    /// A record that began on an earlier page is complete.
    fn close(
        &mut self,
        open: &Open,
        end: Lsn,
        visit: &mut impl FnMut(&Record<'_>),
    ) -> Result<(), Damage> {
        let (Some(header), Some(found)) = (open.header(), open.checksum()) else {
            return Err(Damage::new(
                open.lsn,
                RecordProblem::Incomplete { bytes: open.total },
            ));
        };
        if header.crc != found {
            let problem = RecordProblem::Checksum {
                found: header.crc,
                expected: found,
            };
            return Err(Damage::new(open.lsn, problem));
        }
        let record = Record {
            lsn: open.lsn,
            end,
            header,
            magic: self.header.magic,
            front: open.front(),
        };
        self.done(&record, visit)
    }

    /// The records that begin on a page, from `taken` bytes behind its header on.
    fn records(
        &mut self,
        rest: &[u8],
        mut taken: usize,
        lsn: Lsn,
        visit: &mut impl FnMut(&Record<'_>),
    ) -> Result<(), Damage> {
        while matches!(self.stage, Stage::Records) {
            let Some(bytes) = rest.get(taken..).filter(|bytes| !bytes.is_empty()) else {
                return Ok(());
            };
            match self.record(bytes, Lsn(lsn.0 + taken as u64), visit)? {
                Some(length) => taken += length,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// The record at `lsn`, with which the bytes begin. Returns how far the next one is; `None` if it is not on this page.
    #[inline]
    fn record(
        &mut self,
        bytes: &[u8],
        lsn: Lsn,
        visit: &mut impl FnMut(&Record<'_>),
    ) -> Result<Option<usize>, Damage> {
        let Some(raw) = bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
            // A record's length always lies on the page that it begins on.
            let total = bytes
                .first_chunk()
                .map_or(0, |length| u32::from_ne_bytes(*length));
            match total {
                0 => self.no_record(bytes, lsn, RecordProblem::Zero)?,
                _ => self.open(bytes, lsn, total),
            }
            return Ok(None);
        };
        let header = RecordHeader::read(raw);
        if let Err(problem) = header.check(lsn, self.previous) {
            self.no_record(bytes, lsn, problem)?;
            return Ok(None);
        }
        let length = header.bytes as usize;
        let Some(front) = bytes.get(RECORD_HEADER_BYTES..length) else {
            self.open(bytes, lsn, header.bytes);
            return Ok(None);
        };
        let found = checksum(raw, Crc::default().and(front));
        if header.crc != found {
            self.no_record(
                bytes,
                lsn,
                RecordProblem::Checksum {
                    found: header.crc,
                    expected: found,
                },
            )?;
            return Ok(None);
        }
        let next = self.padding(bytes, length, lsn)?;
        let end = if header.is_switch() {
            Lsn(self
                .header
                .address
                .0
                .saturating_add(self.header.segment_size.bytes()))
        } else {
            Lsn(lsn.0.saturating_add(next as u64))
        };
        self.done(
            &Record {
                lsn,
                end,
                header,
                magic: self.header.magic,
                front,
            },
            visit,
        )?;
        Ok(Some(next))
    }

    /// The record at `lsn` goes over the end of the page.
    fn open(&mut self, bytes: &[u8], lsn: Lsn, total: u32) {
        self.open = Some(Open::begin(lsn, total, bytes, mem::take(&mut self.spare)));
    }

    /// Something that is no record.
    fn no_record(&mut self, bytes: &[u8], lsn: Lsn, problem: RecordProblem) -> Result<(), Damage> {
        let damage = Damage::new(lsn, problem);
        if evidence::of_record(bytes, lsn, self.previous, false) {
            return Err(damage);
        }
        self.end(damage);
        Ok(())
    }

    /// A record was read, and its checksum is right.
    #[inline]
    fn done(
        &mut self,
        record: &Record<'_>,
        visit: &mut impl FnMut(&Record<'_>),
    ) -> Result<(), Damage> {
        self.first
            .get_or_insert((record.lsn, record.header.previous));
        self.previous = Some(record.lsn);
        self.last = self.previous;
        self.records += 1;
        if let Some(expected) = self.given_up.take()
            && record.meaning()
                != (Meaning::OverwriteContrecord {
                    overwritten: expected,
                })
        {
            return Err(Damage::new(
                record.lsn,
                RecordProblem::Overwrite { expected },
            ));
        }
        if record.header.manager == ResourceManager::XLOG {
            self.timelines
                .record(|| timelines::begun_by(record.meaning()))?;
            if record.header.is_switch() {
                self.stage = Stage::Switched(record.lsn);
            }
        } else {
            self.timelines.record(|| None)?;
        }
        visit(record);
        Ok(())
    }

    /// The end of the segment, with `more` bytes that are no whole page.
    pub(crate) fn finish(self, more: u64) -> Result<SegmentSummary, ReadError> {
        let bytes = self.page_at.0 - self.header.address.0 + more;
        let expected = self.header.segment_size.bytes();
        if bytes != expected {
            return Err(ReadError::Length { bytes, expected });
        }
        let tail = match (self.stage, self.open) {
            (Stage::Switched(lsn), _) => Tail::Switched(lsn),
            // A record that was never finished ends WAL where it begins.
            (Stage::Ended(damage), open) => Tail::Ended(open.map_or(damage.lsn, |open| open.lsn)),
            (Stage::Records, Some(open)) => Tail::Open(Box::new(open.trimmed())),
            (Stage::Records, None) if self.head.remaining() > 0 => Tail::Through,
            (Stage::Records, None) => Tail::Full,
        };
        Ok(SegmentSummary {
            name: self.name,
            header: self.header,
            timeline: self.timelines.latest(),
            records: self.records,
            first: self.first,
            last: self.last,
            head: self.head,
            tail,
            gives_up: self.gives_up,
        })
    }
}
