//! Archives of made-up WAL, whole and damaged.

mod damage;
mod index;
mod late;
mod no_files;
mod scene;
mod sizes;

use std::sync::atomic::{AtomicU64, Ordering};

use archive::{
    Archive, Cancel, DirStore, ErrorKind, Faults, FaultyStore, MemoryStore, Options, Store,
};
use fixtures::SEGMENT;

use super::*;
use crate::finding::Severity;
use scene::{Scene, found, name};

fn readers(readers: usize) -> Request {
    Request {
        readers,
        ..Request::default()
    }
}

#[test]
fn a_sound_archive_has_no_findings_however_many_read_it() {
    let scene = Scene::new();
    for readers_count in [1, 2, 7] {
        let report = scene.verify_with(&readers(readers_count));
        assert_eq!(report.findings.listed(), [], "{readers_count} readers");
        assert_eq!(report.worst(), None);
        assert_eq!(report.segments, scene.segments.len() as u64 + 1);
        assert_eq!(report.bytes, report.segments * SEGMENT as u64);
        assert!(report.records > 1000 && report.stopped.is_none());
    }
}

#[test]
fn a_record_over_several_segments_is_checked_in_pieces_of_one() {
    let scene = Scene::new();
    // Nothing else is in the segment.
    scene.change(&name(2, 9), |bytes| bytes[500_000] ^= 1);
    for readers_count in [1, 2, 7] {
        let report = scene.verify_with(&readers(readers_count));
        let found = found(&report);
        assert_eq!(found.len(), 1, "{readers_count} readers: {found:?}");
        assert_eq!(found[0].0, Kind::DoesNotFollow);
        let message = &report.findings.listed()[0].message;
        assert!(message.contains("checksum"), "{message}");
    }
}

#[test]
fn a_range_is_read_alone_and_has_to_be_there() {
    let scene = Scene::new();
    scene.change(&name(1, 5), |bytes| bytes[500_000] ^= 1);
    let range = |from: u64, to: Option<Edge>, timeline| Request {
        scope: Scope {
            from: Some(Edge::Segment(name(2, from).parse().unwrap())),
            to,
            timeline,
        },
        ..readers(2)
    };
    let report = scene.verify_with(&range(6, None, None));
    assert_eq!((found(&report), report.segments), (vec![], 8));
    let to = Some(Edge::Place(wal::Lsn(8 * SEGMENT as u64 + 77)));
    let report = scene.verify_with(&range(6, to, wal::TimelineId::new(2)));
    assert_eq!((found(&report), report.segments), (vec![], 3));
    let report = scene.verify_with(&range(3, None, None));
    assert!(found(&report).contains(&(Kind::Missing, String::new())));
    let to = Some(Edge::Segment(name(2, 90).parse().unwrap()));
    let report = scene.verify_with(&range(6, to, None));
    assert_eq!(found(&report), [(Kind::Missing, String::new())]);
}

#[test]
fn what_is_not_there_is_never_found_to_be_in_order() {
    let scene = Scene::new();
    let along = |timeline| Request {
        scope: Scope {
            timeline: wal::TimelineId::new(timeline),
            ..Scope::default()
        },
        ..readers(2)
    };
    assert_eq!(found(&scene.verify_with(&along(2))), []);
    let report = scene.verify_with(&along(9));
    assert_eq!(found(&report), [(Kind::Missing, String::new())]);
    assert_eq!(report.worst(), Some(Severity::Error));
    // One that has only just begun, behind what is there.
    let text = format!("1\t0/{:X}\tx\n2\t0/E00028\tx\n", scene.switchpoint);
    scene.store.overwrite("00000003.history", text.as_bytes());
    let whole = found(&scene.verify());
    assert_eq!(whole, [(Kind::Missing, name(2, 13))]);
    assert_eq!(found(&scene.verify_with(&along(3))), whole);
}

#[test]
fn a_range_that_ends_before_it_begins_is_no_range() {
    let scene = Scene::new();
    let request = Request {
        scope: Scope {
            from: Some(Edge::Segment(name(2, 9).parse().unwrap())),
            to: Some(Edge::Segment(name(2, 8).parse().unwrap())),
            timeline: None,
        },
        ..readers(2)
    };
    let error = verify(&scene.archive(), &request, &|_| (), &Cancel::new()).unwrap_err();
    assert!(error.to_string().contains("before the first"), "{error}");
}

/// How many segments' facts an index has.
fn kept(index: &str) -> usize {
    let facts = index
        .lines()
        .filter(|line| line.contains(r#""what":{"segment""#));
    let names = facts.filter_map(|line| line.split('"').nth(3));
    names.collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn an_audit_that_was_interrupted_goes_on_where_it_was() {
    let scene = Scene::new();
    scene.change(&name(2, 9), |bytes| bytes[500_000] ^= 1);
    scene.change(&name(2, 7), |bytes| bytes[800_000] ^= 1);
    let whole = scene.verify();
    assert_eq!(whole.findings.listed().len(), 2);
    let dir = tempfile::tempdir().unwrap();
    for stop in 1..=8 {
        let request = Request {
            state: Some(dir.path().join(stop.to_string())),
            ..readers(1)
        };
        let (cancel, seen) = (Cancel::new(), AtomicU64::new(0));
        let told = |told: Told| {
            if matches!(told, Told::Read(..)) && seen.fetch_add(1, Ordering::AcqRel) + 1 == stop {
                cancel.cancel();
            }
        };
        let report = verify(&scene.archive(), &request, &told, &cancel).unwrap();
        assert!(report.stopped.is_some());
        assert!(report.worst() >= Some(Severity::CouldNotTell), "{stop}");
        // A line that was cut off.
        let text = std::fs::read_to_string(request.state.as_ref().unwrap()).unwrap();
        std::fs::write(request.state.as_ref().unwrap(), format!("{text}{{\"segm")).unwrap();
        let rest = scene.verify_with(&request);
        assert_eq!(found(&rest), found(&whole), "stopped after {stop}");
        assert_eq!(rest.read_before + rest.segments, whole.segments);
        let kept = kept(&text);
        assert!(kept as u64 + 2 >= stop, "{kept} of {stop}");
        // What was wrong is read again, the rest is not.
        let again = scene.verify_with(&request);
        assert_eq!(found(&again), found(&whole));
        assert_eq!(again.read_before + again.segments, whole.segments);
        let text = std::fs::read_to_string(request.state.as_ref().unwrap()).unwrap();
        assert_eq!(self::kept(&text), 8);
        assert!(again.segments < whole.segments, "{}", again.segments);
    }
}

#[test]
fn the_state_of_another_archive_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    std::fs::write(&path, "something else\n").unwrap();
    let request = Request {
        state: Some(path.clone()),
        ..Request::default()
    };
    let scene = Scene::new();
    let refused = verify(&scene.archive(), &request, &|_| (), &Cancel::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unusable);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "something else\n");
}

#[test]
fn a_state_of_another_version_or_from_before_the_archive_was_bound_is_no_other_archives() {
    let scene = Scene::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let request = Request {
        state: Some(path.clone()),
        ..readers(2)
    };
    let mut object = scene.store.open("walden.json").unwrap().unwrap();
    let mut binding = Vec::new();
    std::io::Read::read_to_end(&mut object.reader, &mut binding).unwrap();
    scene.remove("walden.json");
    scene.verify_with(&request);
    scene.store.overwrite("walden.json", &binding);
    assert_eq!(scene.verify_with(&request).segments, 0);
    let text = std::fs::read_to_string(&path).unwrap();
    let (_, rest) = text.split_once(',').unwrap();
    std::fs::write(&path, format!("{{\"walden_index\":1,{rest}")).unwrap();
    let report = scene.verify_with(&request);
    assert_eq!(report.segments, scene.segments.len() as u64 + 1);
    let note = scene::one(&report, Kind::State, "");
    assert!(note.message.contains("another version"), "{note:?}");
    assert_eq!(report.worst(), Some(Severity::Note));
    let again = scene.verify_with(&request);
    assert_eq!((again.segments, again.worst()), (0, None));
}

#[test]
fn a_store_that_fails_is_never_an_archive_that_is_fine_or_damaged() {
    let scene = Scene::new();
    let (mut clean, mut untold) = (0, 0);
    for seed in 0..60 {
        let faults = Faults::seeded(seed, 60);
        let store = FaultyStore::new(Box::new(scene.store.clone()), faults.clone());
        let archive = Archive::with_store(Box::new(store), Options::default());
        let Ok(report) = verify(&archive, &readers(2), &|_| (), &Cancel::new()) else {
            untold += 1;
            continue;
        };
        match report.worst() {
            None => clean += 1,
            Some(worst) => {
                // What hangs on a timeline history file that could not be read is said of it alone.
                assert_eq!(
                    worst,
                    Severity::CouldNotTell,
                    "{:#?}",
                    report.findings.listed()
                );
                untold += 1;
            }
        }
    }
    assert!(
        clean > 3 && untold > 3,
        "{clean} clean, {untold} could not tell"
    );
}

#[test]
fn an_archive_that_goes_away_is_given_up_soon() {
    let scene = Scene::new();
    let dir = tempfile::tempdir().unwrap();
    let (place, aside) = (dir.path().join("archive"), dir.path().join("aside"));
    std::fs::create_dir(&place).unwrap();
    for (name, bytes) in &scene.segments {
        std::fs::write(place.join(name.to_string()), bytes).unwrap();
    }
    // More of them, of which nobody gets to know what they are.
    for number in 20..60 {
        std::fs::write(place.join(name(2, number)), b"x").unwrap();
    }
    let archive = Archive::with_store(
        Box::new(DirStore::open(&place).unwrap()),
        Options::default(),
    );
    let told = |told: Told| {
        if matches!(told, Told::Read(3, _)) {
            std::fs::rename(&place, &aside).unwrap();
        }
    };
    let report = verify(&archive, &readers(1), &told, &Cancel::new()).unwrap();
    assert!(report.stopped.is_some());
    assert_eq!(report.segments, 3 + u64::from(GONE_AFTER));
    assert!(
        !found(&report)
            .iter()
            .any(|(kind, _)| *kind == Kind::Damaged)
    );
    assert!(report.findings.count(Severity::CouldNotTell) > u64::from(GONE_AFTER));
}

#[test]
fn an_empty_place_is_no_archive() {
    let archive = Archive::with_store(Box::new(MemoryStore::new()), Options::default());
    let error = verify(&archive, &readers(1), &|_| (), &Cancel::new()).unwrap_err();
    assert!(error.to_string().contains("is empty"), "{error}");
}
