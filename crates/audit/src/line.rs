//! The WAL that a recovery along one timeline reads: its own, and that of its ancestors up to where each was left.
//!
//! Guarantees the choice of segments that the server makes where all of them are there, and that a hole, a segment that cannot
//! be read and one that does not follow the one before all end a run. Where WAL goes on behind them is a run of its own,
//! which no recovery gets to from before; so is WAL in segments of another size.

use wal::{Lsn, SegmentName, SegmentNumber, SegmentSize, TimelineHistory, TimelineId};

use crate::backup_history::BackupHistory;
use crate::facts::{End, Over, RestorePoint, SegmentFacts, TransactionEnd};
use crate::lineage::Lineage;
use crate::survey::Survey;

/// The WAL along a timeline.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// Number of the timeline.
    pub timeline: TimelineId,
    /// Its ancestors; `None` for one without, and for one whose timeline history file is not there.
    pub history: Option<&'a TimelineHistory>,
    /// Where WAL is contiguous, in order.
    pub runs: Vec<Run<'a>>,
    /// Everything that makes it not so, in order.
    pub holes: Vec<Ended>,
}

/// Segments that follow one another.
#[derive(Debug, Clone)]
pub struct Run<'a> {
    /// Segments of the run, oldest first; at least one.
    pub segments: Vec<&'a SegmentFacts>,
    /// Why the run ends.
    pub ended: Ended,
}

/// Why a run ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// There is nothing behind it in the archive.
    Archive,
    /// Segments are missing, and there are later ones.
    Missing {
        /// The first that is missing.
        first: SegmentName,
        /// Last missing segment.
        last: SegmentName,
        /// Number of missing segments.
        count: u64,
    },
    /// A segment cannot be read.
    Unreadable {
        /// Name of the segment.
        name: SegmentName,
        /// Reason, as a clause for messages.
        why: String,
    },
    /// The next segment does not go on where this one ends.
    Broken {
        /// Name of the segment.
        name: SegmentName,
        /// Reason, as a clause for messages.
        why: String,
    },
}

/// How far a base backup can be recovered along a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach<'l, 'a> {
    /// The WAL before that, as far as it is contiguous.
    pub before: &'l [&'a SegmentFacts],
    /// The WAL from the segment on where its replay begins.
    pub segments: &'l [&'a SegmentFacts],
    /// Which of these holds the end of the backup.
    pub end_at: usize,
    /// Why it goes no further.
    pub ended: &'l Ended,
}

/// Why a base backup is of no use along a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoReach {
    /// The line has nothing to do with the backup's timeline, or left it before the backup had ended.
    OtherTimeline,
    /// The segment in which its replay begins is not in the archive.
    StartMissing,
    /// WAL ends, or has a hole, before the end of the backup.
    EndMissing(Ended),
}

impl Survey {
    /// The WAL along a timeline.
    #[must_use]
    pub fn line(&self, timeline: TimelineId) -> Line<'_> {
        let mut line = Line {
            timeline,
            history: self.lineage.history(timeline),
            runs: Vec::new(),
            holes: Vec::new(),
        };
        for era in self.eras(timeline) {
            era.join(&mut line, &self.lineage);
        }
        for run in &mut line.runs {
            for facts in &mut run.segments {
                if let Some(on_line) = self.on_lines.get(&(timeline, facts.name)) {
                    *facts = on_line;
                }
            }
        }
        line
    }

    /// The WAL on a line, era by era.
    fn eras(&self, timeline: TimelineId) -> Vec<Era<'_>> {
        let is_on_line = |name: &SegmentName, number: SegmentNumber, size| {
            self.lineage.asked_for(timeline, number.0, size) == name.timeline()
        };
        let mut good: Vec<(SegmentSize, SegmentNumber, &SegmentFacts)> = self
            .segments
            .values()
            .filter_map(|facts| {
                let size = facts.size()?;
                let number = facts.name.number(size)?;
                is_on_line(&facts.name, number, size).then_some((size, number, &**facts))
            })
            .collect();
        good.sort_by_key(|(_, _, facts)| (facts.start, facts.name));
        let mut eras: Vec<Era<'_>> = Vec::new();
        for (size, number, facts) in good {
            let place = (number, facts.name, Ok(facts));
            match eras.last_mut().filter(|era| era.size == size) {
                Some(era) => era.places.push(place),
                None => eras.push(Era {
                    size,
                    places: vec![place],
                }),
            }
        }
        if let (true, Some(size)) = (eras.is_empty(), self.size) {
            eras.push(Era {
                size,
                places: Vec::new(),
            });
        }
        for (name, why) in &self.unreadable {
            // How long one of these is nobody knows. It stands where its name says, in the first era that has WAL on both sides
            // of it; where there is none it belongs to the latest.
            let at = eras.iter().position(|era| era.surrounds(name));
            let at = at.or(eras.len().checked_sub(1));
            if let Some(era) = at.and_then(|at| eras.get_mut(at))
                && let Some(number) = name.number(era.size)
                && is_on_line(name, number, era.size)
            {
                era.places.push((number, *name, Err(why)));
            }
        }
        eras
    }
}

/// Something in a place on a line: the segment, or why it cannot be read.
type Place<'a> = (
    SegmentNumber,
    SegmentName,
    Result<&'a SegmentFacts, &'a String>,
);

/// WAL in segments of one size: as long as nobody runs `pg_resetwal --wal-segsize`, all of it. No recovery leads from one era
/// into the next.
struct Era<'a> {
    size: SegmentSize,
    places: Vec<Place<'a>>,
}

impl<'a> Era<'a> {
    /// Whether a name lies between those of the era. Asked before anything but good segments, in order, is in it.
    fn surrounds(&self, name: &SegmentName) -> bool {
        let good = |place: &&Place<'_>| place.2.is_ok();
        let first = self.places.iter().find(good);
        let last = self.places.iter().rev().find(good);
        let Some(number) = name.number(self.size) else {
            return false;
        };
        first.is_some_and(|(first, ..)| *first <= number)
            && last.is_some_and(|(last, ..)| number <= *last)
    }

    /// Puts it behind what a line has already.
    fn join(mut self, line: &mut Line<'a>, lineage: &Lineage) {
        self.places
            .sort_by_key(|(number, name, _)| (*number, *name));
        let (size, timeline) = (self.size, line.timeline);
        let name_of = |number: SegmentNumber| {
            let timeline = lineage.asked_for(timeline, number.0, size);
            SegmentName::new(timeline, number, size)
        };
        let mut before: Option<SegmentNumber> = None;
        for (number, name, found) in self.places {
            let expected = before.map(|before| SegmentNumber(before.0 + 1));
            if let Some(expected) = expected.filter(|expected| *expected < number) {
                line.end(Ended::Missing {
                    first: name_of(expected),
                    last: name_of(SegmentNumber(number.0 - 1)),
                    count: number.0 - expected.0,
                });
            }
            before = Some(number);
            match found {
                Ok(facts) => line.push(facts),
                Err(why) => line.end(Ended::Unreadable {
                    name,
                    why: why.clone(),
                }),
            }
        }
    }
}

impl<'a> Line<'a> {
    /// The record that begins in a segment of a run, this one of its segments, and goes over its end, if it ends in the run.
    pub(crate) fn over(segments: &[&'a SegmentFacts], at: usize) -> Option<&'a Over> {
        let here = segments.get(at).filter(|facts| !facts.goes_through)?;
        let behind = segments.get(at + 1..)?;
        let before = std::iter::once(here).chain(behind);
        for (before, next) in before.zip(behind) {
            let over = &before.follower(&next.name)?.over;
            if over.is_some() || !next.goes_through {
                return over.as_ref();
            }
        }
        None
    }

    fn push(&mut self, facts: &'a SegmentFacts) {
        let name = facts.name;
        let is_of_size = |run: &&mut Run<'_>| {
            let last = run.segments.last();
            last.is_some_and(|last| last.segment_bytes == facts.segment_bytes)
        };
        if let Some(run) = self
            .runs
            .last_mut()
            .filter(|run| run.ended == Ended::Archive)
            .filter(is_of_size)
        {
            let last = run.segments.last();
            let why = last.and_then(|last| match last.end {
                End::Ended(lsn) => Some(format!("WAL ends at {lsn} before it")),
                End::Full | End::Switched(_) => match last.follower(&name) {
                    Some(follower) => follower.problem.as_ref().map(|it| it.why.clone()),
                    None => Some("it was not compared with the one before it".to_owned()),
                },
            });
            match why {
                None => return run.segments.push(facts),
                Some(why) => self.end(Ended::Broken { name, why }),
            }
        }
        self.runs.push(Run {
            segments: vec![facts],
            ended: Ended::Archive,
        });
    }

    fn end(&mut self, ended: Ended) {
        let last = self.runs.last_mut();
        if let Some(run) = last.filter(|run| run.ended == Ended::Archive) {
            run.ended = ended.clone();
        }
        self.holes.push(ended);
    }

    /// Where the timeline begins; 0 for one that begins with WAL itself.
    #[must_use]
    pub fn begins(&self) -> Lsn {
        self.history
            .and_then(TimelineHistory::begins)
            .unwrap_or_default()
    }

    /// Whose WAL a place is.
    #[must_use]
    pub fn timeline_at(&self, place: Lsn) -> TimelineId {
        self.history
            .map_or(self.timeline, |history| history.timeline_at(place))
    }

    /// How far a base backup can be recovered along the line.
    ///
    /// # Errors
    /// [`NoReach`], if not even to its own end.
    pub fn reach(&self, backup: &BackupHistory) -> Result<Reach<'_, 'a>, NoReach> {
        let is_on_line = backup.timeline == self.timeline
            || self
                .history
                .and_then(|history| history.switchpoint_of(backup.timeline))
                .is_some_and(|switchpoint| backup.stop <= switchpoint);
        if !is_on_line {
            return Err(NoReach::OtherTimeline);
        }
        let after = self.runs.partition_point(|run| {
            run.segments
                .first()
                .is_some_and(|first| first.start <= backup.start)
        });
        let run = after.checked_sub(1).and_then(|at| self.runs.get(at));
        let run = run.ok_or(NoReach::StartMissing)?;
        let at = holding(&run.segments, backup.start).ok_or(NoReach::StartMissing)?;
        let (before, segments) = run
            .segments
            .split_at_checked(at)
            .ok_or(NoReach::StartMissing)?;
        // The record that ends the backup begins before the place where it is consistent.
        let last = Lsn(backup.stop.0.saturating_sub(1));
        let end_at = holding(segments, last).filter(|at| {
            segments
                .get(*at)
                .is_some_and(|facts| backup.stop <= facts.wal_end())
        });
        match end_at {
            Some(end_at) => Ok(Reach {
                before,
                segments,
                end_at,
                ended: &run.ended,
            }),
            None => Err(NoReach::EndMissing(run.ended.clone())),
        }
    }

    /// The restore points along the line, in order.
    pub fn restore_points(&self) -> impl Iterator<Item = &'a RestorePoint> + '_ {
        let segments = self.runs.iter().flat_map(|run| run.segments.iter());
        segments.flat_map(|facts| facts.restore_points.iter())
    }
}

/// Which of these contiguous segments holds a place.
fn holding(segments: &[&SegmentFacts], place: Lsn) -> Option<usize> {
    let first = segments.first()?;
    let into = place.0.checked_sub(first.start.0)?;
    let at = usize::try_from(into / first.segment_bytes.max(1)).ok()?;
    (at < segments.len()).then_some(at)
}

impl Ended {
    /// The timeline whose segment is missing or of no use.
    #[must_use]
    pub fn timeline(&self) -> Option<TimelineId> {
        match self {
            Ended::Archive => None,
            Ended::Missing { first, .. } => Some(first.timeline()),
            Ended::Unreadable { name, .. } | Ended::Broken { name, .. } => Some(name.timeline()),
        }
    }
}

impl<'a> Reach<'_, 'a> {
    /// LSN at which WAL ends.
    #[must_use]
    pub fn until(&self) -> Lsn {
        self.segments
            .last()
            .map(|facts| facts.wal_end())
            .unwrap_or_default()
    }

    /// The target times that a recovery can stop at, all of the first segment taken for part of the backup: from the first,
    /// before the second. The first is `None` if no transaction ended during the backup, the second if none has ended since it
    /// began. There is none if the two are the wrong way round.
    #[must_use]
    pub fn times(
        &self,
        backup: &BackupHistory,
    ) -> (Option<wal::Timestamp>, Option<wal::Timestamp>) {
        let latest = |segments: &[&SegmentFacts]| {
            segments.iter().filter_map(|facts| facts.ends.latest).max()
        };
        let during = self.segments.get(..self.end_at).unwrap_or_default();
        let end = self.segments.get(self.end_at).and_then(|facts| {
            let end = facts
                .backup_ends
                .iter()
                .find(|end| end.start == backup.start);
            end.map_or(facts.ends.latest, |end| end.latest)
        });
        (latest(during).max(end), latest(self.segments))
    }

    /// Whether the WAL of it has this place.
    #[must_use]
    pub fn has(&self, place: Lsn) -> bool {
        self.segments
            .first()
            .is_some_and(|first| first.start <= place)
            && place <= self.until()
    }

    /// The last end of a transaction before a segment; it may be one from before the backup.
    pub(crate) fn end_before(&self, at: usize, commits_only: bool) -> Option<TransactionEnd> {
        let replayed = self.segments.get(..at)?;
        let mut before = self.before.iter().chain(replayed).rev();
        before.find_map(|facts| {
            if commits_only {
                facts.ends.last_commit
            } else {
                facts.ends.last
            }
        })
    }
}
