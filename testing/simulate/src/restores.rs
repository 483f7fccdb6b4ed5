//! What answers the servers: `cp` as it should be, which knows no rules and reads everything that can be read.
//!
//! Guarantees one interface for all of them, with one [`Module`] for each process of a server.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use archive::{Detail, Entry, Error, Glance, MemoryStore, Object, Published, Staged, Store};

use crate::life::Server;
use crate::startup::{Answer, Ask};

/// What lies in the archive under a key, as the simulation knows it.
#[derive(Clone, Debug)]
pub struct Kept {
    pub contents: Arc<Vec<u8>>,
    /// The bytes are those that were archived, in a form that can be read.
    pub is_sound: bool,
    /// Which life of which server archived it.
    pub life: usize,
}

/// How the storage behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Storage {
    #[default]
    Sound,
    /// No request succeeds.
    Away,
    /// The file system is not mounted: an empty directory.
    Unmounted,
    /// Listings break off, with an error.
    ListingsFail,
}

/// What else happens whenever a request is made.
pub type Meanwhile = Arc<dyn Fn() + Send + Sync>;

/// The archive's storage.
#[derive(Clone, Default)]
pub struct Shelf {
    pub store: MemoryStore,
    /// It is an object store, and no directory.
    pub is_far: bool,
    storage: Arc<Mutex<Storage>>,
    /// Stored files by name.
    pub kept: BTreeMap<String, Kept>,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf")
            .field("kept", &self.kept.keys())
            .finish_non_exhaustive()
    }
}

impl Shelf {
    #[must_use]
    pub fn new(is_far: bool) -> Shelf {
        let store = if is_far {
            MemoryStore::remote()
        } else {
            MemoryStore::new()
        };
        Shelf {
            store,
            is_far,
            ..Shelf::default()
        }
    }

    #[must_use]
    pub fn storage(&self) -> Storage {
        *self.storage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_storage(&self, storage: Storage) {
        let storage = match storage {
            // There is nothing to mount.
            Storage::Unmounted if self.is_far => Storage::Away,
            storage => storage,
        };
        *self.storage.lock().unwrap_or_else(PoisonError::into_inner) = storage;
    }

    /// The storage as an archive sees it.
    #[must_use]
    pub fn seen(&self, meanwhile: Meanwhile) -> Box<dyn Store> {
        Box::new(Troubled {
            store: self.store.clone(),
            empty: MemoryStore::new(),
            storage: Arc::clone(&self.storage),
            meanwhile,
        })
    }

    /// The bytes under a key.
    #[must_use]
    pub fn raw(&self, key: &str) -> Option<Vec<u8>> {
        let mut object = self.store.open(key).ok()??;
        let mut bytes = Vec::new();
        object.reader.read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Puts an object there by other means.
    pub fn put(&mut self, key: &str, kept: Kept) {
        self.store.overwrite(key, &kept.contents);
        self.kept.insert(key.to_owned(), kept);
    }

    pub fn remove(&mut self, key: &str) -> Option<Kept> {
        drop(self.store.remove(key));
        self.kept.remove(key)
    }

    /// All keys that begin so.
    #[must_use]
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys = Vec::new();
        drop(self.store.list(prefix, Detail::Keys, &mut |entry| {
            keys.push(entry.key);
            ControlFlow::Continue(())
        }));
        keys
    }

    /// What can be read under this name.
    #[must_use]
    pub fn readable(&self, name: &str) -> Option<&Kept> {
        self.kept.get(name).filter(|kept| kept.is_sound)
    }
}

struct Troubled {
    store: MemoryStore,
    empty: MemoryStore,
    storage: Arc<Mutex<Storage>>,
    meanwhile: Meanwhile,
}

impl Troubled {
    fn there(&self) -> Result<&MemoryStore, Error> {
        match *self.storage.lock().unwrap_or_else(PoisonError::into_inner) {
            Storage::Sound | Storage::ListingsFail => Ok(&self.store),
            Storage::Away => Err(Error::new(
                archive::ErrorKind::Unavailable,
                "the simulated storage is away",
            )),
            Storage::Unmounted => Ok(&self.empty),
        }
    }
}

impl Store for Troubled {
    fn stage(&self, key: &str) -> Result<Box<dyn Staged>, Error> {
        (self.meanwhile)();
        // What is written where nothing is mounted is lost.
        Ok(Box::new(Interrupted {
            staged: self.there()?.stage(key)?,
            meanwhile: Arc::clone(&self.meanwhile),
        }))
    }

    fn open(&self, key: &str) -> Result<Option<Object>, Error> {
        (self.meanwhile)();
        self.there()?.open(key)
    }

    fn glance(&self, key: &str) -> Result<Glance, Error> {
        self.there()?.glance(key)
    }

    fn settle(&self, key: &str) -> Result<(), Error> {
        self.there()?.settle(key)
    }

    fn list_after(
        &self,
        prefix: &str,
        start_after: &str,
        detail: Detail,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let fails =
            *self.storage.lock().unwrap_or_else(PoisonError::into_inner) == Storage::ListingsFail;
        if fails {
            return Err(Error::new(
                archive::ErrorKind::Unavailable,
                "a listing broke off",
            ));
        }
        (self.meanwhile)();
        self.there()?.list_after(prefix, start_after, detail, visit)
    }

    fn stages_ahead(&self) -> bool {
        self.store.stages_ahead()
    }

    fn lists_in_order(&self) -> bool {
        self.store.lists_in_order()
    }

    fn remove(&self, key: &str) -> Result<bool, Error> {
        self.there()?.remove(key)
    }

    fn remove_leftovers(&self) -> Result<u64, Error> {
        Ok(0)
    }

    fn place(&self) -> String {
        "simulated".to_owned()
    }
}

/// An object on its way, beside others.
struct Interrupted {
    staged: Box<dyn Staged>,
    meanwhile: Meanwhile,
}

impl Write for Interrupted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.staged.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.staged.flush()
    }
}

impl Staged for Interrupted {
    fn publish(self: Box<Self>) -> Result<Published, Error> {
        (self.meanwhile)();
        let published = self.staged.publish()?;
        (self.meanwhile)();
        Ok(published)
    }
}

/// How the processes of a server are set up, for as long as they live.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// How many files are archived at once; 0 where a command archives them.
    pub jobs: usize,
    /// In which order what happens at once happens.
    pub seed: u64,
}

/// Why a file was not archived.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub why: String,
    /// It may be archived later, without anybody's help.
    pub may_pass: bool,
}

impl Refusal {
    #[must_use]
    pub fn away() -> Refusal {
        Refusal {
            why: "the archive is away".to_owned(),
            may_pass: true,
        }
    }

    pub fn for_good(why: impl Into<String>) -> Refusal {
        Refusal {
            why: why.into(),
            may_pass: false,
        }
    }
}

/// A file that is to be archived, with what nobody but the oracle knows.
#[derive(Clone, Debug)]
pub struct Offer {
    pub name: String,
    /// The segment that was written before it.
    pub before: Option<String>,
}

/// What a server's processes ask.
pub trait Module {
    /// A process of the server has begun.
    fn begin(&mut self, settings: Settings);
    fn restore(&mut self, shelf: &Shelf, server: &mut Server, ask: &Ask) -> Answer;
    /// Archives a file.
    ///
    /// # Errors
    /// With the reason why it is not archived.
    fn archive(&mut self, shelf: &Shelf, server: &mut Server, offer: &Offer)
    -> Result<(), Refusal>;
    /// Removes what is older than `keep`.
    fn clean_up(&mut self, shelf: &Shelf, server: &mut Server, keep: &str);
}

/// `cp`, without overwriting, reading every form.
#[derive(Debug, Default)]
pub struct Stock;

impl Module for Stock {
    fn begin(&mut self, _: Settings) {}

    fn restore(&mut self, shelf: &Shelf, _: &mut Server, ask: &Ask) -> Answer {
        if shelf.storage() != Storage::Sound {
            return Answer::Unsure("the archive is away".to_owned());
        }
        match shelf.readable(&ask.name) {
            Some(kept) => Answer::Restored(kept.contents.to_vec()),
            None => Answer::Absent,
        }
    }

    fn archive(
        &mut self,
        shelf: &Shelf,
        server: &mut Server,
        offer: &Offer,
    ) -> Result<(), Refusal> {
        let name = offer.name.as_str();
        if shelf.storage() != Storage::Sound {
            return Err(Refusal::away());
        }
        let contents = server
            .contents(name)
            .ok_or_else(|| Refusal::for_good("the file is gone"))?;
        match shelf.raw(name) {
            None => {
                shelf.store.overwrite(name, &contents);
                Ok(())
            }
            Some(bytes) if bytes == *contents => Ok(()),
            Some(_) => Err(Refusal::for_good(format!(
                "\"{name}\" is there with other bytes"
            ))),
        }
    }

    fn clean_up(&mut self, _: &Shelf, _: &mut Server, _: &str) {}
}
