//! `walden archive-cleanup`, as a person and as a server runs it.

use crate::common::{Place, Ran, ZEROS, name};
use std::fs;

/// What the archive holds, without its binding.
fn left(place: &Place) -> Vec<String> {
    let mut left: Vec<_> = fs::read_dir(place.path("archive"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "walden.json")
        .collect();
    left.sort();
    left
}

/// An archive of these segments, and a backup history file of a backup that begins with each of those.
fn archive(segments: &[u32], backups: &[u32]) -> Place {
    let place = Place::new();
    place.archive_raw(segments);
    for number in backups {
        let name = format!("{}.00000028.backup", name(*number));
        fs::write(place.path("archive").join(name), "").unwrap();
    }
    place
}

fn by_hand(place: &Place, more: &[&str], keep: &str) -> Ran {
    let archive = place.text("archive");
    let mut args = vec!["archive-cleanup", "-A", &archive];
    args.extend_from_slice(more);
    args.push(keep);
    place.walden(&args)
}

#[test]
fn what_was_removed_is_told_from_the_first_name_to_the_last() {
    let place = archive(&[1, 2, 3, 4], &[]);
    let ran = by_hand(&place, &[], &name(4)).exits(0);
    let range = format!("\"{}\" to \"{}\"", name(1), name(3));
    ran.says("removed 3 files").says(&range);
    assert_eq!(left(&place), [name(4)]);
    by_hand(&place, &[], &name(4))
        .exits(0)
        .says("nothing to remove");
    by_hand(&place, &[], ZEROS).exits(0);
    assert_eq!(left(&place), [name(4)]);
}

#[test]
fn a_dry_run_names_what_would_go_and_removes_nothing() {
    let place = archive(&[1, 2, 3], &[]);
    let ran = by_hand(&place, &["--dry-run"], &name(3)).exits(0);
    let mut named: Vec<_> = ran.stdout.lines().map(str::to_owned).collect();
    named.sort();
    assert_eq!(named, [name(1), name(2)]);
    ran.says("would remove 2 files");
    assert_eq!(left(&place).len(), 3);
}

#[test]
fn an_oldest_segment_behind_everything_stored_is_refused_to_a_person() {
    let place = archive(&[1, 2, 3], &[]);
    let ran = by_hand(&place, &[], &name(4)).exits(1);
    ran.says(&name(4))
        .says(&name(3))
        .says("Nothing was removed");
    assert_eq!(left(&place).len(), 3);
    // The newest itself may be named.
    by_hand(&place, &[], &name(3)).exits(0);
    assert_eq!(left(&place), [name(3)]);
}

#[test]
fn what_a_base_backup_needs_is_kept_unless_forced() {
    // The segments of the backup that began with 1 are gone, and so are its needs.
    let place = archive(&[3, 4, 5, 6, 7], &[1, 4, 6]);
    let backup = format!("{}.00000028.backup", name(4));
    let ran = by_hand(&place, &[], &name(6)).exits(0);
    ran.says("removed 1 file").says(&backup).says("--force");
    assert!(left(&place).contains(&name(4)));
    let ran = by_hand(&place, &["--force"], &name(6)).exits(0);
    ran.says("removed 2 files");
    assert!(!left(&place).contains(&name(5)));
    assert!(left(&place).contains(&backup), "history files stay");
}

/// The command as the server of the data directory would run it: this process stands in for its postmaster.
fn by_server(place: &Place, keep: &str) -> Ran {
    place.configure("walden.archive = 'ARCHIVE'\n");
    let lock_file = format!("{}\n{}\n", std::process::id(), place.text("data"));
    fs::write(place.path("data/postmaster.pid"), lock_file).unwrap();
    place.walden_in("data", &["archive-cleanup", "-D", ".", keep])
}

#[test]
fn for_a_standbys_server_the_rule_of_pg_archivecleanup_holds() {
    let place = archive(&[1, 2, 3, 4], &[1]);
    fs::rename(
        place.path("data/recovery.signal"),
        place.path("data/standby.signal"),
    )
    .unwrap();
    // It streams, and is ahead of its archive.
    let ran = by_server(&place, &name(9)).exits(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    assert_eq!(left(&place).len(), 5);
    by_server(&place, &name(3)).exits(0).says("removed 2 files");
    assert_eq!(left(&place).len(), 3);
}

#[test]
fn during_targeted_recovery_a_server_removes_nothing_and_says_so_in_a_line() {
    let place = archive(&[1, 2, 3, 4], &[]);
    let ran = by_server(&place, &name(3)).exits(0);
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    ran.says("removes nothing during targeted recovery");
    assert_eq!(left(&place).len(), 4);
}
