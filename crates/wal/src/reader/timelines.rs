//! Which timeline pages are of, as a segment goes on.
//!
//! Guarantees that pages change to a later timeline only where a record begins it. A segment that a timeline begins in has
//! pages of the one before up to there: the server copies them (`XLogInitNewTimeline`, 15 to 18). Which timelines follow
//! which is left to the timeline history file.

use crate::damage::{Damage, PageProblem};
use crate::{Lsn, Meaning, TimelineId};

/// How many records may come before the one that begins a timeline: what the server writes after a promotion is that one,
/// at most one that gives an unfinished record up, and one about full-page writes (`StartupXLOG`, 15 to 18).
const RECORDS_BEFORE_BEGINNING: u32 = 4;

/// The timeline of the pages, and what was said of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageTimelines {
    /// The one in the segment's name: pages never go beyond it.
    of_name: TimelineId,
    /// The one of the last page.
    pub(crate) current: TimelineId,
    /// What a record said comes next, on the page after it.
    announced: Option<TimelineId>,
    /// A page of a later timeline that nothing has explained yet, and how many records came since.
    unexplained: Option<(Lsn, u32)>,
}

impl PageTimelines {
    pub(crate) fn new(of_name: TimelineId, of_first_page: TimelineId) -> PageTimelines {
        PageTimelines {
            of_name,
            current: of_first_page,
            announced: None,
            unexplained: None,
        }
    }

    /// The timeline that WAL is written on by now.
    pub(crate) fn latest(&self) -> TimelineId {
        self.announced.unwrap_or(self.current)
    }

    /// A page at `lsn` says that it is of this timeline.
    pub(crate) fn page(&mut self, lsn: Lsn, found: u32) -> Result<(), PageProblem> {
        let expected = self.latest();
        let wrong = PageProblem::Timeline { found, expected };
        let found = TimelineId::new(found).ok_or(wrong)?;
        if found < expected || found > self.of_name {
            return Err(wrong);
        }
        if found > expected {
            self.unexplained = Some((lsn, 0));
        }
        self.current = found;
        self.announced = None;
        Ok(())
    }

    /// A record was read.
    pub(crate) fn record(
        &mut self,
        meaning: impl FnOnce() -> Option<TimelineId>,
    ) -> Result<(), Damage> {
        let begun = meaning();
        if let Some((lsn, records)) = &mut self.unexplained {
            if begun == Some(self.current) {
                self.unexplained = None;
                return Ok(());
            }
            *records += 1;
            if *records > RECORDS_BEFORE_BEGINNING {
                return Err(Damage::new(
                    *lsn,
                    PageProblem::NoBeginning {
                        found: self.current,
                    },
                ));
            }
        }
        if let Some(begun) = begun
            && begun > self.latest()
            && begun <= self.of_name
        {
            self.announced = Some(begun);
        }
        Ok(())
    }
}

/// The timeline that a record begins, if it begins one.
pub(crate) fn begun_by(meaning: Meaning<'_>) -> Option<TimelineId> {
    match meaning {
        Meaning::Checkpoint {
            is_shutdown: true,
            timelines,
            ..
        }
        | Meaning::EndOfRecovery { timelines, .. } => {
            (timelines.this != timelines.previous).then_some(timelines.this)
        }
        _ => None,
    }
}
