//! An object store as a [`Store`].
//!
//! Guarantees what [`Store`] asks. How few requests are made is the archive's business: a look at a key is one of them, so
//! this store does not [`Store::glance`].

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::base::spawn::Spawn;
use crate::error::Error;
use crate::store::waist::{self, Detail, Entry, Noted, Object, Staged, Store, Trial};

use super::address::{Address, Service};
use super::leftovers::LEFTOVER_AGE;
use super::note;
use super::pages::From;
use super::probe;
use super::reader::{self, Reader};
use super::requests::Shared;
use super::staged::{self, CloudStaged, STAGED_PREFIX};

/// An archive's place in an object store. Clones share connections.
#[derive(Clone)]
pub struct CloudStore {
    pub(super) shared: Arc<Shared>,
}

impl CloudStore {
    /// Makes ready to talk to a store, with a thread started through `spawn`. Nothing is asked yet.
    ///
    /// Fails with [`crate::ErrorKind::Unusable`] if the address or the credentials cannot be used,
    /// [`crate::ErrorKind::Unavailable`] if a file they name cannot be read or no thread can be started.
    pub fn open(address: &Address, spawn: Spawn) -> Result<CloudStore, Error> {
        Ok(CloudStore {
            shared: Arc::new(Shared::new(address, spawn)?),
        })
    }

    /// As [`Store::remove_leftovers`], for another age than a day: for a caller that knows that no process is in the middle of
    /// something that old.
    pub fn remove_leftovers_older_than(&self, age: Duration) -> Result<u64, Error> {
        let objects = self.shared.remove_unfinished(age)?;
        let uploads = self.shared.give_up_uploads(age)?;
        Ok(objects + uploads)
    }
}

impl fmt::Debug for CloudStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CloudStore")
            .field(&self.shared.address)
            .finish()
    }
}

/// Whether an entry may be shown: unfinished ones do not count yet.
fn is_ours(entry: &Entry) -> bool {
    waist::check_key(&entry.key).is_ok() && !entry.key.starts_with(STAGED_PREFIX)
}

impl Store for CloudStore {
    fn stage(&self, key: &str) -> Result<Box<dyn Staged>, Error> {
        waist::check_key(key)?;
        Ok(Box::new(CloudStaged::new(Arc::clone(&self.shared), key)))
    }

    fn open(&self, key: &str) -> Result<Option<Object>, Error> {
        waist::check_key(key)?;
        let Some(found) = self.shared.get(key)? else {
            return Ok(None);
        };
        let (bytes, modified) = (found.meta.size, found.meta.last_modified.into());
        Ok(Some(Object {
            bytes,
            modified,
            file: None,
            reader: Box::new(Reader::start(&self.shared.driver, found.into_stream())),
        }))
    }

    fn keeps_notes(&self) -> bool {
        true
    }

    fn noted(&self, key: &str) -> Result<Noted, Error> {
        waist::check_key(key)?;
        note::read(&self.shared, key)
    }

    /// What such a store has once shown is durable, so it is enough that it is there.
    fn settle(&self, key: &str) -> Result<(), Error> {
        waist::check_key(key)?;
        if self.shared.is_there(key)? {
            return Ok(());
        }
        let shown = self.shared.shown(key);
        Err(Error::unavailable(format!(
            "object \"{shown}\" is not there"
        )))
    }

    fn list_after(
        &self,
        prefix: &str,
        start_after: &str,
        _: Detail,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let from = From::after(&self.shared, start_after);
        self.shared.each(prefix, from, &mut |entry| {
            // A store that does not know the question shows all.
            if is_ours(&entry) && entry.key.as_str() > start_after {
                visit(entry)
            } else {
                ControlFlow::Continue(())
            }
        })
    }

    fn stages_ahead(&self) -> bool {
        false
    }

    fn lists_in_order(&self) -> bool {
        true
    }

    fn remove(&self, key: &str) -> Result<bool, Error> {
        waist::check_key(key)?;
        // S3 does not tell whether there was something to remove.
        let may_be_there =
            self.shared.address.service != Service::S3 || self.shared.is_there(key)?;
        Ok(may_be_there && self.shared.remove(key)?)
    }

    fn remove_leftovers(&self) -> Result<u64, Error> {
        self.remove_leftovers_older_than(LEFTOVER_AGE)
    }

    fn skipped(&self) -> u64 {
        self.shared.skipped.load(Ordering::Relaxed)
    }

    fn staged_bytes(&self, bytes: u64) -> u64 {
        staged::bytes_in_memory(bytes)
    }

    fn opened_bytes(&self) -> u64 {
        reader::BYTES_IN_MEMORY
    }

    fn prove_creation(&self, trial: Trial<'_>) -> Result<(), Error> {
        if self.shared.overwrites() {
            return Ok(());
        }
        let shared = &self.shared;
        shared.creation.get(|| probe::prove_creation(shared, trial))
    }

    fn place(&self) -> String {
        self.shared.address.place()
    }
}
