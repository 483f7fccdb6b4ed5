//! The state alone: what is begun, what of it is given, and what becomes of the rest.

use super::super::pace::Pace;
use super::super::state::{Around, Cost, Job};
use super::*;
use crate::ahead::pool::Work;
use crate::format::workspace::Workspace;
use crate::get::{self, Request};

/// A state, and an archive that has whatever is fetched for it.
struct Played {
    state: State,
    around: Around,
    recovery: Recovery,
}

/// A window over these segments, of which the first `begun` are under way.
fn window(numbers: impl IntoIterator<Item = u64>, begun: usize) -> (Played, Vec<Job>) {
    let recovery = Recovery::new(8).holding(1..=9);
    let mut state = State::new(Clock::given());
    state.workers_ahead = usize::MAX;
    let around = state.arrive(&recovery.request, true).unwrap();
    state.slide_to(&segments(numbers), usize::MAX);
    let jobs = (0..begun).map(|_| state.next_job().unwrap()).collect();
    let played = Played {
        state,
        around,
        recovery,
    };
    (played, jobs)
}

fn segments(numbers: impl IntoIterator<Item = u64>) -> Vec<SegmentName> {
    numbers.into_iter().map(segment).collect()
}

impl Played {
    /// Ends a job with its file; true if a request waits for it.
    fn fetched(&mut self, job: &Job) -> bool {
        let source = &self.around.source;
        let memory = self.recovery.memory.clone();
        let open = |_: &Place| {
            Ok(Archive::with_store(
                Box::new(memory.clone()),
                Options::default(),
            ))
        };
        let request = Request {
            name: &job.fetch.name,
            parent: self.recovery.folder.path(),
            system: Some(OURS),
            ahead: true,
        };
        let archive = source.open(&open).unwrap();
        let workspace = &mut Workspace::default();
        let fetched = get::fetch(&archive, &request, workspace, &Cancel::new());
        let fetched = fetched.unwrap().unwrap();
        self.ended(job, Ok(Ruled::File(Box::new(fetched))))
    }

    fn ended(&mut self, job: &Job, found: Result<Ruled, Error>) -> bool {
        let cost = Cost {
            took: Duration::ZERO,
            bytes: 0,
        };
        self.state.ended(job, found, &cost)
    }

    /// The job for this segment, which recovery asks for.
    fn take(&mut self, number: u64) -> Option<JobId> {
        self.state.take(&WalFileName::Segment(segment(number)))
    }

    /// Whether a job that is asked for has ended with this segment; `None` if it has not ended.
    fn is_given(&mut self, id: JobId, number: u64) -> Option<bool> {
        let (fetch, found) = self.state.jobs.take(id)?;
        let is_file = matches!(found, Ok(Ruled::File(_)));
        Some(is_file && fetch.name == WalFileName::Segment(segment(number)))
    }

    /// What is begun next.
    fn next(&mut self) -> Option<SegmentName> {
        self.state.next_job()?.fetch.name.segment().copied()
    }

    fn is_empty(&self) -> bool {
        self.state.jobs.iter().next().is_none()
    }
}

#[test]
fn segments_are_begun_in_the_order_they_will_be_asked_for_and_once() {
    let (mut played, _) = window(2..=4, 0);
    let begun: Vec<_> = std::iter::from_fn(|| played.next()).collect();
    assert_eq!(begun, segments(2..=4));
    played.state.slide_to(&segments(3..=6), 4);
    assert_eq!(played.next(), Some(segment(5)));
}

#[test]
fn what_is_ready_is_given_once_and_what_is_under_way_is_waited_for() {
    let (mut played, begun) = window(2..=4, 2);
    assert!(!played.fetched(&begun[0]));
    let second = played.take(2).unwrap();
    assert_eq!(played.is_given(second, 2), Some(true));
    assert_eq!(played.take(2), None);
    let third = played.take(3).unwrap();
    assert_eq!(played.is_given(third, 3), None);
    assert!(played.fetched(&begun[1]));
    assert_eq!(played.is_given(third, 3), Some(true));
    // It was not begun: a request for it does not wait for its turn.
    assert_eq!(played.take(4), None);
    assert!(played.is_empty());
    assert_eq!(played.state.tally().unused, 0);
}

#[test]
fn a_fetch_that_ended_without_the_file_answers_nobody() {
    for absent in [false, true] {
        let (mut played, begun) = window(2..=4, 2);
        let failed = || Err(Error::unavailable("planted"));
        let second = played.take(2).unwrap();
        let found = if absent {
            Ok(Ruled::Absent(Vec::new()))
        } else {
            failed()
        };
        assert!(played.ended(&begun[0], found));
        assert_eq!(played.is_given(second, 2), Some(false));
        assert!(!played.ended(&begun[1], failed()));
        assert_eq!(played.take(3), None);
    }
}

#[test]
fn behind_a_segment_that_was_not_found_nothing_more_is_begun() {
    let (mut played, begun) = window(2..=6, 3);
    assert!(!played.ended(&begun[1], Ok(Ruled::Absent(Vec::new()))));
    assert!(played.next().is_none());
    // Those that were begun may still be of use.
    played.fetched(&begun[0]);
    played.fetched(&begun[2]);
    let ready = played.state.window().filter(|job| job.result().is_some());
    assert_eq!(ready.count(), 2);
}

#[test]
fn what_is_dropped_is_cancelled_and_its_late_result_goes_nowhere() {
    let (mut played, begun) = window(2..=3, 2);
    played.state.asked_for(segment(3), &played.around);
    assert!(begun[0].cancel.is_cancelled() && !begun[1].cancel.is_cancelled());
    assert!(!played.fetched(&begun[0]));
    assert_eq!(played.take(2), None);
    let third = played.take(3);
    assert_eq!(third, Some(begun[1].id));
    played.state.give_up(third);
    assert!(begun[1].cancel.is_cancelled());
    assert!(!played.fetched(&begun[1]));
    assert!(played.is_empty());
    assert_eq!(played.state.tally().unused, 2);
}

#[test]
fn a_window_that_becomes_shorter_keeps_what_was_begun() {
    let (mut played, begun) = window(2..=7, 4);
    played.fetched(&begun[3]);
    played.state.slide_to(&segments(3..=30), 1);
    assert!(played.next().is_none(), "neither 6 nor 7 has been begun");
    assert_eq!(played.take(3), Some(begun[1].id));
    let fifth = played.take(5).unwrap();
    assert_eq!(played.is_given(fifth, 5), Some(true));
    assert_eq!(played.state.tally().unused, 0);
}

#[test]
fn another_line_takes_the_place_of_the_old_one() {
    let (mut played, begun) = window(2..=3, 1);
    played.fetched(&begun[0]);
    played.state.slide_to(&[segment(2), on_timeline(2, 3)], 2);
    assert_eq!(played.next(), Some(on_timeline(2, 3)));
    let second = played.take(2).unwrap();
    assert_eq!(played.is_given(second, 2), Some(true));
}

#[test]
fn how_far_to_look_ahead_goes_by_the_clock_that_is_given() {
    let recovery = Recovery::new(8).holding(1..=9);
    let clock = Clock::given();
    let mut state = State::new(clock.clone());
    let around = state.arrive(&recovery.request, true).unwrap();
    let (mut pace, second) = (Pace::default(), Duration::from_secs(1));
    for number in 1..=9 {
        state.asked_for(segment(number), &around);
        pace.asked_for_next(clock.now());
        for pace in [&mut state.pace, &mut pace] {
            pace.fetched(second * 4);
        }
        state.gave();
        pace.gave(clock.now());
        clock.pass(second);
    }
    assert_eq!(state.pace.depth(), pace.depth());
}
