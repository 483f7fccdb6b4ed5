//! Holes and cleanup in a directory archive, beyond what the conformance suite asks of any store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests may panic"
)]

mod common;

use std::fs;
use std::ops::ControlFlow;

use common::{OURS, Place, THEIRS, TWO, segment};
use wal::{KeepFrom, SegmentName, TimelineId, WalFileName};
use walden_archive::suite::fixtures;
use walden_archive::{
    Archive, Cancel, Compression, Detail, DirStore, Entry, Error, ErrorKind, Evidence, Got,
    MemoryStore, Object, Options, SoughtSegment, Staged, Store,
};

/// The name of a segment of timeline 1.
fn name(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

/// What speaks against the segment's absence, for whoever does not know the segment size.
fn against(archive: &Archive, segment: &SegmentName) -> Option<Evidence> {
    let sought = SoughtSegment {
        segment: *segment,
        size: None,
        is_fork: false,
        at_hand: &[],
    };
    archive.segment_evidence(&sought).unwrap().against
}

/// Evidence of later segments.
fn later(keys: &[&str]) -> Option<Evidence> {
    Some(Evidence::Later {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        count: keys.len() as u64,
    })
}

/// A store of which one object cannot be removed.
struct Stuck(MemoryStore);

impl Store for Stuck {
    fn stage(&self, key: &str) -> Result<Box<dyn Staged>, Error> {
        self.0.stage(key)
    }

    fn open(&self, key: &str) -> Result<Option<Object>, Error> {
        self.0.open(key)
    }

    fn settle(&self, key: &str) -> Result<(), Error> {
        self.0.settle(key)
    }

    fn list_after(
        &self,
        prefix: &str,
        start_after: &str,
        detail: Detail,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.0.list_after(prefix, start_after, detail, visit)
    }

    fn remove(&self, key: &str) -> Result<bool, Error> {
        if key == TWO {
            return Err(Error::new(ErrorKind::Unavailable, "no"));
        }
        self.0.remove(key)
    }

    fn remove_leftovers(&self) -> Result<u64, Error> {
        self.0.remove_leftovers()
    }

    fn place(&self) -> String {
        self.0.place()
    }
}

/// A memory with this many segments, and an archive over it that cannot remove the second.
fn stuck_archive(segments: u64) -> (MemoryStore, Archive) {
    let memory = MemoryStore::new();
    for number in 1..=segments {
        memory.overwrite(&format!("0000000100000000{number:08X}"), b"x");
    }
    let archive = Archive::with_store(Box::new(Stuck(memory.clone())), Options::default());
    (memory, archive)
}

#[test]
fn a_failed_removal_does_not_stop_cleanup_and_is_reported() {
    // More than are collected at once.
    let (memory, archive) = stuck_archive(3000);
    let keep: KeepFrom = format!("0000000100000000{:08X}", 2900).parse().unwrap();
    let error = archive.clean_up(&keep, None, &Cancel::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(
        error.to_string(),
        "could not remove 1 files from archive \"memory\" (2898 removed): no"
    );
    let left = Archive::with_store(Box::new(memory), Options::default())
        .list()
        .unwrap();
    assert_eq!(left.len(), 102);
}

#[test]
fn cleanup_of_another_systems_archive_is_refused_before_anything_is_removed() {
    let keep: KeepFrom = name(3).parse().unwrap();
    // Bound by walden.json, and a raw directory that shows whose it is by its WAL alone.
    for bound in [true, false] {
        let place = Place::new();
        let archive = place.archive(Compression::None);
        for number in 1..=4 {
            if bound {
                place
                    .put(&archive, &name(number), &segment(&name(number)))
                    .unwrap();
            } else {
                fs::write(place.stored(&name(number)), segment(&name(number))).unwrap();
            }
        }
        let before = archive.list().unwrap().len();
        let stranger = Some(THEIRS);
        let error = archive
            .clean_up(&keep, stranger, &Cancel::new())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
        assert_eq!(archive.list().unwrap().len(), before);
        let cleaned = archive.clean_up(&keep, Some(OURS), &Cancel::new()).unwrap();
        assert_eq!(cleaned.files, 2);
    }
}

#[test]
fn a_damaged_file_that_is_not_needed_does_not_stand_in_the_way_of_the_end() {
    let place = Place::new();
    let archive = place.archive(Compression::None);
    for number in 1..=5 {
        fs::write(place.stored(&name(number)), segment(&name(number))).unwrap();
    }
    let beyond = name(6).parse::<WalFileName>().unwrap();
    let beyond = beyond.segment().unwrap();
    fs::write(place.stored("00000007.history"), "").unwrap();
    for number in 1..=5 {
        fs::write(place.stored(&name(number)), "").unwrap();
        assert_eq!(against(&archive, beyond), None, "{number}");
        fs::write(place.stored(&name(number)), segment(&name(number))).unwrap();
    }
}

#[test]
fn the_history_file_of_timeline_1_is_absent_even_if_the_archive_cannot_be_asked() {
    let place = Place::new();
    let archive = place.archive(Compression::None);
    place.put(&archive, &name(1), &segment(&name(1))).unwrap();
    fs::remove_dir_all(place.dir.path()).unwrap();
    let dest = place.scratch.path().join("dest");
    let first: WalFileName = "00000001.history".parse().unwrap();
    let got = archive.get(&first, &dest, None, &Cancel::new()).unwrap();
    assert_eq!(got, Got::Absent);
    let second: WalFileName = "00000002.history".parse().unwrap();
    assert!(archive.get(&second, &dest, None, &Cancel::new()).is_err());
}

#[test]
fn a_cancelled_cleanup_stops_at_once() {
    let (memory, archive) = stuck_archive(10);
    let cancel = Cancel::new();
    cancel.cancel();
    let keep: KeepFrom = "000000010000000000000008".parse().unwrap();
    assert_eq!(
        archive.clean_up(&keep, None, &cancel).unwrap_err().kind(),
        ErrorKind::Cancelled
    );
    let left = Archive::with_store(Box::new(memory), Options::default())
        .list()
        .unwrap();
    assert_eq!(left.len(), 10);
}

#[test]
fn holes_are_told_on_later_timelines_with_and_without_their_history_file() {
    let place = Place::new();
    let archive = place.archive(Compression::Zstd(1));
    let hole = |name: &str| {
        let name: WalFileName = name.parse().unwrap();
        against(&archive, name.segment().unwrap())
    };
    for name in [
        "000000020000000000000005",
        "000000020000000000000008",
        "000000020000000000000009.partial",
    ] {
        place.put(&archive, name, &segment(name)).unwrap();
    }
    // Nothing says where timeline 2 begins: below its lowest segment is not a hole.
    assert_eq!(hole("000000020000000000000004"), None);
    assert_eq!(
        hole("000000020000000000000006"),
        later(&[
            "000000020000000000000008",
            "000000020000000000000009.partial"
        ])
    );
    // Other timelines' segments say nothing of this one.
    assert_eq!(hole("000000010000000000000006"), None);
    assert_eq!(hole("000000030000000000000001"), None);
    // It began in segment 3, so 3 and 4 are missing.
    let history = fixtures::timeline_history(TimelineId::FIRST, "0/380000", "test");
    place.put(&archive, "00000002.history", &history).unwrap();
    assert!(hole("000000020000000000000003").is_some());
    assert_eq!(hole("000000020000000000000002"), None);
    // And timeline 1 went on until there.
    let left = Evidence::Left {
        by: TimelineId::new(2).unwrap(),
        at: wal::Lsn(0x38_0000),
    };
    assert_eq!(hole("000000010000000000000002"), Some(left));
    assert_eq!(hole("000000010000000000000003"), None);
    // A partial segment is not the segment.
    assert_eq!(hole("000000020000000000000009"), None);
    place
        .put(
            &archive,
            "00000002000000000000000A",
            &segment("00000002000000000000000A"),
        )
        .unwrap();
    assert!(hole("000000020000000000000009").is_some());
}

#[test]
fn at_most_eight_names_of_a_long_line_are_given_the_first_ones() {
    let place = Place::new();
    let archive = place.archive(Compression::Zstd(1));
    for number in 3..23 {
        let name = format!("0000000100000000{number:08X}");
        place.put(&archive, &name, &segment(&name)).unwrap();
    }
    let name: WalFileName = TWO.parse().unwrap();
    let Some(Evidence::Later { keys, count }) = against(&archive, name.segment().unwrap()) else {
        panic!("no later segments");
    };
    assert_eq!((keys.len(), count), (8, 20));
    assert_eq!(keys.first().unwrap(), "000000010000000000000003");
}

#[test]
fn only_of_a_directory_it_is_asked_whether_its_file_system_is_mounted() {
    let dir = tempfile::tempdir().unwrap();
    let directory = DirStore::open(dir.path()).unwrap();
    let stores: [(Box<dyn Store>, bool); 2] = [
        (Box::new(directory), true),
        (Box::new(MemoryStore::new()), false),
    ];
    for (store, is_directory) in stores {
        let archive = Archive::with_store(store, Options::default());
        let error = archive.prove_present().unwrap_err();
        assert_eq!(error.hint().unwrap().contains("mounted"), is_directory);
    }
}

#[test]
fn what_the_dead_have_left_goes_from_our_folders_and_from_no_others() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = DirStore::open(dir.path()).unwrap();
    fs::create_dir_all(elsewhere.path().join("below")).unwrap();
    fs::create_dir(dir.path().join("base")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("tail")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("base/link")).unwrap();
    let all = [
        ("base", true),
        ("base/one", true),
        ("base/one/two", false),
        ("other", false),
        ("tail/below", false),
        ("base/link", false),
    ];
    let left = |folder: &str| {
        dir.path()
            .join(folder)
            .join("walden.staged.x.4711.0123456789abcdef")
    };
    for (folder, _) in all {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
        fs::write(left(folder), b"half").unwrap();
    }
    assert_eq!(store.remove_leftovers().unwrap(), 2);
    for (folder, goes) in all {
        assert_eq!(left(folder).exists(), !goes, "{folder}");
    }
}
