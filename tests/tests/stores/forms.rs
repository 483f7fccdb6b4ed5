//! Archives whose files have several forms: after a change of the compression, or made by other programs.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use archive::{
    Archive, Cancel, CloudStore, Compression, Error, ErrorKind, Got, Location, Put, Store as _,
    spawn_plainly,
};
use lab::scenario;
use lab::stores::{Make, Proxy, Store};

use crate::common::{
    SYSTEM, copy_by_hand, must_restore, open, place, put, segment, source, with_credentials,
};

/// What came of offering a segment.
fn offered(
    archive: &Archive,
    folder: &std::path::Path,
    number: u64,
    variant: u64,
) -> Result<Result<Put, Error>> {
    let name = segment(number)?;
    let source = source(folder, &name, variant)?;
    Ok(archive.put_new(&name, &source, Some(SYSTEM), &Cancel::new()))
}

#[test]
fn a_new_form_waits_until_other_servers_know_of_it_and_the_old_one_stays_readable() -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, Make::SeaweedFs, "archive")?;
        let folder = lab.directory("files")?;
        let location = place(&store, "wal")?;
        let zstd = open(&location, Compression::Zstd(1))?;
        put(&zstd, &folder, &segment(1)?, 1)?;

        let lz4 = open(&location, Compression::Lz4)?;
        let refused = offered(&lz4, &folder, 2, 1)?
            .err()
            .context("the new form was used at once")?;
        ensure!(refused.kind() == ErrorKind::Unavailable, "{refused}");
        ensure!(refused.to_string().contains("NAME.lz4"), "{refused}");
        // The old form goes on meanwhile, and both are looked for.
        put(&zstd, &folder, &segment(2)?, 1)?;
        must_restore(&lz4, &folder, &segment(1)?, 1)?;
        must_restore(&lz4, &folder, &segment(2)?, 1)
    })
}

#[test]
fn a_store_tells_its_time_by_the_clock_of_what_is_stored_there() -> Result<()> {
    for make in Make::HONEST {
        scenario(|lab| {
            let store = Store::start(lab, make, "archive")?;
            let Location::Cloud(address) = place(&store, "wal")? else {
                bail!("it is no place in a store");
            };
            let cloud = CloudStore::open(&address, spawn_plainly)?;
            let tell = || cloud.now()?.context("it tells no time");
            let before = tell()?;
            cloud.stage("key")?.publish()?;
            let stored = cloud.open("key")?.context("it is absent")?.modified;
            let after = tell()?;
            ensure!(
                before <= stored && stored <= after,
                "{make}: {before:?}, {stored:?}, {after:?}"
            );
            // Some minutes later would be too far off to be of use.
            let took = after.duration_since(before)?;
            ensure!(took < Duration::from_secs(60), "{make}: {took:?}");
            let left = store.objects()?;
            ensure!(left.len() == 1, "{make}: {left:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_file_copied_there_by_hand_in_another_form_is_found_before_anything_is_called_absent()
-> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, Make::SeaweedFs, "archive")?;
        let proxy = Proxy::to(&store)?;
        let folder = lab.directory("files")?;
        let location = with_credentials(&store, &store.url_through(&proxy, "wal"))?.parse()?;
        let archive = open(&location, Compression::Zstd(1))?;
        put(&archive, &folder, &segment(1)?, 1)?;
        let name = segment(2)?;
        copy_by_hand(&location, &name, 1)?;
        must_restore(&archive, &folder, &name, 1)?;

        // What is really absent is called so by a store that was asked for every form.
        proxy.clear();
        let dest = folder.join("absent");
        let got = archive.get(&segment(3)?, &dest, Some(SYSTEM), &Cancel::new())?;
        ensure!(got == Got::Absent && !dest.exists(), "{got:?}");
        let listed = proxy
            .requests()
            .into_iter()
            .filter(|request| request.path.contains("list-type"));
        ensure!(listed.count() == 1, "{:?}", proxy.requests());
        Ok(())
    })
}

#[test]
fn an_archive_of_plain_files_from_elsewhere_is_read_and_carried_on() -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, Make::SeaweedFs, "archive")?;
        let folder = lab.directory("files")?;
        let location = place(&store, "wal")?;
        for number in 1..=3 {
            let name = segment(number)?;
            copy_by_hand(&location, &name, 1)?;
        }
        let archive = open(&location, Compression::Zstd(1))?;
        // The same file again is known, another is refused, a new one is stored.
        ensure!(matches!(
            offered(&archive, &folder, 2, 1)?,
            Ok(Put::AlreadyStored)
        ));
        let conflict = offered(&archive, &folder, 3, 2)?
            .err()
            .context("overwritten")?;
        ensure!(conflict.kind() == ErrorKind::Conflict, "{conflict}");
        put(&archive, &folder, &segment(4)?, 1)?;
        for number in 1..=4 {
            must_restore(&archive, &folder, &segment(number)?, 1)?;
        }
        let there = store.objects()?;
        ensure!(
            !there.iter().any(|(key, _)| key.contains("walden.form")),
            "{there:?}"
        );
        Ok(fs::remove_dir_all(&folder)?)
    })
}
