//! Where recovery stops for a target.
//!
//! Guarantees the server's own rules, record by record in the order of WAL. A target time is compared with the ends of
//! transactions alone, and recovery stops before the first one that is later, whatever comes behind it; times are not
//! sorted. A stop before a base backup is consistent is none: the server ends there with an error, as it does when WAL
//! ends first.
//!
//! Source: `recoveryStopsBefore`, `recoveryStopsAfter` and `PerformWalRecovery` in `xlogrecovery.c`, 15 to 18.

use archive::Error;
use wal::{Lsn, Timestamp};

use crate::facts::{SegmentFacts, TransactionEnd};
use crate::line::Reach;
use crate::records::{Kept, Seen, SeenKind};

/// What recovery is to stop at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `recovery_target_time`
    Time(Timestamp),
    /// `recovery_target_xid`
    Xid(u32),
    /// `recovery_target_lsn`
    Lsn(Lsn),
    /// `recovery_target_name`
    Name(String),
}

/// A target and whether it is `recovery_target_inclusive`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// What recovery is to stop at.
    pub target: Target,
    /// Whether what is named belongs to what is recovered; of no meaning for a restore point, which always does.
    pub inclusive: bool,
}

/// Where recovery stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// LSN of the record that decides.
    pub record: Lsn,
    /// Whether that record is replayed.
    pub is_replayed: bool,
    /// The place up to which WAL is replayed.
    pub place: Lsn,
    /// The last end of a transaction that is replayed, or that the archive holds before the backup's beginning.
    pub last: Option<TransactionEnd>,
    /// The last commit, likewise.
    pub last_commit: Option<TransactionEnd>,
    /// The first end of a transaction that is not replayed, if the archive holds one on the same line.
    pub next: Option<TransactionEnd>,
}

/// What becomes of a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Recovery stops here.
    Stops(Stop),
    /// It would stop here, before the backup is consistent at `consistent`: the server ends with an error.
    TooEarly {
        /// Where recovery stops.
        stop: Stop,
        /// From where on it could.
        consistent: Lsn,
    },
    /// WAL ends first, and the server ends with an error.
    NotReached,
}

/// Whether a recovery along `reach` stops, which begins at `start` and is consistent at `consistent`.
///
/// # Errors
/// When a segment cannot be read again.
pub(crate) fn outcome(
    reach: &Reach<'_, '_>,
    (start, consistent): (Lsn, Lsn),
    goal: &Goal,
    records: &mut Kept<'_>,
) -> Result<Outcome, Error> {
    for at in reach.from..reach.run.count() {
        if !is_worth_a_look(reach, at, goal) {
            continue;
        }
        let Some(facts) = reach.run.facts(at).filter(|facts| may_decide(facts, goal)) else {
            continue;
        };
        let seen = records.of(&facts)?;
        let decides = |seen: &&Seen| seen.lsn >= start && decides(seen, goal);
        let Some(record) = seen.iter().find(decides) else {
            continue;
        };
        let is_replayed = is_replayed(goal);
        let place = if is_replayed { record.end } else { record.lsn };
        let ends = |seen: &Seen| match seen.kind {
            SeenKind::Transaction(end) => Some(end),
            _ => None,
        };
        let replayed = |end: &TransactionEnd| end.lsn < place;
        let mut before = seen.iter().rev().filter_map(ends).filter(replayed);
        let last = before
            .clone()
            .next()
            .or_else(|| reach.end_before(at, false));
        let last_commit = before
            .find(|end| end.is_commit)
            .or_else(|| reach.end_before(at, true));
        let next = seen.iter().filter_map(ends).find(|end| !replayed(end));
        let stop = Stop {
            record: record.lsn,
            is_replayed,
            place,
            last,
            last_commit,
            next: next.or_else(|| reach.end_behind(at)),
        };
        return Ok(if place < consistent {
            Outcome::TooEarly { stop, consistent }
        } else {
            Outcome::Stops(stop)
        });
    }
    Ok(Outcome::NotReached)
}

/// Whether it takes a look at what is known of a segment to tell whether it may hold the record that decides.
fn is_worth_a_look(reach: &Reach<'_, '_>, at: usize, goal: &Goal) -> bool {
    let brief = reach.run.brief(at);
    let latest = brief.and_then(|brief| brief.latest());
    match &goal.target {
        Target::Time(time) => latest >= Some(*time),
        Target::Xid(xid) => brief.is_some_and(|brief| brief.may_have(*xid)),
        Target::Lsn(lsn) => lsn.0.saturating_sub(reach.run.start(at).0) < reach.run.segment_bytes(),
        Target::Name(_) => reach.run.may_have_points(at),
    }
}

/// Whether a segment may hold the record that decides.
fn may_decide(facts: &SegmentFacts, goal: &Goal) -> bool {
    match &goal.target {
        Target::Time(time) if goal.inclusive => facts.ends.latest > Some(*time),
        Target::Time(time) => facts.ends.latest >= Some(*time),
        Target::Xid(xid) => facts
            .ends
            .xids
            .is_some_and(|(low, high)| (low..=high).contains(xid)),
        Target::Lsn(lsn) => facts.last.is_some_and(|last| last >= *lsn),
        Target::Name(name) => {
            facts.left_out > 0 || facts.restore_points.iter().any(|point| point.name == *name)
        }
    }
}

fn decides(seen: &Seen, goal: &Goal) -> bool {
    match (&goal.target, &seen.kind) {
        (Target::Time(time), SeenKind::Transaction(end)) if goal.inclusive => end.at > *time,
        (Target::Time(time), SeenKind::Transaction(end)) => end.at >= *time,
        (Target::Xid(xid), SeenKind::Transaction(end)) => end.xid == Some(*xid),
        (Target::Lsn(lsn), _) => seen.lsn >= *lsn,
        (Target::Name(name), SeenKind::RestorePoint(point)) => point == name,
        _ => false,
    }
}

/// Whether the record that decides is replayed.
fn is_replayed(goal: &Goal) -> bool {
    match goal.target {
        Target::Time(_) => false,
        Target::Name(_) => true,
        Target::Xid(_) | Target::Lsn(_) => goal.inclusive,
    }
}
