//! [`Archive`]: WAL files in a store. Here is the type, how it is opened, and what it remembers while it is open.
//!
//! What it does stands beside the work: archiving in `put`, restoring and reading in `get`, listing, cleaning up and binding in
//! `admin`, each with an `impl Archive` of its own. So nothing here knows of them.
//!
//! Guarantees, over any [`Store`] that keeps its promises:
//! * a file is acknowledged only when its bytes survive a power cut, and is never overwritten;
//! * the three answers stay apart: restored, absent, could not tell (an error);
//! * one archive holds one system's WAL.
//!
//! Left to others: waiting, retrying and deadlines are the caller's.

pub(crate) mod binding;
pub(crate) mod continuity;
mod run;

use std::sync::{Arc, Mutex};

use self::binding::Seen;
use self::continuity::Continuity;
use self::run::Run;
use crate::base::spawn::Spawn;
use crate::error::Error;
use crate::format::codec::Decoded;
use crate::format::secret::ClusterSecret;
use crate::options::Options;
use crate::options::location::Location;
use crate::options::settings::Settings;
use crate::store::cloud::CloudStore;
use crate::store::dir::durable::Disk;
use crate::store::dir::store::DirStore;
use crate::store::metered::{Meter, MeteredStore};
use crate::store::waist::{Object, Store, Trial};

/// An archive of WAL files. All calls block; it may be shared between threads.
pub struct Archive {
    pub(crate) store: Box<dyn Store>,
    pub(crate) options: Options,
    /// What encrypted files are told apart by where they cannot be opened.
    pub(crate) secret: Option<ClusterSecret>,
    /// What has been seen of its binding.
    pub(crate) seen: Mutex<Seen>,
    /// How the store is tried before it is bound.
    pub(crate) trial: Trial<'static>,
    /// What is known of the segments that passed by.
    pub(crate) continuity: Arc<Continuity>,
    /// What has been archived so far.
    pub(crate) run: Run,
    /// How restored files are written.
    pub(crate) disk: Disk,
    /// What has been asked of the store.
    meter: Meter,
}

/// Which archive, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Directory or URL of the archive.
    pub location: Location,
    /// How it is read and written.
    pub options: Options,
}

impl Archive {
    /// Opens the archive at a location, which must exist. `spawn` starts the thread that talks to an object store.
    ///
    /// Fails with [`crate::ErrorKind::Unavailable`] if it cannot be reached (it may be mounted later),
    /// [`crate::ErrorKind::Unusable`] if it is not a directory or the store cannot be used as the location
    /// says, [`crate::ErrorKind::Damaged`] if its
    /// `walden.json` cannot be understood.
    pub fn open(location: &Location, options: Options, spawn: Spawn) -> Result<Archive, Error> {
        Archive::open_counted(location, options, spawn, Meter::default())
    }

    /// The same; its requests are counted there too, where those of others may have been.
    pub(crate) fn open_counted(
        location: &Location,
        options: Options,
        spawn: Spawn,
        meter: Meter,
    ) -> Result<Archive, Error> {
        let store: Box<dyn Store> = match location {
            Location::Directory(directory) => Box::new(DirStore::open(directory)?),
            Location::Cloud(address) => Box::new(CloudStore::open(address, spawn)?),
        };
        let store = Box::new(MeteredStore::new(store, meter.clone()));
        let archive = Archive {
            meter,
            ..Archive::with_store(store, options)
        };
        archive.binding()?;
        Ok(archive)
    }

    /// An archive in any store. Nothing is read yet.
    pub fn with_store(store: Box<dyn Store>, options: Options) -> Archive {
        Archive {
            store,
            options,
            secret: None,
            seen: Mutex::default(),
            trial: Trial::Thorough,
            continuity: Arc::default(),
            run: Run::default(),
            disk: Disk::default(),
            meter: Meter::default(),
        }
    }

    /// What has been asked of the store since the archive was opened. Empty for one that was made of a store.
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// With what an archive of the same place has seen, which was opened before.
    pub(crate) fn remembering(self, continuity: Arc<Continuity>) -> Archive {
        Archive { continuity, ..self }
    }

    /// The same archive, for whoever stores one file and goes: its store is tried briefly (see [`Trial`]).
    #[must_use]
    pub fn for_one_file(mut self) -> Archive {
        self.trial = Trial::Brief;
        self
    }

    /// The same archive, with the secret of the cluster whose files are going to be offered, if it is known. Without it an
    /// encrypted file that is there already can be compared only by who can open it.
    #[must_use]
    pub fn with_secret(mut self, secret: Option<ClusterSecret>) -> Archive {
        self.secret = secret;
        self
    }

    /// How many objects the last listing left out because no archive has such names: they disturb nothing, and can be in
    /// nobody's interest.
    pub fn skipped(&self) -> u64 {
        self.store.skipped()
    }

    /// Removes staged files of dead writers, and tells how many there were.
    pub fn remove_leftovers(&self) -> Result<u64, Error> {
        self.store.remove_leftovers()
    }

    /// Begins to read an object that was opened under this key.
    pub(crate) fn decode<'a>(&self, object: Object, key: &str) -> Result<Decoded<'a>, Error> {
        Decoded::new(object, self.shown(key), self.options.identity_file.as_ref())
    }

    /// A key as messages name it.
    pub(crate) fn shown(&self, key: &str) -> String {
        format!("{}/{key}", self.store.place())
    }

    /// Whether what is not there may be on a file system that is not mounted.
    pub fn may_be_unmounted(&self) -> bool {
        self.store.may_be_unmounted()
    }

    /// What to call this archive in messages.
    pub fn place(&self) -> String {
        self.store.place()
    }
}

impl Settings {
    /// Opens the archive they name; fails as [`Archive::open`] does.
    pub fn open(&self, spawn: Spawn) -> Result<Archive, Error> {
        Archive::open(&self.location, self.options.clone(), spawn)
    }
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive")
            .field("place", &self.place())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
