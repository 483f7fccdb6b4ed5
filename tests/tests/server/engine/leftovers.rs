//! What a dead process leaves in a store is removed: objects without an archive's name, and uploads in parts that were
//! begun and never finished. What others may still be at is left alone, and so is what is not ours.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use archive::{CloudStore, Compression, Staged, Store as _, spawn_plainly};
use lab::stores::{Make, Store};
use lab::{Lab, scenario, wait_until};

use super::common::{open, place, put, segment};

/// More than is sent at once, so that it goes in parts.
const LARGE_BYTES: usize = 40 * 1024 * 1024;

fn cloud(store: &Store<'_>, prefix: &str) -> Result<CloudStore> {
    match place(store, prefix)? {
        archive::Location::Cloud(address) => Ok(CloudStore::open(&address, spawn_plainly)?),
        other => anyhow::bail!("{other} is no place in a store"),
    }
}

/// Begins to send a large object, of which the first part arrives.
fn begin(cloud: &CloudStore, key: &str) -> Result<Box<dyn Staged>> {
    let mut staged = cloud.stage(key)?;
    staged.write_all(&vec![7; LARGE_BYTES])?;
    Ok(staged)
}

/// Dies over it: an object that is dropped would be given up.
fn die_over(cloud: &CloudStore, key: &str) -> Result<()> {
    std::mem::forget(begin(cloud, key)?);
    Ok(())
}

fn uploads_are_given_up(make: Make) -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, make, "archive")?;
        let (ours, theirs) = (cloud(&store, "wal")?, cloud(&store, "wal/other")?);
        for number in 1..=3 {
            die_over(&ours, &segment(number)?.to_string())?;
        }
        die_over(&theirs, &segment(4)?.to_string())?;
        let begun = store.unfinished_uploads()?;
        ensure!(begun.len() == 4, "{begun:?}");

        // As old as they are, somebody may still be at it.
        ensure!(ours.remove_leftovers()? == 0, "young uploads were given up");
        ensure!(store.unfinished_uploads()? == begun, "an upload is gone");

        // Stores tell the second in which it was begun, some the next one.
        let mut count = 0;
        wait_until("uploads to be old enough", || {
            count += ours.remove_leftovers_older_than(Duration::ZERO)?;
            Ok(count >= 3)
        })?;
        ensure!(count == 3, "{count} were given up");
        let left = store.unfinished_uploads()?;
        let [theirs] = left.as_slice() else {
            anyhow::bail!("{left:?}");
        };
        ensure!(theirs.starts_with("wal/other/walden.staged."), "{theirs}");
        ensure!(store.objects()?.is_empty(), "{:?}", store.objects()?);
        ensure!(
            ours.remove_leftovers_older_than(Duration::ZERO)? == 0,
            "there was more"
        );
        Ok(())
    })
}

#[test]
fn unfinished_uploads_of_dead_processes_are_given_up_in_s3() -> Result<()> {
    uploads_are_given_up(Make::SeaweedFs)
}

#[test]
fn unfinished_uploads_of_dead_processes_are_given_up_over_tls() -> Result<()> {
    uploads_are_given_up(Make::SeaweedFsTls)
}

#[test]
fn unfinished_uploads_of_dead_processes_are_given_up_in_the_fake_of_googles_store() -> Result<()> {
    uploads_are_given_up(Make::GcsFake)
}

/// Archives a file there, if it has to be with `unsafe_overwrite`, and looks for leftovers.
fn clearing_up_does_no_harm(lab: &Lab, make: Make) -> Result<()> {
    let store = Store::start(lab, make, "archive")?;
    let ours = cloud(&store, "wal")?;
    let mut staged = ours.stage("walden.staged.x.0123456789abcdef")?;
    staged.write_all(b"left behind")?;
    staged.publish()?;
    let mut count = 0;
    wait_until("an object to be old enough", || {
        count += ours.remove_leftovers_older_than(Duration::ZERO)?;
        Ok(count >= 1)
    })?;
    ensure!(count == 1, "{make}: {count} were removed");
    ensure!(store.objects()?.is_empty(), "{:?}", store.objects()?);
    Ok(())
}

#[test]
fn objects_are_cleared_up_whether_a_store_lists_uploads_or_not() -> Result<()> {
    for make in [
        Make::SeaweedFs,
        Make::Azurite,
        Make::GcsFake,
        Make::S3Rver,
        Make::S3sFs,
    ] {
        scenario(|lab| clearing_up_does_no_harm(lab, make))?;
    }
    Ok(())
}

#[test]
fn files_of_an_archive_are_no_leftovers() -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, Make::SeaweedFs, "archive")?;
        let folder = lab.directory("files")?;
        let archive = open(&place(&store, "wal")?, Compression::None)?;
        put(&archive, &folder, &segment(1)?, 1)?;
        let before = store.objects()?;
        let ours = cloud(&store, "wal")?;
        ensure!(
            ours.remove_leftovers_older_than(Duration::ZERO)? == 0,
            "something was removed"
        );
        ensure!(store.objects()? == before, "{:?}", store.objects()?);
        Ok(())
    })
}
