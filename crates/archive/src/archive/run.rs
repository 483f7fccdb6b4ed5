//! What one process knows of its archiving so far: which timelines it has seen to follow what is stored, which segments have
//! passed by since, and what its caller should be told.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wal::{SegmentName, TimelineId, WalFileName};

/// How many warnings are kept that have not been taken: one for each timeline, and a few.
const WARNINGS_MAX: usize = 16;

/// How many segments are remembered: more than are on their way at any time, so that the one before the next is among them.
const OFFERED_MAX: usize = 1024;

/// After so many files that were not there in time the primary is taken not to archive there. More than one: it may have
/// been slow.
const MISSES_MAX: u32 = 3;

/// What this process knows of its archiving; see the file's header.
#[derive(Debug, Default)]
pub(crate) struct Run {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    followed: BTreeSet<TimelineId>,
    offered: BTreeSet<SegmentName>,
    has_seen_note: bool,
    /// How many files in a row the primary had not archived in time.
    misses: u32,
    warnings: Vec<String>,
}

impl Run {
    /// Whether a segment of this timeline is known to follow what is stored, or nothing can be known of it.
    pub(crate) fn has_followed(&self, timeline: TimelineId) -> bool {
        self.state().followed.contains(&timeline)
    }

    /// A file is offered: what is behind it will be compared with it.
    pub(crate) fn passes(&self, name: &WalFileName) {
        if let WalFileName::Segment(segment) | WalFileName::Partial(segment) = name {
            let mut state = self.state();
            state.offered.insert(*segment);
            if state.offered.len() > OFFERED_MAX {
                state.offered.pop_first();
            }
        }
    }

    /// Whether this segment has been offered.
    pub(crate) fn has_passed(&self, segment: &SegmentName) -> bool {
        self.state().offered.contains(segment)
    }

    /// A segment is.
    pub(crate) fn follows(&self, name: &WalFileName) {
        if let WalFileName::Segment(_) | WalFileName::Partial(_) = name {
            self.state().followed.insert(name.timeline());
        }
    }

    /// Whether it has been seen that files may be stored as they are going to be (`put/note.rs`).
    pub(crate) fn has_seen_note(&self) -> bool {
        self.state().has_seen_note
    }

    /// It has.
    pub(crate) fn sees_note(&self) {
        self.state().has_seen_note = true;
    }

    /// Whether no other server seems to archive the same files.
    pub(crate) fn is_alone(&self) -> bool {
        self.state().misses >= MISSES_MAX
    }

    /// Another server has archived a file first.
    pub(crate) fn finds_another(&self) {
        self.state().misses = 0;
    }

    /// A file was not there although the primary had its time.
    pub(crate) fn misses_primary(&self) {
        let mut state = self.state();
        state.misses = state.misses.saturating_add(1);
    }

    pub(crate) fn warn(&self, warning: String) {
        let mut state = self.state();
        if state.warnings.len() < WARNINGS_MAX {
            state.warnings.push(warning);
        }
    }

    /// What the caller should be told, once.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.state().warnings)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
