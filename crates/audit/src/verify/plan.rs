//! Who reads what: pieces of runs of segments, and the joints between them.
//!
//! Guarantees that every segment that was asked for is read in exactly one piece, unless an earlier run has read it; and that
//! both sides of a joint are read, again if they must be.

use std::collections::BTreeSet;

use wal::{Lsn, SegmentName, SegmentSize, TimelineId};

use super::joints::{Key, Sources};
use super::journal::Past;
use crate::lineage::{Gap, Lineage, Runs};
use crate::positions::Run;

/// How many segments a reader takes at a time, at most: some seconds of work, so that little is read twice after an
/// interruption.
const PIECE_MAX: u64 = 64;

/// How many pieces each reader shall have at least, so that none is left without work early.
const PIECES_EACH: u64 = 8;

/// What is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Scope {
    /// The first segment.
    pub from: Option<Edge>,
    /// The last segment.
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

/// Something that one reader does in one go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// Segments that follow one another. Read again for the sake of a joint, they are not counted.
    Segments {
        timeline: TimelineId,
        from: u64,
        to: u64,
        again: bool,
    },
    /// A partial segment.
    Partial(SegmentName),
}

/// Everything that is to be done.
pub(crate) struct Plan {
    pub(crate) tasks: Vec<Task>,
    pub(crate) sources: Sources,
    /// How many segments are read.
    pub(crate) segments: u64,
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

/// Makes the plan for these runs and partial segments.
pub(crate) fn plan(
    partials: &[SegmentName],
    lineage: &Lineage,
    runs: &Runs,
    size: SegmentSize,
    past: &Past,
    readers: u64,
) -> Plan {
    let all: u64 = runs.values().flatten().map(length).sum();
    let piece = (all / readers.max(1) / PIECES_EACH).clamp(1, PIECE_MAX);
    let mut plan = Plan {
        tasks: Vec::new(),
        sources: Sources::new(),
        segments: 0,
    };
    let mut planned = BTreeSet::new();
    let mut keys: Vec<(Key, (TimelineId, u64))> = Vec::new();
    for (timeline, own) in runs {
        let begins = lineage
            .beginning(*timeline)
            .map(|(lsn, _)| lsn.segment(size).0);
        for run in own.iter().flat_map(|run| split(run, begins)) {
            let first = *run.start();
            let before = match Some(first) == begins {
                true => lineage.asked_for(*timeline, first.saturating_sub(1), size),
                false => *timeline,
            };
            // Of another timeline it may be there; of the same one it is not, or the run would begin earlier.
            if before != *timeline && first > 0 {
                keys.push(((*timeline, first, false), (before, first - 1)));
            }
            for part in parts(&run, past.of(*timeline), piece) {
                let (from, to) = (*part.segments.start(), *part.segments.end());
                if from > first {
                    keys.push(((*timeline, from, false), (*timeline, from - 1)));
                }
                if !part.is_done {
                    planned.insert((*timeline, from, to));
                }
            }
        }
    }
    for name in partials.iter().filter(|name| !past.has_partial(name)) {
        plan.tasks.push(Task::Partial(*name));
        let (timeline, number) = (name.timeline(), name.number(size).map(|number| number.0));
        if let Some((number, last)) = number.and_then(|it| Some((it, it.checked_sub(1)?))) {
            let before = lineage.asked_for(timeline, last, size);
            keys.push(((timeline, number, true), (before, last)));
        }
    }
    plan.join(keys, runs, past, &planned);
    let pieces = planned
        .into_iter()
        .map(|(timeline, from, to)| Task::Segments {
            timeline,
            from,
            to,
            again: false,
        });
    plan.tasks.extend(pieces);
    plan.tasks.sort();
    plan.segments = plan.tasks.iter().map(Task::segments).sum();
    plan
}

impl Task {
    fn segments(&self) -> u64 {
        match self {
            Task::Segments { from, to, .. } => to - from + 1,
            Task::Partial(_) => 1,
        }
    }
}

impl Plan {
    /// Takes up the joints both sides of which are there, and sees to it that both are read.
    fn join(
        &mut self,
        keys: Vec<(Key, (TimelineId, u64))>,
        runs: &Runs,
        past: &Past,
        planned: &BTreeSet<(TimelineId, u64, u64)>,
    ) {
        let mut again = BTreeSet::new();
        let is_there = |(timeline, number): (TimelineId, u64)| {
            let own = runs.get(&timeline).map(Vec::as_slice).unwrap_or_default();
            let at = own.partition_point(|run| *run.end() < number);
            own.get(at).is_some_and(|run| run.contains(&number))
        };
        let is_planned = |(timeline, number): (TimelineId, u64)| {
            planned
                .range(..=(timeline, number, u64::MAX))
                .next_back()
                .is_some_and(|(of, _, to)| *of == timeline && *to >= number)
        };
        for (key, before) in keys {
            let (timeline, number, is_partial) = key;
            if past.has_joined(&key) || !is_there(before) {
                continue;
            }
            self.sources.entry(before).or_default().push(key);
            let right = (!is_partial).then_some((timeline, number));
            for side in std::iter::once(before).chain(right) {
                if !is_planned(side) {
                    again.insert(side);
                }
            }
        }
        let tasks = again.into_iter().map(|(timeline, number)| Task::Segments {
            timeline,
            from: number,
            to: number,
            again: true,
        });
        self.tasks.extend(tasks);
    }
}

/// A part of a run: what an earlier audit has read, or a piece to read.
struct Part {
    segments: Run,
    is_done: bool,
}

fn parts(run: &Run, done: &[Run], piece: u64) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut next = *run.start();
    let done = done.iter().filter_map(|done| common(done, run));
    for done in done.chain([run.end() + 1..=run.end() + 1]) {
        while next < *done.start() {
            let to = (next + piece - 1).min(*done.start() - 1);
            parts.push(Part {
                segments: next..=to,
                is_done: false,
            });
            next = to + 1;
        }
        if done.end() <= run.end() {
            next = done.end() + 1;
            parts.push(Part {
                segments: done,
                is_done: true,
            });
        }
    }
    parts
}

/// A run that a timeline begins within is two: what lies before is no part of it.
fn split(run: &Run, begins: Option<u64>) -> Vec<Run> {
    match begins {
        Some(begins) if *run.start() < begins && begins <= *run.end() => {
            vec![*run.start()..=begins - 1, begins..=*run.end()]
        }
        _ => vec![run.clone()],
    }
}

fn length(run: &Run) -> u64 {
    run.end() - run.start() + 1
}
