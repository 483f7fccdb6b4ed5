//! Stores that do not protect stored objects from being overwritten are found out before the first file.

use anyhow::{Context, Result, ensure};
use archive::{Compression, ErrorKind};
use lab::scenario;
use lab::stores::{Make, Store};

use super::common::{open, place, put, segment, with_credentials};

fn is_found_out(make: Make) -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, make, "archive")?;
        let folder = lab.directory("files")?;
        let archive = open(&place(&store, "wal")?, Compression::None)?;
        let refused = put(&archive, &folder, &segment(1)?, 1).err();
        let refused = refused.context("a file was archived")?;
        let error = refused.downcast_ref::<archive::Error>();
        let error = error.context("another error")?;
        ensure!(error.kind() == ErrorKind::Unusable, "{error}");
        ensure!(error.to_string().contains("being overwritten"), "{error}");
        let hint = error.hint().unwrap_or_default();
        ensure!(hint.contains("unsafe_overwrite=true"), "{hint}");
        let left = store.objects()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
}

#[test]
fn a_store_that_ignores_the_condition_is_found_out() -> Result<()> {
    is_found_out(Make::S3Rver)
}

#[test]
fn a_store_that_looks_first_and_then_writes_is_found_out() -> Result<()> {
    is_found_out(Make::S3sFs)
}

#[test]
fn who_chooses_to_can_archive_there_and_what_is_there_is_still_compared() -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, Make::S3Rver, "archive")?;
        let folder = lab.directory("files")?;
        let url = format!("{}&unsafe_overwrite=true", store.url("wal"));
        let location = with_credentials(&store, &url)?.parse()?;
        let archive = open(&location, Compression::None)?;
        let name = segment(1)?;
        put(&archive, &folder, &name, 1)?;
        let put_again = put(&archive, &folder, &name, 1)?;
        ensure!(put_again == archive::Put::AlreadyStored, "{put_again:?}");
        let conflict = put(&archive, &folder, &name, 2)
            .err()
            .context("overwritten")?;
        let error = conflict
            .downcast_ref::<archive::Error>()
            .context("another error")?;
        ensure!(error.kind() == ErrorKind::Conflict, "{error}");
        Ok(())
    })
}
