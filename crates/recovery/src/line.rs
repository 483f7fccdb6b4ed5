//! Which line a recovery is on, as far as its requests tell, and where that line leaves a segment's timeline.
//!
//! The server asks for a segment on each timeline of its line in turn, newest first (`XLogFileReadAnyTLI`, 15 to 19). So one
//! that asks for segment N of an older timeline, right after the same N of a newer one, is on the newer one's line, and leaves
//! the older one in N or before. "The newest history that was seen" would be no answer: the server keeps histories in `pg_wal`
//! before it rejects them (`rescanLatestTimeLine`), and a standby beside a dead branch goes on along the old timeline.

use archive::{Archive, Error};
use wal::{Lsn, SegmentName, TimelineHistory, TimelineId};

use crate::own;
use crate::server::{Server, TargetTimeline};

/// What one server has asked for, just enough to know its line.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    last: Option<Round>,
}

/// A segment number, and the timelines on which it has been asked for in a row.
#[derive(Debug, Clone, Copy)]
struct Round {
    position: (u32, u32),
    newest: TimelineId,
    last: TimelineId,
    /// Nothing was asked for before it.
    is_first: bool,
}

/// What is known of the line, with a segment of it in view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// It does not leave the segment's timeline before the next segment, or nothing is known.
    GoesOn,
    /// It is the line of this newer timeline, and leaves the segment's in the segment or before; where exactly is written
    /// in that timeline's history.
    Asked(TimelineId),
    /// It seems to be the line of this history, by what lies in the data directory.
    Read(TimelineHistory),
}

impl Requests {
    /// Recovery asks for a segment: the line it is on.
    pub(crate) fn segment(&mut self, server: &Server, segment: &SegmentName) -> Line {
        let (position, timeline) = (segment.position(), segment.timeline());
        let round = match self.last {
            // The next older timeline, or the same request once more.
            Some(round) if round.position == position && timeline <= round.last => Round {
                last: timeline,
                ..round
            },
            before => Round {
                position,
                newest: timeline,
                last: timeline,
                is_first: before.is_none(),
            },
        };
        self.last = Some(round);
        if round.newest > timeline {
            Line::Asked(round.newest)
        } else if round.is_first {
            // Without an earlier request, as in a command, which is a process of its own, `pg_wal` has to tell.
            by_directory(server, segment)
        } else {
            Line::GoesOn
        }
    }

    /// Recovery asks for a timeline history file: it may change its line.
    pub(crate) fn history(&mut self) {
        if let Some(round) = &mut self.last {
            // Whatever it asks for next begins a round.
            round.position = (u32::MAX, u32::MAX);
        }
    }
}

impl Line {
    /// The timeline whose line it is, if it leaves the segment's.
    pub(crate) fn newest(&self) -> Option<TimelineId> {
        match self {
            Line::GoesOn => None,
            Line::Asked(timeline) => Some(*timeline),
            Line::Read(history) => Some(history.timeline()),
        }
    }

    /// Where it leaves this timeline; `None` if that is not known, or it does not.
    pub(crate) fn left(
        &self,
        timeline: TimelineId,
        server: &Server,
        archive: &Archive,
    ) -> Result<Option<Lsn>, Error> {
        let newest = match self {
            Line::GoesOn => return Ok(None),
            Line::Read(history) => return Ok(history.left(timeline)),
            Line::Asked(newest) => *newest,
        };
        let history = match server.kept_history(newest) {
            Some(history) => Some(history),
            None => archive.stored_history(newest)?,
        };
        Ok(history.and_then(|history| history.left(timeline)))
    }
}

/// The line by what lies in the data directory: the target timeline's, as recovery keeps its history in `pg_wal`.
fn by_directory(server: &Server, segment: &SegmentName) -> Line {
    let Some(size) = server.size else {
        return Line::GoesOn;
    };
    let history = match server.target {
        TargetTimeline::Number(timeline) => server.kept_history(timeline),
        TargetTimeline::Current => server
            .control
            .and_then(|control| server.kept_history(control.newest())),
        // What the server has rejected may lie there too: a history that does not name the timeline it is on.
        TargetTimeline::Latest => server.kept_histories().into_iter().rfind(|history| {
            server.control.is_none_or(|control| {
                let ours = control.newest();
                history.timeline() == ours || history.switchpoint_of(ours).is_some()
            })
        }),
    };
    let Some(history) = history else {
        return Line::GoesOn;
    };
    let next = segment.next(size).and_then(|next| next.start(size));
    match (history.left(segment.timeline()), next) {
        (Some(left), Some(next)) if left < next && !went_on(server, segment, left) => {
            Line::Read(history)
        }
        _ => Line::GoesOn,
    }
}

/// Whether the server has the segment before, from behind the place where the line would have left the timeline: then it is on
/// another line.
fn went_on(server: &Server, segment: &SegmentName, left: Lsn) -> bool {
    let Some(size) = server.size else {
        return false;
    };
    segment.start(size).is_some_and(|start| left < start)
        && segment
            .previous(size)
            .and_then(|before| own::Copy::of(server, before))
            .is_some()
}
