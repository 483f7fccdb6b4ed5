//! Objects in folders, which are no WAL: parts of base backups, their manifests, and small texts about them.
//!
//! Guarantees what a file of WAL gets: nothing is overwritten, what is stored is durable, and what is packed goes through the
//! same code as a segment does (`format`), in memory that does not grow with the object. An archive that encrypts refuses to
//! have packed objects plain. Small texts are never encrypted: who writes them may hold no identity to read them with.
//!
//! Left to others: what the objects are, and when they are a whole.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};
use wal::{SegmentSize, SystemIdentifier};

use super::note;
use crate::admin::claim::{Owner, claim};
use crate::archive::Archive;
use crate::base::digest::Packed;
use crate::error::{Error, ErrorKind};
use crate::format::codec::Encoder;
use crate::format::seal::Sealing;
use crate::store::waist::{Published, Staged, split_key};

/// An object on its way into a folder of the archive, invisible until it is finished. Dropping it discards it.
pub struct PackedObject {
    shown: String,
    encoder: Encoder<'static, Sealing<Summed>>,
    bytes: u64,
}

impl Archive {
    /// Makes sure that the archive is this system's, and binds it if it is not bound yet.
    ///
    /// Fails with [`ErrorKind::Foreign`] if it is another's, or one of segments of another size, and as [`Archive::put_new`]
    /// does where the store is at fault.
    pub fn bind(&self, system: SystemIdentifier, segment_size: SegmentSize) -> Result<(), Error> {
        let segment_size = Some(segment_size);
        claim(
            self,
            Owner {
                system,
                segment_size,
            },
        )
    }

    /// Begins an object in a folder, compressed and encrypted as segments are.
    ///
    /// Fails with [`ErrorKind::Unusable`] if the key is in no folder, or the object would be plain where all others are
    /// encrypted, and as the store does.
    pub fn begin_packed(&self, key: &str) -> Result<PackedObject, Error> {
        must_be_in_folder(key)?;
        let shown = self.shown(key);
        note::must_be_as_noted(self, &format!("\"{shown}\""))?;
        let summed = Summed {
            inner: self.store.stage(key)?,
            sum: Sha256::new(),
            bytes: 0,
        };
        let encoder = Sealing::begin(&self.options.recipients, None, summed)
            .and_then(|sealing| Encoder::of_unknown_length(self.options.compression, sealing))
            .map_err(|cause| could_not(&shown, cause))?;
        Ok(PackedObject {
            shown,
            encoder,
            bytes: 0,
        })
    }

    /// Creates an object in a folder with these very bytes, durably, unless there is one.
    ///
    /// Fails as the store does; then it may or may not be there.
    pub fn create_plain(&self, key: &str, bytes: &[u8]) -> Result<Published, Error> {
        must_be_in_folder(key)?;
        let mut staged = self.store.stage(key)?;
        staged
            .write_all(bytes)
            .map_err(|cause| could_not(&self.shown(key), cause))?;
        staged.publish()
    }
}

impl PackedObject {
    /// Adds these bytes; fails as the store does.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.encoder
            .write_all(bytes)
            .map_err(|cause| could_not(&self.shown, cause))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// How many bytes have been added.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives the object its key, durably.
    ///
    /// Fails with [`ErrorKind::Conflict`] if there is one under that key, and as the store does; then it may or may not be
    /// there.
    pub fn finish(self) -> Result<Packed, Error> {
        let PackedObject {
            shown,
            encoder,
            bytes,
        } = self;
        let summed = encoder.finish().and_then(Sealing::finish);
        let summed = summed.map_err(|cause| could_not(&shown, cause))?;
        match summed.inner.publish()? {
            Published::Created => Ok(Packed {
                bytes,
                stored_bytes: summed.bytes,
                stored_digest: summed.sum.finalize().into(),
            }),
            Published::Exists => Err(Error::new(
                ErrorKind::Conflict,
                format!("archive file \"{shown}\" already exists"),
            )),
        }
    }
}

impl std::fmt::Debug for PackedObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedObject")
            .field("shown", &self.shown)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// What is in no folder is taken for WAL, or stands beside it.
fn must_be_in_folder(key: &str) -> Result<(), Error> {
    let (folder, _) = split_key(key);
    if folder.is_empty() {
        let what = format!("object key \"{}\" names no folder", key.escape_default());
        return Err(Error::unusable(what));
    }
    Ok(())
}

fn could_not(shown: &str, cause: io::Error) -> Error {
    Error::io(format!("could not write archive file \"{shown}\""), cause)
}

/// A staged object, and the digest of what is written to it.
struct Summed {
    inner: Box<dyn Staged>,
    sum: Sha256,
    bytes: u64,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(bytes.get(..written).unwrap_or(bytes));
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::{Cancel, Compression, MemoryStore, Options};

    const KEY: &str = "base/x/base.00001.tar";

    fn archive(store: &MemoryStore, compression: Compression) -> Archive {
        let options = Options {
            compression,
            ..Options::default()
        };
        Archive::with_store(Box::new(store.clone()), options)
    }

    fn contents() -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(3);
        (0..5_000_000).map(|_| random.u8(..32)).collect()
    }

    fn store(archive: &Archive, contents: &[u8]) -> Result<Packed, Error> {
        let mut object = archive.begin_packed(KEY)?;
        for piece in contents.chunks(32_768) {
            object.add(piece)?;
        }
        assert_eq!(object.bytes(), contents.len() as u64);
        object.finish()
    }

    #[test]
    fn a_packed_object_reads_back_with_the_digest_that_was_told_and_is_never_overwritten() {
        let contents = contents();
        let every = [
            Compression::None,
            Compression::Zstd(1),
            Compression::Zstd(12),
            Compression::Lz4,
        ];
        for compression in every {
            let memory = MemoryStore::new();
            let archive = archive(&memory, compression);
            let packed = store(&archive, &contents).unwrap();
            assert_eq!(packed.bytes, contents.len() as u64);
            let mut seen = Vec::new();
            let found = archive
                .reading()
                .read_summed(KEY, &Cancel::new(), &mut |piece| {
                    seen.extend_from_slice(piece);
                    ControlFlow::Continue(())
                });
            let found = found.unwrap().unwrap();
            assert_eq!(found, packed, "{compression:?}");
            assert!(seen == contents);
            let error = store(&archive, &contents).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
        }
    }

    #[test]
    fn an_archive_that_encrypts_refuses_a_plain_part_and_takes_a_plain_text() {
        let memory = MemoryStore::new();
        let archive = archive(&memory, Compression::None);
        memory.overwrite(crate::ENCRYPTED_KEY, b"x");
        let error = archive.begin_packed(KEY).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable);
        assert!(
            error.to_string().contains("holds encrypted files only"),
            "{error}"
        );
        let created = archive.create_plain("base/x/backup.json", b"{}").unwrap();
        assert_eq!(created, Published::Created);
        let again = archive.create_plain("base/x/backup.json", b"[]").unwrap();
        assert_eq!(again, Published::Exists);
        let read = archive
            .read_plain("base/x/backup.json", 10)
            .unwrap()
            .unwrap();
        assert_eq!(read.bytes, b"{}");
    }

    #[test]
    fn what_is_in_no_folder_is_refused_and_a_text_that_is_too_long_is_not_read() {
        let memory = MemoryStore::new();
        let archive = archive(&memory, Compression::None);
        assert!(archive.begin_packed("000000010000000000000001").is_err());
        assert!(archive.create_plain("walden.json", b"{}").is_err());
        memory.overwrite("base/x/backup.json", &[b' '; 11]);
        let error = archive.read_plain("base/x/backup.json", 10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert_eq!(archive.read_plain("base/x/none", 10).unwrap(), None);
    }
}
