//! `walden restore` and `walden archive` done in-process: the three answers, and where settings come from.

use crate::common::{Place, SYSTEM, ZEROS, name, run, same, segment};
use std::fs;

#[test]
fn a_segment_of_a_directory_made_by_cp_is_restored() {
    let place = Place::new();
    place.archive_raw(&[1]);
    let archive = place.text("archive");
    place
        .walden(&["restore", "-A", &archive, &name(1), "dest"])
        .exits(0);
    assert!(same(
        &place.path("dest"),
        &place.path("archive").join(name(1))
    ));
}

#[test]
fn what_was_archived_comes_back_however_it_is_compressed() {
    for compression in ["none", "zstd:1", "lz4"] {
        let place = Place::new();
        place.configure("walden.archive = 'ARCHIVE'");
        let path = place.path("data/pg_wal").join(name(3));
        fs::write(&path, segment(3, SYSTEM)).unwrap();
        let flag = format!("--compression={compression}");
        // As archive_command runs it: in the data directory, with a relative path.
        let ran = place.walden_in("data", &["archive", &flag, &format!("pg_wal/{}", name(3))]);
        assert_eq!(ran.exits(0).stderr, "");
        let again = ["archive", "-v", "-D", &place.text("data"), &name(3)];
        place.walden(&again).exits(0).says("already");
        let ran = place.walden_in("data", &["restore", &name(3), "pg_wal/RECOVERYXLOG", ZEROS]);
        assert_eq!(ran.exits(0).stderr, "");
        assert!(same(&place.path("data/pg_wal/RECOVERYXLOG"), &path));
    }
}

#[test]
fn a_bare_name_means_the_pg_wal_of_the_data_directory() {
    let place = Place::new();
    place.configure("walden.archive = 'ARCHIVE'");
    fs::write(place.path("data/pg_wal").join(name(3)), segment(3, SYSTEM)).unwrap();
    place
        .walden_in("data", &["archive", "-v", &name(3)])
        .exits(0)
        .says("archived");
    let ran = place
        .walden(&["archive", "-A", &place.text("archive"), &name(3)])
        .exits(1);
    ran.says(&format!("could not archive \"{}\"", name(3)));
}

#[test]
fn absent_is_1_beyond_the_end_and_for_a_timeline_history_file() {
    let place = Place::new();
    place.archive_raw(&[1, 2]);
    let archive = place.text("archive");
    for wanted in [name(3).as_str(), "00000002.history"] {
        let ran = place
            .walden(&["restore", "-A", &archive, wanted, "dest"])
            .exits(1);
        assert_eq!(ran.stderr, "", "absence is ordinary");
        assert!(!place.path("dest").exists());
    }
}

/// How recovery asks for the second segment, with these flags.
fn recovery_asks(place: &Place, flags: &[&str]) -> crate::common::Ran {
    let second = name(2);
    let archive = place.text("archive");
    let own = [second.as_str(), "pg_wal/RECOVERYXLOG", ZEROS];
    let line = [&["restore", "-A", &archive], flags, &own].concat();
    place.walden_in("data", &line)
}

#[test]
fn a_hole_is_could_not_tell_and_names_what_is_missing_and_what_follows() {
    let place = Place::new();
    place.archive_raw(&[1, 3, 4]);
    recovery_asks(&place, &[])
        .exits(200)
        .says(&name(2))
        .says(&name(3))
        .says(&name(4))
        .says("hint: ");
    // A person, or pg_rewind, draws no conclusions.
    let archive = place.text("archive");
    place
        .walden(&["restore", "-A", &archive, &name(2), "dest"])
        .exits(1);
}

#[test]
fn a_hole_is_the_end_of_wal_when_somebody_says_so() {
    let place = Place::new();
    place.archive_raw(&[1, 3]);
    recovery_asks(&place, &["--missing-segment", "end"])
        .exits(1)
        .says("warning: ")
        .says(&name(3));
    place.configure("walden.archive = 'ARCHIVE'\nwalden.missing_segment = end");
    recovery_asks(&place, &["-D", "."])
        .exits(1)
        .says("warning: ");
    recovery_asks(&place, &["-D", ".", "--missing-segment", "error"]).exits(200);
}

#[test]
fn a_hole_that_the_server_can_fill_from_its_own_pg_wal_is_only_an_absence() {
    let place = Place::new();
    place.archive_raw(&[1, 3]);
    let own = place.path("data/pg_wal").join(name(2));
    // Not by anything that bears the name.
    for other in [Vec::new(), segment(1, SYSTEM)] {
        fs::write(&own, other).unwrap();
        recovery_asks(&place, &[]).exits(200);
    }
    fs::write(&own, segment(2, SYSTEM)).unwrap();
    recovery_asks(&place, &[]).exits(1);
}

#[test]
fn on_a_standby_could_not_tell_is_1_with_a_line_and_without_retries() {
    let place = Place::new();
    fs::write(place.path("data/standby.signal"), "").unwrap();
    let line = [
        "restore",
        "-A",
        &place.text("nowhere"),
        &name(1),
        "pg_wal/RECOVERYXLOG",
        ZEROS,
    ];
    let begun = std::time::Instant::now();
    place
        .walden_in("data", &line)
        .exits(1)
        .says(&format!("could not restore \"{}\": ", name(1)));
    assert!(begun.elapsed().as_secs() < 30, "it retried");
    // Only the server's own two paths are a standby's: pg_rewind may run beside the same file.
    let line = [
        "restore",
        "-A",
        &place.text("nowhere"),
        "--timeout=0",
        &name(1),
        "pg_wal/x",
    ];
    place.walden_in("data", &line).exits(200);
}

#[test]
fn an_archive_that_comes_back_in_time_is_tried_again() {
    let place = Place::new();
    place.archive_raw(&[1]);
    fs::rename(place.path("archive"), place.path("away")).unwrap();
    let child = place
        .command(".")
        .args([
            "restore",
            "-A",
            &place.text("archive"),
            "--timeout=30",
            &name(1),
            "dest",
        ])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Long enough for a first failure; the test passes without it too.
    std::thread::sleep(std::time::Duration::from_millis(150));
    fs::rename(place.path("away"), place.path("archive")).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    assert!(place.path("dest").exists());
}

#[test]
fn the_archive_is_chosen_by_flag_then_pgdata_then_environment_then_dest() {
    let place = Place::new();
    place.archive_raw(&[1, 2]);
    fs::create_dir(place.path("short")).unwrap();
    fs::write(place.path("short").join(name(1)), segment(1, SYSTEM)).unwrap();
    let (full, short, data) = (
        place.text("archive"),
        place.text("short"),
        place.text("data"),
    );
    let restore = |args: &[&str], variable: Option<&str>, dest: &str, status: i32| {
        let _ = fs::remove_file(place.path(dest));
        let mut command = place.command(".");
        command
            .args(["restore"])
            .args(args)
            .args([&name(2), &place.text(dest)]);
        if let Some(variable) = variable {
            command.env("WALDEN_ARCHIVE", variable);
        }
        run(&mut command).exits(status)
    };
    place.configure("walden.archive = 'ARCHIVE'");
    restore(&["-A", &short, "-D", &data], Some(&full), "dest", 1);
    restore(&["-D", &data], Some(&short), "dest", 0);
    restore(&[], Some(&full), "dest", 0);
    restore(&[], Some(&short), "data/pg_wal/RECOVERYXLOG", 1);
    restore(&[], None, "data/pg_wal/RECOVERYXLOG", 0);
    place.configure("");
    restore(&["-D", &data], Some(&full), "dest", 0);
    restore(&[], Some("relative"), "dest", 200).says("not an absolute path");
}

#[test]
fn a_configuration_directory_of_its_own_names_the_data_directory() {
    let place = Place::new();
    fs::create_dir(place.path("etc")).unwrap();
    fs::remove_file(place.path("data/postgresql.conf")).unwrap();
    let (archive, data) = (place.text("archive"), place.text("data"));
    let conf = format!("data_directory = '{data}'\nwalden.archive = '{archive}'\n");
    fs::write(place.path("etc/postgresql.conf"), conf).unwrap();
    fs::write(
        place.path("data/pg_wal").join(name(1)),
        segment(1, SYSTEM + 1),
    )
    .unwrap();
    fs::write(place.path("data/pg_wal").join(name(2)), segment(2, SYSTEM)).unwrap();
    let archive = |number| place.walden(&["archive", "-D", &place.text("etc"), &name(number)]);
    archive(1).exits(1).says(&SYSTEM.to_string());
    archive(2).exits(0);
}

#[test]
fn an_empty_directory_is_could_not_tell_because_it_may_be_an_unmounted_archive() {
    let place = Place::new();
    let archive = place.text("archive");
    let line = [
        "restore",
        "-A",
        &archive,
        "--timeout",
        "0",
        &name(1),
        "dest",
    ];
    place.walden(&line).exits(200).says("hint: ");
}

#[test]
fn pg_rewind_restores_backwards_from_any_directory_with_the_final_path_and_without_r() {
    let place = Place::new();
    place.configure("# as initdb writes it\nwalden.archive = 'ARCHIVE'   # here\n");
    place.archive_raw(&[1, 2, 3]);
    for number in [3, 2, 1] {
        let dest = place.text(&format!("data/pg_wal/{}", name(number)));
        place
            .walden_in("/", &["restore", &name(number), &dest])
            .exits(0);
    }
    let dest = place.text(&format!("data/pg_wal/{}", name(4)));
    place.walden_in("/", &["restore", &name(4), &dest]).exits(1);
}

#[test]
fn another_clusters_wal_is_neither_restored_nor_archived() {
    let place = Place::new();
    place.configure("walden.archive = 'ARCHIVE'");
    fs::write(place.path("archive").join(name(1)), segment(1, SYSTEM + 1)).unwrap();
    let line = ["restore", &name(1), "pg_wal/RECOVERYXLOG", ZEROS];
    let ran = place.walden_in("data", &line).exits(200);
    ran.says(&SYSTEM.to_string());
    assert!(!place.path("data/pg_wal/RECOVERYXLOG").exists());
    fs::write(
        place.path("data/pg_wal").join(name(2)),
        segment(2, SYSTEM + 1),
    )
    .unwrap();
    place
        .walden_in("data", &["archive", &format!("pg_wal/{}", name(2))])
        .exits(1);
    assert!(!place.path("archive").join(name(2)).exists());
}

#[test]
fn other_bytes_under_the_same_name_are_refused() {
    let place = Place::new();
    let archive = place.text("archive");
    let path = place.path(&name(1));
    fs::write(&path, segment(1, SYSTEM)).unwrap();
    let line = ["archive", "-A", &archive, &format!("./{}", name(1))];
    place.walden(&line).exits(0);
    let mut other = segment(1, SYSTEM);
    other[5000] ^= 1;
    fs::write(&path, other).unwrap();
    place.walden(&line).exits(1).says(&name(1));
}

#[test]
fn cleanup_keeps_what_recovery_needs_and_recovery_end_says_nothing() {
    let place = Place::new();
    place.archive_raw(&[1, 2, 3]);
    fs::write(place.path("archive/00000002.history"), "1\t0/3000000\tx\n").unwrap();
    let archive = place.text("archive");
    let cleanup = |keep: &str| place.walden(&["archive-cleanup", "-v", "-A", &archive, keep]);
    cleanup(ZEROS).exits(0).says("nothing to remove");
    cleanup(&name(3)).exits(0).says("removed 2 files");
    let mut left: Vec<_> = fs::read_dir(place.path("archive"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "walden.json")
        .collect();
    left.sort();
    assert_eq!(left, [name(3), "00000002.history".to_owned()]);
    let ran = place
        .walden(&["recovery-end", "-A", &archive, &name(3)])
        .exits(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
}

#[test]
fn a_time_limit_that_cannot_be_used_stops_those_alone_who_need_it() {
    let place = Place::new();
    place.archive_raw(&[1]);
    place.configure("walden.archive = 'ARCHIVE'\nwalden.restore_timeout = 'soon'");
    let data = place.text("data");
    place.walden(&["-D", &data, "list"]).exits(0);
    let restore = ["-D", &data, "restore", &name(1), "dest"];
    place
        .walden(&restore)
        .exits(200)
        .says("invalid value for parameter \"walden.restore_timeout\"");
    let [d, data, restore, file, dest] = restore;
    place
        .walden(&[d, data, restore, "--timeout=0", file, dest])
        .exits(0);
}
