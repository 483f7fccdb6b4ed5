//! What an object store can do, found out by trying.
//!
//! Guarantees: what is tried has a name of its own that no archive uses, and is removed again. A store that overwrites is
//! always found out; one that looks first and then writes is, as far as a race shows it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::base::spawn::Spawn;
use crate::error::{Error, ErrorKind};
use crate::store::waist::{Published, Staged, Trial};

use super::address::Address;
use super::asking::limit_for;
use super::failure::Meaning;
use super::pages::From;
use super::requests::Shared;
use super::staged::{CloudStaged, SINGLE_BYTES_MAX};
use super::store::CloudStore;

/// What the names of objects begin with that only serve to try something.
pub(super) const PROBE_PREFIX: &str = "walden.probe.";

/// How many writers race for one name.
const RACERS: u8 = 8;

/// How often they race, at most: a store that looks first and then writes lets one of eight win by luck now and then (one
/// that was tried did so once in 25 races).
const RACES_MAX: u32 = 4;

/// A store whose races take so long has its writers wait for one another, and one race is enough.
const RACING_ENOUGH: Duration = Duration::from_secs(1);

/// How many objects are listed page by page.
const LISTED: usize = 3;

/// How many requests the time of one is taken from.
const ROUND_TRIPS: usize = 5;

/// What was found out about a store by trying. What could not be tried says why.
#[derive(Debug)]
pub struct Probed {
    /// Whether it creates an object only if it is absent, also when several come at once.
    pub creation: Result<(), Error>,
    /// Whether what was created is listed at once, also where a listing takes several pages.
    pub listing: Result<(), Error>,
    /// Whether an object too large for one request is created in parts, and only if it is absent.
    pub parts: Result<(), Error>,
    /// How long a small request takes, the middle of five.
    pub round_trip: Result<Duration, Error>,
    /// How far the store's clock is from this machine's, and whether it is ahead; to a second, as stores tell it.
    pub skew: Result<(Duration, bool), Error>,
}

impl CloudStore {
    /// Tries what the archive at this address can do. Takes some tens of requests, and writes and removes objects whose
    /// names begin with `walden.probe.`. What is tried next is told to `told`.
    ///
    /// Fails as [`CloudStore::open`] does, and with [`crate::ErrorKind::Unavailable`] if nothing can be created there, so
    /// that nothing can be tried.
    pub fn probe(
        address: &Address,
        spawn: Spawn,
        told: &mut dyn FnMut(&'static str),
    ) -> Result<Probed, Error> {
        let store = CloudStore::open(address, spawn)?;
        let shared = &store.shared;
        told("creating what is absent");
        let creation = prove_creation(shared, Trial::Thorough);
        let creation = match creation {
            Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
            tried => tried,
        };
        told("storing large files in parts");
        let parts = try_parts(&store);
        told("listing, time and clock");
        Ok(Probed {
            creation,
            listing: try_listing(shared),
            parts,
            round_trip: with_object(shared, |key| round_trip(shared, key)),
            skew: with_object(shared, |key| skew(shared, key)),
        })
    }
}

/// Fails with [`crate::ErrorKind::Unusable`] if the store overwrites, [`crate::ErrorKind::Unavailable`] if that could
/// not be found out.
pub(super) fn prove_creation(shared: &Shared, trial: Trial<'_>) -> Result<(), Error> {
    match trial {
        Trial::Brief => prove_once(shared, |key| again(shared, key).map(drop)),
        Trial::Thorough => {
            let begun = Instant::now();
            for _ in 0..RACES_MAX {
                prove_once(shared, |key| race(shared, key))?;
                if begun.elapsed() >= RACING_ENOUGH {
                    break;
                }
            }
            Ok(())
        }
        Trial::Again { key, bytes } => {
            if create_again(shared, key, bytes.to_vec())? {
                Ok(())
            } else {
                Err(overwrites(
                    shared,
                    &format!("\"{key}\", which was there, was created once more"),
                ))
            }
        }
    }
}

/// Has an object created in this way, and tries to create it once more.
fn prove_once(shared: &Shared, create: impl Fn(&str) -> Result<(), Error>) -> Result<(), Error> {
    let key = unused_key();
    let verdict = create(&key).and_then(|()| again(shared, &key));
    // Who archives need not be allowed to remove anything.
    drop(shared.remove(&key));
    if verdict? {
        Ok(())
    } else {
        Err(overwrites(
            shared,
            "an object that was there was created once more",
        ))
    }
}

impl Shared {
    /// As [`crate::Store::prove_creation`], for objects that get their names by being copied.
    pub(super) fn prove_copy(&self) -> Result<(), Error> {
        self.copy.get(|| prove_copy(self))
    }
}

/// The same for the copy that gives a large file its name: onto an object that is there.
fn prove_copy(shared: &Shared) -> Result<(), Error> {
    let (from, to) = (unused_key(), unused_key());
    again(shared, &from)?;
    again(shared, &to)?;
    let paths = (shared.path(&from), shared.path(&to));
    let copied = shared.ask(limit_for(0), move |client| {
        let (from, to) = paths.clone();
        async move { client.copy_if_not_exists(&from, &to).await }
    });
    for key in [from, to] {
        drop(shared.remove(&key));
    }
    match copied? {
        Err(failure) if failure.meaning == Meaning::Exists => Ok(()),
        Err(failure) => Err(failure.error(&could_not(shared))),
        Ok(()) => Err(overwrites(
            shared,
            "an object that was there was replaced by a copy of another",
        )),
    }
}

/// Several writers at once: one wins.
fn race(shared: &Shared, key: &str) -> Result<(), Error> {
    let path = shared.path(key);
    let outcomes = shared.ask(limit_for(0), move |client| {
        let path = path.clone();
        async move {
            let writers = (0..RACERS).map(|racer| {
                let payload = PutPayload::from(vec![racer; 64]);
                client.put_opts(&path, payload, create())
            });
            // How each of them went is the answer.
            Ok(join_all(writers).await)
        }
    })?;
    let outcomes = outcomes.map_err(|failure| failure.error(&could_not(shared)))?;
    match outcomes.iter().filter(|outcome| outcome.is_ok()).count() {
        // Answers may have been lost, so it may be there or not.
        0 => again(shared, key).map(drop),
        1 => Ok(()),
        winners => Err(overwrites(
            shared,
            &format!("of {RACERS} writers of one object {winners} were told that they created it"),
        )),
    }
}

/// One more, with other bytes; true if that was refused because it is there.
fn again(shared: &Shared, key: &str) -> Result<bool, Error> {
    create_again(shared, key, b"again".to_vec())
}

fn create_again(shared: &Shared, key: &str, bytes: Vec<u8>) -> Result<bool, Error> {
    let payload = PutPayload::from(bytes);
    let path = shared.path(key);
    let outcome = shared.ask(limit_for(0), move |client| {
        let (path, payload) = (path.clone(), payload.clone());
        async move { client.put_opts(&path, payload, create()).await }
    })?;
    match outcome {
        Ok(_) => Ok(false),
        Err(failure) if failure.meaning == Meaning::Exists => Ok(true),
        Err(failure) => Err(failure.error(&could_not(shared))),
    }
}

/// Does something with a small object, and removes it again.
fn with_object<T>(shared: &Shared, what: impl Fn(&str) -> Result<T, Error>) -> Result<T, Error> {
    let key = unused_key();
    again(shared, &key)?;
    let done = what(&key);
    let removed = shared.remove(&key);
    let done = done?;
    removed?;
    Ok(done)
}

/// Creates a few objects, and has them listed in pages of one.
fn try_listing(shared: &Shared) -> Result<(), Error> {
    let prefix = unused_key();
    let keys: Vec<_> = (1..=LISTED).map(|it| format!("{prefix}.{it}")).collect();
    let listed = keys
        .iter()
        .try_for_each(|key| again(shared, key).map(drop))
        .and_then(|()| must_be_listed(shared, &prefix, &keys));
    let removed = keys.iter().map(|key| shared.remove(key).map(drop));
    let removed = removed.fold(Ok(()), Result::and);
    listed.and(removed)
}

fn must_be_listed(shared: &Shared, prefix: &str, keys: &[String]) -> Result<(), Error> {
    let mut found = Vec::new();
    let mut from = From::Start;
    // A store may give pages with nothing in them, but not for ever.
    for _ in 0..4 * LISTED {
        let (entries, next) = shared.page(prefix, &from, Some(1))?;
        found.extend(entries.into_iter().map(|entry| entry.key));
        let Some(next) = next else {
            break;
        };
        from = next;
    }
    found.sort();
    if found == keys {
        return must_start_behind(shared, prefix, keys);
    }
    let place = shared.address.place();
    Err(Error::unusable(format!(
        "archive \"{place}\" lists {} objects in pages of one where {LISTED} were just created",
        found.len()
    )))
}

/// Has those behind the first listed, as a reader that follows a timeline does.
fn must_start_behind(shared: &Shared, prefix: &str, keys: &[String]) -> Result<(), Error> {
    let Some((first, behind)) = keys.split_first() else {
        return Ok(());
    };
    let (entries, _) = shared.page(prefix, &From::after(shared, first), None)?;
    let mut found: Vec<_> = entries.into_iter().map(|entry| entry.key).collect();
    // A store that does not know the question shows all.
    found.retain(|key| key > first);
    found.sort();
    if found == behind {
        return Ok(());
    }
    let place = shared.address.place();
    Err(Error::unusable(format!(
        "archive \"{place}\" lists {} objects behind one where {} were just created",
        found.len(),
        behind.len()
    )))
}

/// Sends an object in parts, twice.
fn try_parts(store: &CloudStore) -> Result<(), Error> {
    let shared = &store.shared;
    let key = unused_key();
    let send = || -> Result<Published, Error> {
        let mut staged = CloudStaged::new(Arc::clone(shared), &key);
        staged.write_zeros(SINGLE_BYTES_MAX + 1)?;
        Box::new(staged).publish()
    };
    let twice = send().and_then(|_| send());
    let removed = shared.remove(&key);
    if let Published::Created = twice? {
        return Err(overwrites(
            shared,
            "an object sent in parts was created once more",
        ));
    }
    removed.map(drop)
}

fn round_trip(shared: &Shared, key: &str) -> Result<Duration, Error> {
    let mut took = Vec::new();
    for _ in 0..ROUND_TRIPS {
        let begun = Instant::now();
        shared.is_there(key)?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    Ok(took.get(ROUND_TRIPS / 2).copied().unwrap_or_default())
}

/// The store's time of writing against ours, to the second that it is told in.
fn skew(shared: &Shared, key: &str) -> Result<(Duration, bool), Error> {
    let now = SystemTime::now();
    let theirs = shared.modified(key)?;
    Ok(match theirs.duration_since(now) {
        Ok(ahead) => (ahead, true),
        Err(behind) => (behind.duration(), false),
    })
}

fn unused_key() -> String {
    format!("{PROBE_PREFIX}{:016x}", fastrand::u64(..))
}

fn create() -> PutOptions {
    PutOptions::from(PutMode::Create)
}

fn could_not(shared: &Shared) -> String {
    let place = shared.address.place();
    format!("could not try whether archive \"{place}\" creates objects only if they are absent")
}

fn overwrites(shared: &Shared, seen: &str) -> Error {
    let place = shared.address.place();
    Error::unusable(format!(
        "archive \"{place}\" does not protect stored objects from being overwritten: {seen}"
    ))
    .with_hint(
        "Use a store with conditional writes (If-None-Match). If there is never another writer, the option \
         \"unsafe_overwrite=true\" of the location does without.",
    )
}
