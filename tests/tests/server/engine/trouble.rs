//! Stores that fail: what is acknowledged is there, nothing is half there, and all goes on afterwards.

#![expect(clippy::print_stdout)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use archive::{Archive, Backoff, Cancel, Compression, Error, ErrorKind, Got, Location, Put};
use lab::stores::{Behaviour, Fault, Make, Proxy, Store};
use lab::{Lab, scenario};

use super::common::{SYSTEM, contents, open, put, segment, source, with_credentials};

/// Everything that can happen to a request.
const FAULTS: [Fault; 7] = [
    Fault::Status(500),
    Fault::Status(503),
    Fault::Status(429),
    Fault::Status(403),
    Fault::ResetBefore,
    Fault::ResetAfter,
    Fault::Truncated,
];

/// Segments that go both ways under faults.
const SEGMENTS: u64 = 2000;

/// How often a file is offered or asked for, at most, as a server does.
const TRIES_MAX: u32 = 20;

struct Scene<'lab> {
    store: Store<'lab>,
    proxy: Proxy,
    location: Location,
    folder: std::path::PathBuf,
}

impl<'lab> Scene<'lab> {
    fn new(lab: &'lab Lab, make: Make) -> Result<Scene<'lab>> {
        let store = Store::start(lab, make, "archive")?;
        let proxy = Proxy::to(&store)?;
        let location = with_credentials(&store, &store.url_through(&proxy, "wal"))?.parse()?;
        Ok(Scene {
            store,
            proxy,
            location,
            folder: lab.directory("files")?,
        })
    }
}

/// Tries again what may work later; how often it failed.
fn persistently<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> Result<(T, u32)> {
    let mut pauses = Backoff::at_most(Duration::from_millis(200));
    loop {
        match attempt() {
            Ok(done) => return Ok((done, pauses.tries())),
            Err(error) => {
                ensure!(
                    error.kind() == ErrorKind::Unavailable,
                    "{:?}: {error}",
                    error.kind()
                );
                let pause = pauses.pause();
                ensure!(pauses.tries() < TRIES_MAX, "{error}");
                Cancel::new().wait(pause);
            }
        }
    }
}

/// Does something for every segment, four at a time.
fn for_each(count: u64, what: impl Fn(u64) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicU64::new(1);
    let failed = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let is_over = number > count || failed.lock().is_ok_and(|it| it.is_some());
                    if is_over {
                        return;
                    }
                    if let Err(error) = what(number)
                        && let Ok(mut failed) = failed.lock()
                    {
                        failed.get_or_insert(error);
                    }
                }
            });
        }
    });
    match failed.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(error),
        Err(_) => anyhow::bail!("a thread died"),
    }
}

fn restored(archive: &Archive, folder: &Path, number: u64) -> Result<u32> {
    let name = segment(number)?;
    let dest = folder.join(format!("{name}.restored"));
    let (got, failures) = persistently(|| archive.get(&name, &dest, Some(SYSTEM), &Cancel::new()))?;
    ensure!(got != Got::Absent, "{name} is called absent");
    ensure!(
        std::fs::read(&dest)? == contents(&name, 1)?,
        "{name} has other bytes"
    );
    std::fs::remove_file(&dest)?;
    Ok(failures)
}

/// A tenth of all requests fails, over many segments, both ways.
fn a_tenth_fails(make: Make) -> Result<()> {
    scenario(|lab| {
        let scene = Scene::new(lab, make)?;
        let (archive, _) = persistently(|| {
            archive::Archive::open(
                &scene.location,
                archive::Options {
                    compression: Compression::Zstd(1),
                    ..archive::Options::default()
                },
                archive::spawn_plainly,
            )
        })?;
        let seed = lab::seed()?;
        println!("WALDEN_TEST_SEED={seed}");
        scene
            .proxy
            .behave(Behaviour::default().sometimes(100, seed, &FAULTS))?;
        let (failures, again) = (AtomicU64::new(0), AtomicU64::new(0));
        for_each(SEGMENTS, |number| {
            let name = segment(number)?;
            let path = source(&scene.folder, &name, 1)?;
            let (put, failed) =
                persistently(|| archive.put_new(&name, &path, Some(SYSTEM), &Cancel::new()))?;
            failures.fetch_add(u64::from(failed), Ordering::SeqCst);
            again.fetch_add(u64::from(put == Put::AlreadyStored), Ordering::SeqCst);
            Ok(std::fs::remove_file(path)?)
        })?;
        for_each(SEGMENTS, |number| {
            let failed = restored(&archive, &scene.folder, number)?;
            failures.fetch_add(u64::from(failed), Ordering::SeqCst);
            Ok(())
        })?;
        let faults = scene.proxy.requests();
        let faults = faults
            .iter()
            .filter(|request| request.fault.is_some())
            .count();
        ensure!(
            faults as u64 > SEGMENTS / 5,
            "only {faults} requests failed"
        );
        println!(
            "{make}: {faults} requests failed, {failures:?} files were tried again, {again:?} were there already"
        );

        // Every segment once, and beside them what an archive keeps for itself.
        let there = scene.store.objects()?;
        let names: BTreeSet<_> = there.iter().filter_map(|(key, _)| key.get(4..28)).collect();
        let segments = there.iter().filter(|(key, _)| !key.contains("walden"));
        let count = segments.count() as u64;
        ensure!(count == SEGMENTS, "{count} segments are stored");
        ensure!(names.len() as u64 >= SEGMENTS, "{} names", names.len());
        let others: Vec<_> = there
            .iter()
            .filter(|(key, _)| key.contains("walden."))
            .collect();
        ensure!(others.len() <= 3, "{others:?}");
        Ok(())
    })
}

#[test]
fn with_a_tenth_of_all_requests_failing_two_thousand_segments_go_both_ways_on_s3() -> Result<()> {
    a_tenth_fails(Make::SeaweedFs)
}

#[test]
fn with_a_tenth_of_all_requests_failing_two_thousand_segments_go_both_ways_on_azure() -> Result<()>
{
    a_tenth_fails(Make::Azurite)
}

/// A store that answers nothing right is never taken for one that has looked.
fn trouble_is_never_absence(make: Make) -> Result<()> {
    scenario(|lab| {
        let scene = Scene::new(lab, make)?;
        let archive = open(&scene.location, Compression::Zstd(1))?;
        put(&archive, &scene.folder, &segment(1)?, 1)?;
        let troubles = [
            Behaviour::default().always(Fault::Status(403)),
            Behaviour::default().always(Fault::Status(404)),
            Behaviour::default().always(Fault::Status(500)),
            Behaviour::default().always(Fault::ResetAfter),
            Behaviour::default().always(Fault::Truncated),
            Behaviour::default().refuse(),
        ];
        let dest = scene.folder.join("dest");
        for trouble in troubles {
            scene.proxy.behave(trouble.clone())?;
            for number in [1, 2] {
                let got = archive.get(&segment(number)?, &dest, Some(SYSTEM), &Cancel::new());
                let error = got
                    .err()
                    .with_context(|| format!("{trouble:?}: an answer"))?;
                ensure!(
                    error.kind() == ErrorKind::Unavailable,
                    "{trouble:?}: {error}"
                );
                let name = segment(number + 10)?;
                let path = source(&scene.folder, &name, 1)?;
                let put = archive.put_new(&name, &path, Some(SYSTEM), &Cancel::new());
                let error = put
                    .err()
                    .with_context(|| format!("{trouble:?}: archived"))?;
                ensure!(
                    error.kind() == ErrorKind::Unavailable,
                    "{trouble:?}: {error}"
                );
            }
        }
        scene.proxy.behave(Behaviour::default())?;
        for number in [11, 12] {
            put(&archive, &scene.folder, &segment(number)?, 1)?;
        }
        let got = archive.get(&segment(2)?, &dest, Some(SYSTEM), &Cancel::new())?;
        ensure!(got == Got::Absent, "{got:?}");
        Ok(())
    })
}

#[test]
fn trouble_with_s3_is_neither_absence_nor_success() -> Result<()> {
    trouble_is_never_absence(Make::SeaweedFs)
}

#[test]
fn trouble_with_azure_is_neither_absence_nor_success() -> Result<()> {
    trouble_is_never_absence(Make::Azurite)
}

#[test]
fn trouble_with_a_fake_of_google_cloud_storage_is_neither_absence_nor_success() -> Result<()> {
    trouble_is_never_absence(Make::GcsFake)
}
