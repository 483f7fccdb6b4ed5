//! What is told about timeline history files.

use super::scene::{Scene, Verdict, timeline, within};
use crate::{Asker, Control, Phase, TargetTimeline};

fn targeted() -> Scene {
    Scene::new(Phase::Targeted).with_wal()
}

#[test]
fn a_probe_for_the_next_timeline_is_absent_where_nothing_is_of_it() {
    let mut scene = targeted();
    assert_eq!(scene.ask("00000002.history"), Verdict::Absent);
    scene.store_history(2, &[(1, within(7, 40))]);
    assert_eq!(scene.ask("00000002.history"), Verdict::Restored);
    assert_eq!(scene.ask("00000003.history"), Verdict::Absent);
}

#[test]
fn the_lost_history_of_a_middle_timeline_stops_who_looks_for_the_latest() {
    let mut scene = targeted();
    scene.store_history(3, &[(1, within(7, 40)), (2, within(8, 40))]);
    assert!(
        scene
            .ask("00000002.history")
            .is_unsure_of("00000003.history")
    );
    // Its WAL alone does, too, beside WAL of a lower timeline.
    let mut scene = targeted();
    scene
        .store
        .overwrite("000000020000000000000008.gz", b"whatever");
    let verdict = scene.ask("00000002.history");
    assert!(
        verdict.is_unsure_of("000000020000000000000008"),
        "{verdict:?}"
    );
    // And so does a later history that does not name it.
    let mut scene = targeted();
    scene.store_history(3, &[(1, within(7, 40))]);
    assert!(
        scene
            .ask("00000002.history")
            .is_unsure_of("00000003.history")
    );
    let mut scene = targeted();
    scene.store.overwrite("00000003.history.gz", b"whatever");
    assert!(
        scene
            .ask("00000002.history")
            .is_unsure_of("00000003.history")
    );
    let mut scene = targeted();
    scene.store.overwrite("00000002.history.gz", b"whatever");
    assert!(
        scene
            .ask("00000002.history")
            .is_unsure_of("00000002.history.gz")
    );
}

#[test]
fn who_has_a_numeric_target_above_it_does_without_the_lost_history() {
    let mut scene = targeted();
    scene.store_history(
        4,
        &[(1, within(6, 40)), (2, within(7, 40)), (3, within(8, 40))],
    );
    scene
        .store
        .overwrite("000000030000000000000008", b"whatever");
    scene.server.target = TargetTimeline::Number(timeline(4));
    assert_eq!(scene.ask("00000003.history"), Verdict::Absent);
    assert_eq!(scene.ask("00000004.history"), Verdict::Restored);
    assert_eq!(scene.ask("00000005.history"), Verdict::Absent);
    scene.server.target = TargetTimeline::Latest;
    assert!(matches!(scene.ask("00000003.history"), Verdict::Unsure(_)));
}

#[test]
fn what_the_server_has_passed_already_may_be_called_absent() {
    let mut scene = targeted();
    scene.store_history(3, &[(1, within(7, 40)), (2, within(8, 40))]);
    scene.server.control = scene.server.control.map(|control| Control {
        min_recovery_timeline: Some(timeline(2)),
        ..control
    });
    assert_eq!(scene.ask("00000002.history"), Verdict::Absent);
    scene.server.control = None;
    assert!(matches!(scene.ask("00000002.history"), Verdict::Unsure(_)));
    scene.server.phase = Phase::Ending;
    assert_eq!(scene.ask("00000002.history"), Verdict::Absent);
    // Nor does it matter to who wants just this file.
    scene.server.phase = Phase::Targeted;
    assert_eq!(
        scene.ask_as("00000002.history", Asker::Other),
        Verdict::Absent
    );
}

#[test]
fn the_servers_own_copy_does_where_the_archive_lost_it_or_is_away() {
    let mut scene = targeted();
    let left = [(1, within(7, 40)), (2, within(8, 40))];
    scene.store_history(3, &left);
    assert!(scene.ask_away("00000002.history").is_unsure_of("away"));
    scene.keep_history(2, &left[..1]);
    assert_eq!(scene.ask("00000002.history"), Verdict::Absent);
    assert!(scene.ask_away("00000002.history").warns_of("own copy"));
    scene.server.phase = Phase::Ending;
    assert!(scene.ask_away("00000004.history").warns_of("away"));
}

#[test]
fn dead_branches_are_in_nobodys_way() {
    let mut scene = targeted();
    for branch in [2, 3, 4] {
        scene.store_history(branch, &[(1, within(5 + u64::from(branch), 4000))]);
    }
    assert_eq!(scene.ask("00000002.history"), Verdict::Restored);
    assert_eq!(scene.ask("00000005.history"), Verdict::Absent);
}
