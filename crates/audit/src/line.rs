//! The WAL that a recovery along one timeline reads: its own, and that of its ancestors up to where each was left.
//!
//! Guarantees the choice of segments that the server makes where all of them are there, and that a hole, a segment that cannot
//! be read and one that does not follow the one before all end a run. Where WAL goes on behind them is a run of its own,
//! which no recovery gets to from before; so is WAL in segments of another size.

use std::collections::BTreeMap;
use std::ops::Range;

use wal::{Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId};

use crate::backup_history::BackupHistory;
use crate::chain::{Brief, Piece, in_order};
use crate::facts::{RestorePoint, SegmentFacts, TransactionEnd};
use crate::lineage::name_of;
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

/// Segments that follow one another, all of one size; at least one.
#[derive(Debug, Clone)]
pub struct Run<'a> {
    survey: &'a Survey,
    pieces: Vec<OnLine<'a>>,
    /// Where its WAL ends.
    until: Lsn,
    /// Why the run ends.
    pub ended: Ended,
}

/// A piece of a run.
#[derive(Debug, Clone)]
struct OnLine<'a> {
    piece: Piece<'a>,
    /// How many segments of the run come before it.
    before: usize,
    /// The last of its segments in which a record begins, and what holds of that on this line: what goes over its end depends on
    /// the piece behind it.
    last_begun: Option<(usize, Brief)>,
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
#[derive(Debug, Clone, Copy)]
pub struct Reach<'l, 'a> {
    /// The WAL that it is recovered with, and what is before it.
    pub(crate) run: &'l Run<'a>,
    /// In which segment of the run its replay begins.
    pub(crate) from: usize,
    /// Which of them holds the end of the backup.
    pub(crate) end_at: usize,
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
            line.join(era, self);
        }
        for run in &mut line.runs {
            run.finish();
        }
        line
    }

    /// The WAL on a line, era by era.
    fn eras(&self, timeline: TimelineId) -> Vec<Era<'_>> {
        let mut stretches = BTreeMap::new();
        let on_line = self.chains.iter().filter_map(|chain| {
            let line = stretches.entry(chain.size);
            let line = line.or_insert_with(|| self.lineage.line(timeline, chain.size));
            let own = line.iter().find(|it| it.timeline == chain.timeline)?;
            Piece::within(chain, &own.segments)
        });
        let mut eras: Vec<Era<'_>> = Vec::new();
        for piece in in_order(on_line.collect()) {
            let (size, place) = (piece.chain.size, (piece.numbers(), Ok(piece)));
            match eras.last_mut().filter(|era| era.size == size) {
                Some(era) => era.places.push(place),
                None => eras.push(Era {
                    size,
                    places: vec![place],
                }),
            }
        }
        if let (true, Some(size)) = (eras.is_empty(), self.size) {
            let places = Vec::new();
            eras.push(Era { size, places });
        }
        for (name, why) in &self.unreadable {
            // How long one of these is nothing tells. It stands where its name says, in the first era that has WAL on both sides
            // of it; where there is none it belongs to the latest.
            let at = eras.iter().position(|era| era.surrounds(name));
            let at = at.or(eras.len().checked_sub(1));
            if let Some(era) = at.and_then(|at| eras.get_mut(at))
                && let Some(number) = name.number(era.size)
                && self.lineage.asked_for(timeline, number.0, era.size) == name.timeline()
            {
                era.places.push(((number.0, number.0), Err((*name, why))));
            }
        }
        eras
    }
}

/// Segments in their places on a line, by the numbers of the first and the last; or why one cannot be read.
type Place<'a> = ((u64, u64), Result<Piece<'a>, (SegmentName, &'a String)>);

/// WAL in segments of one size: as long as `pg_resetwal --wal-segsize` is not run, all of it. No recovery leads from one era
/// into the next.
struct Era<'a> {
    size: SegmentSize,
    places: Vec<Place<'a>>,
}

impl Era<'_> {
    /// Whether a name lies between those of the era that can be read.
    fn surrounds(&self, name: &SegmentName) -> bool {
        let good = || self.places.iter().filter(|place| place.1.is_ok());
        let (first, last) = (good().next(), good().next_back());
        let Some(number) = name.number(self.size) else {
            return false;
        };
        first.is_some_and(|((first, _), _)| *first <= number.0)
            && last.is_some_and(|((_, last), _)| number.0 <= *last)
    }
}

impl<'a> Line<'a> {
    /// Puts an era behind what the line has already.
    fn join(&mut self, mut era: Era<'a>, survey: &'a Survey) {
        era.places.sort_by_key(|(numbers, _)| *numbers);
        let (size, timeline) = (era.size, self.timeline);
        let name_of = |number| {
            name_of(
                survey.lineage.asked_for(timeline, number, size),
                number,
                size,
            )
        };
        let mut expected: Option<u64> = None;
        for ((first, last), found) in era.places {
            if let Some(expected) = expected.filter(|expected| *expected < first) {
                self.end(Ended::Missing {
                    first: name_of(expected),
                    last: name_of(first - 1),
                    count: first - expected,
                });
            }
            expected = Some(last + 1);
            match found {
                Ok(piece) => self.push(piece, survey),
                Err((name, why)) => self.end(Ended::Unreadable {
                    name,
                    why: why.clone(),
                }),
            }
        }
    }

    fn push(&mut self, piece: Piece<'a>, survey: &'a Survey) {
        let name = piece.first();
        let goes_on = |run: &&mut Run<'_>| {
            let last = run.pieces.last();
            let is_of_size = last.is_some_and(|last| last.piece.chain.size == piece.chain.size);
            run.ended == Ended::Archive && is_of_size
        };
        if let Some(run) = self.runs.last_mut().filter(goes_on) {
            let last = run.plain(run.count() - 1);
            match last.and_then(|last| last.is_left(&name)) {
                None => return run.push(piece),
                Some(why) => self.end(Ended::Broken { name, why }),
            }
        }
        let mut run = Run {
            survey,
            pieces: Vec::new(),
            until: Lsn(0),
            ended: Ended::Archive,
        };
        run.push(piece);
        self.runs.push(run);
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
        let after = self
            .runs
            .partition_point(|run| run.start(0) <= backup.start);
        let run = after.checked_sub(1).and_then(|at| self.runs.get(at));
        let run = run.ok_or(NoReach::StartMissing)?;
        let from = run.holding(backup.start).ok_or(NoReach::StartMissing)?;
        // The record that ends the backup begins before the place where it is consistent.
        let last = Lsn(backup.stop.0.saturating_sub(1));
        let end_at = run.holding(last).filter(|at| {
            let facts = run.plain(*at);
            *at >= from && facts.is_some_and(|facts| backup.stop <= facts.wal_end())
        });
        match end_at {
            Some(end_at) => Ok(Reach {
                run,
                from,
                end_at,
                ended: &run.ended,
            }),
            None => Err(NoReach::EndMissing(run.ended.clone())),
        }
    }

    /// The restore points along the line, in order.
    #[must_use]
    pub fn restore_points(&self) -> Vec<RestorePoint> {
        let of_run = |run: &'_ Run<'a>| {
            let with_points = (0..run.count()).filter(|at| run.may_have_points(*at));
            let facts = with_points.filter_map(|at| run.facts(at));
            facts
                .flat_map(|facts| facts.restore_points)
                .collect::<Vec<_>>()
        };
        self.runs.iter().flat_map(of_run).collect()
    }
}

impl<'a> Run<'a> {
    /// How many segments it has.
    #[must_use]
    pub fn count(&self) -> usize {
        let last = self.pieces.last();
        last.map_or(0, |last| last.before + last.piece.count())
    }

    fn push(&mut self, piece: Piece<'a>) {
        self.pieces.push(OnLine {
            before: self.count(),
            piece,
            last_begun: None,
        });
    }

    /// Finds out what depends on the line.
    fn finish(&mut self) {
        let last = self.plain(self.count().saturating_sub(1));
        self.until = last.map(|last| last.wal_end()).unwrap_or_default();
        let last_begun = |it: &OnLine<'_>| {
            let mut all = (it.before..it.before + it.piece.count()).rev();
            let (at, _) = all.find_map(|at| {
                let facts = self.plain(at)?;
                (!facts.goes_through).then_some((at, facts))
            })?;
            Some((at, Brief::of(&self.facts(at)?.ends)))
        };
        let found: Vec<_> = self.pieces.iter().map(last_begun).collect();
        for (it, found) in self.pieces.iter_mut().zip(found) {
            it.last_begun = found;
        }
    }

    /// The piece that has a segment, and which it is in its chain.
    fn find(&self, at: usize) -> Option<(&OnLine<'a>, usize)> {
        let behind = self.pieces.partition_point(|it| it.before <= at);
        let found = self.pieces.get(behind.checked_sub(1)?)?;
        let into = found.piece.part.0 + (at - found.before);
        (into < found.piece.part.1).then_some((found, into))
    }

    /// The name of a segment.
    pub(crate) fn name(&self, at: usize) -> Option<SegmentName> {
        let (it, into) = self.find(at)?;
        Some(it.piece.chain.name(into))
    }

    /// Where a segment begins; one that the run does not have, nowhere.
    pub(crate) fn start(&self, at: usize) -> Lsn {
        let found = self.find(at);
        found.map_or(Lsn(u64::MAX), |(it, into)| it.piece.chain.start(into))
    }

    /// How long its segments are.
    pub(crate) fn segment_bytes(&self) -> u64 {
        let first = self.pieces.first();
        first.map_or(1, |it| it.piece.chain.size.bytes())
    }

    /// Its segments that are a timeline's own.
    pub(crate) fn of(&self, timeline: TimelineId) -> Range<usize> {
        let own = |it: &&OnLine<'_>| it.piece.chain.timeline == timeline;
        let first = self.pieces.iter().find(own).map_or(0, |it| it.before);
        let last = self.pieces.iter().rfind(own);
        first..last.map_or(0, |it| it.before + it.piece.count())
    }

    fn plain(&self, at: usize) -> Option<Box<SegmentFacts>> {
        self.survey.facts(&self.name(at)?)
    }

    /// What is in a segment, with the record that goes over its end if that ends in the run.
    pub(crate) fn facts(&self, at: usize) -> Option<Box<SegmentFacts>> {
        let mut facts = self.plain(at)?;
        let mut last = Some(facts.clone()).filter(|facts| !facts.goes_through);
        let mut next = at + 1;
        while let (Some(before), Some(name)) = (last.take(), self.name(next)) {
            let over = before.follower(&name).and_then(|it| it.over.clone());
            if let Some(over) = over {
                facts.take_over(over);
            } else {
                last = self.plain(next).filter(|next| next.goes_through);
            }
            next += 1;
        }
        Some(facts)
    }

    /// What tells whether there is anything in a segment.
    pub(crate) fn brief(&self, at: usize) -> Option<Brief> {
        let (it, into) = self.find(at)?;
        match it.last_begun {
            Some((last, brief)) if last == at => Some(brief),
            _ => it.piece.chain.briefs.get(into).copied(),
        }
    }

    /// Whether a segment may hold a restore point.
    pub(crate) fn may_have_points(&self, at: usize) -> bool {
        self.find(at).is_some_and(|(it, into)| {
            let is_last = it.last_begun.is_some_and(|(last, _)| last == at);
            is_last || it.piece.chain.points.contains(&into)
        })
    }

    /// The latest end of a transaction in some segments.
    fn latest(&self, range: Range<usize>) -> Option<wal::Timestamp> {
        range.filter_map(|at| self.brief(at)?.latest()).max()
    }

    /// Which segment holds a place.
    fn holding(&self, place: Lsn) -> Option<usize> {
        let into = place.0.checked_sub(self.start(0).0)?;
        let at = usize::try_from(into / self.segment_bytes()).ok()?;
        (at < self.count()).then_some(at)
    }
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

impl Reach<'_, '_> {
    /// LSN at which WAL ends.
    #[must_use]
    pub fn until(&self) -> Lsn {
        self.run.until
    }

    /// The target times that a recovery can stop at, all of the first segment taken for part of the backup: from the first,
    /// before the second. The first is `None` if no transaction ended during the backup, the second if none has ended since it
    /// began. There is none if the two are the wrong way round.
    #[must_use]
    pub fn times(
        &self,
        backup: &BackupHistory,
    ) -> (Option<wal::Timestamp>, Option<wal::Timestamp>) {
        let end = self.run.facts(self.end_at).and_then(|facts| {
            let mut ends = facts.backup_ends.iter();
            let end = ends.find(|end| end.start == backup.start);
            end.map_or(facts.ends.latest, |end| end.latest)
        });
        let during = self.run.latest(self.from..self.end_at);
        let all = self.run.latest(self.from..self.run.count());
        (during.max(end), all)
    }

    /// Whether the WAL of it has this place.
    #[must_use]
    pub fn has(&self, place: Lsn) -> bool {
        self.run.start(self.from) <= place && place <= self.until()
    }

    /// The last end of a transaction before a segment; it may be one from before the backup.
    pub(crate) fn end_before(&self, at: usize, commits_only: bool) -> Option<TransactionEnd> {
        let ends = |at: usize| self.run.brief(at)?.latest().and(self.run.facts(at));
        (0..at).rev().filter_map(ends).find_map(|facts| {
            if commits_only {
                facts.ends.last_commit
            } else {
                facts.ends.last
            }
        })
    }

    /// The first end of a transaction behind a segment.
    pub(crate) fn end_behind(&self, at: usize) -> Option<TransactionEnd> {
        let ends = |at: usize| self.run.brief(at)?.latest().and(self.run.facts(at));
        let mut behind = (at + 1..self.run.count()).filter_map(ends);
        behind.find_map(|facts| facts.ends.first)
    }
}
