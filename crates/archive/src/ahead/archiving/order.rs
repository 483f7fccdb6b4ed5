//! In which order files of one timeline become visible: none behind one that is not there.
//!
//! A server whose file is refused is not the one that has written what is stored, or something is wrong with it; its later
//! segments must not lie behind the other's. So:
//! * where an object that is staged is all but there (directories), files are staged at once and given their names in order;
//! * elsewhere the first file of a timeline goes alone. If WAL is stored behind it, one file goes after the other, until nothing
//!   lies behind the last one that was stored; else several at once, and behind one that is on its way never more than one file
//!   less than there are jobs. A refusal cancels what is on its way behind it, so that at most so many get through.
//!
//! Timeline and backup history files are not WAL, and wait for nothing.

use std::collections::HashMap;

use wal::{SegmentName, TimelineId, WalFileName};

/// The segment whose WAL a file holds; `None` if it holds none.
pub(crate) fn wal_of(name: &WalFileName) -> Option<&SegmentName> {
    match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => Some(segment),
        WalFileName::TimelineHistory(_) | WalFileName::BackupHistory { .. } => None,
    }
}

/// Whether `one` comes before `other` on the same timeline.
pub(crate) fn is_before(one: &WalFileName, other: &WalFileName) -> bool {
    match (wal_of(one), wal_of(other)) {
        (Some(_), Some(_)) => one.timeline() == other.timeline() && one < other,
        _ => false,
    }
}

/// How files of a timeline may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// One that is asked for, alone: nothing is known yet.
    First,
    /// One after the other: something is stored behind them.
    OneByOne,
    /// Several files at once.
    Free,
}

/// The timelines of a run.
#[derive(Debug)]
pub(crate) struct Order {
    /// Whether files are given their names in order.
    pub(crate) stages_ahead: bool,
    paces: HashMap<TimelineId, Pace>,
}

impl Order {
    pub(crate) fn new(stages_ahead: bool) -> Order {
        Order {
            stages_ahead,
            paces: HashMap::new(),
        }
    }

    pub(crate) fn pace(&self, name: &WalFileName) -> Pace {
        if self.stages_ahead || wal_of(name).is_none() {
            return Pace::Free;
        }
        let pace = self.paces.get(&name.timeline());
        pace.copied().unwrap_or(Pace::First)
    }

    /// A file was stored; whether there is something behind it, if that was looked at.
    pub(crate) fn stored(&mut self, name: &WalFileName, has_later: Option<bool>) {
        let pace = match has_later {
            Some(true) => Pace::OneByOne,
            Some(false) => Pace::Free,
            None => return,
        };
        if wal_of(name).is_some() {
            self.paces.insert(name.timeline(), pace);
        }
    }

    /// A file was refused: nothing is known any more.
    pub(crate) fn refused(&mut self, name: &WalFileName) {
        if wal_of(name).is_some() {
            self.paces.remove(&name.timeline());
        }
    }
}
