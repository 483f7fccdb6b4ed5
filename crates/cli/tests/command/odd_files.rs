//! Files that are not what they should be: fifos in place of files, homes that are not there, sizes beyond all bounds.

use crate::common::{Place, name};
use std::fs::{self, File};
use std::process::Command;
use std::time::{Duration, Instant};

fn fifo(place: &Place, file: &str) -> String {
    let path = place.path(file);
    let _ = fs::remove_file(&path);
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    place.text(file)
}

#[test]
fn a_fifo_in_place_of_any_file_that_a_command_opens_hangs_nobody() {
    let place = Place::new();
    place.archive_raw(&[1, 2]);
    let (archive, data) = (place.text("archive"), place.text("data"));
    let index = place.text("index");
    let pipe = fifo(&place, "fifo");

    let verify = ["verify", "-A", &archive, "--resume", &pipe];
    place.walden(&verify).exits(4).says("not a regular file");
    let map = ["map", "-A", &archive, "--index", &index, "-o", &pipe];
    place.walden(&map).exits(1).says("it has no reader");
    let targets = ["targets", "-A", &archive, "--index", &pipe];
    place.walden(&targets).exits(0).says("nothing is kept");

    fifo(&place, "data/postgresql.conf");
    for command in ["check", "list", "verify", "targets", "map"] {
        let ran = place.walden(&[command, "-D", &data]);
        assert_ne!(ran.status, 0, "{ran:?}");
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("not a regular file"), "{command}: {said}");
    }
    fs::remove_file(place.path("data/postgresql.conf")).unwrap();
    place.configure("walden.archive = 'ARCHIVE'\n");
    fifo(&place, "data/global/pg_control");
    let dest = place.text("dest");
    let restore = ["restore", "-D", &data, "--timeout", "0", &name(1), &dest];
    place.walden(&restore).exits(200).says("not a regular file");
}

#[test]
fn a_page_is_written_through_a_pipe_that_somebody_reads() {
    let place = Place::new();
    place.archive_raw(&[1, 2]);
    let pipe = fifo(&place, "fifo");
    let (archive, index) = (place.text("archive"), place.text("index"));
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe).unwrap()
    });
    // Its other end is open, or is about to be.
    let map = ["map", "-A", &archive, "--index", &index, "-o", &pipe];
    let deadline = Instant::now() + Duration::from_secs(60);
    while place.walden(&map).status != 0 {
        assert!(Instant::now() < deadline, "it is never written");
    }
    assert!(reader.join().unwrap().ends_with("</html>\n"));
}

#[test]
fn without_a_home_no_index_is_kept_and_none_is_made() {
    let place = Place::new();
    place.archive_raw(&[1, 2]);
    let archive = place.text("archive");
    let home = place.path("nonexistent");
    let ran = |home: Option<&std::path::Path>| {
        let mut command = place.command(".");
        command.env_remove("XDG_CACHE_HOME").env_remove("HOME");
        if let Some(home) = home {
            command.env("HOME", home);
        }
        crate::common::run(command.args(["targets", "-A", &archive])).exits(0)
    };
    let said = ran(Some(&home)).says("no index is kept").stderr;
    assert_eq!(said.matches("no index").count(), 1, "{said}");
    assert!(said.contains("nonexistent"), "{said}");
    assert!(!home.exists());
    ran(None).says("no index is kept");
    fs::create_dir(&home).unwrap();
    assert_eq!(ran(Some(&home)).stderr.matches("no index").count(), 0);
    assert!(home.join(".cache/walden/index").is_dir());
}

#[test]
fn sizes_beyond_64_bits_in_all_are_no_panic() {
    let place = Place::new();
    place.archive_raw(&[1]);
    let archive = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::copy(
        place.path("archive").join(name(1)),
        archive.path().join(name(1)),
    )
    .unwrap();
    for number in 2..=5 {
        // Three of them have more than 2^64 bytes.
        let file = File::create(archive.path().join(name(number))).unwrap();
        file.set_len(i64::MAX.cast_unsigned()).unwrap();
    }
    let index = place.text("index");
    let archive = archive.path().to_str().unwrap();
    for (command, more) in [
        ("list", &[][..]),
        ("list", &["--json"]),
        ("list", &["--wal"]),
        ("verify", &[]),
        ("targets", &["--index", &index]),
        ("map", &["--index", &index]),
        ("check", &[]),
    ] {
        let mut args = vec![command, "-A", archive];
        args.extend_from_slice(more);
        let ran = place.walden(&args);
        assert_ne!(ran.status, 3, "{command} {more:?}: {ran:?}");
        assert!(!ran.stderr.contains("internal error"), "{ran:?}");
    }
    let keep = name(5);
    place
        .walden(&["archive-cleanup", "-A", archive, &keep])
        .exits(0)
        .says("removed 4 files");
}

#[test]
fn the_highest_names_are_no_panic() {
    let place = Place::new();
    place.archive_raw(&[1]);
    for text in [
        "00000001FFFFFFFF000000FF",
        "00000001FFFFFFFFFFFFFFFF",
        "00000001FFFFFFFF00000FFF",
        "FFFFFFFFFFFFFFFFFFFFFFFF",
        "FFFFFFFFFFFFFFFFFFFFFFFF.partial",
        "FFFFFFFFFFFFFFFFFFFFFFFF.FFFFFFFF.backup",
        "FFFFFFFF.history",
        "00000001FFFFFFFF00000FFF.partial",
    ] {
        fs::write(place.path("archive").join(text), "x").unwrap();
    }
    let (archive, index) = (place.text("archive"), place.text("index"));
    for (command, more) in [
        ("list", &[][..]),
        ("list", &["--wal"]),
        ("verify", &[]),
        ("targets", &["--index", &index]),
        ("map", &["--index", &index]),
        ("check", &[]),
    ] {
        let mut args = vec![command, "-A", &archive];
        args.extend_from_slice(more);
        let ran = place.walden(&args);
        assert_ne!(ran.status, 3, "{command} {more:?}: {ran:?}");
        assert!(!ran.stderr.contains("internal error"), "{ran:?}");
    }
}
