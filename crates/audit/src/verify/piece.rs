//! One reader's work: a piece of a run, segment by segment, each joined with the one before it; or a partial segment.
//!
//! Guarantees that every segment is read. What comes before and after the piece is left to `joints`.

use wal::{SegmentName, SegmentSummary, TimelineId, WalFileName};

use super::beginning::Beginning;
use super::joints::{self, Key, Lead};
use super::object::{Eyes, Known, Seen};
use crate::finding::{Finding, Kind};
use crate::inventory::Inventory;
use crate::positions::name_of;

/// How many objects one after the other may be out of reach before the archive counts as gone.
pub(crate) const GONE_AFTER: u32 = 16;

/// What the readers have in common.
pub(crate) trait Desk: Sync {
    /// Whether work is to stop.
    fn is_over(&self) -> bool;
    /// An object was read, so many bytes of WAL.
    fn read(&self, seen: &Seen);
    /// Whether something follows this segment that another reads.
    fn is_source(&self, source: (TimelineId, u64)) -> bool;
    /// Such a segment was read; `None` if it is not what it should be.
    fn left(&self, source: (TimelineId, u64), summary: Option<&SegmentSummary>);
    /// The first segments of a piece were read.
    fn right(&self, key: Key, lead: Lead);
}

/// What was found in a piece.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) findings: Vec<Finding>,
    pub(crate) bytes: u64,
    /// Whether all of it was read.
    pub(crate) is_complete: bool,
}

/// Reads pieces, one after the other.
pub(crate) struct Reader<'a> {
    pub(crate) eyes: Eyes<'a>,
    pub(crate) known: &'a Known<'a>,
    pub(crate) inventory: &'a Inventory,
    pub(crate) desk: &'a dyn Desk,
}

impl Reader<'_> {
    /// Reads the segments of a timeline from one to another.
    pub(crate) fn segments(&mut self, timeline: TimelineId, from: u64, to: u64) -> Done {
        let mut done = Done::default();
        let mut lead = Some(Lead::default());
        let mut before: Option<SegmentSummary> = None;
        for number in from..=to {
            let mut summary = self.number(timeline, number, &mut done);
            if self.desk.is_over() {
                return done;
            }
            if let (Some(before), Some(next)) = (&before, &mut summary) {
                done.findings.extend(joints::join(before, next, false));
            }
            let is_lead = lead.is_some();
            lead = self.lead(lead, (timeline, from), summary.as_ref());
            // One that nothing begins in is handed on when it is known what goes through it.
            let goes_through = is_lead && lead.is_some() && number == to;
            if self.desk.is_source((timeline, number)) && !goes_through {
                self.desk.left((timeline, number), summary.as_ref());
            }
            before = summary;
        }
        if let Some(mut lead) = lead {
            lead.through_to = Some(to);
            self.desk.right((timeline, from, false), lead);
        }
        done.is_complete = !has_unread(&done.findings);
        done
    }

    /// Adds a segment to the lead, or hands the lead on with it.
    fn lead(
        &self,
        lead: Option<Lead>,
        (timeline, from): (TimelineId, u64),
        summary: Option<&SegmentSummary>,
    ) -> Option<Lead> {
        let mut lead = lead?;
        let goes_on = summary.is_some_and(|summary| summary.first.is_none());
        lead.segments.extend(summary.cloned());
        if goes_on {
            return Some(lead);
        }
        self.desk.right((timeline, from, false), lead);
        None
    }

    /// Reads a segment again for the sake of its neighbours. If nothing begins in it, those before it are read too, as far
    /// back as the record that goes through it begins.
    pub(crate) fn again(&mut self, timeline: TimelineId, number: u64) -> Done {
        let mut done = Done::default();
        let mut own = self.number(timeline, number, &mut done);
        let lead = Lead {
            segments: own.iter().cloned().collect(),
            through_to: None,
        };
        self.desk.right((timeline, number, false), lead);
        let mut before = Vec::new();
        let mut goes_through = own.as_ref().is_some_and(|own| own.first.is_none());
        for number in (0..number).rev().take_while(|_| !self.desk.is_over()) {
            if !goes_through {
                break;
            }
            let summary = self.number(timeline, number, &mut done);
            goes_through = summary.as_ref().is_some_and(|it| it.first.is_none());
            before.extend(summary);
        }
        for next in (0..before.len()).rev() {
            let (nearer, farther) = before.split_at_mut(next);
            if let Some(farther) = farther.first()
                && let Some(next) = nearer.last_mut().or(own.as_mut())
            {
                // What is wrong has been told.
                drop(joints::join(farther, next, false));
            }
        }
        self.desk.left((timeline, number), own.as_ref());
        done
    }

    /// Reads a partial segment.
    pub(crate) fn partial(&mut self, name: SegmentName) -> Done {
        let mut done = Done::default();
        let summary = self.file(name, &WalFileName::Partial(name), &mut done);
        if let Some(number) = name.number(self.known.measure.size) {
            let lead = Lead {
                segments: summary.into_iter().collect(),
                through_to: None,
            };
            self.desk.right((name.timeline(), number.0, true), lead);
        }
        done.is_complete = !has_unread(&done.findings) && !self.desk.is_over();
        done
    }

    fn number(
        &mut self,
        timeline: TimelineId,
        number: u64,
        done: &mut Done,
    ) -> Option<SegmentSummary> {
        let size = self.known.measure.size;
        let name = name_of(timeline, number, size);
        match self.inventory.has(timeline, number, size) {
            true => self.file(name, &WalFileName::Segment(name), done),
            false => None,
        }
    }

    /// Reads a file, and answers with what is known of it if it is right.
    fn file(
        &mut self,
        name: SegmentName,
        file: &WalFileName,
        done: &mut Done,
    ) -> Option<SegmentSummary> {
        if self.desk.is_over() {
            return None;
        }
        let seen = self.one(name, file);
        self.desk.read(&seen);
        done.bytes += seen.bytes;
        done.findings.extend(seen.findings);
        seen.summary
    }

    fn one(&mut self, name: SegmentName, file: &WalFileName) -> Seen {
        let key = &file.to_string();
        let size = self.known.measure.size;
        let begins = self.known.lineage.beginning(name.timeline());
        let begins = begins.filter(|(lsn, _)| {
            matches!(file, WalFileName::Segment(_)) && Some(lsn.segment(size)) == name.number(size)
        });
        let Some((switchpoint, _)) = begins else {
            return self.eyes.segment(name, key, None);
        };
        let mut beginning = Beginning::new(name.timeline(), switchpoint);
        let see = &mut |record: &wal::Record<'_>| beginning.see(record);
        let mut seen = self.eyes.segment(name, key, Some(see));
        if seen.summary.is_some() {
            seen.findings.extend(beginning.finding(key));
        }
        seen
    }
}

/// Whether something is to be tried again.
fn has_unread(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.kind == Kind::NotRead)
}
