//! The number of a timeline.
//!
//! Guarantees that a timeline 0, which no server ever has, cannot be spoken of. How timelines
//! descend from one another is left to the timeline history file.

use std::fmt;
use std::num::NonZeroU32;

/// Which timeline: 1 is the one `initdb` starts, each promotion or finished archive recovery
/// starts a new and higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineId(NonZeroU32);

impl TimelineId {
    /// The timeline that `initdb` starts, the only one without a timeline history file.
    pub const FIRST: TimelineId = TimelineId(NonZeroU32::MIN);

    /// Takes a timeline number; `None` for 0.
    #[must_use]
    pub fn new(number: u32) -> Option<TimelineId> {
        NonZeroU32::new(number).map(TimelineId)
    }

    /// The timeline's number, at least 1.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The number after this one; `None` when there is no higher number.
    ///
    /// That is where the server begins to look when it chooses a new timeline, not necessarily
    /// what it chooses (`findNewestTimeLine`, 15 to 18).
    #[must_use]
    pub fn next(self) -> Option<TimelineId> {
        self.0.checked_add(1).map(TimelineId)
    }
}

/// In decimal, as the server's messages and timeline history files have it; names have it in
/// hexadecimal.
impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_timeline_0_and_none_after_the_last() {
        assert_eq!(TimelineId::new(0), None);
        assert_eq!(TimelineId::new(1), Some(TimelineId::FIRST));
        assert_eq!(TimelineId::FIRST.next(), TimelineId::new(2));
        assert_eq!(TimelineId::new(u32::MAX).unwrap().next(), None);
    }

    #[test]
    fn a_timeline_is_shown_in_decimal() {
        assert_eq!(TimelineId::new(16).unwrap().to_string(), "16");
        assert_eq!(TimelineId::new(u32::MAX).unwrap().get(), u32::MAX);
    }
}
