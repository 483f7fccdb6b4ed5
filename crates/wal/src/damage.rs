//! What is wrong with WAL, and where.
//!
//! Guarantees a place for every finding. Whether it ends anything is left to who asked.

use crate::record_header::RecordProblem;
use crate::{Lsn, SystemIdentifier, TimelineId, WalMagic};

/// WAL that no server writes: at this place something has changed, or is another's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {lsn}: {problem}")]
pub struct Damage {
    /// The page, or the record, that is wrong.
    pub lsn: Lsn,
    problem: Problem,
}

impl Damage {
    /// Whether pages of one segment have different magic numbers: one of the two was never written.
    #[must_use]
    pub fn is_of_magic(&self) -> bool {
        matches!(self.problem, Problem::Page(PageProblem::Magic { .. }))
    }

    pub(crate) fn new(lsn: Lsn, problem: impl Into<Problem>) -> Damage {
        Damage {
            lsn,
            problem: problem.into(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error(transparent)]
    Record(#[from] RecordProblem),
    #[error(transparent)]
    Page(#[from] PageProblem),
    #[error(transparent)]
    Join(#[from] JoinProblem),
}

/// Why a page is not the one that belongs to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PageProblem {
    #[error("the page header has magic number {found} instead of {expected}")]
    Magic { found: WalMagic, expected: WalMagic },
    #[error("the page header has address {found}")]
    Address { found: Lsn },
    #[error("the page header has flags {flags:04X}")]
    Flags { flags: u16 },
    #[error("the page header has bytes that should be zero")]
    Padding,
    #[error("the page header has timeline {found} where timeline {expected} is written")]
    Timeline { found: u32, expected: TimelineId },
    #[error("pages are of timeline {found} from here on, and no record begins it")]
    NoBeginning { found: TimelineId },
    #[error("the page header says that {found} bytes of a record go on here instead of {expected}")]
    Remaining { found: u32, expected: u32 },
}

/// Why a segment does not follow another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JoinProblem {
    #[error("WAL ends here, and the next segment goes on")]
    Ended,
    #[error("the next segment begins with {found} bytes of a record instead of {expected}")]
    Head { found: u32, expected: u32 },
    #[error(
        "the next segment names {found} as the place of the record before it, which is at {expected}"
    )]
    Previous { found: Lsn, expected: Lsn },
    #[error("the next segment is from system identifier {found}, this one from {expected}")]
    System {
        found: SystemIdentifier,
        expected: SystemIdentifier,
    },
    #[error("the next segment begins at {found}")]
    Address { found: Lsn },
    #[error("the next segment is of timeline {found}, this one ends on timeline {expected}")]
    Timeline {
        found: TimelineId,
        expected: TimelineId,
    },
}
