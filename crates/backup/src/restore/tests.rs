//! Backups made here, restored, and what is no backup, refused.

use std::sync::Arc;

use archive::{Archive, Cancel, MemoryStore, Store};

use super::*;
use crate::tar::tests::whole;
use crate::writing::Writing;
use crate::writing::tests::{Files, LABEL, archive_in, begin, end};

fn stored() -> (MemoryStore, Arc<Archive>, Committed) {
    let memory = MemoryStore::new();
    let archive = archive_in(memory.clone());
    let backup = Files::made().store(&archive);
    (memory, archive, backup)
}

fn restored(archive: &Archive, backup: &Committed, target: &Target) -> Result<Verified, Error> {
    restore(
        backup,
        target,
        &Request {
            archive,
            readers: 3,
            told: &|_| (),
            cancel: &Cancel::new(),
        },
    )
}

/// Where nothing is yet: a data directory, and the tablespace elsewhere.
fn target(dir: &tempfile::TempDir) -> Target {
    Target {
        directory: dir.path().join("new/data"),
        tablespaces: BTreeMap::from([(16_384, dir.path().join("ts"))]),
    }
}

#[test]
fn a_restored_backup_has_the_files_that_were_sent_and_its_tablespaces_where_they_were_wanted() {
    let (_, archive, backup) = stored();
    let dir = tempfile::tempdir().unwrap();
    let target = target(&dir);
    let verified = restored(&archive, &backup, &target).unwrap();
    let files = Files::made().0;
    assert_eq!(verified.files, files.len() as u64);
    for (path, contents) in &files {
        let place = match path.strip_prefix("pg_tblspc/16384/") {
            Some(path) => dir.path().join("ts").join(path),
            None => target.directory.join(path),
        };
        let found = fs::read(&place).unwrap();
        if path == "tablespace_map" {
            let map = format!("16384 {}\n", dir.path().join("ts").display());
            assert_eq!(String::from_utf8(found).unwrap(), map);
        } else {
            assert!(found == *contents, "{path}");
        }
        let mode = fs::metadata(&place).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{path}");
    }
    assert!(target.directory.join("pg_wal/archive_status").is_dir());
    assert!(!target.directory.join("pg_tblspc/16384").exists());
}

#[test]
fn a_backup_with_corrupt_pages_is_restored_with_them_unless_they_are_others_than_it_says() {
    let archive = archive_in(MemoryStore::new());
    let mut files = Files::made();
    files.0[3].1[8192 * 2 + 100] ^= 1;
    let backup = files.store(&archive);
    let dir = tempfile::tempdir().unwrap();
    let good = target(&dir);
    let verified = restored(&archive, &backup, &good).unwrap();
    assert_eq!((verified.corrupt_pages, verified.complaints.len()), (1, 0));
    let (path, contents) = &files.0[3];
    assert!(fs::read(good.directory.join(path)).unwrap() == *contents);
    let of = |corrupt, files: &[&str]| {
        let mut other = backup.clone();
        other.pages.corrupt = corrupt;
        other.pages.files = files.iter().map(|file| (*file).to_owned()).collect();
        other
    };
    for (other, why) in [
        (
            of(1, &["base/5/16401", "base/5/16402"]),
            "has no corrupt pages, and had some",
        ),
        (of(1, &[]), "has corrupt pages, and had none"),
        (of(2, &["base/5/16401"]), "1 pages are corrupt, and 2 were"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let target = target(&dir);
        let error = restored(&archive, &other, &target).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(!target.directory.join("global/pg_control").exists());
    }
}

#[test]
fn a_damaged_or_missing_part_leaves_a_directory_that_no_server_starts_in() {
    let (memory, archive, backup) = stored();
    let key = backup.id.key("base.00002.tar");
    let sound = archive.read_plain(&key, 1 << 30).unwrap().unwrap().bytes;
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    for stored in [Some(&flipped[..]), Some(&sound[..sound.len() - 1]), None] {
        match stored {
            Some(bytes) => memory.overwrite(&key, bytes),
            None => drop(memory.remove(&key).unwrap()),
        }
        let dir = tempfile::tempdir().unwrap();
        let target = target(&dir);
        let error = restored(&archive, &backup, &target).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains("base.00002.tar"), "{error}");
        assert!(!target.directory.join("global/pg_control").exists());
    }
}

#[test]
fn directories_that_cannot_be_meant_are_refused_before_anything_is_written() {
    let (_, archive, backup) = stored();
    let dir = tempfile::tempdir().unwrap();
    let good = target(&dir);
    let full = dir.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("x"), "x").unwrap();
    let odd = [
        (full.clone(), good.tablespaces.clone(), "is not empty"),
        (
            good.directory.clone(),
            BTreeMap::from([(16_384, full)]),
            "is not empty",
        ),
        (PathBuf::from("new"), good.tablespaces.clone(), "absolute"),
        (
            good.directory.clone(),
            BTreeMap::from([(16_384, good.directory.clone())]),
            "the same",
        ),
        (
            good.directory.clone(),
            BTreeMap::from([(1, dir.path().join("ts"))]),
            "no tablespace 1",
        ),
    ];
    for (directory, tablespaces, why) in odd {
        let target = Target {
            directory,
            tablespaces,
        };
        let error = restored(&archive, &backup, &target).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable);
        assert!(error.to_string().contains(why), "{error}");
    }
    assert!(!good.directory.exists() && !dir.path().join("ts").exists());
}

/// Files of a backup, and what is said of them.
type Odd<'a> = (&'a [(&'a str, &'a [u8])], &'a str);

#[test]
fn hostile_parts_write_nothing_outside_and_make_no_data_directory() {
    let label = ("backup_label", LABEL.as_bytes());
    let control = ("global/pg_control", &b"x"[..]);
    let odd: [Odd<'_>; 4] = [
        (&[label, ("../escaped", b"x"), control], "leads out"),
        (&[label, ("/tmp/escaped", b"x"), control], "leads out"),
        (
            &[label, ("base/x", b"1"), ("base/x", b"2"), control],
            "exists",
        ),
        (&[label], "has no \"global/pg_control\""),
    ];
    for (files, why) in odd {
        let archive = archive_in(MemoryStore::new());
        let mut writing = Writing::begin(Arc::clone(&archive), begin()).unwrap();
        writing.begin_tar("base.tar").unwrap();
        writing.contents(&whole(files)).unwrap();
        writing.end_tar().unwrap();
        let backup = writing.commit(&end()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let target = Target {
            directory: dir.path().join("data"),
            tablespaces: BTreeMap::new(),
        };
        let error = restored(&archive, &backup, &target).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(!target.directory.join("global/pg_control").exists());
        let beside: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(beside.len(), 1);
    }
}

#[test]
fn a_map_is_written_as_it_is_read() {
    let places = BTreeMap::from([(1, PathBuf::from("/a b")), (2, PathBuf::from("/c\nd\\e"))]);
    let text = map_of(&places).unwrap();
    let read = crate::label::tablespaces(text.as_bytes()).unwrap();
    let read: BTreeMap<u32, PathBuf> = read
        .into_iter()
        .map(|it| (it.oid, it.location.into()))
        .collect();
    assert_eq!(read, places);
}
