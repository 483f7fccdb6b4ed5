//! `walden check` on what lies in an archive and in a server's WAL directory.

use crate::common::{Place, Ran, SYSTEM, name, segment};
use std::fs;

const GOOD: &str = "walden.archive = 'ARCHIVE'\narchive_mode = on\narchive_library = 'walden'\n\
                    shared_preload_libraries = 'walden'\nwalden.restore_library = 'walden'\n";

/// A cluster that is set up as recommended, with these segments in its archive.
fn cluster(archived: &[u32]) -> Place {
    let place = Place::new();
    place.configure(GOOD);
    fs::create_dir(place.path("data/pg_wal/archive_status")).unwrap();
    for number in archived {
        in_pg_wal(&place, *number);
        archive(&place, *number);
        fs::remove_file(place.path("data/pg_wal").join(name(*number))).unwrap();
    }
    place
}

fn in_pg_wal(place: &Place, number: u32) {
    let path = place.path("data/pg_wal").join(name(number));
    fs::write(path, segment(number, SYSTEM)).unwrap();
}

fn archive(place: &Place, number: u32) {
    let data = place.text("data");
    place
        .walden(&["archive", "-D", &data, &name(number)])
        .exits(0);
}

fn check(place: &Place) -> Ran {
    place.walden(&["check", "--files-only", "-D", &place.text("data")])
}

#[test]
fn a_hole_that_pg_wal_fills_is_found_and_the_cure_fills_it() {
    let place = cluster(&[4, 5, 8]);
    // One noted each way, one of before archiving began, one behind all that is archived.
    for number in [3, 5, 6, 7, 9] {
        in_pg_wal(&place, number);
    }
    for (number, status) in [(5, "done"), (7, "ready")] {
        let status = format!("data/pg_wal/archive_status/{}.{status}", name(number));
        fs::write(place.path(&status), "").unwrap();
    }
    let ran = check(&place).exits(1).prints(" 1 failed");
    let ran = ran.prints("lacks 1 segment ").prints(&name(6));
    let cure = ran
        .stdout
        .lines()
        .find(|line| line.contains("cure: "))
        .unwrap();
    let wanted = format!("walden archive -D {} {}", place.text("data"), name(6));
    assert!(cure.ends_with(&wanted), "{cure}");
    archive(&place, 6);
    check(&place).exits(0).prints("fills no hole");
}

#[test]
fn a_segment_noted_as_archived_and_missing_is_found_also_at_the_end_of_a_timeline_that_was_left() {
    let place = cluster(&[1, 2, 4]);
    for number in [3, 5] {
        in_pg_wal(&place, number);
        let status = format!("data/pg_wal/archive_status/{}.done", name(number));
        fs::write(place.path(&status), "").unwrap();
    }
    let ran = check(&place).exits(1);
    ran.prints("lacks 1 segment ").prints(&name(3));
    archive(&place, 3);
    check(&place).exits(0).prints("fills no hole");
    // Timeline 2 left in segment 6, and goes on there.
    fs::write(
        place.path("data/pg_wal/00000002.history"),
        "1\t0/600100\tno recovery target specified\n",
    )
    .unwrap();
    let behind = "000000020000000000000006";
    let size = wal::SegmentSize::SMALLEST;
    let system = wal::SystemIdentifier(SYSTEM);
    let bytes = archive::suite::fixtures::segment(&behind.parse().unwrap(), size, system, 6);
    fs::write(place.path("archive").join(behind), bytes).unwrap();
    let ran = check(&place).exits(1);
    ran.prints("lacks 1 segment ").prints(&name(5));
}

#[test]
fn a_recycled_file_fills_no_hole_and_another_archive_is_named_in_the_cure() {
    let place = cluster(&[1, 4]);
    let recycled = place.path("data/pg_wal").join(name(2));
    fs::write(recycled, segment(1, SYSTEM)).unwrap();
    check(&place).exits(0);
    in_pg_wal(&place, 2);
    in_pg_wal(&place, 3);
    place.configure(&GOOD.replace("ARCHIVE", "/nowhere"));
    let (data, archive) = (place.text("data"), place.text("archive"));
    let ran = place.walden(&["check", "--files-only", "-D", &data, "-A", &archive]);
    let ran = ran.exits(1).prints("lacks 2 segments ");
    ran.prints(&format!(
        "walden archive -A '{archive}' -D {data} {}",
        name(2)
    ));
}

#[test]
fn objects_in_the_place_of_files_that_recovery_asks_for_fail_the_check() {
    let place = cluster(&[1, 2, 3]);
    let beside = |key: &str| fs::write(place.path("archive").join(key), "x").unwrap();
    beside(&format!("{}.gz", name(4)));
    let ran = check(&place).exits(1).prints(" 1 failed");
    let ran = ran.prints("1 object is named like WAL files");
    ran.prints(&format!("give the contents the name \"{}\"", name(4)));
    for number in 5..=7 {
        beside(&format!("{}.ZST", name(number)));
    }
    beside("00000002.history.xz");
    let ran = check(&place).exits(1).prints("5 objects are ");
    ran.prints("and 2 more").prints("The others likewise");
}

#[test]
fn objects_beside_files_that_are_there_or_that_no_recovery_asks_for_are_a_warning() {
    let place = cluster(&[1, 2]);
    for key in [
        format!("{}.gz", name(2)),
        format!("{}.partial.gz", name(3)),
        format!("{}.00000028.backup.gz", name(1)),
        "notes.gz".to_owned(),
    ] {
        fs::write(place.path("archive").join(key), "x").unwrap();
    }
    let ran = check(&place).exits(0).prints(" 0 failed, 1 with a warning");
    ran.prints("3 objects are named like WAL files that nothing restores");
}

#[test]
fn what_a_person_copied_into_pg_wal_as_it_is_stored_is_found() {
    let place = cluster(&[1, 2]);
    in_pg_wal(&place, 3);
    check(&place).exits(0).prints("is compressed or encrypted");
    let stored = place.path("archive").join(name(1));
    let copied = place.path("data/pg_wal").join(name(1));
    fs::copy(stored, copied).unwrap();
    let ran = check(&place).exits(1).prints(" 1 failed");
    let ran = ran.prints(&format!("\"{}\" is zstd", name(1)));
    ran.prints("cure: Move such a file into the archive");
    let path = |file: &str| place.path("data/pg_wal").join(file);
    fs::write(path("00000002.history"), b"\x1F\x8B\x08").unwrap();
    // The server asks for none of these.
    fs::write(path("x.gz"), b"\x1F\x8B\x08").unwrap();
    fs::write(path(&format!("{}.gz", name(2))), b"\x1F\x8B\x08").unwrap();
    let ran = check(&place).exits(1).prints("2 files are ");
    ran.prints("00000002.history");
}

#[test]
fn an_archive_in_the_clusters_own_directories_is_found() {
    let place = cluster(&[1]);
    check(&place).exits(0).prints("do not lie in one another");
    let data = place.text("data");
    fs::create_dir(place.path("data/pg_wal/archive")).unwrap();
    fs::create_dir(place.path("data/archive")).unwrap();
    for (archive, status, found) in [
        ("data/pg_wal", 1, "is the WAL directory of"),
        ("data/pg_wal/archive", 1, "lies in the WAL directory of"),
        ("data/archive", 0, "lies in the data directory"),
        (".", 0, "is a directory around"),
    ] {
        place.configure(&GOOD.replace("ARCHIVE", &place.text(archive)));
        let ran = place
            .walden(&["check", "--files-only", "-D", &data])
            .exits(status);
        ran.prints(found).prints("a directory of its own");
    }
}

#[test]
fn basic_archive_at_work_in_a_compressed_archive_is_a_warning() {
    let place = cluster(&[1]);
    let binding = fs::File::open(place.path("archive/walden.json")).unwrap();
    let bound = binding.metadata().unwrap().modified().unwrap();
    let second = std::time::Duration::from_secs(1);
    let write = |number: u32, when| {
        let key = format!("archive/archtemp.{}.4711.1790000000000", name(number));
        let file = fs::File::create(place.path(&key)).unwrap();
        file.set_modified(when).unwrap();
    };
    // Left over from before the archive was Walden's, and a name that is not its own.
    write(1, bound - second);
    fs::write(place.path("archive/archtemp.notes.4711.1"), "x").unwrap();
    check(&place).exits(0).prints(" 0 with a warning");
    write(2, bound + second);
    let ran = check(&place).exits(0).prints(" 1 with a warning");
    ran.prints("1 file is of basic_archive").prints(&name(2));
    place.configure(&format!("{GOOD}walden.compression = none\n"));
    check(&place).exits(0).prints(" 0 with a warning");
}

#[test]
fn plain_segments_behind_compressed_ones_are_a_warning() {
    let place = cluster(&[1, 2]);
    let newest = fs::File::open(place.path(&format!("archive/{}", name(2)))).unwrap();
    let newest = newest.metadata().unwrap().modified().unwrap();
    let second = std::time::Duration::from_secs(1);
    let copy = |number: u32, when| {
        let key = format!("archive/{}", name(number));
        fs::write(place.path(&key), segment(number, SYSTEM)).unwrap();
        let file = fs::File::options().append(true).open(place.path(&key));
        file.unwrap().set_modified(when).unwrap();
    };
    // From when nothing was compressed yet.
    copy(0, newest - second);
    check(&place).exits(0).prints(" 0 with a warning");
    copy(3, newest + second);
    copy(4, newest + second);
    let ran = check(&place).exits(0).prints(" 1 with a warning");
    let found = format!(
        "2 segments are neither compressed nor encrypted, from after \"{}\", which is: \"{}\", \"{}\"",
        name(2),
        name(3),
        name(4)
    );
    ran.prints(&found).prints("If something else than Walden");
    place.configure(&format!("{GOOD}walden.compression = none\n"));
    check(&place).exits(0).prints(" 0 with a warning");
}

#[test]
fn a_refused_archive_is_not_among_the_values_that_can_be_used() {
    let place = cluster(&[]);
    place.configure("walden.archive = 'nowhere'\nwalden.archive_jobs = 4");
    check(&place)
        .exits(1)
        .prints("every other value of a walden parameter can be used");
    place.configure("walden.archive = 'ARCHIVE'\nwalden.archive_jobs = 4");
    check(&place).prints("every value of a walden parameter can be used");
}
