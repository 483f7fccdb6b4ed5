//! What `pg_resetwal --wal-segsize` leaves behind: each segment is read by its own size.

use archive::{Archive, Cancel, MemoryStore, Options};
use fixtures::{SEGMENT, SYSTEM, Written};
use wal::{Lsn, SegmentSize, TimelineId};

use super::super::{Edge, Report, Request, Scope, verify};
use super::scene::{found, name, one};
use crate::finding::{Kind, Severity};
use crate::inventory::Inventory;
use crate::ranges::{Depth, Ranges, ranges};

const LARGE: usize = 4 * SEGMENT;

/// Segments 5 to 7 of 1 MB, then 8 to 10 of 4 MB: their names alone follow one another.
fn resized() -> MemoryStore {
    let store = MemoryStore::new();
    let mut small = Written::new();
    small.fill(2 * SEGMENT + 300_000);
    small.switch();
    let mut large = Written::of_segments(LARGE, 8, 8 * LARGE as u64 - 100);
    large.fill(2 * LARGE + 300_000);
    large.switch();
    for (name, bytes) in small.segments(1).into_iter().chain(large.segments(1)) {
        store.overwrite(&name.to_string(), &bytes);
    }
    let binding =
        format!(r#"{{"format":1,"system_identifier":"{SYSTEM}","created":"2026-11-22"}}"#);
    store.overwrite("walden.json", binding.as_bytes());
    store
}

/// The same, and then 45 to 46 of 1 MB; each change as pg_resetwal has it, unless the last is `behind` something.
fn resized_twice(behind: u64) -> MemoryStore {
    let store = resized();
    let mut large = Written::of_segments(LARGE, 8, 0);
    large.fill(2 * LARGE + 300_000);
    large.switch();
    let mut small = Written::behind(45, behind);
    small.fill(SEGMENT + 300_000);
    small.switch();
    for (name, bytes) in large.segments(1).into_iter().chain(small.segments(1)) {
        store.overwrite(&name.to_string(), &bytes);
    }
    store
}

fn archive(store: &MemoryStore) -> Archive {
    Archive::with_store(Box::new(store.clone()), Options::default())
}

fn verified(store: &MemoryStore, scope: Scope) -> Report {
    let request = Request {
        readers: 2,
        scope,
        ..Request::default()
    };
    verify(&archive(store), &request, &|_| (), &Cancel::new()).unwrap()
}

fn listed(store: &MemoryStore, depth: Depth) -> Ranges {
    let archive = archive(store);
    let inventory = Inventory::take(&archive, &mut |_| ()).unwrap();
    ranges(&archive, &inventory, depth, &Cancel::new()).unwrap()
}

#[test]
fn segments_of_two_sizes_are_each_right_and_the_change_is_a_note() {
    let report = verified(&resized(), Scope::default());
    assert_eq!(found(&report), []);
    assert_eq!(report.worst(), Some(Severity::Note));
    let note = one(&report, Kind::OtherSize, &name(1, 8));
    assert!(note.message.contains(&name(1, 7)), "{note:?}");
    assert_eq!(report.segments, 6);
    assert_eq!(report.bytes, 3 * (SEGMENT + LARGE) as u64);
    assert_eq!(report.measure.size.bytes(), LARGE as u64);
}

#[test]
fn a_size_that_comes_back_is_no_error() {
    let report = verified(&resized_twice(0), Scope::default());
    assert_eq!(found(&report), []);
    assert_eq!(report.worst(), Some(Severity::Note));
    assert_eq!(report.segments, 8);
    for (before, next) in [(7, 8), (10, 45)] {
        let note = one(&report, Kind::OtherSize, &name(1, next));
        assert!(note.message.contains(&name(1, before)), "{note:?}");
    }
    for depth in [Depth::Names, Depth::Contents] {
        let ranges = listed(&resized_twice(0), depth);
        let spans = &ranges.timelines[&TimelineId::FIRST].spans;
        let begins = spans.iter().filter_map(|span| Some(span.places?.0.0));
        let mb = SEGMENT as u64;
        assert_eq!(begins.collect::<Vec<_>>(), [5 * mb, 32 * mb, 45 * mb]);
        assert_eq!(ranges.notes.len(), 2);
    }
}

#[test]
fn a_size_that_comes_back_without_a_reset_is_an_error() {
    let store = resized_twice(44 * SEGMENT as u64 - 100);
    let report = verified(&store, Scope::default());
    assert_eq!(report.worst(), Some(Severity::Error));
}

#[test]
fn what_is_wrong_with_either_size_is_told_once() {
    for (number, offset) in [(5, 400_000), (10, 100_000)] {
        let store = resized();
        let key = name(1, number);
        let mut bytes = bytes_of(&store, &key);
        bytes[offset] ^= 4;
        store.overwrite(&key, &bytes);
        assert_eq!(
            found(&verified(&store, Scope::default())),
            [(Kind::Damaged, key)]
        );
    }
    // Without a header nobody knows its size.
    for number in [6, 7, 9, 10] {
        let store = resized();
        let key = name(1, number);
        store.overwrite(&key, &[0; 100]);
        let report = verified(&store, Scope::default());
        assert_eq!(found(&report), [(Kind::Damaged, key)]);
    }
    for number in [6, 9] {
        let store = resized();
        archive::Store::remove(&store, &name(1, number)).unwrap();
        let report = verified(&store, Scope::default());
        assert_eq!(found(&report), [(Kind::Missing, name(1, number))]);
    }
}

fn bytes_of(store: &MemoryStore, key: &str) -> Vec<u8> {
    let mut object = archive::Store::open(store, key).unwrap().unwrap();
    let mut bytes = Vec::new();
    std::io::copy(&mut object.reader, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_timeline_that_begins_behind_the_change_is_not_missed_before_it() {
    let store = resized();
    let text = format!("1\t0/{:X}\tx\n", 10 * LARGE + 400);
    store.overwrite("00000002.history", text.as_bytes());
    let report = verified(&store, Scope::default());
    let of_history = |(kind, object): (Kind, String)| {
        (kind == Kind::Missing && object == name(1, 10)).then_some(())
    };
    // That timeline 2 has no segment yet is said as without the change.
    assert!(
        found(&report)
            .into_iter()
            .all(|it| of_history(it).is_some())
    );
}

#[test]
fn a_range_is_looked_for_in_segments_of_every_size() {
    let store = resized();
    let scope = |from, to| Scope {
        from: Some(Edge::Place(Lsn(from))),
        to: Some(Edge::Place(Lsn(to))),
        timeline: TimelineId::new(1),
    };
    let (mb, large) = (SEGMENT as u64, LARGE as u64);
    let report = verified(&store, scope(6 * mb, 9 * large + 7));
    assert_eq!((found(&report), report.segments), (vec![], 4));
    let report = verified(&store, scope(2 * mb, 9 * large));
    assert_eq!(found(&report), [(Kind::Missing, String::new())]);
}

#[test]
fn segments_that_lie_within_one_another_are_of_another_size_as_ever() {
    let store = resized();
    // A segment of 1 MB in the middle of those of 4 MB.
    let mut odd = Written::behind(35, 35 * SEGMENT as u64 - 100);
    odd.fill(300_000);
    odd.switch();
    for (name, bytes) in odd.segments(1) {
        store.overwrite(&name.to_string(), &bytes);
    }
    let report = verified(&store, Scope::default());
    assert_eq!(report.worst(), Some(Severity::Error));
    assert!(
        found(&report)
            .iter()
            .any(|(kind, _)| *kind == Kind::OtherSize)
    );
}

#[test]
fn a_list_has_the_places_of_both_sizes() {
    for depth in [Depth::Names, Depth::Contents] {
        let ranges = listed(&resized(), depth);
        let first = &ranges.timelines[&TimelineId::FIRST];
        let begins: Vec<u64> = first
            .spans
            .iter()
            .filter_map(|span| Some(span.places?.0.0))
            .collect();
        assert_eq!(begins, [5 * SEGMENT as u64, 8 * LARGE as u64]);
        let ends = first.spans.iter().filter_map(|span| Some(span.places?.1));
        let ends: Vec<Lsn> = ends.collect();
        assert!(ends[0] <= Lsn(8 * SEGMENT as u64) && ends[1] > Lsn(10 * LARGE as u64));
        let names: Vec<String> = first.spans.iter().map(|it| it.last.to_string()).collect();
        assert_eq!(names, [name(1, 7), name(1, 10)]);
        assert_eq!(first.wal_bytes, Some(3 * (SEGMENT + LARGE) as u64));
        assert_eq!((first.holes.len(), ranges.notes.len()), (0, 1));
        let size = ranges.measure.map(|measure| measure.size);
        assert_eq!(size, SegmentSize::new(LARGE as u64).ok());
    }
}
