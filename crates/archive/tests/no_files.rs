//! A WAL file's name in a directory that something else has: a link to nowhere, a directory, a device.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests may panic"
)]

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;

use common::{ONE, Place, TWO, segment};
use wal::{SegmentSize, TimelineId};
use walden_archive::{Compression, ErrorKind, Evidence, SoughtSegment};

#[test]
fn what_is_no_file_is_not_absent_either() {
    let place = Place::new();
    let archive = place.archive(Compression::Zstd(1));
    place.put(&archive, ONE, &segment(ONE)).unwrap();
    for name in [TWO, "00000002.history"] {
        fs::create_dir(place.stored(name)).unwrap();
        let error = place.get(&archive, name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable);
        assert!(error.is_no_file() && error.to_string().contains(name));
        fs::remove_dir(place.stored(name)).unwrap();
        // Nor a link to a device, or in a circle.
        for target in ["/dev/zero", name] {
            symlink(target, place.stored(name)).unwrap();
            assert!(place.get(&archive, name).unwrap_err().is_no_file());
            fs::remove_file(place.stored(name)).unwrap();
        }
    }
}

#[test]
fn a_wal_files_name_is_evidence_whatever_has_it() {
    let place = Place::new();
    let archive = place.archive(Compression::Zstd(1));
    place.put(&archive, ONE, &segment(ONE)).unwrap();
    let sought = |name: &str| SoughtSegment {
        segment: name.parse().unwrap(),
        size: Some(SegmentSize::SMALLEST),
        is_fork: false,
        at_hand: &[],
    };
    let against = || archive.segment_evidence(&sought(TWO)).unwrap().against;
    assert_eq!(against(), None);
    let three = "000000010000000000000003";
    symlink("/nonexistent/tier", place.stored(three)).unwrap();
    assert!(matches!(against(), Some(Evidence::Later { keys, .. }) if keys == [three]));
    assert!(!archive.ends_before(&TWO.parse().unwrap()).unwrap());
    fs::remove_file(place.stored(three)).unwrap();
    let packed = format!("{TWO}.gz");
    fs::create_dir(place.stored(&packed)).unwrap();
    assert_eq!(against(), Some(Evidence::Packed(packed.clone())));
    fs::remove_dir(place.stored(&packed)).unwrap();

    let second = TimelineId::new(2).unwrap();
    let history = |for_latest| archive.history_evidence(second, for_latest).unwrap();
    assert_eq!(history(true), None);
    // A later history that cannot be read may name it: nobody can tell.
    symlink("/nonexistent/tier", place.stored("00000003.history")).unwrap();
    assert!(
        archive
            .history_evidence(second, true)
            .unwrap_err()
            .is_no_file()
    );
    assert!(
        archive
            .segment_evidence(&sought(TWO))
            .unwrap_err()
            .is_no_file()
    );
}

#[test]
fn what_is_no_file_and_has_no_wal_files_name_is_not_listed() {
    let place = Place::new();
    let archive = place.archive(Compression::Zstd(1));
    fs::create_dir(place.stored("base")).unwrap();
    symlink("/nonexistent/tier", place.stored("README")).unwrap();
    symlink("loop", place.stored("loop")).unwrap();
    let mut found = Vec::new();
    let listed = archive.each(&mut |it| {
        found.push(it);
        ControlFlow::Continue(())
    });
    listed.unwrap();
    assert_eq!(found, []);
}
