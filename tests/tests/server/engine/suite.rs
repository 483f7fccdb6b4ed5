//! The conformance suite of archives, on every kind of store.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use archive::suite::{Subject, run, seed_from_environment};
use archive::{CloudStore, Error, ErrorKind, Location, Store as Trait, spawn_plainly};
use lab::scenario;
use lab::stores::{Make, Store};

use super::common::place;

/// Places in one store, a new one each time, with two clients each.
struct Places<'a, 'lab> {
    store: &'a Store<'lab>,
    number: u32,
    clients: Vec<CloudStore>,
    turn: AtomicUsize,
}

/// How many processes there seem to be.
const CLIENTS: usize = 2;

impl Subject for Places<'_, '_> {
    fn reset(&mut self) -> Result<(), Error> {
        self.number += 1;
        let location = place(self.store, &format!("suite/{}", self.number));
        let location =
            location.map_err(|error| Error::new(ErrorKind::Unusable, error.to_string()))?;
        let Location::Cloud(address) = location else {
            return Err(Error::new(ErrorKind::Unusable, "a directory"));
        };
        let clients = (0..CLIENTS).map(|_| CloudStore::open(&address, spawn_plainly));
        self.clients = clients.collect::<Result<_, _>>()?;
        Ok(())
    }

    fn open(&self) -> Result<Box<dyn Trait>, Error> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % CLIENTS;
        let client = self.clients.get(turn).cloned();
        let client = client.ok_or_else(|| Error::new(ErrorKind::Unusable, "not begun"))?;
        Ok(Box::new(client))
    }
}

fn keeps_every_promise(make: Make) -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, make, "archive")?;
        let mut places = Places {
            store: &store,
            number: 0,
            clients: Vec::new(),
            turn: AtomicUsize::new(0),
        };
        let scratch = lab.directory("scratch")?;
        let report = run(&mut places, &scratch, seed_from_environment());
        assert!(report.all_kept(), "{make}: {report}");
        Ok(())
    })
}

#[test]
fn s3_keeps_every_promise() -> Result<()> {
    keeps_every_promise(Make::SeaweedFs)
}

#[test]
fn s3_with_tls_keeps_every_promise() -> Result<()> {
    keeps_every_promise(Make::SeaweedFsTls)
}

#[test]
fn azure_keeps_every_promise() -> Result<()> {
    keeps_every_promise(Make::Azurite)
}

#[test]
fn a_fake_of_google_cloud_storage_keeps_every_promise() -> Result<()> {
    keeps_every_promise(Make::GcsFake)
}
