//! `walden list` and `walden check`, as people and programs read them.

use crate::common::{Place, SEGMENT_BYTES, SYSTEM, name, segment};
use std::fs;
use std::process::Stdio;

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_list_shows_each_file_each_timeline_and_the_total() {
    let place = Place::new();
    place.archive_raw(&[1, 2]);
    fs::write(place.path("archive/00000002.history"), "1\t0/300000\tx\n").unwrap();
    fs::write(place.path("archive/notes.txt"), "not WAL").unwrap();
    let archive = place.text("archive");
    let ran = place.walden(&["list", "-A", &archive]).exits(0);
    let total = SEGMENT_BYTES * 2 + 13;
    let ran = ran
        .prints(&format!(
            "timeline 1: 2 segments ({} to {}), ",
            name(1),
            name(2)
        ))
        .prints("timeline 2: 1 timeline history file, 13 bytes")
        .prints(&format!("total: 3 files, {total} bytes in \""));
    assert!(!ran.stdout.contains("notes"), "{ran:?}");
    let document = json(
        &place
            .walden(&["list", "--json", "-A", &archive])
            .exits(0)
            .stdout,
    );
    assert_eq!(document["total_files"], 3);
    assert_eq!(document["total_bytes"], total);
    assert_eq!(document["files"][0]["name"], name(1));
    assert_eq!(document["files"][0]["form"], "plain");
    assert_eq!(document["timelines"]["1"]["segments"], 2);
    fs::remove_file(place.path("archive").join(name(2))).unwrap();
    let ran = place.walden(&["list", "-A", &archive]).exits(0);
    ran.prints(&format!("timeline 1: 1 segment ({}), ", name(1)));
}

#[test]
fn an_empty_archive_says_so() {
    let place = Place::new();
    let archive = place.text("archive");
    place
        .walden(&["list", "-A", &archive])
        .exits(0)
        .prints("no WAL files in \"");
    let document = json(
        &place
            .walden(&["list", "--json", "-A", &archive])
            .exits(0)
            .stdout,
    );
    assert_eq!(document["files"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_reader_that_stops_reading_is_no_failure() {
    let place = Place::new();
    for number in 1..=40 {
        fs::write(place.path("archive").join(name(number)), "").unwrap();
    }
    let archive = place.text("archive");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = place.command(".");
    let child = command
        .args(["list", "-A", &archive])
        .stdout(writer)
        .stderr(Stdio::piped());
    let output = child.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stderr, b"");
}

const GOOD: &str = "walden.archive = 'ARCHIVE'\narchive_mode = on\narchive_library = 'walden'\n\
                    shared_preload_libraries = 'walden'\nwalden.restore_library = 'walden'\n";

#[test]
fn the_recommended_configuration_passes_the_check() {
    let place = Place::new();
    place.configure(GOOD);
    let data = place.text("data");
    fs::write(place.path("data/pg_wal").join(name(1)), segment(1, SYSTEM)).unwrap();
    place
        .walden(&["check", "--files-only", "-D", &data])
        .exits(0)
        .prints("belongs to no system yet");
    place.walden(&["archive", "-D", &data, &name(1)]).exits(0);
    let ran = place
        .walden(&["check", "--files-only", "-D", &data])
        .exits(0);
    ran.prints(&format!("both of system {SYSTEM}"))
        .prints(" 0 failed, 0 with a warning");
    let report = json(
        &place
            .walden(&["check", "--files-only", "--json", "-D", &data])
            .exits(0)
            .stdout,
    );
    assert_eq!(report["failed"], 0);
    assert!(
        report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|c| c["verdict"] == "passed")
    );
}

#[test]
fn each_failed_check_names_its_cure() {
    let place = Place::new();
    let data = place.text("data");
    place.configure(&format!(
        "{GOOD}restore_command = 'cp ARCHIVE/%f %p'\nwal_level = minimal\n"
    ));
    let ran = place
        .walden(&["check", "--files-only", "-D", &data])
        .exits(1);
    let ran = ran.prints("walden.restore_library and restore_command are both set");
    let ran = ran.prints("wal_level is \"minimal\"").prints(" 2 failed");
    assert_eq!(ran.stdout.matches("cure: ").count(), 2, "{ran:?}");

    place.configure("archive_mode = off");
    let ran = place
        .walden(&["check", "--files-only", "-D", &data])
        .exits(1);
    ran.prints("no archive is named")
        .prints("archive_mode is \"off\"");
}

#[test]
fn a_location_with_a_secret_in_it_fails_the_check_and_is_not_repeated() {
    let place = Place::new();
    let data = place.text("data");
    for location in [
        "s3://AKIA:hushhush7@bucket/wal",
        "s3//AKIA:hushhush7@bucket/wal",
        "file://u:hushhush7@host/srv/wal",
        "hushhush7",
    ] {
        place.configure(&GOOD.replace("ARCHIVE", location));
        for flags in [
            &["check", "--files-only", "-D", &data][..],
            &["check", "--files-only", "--json", "-D", &data],
        ] {
            let ran = place.walden(flags).exits(1);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert!(!said.contains("hushhush7"), "{said}");
        }
    }
}

#[test]
fn an_archive_of_another_cluster_fails_the_check() {
    let place = Place::new();
    place.configure(GOOD);
    fs::write(place.path(&name(1)), segment(1, SYSTEM + 1)).unwrap();
    let archive = place.text("archive");
    place
        .walden(&["archive", "-A", &archive, &format!("./{}", name(1))])
        .exits(0);
    let ran = place
        .walden(&["check", "--files-only", "-D", &place.text("data")])
        .exits(1);
    ran.prints(&SYSTEM.to_string())
        .prints(&(SYSTEM + 1).to_string())
        .prints("an archive of its own");
}
