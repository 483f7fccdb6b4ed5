//! A store, or something before it, answers a listing with success and with what is not a complete listing: that is no archive
//! that ends.

use anyhow::{Context, Result, ensure};
use lab::stores::{Make, Reply, Script, Step};
use lab::{Settings, Shutdown, scenario};

use crate::common::{SHORT_RESTORE_TIMEOUT, SMALL_MB, must_recover};
use crate::faces::{WAYS, Way, must_end_over};
use crate::in_store::InStore;

/// Answers to a request for a listing, none of which is one.
const LIES: [&str; 5] = [
    "<Error><Code>SlowDown</Code></Error>",
    "<html><body>Welcome to the proxy</body></html>",
    "<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>",
    "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
    "<ListBucketResult><KeyCount>7</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>",
];

/// Settings of a server that restores from there, in this way.
fn settings(archive: &InStore<'_>, location: &str, way: Way) -> Result<Settings> {
    let settings = archive
        .archiving()?
        .with("walden.archive", location)
        .with("walden.restore_timeout", SHORT_RESTORE_TIMEOUT);
    Ok(match way {
        Way::Library => settings.with("walden.restore_library", "walden"),
        Way::Command => settings.with("restore_command", "walden restore %f %p %r"),
    })
}

#[test]
fn what_a_store_answers_instead_of_a_listing_is_not_the_end_of_wal() -> Result<()> {
    scenario(|lab| {
        let archive = InStore::new(lab, Make::SeaweedFs)?;
        let primary = lab.primary("primary", SMALL_MB, archive.archiving()?)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=3)?;
        primary.wait_until_archived()?;
        let contents = primary.contents()?;
        primary.stop(Shutdown::Immediate)?;

        let script = Script::before(&archive.store)?;
        let location = archive.location_by(&script)?;
        for (index, lie) in LIES.into_iter().enumerate() {
            // The judgement is the same in both ways; each is tried with one of them.
            let way = *WAYS.get(index % WAYS.len()).context("a way")?;
            let recovered = lab.restored(
                &format!("recovered{index}"),
                &backup,
                settings(&archive, &location, way)?,
            )?;
            recovered.touch("recovery.signal")?;
            script.follow(vec![Step::on(
                "GET",
                "list-type=2",
                Reply::Whole(200, lie.to_owned()),
            )]);
            must_end_over(&recovered, "").with_context(|| format!("{way:?}, {lie}"))?;
            ensure!(script.taken() != [0], "{lie} was not asked for");
        }
        script.follow(Vec::new());
        let honest = lab.restored(
            "honest",
            &backup,
            settings(&archive, &location, Way::Library)?,
        )?;
        honest.touch("recovery.signal")?;
        must_recover(&honest, &contents)
    })
}
