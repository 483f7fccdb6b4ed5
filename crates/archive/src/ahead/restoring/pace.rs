//! How far to look ahead: as far as fetching takes while recovery replays what is there, and not much further.
//!
//! Guarantees a depth that follows both rates, smoothed, so that one slow fetch or one long replay does not turn
//! it over. Bounds (the parameter, memory, free space) are the caller's.

use std::time::{Duration, Instant};

/// What is fetched ahead before anything is known of either rate.
const DEPTH_MIN: usize = 2;

/// A new figure counts this much, those before it the rest: most of the way after five segments.
const NEWEST_WEIGHT: f64 = 0.3;

/// A figure counts for no more than this many times what was usual: replay also waits for other things (a paused
/// recovery, a standby that streams), which say nothing of its pace.
const SURPRISE_MAX: f64 = 4.0;

/// Fetches are to be under way for this many times as long as they usually take: they vary.
const MARGIN: f64 = 1.5;

/// What is known of the two rates.
#[derive(Debug, Default)]
pub(super) struct Pace {
    fetch: Smoothed,
    replay: Smoothed,
    /// When recovery was given the last segment.
    given: Option<Instant>,
}

impl Pace {
    /// A segment was fetched, and this is how long it took.
    pub(super) fn fetched(&mut self, took: Duration) {
        self.fetch.add(took);
    }

    /// Recovery was given a segment.
    pub(super) fn gave(&mut self, now: Instant) {
        self.given = Some(now);
    }

    /// Recovery asks for the segment behind the one that it was given.
    pub(super) fn asked_for_next(&mut self, now: Instant) {
        if let Some(given) = self.given.take() {
            self.replay.add(now.saturating_duration_since(given));
        }
    }

    /// Recovery asks for something else: what it did meanwhile was not replaying one segment.
    pub(super) fn asked_for_another(&mut self) {
        self.given = None;
    }

    /// How many segments to have fetched, or under way, behind the one being replayed.
    pub(super) fn depth(&self) -> usize {
        let (Some(fetch), Some(replay)) = (self.fetch.seconds, self.replay.seconds) else {
            return DEPTH_MIN;
        };
        let while_fetching = MARGIN * fetch / replay.max(1e-4);
        // Far above any bound, and far below what the conversion could lose.
        let segments = while_fetching.ceil().clamp(0.0, 1e6);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and a million"
        )]
        let segments = segments as usize;
        (segments + 1).max(DEPTH_MIN)
    }
}

/// A running mean that forgets.
#[derive(Debug, Default)]
struct Smoothed {
    seconds: Option<f64>,
}

impl Smoothed {
    fn add(&mut self, took: Duration) {
        let new = took.as_secs_f64();
        self.seconds = Some(match self.seconds {
            None => new,
            Some(usual) => {
                let new = new.min((usual * SURPRISE_MAX).max(1e-4));
                usual + (new - usual) * NEWEST_WEIGHT
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// After `count` segments that took so long to fetch, and so long to replay.
    fn after(pace: &mut Pace, count: u32, fetch: Duration, replay: Duration) -> usize {
        let mut now = Instant::now();
        for _ in 0..count {
            pace.fetched(fetch);
            pace.gave(now);
            now += replay;
            pace.asked_for_next(now);
        }
        pace.depth()
    }

    #[test]
    fn the_depth_begins_at_two_and_follows_both_rates() {
        assert_eq!(Pace::default().depth(), 2);
        for (fetch, replay, depth) in [(1, 50, 2), (50, 51, 3), (100, 51, 4), (100, 11, 15)] {
            let mut pace = Pace::default();
            assert_eq!(after(&mut pace, 1, fetch * MS, replay * MS), depth);
        }
        let mut pace = Pace::default();
        after(&mut pace, 20, 2 * MS, 20 * MS);
        // The archive becomes slow, and quick again.
        assert!(after(&mut pace, 20, 100 * MS, 20 * MS) >= 8);
        assert_eq!(after(&mut pace, 20, 2 * MS, 20 * MS), 2);
    }

    #[test]
    fn one_long_pause_does_not_turn_the_depth_over() {
        let mut pace = Pace::default();
        let depth = after(&mut pace, 20, 50 * MS, 10 * MS);
        let paused = after(&mut pace, 1, 50 * MS, Duration::from_secs(3600));
        assert!(paused >= 4, "{depth} became {paused}");
        assert_eq!(after(&mut pace, 15, 50 * MS, 10 * MS), depth);
    }

    #[test]
    fn only_the_way_to_the_next_segment_counts_as_replay() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.fetched(50 * MS);
        pace.gave(now);
        pace.asked_for_another();
        pace.asked_for_next(now + MS);
        assert_eq!(pace.depth(), 2);
    }
}
