//! The narrow waist: what any place must offer to carry an archive. Raw objects under keys, nothing of WAL.
//!
//! A key is a name, or names of folders and a name: `base/20261129T171500Z-3fa9/backup.json`. What is in folders is seen only
//! by who asks for it: a listing of names, as that of all WAL is, never meets it, however much it is.
//!
//! What an implementation promises, and `crate::suite` checks:
//! * an object is visible whole or not at all, and only after `publish` has begun to link it;
//! * nothing is ever overwritten: of several writers of one key one is told `Created`, the others `Exists`;
//! * `Created` is answered only for bytes and a name that survive a power cut;
//! * only a store that is really there answers "absent"; any doubt is an error.
//!
//! Left to `crate::Archive`: names of WAL files, forms, checks, who may write, which bytes are equal.

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::time::SystemTime;

use crate::base::digest::ContentsDigest;
use crate::error::Error;

/// The longest key, in bytes. The server's names have at most 40; people's names beside them may have more.
pub const KEY_BYTES_MAX: usize = 100;

/// How many names a key has at most: two folders, and the object's own.
const KEY_NAMES_MAX: usize = 3;

/// One stored object, open for reading.
pub struct Object {
    /// Its bytes, as they are stored. Ends after `bytes` bytes, or the object was cut short on the way.
    pub reader: Box<dyn Read + Send>,
    /// How many bytes are stored.
    pub bytes: u64,
    /// When it was stored, by the store's clock.
    pub modified: SystemTime,
    /// Which file it is, where it is one: device and inode.
    pub file: Option<(u64, u64)>,
}

/// What a look at a key shows, where looking costs next to nothing.
pub enum Glance {
    /// The object, open for reading.
    Object(Object),
    /// The store has looked and there is none.
    Absent,
    /// Nobody has looked: it would have been a request.
    NotLooked,
}

/// What is noted with an object, beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// The store has looked and there is no such object.
    Absent,
    /// There is one, and no digest that is known to be of these bytes.
    Nothing,
    /// There is one, and its writer has noted this digest when it created it.
    Digest(ContentsDigest),
}

/// What a listing tells of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Key of the object.
    pub key: String,
    /// How many bytes are stored; 0 when only keys were asked for.
    pub bytes: u64,
    /// When it was stored; the epoch when only keys were asked for.
    pub modified: SystemTime,
}

/// How much a listing must tell. Keys alone can be had far cheaper from a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Keys alone; sizes and times may be missing.
    Keys,
    /// Keys, sizes and times.
    Full,
}

/// How a store is tried before it is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial<'a> {
    /// One writer after the other: for whoever stores one file and goes.
    Brief,
    /// Several at once, and that several times.
    Thorough,
    /// One request, for whoever comes to a place that somebody has tried before: an object that is there is created once
    /// more, with the bytes that it has, which has to be refused. A store that does it has changed nothing by that.
    Again {
        /// Key of the object.
        key: &'a str,
        /// Bytes of the object.
        bytes: &'a [u8],
    },
}

/// The outcome of publishing a staged object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It is there now, durably, and by our doing.
    Created,
    /// Somebody has the key already; the staged bytes are gone and nothing has changed.
    Exists,
}

/// An object being written, invisible until it is published. Dropping it discards it.
pub trait Staged: Write + Send {
    /// Does what can be done before the object's turn to be published has come: its bytes are made durable where that is not
    /// the same as to send them. Promises nothing.
    fn prepare(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Notes a digest with the object, so that who has the same contents need not fetch it ([`Store::noted`]). It is stored by
    /// the request that creates the object, or not at all.
    fn note(&mut self, digest: ContentsDigest) {
        let _ = digest;
    }

    /// Makes the bytes durable, then gives them their key unless somebody has it, then makes the key durable.
    ///
    /// An error means that the answer is not known: the object may or may not be there. The caller offers
    /// the same bytes again, from the start, and finds out.
    fn publish(self: Box<Self>) -> Result<Published, Error>;
}

/// A place for raw objects under keys. All calls block; all may come from several threads at once.
pub trait Store: Send + Sync {
    /// Begins an object that will be published under this key.
    fn stage(&self, key: &str) -> Result<Box<dyn Staged>, Error>;

    /// Opens an object. `None` means that the store has looked and there is none.
    fn open(&self, key: &str) -> Result<Option<Object>, Error>;

    /// Looks at a key and opens the object, unless that is a request over a network: whoever means to create it learns as
    /// much from the store's answer then.
    fn glance(&self, key: &str) -> Result<Glance, Error> {
        let _ = key;
        Ok(Glance::NotLooked)
    }

    /// Whether digests are worth making: where an object is fetched over a network to be compared.
    fn keeps_notes(&self) -> bool {
        false
    }

    /// What is noted with an object, without fetching it. An object that is there is durable, as [`Store::settle`] makes it.
    fn noted(&self, key: &str) -> Result<Noted, Error> {
        let _ = key;
        Ok(Noted::Nothing)
    }

    /// Makes an existing object durable again, whoever wrote it, name included.
    ///
    /// Fails if the object is not there.
    fn settle(&self, key: &str) -> Result<(), Error>;

    /// Shows every published object whose key begins with `prefix` to `visit`, until it breaks: without a `/` in the prefix
    /// those in no folder, else those in that folder and in folders below it. Memory used does not grow with the number of
    /// objects. `visit` must not call the store.
    ///
    /// A WAL file's name that is there, and is none of the store's objects, is shown as well: it may have been one, and
    /// [`Store::open`] fails for it.
    fn list(
        &self,
        prefix: &str,
        detail: Detail,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.list_after(prefix, "", detail, visit)
    }

    /// As [`Store::list`], for the keys behind `start_after` in byte order, which itself need be no key and is not shown.
    /// A store that orders its keys shows them without reading those before.
    fn list_after(
        &self,
        prefix: &str,
        start_after: &str,
        detail: Detail,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), Error>;

    /// Whether [`Store::list`] shows keys in their order: then whoever looks for the first one may break off there.
    fn lists_in_order(&self) -> bool {
        false
    }

    /// How many objects the last listing left out because no archive has such names, where that is known and worth a note.
    fn skipped(&self) -> u64 {
        0
    }

    /// Removes an object, durably, and tells whether it was there.
    fn remove(&self, key: &str) -> Result<bool, Error>;

    /// Removes what dead writers left behind unpublished, and tells how many such things there were.
    fn remove_leftovers(&self) -> Result<u64, Error>;

    /// Whether an object that is staged is all but there, so that publishing several in order costs next to nothing: not where
    /// publishing is what sends it.
    fn stages_ahead(&self) -> bool {
        true
    }

    /// The most that a staged object of so many bytes takes in memory.
    fn staged_bytes(&self, bytes: u64) -> u64 {
        let _ = bytes;
        0
    }

    /// The most that an opened object takes in memory, beside what its reader is asked for.
    fn opened_bytes(&self) -> u64 {
        0
    }

    /// Finds out by trying, once and in one way, whether creating never overwrites, where that is not ours to guarantee.
    ///
    /// Fails with [`crate::ErrorKind::Unusable`] if it does, [`crate::ErrorKind::Unavailable`] if that could not be found
    /// out.
    fn prove_creation(&self, _: Trial<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Whether what is not there may be on a file system that is not mounted.
    fn may_be_unmounted(&self) -> bool {
        false
    }

    /// What to call this place in messages.
    fn place(&self) -> String;
}

/// Refuses what cannot be a key: at most [`KEY_NAMES_MAX`] names with a `/` between them, of letters, digits, dots, dashes and
/// underscores, none of them hidden.
pub(crate) fn check_key(key: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let is_name =
        |name: &str| !name.is_empty() && !name.starts_with('.') && name.chars().all(allowed);
    let length_right = (1..=KEY_BYTES_MAX).contains(&key.len());
    if length_right && key.split('/').count() <= KEY_NAMES_MAX && key.split('/').all(is_name) {
        return Ok(());
    }
    Err(Error::unusable(format!(
        "\"{}\" is not a valid object key",
        key.escape_default()
    )))
}

/// A key's folder, with the `/` behind it, and the name in it. A key in no folder has the folder "".
pub(crate) fn split_key(key: &str) -> (&str, &str) {
    key.split_at(key.rfind('/').map_or(0, |at| at + 1))
}

/// Whether a listing of this prefix shows that key.
pub(crate) fn is_listed(prefix: &str, key: &str) -> bool {
    key.starts_with(prefix) && (prefix.contains('/') || !key.contains('/'))
}
