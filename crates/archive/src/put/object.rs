//! Objects in folders, which are no WAL: parts of base backups, their manifests, and small texts about them.
//!
//! Guarantees what a file of WAL gets: nothing is overwritten, what is stored is durable, and what is packed goes through the
//! same code as a segment does (`format`), in memory that does not grow with the object. What is there already with the very
//! bytes that were to be stored is a success, since a store's answer can be lost and its request repeated. An archive that
//! encrypts refuses to have packed objects plain. Small texts are never encrypted: who writes them may hold no identity to
//! read them with.
//!
//! Left to others: what the objects are, and when they are a whole.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};
use wal::{SegmentSize, SystemIdentifier};

use super::note;
use crate::admin::claim::{Owner, claim};
use crate::archive::Archive;
use crate::base::digest::Packed;
use crate::error::Error;
use crate::format::codec::Encoder;
use crate::format::seal::Sealing;
use crate::store::waist::{Published, Staged, split_key};

/// An object on its way into a folder of the archive, invisible until it is finished. Dropping it discards it.
pub struct PackedObject {
    key: String,
    shown: String,
    encoder: Encoder<'static, Sealing<Summed>>,
    bytes: u64,
}

impl Archive {
    /// Makes sure that the archive is this system's, and binds it if it is not bound yet.
    ///
    /// Fails with [`crate::ErrorKind::Foreign`] if it is another's, or one of segments of another size, and as
    /// [`Archive::put_new`] does where the store is at fault.
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
    /// Fails with [`crate::ErrorKind::Unusable`] if the key is in no folder, or the object would be plain where all others are
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
            key: key.to_owned(),
            shown,
            encoder,
            bytes: 0,
        })
    }

    /// Gives an object that was begun in this archive its key, durably.
    ///
    /// Fails with [`crate::ErrorKind::Conflict`] if other bytes are stored under that key, and as the store does; then it may
    /// or may not be there.
    pub fn finish_packed(&self, object: PackedObject) -> Result<Packed, Error> {
        let PackedObject {
            key,
            shown,
            encoder,
            bytes,
        } = object;
        let summed = encoder.finish().and_then(Sealing::finish);
        let summed = summed.map_err(|cause| could_not(&shown, cause))?;
        let packed = Packed {
            bytes,
            stored_bytes: summed.bytes,
            stored_digest: summed.sum.finalize().into(),
        };
        if summed.inner.publish()? == Published::Exists {
            self.must_be_stored(&key, (packed.stored_bytes, packed.stored_digest))?;
        }
        Ok(packed)
    }

    /// Creates an object in a folder with these very bytes, durably.
    ///
    /// Fails with [`crate::ErrorKind::Conflict`] if other bytes are stored under that key, and as the store does; then it may
    /// or may not be there.
    pub fn create_plain(&self, key: &str, bytes: &[u8]) -> Result<(), Error> {
        must_be_in_folder(key)?;
        let mut staged = self.store.stage(key)?;
        staged
            .write_all(bytes)
            .map_err(|cause| could_not(&self.shown(key), cause))?;
        match staged.publish()? {
            Published::Created => Ok(()),
            Published::Exists => {
                self.must_be_stored(key, (bytes.len() as u64, Sha256::digest(bytes).into()))
            }
        }
    }

    /// What is stored under a key has this length and this digest, durably; else a conflict.
    fn must_be_stored(&self, key: &str, expected: (u64, [u8; 32])) -> Result<(), Error> {
        let shown = self.shown(key);
        let Some(object) = self.store.open(key)? else {
            let what = format!("archive file \"{shown}\" disappeared while it was being compared");
            return Err(Error::unavailable(what));
        };
        let conflict = || {
            let what = format!("archive file \"{shown}\" already exists, and has other contents");
            Error::conflict(what)
        };
        if object.bytes != expected.0 {
            return Err(conflict());
        }
        let mut sum = Sha256::new();
        let read = io::copy(&mut object.reader.take(object.bytes), &mut sum).map_err(|cause| {
            Error::io(format!("could not read archive file \"{shown}\""), cause)
        })?;
        if read < object.bytes {
            let what = format!("could not read archive file \"{shown}\": it broke off");
            return Err(Error::unavailable(what));
        }
        if <[u8; 32]>::from(sum.finalize()) != expected.1 {
            return Err(conflict());
        }
        self.store.settle(key)
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
    use crate::{Cancel, Compression, ErrorKind, Faults, FaultyStore, MemoryStore, Options};

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
        archive.finish_packed(object)
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
            // The same again is what is stored, and anything else stands in the way of it.
            assert_eq!(store(&archive, &contents).unwrap(), packed);
            let mut other = contents.clone();
            other[4_000_000] ^= 1;
            for other in [&other, &contents[1..]] {
                let error = store(&archive, other).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Conflict);
            }
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
        for _ in 0..2 {
            archive.create_plain("base/x/backup.json", b"{}").unwrap();
        }
        let error = archive
            .create_plain("base/x/backup.json", b"[]")
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let read = archive
            .read_plain("base/x/backup.json", 10)
            .unwrap()
            .unwrap();
        assert_eq!(read.bytes, b"{}");
    }

    #[test]
    fn a_creation_whose_answer_is_lost_is_a_success_and_what_cannot_be_read_is_no_conflict() {
        let memory = MemoryStore::new();
        let over = |store: FaultyStore| Archive::with_store(Box::new(store), Options::default());
        let repeating = over(FaultyStore::repeating(Box::new(memory.clone())));
        let packed = store(&repeating, &contents()).unwrap();
        repeating.create_plain("base/x/backup.json", b"{}").unwrap();
        let there = repeating.read_plain(KEY, 1 << 30).unwrap().unwrap();
        assert_eq!(there.bytes.len() as u64, packed.stored_bytes);
        let mut failed = 0;
        for seed in 0..200 {
            let failing = FaultyStore::new(Box::new(memory.clone()), Faults::seeded(seed, 100));
            if let Err(error) = over(failing).create_plain("base/x/backup.json", b"{}") {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "seed {seed}: {error}");
                failed += 1;
            }
        }
        assert!((1..200).contains(&failed), "{failed} of 200 failed");
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
