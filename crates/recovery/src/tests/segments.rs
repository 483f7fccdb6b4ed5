//! What is told about segments.

use std::time::Duration;

use archive::MissingSegment;
use fixtures::{SEGMENT, Written};

use super::scene::{Scene, Verdict, timeline, wal, within};
use crate::{Asker, Phase, TargetTimeline};

const SIX: &str = "000000010000000000000006";
const SEVEN: &str = "000000010000000000000007";
const NINE: &str = "000000010000000000000009";
const TEN: &str = "00000001000000000000000A";
const SEVEN_OF_TWO: &str = "000000020000000000000007";

fn targeted() -> Scene {
    Scene::new(Phase::Targeted).with_wal()
}

/// Timeline 1 to the middle of segment 7, and timeline 2 from there to the end of 9: the WAL of 2, and where it left 1.
fn branch() -> (Written, u64) {
    let mut wal = Written::new();
    wal.fill(2 * SEGMENT + 300_000);
    let fork = wal.lsn().0;
    wal.promote(2);
    wal.fill(5 * SEGMENT - 30_000);
    wal.switch();
    (wal, fork)
}

/// An archive after a failover in the middle of segment 7: whole segments of 2, its history, and 1 up to the fork.
fn failed_over(phase: Phase) -> (Scene, u64) {
    let scene = Scene::new(phase);
    let (wal, fork) = branch();
    for ((one, bytes), (two, _)) in wal.segments(1).into_iter().zip(wal.segments(2)) {
        let own = one.to_string().as_str() >= SEVEN;
        let name = if own { two } else { one };
        scene.store.overwrite(&name.to_string(), &bytes);
    }
    scene.store_history(2, &[(1, wal::Lsn(fork))]);
    (scene, fork)
}

#[test]
fn what_is_stored_is_restored_and_what_lies_behind_the_end_is_absent() {
    let mut scene = targeted();
    assert_eq!(scene.ask(NINE), Verdict::Restored);
    assert_eq!(scene.ask(TEN), Verdict::Absent);
    assert_eq!(scene.ask(TEN), Verdict::Absent);
}

#[test]
fn a_later_segment_in_any_form_makes_a_missing_one_a_hole() {
    for later in [
        "000000010000000000000008",
        "000000010000000000000008.partial",
        "000000010000000000000008.gz",
        "000000010000000100000000.ZST",
    ] {
        let mut scene = Scene::new(Phase::Targeted);
        let segments = wal(6).segments(1);
        for (name, bytes) in &segments {
            scene.store.overwrite(&name.to_string(), bytes);
        }
        assert_eq!(scene.ask(SEVEN), Verdict::Absent);
        scene.store.overwrite(later, b"whatever");
        let verdict = scene.ask(SEVEN);
        assert!(verdict.is_unsure_of(later), "{later}: {verdict:?}");
        // Of an older one, or another timeline's, nothing follows.
        assert_eq!(scene.ask("000000020000000000000009"), Verdict::Absent);
        // A person, or pg_rewind, gets what is there.
        assert_eq!(scene.ask_as(SEVEN, Asker::Other), Verdict::Absent);
    }
}

#[test]
fn a_file_that_somebody_packed_is_not_absent_to_anybody() {
    for suffix in ["gz", "ZST", "zst", "xz", "age", "old"] {
        let mut scene = targeted();
        scene.remove(NINE);
        scene
            .store
            .overwrite(&format!("{NINE}.{suffix}"), b"whatever");
        for asker in [Asker::Recovery(scene.server.clone()), Asker::Other] {
            let verdict = scene.ask_as(NINE, asker);
            assert!(
                verdict.is_unsure_of(&format!("{NINE}.{suffix}")),
                "{verdict:?}"
            );
        }
    }
    let mut scene = targeted();
    scene.remove(NINE);
    scene
        .store
        .overwrite(&format!("{NINE}.partial"), b"whatever");
    scene
        .store
        .overwrite(&format!("{NINE}.00000028.backup"), b"whatever");
    assert_eq!(scene.ask(NINE), Verdict::Absent);
}

#[test]
fn a_history_that_left_the_timeline_behind_the_segment_makes_it_a_hole() {
    let mut scene = targeted();
    scene.store_history(2, &[(1, within(12, 0))]);
    let verdict = scene.ask(TEN);
    assert!(verdict.is_unsure_of("00000002.history"), "{verdict:?}");
    // In the segment, or before it, it says nothing; wherever it lies.
    for left in [within(11, 0), within(12, 0)] {
        let mut scene = targeted();
        scene.keep_history(3, &[(1, left)]);
        let verdict = scene.ask(TEN);
        assert!(verdict.is_unsure_of("00000003.history"), "{verdict:?}");
    }
    for left in [within(10, 500), within(10, 0), within(6, 28)] {
        let mut scene = targeted();
        scene.store_history(2, &[(1, left)]);
        assert_eq!(scene.ask(TEN), Verdict::Absent, "{left}");
    }
}

#[test]
fn a_hole_ends_recovery_only_where_somebody_allowed_it() {
    let mut scene = targeted();
    scene.remove(SEVEN);
    assert!(scene.ask(SEVEN).is_unsure_of("which holds later ones"));
    scene.server.missing_segment = MissingSegment::End;
    assert!(scene.ask(SEVEN).warns_of("which holds later ones"));
    scene.server.phase = Phase::Standby;
    scene.server.missing_segment = MissingSegment::Error;
    assert!(scene.ask(SEVEN).is_unsure_of("which holds later ones"));
}

#[test]
fn the_servers_own_copy_counts_if_it_is_this_segment_and_reaches_its_end() {
    let whole = wal(9);
    let seven = &whole.segments(1)[2].1;
    let nine = &whole.segments(1)[4].1;
    let mut half = Written::new();
    half.fill(2 * SEGMENT + 300_000);
    let half = &half.segments(1)[2].1;
    let hole = || {
        let scene = targeted();
        scene.remove(SEVEN);
        scene
    };
    let mut scene = hole();
    scene.keep(SEVEN, seven);
    assert_eq!(scene.ask(SEVEN), Verdict::Absent);
    // A snapshot holds half of it; a recycled file bears its name; a stranger's has another system.
    for other in [
        half,
        nine,
        &seven[..SEGMENT / 2].to_vec(),
        &vec![0; SEGMENT],
    ] {
        let mut scene = hole();
        scene.keep(SEVEN, other);
        assert!(scene.ask(SEVEN).is_unsure_of("which holds later ones"));
    }
    let mut scene = hole();
    scene.server.system = Some(wal::SystemIdentifier(1));
    scene.keep(SEVEN, seven);
    let verdict = scene.ask(SEVEN);
    assert!(matches!(verdict, Verdict::Unsure(_)), "{verdict:?}");
    // Half of it is as good as all while nothing lies behind.
    let mut scene = targeted();
    scene.remove(NINE);
    scene.keep(NINE, half);
    assert_eq!(scene.ask(NINE), Verdict::Absent);
}

#[test]
fn what_pg_wal_holds_does_not_take_the_server_down_while_the_archive_is_away() {
    let mut scene = targeted();
    let nine = wal(9).segments(1)[4].1.clone();
    assert!(scene.ask_away(NINE).is_unsure_of("away"));
    scene.keep(NINE, &nine[..]);
    assert!(scene.ask_away(NINE).warns_of("its own copy"));
    assert!(scene.ask_away(TEN).is_unsure_of("away"));
    scene.server.phase = Phase::Ending;
    assert!(scene.ask_away(TEN).warns_of("away"));
}

#[test]
fn where_a_timeline_was_left_in_mid_segment_its_own_segment_is_absent() {
    let (mut scene, _) = failed_over(Phase::Targeted);
    scene.keep_history(2, &[(1, wal::Lsn(branch().1))]);
    assert_eq!(scene.ask(SIX), Verdict::Restored);
    assert_eq!(scene.ask(SEVEN_OF_TWO), Verdict::Restored);
    // The newer one not archived yet either: the end, and a word about it.
    for name in [
        SEVEN_OF_TWO,
        "000000020000000000000008",
        "000000020000000000000009",
    ] {
        scene.remove(name);
    }
    assert_eq!(scene.ask(SIX), Verdict::Restored);
    assert_eq!(scene.ask(SEVEN_OF_TWO), Verdict::Absent);
    assert!(scene.ask(SEVEN).warns_of("leaves its timeline in it"));
}

#[test]
fn the_old_primarys_own_continuation_is_not_handed_over() {
    for phase in [Phase::Targeted, Phase::Standby] {
        let (mut scene, fork) = failed_over(phase);
        // Timeline 2's first segments are not archived yet, and the old primary went on.
        for name in [
            SEVEN_OF_TWO,
            "000000020000000000000008",
            "000000020000000000000009",
        ] {
            scene.remove(name);
        }
        for (name, bytes) in wal(9).segments(1) {
            scene.store.overwrite(&name.to_string(), &bytes);
        }
        assert_eq!(scene.ask(SIX), Verdict::Restored);
        for name in [SEVEN_OF_TWO, "000000020000000000000008"] {
            assert_eq!(scene.ask(name), Verdict::Absent);
            let old = name.replacen("00000002", "00000001", 1);
            let verdict = scene.ask(&old);
            let why = format!("left timeline 1 at {}", wal::Lsn(fork));
            match phase {
                Phase::Targeted => assert!(verdict.is_unsure_of(&why), "{verdict:?}"),
                _ => assert!(verdict.warns_of(&why), "{verdict:?}"),
            }
            // A request for that very file gets it.
            assert_eq!(scene.ask_as(&old, Asker::Other), Verdict::Restored);
        }
        // A command that is a process of its own knows by what lies in pg_wal.
        scene.keep_history(2, &[(1, wal::Lsn(fork))]);
        scene.judge.forget();
        let verdict = scene.ask(SEVEN);
        assert!(!matches!(verdict, Verdict::Restored), "{verdict:?}");
    }
}

#[test]
fn a_record_cut_off_at_the_fork_is_no_continuation() {
    let mut wal = Written::new();
    wal.fill(3 * SEGMENT - 20_000);
    let fork = wal.lsn().0;
    // The primary crashed within this record, which goes on in segment 8.
    wal.data(60_000);
    let mut scene = Scene::new(Phase::Targeted);
    for (name, bytes) in wal.segments(1).into_iter().take(3) {
        scene.store.overwrite(&name.to_string(), &bytes);
    }
    scene.store_history(2, &[(1, wal::Lsn(fork))]);
    assert_eq!(scene.ask(SIX), Verdict::Restored);
    assert_eq!(scene.ask(SEVEN_OF_TWO), Verdict::Absent);
    assert_eq!(scene.ask(SEVEN), Verdict::Restored);
}

#[test]
fn a_standby_beside_a_dead_branch_goes_on() {
    let mut scene = Scene::new(Phase::Standby).with_wal();
    // Kept in pg_wal before it was rejected.
    scene.store_history(2, &[(1, within(6, 40))]);
    scene.keep_history(2, &[(1, within(6, 40))]);
    scene.keep(SIX, &wal(9).segments(1)[1].1);
    for name in [SEVEN, NINE] {
        // With memory and without.
        assert_eq!(scene.ask(name), Verdict::Restored);
        scene.judge.forget();
        scene.keep("000000010000000000000008", &wal(9).segments(1)[3].1);
    }
    assert_eq!(scene.ask("00000003.history"), Verdict::Absent);
    assert_eq!(scene.ask(TEN), Verdict::Absent);
}

#[test]
fn an_archive_begun_later_or_cleaned_up_is_no_hole() {
    let (scene, _) = failed_over(Phase::Targeted);
    let mut scene = scene;
    scene.remove("00000002.history");
    for name in ["000000010000000000000005", SIX] {
        scene.remove(name);
    }
    scene.server.control = scene.server.control.map(|control| crate::Control {
        checkpoint_timeline: timeline(2),
        ..control
    });
    assert_eq!(scene.ask("00000002.history"), Verdict::Absent);
    assert_eq!(scene.ask("000000020000000000000006"), Verdict::Absent);
    assert_eq!(scene.ask(SEVEN_OF_TWO), Verdict::Restored);
}

#[test]
fn a_timeline_in_the_middle_that_was_never_archived_is_a_hole() {
    let mut scene = targeted();
    scene.store_history(3, &[(1, within(8, 40)), (2, within(11, 40))]);
    scene.server.target = TargetTimeline::Number(timeline(3));
    assert_eq!(scene.ask("00000002.history"), Verdict::Absent);
    let verdict = scene.ask("000000020000000000000008");
    assert!(verdict.is_unsure_of("00000003.history"), "{verdict:?}");
    // Before it began there is nothing of it.
    assert_eq!(scene.ask("000000020000000000000007"), Verdict::Absent);
    // And if the first backup was of it, nothing comes before it.
    let mut scene = targeted();
    scene.store_history(3, &[(2, within(11, 40))]);
    let verdict = scene.ask("000000020000000000000007");
    assert!(verdict.is_unsure_of("00000003.history"), "{verdict:?}");
}

#[test]
fn dead_branches_of_earlier_recoveries_do_not_forbid_the_end() {
    let mut scene = targeted();
    for branch in [2, 3, 4] {
        scene.store_history(branch, &[(1, within(5 + u64::from(branch), 4000))]);
        let name = format!("0000000{branch}000000000000000{}", 5 + branch);
        scene.store.overwrite(&name, b"whatever");
    }
    scene.server.target = TargetTimeline::Current;
    assert_eq!(scene.ask(NINE), Verdict::Restored);
    assert_eq!(scene.ask(TEN), Verdict::Absent);
}

#[test]
fn an_archive_that_is_not_there_answers_nothing() {
    let mut scene = Scene::new(Phase::Targeted);
    assert!(scene.ask(SEVEN).is_unsure_of("holds no WAL"));
    assert!(scene.ask("00000002.history").is_unsure_of("holds no WAL"));
    // But for what is never written.
    assert_eq!(scene.ask("00000001.history"), Verdict::Absent);
}

#[test]
fn what_was_seen_against_absence_holds_a_minute_for_a_standby() {
    let mut scene = Scene::new(Phase::Standby).with_wal();
    assert_eq!(scene.ask(TEN), Verdict::Absent);
    // The next file but one, and nothing before it.
    let (name, bytes) = wal(11).segments(1).pop().unwrap();
    let later = name.to_string();
    scene.store.overwrite(&later, &bytes);
    assert!(scene.ask(TEN).is_unsure_of(&later));
    scene.remove(&later);
    scene.clock.pass(Duration::from_secs(59));
    assert!(scene.ask(TEN).is_unsure_of(&later));
    scene.clock.pass(Duration::from_secs(1));
    assert_eq!(scene.ask(TEN), Verdict::Absent);
}
