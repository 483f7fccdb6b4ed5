//! One timeline's lane of a chart.
//!
//! Guarantees that time runs forward along a lane, whatever the server's clock did.

use wal::{Lsn, TimelineId, Timestamp};

use super::{Chart, Column, Lane, Mark, Span, Switch};
use crate::facts::SegmentFacts;
use crate::line::{Ended, Line, Run};
use crate::survey::Survey;

/// When the segments of a timeline were written.
pub(super) struct Clock<'l> {
    timeline: TimelineId,
    begins: Lsn,
    /// The timeline's own segments, run by run.
    runs: Vec<Timed<'l>>,
}

/// The timeline's own segments of a run.
struct Timed<'l> {
    run: &'l Run<'l>,
    /// Which is the first of them.
    from: usize,
    /// When that begins.
    begins: Timestamp,
    /// When each ends, and the next one begins.
    ends: Vec<Timestamp>,
}

impl<'l> Timed<'l> {
    /// What is in a segment.
    fn facts(&self, at: usize) -> Option<Box<SegmentFacts>> {
        self.run.facts(self.from + at)
    }

    /// All segments, each with when it ends.
    fn all(&self) -> impl Iterator<Item = (Box<SegmentFacts>, Timestamp)> + '_ {
        let ends = self.ends.iter().enumerate();
        ends.filter_map(|(at, ends)| Some((self.facts(at)?, *ends)))
    }

    fn end(&self) -> Timestamp {
        self.ends.last().copied().unwrap_or(self.begins)
    }
}

impl<'l> Clock<'l> {
    pub(super) fn of(line: &'l Line<'l>) -> Clock<'l> {
        let own = |run: &'l Run<'l>| run.of(line.timeline).filter_map(|at| run.facts(at));
        let mut all = line.runs.iter().flat_map(own).peekable();
        let stored = all.peek().map(|facts| facts.stamp.timestamp());
        // Where nothing tells a time before the first that does, that one is taken.
        let first = all.find_map(|facts| began(&facts, line.timeline));
        let mut now = first.or(stored).unwrap_or(Timestamp(0));
        let mut runs = Vec::new();
        for run in &line.runs {
            let mut timed = Timed {
                run,
                from: run.of(line.timeline).start,
                begins: now,
                ends: Vec::new(),
            };
            for facts in own(run) {
                if timed.ends.is_empty() {
                    now = began(&facts, line.timeline).unwrap_or(now).max(now);
                    timed.begins = now;
                }
                now = facts.time().unwrap_or(now).max(now);
                timed.ends.push(now);
            }
            if !timed.ends.is_empty() {
                runs.push(timed);
            }
        }
        Clock {
            timeline: line.timeline,
            begins: line.begins(),
            runs,
        }
    }

    pub(super) fn begins(&self) -> Option<Timestamp> {
        self.runs.first().map(|timed| timed.begins)
    }

    pub(super) fn ends(&self) -> Option<Timestamp> {
        self.runs.last().map(Timed::end)
    }

    /// When a place was written, as far as can be told.
    fn at(&self, place: Lsn) -> Option<Timestamp> {
        let segment = |timed: &Timed<'_>| {
            let into = place.0.saturating_sub(timed.run.start(timed.from).0);
            usize::try_from(into / timed.run.segment_bytes()).unwrap_or(usize::MAX)
        };
        let mut later = self.runs.iter().map(|timed| (timed, segment(timed)));
        let Some((timed, at)) = later.find(|(timed, at)| *at < timed.ends.len()) else {
            return self.ends();
        };
        let (facts, ends) = (timed.facts(at)?, timed.ends.get(at)?);
        let before = at.checked_sub(1).and_then(|at| timed.ends.get(at));
        let begins = before.unwrap_or(&timed.begins);
        let into = place.0.saturating_sub(facts.start.0) as f64;
        let share = into / facts.wal_bytes().max(1) as f64;
        let length = ends.0.saturating_sub(begins.0) as f64;
        let since = (length * share.clamp(0.0, 1.0)) as i64;
        Some(Timestamp(begins.0.saturating_add(since)))
    }
}

/// The first time that a segment tells: for one that a timeline begins in, when that was.
fn began(facts: &SegmentFacts, timeline: TimelineId) -> Option<Timestamp> {
    let begun = facts
        .beginnings
        .iter()
        .find(|beginning| beginning.timeline == timeline);
    let begun = begun.and_then(|begun| begun.at);
    let earliest = facts.ends.earliest.into_iter();
    begun
        .or_else(|| earliest.chain(facts.first_checkpoint).min())
        .or(facts.time())
}

/// A timeline's lane.
pub(super) fn lane(
    survey: &Survey,
    line: &Line<'_>,
    clock: &Clock<'_>,
    clocks: &[Clock<'_>],
    chart: &Chart,
) -> Lane {
    let parent = line.history.and_then(|history| history.entries().last());
    let parents_clock = parent.and_then(|parent| {
        clocks
            .iter()
            .find(|clock| clock.timeline == parent.timeline)
    });
    let mut columns = vec![Column::default(); usize::try_from(chart.columns).unwrap_or_default()];
    for (facts, ends) in clock.runs.iter().flat_map(Timed::all) {
        let column = usize::try_from(chart.part(ends, chart.columns)).unwrap_or_default();
        if let Some(column) = columns.get_mut(column) {
            column.wal_bytes = column.wal_bytes.saturating_add(facts.wal_bytes());
            column.stored_bytes = column.stored_bytes.saturating_add(facts.stamp.bytes);
        }
    }
    Lane {
        timeline: line.timeline,
        left: parent.map(|parent| Switch {
            from: parent.timeline,
            lsn: parent.switchpoint,
            at: clock
                .begins()
                .or_else(|| parents_clock?.at(parent.switchpoint))
                .unwrap_or(chart.from),
            reason: parent.reason.clone(),
        }),
        history_missing: line.history.is_none() && line.timeline != TimelineId::FIRST,
        spans: spans(clock),
        holes: chart.merged(holes(line, clock)),
        points: chart.spread(points(clock)),
        backups: chart.spread(backups(survey, clock)),
        columns,
    }
}

fn spans(clock: &Clock<'_>) -> Vec<Span> {
    let spans = clock.runs.iter().filter_map(|timed| {
        let last = timed.facts(timed.ends.len().checked_sub(1)?)?;
        Some(Span {
            from: timed.begins,
            until: timed.end(),
            first_lsn: timed.run.start(timed.from).max(clock.begins),
            until_lsn: last.wal_end(),
            segments: timed.ends.len() as u64,
        })
    });
    spans.collect()
}

/// What is missing in the timeline's own WAL, between what is there.
fn holes(line: &Line<'_>, clock: &Clock<'_>) -> Vec<Mark> {
    let own = line
        .holes
        .iter()
        .filter(|ended| ended.timeline() == Some(line.timeline));
    own.filter_map(|ended| {
        let first = match ended {
            Ended::Archive => return None,
            Ended::Missing { first, .. } => first,
            Ended::Unreadable { name, .. } | Ended::Broken { name, .. } => name,
        };
        let is_before = |timed: &Timed<'_>| timed.run.name(timed.from) < Some(*first);
        let behind = clock.runs.partition_point(is_before);
        let until = clock.runs.get(behind).map(|timed| timed.begins);
        let before = behind.checked_sub(1).and_then(|at| clock.runs.get(at));
        let from = before.map(Timed::end).or(until)?;
        Some(Mark {
            from,
            until: until.unwrap_or(from),
            count: 1,
            text: ended.in_words(),
        })
    })
    .collect()
}

fn points(clock: &Clock<'_>) -> Vec<Mark> {
    let of_run = |timed: &Timed<'_>| {
        let all = timed.from..timed.from + timed.ends.len();
        let with_points = all.filter(|at| timed.run.may_have_points(*at));
        let facts = with_points.filter_map(|at| timed.run.facts(at));
        facts
            .flat_map(|facts| facts.restore_points)
            .collect::<Vec<_>>()
    };
    let points = clock.runs.iter().flat_map(of_run);
    let own = points.filter(|point| point.lsn >= clock.begins);
    own.map(|point| Mark {
        from: point.at,
        until: point.at,
        count: 1,
        text: format!(
            "restore point \"{}\" at {}, {}",
            point.name.escape_debug(),
            crate::timestamp::readable(point.at),
            point.lsn
        ),
    })
    .collect()
}

fn backups(survey: &Survey, clock: &Clock<'_>) -> Vec<Mark> {
    let backups = survey.backups.iter();
    let own = backups.filter(|backup| backup.history.timeline == clock.timeline);
    own.filter_map(|backup| {
        let (start, stop) = (
            clock.at(backup.history.start)?,
            clock.at(backup.history.stop)?,
        );
        let ended = backup.history.stop_time.as_deref();
        Some(Mark {
            from: start,
            until: stop,
            count: 1,
            text: format!(
                "base backup \"{}\"{}, {} to {}",
                backup.history.label.escape_debug(),
                ended
                    .map(|time| format!(", ended {}", time.escape_debug()))
                    .unwrap_or_default(),
                backup.history.start,
                backup.history.stop
            ),
        })
    })
    .collect()
}
