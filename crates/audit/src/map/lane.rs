//! One timeline's lane of a chart.
//!
//! Guarantees that time runs forward along a lane, whatever the server's clock did.

use wal::{Lsn, TimelineId, Timestamp};

use super::{Chart, Column, Lane, Mark, Span, Switch};
use crate::facts::SegmentFacts;
use crate::line::{Ended, Line};
use crate::survey::Survey;

/// When the segments of a timeline were written.
pub(super) struct Clock<'a> {
    timeline: TimelineId,
    begins: Lsn,
    /// The timeline's own segments, each with when it begins and ends, and in which run it is.
    segments: Vec<(&'a SegmentFacts, Timestamp, Timestamp, usize)>,
}

impl<'a> Clock<'a> {
    pub(super) fn of(line: &Line<'a>) -> Clock<'a> {
        let runs = line.runs.iter().enumerate();
        let own: Vec<(&'a SegmentFacts, usize)> = runs
            .flat_map(|(run, segments)| segments.segments.iter().map(move |facts| (*facts, run)))
            .filter(|(facts, _)| facts.name.timeline() == line.timeline)
            .collect();
        // Where nothing tells a time before the first that does, that one is taken.
        let first = own
            .iter()
            .find_map(|(facts, _)| began(facts, line.timeline));
        let stored = own.first().map(|(facts, _)| facts.stored);
        let mut now = first.or(stored).unwrap_or(Timestamp(0));
        let mut before = None;
        let mut segments = Vec::new();
        for (facts, run) in own {
            let begins = if before == Some(run) {
                now
            } else {
                began(facts, line.timeline).unwrap_or(now).max(now)
            };
            now = facts.time().unwrap_or(begins).max(begins);
            segments.push((facts, begins, now, run));
            before = Some(run);
        }
        Clock {
            timeline: line.timeline,
            begins: line.begins(),
            segments,
        }
    }

    pub(super) fn begins(&self) -> Option<Timestamp> {
        self.segments.first().map(|(_, begins, ..)| *begins)
    }

    pub(super) fn ends(&self) -> Option<Timestamp> {
        self.segments.last().map(|(_, _, ends, _)| *ends)
    }

    /// When a place was written, as far as can be told.
    fn at(&self, place: Lsn) -> Option<Timestamp> {
        let after = self
            .segments
            .partition_point(|(facts, ..)| facts.behind() <= place);
        let Some((facts, begins, ends, _)) = self.segments.get(after) else {
            return self.ends();
        };
        let into = place.0.saturating_sub(facts.start.0) as f64;
        let share = into / facts.wal_bytes().max(1) as f64;
        let length = ends.0.saturating_sub(begins.0) as f64;
        Some(Timestamp(
            begins
                .0
                .saturating_add((length * share.clamp(0.0, 1.0)) as i64),
        ))
    }
}

/// The first time that a segment tells: for one that a timeline begins in, when that was.
fn began(facts: &SegmentFacts, timeline: TimelineId) -> Option<Timestamp> {
    let begun = facts
        .beginnings
        .iter()
        .find(|beginning| beginning.timeline == timeline);
    let begun = begun.and_then(|begun| begun.at);
    let checkpoints = facts
        .checkpoints
        .iter()
        .filter_map(|checkpoint| checkpoint.at);
    begun
        .or_else(|| facts.ends.earliest.into_iter().chain(checkpoints).min())
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
    for (facts, _, ends, _) in &clock.segments {
        let column = usize::try_from(chart.part(*ends, chart.columns)).unwrap_or_default();
        if let Some(column) = columns.get_mut(column) {
            column.wal_bytes = column.wal_bytes.saturating_add(facts.wal_bytes());
            column.stored_bytes = column.stored_bytes.saturating_add(facts.stored_bytes);
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
    let mut spans: Vec<(usize, Span)> = Vec::new();
    for (facts, begins, ends, run) in &clock.segments {
        match spans.last_mut() {
            Some((last, span)) if last == run => {
                span.until = *ends;
                span.until_lsn = facts.wal_end();
                span.segments += 1;
            }
            _ => {
                let span = Span {
                    from: *begins,
                    until: *ends,
                    first_lsn: facts.start.max(clock.begins),
                    until_lsn: facts.wal_end(),
                    segments: 1,
                };
                spans.push((*run, span));
            }
        }
    }
    spans.into_iter().map(|(_, span)| span).collect()
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
        let behind = clock
            .segments
            .partition_point(|(facts, ..)| facts.name < *first);
        let until = clock.segments.get(behind).map(|(_, begins, ..)| *begins);
        let before = behind.checked_sub(1).and_then(|at| clock.segments.get(at));
        let from = before.map(|(_, _, ends, _)| *ends).or(until)?;
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
    let points = clock
        .segments
        .iter()
        .flat_map(|(facts, ..)| &facts.restore_points);
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
