//! What becomes of a recovery to one target, along each timeline and from each base backup.
//!
//! Guarantees an answer for every timeline that has WAL, and for every base backup that belongs to it. Without a base backup
//! in the archive an answer is that of a recovery which begins with the first WAL there is.

use archive::Error;
use serde::Serialize;
use wal::{Lsn, TimelineId, Timestamp};

use crate::facts::TransactionEnd;
use crate::line::{Ended, Line, NoReach, Reach};
use crate::records::{Kept, Records};
use crate::stop::{Goal, Outcome, Stop, Target, outcome};
use crate::survey::{Backup, Survey};
use crate::text;

/// What becomes of recoveries to a target.
#[derive(Debug, Serialize)]
pub struct Answers {
    /// The parameter, `recovery_target_time` or the like.
    pub parameter: &'static str,
    /// Value of the target's parameter.
    pub value: String,
    /// `recovery_target_inclusive`
    pub inclusive: bool,
    /// One for each timeline.
    pub timelines: Vec<TimelineAnswers>,
}

/// What becomes of recoveries along one timeline.
#[derive(Debug, Serialize)]
pub struct TimelineAnswers {
    /// `recovery_target_timeline`
    #[serde(with = "text::timeline")]
    pub timeline: TimelineId,
    /// Where the first such record is, reachable or not; none if the timeline has none.
    pub found: Option<Place>,
    /// One for each base backup that belongs to the timeline.
    pub backups: Vec<Answer>,
}

/// What becomes of a recovery from one base backup.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// The name of its backup history file.
    pub backup: String,
    /// Label of the backup.
    pub label: String,
    /// Result of a recovery from it.
    pub kind: Kind,
    /// Where it stops, or would stop if the backup were consistent by then.
    pub stop: Option<Place>,
    /// Why it does not stop, if it does not.
    pub why: Option<String>,
}

/// What becomes of a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It stops at the target.
    Stops,
    /// The target lies before the end of the backup: the server ends with an error.
    TooEarly,
    /// WAL ends before the target: the server ends with an error.
    NotReached,
    /// The backup cannot be recovered at all.
    Unusable,
}

/// Where recovery stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The place up to which WAL is replayed.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// Where the record begins that decides.
    #[serde(with = "text::plain")]
    pub record_lsn: Lsn,
    /// Whether that one is replayed.
    pub record_is_replayed: bool,
    /// The last commit that is there afterwards, if the archive has it.
    pub last_commit: Option<EndReport>,
    /// The last end of a transaction, commit or not.
    pub last: Option<EndReport>,
    /// The first end of a transaction that is not there any more.
    pub next: Option<EndReport>,
}

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EndReport {
    /// Id of the transaction, if the record tells it.
    pub xid: Option<u32>,
    /// True for a commit, false for a rollback.
    pub committed: bool,
    /// Time, by the server's clock.
    #[serde(with = "text::shown")]
    pub at: Timestamp,
    /// LSN at which the record begins.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// LSN at which the record ends.
    #[serde(with = "text::plain")]
    pub end_lsn: Lsn,
}

impl From<TransactionEnd> for EndReport {
    fn from(end: TransactionEnd) -> EndReport {
        EndReport {
            xid: end.xid,
            committed: end.is_commit,
            at: end.at,
            lsn: end.lsn,
            end_lsn: end.end,
        }
    }
}

impl From<Stop> for Place {
    fn from(stop: Stop) -> Place {
        Place {
            lsn: stop.place,
            record_lsn: stop.record,
            record_is_replayed: stop.is_replayed,
            last_commit: stop.last_commit.map(Into::into),
            last: stop.last.map(Into::into),
            next: stop.next.map(Into::into),
        }
    }
}

impl Target {
    fn parameter(&self) -> (&'static str, String) {
        match self {
            Target::Time(time) => ("recovery_target_time", crate::timestamp::readable(*time)),
            Target::Xid(xid) => ("recovery_target_xid", xid.to_string()),
            Target::Lsn(lsn) => ("recovery_target_lsn", lsn.to_string()),
            Target::Name(name) => ("recovery_target_name", name.clone()),
        }
    }
}

/// What becomes of recoveries to this target.
///
/// # Errors
/// When a segment cannot be read again.
pub fn answers(survey: &Survey, goal: &Goal, records: &mut dyn Records) -> Result<Answers, Error> {
    let mut records = Kept::new(records);
    let mut timelines = Vec::new();
    for timeline in survey.timelines() {
        let line = survey.line(timeline);
        if line.runs.is_empty() {
            continue;
        }
        let mut backups = Vec::new();
        for backup in &survey.backups {
            backups.extend(answer(&line, backup, goal, &mut records)?);
        }
        timelines.push(TimelineAnswers {
            timeline,
            found: anywhere(&line, goal, &mut records)?.map(Into::into),
            backups,
        });
    }
    let (parameter, value) = goal.target.parameter();
    Ok(Answers {
        parameter,
        value,
        inclusive: goal.inclusive,
        timelines,
    })
}

/// The first place on the line where a recovery would stop that begins with the line, or behind one of its holes.
fn anywhere(line: &Line<'_>, goal: &Goal, records: &mut Kept<'_>) -> Result<Option<Stop>, Error> {
    for run in &line.runs {
        let reach = Reach {
            run,
            from: 0,
            end_at: 0,
            ended: &run.ended,
        };
        if let Outcome::Stops(stop) = outcome(&reach, (Lsn(0), Lsn(0)), goal, records)? {
            return Ok(Some(stop));
        }
    }
    Ok(None)
}

/// `None` if the backup does not belong to the line.
fn answer(
    line: &Line<'_>,
    backup: &Backup,
    goal: &Goal,
    records: &mut Kept<'_>,
) -> Result<Option<Answer>, Error> {
    let history = &backup.history;
    let (kind, stop, why) = match line.reach(history) {
        Err(NoReach::OtherTimeline) => return Ok(None),
        Err(why) => (Kind::Unusable, None, Some(why.in_words())),
        Ok(reach) => match outcome(&reach, (history.start, history.stop), goal, records)? {
            Outcome::Stops(stop) => (Kind::Stops, Some(stop.into()), None),
            Outcome::TooEarly { stop, consistent } => {
                let why = format!("the backup is not consistent before {consistent}");
                (Kind::TooEarly, Some(stop.into()), Some(why))
            }
            Outcome::NotReached => {
                let until = reach.until();
                let why = match reach.ended {
                    Ended::Archive => {
                        format!("nothing of the kind comes before the end of WAL at {until}")
                    }
                    ended => format!("WAL ends at {until}: {}", ended.in_words()),
                };
                (Kind::NotReached, None, Some(why))
            }
        },
    };
    Ok(Some(Answer {
        backup: backup.file.clone(),
        label: history.label.clone(),
        kind,
        stop,
        why,
    }))
}
