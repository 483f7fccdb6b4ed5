//! Two servers with the same system identifier and different WAL, which archive one name at the same time.

#![expect(clippy::print_stdout)]

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use archive::{Archive, Cancel, Compression, Error, ErrorKind, Put};
use lab::scenario;
use lab::stores::{Make, Store};
use wal::WalFileName;

use super::common::{SYSTEM, contents, must_restore, open, place, segment, source};

/// How often they meet.
const ROUNDS: u64 = 1000;

/// Each offers the name with contents of its own, 1 and 2; says which of them is stored.
fn meet(servers: &[Archive; 2], name: &WalFileName, folder: &Path) -> Result<u64> {
    let [one, other] = servers;
    let sources = [source(folder, name, 1)?, source(folder, name, 2)?];
    let start = Barrier::new(2);
    let offer = |server: &Archive, source: &Path| -> Result<Put, Error> {
        start.wait();
        server.put_new(name, source, Some(SYSTEM), &Cancel::new())
    };
    let [first, second] = &sources;
    let (first, second) = thread::scope(|scope| {
        let first = scope.spawn(|| offer(one, first));
        let second = scope.spawn(|| offer(other, second));
        (first.join().ok(), second.join().ok())
    });
    for path in &sources {
        fs::remove_file(path)?;
    }
    match (
        first.context("a server died")?,
        second.context("a server died")?,
    ) {
        (Ok(Put::Stored { .. }), Err(error)) if error.kind() == ErrorKind::Conflict => Ok(1),
        (Err(error), Ok(Put::Stored { .. })) if error.kind() == ErrorKind::Conflict => Ok(2),
        outcome => bail!("{name}: {outcome:?}"),
    }
}

fn one_wins(make: Make) -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, make, "archive")?;
        let folder = lab.directory("files")?;
        let location = place(&store, "wal")?;
        let server = || open(&location, Compression::Zstd(1));
        let (servers, reader) = ([server()?, server()?], server()?);
        let mut won_by_first = 0;
        for round in 1..=ROUNDS {
            let name = segment(round)?;
            ensure!(
                contents(&name, 1)? != contents(&name, 2)?,
                "there is nothing to tell"
            );
            let winner = meet(&servers, &name, &folder)?;
            must_restore(&reader, &folder, &name, winner)?;
            won_by_first += u64::from(winner == 1);
        }
        println!("{make}: the first won {won_by_first} of {ROUNDS}");
        // Both must have had a chance, or there was no race.
        ensure!(
            (1..ROUNDS).contains(&won_by_first),
            "the first won {won_by_first}"
        );
        Ok(())
    })
}

#[test]
fn on_s3_one_of_two_diverged_servers_wins_each_of_a_thousand_rounds() -> Result<()> {
    one_wins(Make::SeaweedFs)
}

#[test]
fn on_azure_one_of_two_diverged_servers_wins_each_of_a_thousand_rounds() -> Result<()> {
    one_wins(Make::Azurite)
}

#[test]
fn on_a_fake_of_google_cloud_storage_one_of_two_diverged_servers_wins_each_of_a_thousand_rounds()
-> Result<()> {
    one_wins(Make::GcsFake)
}
