//! [`Archive`]: WAL files in a store. This file holds the type and its doors; each job has its own file.
//!
//! Guarantees, over any [`Store`] that keeps its promises:
//! * a file is acknowledged only when its bytes survive a power cut, and is never overwritten;
//! * the three answers stay apart: restored, absent, could not tell (an error);
//! * one archive holds one system's WAL.
//!
//! Left to others: `put.rs`, `get.rs`, `hole.rs`, `clean_up.rs`, `list.rs`, `binding.rs` do the work;
//! waiting, retrying and deadlines are the caller's.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use wal::{KeepFrom, SegmentName, SystemIdentifier, WalFileName};

use crate::binding::{Binding, Seen};
use crate::cloud::CloudStore;
use crate::codec::Decoded;
use crate::crew::Spawn;
use crate::dir_store::DirStore;
use crate::durable::Disk;
use crate::error::Error;
use crate::form::Form;
use crate::get::{AsStored, Rule};
use crate::location::Location;
use crate::neighbours::Neighbours;
use crate::options::{Cancel, Options};
use crate::prefetch::Answer;
use crate::put::{Offered, Run};
use crate::reading::{Found, Reading};
use crate::secret::ClusterSecret;
use crate::store::{Object, Store, Trial};
use crate::workspace::Workspace;

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
    pub(crate) neighbours: Arc<Neighbours>,
    /// What has been archived so far.
    pub(crate) run: Run,
    /// How restored files are written.
    pub(crate) disk: Disk,
}

/// Which archive, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it is.
    pub location: Location,
    /// How it is read and written.
    pub options: Options,
}

/// What became of a file offered to [`Archive::put_new`]. Each means: it is in the archive, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there by our doing.
    Stored {
        /// Size of the file.
        bytes_in: u64,
        /// Size of the object it became.
        bytes_out: u64,
    },
    /// It was there with the same bytes, and has been made durable again. Of a partial segment, and of a segment in which WAL
    /// ends, the records count.
    AlreadyStored,
    /// WAL ends inside this segment, where the server has left its timeline: its partial segment is there, by our doing or with
    /// the same records.
    AsPartial,
}

/// What [`Archive::get`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// The file is at its destination, whole and checked.
    Restored {
        /// Its size, uncompressed.
        bytes: u64,
    },
    /// The archive was there to be asked, and does not have the file.
    Absent,
}

/// What [`Archive::clean_up`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cleaned {
    /// Objects removed.
    pub files: u64,
    /// Their size as stored.
    pub bytes: u64,
    /// The first and the last segment among them, by name; `None` if nothing was removed.
    pub range: Option<(SegmentName, SegmentName)>,
}

/// How a person has an archive cleaned up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByHand {
    /// Remove also what base backups need.
    pub force: bool,
    /// Remove nothing, and tell what would be.
    pub dry_run: bool,
}

/// What [`Archive::clean_up_by_hand`] did, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CleanedByHand {
    /// What was removed.
    pub cleaned: Cleaned,
    /// The backup history file of the base backup for which more was kept than had been asked for.
    pub kept_for: Option<WalFileName>,
}

/// One file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The server's name for it.
    pub name: WalFileName,
    /// The object's key, which is the name.
    pub key: String,
    /// Size as stored.
    pub bytes: u64,
    /// When it was stored, by the store's clock.
    pub modified: SystemTime,
}

impl Archive {
    /// Opens the archive at a location, which must exist. `spawn` starts the thread that talks to an object store.
    ///
    /// Fails with [`crate::ErrorKind::Unavailable`] if it cannot be reached (it may be mounted later),
    /// [`crate::ErrorKind::Unusable`] if it is not a directory or the store cannot be used as the location
    /// says, [`crate::ErrorKind::Damaged`] if its
    /// `walden.json` cannot be understood.
    pub fn open(location: &Location, options: Options, spawn: Spawn) -> Result<Archive, Error> {
        let store: Box<dyn Store> = match location {
            Location::Directory(directory) => Box::new(DirStore::open(directory)?),
            Location::Cloud(address) => Box::new(CloudStore::open(address, spawn)?),
        };
        let archive = Archive::with_store(store, options);
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
            neighbours: Arc::default(),
            run: Run::default(),
            disk: Disk::default(),
        }
    }

    /// With what an archive of the same place has seen, which was opened before.
    pub(crate) fn remembering(self, neighbours: Arc<Neighbours>) -> Archive {
        Archive { neighbours, ..self }
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

    /// Stores a WAL file under its name, unless the archive has it already.
    ///
    /// `system` is the server's own system identifier when the caller knows it; it is needed for timeline and
    /// backup history files, which do not say whose they are. When this returns `Ok`, the server may recycle
    /// the source. Fails with
    /// * [`crate::ErrorKind::Conflict`]: other bytes are stored under this name, or bytes that cannot be
    ///   read; nothing was changed;
    /// * [`crate::ErrorKind::Foreign`]: the archive, or the file, belongs to another system, or the archive is one of segments of
    ///   another size; nothing was written;
    /// * [`crate::ErrorKind::Damaged`]: the source fails its checks;
    /// * [`crate::ErrorKind::Unusable`]: the source is not there, or not complete (WAL ends inside it), or is itself what is in
    ///   the archive, or whose it is cannot be told; or it would not be encrypted where all others are; or it cannot be told
    ///   whether an encrypted file that is there is the same;
    /// * [`crate::ErrorKind::Unavailable`], [`crate::ErrorKind::Cancelled`]: offer the file again.
    pub fn put_new(
        &self,
        name: &WalFileName,
        source: &Path,
        system: Option<SystemIdentifier>,
        cancel: &Cancel,
    ) -> Result<Put, Error> {
        let offered = Offered {
            name,
            path: source,
            ready: None,
            system,
            turn: None,
        };
        let (put, _) = crate::put::put_new(self, &offered, cancel, &mut Workspace::default())?;
        Ok(put)
    }

    /// What whoever archives should be told beside the outcome, each once: where it could not be told whether a server goes on
    /// where the archive ends.
    pub fn take_warnings(&self) -> Vec<String> {
        self.run.take_warnings()
    }

    /// Restores a WAL file as `dest`, which must not exist and appears whole or not at all.
    ///
    /// The copy is not synced: the server syncs what it restores (`KeepFileRestoredFromArchive` through
    /// `durable_rename`, 15 to 18). Fails with
    /// * [`crate::ErrorKind::Unavailable`]: could not tell, or could not write;
    /// * [`crate::ErrorKind::Damaged`]: what is stored fails its checks;
    /// * [`crate::ErrorKind::Foreign`]: the archive or the segment is another system's than `system`;
    /// * [`crate::ErrorKind::Unusable`]: `dest` exists; or what is stored is encrypted, and not for our identities, or packed in
    ///   another way than Walden reads;
    /// * [`crate::ErrorKind::Cancelled`].
    pub fn get(
        &self,
        name: &WalFileName,
        dest: &Path,
        system: Option<SystemIdentifier>,
        cancel: &Cancel,
    ) -> Result<Got, Error> {
        match self.get_ruled(name, dest, system, &AsStored, cancel)? {
            Answer::Restored { bytes, .. } => Ok(Got::Restored { bytes }),
            Answer::Absent(_) => Ok(Got::Absent),
        }
    }

    /// The same for whoever has a rule for what follows from a file's being stored, or not.
    ///
    /// Fails as [`Archive::get`] and as the rule do.
    pub fn get_ruled(
        &self,
        name: &WalFileName,
        dest: &Path,
        system: Option<SystemIdentifier>,
        rule: &dyn Rule,
        cancel: &Cancel,
    ) -> Result<Answer, Error> {
        crate::get::get(self, name, dest, system, rule, cancel)
    }

    /// "Absent" needs more than a name that is not there: an unmounted mount point is an empty directory. Asked behind every look
    /// that it has to cover.
    ///
    /// A bound archive proves itself by its binding, read again now. An unbound one proves itself by holding any WAL file at
    /// all: nobody recovers from an archive that holds none, so nothing is lost by calling that "could not tell".
    ///
    /// Fails with [`crate::ErrorKind::Unavailable`] if this is not the archive.
    pub fn prove_present(&self) -> Result<(), Error> {
        crate::get::prove_present(self)
    }

    /// Every WAL file, sorted by name; foreign names are left out.
    pub fn list(&self) -> Result<Vec<Stored>, Error> {
        self.list_with(&mut |_| ())
    }

    /// The same, telling now and then how many files have been found so far.
    pub fn list_with(&self, told: &mut dyn FnMut(u64)) -> Result<Vec<Stored>, Error> {
        crate::list::list(self, told)
    }

    /// How many objects the last listing left out because no archive has such names: they disturb nothing, and can be in
    /// nobody's interest.
    pub fn skipped(&self) -> u64 {
        self.store.skipped()
    }

    /// In which form a file is stored, by its first bytes; `None` if it is not there. In an object store this is a request.
    pub fn form_of(&self, key: &str) -> Result<Option<Form>, Error> {
        crate::reading::form_of(self, key)
    }

    /// Shows `visit` everything in the archive, in no particular order, page by page, until it breaks.
    pub fn each(&self, visit: &mut dyn FnMut(Found) -> ControlFlow<()>) -> Result<(), Error> {
        crate::reading::each(self, visit)
    }

    /// Begins to read files without restoring them.
    pub fn reading(&self) -> Reading<'_> {
        Reading::new(self)
    }

    /// Removes what `pg_archivecleanup` would: segments and partial segments before `keep`; but nothing if `keep` is behind
    /// all that is stored, as it is on a standby that streams.
    ///
    /// `system` is the system identifier of whoever asks, when it is known: an archive of another system is
    /// refused with [`crate::ErrorKind::Foreign`] before anything is removed.
    ///
    /// A file that cannot be removed does not stop the others; the error then counts the failures and gives
    /// the first one's cause.
    pub fn clean_up(
        &self,
        keep: &KeepFrom,
        system: Option<SystemIdentifier>,
        cancel: &Cancel,
    ) -> Result<Cleaned, Error> {
        crate::clean_up::clean_up(self, keep, system, cancel)
    }

    /// The same for a person, more careful: what base backups that are still complete need stays unless `how` says
    /// otherwise, and a `keep` behind all that is stored is refused with [`crate::ErrorKind::Unusable`]. `told` hears of
    /// each object that a dry run would remove.
    pub fn clean_up_by_hand(
        &self,
        keep: &KeepFrom,
        system: Option<SystemIdentifier>,
        how: ByHand,
        told: &mut dyn FnMut(&str),
        cancel: &Cancel,
    ) -> Result<CleanedByHand, Error> {
        crate::clean_up::clean_up_by_hand(self, keep, system, how, told, cancel)
    }

    /// Removes staged files of dead writers, and tells how many there were.
    pub fn remove_leftovers(&self) -> Result<u64, Error> {
        self.store.remove_leftovers()
    }

    /// Whose WAL this archive holds; `None` if it has not been bound yet.
    ///
    /// Fails with [`crate::ErrorKind::Unavailable`] if a binding seen before is gone: then the file system is
    /// gone, and whatever is left in its place is not this archive.
    pub fn binding(&self) -> Result<Option<Binding>, Error> {
        crate::binding::read(self)
    }

    /// Begins to read an object that was opened under this key.
    pub(crate) fn decode<'a>(&self, object: Object, key: &str) -> Result<Decoded<'a>, Error> {
        Decoded::new(object, self.shown(key), self.options.identity_file.as_ref())
    }

    /// A key as messages name it.
    pub(crate) fn shown(&self, key: &str) -> String {
        format!("{}/{key}", self.store.place())
    }

    /// Whether this is a directory, so that what is not there may be on a file system that is not mounted.
    pub fn is_directory(&self) -> bool {
        self.store.is_directory()
    }

    /// What to call this archive in messages.
    pub fn place(&self) -> String {
        self.store.place()
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
