//! What is fetched ahead, for whom, and what is asked of the archive for it.

use super::*;
use crate::ahead::pool::Work;
use crate::store::dir::durable::{Disk, Staging};

#[test]
fn segments_asked_for_in_turn_are_fetched_once_and_ahead_at_any_depth() {
    for prefetch_max in [1, 8, 64] {
        let mut recovery = Recovery::new(prefetch_max).holding(1..=100);
        let ahead = (1..=100)
            .filter(|number| {
                recovery.settle();
                recovery.restore(segment(*number))
            })
            .count();
        assert_eq!(ahead, 99, "with at most {prefetch_max}");
        for number in 1..=100 {
            assert_eq!(
                recovery.store.opened(&segment(number)),
                1,
                "segment {number}"
            );
        }
        let tally = recovery.prefetch.tally();
        assert_eq!((tally.fetched, tally.unused), (99, 0));
        assert!(tally.depth <= prefetch_max);
        assert_eq!(
            recovery.store.lists(),
            0,
            "a file that is there costs no listing"
        );
    }
}

#[test]
fn without_a_window_each_segment_is_fetched_when_it_is_asked_for() {
    let mut recovery = Recovery::new(0).holding(1..=10);
    assert!((1..=10).all(|number| !recovery.restore(segment(number))));
    recovery.settle();
    assert_eq!(recovery.prefetch.tally(), Tally::default());
    assert_eq!(recovery.store.opened(&segment(11)), 0);
}

#[test]
fn memory_for_one_file_only_leaves_none_to_fetch_ahead() {
    let mut recovery = Recovery::new(8).holding(1..=10);
    recovery.request.memory_limit = memory::restoring_bytes() * 3 / 2;
    assert!((1..=5).all(|number| !recovery.restore(segment(number))));
    recovery.request.memory_limit = memory::restoring_bytes() * 2;
    recovery.restore(segment(6));
    assert!(recovery.restore_later(segment(7)));
}

#[test]
fn what_a_store_keeps_of_an_open_object_counts_as_memory() {
    let mut recovery = Recovery::new(8).holding(1..=10);
    let each = memory::restoring_bytes();
    recovery.store.seen.lock().unwrap().opened_bytes = each;
    recovery.request.memory_limit = each * 7 / 2;
    assert!((1..=5).all(|number| !recovery.restore(segment(number))));
    recovery.request.memory_limit = each * 4;
    recovery.restore(segment(6));
    assert!(recovery.restore_later(segment(7)));
}

#[test]
fn absence_is_asked_for_anew_each_time_and_what_came_meanwhile_is_found() {
    let mut recovery = Recovery::new(8).holding(1..=3);
    for number in 1..=3 {
        recovery.restore(segment(number));
    }
    recovery.settle();
    for number in 4..=20 {
        // The look ahead has missed it; and so does recovery, twice.
        assert_eq!(
            recovery.ask(segment(number)).unwrap(),
            Answer::Absent(Vec::new())
        );
        assert_eq!(
            recovery.ask(segment(number)).unwrap(),
            Answer::Absent(Vec::new())
        );
        recovery.put(&segment(number));
        recovery.restore(segment(number));
        recovery.settle();
    }
    assert_eq!(recovery.prefetch.tally().unused, 0);
}

#[test]
fn somebody_who_wants_exactly_one_file_disturbs_nothing() {
    let mut recovery = Recovery::new(8).holding(1..=9);
    recovery.restore(segment(1));
    recovery.settle();
    let before = recovery.prefetch.tally();
    let elsewhere = tempfile::tempdir().unwrap();
    for number in (5..=9).rev() {
        let answer = recovery.try_ask(RestoreRequest {
            in_line: false,
            dest: elsewhere.path().join(segment(number).to_string()),
            ..recovery.requesting(segment(number))
        });
        assert!(
            matches!(answer, Ok(Answer::Restored { ahead: false, .. })),
            "{answer:?}"
        );
    }
    recovery.settle();
    assert_eq!(recovery.prefetch.tally(), before);
    assert!(recovery.restore_later(segment(2)));
    assert_eq!(recovery.store.opened(&segment(2)), 1);
}

#[test]
fn a_step_backwards_fetches_that_segment_only_and_the_way_forward_is_seen_again() {
    let mut recovery = Recovery::new(8).holding(1..=9);
    // A backup's checkpoint lies behind the place where redo begins.
    recovery.restore(segment(5));
    recovery.settle();
    assert!(!recovery.restore(segment(3)));
    recovery.settle();
    assert_eq!(recovery.store.opened(&segment(4)), 0);
    assert!(!recovery.restore(segment(4)));
    assert!((5..=9).all(|number| recovery.restore_later(segment(number))));
}

#[test]
fn a_segment_missing_on_the_new_timeline_is_found_on_the_old_one_and_nothing_is_mixed_up() {
    let mut recovery = Recovery::new(8).holding(1..=6);
    for number in 4..=9 {
        recovery.put(&on_timeline(2, number));
    }
    let history = fixtures::timeline_history(TimelineId::FIRST, "0/480000", "x");
    recovery.memory.overwrite("00000002.history", &history);
    let answer = recovery.try_ask(RestoreRequest {
        name: "00000002.history".parse().unwrap(),
        dest: recovery.folder.path().join("RECOVERYHISTORY"),
        ..recovery.request.clone()
    });
    assert!(matches!(answer, Ok(Answer::Restored { .. })), "{answer:?}");
    recovery.restore(segment(1));
    assert!(recovery.restore_later(segment(2)));
    assert!(recovery.restore_later(segment(3)));
    // Where the old timeline was left, and on.
    assert!((4..=8).all(|number| recovery.restore_later(on_timeline(2, number))));
    recovery.settle();
    assert_eq!(recovery.store.opened(&segment(4)), 0);
    // A server that finds the new one's segment gone asks the old one for the same.
    recovery.prefetch.forget();
    recovery.restore(segment(3));
    assert_eq!(
        recovery.ask(on_timeline(2, 3)).unwrap(),
        Answer::Absent(Vec::new())
    );
    assert!(recovery.restore_later(segment(4)));
}

#[test]
fn another_archive_shares_nothing_with_the_one_before() {
    let mut recovery = Recovery::new(8).holding(1..=9);
    recovery.restore(segment(1));
    recovery.settle();
    recovery.request.place.location = "/elsewhere".parse().unwrap();
    assert!(!recovery.restore(segment(2)));
    assert_eq!(recovery.store.opened(&segment(2)), 2);
    recovery.settle();
    recovery.request.place.options.compression = Compression::None;
    assert!(!recovery.restore(segment(3)));
}

#[test]
fn a_window_that_nobody_uses_is_given_up() {
    let memory = MemoryStore::new();
    let store = Watched::new(memory.clone());
    let mut recovery = Recovery::over(memory, store, 8).holding(1..=9);
    recovery.restore(segment(1));
    recovery.settle();
    let pool = Arc::clone(&recovery.prefetch.pool);
    recovery
        .clock
        .pass(KEPT_UNUSED_MAX - Duration::from_millis(1));
    assert!(!pool.state().rest(), "it is kept for a while");
    recovery.clock.pass(Duration::from_millis(1));
    assert!(pool.state().rest());
    assert!(
        !recovery.restore(segment(2)),
        "nothing was left of the window"
    );
    recovery.settle();
}

#[test]
fn nothing_is_fetched_while_nobody_asks_and_nothing_kept_when_recovery_has_ended() {
    let mut recovery = Recovery::new(8).holding(1..=64);
    recovery.restore(segment(1));
    recovery.settle();
    let fetched = recovery.prefetch.tally().fetched;
    assert_eq!(fetched, 2, "the depth at the beginning");
    recovery.settle();
    assert_eq!(recovery.prefetch.tally().fetched, fetched);
    recovery.prefetch.forget();
    assert!(recovery.prefetch.pool.state().window().next().is_none());
    assert!(!recovery.restore(segment(2)));
}

#[test]
fn where_files_need_names_they_go_with_the_window() {
    let (memory, store) = (MemoryStore::new(), MemoryStore::new());
    let mut recovery = Recovery::over(memory, Watched::new(store), 8);
    let named = recovery.memory.clone();
    recovery.prefetch = Prefetch::with(
        spawn_plainly,
        || {},
        move |place: &Place| {
            let mut archive = Archive::with_store(Box::new(named.clone()), place.options.clone());
            archive.disk = Disk::with_staging(Staging::Named);
            Ok(archive)
        },
        Clock::given(),
    );
    let mut recovery = recovery.holding(1..=9);
    let request = recovery.requesting(segment(1));
    let mut pending = recovery.prefetch.ask(request).unwrap();
    while pending.answer().is_none() {
        std::thread::yield_now();
    }
    drop(pending);
    recovery.settle();
    assert_eq!(recovery.files(), 3, "the one asked for and two ahead");
    recovery.prefetch.forget();
    assert_eq!(recovery.files(), 1);
}
