//! Which timeline came from which, and so which segments there have to be.
//!
//! Guarantees that a gap is called a hole only if there is older WAL on some line that leads over it: cleaning up removes the
//! oldest segments of all timelines, and never out of the middle. Reading timeline history files is left to the caller.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use wal::{Lsn, SegmentName, SegmentNumber, SegmentSize, TimelineHistory, TimelineId};

/// Segments that follow one another without a gap, by their numbers.
pub type Run = RangeInclusive<u64>;

/// The timeline history files that could be read.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    histories: BTreeMap<TimelineId, TimelineHistory>,
}

/// Segments that are read from one timeline, on the way along a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Number of the timeline.
    pub timeline: TimelineId,
    /// Numbers of the segments.
    pub segments: Run,
}

/// Segments that are not there, and have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Number of the timeline.
    pub timeline: TimelineId,
    /// Numbers of the segments.
    pub segments: Run,
    /// The timeline whose line leads over them.
    pub line: TimelineId,
}

/// The runs of segments of each timeline.
pub type Runs = BTreeMap<TimelineId, Vec<Run>>;

impl Lineage {
    pub(crate) fn add(&mut self, history: TimelineHistory) {
        self.histories.insert(history.timeline(), history);
    }

    /// Without the histories of timelines that begin behind a place, but for those of these timelines.
    pub(crate) fn up_to(mut self, place: Lsn, but: &Runs) -> Lineage {
        self.histories.retain(|timeline, history| {
            but.contains_key(timeline) || history.begins().is_none_or(|begins| begins <= place)
        });
        self
    }

    /// What a timeline's history file says.
    pub fn history(&self, timeline: TimelineId) -> Option<&TimelineHistory> {
        self.histories.get(&timeline)
    }

    /// All histories, by timeline.
    pub fn histories(&self) -> impl Iterator<Item = &TimelineHistory> {
        self.histories.values()
    }

    /// Where a timeline begins, and the one it left; `None` if that is not known, or it is the first.
    pub fn beginning(&self, timeline: TimelineId) -> Option<(Lsn, TimelineId)> {
        let parent = self.history(timeline)?.entries().last()?;
        Some((parent.switchpoint, parent.timeline))
    }

    /// The segments that a recovery along this timeline reads, from the oldest ancestor on: of each place the newest timeline
    /// that begins there or before. A timeline whose history is not known has no ancestors.
    pub fn line(&self, timeline: TimelineId, size: SegmentSize) -> Vec<Stretch> {
        let entries = self
            .history(timeline)
            .map(TimelineHistory::entries)
            .unwrap_or_default();
        let mut line = Vec::new();
        let mut end = u64::MAX;
        let mut of = timeline;
        for parent in entries.iter().rev() {
            let begin = parent.switchpoint.segment(size).0;
            if begin < end {
                line.push(Stretch {
                    timeline: of,
                    segments: begin..=end - 1,
                });
                end = begin;
            }
            of = parent.timeline;
        }
        if end > 0 {
            line.push(Stretch {
                timeline: of,
                segments: 0..=end - 1,
            });
        }
        line.reverse();
        line
    }

    /// The timeline on which a recovery along `line` looks for a segment first.
    pub(crate) fn asked_for(&self, line: TimelineId, number: u64, size: SegmentSize) -> TimelineId {
        self.history(line).map_or(line, |history| {
            history.first_asked_for(SegmentNumber(number), size)
        })
    }

    /// The segments that are missing: between the oldest on a line, and the newest on its own timeline; each of them once.
    pub fn holes(&self, runs: &Runs, size: SegmentSize) -> Vec<Gap> {
        self.holes_before(&[], runs, size)
    }

    /// The same with those before partial segments.
    pub(crate) fn holes_before(
        &self,
        partials: &[SegmentName],
        runs: &Runs,
        size: SegmentSize,
    ) -> Vec<Gap> {
        let own = runs
            .iter()
            .filter_map(|(timeline, own)| Some((*timeline, *own.last()?.end())));
        let of_partials = partials
            .iter()
            .filter_map(|name| Some((name.timeline(), name.number(size)?.0.checked_sub(1)?)));
        let mut holes = Holes::new();
        for (timeline, last) in own.chain(of_partials) {
            for gap in self.gaps_up_to(timeline, last, runs, size) {
                add(&mut holes, &gap);
            }
        }
        holes.into_values().collect()
    }

    /// The segments missing on a line up to a segment.
    pub(crate) fn gaps_up_to(
        &self,
        timeline: TimelineId,
        last: u64,
        runs: &Runs,
        size: SegmentSize,
    ) -> Vec<Gap> {
        let line = self.line(timeline, size);
        let runs_of = |stretch: &Stretch| {
            let runs = runs.get(&stretch.timeline);
            runs.map(Vec::as_slice).unwrap_or_default()
        };
        let oldest = line.iter().find_map(|stretch| {
            runs_of(stretch).iter().find_map(|run| {
                let first = (*run.start()).max(*stretch.segments.start());
                (first <= *run.end() && stretch.segments.contains(&first)).then_some(first)
            })
        });
        let Some(oldest) = oldest else {
            return Vec::new();
        };
        let missing = line.iter().flat_map(|stretch| {
            let from = oldest.max(*stretch.segments.start());
            let to = last.min(*stretch.segments.end());
            let found = if from <= to {
                gaps(runs_of(stretch), from..=to)
            } else {
                Vec::new()
            };
            found.into_iter().map(|segments| Gap {
                timeline: stretch.timeline,
                segments,
                line: timeline,
            })
        });
        missing.collect()
    }
}

/// Holes by timeline and first segment; none overlaps another.
type Holes = BTreeMap<(TimelineId, u64), Gap>;

/// Adds what of a gap has not been named yet.
fn add(holes: &mut Holes, gap: &Gap) {
    let (first, last) = (*gap.segments.start(), *gap.segments.end());
    let known = holes.range((gap.timeline, 0)..=(gap.timeline, last)).rev();
    let mut known: Vec<Run> = known
        .map(|(_, hole)| hole.segments.clone())
        .take_while(|segments| *segments.end() >= first)
        .collect();
    known.reverse();
    for segments in gaps(&known, gap.segments.clone()) {
        let key = (gap.timeline, *segments.start());
        holes.insert(
            key,
            Gap {
                segments,
                ..gap.clone()
            },
        );
    }
}

/// The gaps between runs, within `range`.
pub(crate) fn gaps(runs: &[Run], range: Run) -> Vec<Run> {
    let mut gaps = Vec::new();
    let mut next = *range.start();
    for run in runs {
        if *run.end() < next {
            continue;
        }
        if *run.start() > *range.end() {
            break;
        }
        if *run.start() > next {
            gaps.push(next..=*run.start() - 1);
        }
        next = run.end().saturating_add(1);
    }
    if next <= *range.end() {
        gaps.push(next..=*range.end());
    }
    gaps
}

/// The name of a segment by its number.
pub(crate) fn name_of(timeline: TimelineId, number: u64, size: SegmentSize) -> SegmentName {
    SegmentName::new(timeline, SegmentNumber(number), size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn lineage(files: &[(u32, &str)]) -> Lineage {
        let mut lineage = Lineage::default();
        for (number, text) in files {
            let history = TimelineHistory::parse(timeline(*number), text.as_bytes());
            lineage.add(history.unwrap());
        }
        lineage
    }

    fn runs(of: &[(u32, &[Run])]) -> Runs {
        of.iter()
            .map(|(number, runs)| (timeline(*number), runs.to_vec()))
            .collect()
    }

    fn holes(lineage: &Lineage, of: &[(u32, &[Run])]) -> Vec<(u32, Run)> {
        let holes = lineage.holes(&runs(of), SIZE);
        holes
            .into_iter()
            .map(|gap| (gap.timeline.get(), gap.segments))
            .collect()
    }

    #[test]
    fn a_line_goes_from_timeline_to_timeline_where_each_was_left() {
        let lineage = lineage(&[
            (2, "1\t0/5000028\tx\n"),
            (3, "1\t0/5000028\tx\n2\t0/8000000\tx\n"),
        ]);
        let line: Vec<(u32, Run)> = lineage
            .line(timeline(3), SIZE)
            .into_iter()
            .map(|stretch| (stretch.timeline.get(), stretch.segments))
            .collect();
        assert_eq!(line, [(1, 0..=4), (2, 5..=7), (3, 8..=u64::MAX - 1)]);
        assert_eq!(lineage.asked_for(timeline(3), 5, SIZE), timeline(2));
    }

    #[test]
    fn a_timeline_left_before_it_held_a_segment_is_skipped() {
        let lineage = lineage(&[(3, "1\t0/5000028\tx\n2\t0/5000100\tx\n")]);
        let line = lineage.line(timeline(3), SIZE);
        assert_eq!(line.len(), 2, "{line:?}");
        assert_eq!(line[1].timeline, timeline(3));
    }

    #[test]
    fn what_was_cleaned_up_is_no_hole_and_what_lies_between_is_one() {
        let lineage = lineage(&[(2, "1\t0/5000028\tx\n")]);
        assert_eq!(holes(&lineage, &[(1, &[3..=9]), (2, &[5..=8])]), []);
        assert_eq!(holes(&lineage, &[(2, &[7..=8])]), []);
        assert_eq!(
            holes(&lineage, &[(1, &[1..=1, 3..=3]), (2, &[7..=8])]),
            [(1, 2..=2), (1, 4..=4), (2, 5..=6)]
        );
        // Where the first timeline went on by itself, its gaps are its own.
        assert_eq!(
            holes(&lineage, &[(1, &[1..=4, 7..=7]), (2, &[5..=5])]),
            [(1, 5..=6)]
        );
    }

    #[test]
    fn a_hole_on_two_lines_is_named_once() {
        let lineage = lineage(&[(2, "1\t0/9000028\tx\n"), (3, "1\t0/7000028\tx\n")]);
        let of: &[(u32, &[Run])] = &[(1, &[1..=3, 5..=8]), (2, &[9..=9]), (3, &[7..=7])];
        assert_eq!(holes(&lineage, of), [(1, 4..=4)]);
    }

    #[test]
    fn gaps_are_what_no_run_covers() {
        assert_eq!(gaps(&[3..=4, 7..=7], 1..=9), [1..=2, 5..=6, 8..=9]);
        assert_eq!(gaps(&[3..=4, 7..=7], 4..=7), [5..=6]);
        assert_eq!(gaps(&[3..=4], 3..=4), []);
        assert_eq!(gaps(&[], 3..=4), [3..=4]);
    }
}
