//! For whom the files are that the command makes, and what root is told.

use crate::common::{Place, Ran, SYSTEM, name, run, segment};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

/// Runs `walden` with this umask.
fn with_umask(place: &Place, umask: &str, args: &[&str]) -> Ran {
    let script = format!("umask {umask} && exec \"$@\"");
    let walden = env!("CARGO_BIN_EXE_walden");
    run(Command::new("sh")
        .args(["-c", &script, "sh", walden])
        .args(args)
        .env_remove("WALDEN_ARCHIVE")
        .current_dir(place.path(".")))
}

fn mode(place: &Place, file: &str) -> u32 {
    let found = fs::metadata(place.path(file)).unwrap();
    found.permissions().mode() & 0o777
}

fn set_mode(place: &Place, file: &str, mode: u32) {
    fs::set_permissions(place.path(file), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn archived_files_are_for_their_group_only_where_the_clusters_own_are() {
    for (cluster, umask, expected) in [
        (0o600, "022", 0o600),
        (0o640, "022", 0o640),
        // What a stricter umask forbids stays forbidden.
        (0o640, "077", 0o600),
    ] {
        let place = Place::new();
        let source = format!("data/pg_wal/{}", name(1));
        fs::write(place.path(&source), segment(1, SYSTEM)).unwrap();
        set_mode(&place, &source, cluster);
        let archive = place.text("archive");
        with_umask(&place, umask, &["archive", "-A", &archive, &source]).exits(0);
        for entry in fs::read_dir(place.path("archive")).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            let found = mode(&place, &format!("archive/{file}"));
            assert_eq!(
                found, expected,
                "{file} of a cluster with {cluster:o} and umask {umask}"
            );
        }
    }
}

#[test]
fn restored_files_are_for_their_group_only_where_the_data_directory_is() {
    for (cluster, expected) in [(0o700, 0o600), (0o750, 0o640)] {
        let place = Place::new();
        place.archive_raw(&[1]);
        set_mode(&place, "data", cluster);
        let archive = place.text("archive");
        let dest = "data/pg_wal/RECOVERYXLOG";
        with_umask(&place, "022", &["restore", "-A", &archive, &name(1), dest]).exits(0);
        assert_eq!(mode(&place, dest), expected, "data directory {cluster:o}");
        with_umask(
            &place,
            "022",
            &["restore", "-A", &archive, &name(1), "other"],
        )
        .exits(0);
        assert_eq!(mode(&place, "other"), 0o600);
    }
}

#[test]
fn archived_files_get_the_group_of_the_archives_directory() {
    if !is_root() {
        // Nobody else may give a directory to a group that is not theirs.
        return;
    }
    let place = Place::new();
    std::os::unix::fs::chown(place.path("archive"), None, Some(12_345)).unwrap();
    let source = format!("data/pg_wal/{}", name(1));
    fs::write(place.path(&source), segment(1, SYSTEM)).unwrap();
    let archive = place.text("archive");
    place.walden(&["archive", "-A", &archive, &source]).exits(0);
    for entry in fs::read_dir(place.path("archive")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().gid(), 12_345, "{entry:?}");
    }
}

#[test]
fn root_is_told_that_the_server_cannot_read_what_root_archives() {
    let place = Place::new();
    let source = format!("data/pg_wal/{}", name(1));
    fs::write(place.path(&source), segment(1, SYSTEM)).unwrap();
    let archive = place.text("archive");
    let ran = place.walden(&["archive", "-A", &archive, &source]).exits(0);
    assert_eq!(ran.stderr, "", "the file is the user's own");
    if !is_root() {
        return;
    }
    std::os::unix::fs::chown(place.path(&source), Some(12_345), None).unwrap();
    let ran = place.walden(&["archive", "-A", &archive, &source]).exits(0);
    ran.says("run as root")
        .says("12345")
        .says("its archiver will stop");
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}
