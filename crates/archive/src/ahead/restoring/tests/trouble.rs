//! An archive that fails, hangs, is slow, or holds rubbish.

use super::*;
use crate::ahead::pool::Work;

#[test]
fn a_segment_under_way_is_waited_for_and_not_fetched_twice() {
    let mut recovery = Recovery::new(8).holding(1..=3);
    recovery.store.hold(&segment(2));
    recovery.restore(segment(1));
    let store = recovery.store.clone();
    recovery.until("the next segment is under way", |_| store.waiting() == 1);
    let request = recovery.requesting(segment(2));
    let mut pending = recovery.prefetch.ask(request).unwrap();
    assert!(pending.answer().is_none());
    store.release();
    let answer = answered(&mut pending, &recovery.notified).unwrap();
    drop(pending);
    assert!(
        matches!(answer, Answer::Restored { ahead: true, .. }),
        "{answer:?}"
    );
    assert_eq!(store.opened(&segment(2)), 1);
}

#[test]
fn a_segment_that_recovery_waits_for_is_kept_however_long_it_takes() {
    let memory = MemoryStore::new();
    let store = Watched::new(memory.clone());
    let mut recovery = Recovery::over(memory, store, 8).holding(1..=3);
    recovery.store.hold(&segment(2));
    recovery.restore(segment(1));
    let store = recovery.store.clone();
    recovery.until("the next segment is under way", |_| store.waiting() == 1);
    let request = recovery.requesting(segment(2));
    let pool = Arc::clone(&recovery.prefetch.pool);
    let mut pending = recovery.prefetch.ask(request).unwrap();
    recovery.clock.pass(KEPT_UNUSED_MAX * 3);
    pool.state().rest();
    assert!(pending.answer().is_none());
    store.release();
    let answer = answered(&mut pending, &recovery.notified).unwrap();
    assert!(
        matches!(answer, Answer::Restored { ahead: true, .. }),
        "{answer:?}"
    );
}

#[test]
fn an_archive_that_hangs_keeps_few_threads_and_no_answer_about_another_file() {
    let mut recovery = Recovery::new(8).holding(1..=40);
    for number in 2..=40 {
        recovery.store.hold(&segment(number));
    }
    recovery.restore(segment(1));
    let mut refused = 0;
    let pool = Arc::clone(&recovery.prefetch.pool);
    for number in 2..=30 {
        // Recovery gives up each time, and asks for the next one.
        match recovery.prefetch.ask(recovery.requesting(segment(number))) {
            Ok(mut pending) => {
                assert!(pending.answer().is_none());
                until_begun(&pool);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                assert!(
                    error.to_string().contains("has not answered 4 earlier"),
                    "{error}"
                );
                refused += 1;
            }
        }
    }
    // Of the others, some waited for what was under way ahead, and four hang.
    assert!(
        refused >= 29 - 8 - STUCK_MAX,
        "{refused} of 29 were refused"
    );
    assert!(recovery.store.waiting() <= 8 + STUCK_MAX);
    recovery.store.release();
    recovery.until("stuck requests end", |state| state.stuck() == 0);
    recovery.settle();
    assert!(!recovery.restore(segment(40)), "what came late was kept");

    // One that hangs alone holds up nobody.
    recovery.store.hold(&segment(10));
    let request = recovery.requesting(segment(10));
    drop(recovery.prefetch.ask(request).unwrap());
    recovery.restore(segment(20));
    recovery.store.release();
}

#[test]
fn a_request_given_up_leaves_no_file_however_late_its_fetch_ends() {
    let mut recovery = Recovery::new(8).holding(1..=3);
    recovery.store.hold(&segment(1));
    let pool = Arc::clone(&recovery.prefetch.pool);
    let pending = recovery
        .prefetch
        .ask(recovery.requesting(segment(1)))
        .unwrap();
    until_begun(&pool);
    drop(pending);
    recovery.store.release();
    recovery.until("the late fetch ends", |state| state.stuck() == 0);
    assert_eq!(recovery.files(), 0);
}

#[test]
fn recovery_never_gets_less_than_there_is_however_often_the_archive_fails() {
    for (seed, per_mille) in [(1, 20), (2, 20), (3, 100), (4, 100), (5, 250), (6, 250)] {
        for prefetch_max in [0, 1, 8, 64] {
            let memory = MemoryStore::new();
            let faults = Faults::seeded(seed, per_mille);
            let faulty = FaultyStore::new(Box::new(memory.clone()), faults.clone());
            let watched = Watched::new(faulty);
            let mut recovery = Recovery::over(memory, watched, prefetch_max).holding(1..=30);
            for number in 1..=30 {
                let mut tries = 0;
                loop {
                    match recovery.ask(segment(number)) {
                        Ok(Answer::Restored { .. }) => break,
                        Ok(other) => panic!("seed {seed}, segment {number}: {other:?}"),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
                    }
                    tries += 1;
                    assert!(tries < 1000, "seed {seed}: segment {number} never comes");
                }
                let read = recovery.brought();
                assert!(
                    read == contents(&segment(number)),
                    "seed {seed}, segment {number}"
                );
            }
            faults.stop();
            assert_eq!(
                recovery.ask(segment(31)).unwrap(),
                Answer::Absent(Vec::new())
            );
            assert!(faults.injected() > 0);
        }
    }
}

#[test]
fn what_is_ahead_stands_still_for_a_segment_that_takes_long() {
    let mut recovery = Recovery::new(8).holding(1..=9);
    recovery.store.hold(&segment(2));
    recovery.restore(segment(1));
    let store = recovery.store.clone();
    recovery.until("the next segment is under way", |_| store.waiting() == 1);
    let request = recovery.requesting(segment(2));
    let mut pending = recovery.prefetch.ask(request).unwrap();
    pending.hurry();
    let pool = Arc::clone(&pending.prefetch.pool);
    let begun = pool.state().tally().fetched;
    assert!(
        pool.state().next_job().is_none(),
        "something is begun ahead"
    );
    store.release();
    let answer = answered(&mut pending, &recovery.notified).unwrap();
    assert!(matches!(answer, Answer::Restored { .. }), "{answer:?}");
    drop(pending);
    assert!(begun <= 2, "{begun}");
    for number in 3..=9 {
        recovery.restore(segment(number));
    }
}

#[test]
fn damage_met_ahead_is_reported_when_the_segment_is_asked_for_and_not_before() {
    let mut recovery = Recovery::new(8).holding(1..=5);
    recovery
        .memory
        .overwrite(&segment(3).to_string(), b"rubbish");
    recovery.restore(segment(1));
    recovery.restore(segment(2));
    recovery.settle();
    let error = recovery.ask(segment(3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    // Somebody brings the right one back.
    recovery.put(&segment(3));
    recovery.restore(segment(3));
}

#[test]
fn a_slow_archive_is_looked_ahead_in_further_and_by_several_at_once() {
    let mut recovery = Recovery::new(8).holding(1..=60);
    recovery.store.seen.lock().unwrap().delay = Duration::from_millis(40);
    let begun = Instant::now();
    for number in 1..=60 {
        recovery.restore(segment(number));
    }
    assert_eq!(recovery.prefetch.tally().depth, 8);
    // One after the other they cannot take less than this.
    let took = begun.elapsed();
    assert!(took < 60 * Duration::from_millis(40), "{took:?}");
}

#[test]
fn a_panic_in_a_fetch_is_that_fetchs_failure() {
    let mut recovery = Recovery::new(8).holding(1..=5);
    recovery.store.seen.lock().unwrap().poisoned = vec![segment(3).to_string()];
    recovery.restore(segment(1));
    recovery.restore(segment(2));
    let error = recovery.ask(segment(3)).unwrap_err();
    assert!(
        error.to_string().contains("ended without an answer"),
        "{error}"
    );
    recovery.restore(segment(4));
}

#[test]
fn what_is_under_way_ahead_and_fails_is_asked_for_anew() {
    let mut recovery = Recovery::new(8).holding(1..=3);
    recovery.store.hold(&segment(2));
    recovery.store.seen.lock().unwrap().poisoned = vec![segment(2).to_string()];
    recovery.restore(segment(1));
    let store = recovery.store.clone();
    recovery.until("the next segment is under way", |_| store.waiting() == 1);
    let request = recovery.requesting(segment(2));
    let mut pending = recovery.prefetch.ask(request).unwrap();
    assert!(pending.answer().is_none());
    store.release();
    assert!(answered(&mut pending, &recovery.notified).is_err());
    assert_eq!(store.opened(&segment(2)), 2);
}

#[test]
fn a_frame_with_a_large_window_counts_as_what_it_takes() {
    let mut recovery = Recovery::new(8).holding(3..=9);
    // 64 MB of window, as zstd's highest levels write it.
    for number in 1..=2 {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(26).unwrap();
        io::copy(&mut contents(&segment(number)).as_slice(), &mut encoder).unwrap();
        let stored = encoder.finish().unwrap();
        recovery
            .memory
            .overwrite(&segment(number).to_string(), &stored);
    }
    recovery.request.memory_limit = 100 << 20;
    recovery.restore(segment(1));
    assert_eq!(recovery.prefetch.tally().depth, 0, "two of them do not fit");
    recovery.restore(segment(2));
    recovery.restore(segment(3));
    assert!(recovery.prefetch.tally().depth > 0);
}

#[test]
fn a_segment_that_does_not_follow_is_refused_however_often_it_is_asked_for() {
    let mut recovery = Recovery::new(0).holding(1..=1);
    recovery.restore(segment(1));
    let mut other = ::fixtures::Written::behind(2, 0x12_3456);
    other.system = OURS.0;
    other.fill(::fixtures::SEGMENT - 100);
    let (name, bytes) = other.segments(1).remove(0);
    recovery.memory.overwrite(&name.to_string(), &bytes);
    for _ in 0..3 {
        let error = recovery.ask(segment(2)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains("does not fit"), "{error}");
    }
}
