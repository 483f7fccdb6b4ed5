//! Archives whose files have several forms: after a change of the compression, or made by other programs.

use std::fs;

use anyhow::{Result, ensure};
use archive::{Archive, Cancel, Compression, ErrorKind, Form, Put};
use lab::scenario;
use lab::stores::{Make, Proxy, Store};

use super::common::{
    SYSTEM, copy_by_hand, must_restore, open, place, put, segment, source, with_credentials,
};

/// What came of offering a segment.
fn offered(
    archive: &Archive,
    folder: &std::path::Path,
    number: u64,
    variant: u64,
) -> Result<Result<Put, ErrorKind>> {
    let name = segment(number)?;
    let source = source(folder, &name, variant)?;
    let put = archive.put_new(&name, &source, Some(SYSTEM), &Cancel::new());
    Ok(put.map_err(|error| error.kind()))
}

#[test]
fn a_new_form_is_used_at_once_and_the_old_one_stays_readable() -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, Make::SeaweedFs, "archive")?;
        let folder = lab.directory("files")?;
        let location = place(&store, "wal")?;
        let zstd = open(&location, Compression::Zstd(1))?;
        let lz4 = open(&location, Compression::Lz4)?;
        put(&zstd, &folder, &segment(1)?, 1)?;
        put(&lz4, &folder, &segment(2)?, 1)?;
        // Whatever it is stored as, a name is taken.
        ensure!(offered(&lz4, &folder, 1, 1)? == Ok(Put::AlreadyStored));
        ensure!(offered(&zstd, &folder, 2, 2)? == Err(ErrorKind::Conflict));
        for archive in [&zstd, &lz4] {
            must_restore(archive, &folder, &segment(1)?, 1)?;
            must_restore(archive, &folder, &segment(2)?, 1)?;
        }
        let forms: Vec<_> = [1, 2]
            .into_iter()
            .map(|number| Ok(zstd.form_of(&segment(number)?.to_string())?))
            .collect::<Result<_>>()?;
        ensure!(forms == [Some(Form::Zstd), Some(Form::Lz4)], "{forms:?}");
        Ok(())
    })
}

#[test]
fn a_content_type_is_stored_and_decides_nothing() -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, Make::SeaweedFs, "archive")?;
        let proxy = Proxy::to(&store)?;
        let folder = lab.directory("files")?;
        let location = with_credentials(&store, &store.url_through(&proxy, "wal"))?.parse()?;
        let archive = open(&location, Compression::Zstd(1))?;
        put(&archive, &folder, &segment(1)?, 1)?;
        // Plain, and no content type is told of it.
        copy_by_hand(&location, &segment(2)?, 1)?;
        must_restore(&archive, &folder, &segment(1)?, 1)?;
        must_restore(&archive, &folder, &segment(2)?, 1)
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
        ensure!(offered(&archive, &folder, 2, 1)? == Ok(Put::AlreadyStored));
        ensure!(offered(&archive, &folder, 3, 2)? == Err(ErrorKind::Conflict));
        put(&archive, &folder, &segment(4)?, 1)?;
        for number in 1..=4 {
            must_restore(&archive, &folder, &segment(number)?, 1)?;
        }
        Ok(fs::remove_dir_all(&folder)?)
    })
}
