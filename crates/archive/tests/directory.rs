//! The directory archive as its users meet it: messages, raw directories, mounts that come and go, the
//! checks of `walden.json`. What holds for any store is in the conformance suite; failing steps and
//! crashes are in `src/store/dir/durable/tests.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests may panic"
)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::{ONE, OURS, Place, THEIRS, TWO, segment, segment_of};
use wal::{SegmentSize, TimelineId};
use walden_archive::suite::fixtures;
use walden_archive::{
    Archive, Cancel, Compression, Error, ErrorKind, Form, Location, Options, Put, SoughtSegment,
    Verify, spawn_plainly,
};

#[test]
fn a_segment_is_stored_under_its_own_name_in_any_form() {
    for (compression, form) in [
        (Compression::None, Form::Plain),
        (Compression::Zstd(3), Form::Zstd),
        (Compression::Lz4, Form::Lz4),
    ] {
        let place = Place::new();
        let archive = place.archive(compression);
        let put = place.put(&archive, ONE, &segment(ONE)).unwrap();
        let bytes_out = fs::metadata(place.stored(ONE)).unwrap().len();
        assert_eq!(
            put,
            Put::Stored {
                bytes_in: 1 << 20,
                bytes_out
            }
        );
        assert_eq!(archive.form_of(ONE).unwrap(), Some(form));
        let history = fixtures::timeline_history(TimelineId::FIRST, "0/100000", "test");
        place.put(&archive, "00000002.history", &history).unwrap();
        assert_eq!(fs::read(place.stored("00000002.history")).unwrap(), history);
        let mut names: Vec<_> = fs::read_dir(place.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [ONE, "00000002.history", "walden.json"]);
    }
}

#[test]
fn a_file_with_something_behind_its_name_is_none_of_the_archives() {
    let place = Place::new();
    let archive = place.archive(Compression::Zstd(1));
    let beside = place.stored(&format!("{ONE}.zst"));
    fs::write(&beside, b"old").unwrap();
    place.put(&archive, ONE, &segment(ONE)).unwrap();
    assert_eq!(place.get(&archive, ONE).unwrap(), Some(segment(ONE)));
    assert_eq!(fs::read(&beside).unwrap(), b"old");
    let listed = archive.list().unwrap();
    let keys: Vec<_> = listed.iter().map(|stored| stored.key.as_str()).collect();
    assert_eq!(keys, [ONE]);
}

#[test]
fn the_source_itself_is_never_taken_for_an_archived_copy() {
    let place = Place::new();
    let archive = place.archive(Compression::None);
    // As where the server's WAL directory is given as the archive.
    let path = place.stored(ONE);
    fs::write(&path, segment(ONE)).unwrap();
    let put = archive.put_new(&ONE.parse().unwrap(), &path, None, &Cancel::new());
    let error = put.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    assert!(error.to_string().contains("itself"), "{error}");
    assert!(error.hint().is_some());
    assert!(!place.stored("walden.json").exists());
    // Another link to it is the same file.
    let linked = place.scratch.path().join("linked");
    fs::hard_link(&path, &linked).unwrap();
    let put = archive.put_new(&ONE.parse().unwrap(), &linked, None, &Cancel::new());
    assert_eq!(put.unwrap_err().kind(), ErrorKind::Unusable);
}

#[test]
fn segments_of_another_size_are_refused_with_both_sizes() {
    let place = Place::new();
    let two = segment_of(TWO, OURS, SegmentSize::new(2 << 20).unwrap(), 1);
    let refused = |place: &Place| {
        let error = place.put(&place.archive(Compression::None), TWO, &two);
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Foreign);
        let said = "holds segments of 1MB, and this server's are of 2MB";
        assert!(error.to_string().ends_with(said), "{error}");
    };
    let archive = place.archive(Compression::Zstd(1));
    place.put(&archive, ONE, &segment(ONE)).unwrap();
    refused(&place);
    // One that was bound before the size was written down takes it from its segments.
    let binding = place.stored("walden.json");
    let old = format!("{{\"format\":1,\"system_identifier\":\"{OURS}\",\"created\":\"2026\"}}\n");
    fs::write(&binding, &old).unwrap();
    refused(&place);
    place
        .put(&place.archive(Compression::None), TWO, &segment(TWO))
        .unwrap();
    assert_eq!(fs::read_to_string(&binding).unwrap(), old);
    // So does one that nobody has bound.
    fs::remove_file(&binding).unwrap();
    refused(&place);
    // A timeline history file says nothing of it.
    let place = Place::new();
    let archive = place.archive(Compression::None);
    let history = fixtures::timeline_history(TimelineId::FIRST, "0/100000", "test");
    place.put(&archive, "00000002.history", &history).unwrap();
    assert_eq!(archive.binding().unwrap().unwrap().segment_size, None);
    place.put(&archive, ONE, &segment(ONE)).unwrap();
    refused(&place);
}

#[test]
fn a_cut_segment_is_refused_even_where_nothing_is_verified() {
    let place = Place::new();
    let whole = segment(ONE);
    place
        .put(&place.archive(Compression::None), ONE, &whole)
        .unwrap();
    let options = Options {
        verify: Verify::Off,
        ..Options::default()
    };
    let location = Location::directory(place.dir.path()).unwrap();
    let archive = Archive::open(&location, options, spawn_plainly).unwrap();
    for cut in [&whole[..8192], &whole[..10], b"rubbish"] {
        fs::write(place.stored(TWO), cut).unwrap();
        let error = place.get(&archive, TWO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    }
    fs::write(place.stored(TWO), vec![7; 1 << 20]).unwrap();
    assert!(place.get(&archive, TWO).unwrap().is_some());
}

#[test]
fn the_binding_reads_as_documented() {
    let place = Place::new();
    let archive = place.archive(Compression::Zstd(1));
    assert_eq!(archive.binding().unwrap(), None);
    place.put(&archive, ONE, &segment(ONE)).unwrap();
    let text = fs::read_to_string(place.stored("walden.json")).unwrap();
    assert!(
        text.starts_with(
            "{\"format\":1,\"system_identifier\":\"7000000000000000001\",\"segment_size\":1048576,\"created\":\"20"
        ),
        "{text}"
    );
    assert!(text.ends_with("Z\"}\n"), "{text}");
    let binding = archive.binding().unwrap().unwrap();
    assert_eq!((binding.format, binding.system), (1, OURS));
    assert_eq!(binding.segment_size, Some(SegmentSize::SMALLEST));
}

#[test]
fn a_conflict_says_whose_each_side_is_when_it_was_written_and_where_they_differ() {
    let place = Place::new();
    let archive = place.archive(Compression::Zstd(1));
    place.put(&archive, ONE, &segment(ONE)).unwrap();
    let mut other = segment(ONE);
    other[12345] ^= 1;
    let error = place.put(&archive, ONE, &other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let text = error.to_string();
    let key = place.stored(ONE);
    let begin = format!(
        "archive file \"{}\" already exists with different contents",
        key.display()
    );
    assert!(text.starts_with(&begin), "{text}");
    let side = "is system identifier 7000000000000000001, timeline 1, written 20";
    assert_eq!(text.matches(side).count(), 2, "{text}");
    assert!(text.ends_with("first difference at byte 12345"), "{text}");
    assert!(!text.contains('\n') && error.hint().is_some());
}

#[test]
fn a_stranger_is_told_both_identifiers() {
    let place = Place::new();
    let archive = place.archive(Compression::Zstd(1));
    place.put(&archive, ONE, &segment(ONE)).unwrap();
    let theirs = place.source(&segment_of(TWO, THEIRS, SegmentSize::SMALLEST, 1));
    let put = archive.put_new(&TWO.parse().unwrap(), &theirs, Some(THEIRS), &Cancel::new());
    let error = put.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "archive \"{}\" belongs to system identifier {OURS}, not to {THEIRS}",
            place.dir.path().display()
        )
    );
    assert!(error.hint().is_some());
    // A file that is not of the server that offers it.
    let put = archive.put_new(&TWO.parse().unwrap(), &theirs, Some(OURS), &Cancel::new());
    assert_eq!(put.unwrap_err().kind(), ErrorKind::Foreign);
}

#[test]
fn a_raw_directory_made_by_cp_or_basic_archive_restores_as_it_stands() {
    let place = Place::new();
    fs::write(place.stored(ONE), segment(ONE)).unwrap();
    fs::write(
        place.stored("archtemp.000000010000000000000002.1.2"),
        b"half",
    )
    .unwrap();
    fs::write(place.stored("00000002.history"), "1\t0/200000\tx\n").unwrap();
    fs::create_dir(place.stored("lost+found")).unwrap();
    let archive = place.archive(Compression::Zstd(1));
    assert_eq!(place.get(&archive, ONE).unwrap(), Some(segment(ONE)));
    assert_eq!(
        place.get(&archive, "00000002.history").unwrap().unwrap(),
        b"1\t0/200000\tx\n"
    );
    assert_eq!(place.get(&archive, TWO).unwrap(), None);
    assert_eq!(archive.list().unwrap().len(), 2);
    assert_eq!(archive.binding().unwrap(), None, "restoring binds nothing");
    // Archiving goes on where cp stopped.
    assert_eq!(
        place.put(&archive, ONE, &segment(ONE)).unwrap(),
        Put::AlreadyStored
    );
    assert!(matches!(
        place.put(&archive, TWO, &segment(TWO)).unwrap(),
        Put::Stored { .. }
    ));
}

#[test]
fn an_interrupted_cp_is_damaged_to_recovery_and_never_handed_out() {
    let place = Place::new();
    fs::write(place.stored(ONE), &segment(ONE)[..500_000]).unwrap();
    fs::write(place.stored("00000002.history"), b"").unwrap();
    let archive = place.archive(Compression::Zstd(1));
    for name in [ONE, "00000002.history"] {
        assert_eq!(
            place.get(&archive, name).unwrap_err().kind(),
            ErrorKind::Damaged,
            "{name}"
        );
    }
}

#[test]
fn a_segment_cut_between_two_zstd_frames_is_damaged() {
    let (place, size) = (Place::new(), SegmentSize::new(8 << 20).unwrap());
    let archive = place.archive(Compression::Zstd(1));
    place
        .put(&archive, ONE, &segment_of(ONE, OURS, size, 1))
        .unwrap();
    let stored = fs::read(place.stored(ONE)).unwrap();
    let first = zstd::zstd_safe::find_frame_compressed_size(&stored).unwrap();
    assert!(first < stored.len(), "the segment is one frame");
    for cut in [first, stored.len() - 1] {
        fs::write(place.stored(ONE), &stored[..cut]).unwrap();
        let error = place.get(&archive, ONE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "cut at {cut}: {error}");
    }
}

#[test]
fn a_segment_of_another_name_or_system_is_never_handed_out() {
    let place = Place::new();
    fs::write(place.stored(ONE), segment(TWO)).unwrap();
    fs::write(
        place.stored(TWO),
        segment_of(TWO, THEIRS, SegmentSize::SMALLEST, 1),
    )
    .unwrap();
    let archive = place.archive(Compression::Zstd(1));
    assert_eq!(
        place.get(&archive, ONE).unwrap_err().kind(),
        ErrorKind::Damaged
    );
    let dest = place.scratch.path().join("dest");
    let got = archive.get(&TWO.parse().unwrap(), &dest, Some(OURS), &Cancel::new());
    assert_eq!(got.unwrap_err().kind(), ErrorKind::Foreign);
    assert!(!dest.exists());
}

#[test]
fn every_segment_size_is_read_from_the_header() {
    for mebibytes in [1, 16, 64] {
        let place = Place::new();
        let size = SegmentSize::new(mebibytes << 20).unwrap();
        let contents = segment_of("000000030000000500000002", OURS, size, 1);
        let archive = place.archive(Compression::Zstd(1));
        place
            .put(&archive, "000000030000000500000002", &contents)
            .unwrap();
        assert_eq!(
            place
                .get(&archive, "000000030000000500000002")
                .unwrap()
                .unwrap(),
            contents
        );
    }
}

fn unavailable(result: Result<Option<Vec<u8>>, Error>) -> Error {
    let error = result.expect_err("this must never be an answer");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    error
}

/// Moves the archive away, as unmounting its file system would, and leaves `instead` in its place.
fn take_away(place: &Place, instead: impl Fn(&Path)) -> PathBuf {
    let away = place.scratch.path().join("away");
    fs::rename(place.dir.path(), &away).unwrap();
    instead(place.dir.path());
    away
}

#[test]
fn an_archive_that_goes_away_is_unavailable_until_it_comes_back() {
    let place = Place::new();
    let archive = place.archive(Compression::Zstd(1));
    place.put(&archive, ONE, &segment(ONE)).unwrap();

    // Not there at all.
    let away = take_away(&place, |_| {});
    let error = unavailable(place.get(&archive, TWO));
    assert!(
        error.to_string().ends_with("No such file or directory"),
        "{error}"
    );
    let sought = SoughtSegment {
        segment: TWO.parse().unwrap(),
        size: None,
        is_fork: false,
        at_hand: &[],
    };
    assert!(archive.segment_evidence(&sought).is_err());
    assert!(archive.list().is_err());
    let location = Location::directory(place.dir.path()).unwrap();
    let reopened = Archive::open(&location, Options::default(), spawn_plainly);
    assert_eq!(reopened.unwrap_err().kind(), ErrorKind::Unavailable);

    // An empty mount point, and one that somebody put a note into.
    fs::create_dir(place.dir.path()).unwrap();
    unavailable(place.get(&archive, TWO));
    unavailable(place.get(&place.archive(Compression::Zstd(1)), TWO));
    fs::write(place.stored("NOT-MOUNTED"), b"").unwrap();
    unavailable(place.get(&archive, TWO));
    unavailable(place.get(&place.archive(Compression::Zstd(1)), TWO));
    let error = place.put(&archive, TWO, &segment(TWO)).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unavailable,
        "archived below a mount point: {error}"
    );

    fs::remove_dir_all(place.dir.path()).unwrap();
    fs::rename(away, place.dir.path()).unwrap();
    assert_eq!(place.get(&archive, TWO).unwrap(), None);
    assert_eq!(place.get(&archive, ONE).unwrap(), Some(segment(ONE)));
}

#[test]
fn a_link_to_nowhere_is_not_absent() {
    let place = Place::new();
    let archive = place.archive(Compression::Zstd(1));
    place.put(&archive, ONE, &segment(ONE)).unwrap();
    symlink("/nonexistent/tier", place.stored(TWO)).unwrap();
    unavailable(place.get(&archive, TWO));
}

#[test]
fn a_frame_with_a_window_of_2_gb_requires_more_memory_and_is_not_damaged() {
    let place = Place::new();
    let archive = place.archive(Compression::Zstd(1));
    place.put(&archive, ONE, &segment(ONE)).unwrap();
    // The byte behind the magic number and the descriptor: an exponent of 21 on top of 10.
    let frame = [0x28, 0xB5, 0x2F, 0xFD, 0, 21 << 3, 1, 0, 0];
    for name in [TWO, "00000002.history"] {
        fs::write(place.stored(name), frame).unwrap();
        let error = place.get(&archive, name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable);
        assert!(
            error.to_string().contains("requires more memory"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("window"));
    }
}

#[test]
fn an_archive_that_is_a_file_or_relative_is_unusable() {
    let place = Place::new();
    let file = place.source(b"x");
    let opened = Archive::open(
        &Location::directory(&file).unwrap(),
        Options::default(),
        spawn_plainly,
    );
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    assert_eq!(
        error.to_string(),
        format!("\"{}\" is not a directory", file.display())
    );
    assert!(Location::directory("relative").is_err());
}

#[test]
fn a_damaged_or_newer_binding_is_neither_believed_nor_overwritten() {
    for (text, kind) in [
        ("", ErrorKind::Damaged),
        ("{\"format\":1", ErrorKind::Damaged),
        (
            "{\"format\":1,\"system_identifier\":\"x\",\"created\":\"\"}",
            ErrorKind::Damaged,
        ),
        (
            "{\"format\":2,\"system_identifier\":\"1\",\"created\":\"\"}",
            ErrorKind::Unusable,
        ),
    ] {
        let place = Place::new();
        let archive = place.archive(Compression::Zstd(1));
        fs::write(place.stored("walden.json"), text).unwrap();
        assert_eq!(
            place.put(&archive, ONE, &segment(ONE)).unwrap_err().kind(),
            kind,
            "{text}"
        );
        assert_eq!(place.get(&archive, ONE).unwrap_err().kind(), kind, "{text}");
        assert_eq!(
            fs::read_to_string(place.stored("walden.json")).unwrap(),
            text
        );
    }
    // Fields of later versions are skipped.
    let place = Place::new();
    let text =
        format!("{{\"format\":1,\"system_identifier\":\"{OURS}\",\"created\":\"\",\"more\":[1]}}");
    fs::write(place.stored("walden.json"), text).unwrap();
    let archive = place.archive(Compression::Zstd(1));
    assert!(place.put(&archive, ONE, &segment(ONE)).is_ok());
}

#[test]
fn without_checks_anything_is_archived_and_restored_for_a_known_system() {
    let place = Place::new();
    let options = Options {
        compression: Compression::Zstd(1),
        verify: Verify::Off,
        ..Options::default()
    };
    let location = Location::directory(place.dir.path()).unwrap();
    let archive = Archive::open(&location, options, spawn_plainly).unwrap();
    // But for its size.
    let error = place.put(&archive, ONE, b"no segment at all").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    let contents = vec![7; 1 << 20];
    place.put(&archive, ONE, &contents).unwrap();
    assert_eq!(place.get(&archive, ONE).unwrap().unwrap(), contents);
    let checked = place.archive(Compression::Zstd(1));
    assert_eq!(
        place.get(&checked, ONE).unwrap_err().kind(),
        ErrorKind::Damaged
    );
}

#[test]
fn wal_that_follows_nothing_is_a_warning_only_where_something_older_is_stored() {
    let place = Place::new();
    for (first, warnings) in [(1, 0), (4, 1)] {
        let mut wal = ::fixtures::Written::behind(first, 0);
        wal.system = OURS.0;
        wal.fill((1 << 20) + 500);
        let (name, bytes) = wal.segments(1).remove(0);
        // An archiver of its own.
        let archive = place.archive(Compression::None);
        let put = place.put(&archive, &name.to_string(), &bytes).unwrap();
        assert!(matches!(put, Put::Stored { .. }), "{put:?}");
        let told = archive.take_warnings();
        assert_eq!(told.len(), warnings, "{told:?}");
    }
}
