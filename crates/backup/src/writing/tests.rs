//! Backups made here, written through the library and read back.
//!
//! This file is long because a backup is made once, and everything that can become of it is asked of that one.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use archive::{Compression, DirStore, Faults, FaultyStore, MemoryStore, Options, Store};

use super::*;
use crate::catalogue::{State, What, catalogue};
use crate::document::PageState;
use crate::manifest::tests::{entry, manifest};
use crate::page::tests::page;
use crate::tar::tests::{header, members, whole};
use crate::verify::{Request, Verified, verify};

const SYSTEM: SystemIdentifier = SystemIdentifier(7);
const START: Lsn = Lsn(0x400_0028);

pub(crate) const LABEL: &str = "START WAL LOCATION: 0/4000028 (file 000000010000000000000004)\nLABEL: made\nSTART TIMELINE: 1\n";

pub(crate) fn begin() -> Begin {
    Begin {
        system: SYSTEM,
        segment_size: SegmentSize::DEFAULT,
        major: 18,
        start_lsn: START,
        timeline: TimelineId::FIRST,
        label: String::new(),
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_972_500),
        pages: Some(PageRule {
            major: 18,
            start_lsn: START,
            page_bytes: 8192,
            segment_pages: 131_072,
        }),
        part_bytes_max: PART_BYTES_MIN,
    }
}

pub(crate) fn end() -> End<'static> {
    End {
        stop_lsn: Lsn(0x400_0100),
        timeline: TimelineId::FIRST,
        history: None,
        stopped: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_972_600),
    }
}

pub(crate) fn archive_in(store: impl Store + 'static) -> Arc<Archive> {
    packing(store, Compression::Zstd(1))
}

fn packing(store: impl Store + 'static, compression: Compression) -> Arc<Archive> {
    let options = Options {
        compression,
        ..Options::default()
    };
    Arc::new(Archive::with_store(Box::new(store), options))
}

/// Files of a data directory and of a tablespace, by their paths below the data directory.
pub(crate) struct Files(pub(crate) Vec<(String, Vec<u8>)>);

impl Files {
    pub(crate) fn made() -> Files {
        let mut random = fastrand::Rng::with_seed(4);
        let mut files = vec![("backup_label".to_owned(), LABEL.as_bytes().to_vec())];
        files.push(("tablespace_map".to_owned(), b"16384 /ts\n".to_vec()));
        for number in 0..6_u32 {
            let pages: Vec<u8> = (0..40).flat_map(|block| page(block, Lsn(9))).collect();
            files.push((format!("base/5/{}", 16_400 + number), pages));
        }
        let noise: Vec<u8> = (0..3_000_000).map(|_| random.u8(..)).collect();
        files.push(("pg_xact/0000".to_owned(), noise));
        files.push(("base/5/empty".to_owned(), Vec::new()));
        files.push(("global/pg_control".to_owned(), vec![3; 8192]));
        let page = page(0, Lsn(9));
        files.push(("pg_tblspc/16384/PG_18_202506291/5/16500".to_owned(), page));
        Files(files)
    }

    /// The tar file of the data directory, or of the tablespace.
    pub(crate) fn tar(&self, folder: &str) -> Vec<u8> {
        let of = self.0.iter().filter_map(|(path, contents)| {
            let is_base = folder.is_empty() && !path.starts_with("pg_tblspc/");
            let name = if is_base {
                Some(path.as_str())
            } else {
                path.strip_prefix(folder)
            };
            let name = name.filter(|_| is_base || !folder.is_empty())?;
            Some((name, contents.as_slice()))
        });
        let mut tar = members(&of.collect::<Vec<_>>());
        if folder.is_empty() {
            tar.extend(header("./pg_wal/archive_status", b'5', 0, ""));
        }
        tar.extend([0; 1024]);
        tar
    }

    fn manifest(&self) -> Vec<u8> {
        let entries = self.0.iter().map(|(path, contents)| entry(path, contents));
        manifest(&entries.collect::<Vec<_>>())
    }

    /// Sends them as the server does.
    pub(crate) fn send(&self, archive: &Arc<Archive>) -> Result<Writing, Error> {
        let mut writing = Writing::begin(Arc::clone(archive), begin())?;
        let tablespace = self.tar("pg_tblspc/16384/");
        for (name, tar) in [("16384.tar", tablespace), ("base.tar", self.tar(""))] {
            writing.begin_tar(name)?;
            for piece in tar.chunks(32_768) {
                writing.contents(piece)?;
            }
            writing.end_tar()?;
            writing.beat()?;
        }
        for piece in self.manifest().chunks(32_768) {
            writing.manifest(piece)?;
        }
        writing.end_manifest()?;
        Ok(writing)
    }

    pub(crate) fn store(&self, archive: &Arc<Archive>) -> Committed {
        self.send(archive).unwrap().commit(&end()).unwrap()
    }
}

fn verified(archive: &Archive, backup: &Committed) -> Verified {
    verify(
        backup,
        &Request {
            archive,
            readers: 3,
            told: &|_| (),
            cancel: &archive::Cancel::new(),
        },
    )
}

fn complaints(archive: &Archive, backup: &Committed) -> Vec<String> {
    let verified = verified(archive, backup);
    verified
        .complaints
        .into_iter()
        .map(|it| it.message)
        .collect()
}

fn state(archive: &Archive, later: Duration) -> State {
    let catalogue = catalogue(archive, Some(SYSTEM)).unwrap();
    assert_eq!(catalogue.backups.len(), 1);
    let now = catalogue.backups[0].last_sign + later;
    let states = catalogue.states(now, &|name| name.to_string() == "000000010000000000000004");
    states[0].clone()
}

/// The states of all backups, all of their WAL being there.
fn states(archive: &Archive) -> Vec<State> {
    let catalogue = catalogue(archive, Some(SYSTEM)).unwrap();
    let states = catalogue.states(SystemTime::UNIX_EPOCH, &|_| true);
    assert_eq!(states.len(), catalogue.backups.len());
    states
}

#[test]
fn what_was_sent_is_committed_in_parts_and_verifies() {
    let memory = MemoryStore::new();
    let archive = archive_in(memory);
    let files = Files::made();
    let backup = files.store(&archive);
    let names: Vec<&str> = backup.parts.iter().map(|part| part.name.as_str()).collect();
    // Of the data directory: three files of pages each time, and the one that is larger than a part by itself.
    let expected = [
        "16384.00001.tar",
        "base.00001.tar",
        "base.00002.tar",
        "base.00003.tar",
        "base.00004.tar",
    ];
    assert_eq!(names, expected);
    let large = backup
        .parts
        .iter()
        .filter(|part| part.bytes > PART_BYTES_MIN);
    assert_eq!(large.count(), 1);
    assert_eq!(
        (backup.label.as_str(), backup.tablespaces.len()),
        ("made", 1)
    );
    assert_eq!(
        (backup.pages.state, backup.pages.checked),
        (PageState::Ok, 241)
    );
    let found = verified(&archive, &backup);
    assert_eq!(found.complaints, []);
    let all: usize = files.0.iter().map(|(_, contents)| contents.len()).sum();
    assert_eq!(
        (found.files, found.bytes),
        (files.0.len() as u64, all as u64)
    );
    assert_eq!((found.parts, found.pages, found.corrupt_pages), (5, 241, 0));
}

#[test]
fn the_parts_unpack_with_stock_programs_to_the_files_that_were_sent() {
    let files = Files::made();
    for (compression, unpack) in [
        (Compression::Zstd(1), "zstd -dc"),
        (Compression::Lz4, "lz4 -dc"),
        (Compression::None, "cat"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let archive = packing(DirStore::open(dir.path()).unwrap(), compression);
        let backup = files.store(&archive);
        let folder = dir.path().join(format!("base/{}", backup.id));
        let data = tempfile::tempdir().unwrap();
        for (stem, target) in [("base", "."), ("16384", "pg_tblspc/16384")] {
            let target = data.path().join(target);
            std::fs::create_dir_all(&target).unwrap();
            let script = format!("set -e; cat {stem}.*.tar | {unpack} | tar xi -C \"$0\"");
            let mut shell = Command::new("sh");
            shell
                .args(["-c", &script])
                .arg(&target)
                .current_dir(&folder);
            assert!(shell.status().unwrap().success(), "{unpack}");
        }
        for (path, contents) in &files.0 {
            let found = std::fs::read(data.path().join(path)).unwrap();
            assert!(found == *contents, "{unpack}: {path}");
        }
        assert!(data.path().join("pg_wal/archive_status").is_dir());
    }
}

#[test]
fn a_backup_goes_from_running_to_abandoned_or_to_complete_and_back_to_waiting_without_its_wal() {
    let memory = MemoryStore::new();
    let archive = archive_in(memory.clone());
    let mut writing = Files::made().send(&archive).unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    assert_eq!(state(&archive, Duration::ZERO), State::Running);
    assert_eq!(state(&archive, day), State::Running);
    assert_eq!(
        state(&archive, day + Duration::from_secs(1)),
        State::Abandoned
    );
    let later = End {
        stop_lsn: Lsn(0x600_0000),
        ..end()
    };
    let backup = writing.commit(&later).unwrap();
    assert_eq!(
        state(&archive, Duration::ZERO),
        State::Waiting("000000010000000000000005".parse().unwrap())
    );
    let found = catalogue(&archive, None).unwrap();
    assert!(!found.backups[0].is_confirmed);
    assert_eq!(states(&archive), [State::Complete]);
    confirm(&archive, &backup.id).unwrap();
    assert!(catalogue(&archive, None).unwrap().backups[0].is_confirmed);
    let other = catalogue(&archive, Some(SystemIdentifier(8))).unwrap();
    assert!(
        matches!(&other.backups[0].what, What::Damaged(why, _) if why.contains("identifier 7"))
    );
}

#[test]
fn a_corrupt_page_is_committed_and_marked_and_found_again() {
    let archive = archive_in(MemoryStore::new());
    let mut files = Files::made();
    files.0[3].1[8192 * 2 + 100] ^= 1;
    let backup = files.store(&archive);
    assert_eq!(
        (backup.pages.state, backup.pages.corrupt),
        (PageState::Corrupt, 1)
    );
    assert_eq!(backup.pages.files, ["base/5/16401"]);
    assert_eq!(state(&archive, Duration::ZERO), State::CorruptPages);
    let found = verified(&archive, &backup);
    assert_eq!((found.corrupt_pages, found.complaints), (1, vec![]));
}

#[test]
fn a_flipped_bit_a_cut_and_a_missing_part_are_each_named() {
    let memory = MemoryStore::new();
    let archive = archive_in(memory.clone());
    let backup = Files::made().store(&archive);
    let key = backup.id.key("base.00002.tar");
    let object = archive.read_plain(&key, 1 << 30).unwrap().unwrap().bytes;
    let mut flipped = object.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    memory.overwrite(&key, &flipped);
    let said = complaints(&archive, &backup);
    assert!(
        said.len() == 1 && said[0].contains("base.00002.tar"),
        "{said:?}"
    );
    for end in [object.len() - 1, object.len() / 2, 1] {
        memory.overwrite(&key, &object[..end]);
        let said = complaints(&archive, &backup);
        assert!(
            said.len() == 1 && said[0].contains("base.00002.tar"),
            "{said:?}"
        );
        let why = format!(
            "\"base.00002.tar\" has {end} bytes, and had {}",
            object.len()
        );
        assert_eq!(state(&archive, Duration::ZERO), State::Damaged(why));
    }
    // Packed anew it holds the same, and is not what was stored.
    memory.overwrite(&key, &whole(&[("base/5/x", b"x")]));
    let said = complaints(&archive, &backup);
    assert!(
        said.iter().any(|it| it.contains("is not what was stored")),
        "{said:?}"
    );
    archive
        .each_in("base/", &mut |_| std::ops::ControlFlow::Continue(()))
        .unwrap();
    memory.remove(&key).unwrap();
    assert_eq!(
        state(&archive, Duration::ZERO),
        State::Damaged("\"base.00002.tar\" is missing".to_owned())
    );
    let said = complaints(&archive, &backup);
    assert!(
        said.len() == 1 && said[0].contains("is missing"),
        "{said:?}"
    );
}

#[test]
fn files_that_differ_from_the_manifest_are_each_named() {
    let archive = archive_in(MemoryStore::new());
    let sent = Files::made();
    let mut told = Files::made();
    told.0[8].1[5] ^= 1;
    told.0[10].1.push(0);
    told.0.push(("base/5/lost".to_owned(), Vec::new()));
    told.0.retain(|(path, _)| path != "base/5/empty");
    let mut writing = Writing::begin(Arc::clone(&archive), begin()).unwrap();
    for (name, folder) in [("16384.tar", "pg_tblspc/16384/"), ("base.tar", "")] {
        writing.begin_tar(name).unwrap();
        writing.contents(&sent.tar(folder)).unwrap();
        writing.end_tar().unwrap();
    }
    writing.manifest(&told.manifest()).unwrap();
    writing.end_manifest().unwrap();
    let backup = writing.commit(&end()).unwrap();
    let expected = [
        "file \"base/5/empty\" is not in the manifest",
        "file \"base/5/lost\" is in the manifest and in no part",
        "file \"global/pg_control\" has 8192 bytes, and 8193 by the manifest",
        "file \"pg_xact/0000\" has another checksum than by the manifest",
    ];
    assert_eq!(complaints(&archive, &backup), expected);
}

#[test]
fn hostile_members_are_refused_when_they_are_read() {
    let archive = archive_in(MemoryStore::new());
    let hostile = whole(&[
        ("backup_label", LABEL.as_bytes()),
        ("../../etc/passwd", b"x"),
    ]);
    let mut writing = Writing::begin(Arc::clone(&archive), begin()).unwrap();
    writing.begin_tar("base.tar").unwrap();
    writing.contents(&hostile).unwrap();
    writing.end_tar().unwrap();
    let backup = writing.commit(&end()).unwrap();
    let said = complaints(&archive, &backup);
    assert!(
        said[0].contains("leads out of the data directory"),
        "{said:?}"
    );
}

/// Stores a backup that begins in this segment and is based on one that began in that one.
fn store_based(archive: &Arc<Archive>, segment: u64, from: Option<u64>) -> Committed {
    let start_lsn = Lsn(segment * 0x100_0000 + 0x28);
    let mut label = LABEL.replace("0/4000028", &start_lsn.to_string());
    if let Some(from) = from {
        label += &format!("INCREMENTAL FROM LSN: 0/{from}000028\nINCREMENTAL FROM TLI: 1\n");
    }
    let begin = Begin {
        start_lsn,
        started: begin().started + Duration::from_secs(segment * 60),
        ..begin()
    };
    let mut writing = Writing::begin(Arc::clone(archive), begin).unwrap();
    writing.begin_tar("base.tar").unwrap();
    let tar = whole(&[("backup_label", label.as_bytes())]);
    writing.contents(&tar).unwrap();
    writing.end_tar().unwrap();
    let stop_lsn = Lsn(start_lsn.0 + 0x100);
    writing.commit(&End { stop_lsn, ..end() }).unwrap()
}

#[test]
fn an_incremental_backup_finds_the_one_that_it_is_based_on_and_never_guesses() {
    let memory = MemoryStore::new();
    let archive = archive_in(memory.clone());
    let full = store_based(&archive, 4, None);
    let based = |segment, from| {
        store_based(&archive, segment, Some(from))
            .parent
            .unwrap()
            .id
    };
    assert_eq!(based(5, 4), Some(full.id.clone()));
    assert_eq!(based(6, 3), None);
    // One that nobody can read may be the one, and keeps none from being committed.
    let odd = store_based(&archive, 7, None).id.key(COMMITTED);
    memory.overwrite(&odd, br#"{"format":2}"#);
    assert_eq!(based(8, 4), None);
    memory.overwrite(&odd, b"{");
    assert_eq!(based(9, 4), Some(full.id));
    store_based(&archive, 4, None);
    assert_eq!(based(10, 4), None);
}

#[test]
fn a_backup_is_complete_only_if_all_that_it_is_based_on_is() {
    let memory = MemoryStore::new();
    let archive = archive_in(memory.clone());
    let full = store_based(&archive, 4, None);
    let middle = store_based(&archive, 5, Some(4));
    store_based(&archive, 6, Some(5));
    assert_eq!(states(&archive), [const { State::Complete }; 3]);
    let said = |at: usize| match states(&archive).remove(at) {
        State::ParentMissing(why) => why,
        other => panic!("{other:?}"),
    };
    let all = catalogue(&archive, None).unwrap();
    let waiting = all.states(SystemTime::UNIX_EPOCH, &|name| {
        !name.to_string().ends_with('4')
    });
    assert_eq!(waiting[0].word(), "waiting");
    assert!(matches!(&waiting[1], State::ParentMissing(why) if why.contains("waits for")));

    let key = full.id.key(COMMITTED);
    let text = archive.read_plain(&key, 1 << 20).unwrap().unwrap().bytes;
    let as_text = String::from_utf8(text.clone()).unwrap();
    let replaced = |from: &str, to: &str| {
        let other = as_text.replace(from, to);
        assert_ne!(other, as_text);
        memory.overwrite(&key, other.as_bytes());
    };
    replaced("\"state\": \"ok\"", "\"state\": \"corrupt\"");
    assert!(said(1).contains("has corrupt pages"));
    replaced("0/4000028", "0/4000030");
    assert!(said(1).contains("did not begin at 0/4000028"));
    replaced("\"format\": 1", "\"format\": 2");
    let words: Vec<_> = states(&archive).iter().map(State::word).collect();
    assert_eq!(words, ["unknown"; 3]);
    memory.overwrite(&key, &text);
    let part = full.id.key("base.00001.tar");
    memory.remove(&part).unwrap();
    assert!(said(1).contains("which is damaged"));
    memory.remove(&key).unwrap();
    assert!(said(1).contains("which is not committed"));
    memory.remove(&full.id.key(RUNNING)).unwrap();
    let missing = format!(
        "it is based on backup {}, which is not in this archive",
        full.id
    );
    assert_eq!(states(&archive)[0], State::ParentMissing(missing));
    let itself = format!(
        "it is based on backup {}, which lacks what it is based on itself",
        middle.id
    );
    assert_eq!(states(&archive)[1], State::ParentMissing(itself));
}

#[test]
fn a_store_that_loses_every_answer_ends_no_backup_and_a_second_commit_says_the_same() {
    let memory = MemoryStore::new();
    let store_based_on = store_based(&archive_in(memory.clone()), 3, None);
    let archive = archive_in(FaultyStore::repeating(Box::new(memory.clone())));
    let mut files = Files::made();
    files.0[0]
        .1
        .extend(b"INCREMENTAL FROM LSN: 0/3000028\nINCREMENTAL FROM TLI: 1\n");
    let mut writing = files.send(&archive).unwrap();
    let backup = writing.commit(&end()).unwrap();
    assert_eq!(
        backup.parent.as_ref().unwrap().id,
        Some(store_based_on.id.clone())
    );
    confirm(&archive, &backup.id).unwrap();
    confirm(&archive, &backup.id).unwrap();
    memory.remove(&store_based_on.id.key(COMMITTED)).unwrap();
    assert_eq!(writing.commit(&end()).unwrap(), backup);
    assert_eq!(verified(&archive, &backup).complaints, []);
    let later = End {
        stop_lsn: Lsn(0x400_0200),
        ..end()
    };
    assert_eq!(
        writing.commit(&later).unwrap_err().kind(),
        ErrorKind::Conflict
    );
}

#[test]
fn an_odd_object_hides_no_other_backup() {
    let dir = tempfile::tempdir().unwrap();
    let archive = archive_in(DirStore::open(dir.path()).unwrap());
    store_based(&archive, 4, None);
    let odd = store_based(&archive, 5, None);
    let path = dir.path().join(odd.id.key(COMMITTED));
    let text = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(states(&archive), [State::Complete, State::Running]);
    std::fs::remove_dir(&path).unwrap();
    for (contents, word) in [
        (&b"{\"format\":2}"[..], "unknown"),
        (b"{}", "damaged"),
        (&text, "complete"),
    ] {
        std::fs::write(&path, contents).unwrap();
        let states = states(&archive);
        assert_eq!((&states[0], states[1].word()), (&State::Complete, word));
    }
}

#[test]
fn what_is_no_backup_is_not_committed() {
    let archive = archive_in(MemoryStore::new());
    let commit = |base: &[u8], end: &End<'_>| {
        let mut writing = Writing::begin(Arc::clone(&archive), begin()).unwrap();
        writing.begin_tar("base.tar").unwrap();
        writing.contents(base)?;
        writing.end_tar()?;
        writing.commit(end)
    };
    let good = whole(&[("backup_label", LABEL.as_bytes())]);
    assert!(commit(&good, &end()).is_ok());
    let other = LABEL.replace("4000028", "5000028");
    let unmapped = [
        ("backup_label", LABEL.as_bytes()),
        ("tablespace_map", b"16384 /ts\n"),
    ];
    for (tar, why) in [
        (whole(&[("x", b"")]), "\"backup_label\" is not in it"),
        (whole(&[("backup_label", b"x")]), "START WAL LOCATION"),
        (
            whole(&[("backup_label", other.as_bytes())]),
            "was to begin at 0/4000028",
        ),
        (whole(&unmapped), "its tablespaces are not"),
        (
            members(&[("backup_label", LABEL.as_bytes())]),
            "it breaks off",
        ),
        (vec![7; 512], "not a tar file"),
    ] {
        let error = commit(&tar, &end()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains(why), "{error}");
    }
    for odd in [
        End {
            stop_lsn: Lsn(1),
            ..end()
        },
        End {
            timeline: TimelineId::new(2).unwrap(),
            ..end()
        },
    ] {
        assert_eq!(commit(&good, &odd).unwrap_err().kind(), ErrorKind::Damaged);
    }
    let mut unmapped = Writing::begin(Arc::clone(&archive), begin()).unwrap();
    for (name, tar) in [("16384.tar", whole(&[("x", b"")])), ("base.tar", good)] {
        unmapped.begin_tar(name).unwrap();
        unmapped.contents(&tar).unwrap();
        unmapped.end_tar().unwrap();
    }
    let error = unmapped.commit(&end()).unwrap_err();
    assert!(
        error.to_string().contains("no \"tablespace_map\""),
        "{error}"
    );
    let mut nothing = Writing::begin(Arc::clone(&archive), begin()).unwrap();
    assert!(nothing.commit(&end()).is_err());
    assert!(nothing.contents(b"x").is_err());
    assert!(nothing.end_manifest().is_err());
}

#[test]
fn what_cannot_begin_is_refused_before_anything_is_written() {
    let memory = MemoryStore::new();
    let archive = archive_in(memory.clone());
    for odd in [
        Begin {
            label: "x".repeat(LABEL_BYTES_MAX + 1),
            ..begin()
        },
        Begin {
            part_bytes_max: PART_BYTES_MIN - 1,
            ..begin()
        },
        Begin {
            part_bytes_max: PART_BYTES_MAX + 1,
            ..begin()
        },
    ] {
        let error = Writing::begin(Arc::clone(&archive), odd).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable);
    }
    assert!(archive.binding().unwrap().is_none());
    drop(Writing::begin(Arc::clone(&archive), begin()).unwrap());
    let foreign = Begin {
        system: SystemIdentifier(8),
        ..begin()
    };
    let error = Writing::begin(archive_in(memory), foreign).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Foreign);
}

#[test]
fn over_a_failing_store_a_backup_is_whole_or_none_whatever_the_writer_was_told() {
    let files = Files::made();
    let mut committed = 0;
    for seed in 0..40 {
        let memory = MemoryStore::new();
        let faults = Faults::seeded(seed, 3);
        let failing = FaultyStore::new(Box::new(memory.clone()), faults.clone());
        let archive = archive_in(failing);
        let told = files
            .send(&archive)
            .and_then(|mut writing| writing.commit(&end()));
        faults.stop();
        let sound = archive_in(memory);
        for found in catalogue(&sound, Some(SYSTEM)).unwrap().backups {
            match &found.what {
                What::Committed(backup) => {
                    committed += 1;
                    assert_eq!(verified(&sound, backup).complaints, [], "seed {seed}");
                }
                What::Running(_) => assert!(told.is_err(), "seed {seed}"),
                What::Damaged(why, _) | What::Unknown(why) => panic!("seed {seed}: {why}"),
            }
        }
    }
    assert!(
        (4..40).contains(&committed),
        "{committed} of 40 committed: too few faults, or too many"
    );
}

#[test]
fn encrypted_parts_are_opened_by_age_itself() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let made = Command::new("age-keygen")
        .arg("-o")
        .arg(&key)
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    let text = std::fs::read_to_string(&key).unwrap();
    let public = text
        .lines()
        .find_map(|line| line.strip_prefix("# public key: "))
        .unwrap();
    let options = Options {
        compression: Compression::Zstd(1),
        recipients: public.parse().unwrap(),
        ..Options::default()
    };
    let root = tempfile::tempdir().unwrap();
    let store = || Box::new(DirStore::open(root.path()).unwrap());
    let archive = Arc::new(Archive::with_store(store(), options));
    let backup = Files::made().store(&archive);
    let locked = verified(&archive, &backup);
    assert!(!locked.complaints.is_empty() && locked.complaints.iter().all(|it| it.is_unknown));
    let with_key = Options {
        identity_file: Some(key.to_str().unwrap().parse().unwrap()),
        ..Options::default()
    };
    let opened = Archive::with_store(store(), with_key);
    assert_eq!(verified(&opened, &backup).complaints, []);
    let part = root.path().join(backup.id.key("base.00001.tar"));
    let plain = Command::new("age")
        .arg("-d")
        .arg("-i")
        .arg(&key)
        .arg(part)
        .output()
        .unwrap();
    assert!(plain.status.success());
    let mut zstd = Command::new("zstd")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = zstd.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&plain.stdout));
    let tar = zstd.wait_with_output().unwrap().stdout;
    writer.join().unwrap().unwrap();
    assert_eq!(tar.len() as u64, backup.parts[1].bytes);
    // What says of the backup that it is one is never encrypted.
    let text = std::fs::read_to_string(root.path().join(backup.id.key(COMMITTED))).unwrap();
    assert!(text.starts_with('{'));
}
