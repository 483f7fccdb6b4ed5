//! The requests that everything here is made of: connection, thread, patience, and how names are put.
//!
//! Guarantees that a request is made with credentials as they are now, and ends: with an answer, or as the error that says why
//! there is none. Left to others: what is made of the answers.

use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use object_store::path::Path;
use object_store::{GetOptions, GetResult, MultipartId, ObjectMeta, ObjectStoreExt};

use crate::base::spawn::Spawn;
use crate::error::{Error, ErrorKind};

use super::address::Address;
use super::answers::Expected;
use super::asking::{Gate, ask, have, limit_for};
use super::connect::{Client, Connection, connect, versions};
use super::credentials::Version;
use super::driver::Driver;
use super::failure::{Failure, Meaning};
use super::proof::Proof;

/// What all requests need.
pub(super) struct Shared {
    pub(super) address: Address,
    made: Mutex<Made>,
    pub(super) driver: Driver,
    gate: Arc<Gate>,
    /// How many objects the last listing left out.
    pub(super) skipped: AtomicU64,
    /// The store has been seen to keep what is there, when something is put there or copied there.
    pub(super) creation: Proof,
    pub(super) copy: Proof,
}

/// A connection, and of which versions of its files it was made.
struct Made {
    connection: Arc<Connection>,
    versions: Vec<Version>,
}

impl Made {
    fn of(address: &Address) -> Result<Made, Error> {
        // Looked at first, so that a change in between counts as one that came later.
        let versions = versions(address);
        Ok(Made {
            connection: Arc::new(connect(address)?),
            versions,
        })
    }
}

impl Shared {
    /// Nothing is asked yet. Fails as [`super::CloudStore::open`] does.
    pub(super) fn new(address: &Address, spawn: Spawn) -> Result<Shared, Error> {
        Ok(Shared {
            address: address.clone(),
            made: Mutex::new(Made::of(address)?),
            driver: Driver::start(spawn)?,
            gate: Arc::default(),
            skipped: AtomicU64::new(0),
            creation: Proof::default(),
            copy: Proof::default(),
        })
    }

    /// What to make requests with: made anew when one of its files has been replaced, as credentials are now and then.
    ///
    /// Fails as [`super::CloudStore::open`] does while what is there now cannot be used.
    pub(super) fn connection(&self) -> Result<Arc<Connection>, Error> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.versions != versions(&self.address) {
            // It may be half written; the next request looks again.
            *made =
                Made::of(&self.address).map_err(|error| error.with_kind(ErrorKind::Unavailable))?;
        }
        Ok(Arc::clone(&made.connection))
    }

    /// Makes a request, with the patience of `asking.rs`. Fails on the outside only if it ends without an answer.
    pub(super) fn ask<T, F, R>(
        &self,
        limit: Duration,
        request: R,
    ) -> Result<Result<T, Failure>, Error>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send,
        R: Fn(Arc<dyn Client>) -> F + Send + Sync + 'static,
    {
        let (connection, gate) = (self.connection()?, Arc::clone(&self.gate));
        self.driver.run(async move {
            ask(&gate, limit, || {
                let client = Arc::clone(&connection.client);
                let credentials = connection.credentials.as_ref();
                let request = &request;
                async move {
                    // Apart from the request, so that what another service says of them is not taken for the store's
                    // word, and so that one that is silent is not waited for as long as a store.
                    if let Some(credentials) = credentials {
                        have(credentials).await?;
                    }
                    request(client).await
                }
            })
            .await
        })
    }

    pub(super) fn path(&self, key: &str) -> Path {
        match self.address.prefix.as_str() {
            "" => Path::from(key),
            prefix => Path::from(format!("{prefix}/{key}")),
        }
    }

    /// The same for what need not be a key.
    pub(super) fn name(&self, text: &str) -> String {
        match self.address.prefix.as_str() {
            "" => text.to_owned(),
            root => format!("{root}/{text}"),
        }
    }

    pub(super) fn shown(&self, key: &str) -> String {
        format!("{}/{key}", self.address.place())
    }

    /// Whether the location says to do without create-if-absent.
    pub(super) fn overwrites(&self) -> bool {
        self.address.options.unsafe_overwrite == Some(true)
    }

    pub(super) fn is_there(&self, key: &str) -> Result<bool, Error> {
        match self.look(key)? {
            Ok(_) => Ok(true),
            // The answer to HEAD has no body that could say more.
            Err(failure) if failure.meaning.may_be_absent() => Ok(false),
            Err(failure) => Err(failure.error(&format!(
                "could not look for object \"{}\"",
                self.shown(key)
            ))),
        }
    }

    /// When an object was stored that must be there.
    pub(super) fn modified(&self, key: &str) -> Result<SystemTime, Error> {
        let found = self.look(key)?;
        let could_not = || {
            format!(
                "could not look when object \"{}\" was stored",
                self.shown(key)
            )
        };
        let found = found.map_err(|failure| failure.error(&could_not()))?;
        Ok(found.last_modified.into())
    }

    fn look(&self, key: &str) -> Result<Result<ObjectMeta, Failure>, Error> {
        let path = self.path(key);
        self.ask(limit_for(0), move |client| {
            let path = path.clone();
            async move { client.head(&path).await }
        })
    }

    /// Gives up an upload in parts, without waiting for that.
    pub(super) fn forget(&self, path: Path, upload: MultipartId) {
        let (Ok(connection), gate) = (self.connection(), Arc::clone(&self.gate)) else {
            return;
        };
        self.driver.start_work(async move {
            let abort = || connection.client.abort_multipart(&path, &upload);
            drop(ask(&gate, limit_for(0), abort).await);
        });
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<GetResult>, Error> {
        let path = self.path(key);
        let found = self.ask(limit_for(0), move |client| {
            let path = path.clone();
            let options = GetOptions {
                extensions: Expected::Object.extensions(),
                ..GetOptions::default()
            };
            async move { client.get_opts(&path, options).await }
        })?;
        match found {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.meaning == Meaning::Absent => Ok(None),
            Err(failure) => {
                Err(failure.error(&format!("could not read object \"{}\"", self.shown(key))))
            }
        }
    }

    /// Removes an object; false if the store says that there is none, which not all do.
    pub(super) fn remove(&self, key: &str) -> Result<bool, Error> {
        let path = self.path(key);
        let removed = self.ask(limit_for(0), move |client| {
            let path = path.clone();
            async move { client.delete(&path).await }
        })?;
        match removed {
            Ok(()) => Ok(true),
            Err(failure) if failure.meaning.may_be_absent() => Ok(false),
            Err(failure) => {
                Err(failure.error(&format!("could not remove object \"{}\"", self.shown(key))))
            }
        }
    }
}
