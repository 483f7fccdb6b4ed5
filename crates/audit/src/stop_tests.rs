//! Where recovery stops, played through on WAL made up for it.
//!
//! Guarantees that the server's rules are told apart where they differ: what is before and after, transactions out of the
//! order of time, backups that begin in the middle.

use wal::{Lsn, TimelineId, Timestamp};

use crate::fixtures::{World, segment};
use crate::line::NoReach;
use crate::stop::{Goal, Target};
use crate::targets::{Answers, Kind, answers, report};

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";
const THIRD: &str = "000000010000000000000003";
const MB: u64 = 1 << 20;

fn ask(world: &World, target: Target, inclusive: bool) -> Answers {
    answers(
        &world.survey,
        &Goal { target, inclusive },
        &mut world.records(),
    )
    .unwrap()
}

fn at(second: i64) -> Target {
    Target::Time(Timestamp(second * 1_000_000))
}

/// The last commit, and the next end of a transaction, that the first timeline's answer names.
fn found(answers: &Answers) -> Option<(Option<u32>, Option<u32>)> {
    let place = answers.timelines.first()?.found?;
    let xid = |end: crate::targets::EndReport| end.xid;
    Some((place.last_commit.and_then(xid), place.next.and_then(xid)))
}

/// One backup of the first segment, commits in all three.
fn plain() -> World {
    World::of([
        segment(FIRST).with_backup_end(MB + 40).with_end(10, 700),
        segment(SECOND)
            .with_other()
            .with_end(20, 701)
            .with(21, 702, false)
            .with_end(30, 703),
        segment(THIRD).with_other().with_other().with_end(40, 704),
    ])
    .with_backup(1, MB + 40, MB + 40 + 1024)
}

#[test]
fn a_time_stops_before_the_first_transaction_that_is_later() {
    let world = plain();
    for (second, inclusive, expected) in [
        (5, true, Some((None, Some(700)))),
        (10, true, Some((Some(700), Some(701)))),
        (10, false, Some((None, Some(700)))),
        (19, true, Some((Some(700), Some(701)))),
        (20, true, Some((Some(701), Some(702)))),
        (25, true, Some((Some(701), Some(703)))),
        (21, false, Some((Some(701), Some(702)))),
        (39, true, Some((Some(703), Some(704)))),
        (40, true, None),
        (40, false, Some((Some(703), Some(704)))),
        (41, false, None),
    ] {
        let answers = ask(&world, at(second), inclusive);
        assert_eq!(found(&answers), expected, "{second} s, {inclusive}");
        let answer = &answers.timelines[0].backups[0];
        let kind = if expected.is_some() {
            Kind::Stops
        } else {
            Kind::NotReached
        };
        assert_eq!(answer.kind, kind, "{second} s, {inclusive}");
    }
}

#[test]
fn a_clock_that_ran_back_stops_recovery_at_the_first_later_record_in_wal() {
    let world = World::of([
        segment(FIRST)
            .with_end(10, 700)
            .with_end(50, 701)
            .with_end(11, 702),
        segment(SECOND).with_end(12, 703),
        segment(THIRD).with_end(60, 704),
    ]);
    assert_eq!(
        found(&ask(&world, at(12), true)),
        Some((Some(700), Some(701)))
    );
    assert_eq!(
        found(&ask(&world, at(50), true)),
        Some((Some(703), Some(704)))
    );
}

#[test]
fn a_backup_that_begins_behind_a_later_record_does_not_stop_there() {
    let world = World::of([
        segment(FIRST).with_end(50, 700),
        segment(SECOND)
            .with_backup_end(2 * MB + 40)
            .with_end(11, 701),
        segment(THIRD).with_end(20, 702),
    ])
    .with_backup(1, 2 * MB + 40, 2 * MB + 40 + 1024);
    let answers = ask(&world, at(12), true);
    assert_eq!(found(&answers), Some((None, Some(700))));
    let answer = &answers.timelines[0].backups[0];
    assert_eq!(answer.kind, Kind::Stops);
    assert_eq!(answer.stop.unwrap().last_commit.unwrap().xid, Some(701));
    assert_eq!(answer.stop.unwrap().next.unwrap().xid, Some(702));
}

#[test]
fn nothing_stops_before_the_backup_is_consistent() {
    let world = World::of([
        segment(FIRST)
            .with_end(10, 700)
            .with_end(11, 701)
            .with_backup_end(MB + 40)
            .with_end(20, 702),
        segment(SECOND).with_end(30, 703),
    ])
    .with_backup(1, MB + 40, MB + 40 + 3 * 1024);
    for (second, kind) in [(10, Kind::TooEarly), (11, Kind::Stops), (25, Kind::Stops)] {
        let answer = &ask(&world, at(second), true).timelines[0].backups[0];
        assert_eq!(answer.kind, kind, "{second} s");
    }
    let report = report(&world.survey);
    let reach = &report.backups[0].reaches[0];
    assert_eq!(reach.from_time, Some(Timestamp(11_000_000)));
    assert_eq!(reach.before_time, Some(Timestamp(30_000_000)));
    assert_eq!(reach.why, None);
}

#[test]
fn a_transaction_is_the_last_one_or_the_first_one_that_is_not_there() {
    let world = plain();
    for (xid, inclusive, expected) in [
        (701, true, Some((Some(701), Some(702)))),
        (701, false, Some((Some(700), Some(701)))),
        (702, true, Some((Some(701), Some(703)))),
        (703, true, Some((Some(703), Some(704)))),
        (704, true, Some((Some(704), None))),
        (699, true, None),
    ] {
        let answers = ask(&world, Target::Xid(xid), inclusive);
        assert_eq!(found(&answers), expected, "{xid}, {inclusive}");
    }
}

#[test]
fn a_place_stops_at_the_first_record_that_begins_there_or_later() {
    let world = plain();
    let second = |record: u64| Lsn(2 * MB + 40 + record * 1024);
    for (lsn, inclusive, expected) in [
        (second(1), true, Some((Some(701), Some(702)))),
        (second(1), false, Some((Some(700), Some(701)))),
        (Lsn(second(1).0 + 8), true, Some((Some(701), Some(703)))),
        (Lsn(second(3).0 + 8), true, Some((Some(703), Some(704)))),
        (Lsn(9 * MB), true, None),
    ] {
        let answers = ask(&world, Target::Lsn(lsn), inclusive);
        assert_eq!(found(&answers), expected, "{lsn}, {inclusive}");
    }
}

#[test]
fn a_restore_points_name_leads_to_the_first_one_since_the_backup() {
    let world = World::of([
        segment(FIRST)
            .with_backup_end(MB + 40)
            .with_point("goal", 5)
            .with_end(10, 700),
        segment(SECOND)
            .with_backup_end(2 * MB + 40)
            .with_end(20, 701)
            .with_point("goal", 21),
        segment(THIRD).with_end(30, 702),
    ])
    .with_backup(1, MB + 40, MB + 40 + 1024)
    .with_backup(1, 2 * MB + 40, 2 * MB + 40 + 1024);
    let name = || Target::Name("goal".to_owned());
    let answers = ask(&world, name(), true);
    let next: Vec<_> = answers.timelines[0]
        .backups
        .iter()
        .map(|answer| answer.stop.unwrap().next.unwrap().xid)
        .collect();
    assert_eq!(next, [Some(700), Some(702)]);
    let report = report(&world.survey);
    let backups: Vec<&[String]> = report
        .restore_points
        .iter()
        .map(|point| &point.reachable[0].backups[..])
        .collect();
    assert_eq!(backups, [["100028.backup"], ["200028.backup"]]);
    let nowhere = ask(&world, Target::Name("gaol".to_owned()), true);
    assert!(
        nowhere.timelines[0]
            .backups
            .iter()
            .all(|answer| answer.kind == Kind::NotReached)
    );
}

#[test]
fn the_last_commit_may_be_one_from_before_the_backup() {
    let world = World::of([
        segment(FIRST).with_end(10, 700),
        segment(SECOND)
            .with_backup_end(2 * MB + 40)
            .with_point("goal", 21),
        segment(THIRD).with_end(30, 701),
    ])
    .with_backup(1, 2 * MB + 40, 2 * MB + 40 + 1024);
    for target in [Target::Name("goal".to_owned()), at(20)] {
        let answers = ask(&world, target, true);
        assert_eq!(found(&answers), Some((Some(700), Some(701))));
        let timeline = &answers.timelines[0];
        assert_eq!(timeline.backups[0].stop, timeline.found);
    }
}

#[test]
fn what_lies_behind_a_hole_is_found_and_not_reached() {
    let world = World::of([
        segment(FIRST).with_backup_end(MB + 40).with_end(10, 700),
        segment(THIRD).with_end(30, 701).with_end(40, 702),
    ])
    .with_backup(1, MB + 40, MB + 40 + 1024);
    let answers = ask(&world, at(35), true);
    assert_eq!(found(&answers), Some((Some(701), Some(702))));
    let answer = &answers.timelines[0].backups[0];
    assert_eq!(answer.kind, Kind::NotReached);
    assert!(answer.why.as_ref().unwrap().contains(SECOND), "{answer:?}");
    let report = report(&world.survey);
    assert_eq!(report.timelines[0].ranges.len(), 2);
    let hole = &report.timelines[0].holes[0];
    assert_eq!((hole.first_segment.as_str(), hole.segments), (SECOND, 1));
    assert_eq!(
        report.backups[0].reaches[0].before_time,
        Some(Timestamp(10_000_000))
    );
}

#[test]
fn a_timeline_is_reached_from_backups_of_its_ancestors_up_to_where_they_were_left() {
    let second = "000000020000000000000002";
    let world = World::of([
        segment(FIRST).with_backup_end(MB + 40).with_end(10, 700),
        segment(SECOND).with_end(20, 701).with_end(30, 702),
        segment(second).with_end(20, 701).with_end(100, 702),
        segment(THIRD)
            .with_backup_end(3 * MB + 40)
            .with_end(40, 703),
    ])
    .with_history(2, "1\t0/200428\tno recovery target specified\n")
    .with_backup(1, MB + 40, MB + 40 + 1024)
    .with_backup(1, 3 * MB + 40, 3 * MB + 40 + 1024);
    let line = world.survey.line(TimelineId::new(2).unwrap());
    let run = &line.runs[0];
    let names = (0..run.count()).map(|at| run.facts(at).unwrap().name.to_string());
    let names: Vec<String> = names.collect();
    assert_eq!(names, [FIRST, second]);
    assert!(line.reach(&world.survey.backups[0].history).is_ok());
    let later = line.reach(&world.survey.backups[1].history);
    assert_eq!(later.unwrap_err(), NoReach::OtherTimeline);
    let answers = ask(&world, at(25), true);
    let next: Vec<_> = answers
        .timelines
        .iter()
        .map(|timeline| timeline.found.unwrap().next.unwrap().at.0)
        .collect();
    assert_eq!(next, [30_000_000, 100_000_000]);
    assert_eq!(answers.timelines[1].backups.len(), 1);
}
