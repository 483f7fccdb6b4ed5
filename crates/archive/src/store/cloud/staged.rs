//! An object on its way into an object store.
//!
//! Guarantees: what fits into [`SINGLE_BYTES_MAX`] is sent with one request, which creates it whole or not at all. What
//! is larger goes in parts under a name of its own that begins with [`STAGED_PREFIX`], and is then copied by the store,
//! which creates the copy only if it is absent; so memory is bounded, and nothing half sent has an archive's name. All three
//! services can do that; a condition on completing an upload in parts Google's XML interface refuses.
//! A dropped object takes its parts with it, as far as the store can be reached.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{
    Attribute, AttributeValue, Attributes, MultipartId, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload,
};

use crate::base::digest::ContentsDigest;
use crate::cancel::Cancel;
use crate::error::Error;
use crate::store::form::{Form, HEAD_BYTES};
use crate::store::retry::Backoff;
use crate::store::waist::{Published, Staged};

use super::address::Service;
use super::asking::limit_for;
use super::connect::Client;
use super::failure::{Failure, Meaning};
use super::note;
use super::requests::Shared;

/// What the names of objects begin with that were sent in parts and have no name yet.
pub(super) const STAGED_PREFIX: &str = "walden.staged.";

/// The most that is kept in memory and sent at once.
pub(super) const SINGLE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The size of a part; stores want at least 5 MiB, and at most 10,000 parts.
const PART_BYTES: usize = 16 * 1024 * 1024;

/// How long a store may take to put the parts of an object together: services speak of minutes.
const ASSEMBLY_MAX: Duration = Duration::from_secs(300);

/// How often a copy is looked at that is not whole yet; with the pauses of `retry.rs` about a minute.
const COPY_LOOKS_MAX: u32 = 16;

/// How much is taken from the system at once.
const PIECE_BYTES: usize = 1024 * 1024;

/// The most that an object of so many bytes takes in memory on its way: all of it, up to what is sent at once.
pub(super) fn bytes_in_memory(bytes: u64) -> u64 {
    bytes.min(SINGLE_BYTES_MAX as u64) + PIECE_BYTES as u64
}

/// The object. See the file's header.
pub(super) struct CloudStaged {
    shared: Arc<Shared>,
    key: String,
    pieces: Vec<Bytes>,
    now: BytesMut,
    /// How many bytes are in the pieces.
    kept: usize,
    /// How many bytes have been sent in parts.
    sent: u64,
    parts: Option<Parts>,
    digest: Option<ContentsDigest>,
}

/// What has been sent already.
struct Parts {
    path: Path,
    upload: MultipartId,
    sent: Vec<PartId>,
}

impl CloudStaged {
    pub(super) fn new(shared: Arc<Shared>, key: &str) -> CloudStaged {
        CloudStaged {
            shared,
            key: key.to_owned(),
            pieces: Vec::new(),
            now: BytesMut::new(),
            kept: 0,
            sent: 0,
            parts: None,
            digest: None,
        }
    }

    /// Writes so many zeros, to try what a store does with them.
    pub(super) fn write_zeros(&mut self, bytes: usize) -> Result<(), Error> {
        let could_not = self.could_not();
        io::copy(&mut io::repeat(0).take(bytes as u64), self)
            .map(drop)
            .map_err(|cause| Error::io(could_not, cause))
    }

    fn keep_piece(&mut self) {
        let piece = std::mem::take(&mut self.now).freeze();
        if !piece.is_empty() {
            self.kept += piece.len();
            self.pieces.push(piece);
        }
    }

    fn take_pieces(&mut self) -> PutPayload {
        self.kept = 0;
        std::mem::take(&mut self.pieces).into_iter().collect()
    }

    /// For an object of which nothing has been sent yet. The client library has none for the copy that gives a large object
    /// its name, which on S3 is then of the store's default class.
    fn attributes(&self) -> Attributes {
        let class = self.shared.address.options.storage_class.clone();
        let class = class.map(|class| (Attribute::StorageClass, AttributeValue::from(class)));
        let head = self.pieces.first().map_or(&[][..], |piece| piece);
        let head = head.get(..HEAD_BYTES).unwrap_or(head);
        let content_type = (Attribute::ContentType, Form::content_type(head).into());
        class.into_iter().chain([content_type]).collect()
    }

    fn could_not(&self) -> String {
        format!(
            "could not store object \"{}\"",
            self.shared.shown(&self.key)
        )
    }

    /// Sends what is kept as one more part.
    fn send_part(&mut self) -> Result<(), Error> {
        let could_not = self.could_not();
        if self.parts.is_none() {
            // Outside of all folders, where what dead writers leave behind is looked for.
            let key = self.key.replace('/', ".");
            let name = format!("{STAGED_PREFIX}{key}.{:016x}", fastrand::u64(..));
            let path = self.shared.path(&name);
            let begun = path.clone();
            let attributes = match self.shared.address.service {
                // The client library refuses to begin any there with attributes.
                Service::Azure => Attributes::new(),
                Service::S3 | Service::Gcs => self.attributes(),
            };
            let begin = move |client: Arc<dyn Client>| {
                let (path, attributes) = (begun.clone(), attributes.clone());
                async move {
                    let options = PutMultipartOptions {
                        attributes,
                        ..PutMultipartOptions::default()
                    };
                    client.create_multipart_opts(&path, options).await
                }
            };
            let upload = self.shared.ask(limit_for(0), begin)?;
            let upload = upload.map_err(|failure| failure.error(&could_not))?;
            self.parts = Some(Parts {
                path,
                upload,
                sent: Vec::new(),
            });
        }
        let payload = self.take_pieces();
        let Some(parts) = &mut self.parts else {
            return Ok(());
        };
        let bytes = payload.content_length() as u64;
        let limit = limit_for(bytes);
        let (path, upload, index) = (parts.path.clone(), parts.upload.clone(), parts.sent.len());
        let part = self.shared.ask(limit, move |client| {
            let (path, upload, payload) = (path.clone(), upload.clone(), payload.clone());
            async move { client.put_part(&path, &upload, index, payload).await }
        })?;
        parts
            .sent
            .push(part.map_err(|failure| failure.error(&could_not))?);
        self.sent += bytes;
        Ok(())
    }

    /// Has the store put the parts together, and give the whole its name.
    fn publish_parts(&mut self) -> Result<Published, Error> {
        let could_not = self.could_not();
        let Some(Parts { path, upload, sent }) = &self.parts else {
            return Err(Error::unavailable(could_not));
        };
        let staged = path.clone();
        let (path, upload) = (path.clone(), upload.clone());
        let parts: Vec<_> = sent.iter().map(|part| part.content_id.clone()).collect();
        let whole = self.shared.ask(ASSEMBLY_MAX, move |client| {
            let (path, upload) = (path.clone(), upload.clone());
            let parts = parts.iter().cloned();
            let parts = parts.map(|content_id| PartId { content_id }).collect();
            async move { client.complete_multipart(&path, &upload, parts).await }
        })?;
        whole.map_err(|failure| failure.error(&could_not))?;
        // From here on there is nothing to give up any more.
        self.parts = None;
        let copied = self.copy_from(&staged)?;
        let created = match copied {
            Ok(()) => true,
            Err(failure) if failure.meaning == Meaning::Exists => false,
            Err(failure) => return Err(failure.error(&could_not)),
        };
        if created {
            self.must_be_whole()?;
        }
        // One that is left behind is found by its prefix.
        drop(self.shared.ask(limit_for(0), move |client| {
            let staged = staged.clone();
            async move { client.delete(&staged).await }
        }));
        Ok(if created {
            Published::Created
        } else {
            Published::Exists
        })
    }

    fn copy_from(&self, staged: &Path) -> Result<Result<(), Failure>, Error> {
        let overwrites = self.shared.overwrites();
        if !overwrites {
            self.shared.prove_copy()?;
        }
        let (from, to) = (staged.clone(), self.shared.path(&self.key));
        self.shared.ask(limit_for(self.sent), move |client| {
            let (from, to) = (from.clone(), to.clone());
            async move {
                if overwrites {
                    client.copy(&from, &to).await
                } else {
                    client.copy_if_not_exists(&from, &to).await
                }
            }
        })
    }

    /// A copy may be promised rather than done (Azure answers 202): it counts when its last byte can be read.
    fn must_be_whole(&self) -> Result<(), Error> {
        let last = self.sent.saturating_sub(1)..self.sent;
        let mut pauses = Backoff::new();
        loop {
            let (path, last) = (self.shared.path(&self.key), last.clone());
            let read = self.shared.ask(limit_for(0), move |client| {
                let (path, last) = (path.clone(), last.clone());
                async move { client.get_range(&path, last).await }
            })?;
            let failure = match read {
                Ok(_) => return Ok(()),
                Err(failure) => failure,
            };
            let pause = pauses.pause();
            if pauses.tries() > COPY_LOOKS_MAX {
                return Err(failure.error(&self.could_not()));
            }
            Cancel::new().wait(pause);
        }
    }

    fn publish_whole(&mut self) -> Result<Published, Error> {
        let mut attributes = self.attributes();
        if let Some(digest) = self.digest {
            let (name, note) = note::of(digest, self.kept);
            attributes.insert(name, note);
        }
        let options = PutOptions {
            mode: if self.shared.overwrites() {
                PutMode::Overwrite
            } else {
                PutMode::Create
            },
            attributes,
            ..PutOptions::default()
        };
        let path = self.shared.path(&self.key);
        let payload = self.take_pieces();
        let limit = limit_for(payload.content_length() as u64);
        let created = self.shared.ask(limit, move |client| {
            let (path, payload, options) = (path.clone(), payload.clone(), options.clone());
            async move { client.put_opts(&path, payload, options).await }
        })?;
        match created {
            Ok(_) => Ok(Published::Created),
            Err(failure) if failure.meaning == Meaning::Exists => Ok(Published::Exists),
            Err(failure) => Err(failure.error(&self.could_not())),
        }
    }
}

impl Write for CloudStaged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.now.capacity() == 0 {
            self.now.reserve(PIECE_BYTES);
        }
        let room = PIECE_BYTES.saturating_sub(self.now.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.now.extend_from_slice(taken);
        if self.now.len() >= PIECE_BYTES {
            self.keep_piece();
            let most = match self.parts {
                Some(_) => PART_BYTES,
                None => SINGLE_BYTES_MAX,
            };
            if self.kept >= most {
                self.send_part().map_err(io::Error::other)?;
            }
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Staged for CloudStaged {
    fn note(&mut self, digest: ContentsDigest) {
        self.digest = Some(digest);
    }

    fn publish(mut self: Box<Self>) -> Result<Published, Error> {
        self.keep_piece();
        // A store that cannot create is asked first: the location says that what may come in between is accepted.
        if self.shared.overwrites() && self.shared.is_there(&self.key)? {
            return Ok(Published::Exists);
        }
        if self.parts.is_none() {
            return self.publish_whole();
        }
        if self.kept > 0 {
            self.send_part()?;
        }
        self.publish_parts()
    }
}

impl Drop for CloudStaged {
    fn drop(&mut self) {
        if let Some(Parts { path, upload, .. }) = self.parts.take() {
            self.shared.forget(path, upload);
        }
    }
}
