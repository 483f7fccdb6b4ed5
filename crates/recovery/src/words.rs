//! What is said about files that are not handed over. One line each, in the server's style; advice is in the hint.

use archive::{Error, ErrorKind, Evidence, Notice, rename_hint};
use wal::{Lsn, ReadError, SegmentName, TimelineId, WalFileName};

const MISSING_SEGMENT: &str = "\"walden.missing_segment\" (--missing-segment)";

/// A segment that must have existed.
pub(crate) fn segment_missing(segment: &SegmentName, evidence: &Evidence) -> Error {
    let hint = match evidence {
        Evidence::Packed(key) => rename_hint(key, &WalFileName::Segment(*segment)),
        _ => format!(
            "Bring segment \"{segment}\" back into the archive, or set {MISSING_SEGMENT} to \"end\" to end recovery before it."
        ),
    };
    Error::new(ErrorKind::Damaged, is_missing("segment", segment, evidence)).with_hint(hint)
}

/// The same if a setting allows recovery to end there.
pub(crate) fn ends_at_missing(segment: &SegmentName, evidence: &Evidence) -> Notice {
    Notice {
        message: is_missing("segment", segment, evidence),
        hint: Some(format!(
            "Recovery ends before it, as {MISSING_SEGMENT} allows."
        )),
    }
}

/// A timeline history file that must have existed.
pub(crate) fn history_missing(timeline: TimelineId, evidence: &Evidence) -> Error {
    let file = WalFileName::TimelineHistory(timeline);
    let bring = "Bring it back from a copy of the archive, or from the pg_wal of a server on that timeline.";
    let hint = match evidence {
        Evidence::Packed(key) => rename_hint(key, &file),
        Evidence::Named(by) | Evidence::LaterHistory(by) => format!(
            "{bring} With \"recovery_target_timeline\" set to \"{by}\" recovery does without it."
        ),
        _ => bring.to_owned(),
    };
    let message = is_missing("timeline history file", &file, evidence);
    Error::new(ErrorKind::Damaged, message).with_hint(hint)
}

/// A file that is there in a form which Walden does not read.
pub(crate) fn packed(name: &WalFileName, evidence: &Evidence) -> Error {
    let hint = match evidence {
        Evidence::Packed(key) => rename_hint(key, name),
        _ => String::new(),
    };
    Error::new(ErrorKind::Damaged, is_missing("file", name, evidence)).with_hint(hint)
}

fn is_missing(kind: &str, name: &dyn std::fmt::Display, evidence: &Evidence) -> String {
    format!("{kind} \"{name}\" is missing from the archive, {evidence}")
}

/// The archive could not be made sure of, and the server goes on: with what it has of the file itself, or without it.
pub(crate) fn unsure(name: &WalFileName, error: &Error, has_own: bool) -> Notice {
    let what = format!("could not restore \"{name}\"");
    let cause = error.to_string();
    let message = if cause.starts_with(&what) {
        cause
    } else {
        format!("{what}: {cause}")
    };
    let how = if has_own {
        "with its own copy"
    } else {
        "without it"
    };
    Notice {
        message: format!("{message}; the server goes on {how}"),
        hint: error.hint().map(str::to_owned),
    }
}

/// The line leaves its timeline in a segment that is not stored, which is as it should be after most failovers.
pub(crate) fn fork_not_stored(segment: &SegmentName, left: Lsn, has_partial: bool) -> Notice {
    let hint = has_partial.then(|| {
        format!(
            "Recovery ends before it unless the next timeline has that segment. \"{segment}.partial\" is stored: what is \
             missing up to there may be in it."
        )
    });
    Notice {
        message: format!(
            "segment \"{segment}\" is not in the archive, and recovery leaves its timeline in it, at {left}"
        ),
        hint,
    }
}

/// A segment that cannot be read where it has to be.
pub(crate) fn unreadable(segment: &SegmentName, cause: &ReadError) -> Error {
    let message = format!("archive file \"{segment}\" is not valid: {cause}");
    Error::new(ErrorKind::Damaged, message)
}

/// A segment of another branch.
pub(crate) struct Fork {
    pub(crate) segment: SegmentName,
    /// The timeline whose line is under recovery.
    pub(crate) newest: TimelineId,
    /// Where that line leaves the segment's timeline.
    pub(crate) left: Lsn,
    /// Where a record begins behind the fork.
    pub(crate) at: Lsn,
}

impl Fork {
    /// The error for a segment that must not be replayed.
    pub(crate) fn refused(&self) -> Error {
        Error::new(ErrorKind::Damaged, self.message()).with_hint(format!(
            "The server that was left behind went on, and archived its own continuation. Bring the segment of timeline {} back \
             into the archive, or set {MISSING_SEGMENT} to \"end\" to end recovery before it.",
            self.newest
        ))
    }

    /// The same, told beside "absent".
    pub(crate) fn withheld(&self) -> Notice {
        Notice {
            message: self.message(),
            hint: None,
        }
    }

    fn message(&self) -> String {
        let Fork {
            segment,
            newest,
            left,
            at,
        } = self;
        let timeline = segment.timeline();
        format!(
            "segment \"{segment}\" is not on the line of timeline {newest}: that left timeline {timeline} at {left}, and the \
             segment goes on with a record at {at}"
        )
    }
}
