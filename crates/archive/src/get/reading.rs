//! Reading an archive without restoring from it: what it holds, and what is in its files.
//!
//! Guarantees contents as they were archived, decrypted and decompressed, in bounded memory; never a part of a file that
//! passes for the whole. Whether the contents are right WAL is left to the reader.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use wal::WalFileName;

use crate::archive::Archive;
use crate::base::digest::Packed;
use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind};
use crate::format::codec::{CHUNK_BYTES, Contents, Decoded};
use crate::format::workspace::{Parts, Workspace};
use crate::store::form::{Form, HEAD_BYTES};
use crate::store::key::parse_key;
use crate::store::waist::{Detail, Entry, Object, split_key};

/// One file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The server's name for it.
    pub name: WalFileName,
    /// The object's key, which is the name.
    pub key: String,
    /// Size as stored, in bytes.
    pub bytes: u64,
    /// When it was stored, by the store's clock.
    pub modified: SystemTime,
}

/// An object in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A WAL file, by its name.
    File(Stored),
    /// Anything else, Walden's own files included.
    Other(Entry),
}

/// A small object that is stored as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainObject {
    /// Its contents.
    pub bytes: Vec<u8>,
    /// When it was stored, by the store's clock.
    pub modified: SystemTime,
}

impl Archive {
    /// In which form a file is stored, by its first bytes; `None` if it is not there. In an object store this is a request.
    pub fn form_of(&self, key: &str) -> Result<Option<Form>, Error> {
        let Some(object) = self.store.open(key)? else {
            return Ok(None);
        };
        let mut head = Vec::with_capacity(HEAD_BYTES);
        let read = object.reader.take(HEAD_BYTES as u64).read_to_end(&mut head);
        let could_not = || format!("could not read archive file \"{}\"", self.shown(key));
        read.map_err(|cause| Error::io(could_not(), cause))?;
        if (head.len() as u64) < object.bytes.min(HEAD_BYTES as u64) {
            return Err(Error::unavailable(could_not()));
        }
        Ok(Some(Form::of(&head)))
    }

    /// Shows `visit` everything in the archive, in no particular order, page by page, until it breaks.
    pub fn each(&self, visit: &mut dyn FnMut(Found) -> ControlFlow<()>) -> Result<(), Error> {
        self.store
            .list("", Detail::Full, &mut |entry| visit(found(entry)))
    }

    /// Shows `visit` what is in a folder, and in those below it, in no particular order, until it breaks. `prefix` is what its
    /// keys begin with, such as `base/`.
    ///
    /// Fails with [`ErrorKind::Unusable`] if the prefix names no folder, and as the store does.
    pub fn each_in(
        &self,
        prefix: &str,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        if split_key(prefix).0.is_empty() {
            let what = format!("\"{}\" names no folder", prefix.escape_default());
            return Err(Error::unusable(what));
        }
        self.store.list(prefix, Detail::Full, visit)
    }

    /// A small object in a folder as it is stored; `None` if it is not there.
    ///
    /// Fails with [`ErrorKind::Damaged`] if it has more than `bytes_max` bytes, and as the store does.
    pub fn read_plain(&self, key: &str, bytes_max: u64) -> Result<Option<PlainObject>, Error> {
        let Some(object) = self.store.open(key)? else {
            return Ok(None);
        };
        let shown = self.shown(key);
        if object.bytes > bytes_max {
            return Err(Error::damaged(format!(
                "archive file \"{shown}\" has {} bytes, more than {bytes_max}",
                object.bytes
            )));
        }
        let mut bytes = Vec::new();
        let read = object.reader.take(object.bytes).read_to_end(&mut bytes);
        let could_not = || format!("could not read archive file \"{shown}\"");
        read.map_err(|cause| Error::io(could_not(), cause))?;
        if (bytes.len() as u64) < object.bytes {
            return Err(Error::unavailable(could_not()));
        }
        Ok(Some(PlainObject {
            bytes,
            modified: object.modified,
        }))
    }

    /// Begins to read files without restoring them.
    pub fn reading(&self) -> Reading<'_> {
        Reading::new(self)
    }
}

fn found(entry: Entry) -> Found {
    match parse_key(&entry.key) {
        Some(name) => Found::File(Stored {
            name,
            key: entry.key,
            bytes: entry.bytes,
            modified: entry.modified,
        }),
        None => Found::Other(entry),
    }
}

/// Reads one file after the other, with the same buffers. Each thread needs its own.
pub struct Reading<'a> {
    archive: &'a Archive,
    workspace: Workspace,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(archive: &'a Archive) -> Reading<'a> {
        Reading {
            archive,
            workspace: Workspace::default(),
        }
    }

    /// Shows `visit` the contents of the file stored under `key`, piece by piece, until it breaks; tells how many bytes it was
    /// shown, `None` if there is no such object. Pieces are 256 kB long, except the last.
    ///
    /// Fails with [`ErrorKind::Damaged`] where what is stored cannot be decoded, [`ErrorKind::Unusable`] if the key is no WAL
    /// file's, and as [`Archive::get`] does where the store or the identity is at fault. What was shown before is to be
    /// forgotten then.
    pub fn read(
        &mut self,
        key: &str,
        cancel: &Cancel,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Option<u64>, Error> {
        let shown = self.archive.shown(key);
        if parse_key(key).is_none() {
            let what = format!("\"{shown}\" is not the name of a WAL file");
            return Err(Error::new(ErrorKind::Unusable, what));
        }
        self.decoded(key, cancel, visit, &|object| object)
    }

    /// The same for an object in a folder, with the digest of what is stored of it. `visit` may break only to give up: the
    /// digest is then that of what was read so far.
    ///
    /// Fails as [`Reading::read`] does.
    pub fn read_summed(
        &mut self,
        key: &str,
        cancel: &Cancel,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Option<Packed>, Error> {
        let sum = Arc::new(Mutex::new((Sha256::new(), 0)));
        let summed = |object: Object| Object {
            reader: Box::new(Summed {
                inner: object.reader,
                sum: Arc::clone(&sum),
            }),
            ..object
        };
        let bytes = self.decoded(key, cancel, visit, &summed)?;
        let (sum, stored_bytes) = sum.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(bytes.map(|bytes| Packed {
            bytes,
            stored_bytes,
            stored_digest: sum.finalize().into(),
        }))
    }

    fn decoded(
        &mut self,
        key: &str,
        cancel: &Cancel,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
        wrapped: &dyn Fn(Object) -> Object,
    ) -> Result<Option<u64>, Error> {
        let shown = self.archive.shown(key);
        let Some(object) = self.archive.store.open(key)?.map(wrapped) else {
            return Ok(None);
        };
        let Parts {
            chunk,
            decompressor,
            ..
        } = self.workspace.parts();
        let identity = self.archive.options.identity_file.as_ref();
        let mut contents = Decoded::with_context(object, shown, identity, decompressor)?;
        let mut total = 0;
        loop {
            cancel.check(&format!("reading of \"{key}\""))?;
            let bytes = contents.fill(chunk)?;
            total += bytes as u64;
            let piece = chunk.get(..bytes).unwrap_or_default();
            if visit(piece).is_break() || bytes < CHUNK_BYTES {
                return Ok(Some(total));
            }
        }
    }
}

/// A reader, and the digest of what has been read from it.
struct Summed {
    inner: Box<dyn Read + Send>,
    sum: Arc<Mutex<(Sha256, u64)>>,
}

impl Read for Summed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let mut lock = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        lock.0.update(buffer.get(..read).unwrap_or_default());
        lock.1 += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use wal::{SegmentSize, SystemIdentifier, WalFileName};

    use super::*;
    use crate::{MemoryStore, Options, suite::fixtures};

    #[test]
    fn a_file_is_read_as_it_was_archived_and_anything_else_is_shown_as_such() {
        let archive = Archive::with_store(Box::new(MemoryStore::new()), Options::default());
        let name: WalFileName = "000000010000000000000007".parse().unwrap();
        let segment = *name.segment().unwrap();
        let bytes = fixtures::segment(&segment, SegmentSize::SMALLEST, SystemIdentifier(7), 1);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name.to_string());
        std::fs::write(&path, &bytes).unwrap();
        archive.put_new(&name, &path, None, &Cancel::new()).unwrap();

        let mut keys = Vec::new();
        let visit = &mut |found| {
            keys.push(match found {
                Found::File(stored) => stored.key,
                Found::Other(entry) => format!("other: {}", entry.key),
            });
            ControlFlow::Continue(())
        };
        archive.each(visit).unwrap();
        keys.sort();
        assert_eq!(keys, [name.to_string(), "other: walden.json".to_owned()]);

        let mut reading = archive.reading();
        let mut seen = Vec::new();
        let read = reading.read(&keys[0], &Cancel::new(), &mut |piece| {
            seen.extend_from_slice(piece);
            ControlFlow::Continue(())
        });
        assert_eq!(read.unwrap(), Some(bytes.len() as u64));
        assert_eq!(seen, bytes);
        let visit = &mut |_: &[u8]| ControlFlow::Continue(());
        assert_eq!(archive.form_of(&keys[0]).unwrap(), Some(Form::Zstd));
        let other = "000000010000000000000008";
        assert_eq!(archive.form_of(other).unwrap(), None);
        assert_eq!(reading.read(other, &Cancel::new(), visit).unwrap(), None);
    }
}
