//! The exit-status table, through the built binary: usage errors and panics of every command.

use crate::common::{Place, name};
use std::fs;

#[test]
fn a_usage_error_that_may_have_been_a_restore_is_never_the_end_of_wal() {
    let place = Place::new();
    let lines: [&[&str]; 12] = [
        &[],
        &["restore"],
        &["restore", "000000010000000000000001"],
        &["restore", "a", "b", "c", "d"],
        &["restore", "nonsense", "dest"],
        &["restore", "--frobnicate", "a", "b"],
        &["restore", "--timeout", "soon", "a", "b"],
        &[
            "restore",
            "-A",
            "ftp://host/x",
            "000000010000000000000001",
            "dest",
        ],
        &["retsore", "a", "b"],
        &["-Q"],
        &["-Q", "archive", "x"],
        &["-A"],
    ];
    for line in lines {
        let ran = place.walden(line).exits(201);
        assert!(
            ran.stderr.starts_with("walden: error: "),
            "{line:?} {ran:?}"
        );
        assert_eq!(ran.stdout, "", "{line:?}");
    }
}

#[test]
fn a_usage_error_of_another_command_is_2() {
    let place = Place::new();
    let lines: [&[&str]; 8] = [
        &["archive"],
        &["archive", "a", "b"],
        &["archive-cleanup"],
        &["archive-cleanup", "nonsense"],
        &["recovery-end", "a", "b"],
        &["list", "x"],
        &["-A", "/x", "check", "--frobnicate"],
        &["--compression=gzip", "list"],
    ];
    for line in lines {
        let ran = place.walden(line).exits(2);
        assert!(
            ran.stderr.starts_with("walden: error: "),
            "{line:?} {ran:?}"
        );
    }
}

#[test]
fn help_and_version_are_printed_and_succeed() {
    let place = Place::new();
    place
        .walden(&["--help"])
        .exits(0)
        .prints("Exit status of restore");
    place
        .walden(&["restore", "--help"])
        .exits(0)
        .prints("--missing-segment");
    place.walden(&["--version"]).exits(0).prints("walden ");
}

#[test]
fn every_command_fails_with_its_own_status_when_the_archive_is_not_there() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    fs::write(
        place.path(&name(1)),
        crate::common::segment(1, crate::common::SYSTEM),
    )
    .unwrap();
    for archive in [place.text("nowhere"), place.text("file")] {
        let archive = archive.as_str();
        let (name, dest) = (name(1), place.text("dest"));
        let restore = ["restore", "-A", archive, "--timeout", "0", &name, &dest];
        place
            .walden(&restore)
            .exits(200)
            .says(&format!("could not restore \"{name}\": "));
        place
            .walden(&["archive", "-A", archive, &format!("./{name}")])
            .exits(1)
            .says(archive);
        place
            .walden(&["archive-cleanup", "-A", archive, &name])
            .exits(1)
            .says(archive);
        place
            .walden(&["recovery-end", "-A", archive])
            .exits(1)
            .says(archive);
        place
            .walden(&["list", "-A", archive])
            .exits(1)
            .says(archive);
        place
            .walden(&["check", "-A", archive])
            .exits(1)
            .prints("FAILED");
    }
}

#[test]
fn without_any_archive_named_the_error_names_all_four_places() {
    let place = Place::new();
    let ran = place.walden(&["restore", &name(1), "dest"]).exits(200);
    let ran = ran
        .says("--archive")
        .says("--pgdata")
        .says("WALDEN_ARCHIVE")
        .says("data directory");
    ran.says("walden: hint: ");
    place.walden(&["list"]).exits(1).says("no archive is named");
}
