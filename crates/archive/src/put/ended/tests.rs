//! A segment of 1 MB in which WAL ends, as a standby has it in `pg_wal`, and what is stored of it.

use std::fs;
use std::path::PathBuf;

use fixtures::Written;
use tempfile::TempDir;
use wal::{SegmentName, SystemIdentifier};

use crate::archive::Archive;
use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind};
use crate::options::{Options, Verify};
use crate::put::Put;
use crate::store::dir::store::DirStore;
use crate::store::memory::MemoryStore;
use crate::store::waist::Store;

const SEGMENT: usize = 1024 * 1024;
/// How much WAL there is before the timeline is left.
const ENDS: usize = 600_000;

/// WAL up to its end; the name of its segment.
fn written(until: usize) -> (Written, SegmentName) {
    let mut wal = Written::new();
    wal.fill(until);
    let name = wal.segments(1)[0].0;
    (wal, name)
}

/// The segment, zeros behind its end.
fn cut(until: usize) -> Vec<u8> {
    written(until).0.segments(1).remove(0).1
}

/// The same with what an older segment left behind its end.
fn recycled(until: usize) -> Vec<u8> {
    let mut bytes = cut(until);
    let mut older = Written::behind(fixtures::FIRST - 1, 100);
    older.fill(SEGMENT);
    let end = written(until).0.end;
    let older = older.segments(1).remove(0).1;
    let begin = end.next_multiple_of(8192);
    bytes[begin..].copy_from_slice(&older[begin..]);
    bytes
}

/// A whole segment that begins with the same records.
fn whole() -> Vec<u8> {
    cut(SEGMENT + 5000)
}

/// `pg_wal`, and an archive.
struct Scene {
    folder: TempDir,
    archive: Archive,
    name: String,
}

impl Scene {
    fn over(store: Box<dyn Store>, verify: Verify) -> Scene {
        let options = Options {
            verify,
            ..Options::default()
        };
        Scene {
            folder: tempfile::tempdir().unwrap(),
            archive: Archive::with_store(store, options),
            name: written(ENDS).1.to_string(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn partial(&self) -> String {
        format!("{}.partial", self.name)
    }

    /// Timeline 2 leaves timeline 1 behind so many bytes of the segment.
    fn leave(&self, at: usize) {
        let at = fixtures::FIRST * SEGMENT as u64 + at as u64;
        let text = format!(
            "1\t{:X}/{:X}\tno recovery target specified\n",
            at >> 32,
            at & 0xFFFF_FFFF
        );
        fs::write(self.path("00000002.history"), text).unwrap();
    }

    /// WAL of a later timeline, as the server that follows it has it.
    fn go_on_as(&self, timeline: u32) {
        let mut wal = Written::new();
        wal.fill(ENDS - 100_000);
        wal.promote(timeline);
        wal.fill(ENDS);
        let (name, bytes) = wal.segments(timeline).remove(0);
        fs::write(self.path(&name.to_string()), bytes).unwrap();
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<Put, Error> {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        let system = Some(SystemIdentifier(fixtures::SYSTEM));
        let name = name.parse().unwrap();
        self.archive.put_new(&name, &path, system, &Cancel::new())
    }

    /// The keys of WAL files.
    fn keys(&self) -> Vec<String> {
        let stored = self.archive.list().unwrap();
        stored.into_iter().map(|stored| stored.key).collect()
    }
}

/// The same in a directory and in a store that is far away, with each way to verify.
fn everywhere(test: impl Fn(&Scene)) {
    for verify in [Verify::Records, Verify::Header, Verify::Off] {
        test(&Scene::over(Box::new(MemoryStore::remote()), verify));
        let directory = tempfile::tempdir().unwrap();
        let store = DirStore::open(directory.path()).unwrap();
        test(&Scene::over(Box::new(store), verify));
    }
}

fn end_of(until: usize) -> usize {
    written(until).0.end
}

#[test]
fn it_is_not_complete_while_nothing_says_that_its_timeline_was_left() {
    everywhere(|scene| {
        for bytes in [cut(ENDS), recycled(ENDS)] {
            let error = scene.put(&scene.name, &bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unusable, "{error}");
            assert!(error.to_string().contains("is not complete"), "{error}");
            assert!(error.hint().unwrap().contains(&scene.partial()));
        }
        // Left before its WAL ends, or in the segment before: the server is not on that line.
        for left in [end_of(ENDS) - 8, 0] {
            scene.leave(left);
            assert!(scene.put(&scene.name, &cut(ENDS)).is_err(), "{left}");
        }
        assert_eq!(scene.keys(), Vec::<String>::new());
        // With its last record it is.
        let put = scene.put(&scene.name, &whole()).unwrap();
        assert!(matches!(put, Put::Stored { .. }), "{put:?}");
    });
}

#[test]
fn it_is_stored_as_a_partial_segment_where_its_timeline_was_left() {
    everywhere(|scene| {
        scene.leave(end_of(ENDS));
        for _ in 0..2 {
            let put = scene.put(&scene.name, &cut(ENDS)).unwrap();
            assert_eq!(put, Put::AsPartial);
            assert_eq!(scene.keys(), [scene.partial()]);
        }
        // The server that was promoted there offers its own, with other bytes behind the end.
        let put = scene.put(&scene.partial(), &recycled(ENDS)).unwrap();
        assert_eq!(put, Put::AlreadyStored);
        // One that was promoted earlier.
        let put = scene.put(&scene.partial(), &cut(ENDS - 50_000)).unwrap();
        assert_eq!(put, Put::AlreadyStored);
        assert_eq!(scene.archive.take_warnings(), Vec::<String>::new());
        // Whoever still writes the timeline may complete the segment.
        let put = scene.put(&scene.name, &whole()).unwrap();
        assert!(matches!(put, Put::Stored { .. }), "{put:?}");
    });
}

#[test]
fn what_is_stored_under_its_name_with_all_its_records_will_do() {
    everywhere(|scene| {
        scene.put(&scene.name, &whole()).unwrap();
        // Whatever timeline the server is on.
        assert_eq!(
            scene.put(&scene.name, &cut(ENDS)).unwrap(),
            Put::AlreadyStored
        );
        scene.leave(end_of(ENDS));
        assert_eq!(
            scene.put(&scene.name, &recycled(ENDS)).unwrap(),
            Put::AlreadyStored
        );
        assert_eq!(scene.keys(), std::slice::from_ref(&scene.name));
    });
}

#[test]
fn another_record_is_a_conflict() {
    let other = || {
        let mut wal = Written::new();
        wal.fill(ENDS - 100_000);
        wal.data(99);
        wal.fill(ENDS);
        wal
    };
    everywhere(|scene| {
        scene.put(&scene.name, &whole()).unwrap();
        scene.leave(other().end);
        let bytes = other().segments(1).remove(0).1;
        let error = scene.put(&scene.name, &bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    });
    everywhere(|scene| {
        scene.leave(end_of(ENDS));
        scene.put(&scene.name, &cut(ENDS)).unwrap();
        let bytes = other().segments(1).remove(0).1;
        let error = scene.put(&scene.partial(), &bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        scene.leave(other().end);
        let error = scene.put(&scene.name, &bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    });
}

#[test]
fn pages_of_its_own_behind_the_end_are_damage() {
    let scene = Scene::over(Box::new(MemoryStore::remote()), Verify::Records);
    scene.leave(end_of(ENDS));
    let mut bytes = whole();
    let page = end_of(ENDS).next_multiple_of(8192);
    bytes[page..page + 8192].fill(0);
    let error = scene.put(&scene.name, &bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
}

#[test]
fn a_half_record_at_the_end_is_nobodys() {
    everywhere(|scene| {
        let (mut wal, _) = written(ENDS);
        wal.data(30_000);
        let mut bytes = wal.segments(1).remove(0).1;
        let page = (end_of(ENDS) + 9000).next_multiple_of(8192);
        bytes[page..].fill(0);
        // The next timeline begins behind what was flushed of it.
        scene.leave(page);
        assert_eq!(scene.put(&scene.name, &bytes).unwrap(), Put::AsPartial);
        assert_eq!(
            scene.put(&scene.partial(), &cut(ENDS)).unwrap(),
            Put::AlreadyStored
        );
    });
}

#[test]
fn records_that_are_not_stored_are_given_up_only_with_their_timeline() {
    everywhere(|scene| {
        scene.leave(end_of(ENDS));
        scene.put(&scene.name, &cut(ENDS)).unwrap();
        let longer = cut(ENDS + 50_000);
        let error = scene.put(&scene.partial(), &longer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(
            error.to_string().contains("the same records, but ends at"),
            "{error}"
        );
        assert!(scene.put(&scene.name, &longer).is_err());
        // The server that received more is on timeline 2 by now: its WAL says so.
        scene.go_on_as(2);
        assert_eq!(scene.put(&scene.name, &longer).unwrap(), Put::AsPartial);
        let warnings = scene.archive.take_warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("is not archived"), "{warnings:?}");
        let put = scene.put(&scene.partial(), &longer).unwrap();
        assert_eq!(put, Put::AlreadyStored);
        assert_eq!(scene.keys(), [scene.partial()]);
    });
}

#[test]
fn what_lies_behind_the_place_where_the_timeline_was_left_is_kept_in_the_partial_segment() {
    everywhere(|scene| {
        // Left before WAL ends in this segment, or in the one before.
        for left in [ENDS - 100_000, 0] {
            scene.leave(left);
            assert!(scene.put(&scene.name, &cut(ENDS)).is_err());
        }
        scene.go_on_as(2);
        assert_eq!(scene.put(&scene.name, &cut(ENDS)).unwrap(), Put::AsPartial);
    });
}

#[test]
fn a_recycled_file_of_the_next_timeline_says_nothing() {
    let scene = Scene::over(Box::new(MemoryStore::remote()), Verify::Records);
    scene.leave(0);
    let name = scene.name.replacen("00000001", "00000002", 1);
    let mut older = Written::behind(fixtures::FIRST - 1, 100);
    older.fill(SEGMENT);
    fs::write(scene.path(&name), older.segments(1).remove(0).1).unwrap();
    assert!(scene.put(&scene.name, &cut(ENDS)).is_err());
}

#[test]
fn the_rest_of_a_record_from_before_is_nobodys_either() {
    everywhere(|scene| {
        // A record over the beginning of the segment, of which a part was flushed; the fork lies before it.
        let mut wal = Written::behind(fixtures::FIRST - 1, 100);
        wal.fill(SEGMENT - 9000);
        wal.data(100_000);
        let mut bytes = wal.segments(1).remove(1).1;
        bytes[3 * 8192..].fill(0);
        assert!(scene.put(&scene.name, &bytes).is_err());
        fs::write(scene.path("00000002.history"), "1\t0/4FDD00\tx\n").unwrap();
        assert_eq!(scene.put(&scene.name, &bytes).unwrap(), Put::AsPartial);
    });
}

#[test]
fn the_header_of_a_page_without_a_record_is_no_wal() {
    everywhere(|scene| {
        let (mut wal, _) = written(ENDS);
        // To the very end of a page, and behind it one page of a record that never was whole.
        let room = 8192 - wal.end % 8192;
        wal.data(if room < 64 { room + 8192 - 24 } else { room });
        assert_eq!(wal.end % 8192, 0);
        let end = wal.end;
        wal.data(30_000);
        let mut bytes = wal.segments(1).remove(0).1;
        bytes[end + 8192..].fill(0);
        scene.leave(end);
        assert_eq!(scene.put(&scene.name, &bytes).unwrap(), Put::AsPartial);
    });
}

#[test]
fn wal_that_ends_in_the_last_page_ends_all_the_same() {
    everywhere(|scene| {
        let bytes = cut(SEGMENT - 5000);
        assert!(scene.put(&scene.name, &bytes).is_err());
        assert_eq!(scene.keys(), Vec::<String>::new());
    });
}
