//! Each kind of damage is named, at its place, and nothing else is.

use fixtures::{SEGMENT, Written};

use super::scene::{Scene, found, history, name, one};
use crate::finding::{Kind, Severity};

/// An empty frame of zstd's whose window is 2 GB.
const LARGE_WINDOW: [u8; 9] = [0x28, 0xB5, 0x2F, 0xFD, 0, 0xA8, 1, 0, 0];

/// What is done to a segment's bytes.
type Change = fn(&mut Vec<u8>);

#[test]
fn a_missing_segment_is_named_with_its_place() {
    let scene = Scene::new();
    scene.remove(&name(2, 8));
    let report = scene.verify();
    assert_eq!(found(&report), [(Kind::Missing, name(2, 8))]);
    let finding = one(&report, Kind::Missing, &name(2, 8));
    assert_eq!(finding.lsn, Some(wal::Lsn(8 * SEGMENT as u64)));
    assert!(finding.hint.is_some());
}

#[test]
fn the_segment_that_a_timeline_begins_in_is_missed_too() {
    let scene = Scene::new();
    scene.remove(&name(2, 7));
    assert_eq!(found(&scene.verify()), [(Kind::Missing, name(2, 7))]);
    let scene = Scene::new();
    scene.remove(&name(1, 6));
    assert_eq!(found(&scene.verify()), [(Kind::Missing, name(1, 6))]);
}

#[test]
fn a_segment_is_missed_before_a_partial_one_too() {
    let scene = Scene::new();
    // As pg_receivewal leaves it.
    let partial = format!("{}.partial", name(2, 12));
    scene.store.overwrite(&partial, &scene.bytes(&name(2, 12)));
    scene.remove(&name(2, 12));
    assert_eq!(found(&scene.verify()), []);
    scene.remove(&name(2, 11));
    assert_eq!(found(&scene.verify()), [(Kind::Missing, name(2, 11))]);
}

#[test]
fn what_was_cleaned_up_is_not_missed() {
    let scene = Scene::new();
    for key in [name(1, 5), name(1, 6), name(2, 7), name(2, 8)] {
        scene.remove(&key);
    }
    scene.remove(&format!("{}.partial", name(1, 7)));
    assert_eq!(found(&scene.verify()), []);
}

#[test]
fn flipped_bits_zeros_and_cuts_are_damage_of_their_object() {
    let damages: [(&str, Change); 6] = [
        ("a flipped bit", |bytes| bytes[400_000] ^= 4),
        ("a hole of zeros", |bytes| {
            bytes[8192 * 9..8192 * 20].fill(0)
        }),
        ("cut short", |bytes| bytes.truncate(700_000)),
        ("longer", |bytes| bytes.extend_from_slice(&[0; 10])),
        ("nothing", Vec::clear),
        ("something else", |bytes| bytes.fill(7)),
    ];
    for (what, damage) in damages {
        let scene = Scene::new();
        scene.change(&name(1, 6), damage);
        let report = scene.verify();
        assert_eq!(found(&report), [(Kind::Damaged, name(1, 6))], "{what}");
    }
}

#[test]
fn segments_under_each_others_names_are_told() {
    let scene = Scene::new();
    let (one, other) = (name(2, 11), name(2, 12));
    scene.store.overwrite(&one, &scene.bytes(&other));
    scene.store.overwrite(&other, &scene.bytes(&one));
    let report = scene.verify();
    assert_eq!(
        found(&report),
        [(Kind::Misnamed, one), (Kind::Misnamed, other)]
    );
}

#[test]
fn a_segment_of_another_system_is_told() {
    let scene = Scene::new();
    scene.change(&name(2, 8), |bytes| bytes[24] ^= 1);
    assert_eq!(found(&scene.verify()), [(Kind::OtherSystem, name(2, 8))]);
    // Without a binding most of them decide.
    scene.remove("walden.json");
    assert_eq!(found(&scene.verify()), [(Kind::OtherSystem, name(2, 8))]);
}

#[test]
fn a_segment_of_another_size_is_told() {
    let scene = Scene::new();
    scene.change(&name(2, 8), |bytes| {
        bytes[32..36].copy_from_slice(&(2 * SEGMENT as u32).to_ne_bytes());
        bytes.resize(2 * SEGMENT, 0);
    });
    assert_eq!(found(&scene.verify()), [(Kind::OtherSize, name(2, 8))]);
}

#[test]
fn a_segment_of_another_branch_does_not_follow() {
    let scene = Scene::new();
    let mut other = Written::new();
    other.fill(2 * SEGMENT + 200_000);
    other.promote(2);
    other.fill(3 * SEGMENT);
    let (_, bytes) = other.segments(2).remove(2);
    scene.store.overwrite(&name(2, 7), &bytes);
    let report = scene.verify();
    let found = found(&report);
    assert!(
        found.contains(&(Kind::DoesNotFollow, name(2, 8))),
        "{found:?}"
    );
    assert!(found.contains(&(Kind::WrongSwitchpoint, "00000002.history".to_owned())));
}

#[test]
fn wal_that_ends_before_the_next_segment_is_told() {
    let scene = Scene::new();
    scene.change(&name(2, 8), |bytes| bytes[8192 * 70..].fill(0));
    let report = scene.verify();
    assert_eq!(found(&report), [(Kind::EndsEarly, name(2, 8))]);
    assert!(one(&report, Kind::EndsEarly, &name(2, 8)).lsn.is_some());
    // At the end of all WAL it is how it should be.
    let scene = Scene::new();
    scene.change(&name(2, 12), |bytes| bytes[8192 * 30..].fill(0));
    assert_eq!(found(&scene.verify()), []);
}

#[test]
fn a_lost_timeline_history_file_is_told() {
    let scene = Scene::new();
    scene.remove("00000002.history");
    let found = found(&scene.verify());
    assert!(found.contains(&(Kind::MissingHistory, "00000002.history".to_owned())));
}

#[test]
fn a_number_left_out_below_a_stored_history_is_told() {
    let scene = Scene::new();
    let text = history(scene.switchpoint);
    scene.store.overwrite("00000004.history", text.as_bytes());
    let report = scene.verify();
    let finding = one(&report, Kind::MissingHistory, "00000003.history");
    assert_eq!(finding.severity, Severity::Warning);
}

#[test]
fn an_old_primary_that_went_on_before_the_new_one_archived_is_told() {
    let scene = Scene::new();
    for number in 7..=12 {
        scene.remove(&name(2, number));
    }
    assert_eq!(
        found(&scene.verify()),
        [],
        "the partial segment is all there is"
    );
    // It is enough that it lies there: a recovery along timeline 2 does not take it.
    let mut old = fixtures::Written::new();
    old.fill(3 * fixtures::SEGMENT - 30_000);
    old.switch();
    let seven = old.segments(1).remove(2).1;
    scene.store.overwrite(&name(1, 7), &seven);
    let report = scene.verify();
    let finding = one(&report, Kind::Missing, &name(1, 7));
    assert_eq!(finding.severity, Severity::Warning);
    assert!(
        finding.message.contains("timeline 2 left timeline 1"),
        "{}",
        finding.message
    );
}

#[test]
fn an_archive_may_have_been_begun_on_a_later_timeline() {
    let scene = Scene::new();
    for key in ["00000002.history".to_owned(), name(1, 5), name(1, 6)] {
        scene.remove(&key);
    }
    scene.remove(&format!("{}.partial", name(1, 7)));
    assert_eq!(scene.verify().worst(), Some(Severity::Warning));
}

#[test]
fn a_timeline_history_file_that_is_none_is_damaged() {
    let scene = Scene::new();
    scene.store.overwrite("00000002.history", &[0; 40]);
    let found = found(&scene.verify());
    assert!(
        found.contains(&(Kind::Damaged, "00000002.history".to_owned())),
        "{found:?}"
    );
}

#[test]
fn a_wrong_switchpoint_is_told_however_far_off_it_is() {
    let at = Scene::new().switchpoint;
    let segment = SEGMENT as u64;
    for wrong in [
        at - 8,
        at - 1000,
        at + 8,
        at + 4000,
        at - segment,
        at + segment,
    ] {
        let scene = Scene::new();
        scene
            .store
            .overwrite("00000002.history", history(wrong).as_bytes());
        let report = scene.verify();
        assert_eq!(
            report.worst(),
            Some(Severity::Error),
            "{wrong:X}: {report:#?}"
        );
        let kinds: Vec<Kind> = found(&report).into_iter().map(|(kind, _)| kind).collect();
        let expected = match wrong.abs_diff(at) {
            near if near < segment => Kind::WrongSwitchpoint,
            _ if wrong > at => Kind::BeforeTimeline,
            _ => Kind::Missing,
        };
        assert!(kinds.contains(&expected), "{wrong:X}: {kinds:?}");
    }
}

#[test]
fn a_timeline_that_lies_over_another_is_told() {
    let scene = Scene::new();
    let bytes = scene.bytes(&name(1, 6));
    scene.store.overwrite(&name(2, 6), &bytes);
    let found = found(&scene.verify());
    assert!(
        found.contains(&(Kind::BeforeTimeline, name(2, 6))),
        "{found:?}"
    );
}

#[test]
fn histories_that_contradict_each_other_are_told() {
    let scene = Scene::new();
    let text = format!("1\t0/{:X}\tx\n2\t0/B00028\tx\n", scene.switchpoint - 64);
    scene.store.overwrite("00000003.history", text.as_bytes());
    let found = found(&scene.verify());
    // And nothing of timeline 3 is stored.
    assert_eq!(
        found,
        [
            (Kind::Missing, name(2, 11)),
            (Kind::Contradiction, "00000003.history".to_owned())
        ]
    );
}

#[test]
fn a_segment_is_read_in_whatever_form_its_first_bytes_tell() {
    use archive::{Archive, Cancel, MemoryStore, Options, Store};
    let scene = Scene::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name(2, 11));
    std::fs::write(&path, scene.bytes(&name(2, 11))).unwrap();
    // Compressed, by an archive of its own.
    let store = MemoryStore::new();
    let archive = Archive::with_store(Box::new(store.clone()), Options::default());
    let file = name(2, 11).parse().unwrap();
    archive.put_new(&file, &path, None, &Cancel::new()).unwrap();
    let mut compressed = Vec::new();
    let object = store.open(&name(2, 11)).unwrap();
    std::io::Read::read_to_end(&mut object.unwrap().reader, &mut compressed).unwrap();
    scene.store.overwrite(&name(2, 11), &compressed);
    assert_eq!(found(&scene.verify()), []);
}

#[test]
fn wrong_suffixes_and_strangers_are_named() {
    let scene = Scene::new();
    let bytes = scene.bytes(&name(2, 11));
    scene.remove(&name(2, 11));
    let key = format!("{}.gz", name(2, 11));
    scene.store.overwrite(&key, &bytes);
    scene.store.overwrite("README", b"hello");
    scene.store.overwrite("000000020000000000001000", b"none");
    let report = scene.verify();
    assert_eq!(
        found(&report),
        [
            (Kind::Missing, name(2, 11)),
            (Kind::Unreadable, key),
            (Kind::Misnamed, "000000020000000000001000".to_owned()),
        ]
    );
    assert_eq!(
        one(&report, Kind::Foreign, "README").severity,
        Severity::Note
    );
    // Whoever asks for the segment is not told that it is absent; beside the segment itself the other one does no harm.
    let beside = format!("{}.gz", name(2, 11));
    let severity = || one(&scene.verify(), Kind::Unreadable, &beside).severity;
    assert_eq!(severity(), Severity::Error);
    scene.store.overwrite(&name(2, 11), &bytes);
    assert_eq!(severity(), Severity::Warning);
    // What is cut short, and what is packed by something that nobody here unpacks.
    for (magic, kind) in [
        (&[0x28, 0xB5, 0x2F, 0xFD][..], Kind::Damaged),
        (&[0x1F, 0x8B, 0x08], Kind::Unreadable),
        // A frame of zstd's with a window of 2 GB.
        (&LARGE_WINDOW, Kind::Unreadable),
    ] {
        let scene = Scene::new();
        scene.store.overwrite(&name(2, 11), &magic.repeat(99));
        let report = scene.verify();
        assert!(one(&report, kind, &name(2, 11)).hint.is_some());
        assert_eq!(report.worst(), Some(Severity::Error));
    }
}

#[test]
fn a_damaged_partial_segment_and_one_that_does_not_follow_are_told() {
    let scene = Scene::new();
    let key = format!("{}.partial", name(1, 7));
    scene.store.overwrite(&key, &[0; 100]);
    assert_eq!(found(&scene.verify()), [(Kind::Damaged, key.clone())]);
    let mut other = Written::behind(7, 7 * SEGMENT as u64 - 8);
    other.fill(300_000);
    scene.store.overwrite(&key, &other.bytes);
    assert_eq!(found(&scene.verify()), [(Kind::DoesNotFollow, key)]);
}
