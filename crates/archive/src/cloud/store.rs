//! An object store as a [`Store`].
//!
//! Guarantees what [`Store`] asks. How few requests are made is the archive's business: a look at a key is one of them, so
//! this store does not [`Store::glance`].

use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use object_store::path::Path;
use object_store::{GetOptions, GetResult, MultipartId, ObjectMeta, ObjectStoreExt};

use crate::crew::Spawn;
use crate::error::{Error, ErrorKind};
use crate::store::{self, Detail, Entry, Object, Staged, Store, Trial};

use super::address::{Address, Service};
use super::answers::Expected;
use super::asking::{Gate, ask, have, limit_for};
use super::connect::{Client, Connection, connect, versions};
use super::credentials::Version;
use super::driver::Driver;
use super::failure::{Failure, Meaning};
use super::pages::From;
use super::probe::{self, PROBE_PREFIX};
use super::proof::Proof;
use super::reader::{self, Reader};
use super::staged::{self, CloudStaged, STAGED_PREFIX};
use super::unfinished::{Marker, Page, Unfinished, Upload};

/// How old an unfinished object must be to count as left behind: older than any upload, whatever the clocks say.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// What the names of unfinished objects begin with.
const LEFTOVER_PREFIXES: [&str; 2] = [STAGED_PREFIX, PROBE_PREFIX];

/// Pages of unfinished uploads that are looked at, each of up to a thousand.
const UPLOAD_PAGES_MAX: usize = 100;

/// An archive's place in an object store. Clones share connections.
#[derive(Clone)]
pub struct CloudStore {
    pub(super) shared: Arc<Shared>,
}

/// What all requests need.
pub(super) struct Shared {
    pub(super) address: Address,
    made: Mutex<Made>,
    driver: Driver,
    gate: Arc<Gate>,
    /// How many objects the last listing left out.
    pub(super) skipped: AtomicU64,
    /// The store has been seen to keep what is there, when something is put there or copied there.
    creation: Proof,
    copy: Proof,
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

impl CloudStore {
    /// Makes ready to talk to a store, with a thread started through `spawn`. Nothing is asked yet.
    ///
    /// Fails with [`crate::ErrorKind::Unusable`] if the address or the credentials cannot be used,
    /// [`crate::ErrorKind::Unavailable`] if a file they name cannot be read or no thread can be started.
    pub fn open(address: &Address, spawn: Spawn) -> Result<CloudStore, Error> {
        Ok(CloudStore {
            shared: Arc::new(Shared {
                address: address.clone(),
                made: Mutex::new(Made::of(address)?),
                driver: Driver::start(spawn)?,
                gate: Arc::default(),
                skipped: AtomicU64::new(0),
                creation: Proof::default(),
                copy: Proof::default(),
            }),
        })
    }

    /// As [`Store::remove_leftovers`], for another age than a day: for whoever knows that nobody is in the middle of
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

impl Shared {
    /// What to make requests with: made anew when somebody has replaced one of its files, as credentials are now and then.
    ///
    /// Fails as [`CloudStore::open`] does while what is there now cannot be used.
    fn connection(&self) -> Result<Arc<Connection>, Error> {
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

    /// As [`Store::prove_creation`], for objects that get their names by being copied.
    pub(super) fn prove_copy(&self) -> Result<(), Error> {
        self.copy.get(|| probe::prove_copy(self))
    }

    /// Whether somebody has chosen to do without create-if-absent.
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

    /// Gives up an upload in parts; nobody waits for that.
    pub(super) fn forget(&self, path: Path, upload: MultipartId) {
        let (Ok(connection), gate) = (self.connection(), Arc::clone(&self.gate)) else {
            return;
        };
        self.driver.start_work(async move {
            let abort = || connection.client.abort_multipart(&path, &upload);
            drop(ask(&gate, limit_for(0), abort).await);
        });
    }

    fn get(&self, key: &str) -> Result<Option<GetResult>, Error> {
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

/// What dead writers leave behind.
impl Shared {
    /// Removes objects that have no archive's name yet and are older than this.
    fn remove_unfinished(&self, age: Duration) -> Result<u64, Error> {
        let mut old = Vec::new();
        self.each("walden.", From::Start, &mut |entry| {
            if is_leftover(&entry.key, entry.modified, age) {
                old.push(entry.key);
            }
            ControlFlow::Continue(())
        })?;
        for key in &old {
            self.remove(key)?;
        }
        Ok(old.len() as u64)
    }

    /// Gives up uploads in parts, for such names, that were begun longer ago than this. A store that does not list them,
    /// or not to us, has none as far as we know.
    fn give_up_uploads(&self, age: Duration) -> Result<u64, Error> {
        let connection = self.connection()?;
        let Some(unfinished) = &connection.unfinished else {
            return Ok(0);
        };
        let mut count = 0;
        let mut after = None;
        for _ in 0..UPLOAD_PAGES_MAX {
            let page = self.page_of_uploads(unfinished, after)?;
            let Some((uploads, next)) = page else {
                break;
            };
            for upload in uploads {
                count += u64::from(self.give_up_old(upload, age)?);
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        Ok(count)
    }

    fn page_of_uploads(
        &self,
        unfinished: &Arc<Unfinished>,
        after: Option<Marker>,
    ) -> Result<Option<Page>, Error> {
        let prefix = self.path("walden.").to_string();
        let unfinished = Arc::clone(unfinished);
        let page = self.ask(limit_for(0), move |_| {
            let (unfinished, prefix, after) =
                (Arc::clone(&unfinished), prefix.clone(), after.clone());
            async move { unfinished.page(&prefix, after.as_ref()).await }
        })?;
        match page {
            Ok(page) => Ok(Some(page)),
            Err(failure) if failure.is_refusal() => Ok(None),
            Err(failure) => Err(failure.error(&format!(
                "could not list unfinished uploads to \"{}\"",
                self.address.place()
            ))),
        }
    }

    /// Gives an upload up if it is left behind; tells whether it was.
    fn give_up_old(&self, upload: Upload, age: Duration) -> Result<bool, Error> {
        let key = upload
            .name
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        let path = self.path(&key);
        let is_ours = path.as_ref() == upload.name;
        let is_old = upload
            .begun
            .is_some_and(|begun| is_leftover(&key, begun, age));
        if !is_ours || !is_old {
            return Ok(false);
        }
        let aborted = self.ask(limit_for(0), move |client| {
            let (path, id) = (path.clone(), upload.id.clone());
            async move { client.abort_multipart(&path, &id).await }
        })?;
        match aborted {
            Ok(()) => Ok(true),
            // Another was faster, or it is not for us to do.
            Err(failure) if failure.is_refusal() => Ok(false),
            Err(failure) => Err(failure.error(&format!(
                "could not give up the upload of object \"{}\"",
                self.shown(&key)
            ))),
        }
    }
}

/// Whether such an object, or upload, is nobody's any more.
fn is_leftover(key: &str, begun: SystemTime, age: Duration) -> bool {
    let is_meant = LEFTOVER_PREFIXES
        .iter()
        .any(|prefix| key.starts_with(prefix));
    is_meant && begun.elapsed().is_ok_and(|elapsed| elapsed > age)
}

/// Whether an entry may be shown: unfinished ones are nobody's yet.
fn is_ours(entry: &Entry) -> bool {
    store::check_key(&entry.key).is_ok() && !entry.key.starts_with(STAGED_PREFIX)
}

impl Store for CloudStore {
    fn stage(&self, key: &str) -> Result<Box<dyn Staged>, Error> {
        store::check_key(key)?;
        Ok(Box::new(CloudStaged::new(Arc::clone(&self.shared), key)))
    }

    fn open(&self, key: &str) -> Result<Option<Object>, Error> {
        store::check_key(key)?;
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

    /// What such a store has once shown is durable, so it is enough that it is there.
    fn settle(&self, key: &str) -> Result<(), Error> {
        store::check_key(key)?;
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
            match is_ours(&entry) && entry.key.as_str() > start_after {
                true => visit(entry),
                false => ControlFlow::Continue(()),
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
        store::check_key(key)?;
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
