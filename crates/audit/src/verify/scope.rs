//! Which WAL is looked at: a range of segments, the line of a timeline.
//!
//! Guarantees that what lies outside is not looked at, but for what is known of it by name.

use wal::{Lsn, SegmentName, SegmentSize, TimelineId};

use crate::lineage::{Gap, Lineage, Run, Runs};

/// What is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Scope {
    /// First segment to verify.
    pub from: Option<Edge>,
    /// Last segment to verify.
    pub to: Option<Edge>,
    /// The timeline whose line is looked at: its segments, and those of its ancestors up to where each was left.
    pub timeline: Option<TimelineId>,
}

/// An end of a range, as people give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// This segment, on any timeline.
    Segment(SegmentName),
    /// The segment that holds this place.
    Place(Lsn),
}

impl Edge {
    fn number(self, size: SegmentSize) -> Option<u64> {
        match self {
            Edge::Segment(name) => name.number(size).map(|number| number.0),
            Edge::Place(lsn) => Some(lsn.segment(size).0),
        }
    }
}

impl Scope {
    /// The segments of a range; `None` if its names are of another segment size.
    pub(crate) fn numbers(&self, size: SegmentSize) -> Option<Run> {
        let from = self.from.map_or(Some(0), |edge| edge.number(size))?;
        let to = self.to.map_or(Some(u64::MAX), |edge| edge.number(size))?;
        Some(from..=to)
    }

    /// Whether it ends before it begins.
    pub(crate) fn is_backwards(&self, size: SegmentSize) -> bool {
        self.numbers(size).is_some_and(|run| run.is_empty())
    }

    /// What of the runs lies in it.
    pub(crate) fn cut(&self, runs: &Runs, lineage: &Lineage, size: SegmentSize) -> Option<Runs> {
        self.numbers(size)?;
        let cut = runs.iter().filter_map(|(timeline, own)| {
            let allowed = self.allowed(*timeline, lineage, size)?;
            let own = own.iter().filter_map(|run| common(run, &allowed));
            Some((*timeline, own.collect()))
        });
        Some(cut.collect())
    }

    /// What of a gap lies in it.
    pub(crate) fn cut_gap(&self, gap: &Gap, lineage: &Lineage, size: SegmentSize) -> Option<Gap> {
        let allowed = self.allowed(gap.timeline, lineage, size)?;
        Some(Gap {
            segments: common(&gap.segments, &allowed)?,
            ..gap.clone()
        })
    }

    /// The segments of a timeline that lie in it; `None` if the timeline does not.
    pub(crate) fn allowed(
        &self,
        timeline: TimelineId,
        lineage: &Lineage,
        size: SegmentSize,
    ) -> Option<Run> {
        let numbers = self.numbers(size)?;
        let Some(line) = self.timeline else {
            return Some(numbers);
        };
        let line = lineage.line(line, size);
        let stretch = line.iter().find(|stretch| stretch.timeline == timeline)?;
        common(&numbers, &stretch.segments)
    }
}

fn common(one: &Run, other: &Run) -> Option<Run> {
    let run = *one.start().max(other.start())..=*one.end().min(other.end());
    (!run.is_empty()).then_some(run)
}
