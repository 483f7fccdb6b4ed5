//! How a segment fits those before and behind it, as far as they have passed by.
//!
//! Guarantees that of two segments which follow each other and were both read by this process, the one that comes later is
//! not handed on unless the record that goes over their boundary is right, and their records are one chain. Segments may
//! come in any order, and from several threads. A segment whose neighbours were not seen here is checked alone: an audit
//! of the whole archive is what sees all of them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use wal::{Damage, Lsn, SegmentName, SegmentSummary, WalFileName};

use crate::error::Error;

const ALL_THE_SAME: &str = "One of the two is not what the server wrote. With \"walden.verify\" set to \"header\" \
     records are not looked at.";

/// How many segments are remembered: more than are ever on their way at once. About 200 kB at most.
const REMEMBERED_MAX: usize = 48;

/// What is known of the segments that passed by last.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    seen: Mutex<VecDeque<SegmentSummary>>,
}

impl Neighbours {
    /// Fails unless the segment, which messages call `shown`, fits what has been seen of its neighbours.
    pub(crate) fn check(&self, summary: &SegmentSummary, shown: &str) -> Result<(), Error> {
        self.join(summary).map_err(|(other, damage)| {
            Error::damaged(format!("{shown} does not fit \"{other}\": {damage}"))
                .with_hint(ALL_THE_SAME)
        })
    }

    fn join(&self, summary: &SegmentSummary) -> Result<(), (SegmentName, Damage)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = summary.clone();
        if let Some(before) = seen.iter().find(|other| other.precedes(summary)) {
            let joined = before.join(&mut own, |_| ());
            joined.map_err(|damage| (before.name, damage))?;
        }
        match seen.iter().find(|other| summary.precedes(other)) {
            Some(behind) => {
                let joined = own.join(&mut behind.clone(), |_| ());
                joined.map_err(|damage| (behind.name, damage))
            }
            None => Ok(()),
        }
    }

    /// Remembers a segment that was handed on. WAL ends in a partial segment, so that none follows it.
    pub(crate) fn remember(&self, name: &WalFileName, summary: SegmentSummary) {
        if !matches!(name, WalFileName::Segment(_)) {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A record over several segments is checked only in order, so a segment may know more of it than it could itself.
        seen.retain(|other| other.name != summary.name);
        if seen.len() >= REMEMBERED_MAX {
            seen.pop_front();
        }
        seen.push_back(summary);
    }
}

/// For a segment in which WAL ends, although it goes on in the next.
pub(crate) fn ends_early(shown: &str, lsn: Lsn, there: &str) -> Error {
    Error::damaged(format!(
        "{shown} is not valid: WAL ends at {lsn}, although {there}"
    ))
    .with_hint(ALL_THE_SAME)
}
