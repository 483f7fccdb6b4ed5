//! Publishing under failure: every step made to fail, every step made the last before a crash, writers
//! killed in mid-work, leftovers of the dead and of the living.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::{TempDir, tempdir};
use wal::{SegmentSize, SystemIdentifier, WalFileName};

use super::*;
use crate::store::dir::forks;
use crate::suite::fixtures;
use crate::{Archive, Cancel, Compression, DirStore, ErrorKind, Got, Options, Put, Store, Verify};

const EVERY_STAGING: [Staging; 4] = [
    Staging::Unnamed,
    Staging::Named,
    Staging::UnnamedUnlinkable,
    Staging::NamedUnlinkable,
];
const SYSTEM: SystemIdentifier = SystemIdentifier(42);
/// More steps than any put takes; reaching it means that a loop below has no end.
const STEPS_MAX: u64 = 200;

fn segment(number: u64) -> (WalFileName, Vec<u8>) {
    let name: WalFileName = format!("0000000100000000{number:08X}").parse().unwrap();
    let size = SegmentSize::SMALLEST;
    (
        name,
        fixtures::segment(name.segment().unwrap(), size, SYSTEM, number),
    )
}

fn archive(dir: &Path, disk: Disk) -> Archive {
    let options = Options {
        compression: Compression::Lz4,
        verify: Verify::Header,
        ..Options::default()
    };
    Archive::with_store(Box::new(DirStore::with_disk(dir, disk).unwrap()), options)
}

fn put(archive: &Archive, sources: &Path, number: u64) -> Result<Put, Error> {
    let (name, contents) = segment(number);
    let source = sources.join(name.to_string());
    fs::write(&source, contents).unwrap();
    archive.put_new(&name, &source, None, &Cancel::new())
}

/// Every file that has a WAL file's name is whole and restores to its bytes. Returns how many there are.
fn every_wal_file_is_whole(dir: &Path, scratch: &Path) -> usize {
    let archive = archive(dir, Disk::default());
    let listed = archive.list().unwrap();
    for stored in &listed {
        let number = stored
            .name
            .segment()
            .unwrap()
            .number(SegmentSize::SMALLEST)
            .unwrap();
        let dest = scratch.join(format!("restored{}", fastrand::u64(..)));
        let got = archive
            .get(&stored.name, &dest, Some(SYSTEM), &Cancel::new())
            .unwrap();
        assert!(matches!(got, Got::Restored { .. }));
        assert_eq!(
            fs::read(&dest).unwrap(),
            segment(number.0).1,
            "{}",
            stored.key
        );
    }
    listed.len()
}

/// After leftovers are removed nothing but the binding and WAL files remains.
fn only_known_names_remain(dir: &Path) {
    archive(dir, Disk::default()).remove_leftovers().unwrap();
    for name in names(dir) {
        assert!(
            name == "walden.json" || name.starts_with("00000001"),
            "{name} remains"
        );
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn failing_at(step: u64) -> (Hook, Arc<Mutex<Vec<Step>>>) {
    let (steps, seen) = (AtomicU64::new(0), Arc::new(Mutex::new(Vec::new())));
    let log = Arc::clone(&seen);
    let hook = move |now| {
        log.lock().unwrap().push(now);
        if steps.fetch_add(1, Ordering::SeqCst) == step {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    };
    (Arc::new(hook), seen)
}

#[test]
fn whatever_step_fails_the_file_is_not_acknowledged_and_the_next_attempt_succeeds() {
    let _calm = forks::none();
    for staging in EVERY_STAGING {
        let mut failures = 0;
        for step in 0.. {
            assert!(step < STEPS_MAX, "{staging:?} never gets through");
            let (dir, scratch) = (tempdir().unwrap(), tempdir().unwrap());
            let (hook, seen) = failing_at(step);
            let outcome = put(
                &archive(
                    dir.path(),
                    Disk {
                        staging,
                        hook: Some(hook),
                        ..Disk::default()
                    },
                ),
                scratch.path(),
                1,
            );
            every_wal_file_is_whole(dir.path(), scratch.path());
            if (seen.lock().unwrap().len() as u64) <= step {
                outcome.unwrap();
                break;
            }
            let failed = seen.lock().unwrap()[usize::try_from(step).unwrap()];
            match outcome {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    failures += 1;
                }
                // All but one failure must be reported: a staged name that stays is a leftover, no more.
                Ok(_) => assert_eq!(failed, Step::Unlink, "{staging:?}, step {step}"),
            }
            let again = archive(
                dir.path(),
                Disk {
                    staging,
                    ..Disk::default()
                },
            );
            put(&again, scratch.path(), 1).unwrap();
            assert_eq!(every_wal_file_is_whole(dir.path(), scratch.path()), 1);
            only_known_names_remain(dir.path());
        }
        assert!(failures >= 8, "{staging:?}: only {failures} steps can fail");
    }
}

#[test]
fn contents_are_synced_before_the_name_appears_and_the_directory_after() {
    for staging in EVERY_STAGING {
        let (dir, scratch) = (tempdir().unwrap(), tempdir().unwrap());
        let (hook, seen) = failing_at(u64::MAX);
        let archive = archive(
            dir.path(),
            Disk {
                staging,
                hook: Some(hook),
                ..Disk::default()
            },
        );
        put(&archive, scratch.path(), 1).unwrap();
        seen.lock().unwrap().clear();
        put(&archive, scratch.path(), 2).unwrap();
        let steps = seen.lock().unwrap().clone();
        let last = |step| steps.iter().rposition(|seen| *seen == step).unwrap();
        let first = |step| steps.iter().position(|seen| *seen == step).unwrap();
        assert!(
            last(Step::Write) < first(Step::SyncFile),
            "{staging:?}: {steps:?}"
        );
        assert!(
            first(Step::SyncFile) < first(Step::Link),
            "{staging:?}: {steps:?}"
        );
        assert!(
            last(Step::Link) < last(Step::SyncDirectory),
            "{staging:?}: {steps:?}"
        );
        // The same file again: nothing is written, and both are synced again.
        seen.lock().unwrap().clear();
        assert_eq!(
            put(&archive, scratch.path(), 2).unwrap(),
            Put::AlreadyStored
        );
        assert_eq!(*seen.lock().unwrap(), [Step::SyncFile, Step::SyncDirectory]);
    }
}

#[test]
fn a_lost_directory_entry_is_not_success_and_the_name_is_taken_back() {
    let _calm = forks::none();
    let (dir, scratch) = (tempdir().unwrap(), tempdir().unwrap());
    put(&archive(dir.path(), Disk::default()), scratch.path(), 1).unwrap();
    let struck = AtomicU64::new(0);
    let hook = move |step| match step {
        Step::SyncDirectory if struck.fetch_add(1, Ordering::SeqCst) == 0 => {
            Err(io::Error::from_raw_os_error(5))
        }
        _ => Ok(()),
    };
    let faulty = archive(
        dir.path(),
        Disk {
            hook: Some(Arc::new(hook)),
            ..Disk::default()
        },
    );
    let error = put(&faulty, scratch.path(), 2).unwrap_err();
    assert!(
        error.to_string().contains("could not fsync directory"),
        "{error}"
    );
    assert_eq!(every_wal_file_is_whole(dir.path(), scratch.path()), 1);
    assert!(matches!(
        put(&faulty, scratch.path(), 2).unwrap(),
        Put::Stored { .. }
    ));
}

#[test]
fn after_a_failed_sync_the_same_file_is_not_believed_again() {
    let _calm = forks::none();
    let (dir, scratch) = (tempdir().unwrap(), tempdir().unwrap());
    put(&archive(dir.path(), Disk::default()), scratch.path(), 1).unwrap();
    let failed = AtomicU64::new(0);
    let hook = move |step| match step {
        Step::SyncFile if failed.fetch_add(1, Ordering::SeqCst) == 0 => {
            Err(io::Error::from_raw_os_error(5))
        }
        _ => Ok(()),
    };
    let archive = archive(
        dir.path(),
        Disk {
            hook: Some(Arc::new(hook)),
            ..Disk::default()
        },
    );
    assert!(
        put(&archive, scratch.path(), 1)
            .unwrap_err()
            .to_string()
            .contains("could not fsync")
    );
    // The kernel reports a lost write once; this sync would succeed.
    let error = put(&archive, scratch.path(), 1).unwrap_err();
    assert!(
        error.to_string().contains("an earlier fsync failed"),
        "{error}"
    );
    fs::remove_file(dir.path().join("000000010000000000000001")).unwrap();
    assert!(put(&archive, scratch.path(), 2).is_ok());
}

#[test]
fn staged_names_of_living_writers_stay_and_those_of_dead_ones_go() {
    let _calm = forks::none();
    let dir = tempdir().unwrap();
    let store = DirStore::open_with_named_staging(dir.path()).unwrap();
    let mut living = store.stage("000000010000000000000001").unwrap();
    living.write_all(b"half").unwrap();
    // What a killed writer leaves: the name, and no lock.
    let dead = dir
        .path()
        .join("walden.staged.000000010000000000000002.4711.0123456789abcdef");
    fs::write(&dead, b"half").unwrap();
    assert_eq!(store.remove_leftovers().unwrap(), 1);
    assert!(!dead.exists());
    assert_eq!(names(dir.path()).len(), 1);
    assert_eq!(living.publish().unwrap(), crate::Published::Created);
    assert_eq!(names(dir.path()), ["000000010000000000000001"]);
    assert_eq!(store.remove_leftovers().unwrap(), 0);
}

#[test]
fn a_living_writer_taken_for_dead_publishes_nothing_and_can_try_again() {
    let _calm = forks::none();
    let dir = tempdir().unwrap();
    let store = DirStore::open_with_named_staging(dir.path()).unwrap();
    let staged = store.stage("000000010000000000000001").unwrap();
    fs::remove_file(dir.path().join(&names(dir.path())[0])).unwrap();
    let error = staged.publish().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(names(dir.path()).is_empty());
    assert!(
        store
            .stage("000000010000000000000001")
            .unwrap()
            .publish()
            .is_ok()
    );
}

#[test]
fn a_crash_between_link_and_unlink_costs_the_published_file_nothing() {
    let _calm = forks::none();
    let dir = tempdir().unwrap();
    let key = dir.path().join("000000010000000000000001");
    fs::write(&key, b"whole").unwrap();
    fs::hard_link(
        &key,
        dir.path()
            .join("walden.staged.000000010000000000000001.1.2"),
    )
    .unwrap();
    let store = DirStore::open(dir.path()).unwrap();
    assert_eq!(store.remove_leftovers().unwrap(), 1);
    assert_eq!(fs::read(&key).unwrap(), b"whole");
}

#[test]
fn published_files_are_for_their_owner_and_at_most_for_their_group_to_read() {
    use std::os::unix::fs::PermissionsExt;
    for staging in EVERY_STAGING {
        let (dir, scratch) = (tempdir().unwrap(), tempdir().unwrap());
        put(
            &archive(
                dir.path(),
                Disk {
                    staging,
                    ..Disk::default()
                },
            ),
            scratch.path(),
            1,
        )
        .unwrap();
        for name in names(dir.path()) {
            let mode = fs::metadata(dir.path().join(&name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o737, 0o600, "{name}");
        }
    }
}

#[test]
fn restoring_with_named_staged_files_publishes_whole_files_and_removes_what_the_dead_left() {
    let _calm = forks::none();
    let (dir, scratch, pg_wal) = (tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap());
    for staging in EVERY_STAGING {
        let mut archive = archive(dir.path(), Disk::default());
        archive.disk = Disk {
            staging,
            ..Disk::default()
        };
        put(&archive, scratch.path(), 1).unwrap();
        let leftover = pg_wal.path().join("pgsql_tmp_walden_get_x.1.2");
        fs::write(&leftover, b"half").unwrap();
        let dest = pg_wal.path().join("RECOVERYXLOG");
        let (name, contents) = segment(1);
        archive.get(&name, &dest, None, &Cancel::new()).unwrap();
        assert_eq!(fs::read(&dest).unwrap(), contents);
        assert_eq!(leftover.exists(), staging.begins_unnamed(), "{staging:?}");
        let _ = fs::remove_file(leftover);
        fs::remove_file(dest).unwrap();
        assert!(names(pg_wal.path()).is_empty(), "{staging:?}");
    }
}

const CHILD_DIR: &str = "WALDEN_TEST_CRASH_DIR";
const CHILD_STEP: &str = "WALDEN_TEST_CRASH_STEP";
const CHILD_STAGING: &str = "WALDEN_TEST_CRASH_STAGING";

/// Not a test by itself: what the crash tests run in a process of its own and have killed.
#[test]
fn child_that_archives_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else {
        return;
    };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (last_step, steps) = (number(CHILD_STEP), AtomicU64::new(0));
    let staging = EVERY_STAGING[usize::try_from(number(CHILD_STAGING)).unwrap()];
    let hook = move |_| {
        if steps.fetch_add(1, Ordering::SeqCst) == last_step {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL)?;
        }
        Ok(())
    };
    let dir = Path::new(&dir);
    let archive = archive(
        &dir.join("archive"),
        Disk {
            staging,
            hook: Some(Arc::new(hook)),
            ..Disk::default()
        },
    );
    for number in 1.. {
        put(&archive, &dir.join("sources"), number).unwrap();
        println!("\nacknowledged {number}");
    }
}

fn spawn(dir: &TempDir, staging: usize, step: u64) -> Child {
    for sub in ["archive", "sources"] {
        fs::create_dir_all(dir.path().join(sub)).unwrap();
    }
    let child = "store::dir::durable::tests::child_that_archives_until_it_is_killed";
    let _alone = forks::one();
    Command::new(std::env::current_exe().unwrap())
        .args([child, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir.path())
        .env(CHILD_STEP, step.to_string())
        .env(CHILD_STAGING, staging.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits for the child to be killed; which numbers had it acknowledged?
fn acknowledged(child: &mut Child, kill_after: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if let Some(number) = line.unwrap().strip_prefix("acknowledged ") {
            numbers.push(number.parse().unwrap());
        }
        if numbers.len() == kill_after {
            let _ = child.kill();
        }
    }
    assert!(!child.wait().unwrap().success());
    numbers
}

fn check_after_crash(dir: &TempDir, acknowledged: &[u64]) {
    let (root, scratch) = (dir.path().join("archive"), tempdir().unwrap());
    let whole = every_wal_file_is_whole(&root, scratch.path());
    let archive = archive(&root, Disk::default());
    for number in acknowledged {
        let (name, _) = segment(*number);
        let dest = scratch.path().join(name.to_string());
        let got = archive.get(&name, &dest, None, &Cancel::new()).unwrap();
        assert!(
            matches!(got, Got::Restored { .. }),
            "{name} was acknowledged and is lost"
        );
    }
    assert!(whole == acknowledged.len() || whole == acknowledged.len() + 1);
    only_known_names_remain(&root);
    // The server offers again what was not acknowledged, and also what was.
    for number in 1..=acknowledged.len() as u64 + 1 {
        put(&archive, scratch.path(), number).unwrap();
    }
}

#[test]
fn a_crash_at_any_step_loses_nothing_acknowledged_and_shows_nothing_half_written() {
    for (staging, kind) in EVERY_STAGING.into_iter().enumerate() {
        let mut seen = 0;
        for step in 0..STEPS_MAX {
            let dir = tempdir().unwrap();
            let numbers = acknowledged(&mut spawn(&dir, staging, step), usize::MAX);
            seen = seen.max(numbers.len());
            check_after_crash(&dir, &numbers);
            // The binding and two files: every step of both has been the last.
            if numbers.len() == 2 {
                break;
            }
        }
        assert_eq!(seen, 2, "{kind:?} never archives two files");
    }
}

#[test]
fn a_writer_killed_from_outside_in_mid_work_loses_nothing_acknowledged() {
    for staging in 0..EVERY_STAGING.len() {
        for kill_after in [1, 4, 7] {
            let dir = tempdir().unwrap();
            let numbers = acknowledged(&mut spawn(&dir, staging, u64::MAX), kill_after);
            assert!(numbers.len() >= kill_after);
            check_after_crash(&dir, &numbers);
        }
    }
}
