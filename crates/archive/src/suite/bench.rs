//! What every check of the suite works with: the store under test, places and contents for files, ways to store them, and how a
//! broken promise is told.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use wal::{SegmentName, SegmentSize, SystemIdentifier, WalFileName};

use super::fixtures;
use crate::{
    Archive, ClusterSecret, Compression, Error, Faults, FaultyStore, IdentityFile, Options,
    Recipients, Store, Verify,
};

/// A kind of store under test.
pub trait Subject {
    /// Begins anew: from now on [`Subject::open`] opens an empty store.
    fn reset(&mut self) -> Result<(), Error>;

    /// One more handle on the current store, as another process would have. They are used from several
    /// threads.
    fn open(&self) -> Result<Box<dyn Store>, Error>;

    /// One more handle, with faults. Only stores made to be caught put something around the faults.
    fn open_faulty(&self, faults: &Faults) -> Result<Box<dyn Store>, Error> {
        Ok(Box::new(FaultyStore::new(self.open()?, faults.clone())))
    }
}

/// The system whose WAL the suite archives, and another.
pub(super) const SYSTEM: SystemIdentifier = SystemIdentifier(7_123_456_789_012_345_678);
pub(super) const STRANGER: SystemIdentifier = SystemIdentifier(7_876_543_210_987_654_321);

/// The smallest segments there are, for speed.
pub(super) const SIZE: SegmentSize = SegmentSize::SMALLEST;

/// A promise and how it is checked: what was seen, or how it was broken.
pub(super) type Promise = (&'static str, fn(&mut Bench<'_>) -> Result<String, Broken>);

/// How a promise was broken.
pub(super) struct Broken(pub(super) String);

impl From<Error> for Broken {
    fn from(error: Error) -> Broken {
        Broken(format!("unexpected error ({:?}): {error}", error.kind()))
    }
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Broken {
        Broken(format!("unexpected error: {error}"))
    }
}

pub(super) fn must(condition: bool, otherwise: impl Into<String>) -> Result<(), Broken> {
    if condition {
        Ok(())
    } else {
        Err(Broken(otherwise.into()))
    }
}

/// What every check works with.
pub(super) struct Bench<'a> {
    pub(super) subject: &'a mut dyn Subject,
    pub(super) scratch: &'a Path,
    pub(super) random: Rng,
    pub(super) system: SystemIdentifier,
    pub(super) identity: IdentityFile,
    pub(super) recipients: Recipients,
    pub(super) files: u64,
}

impl Bench<'_> {
    pub(super) fn archive(&self, way: impl Into<Way>) -> Result<Archive, Error> {
        Ok(self.over(self.subject.open()?, way.into()))
    }

    /// An archive over this store.
    pub(super) fn over(&self, store: Box<dyn Store>, way: Way) -> Archive {
        let options = Options {
            compression: way.compression,
            recipients: match way.sealing {
                Sealing::None => Recipients::default(),
                Sealing::Sealed | Sealing::Blind => self.recipients.clone(),
            },
            identity_file: (way.sealing != Sealing::Blind).then(|| self.identity.clone()),
            verify: Verify::Header,
            server_major: None,
        };
        Archive::with_store(store, options).with_secret(ClusterSecret::new(SECRET))
    }

    /// Lets files be stored plain again where some are encrypted, as a person would.
    pub(super) fn lift_note(&self) -> Result<(), Error> {
        self.subject.open()?.remove(crate::ENCRYPTED_KEY).map(drop)
    }

    /// A path below the scratch directory that was never used.
    pub(super) fn path(&mut self) -> PathBuf {
        self.files += 1;
        self.scratch.join(format!("file{}", self.files))
    }

    /// A file with these contents.
    pub(super) fn source(&mut self, contents: &[u8]) -> Result<PathBuf, Broken> {
        let path = self.path();
        fs::write(&path, contents)?;
        Ok(path)
    }

    /// Contents for a file of this name.
    pub(super) fn contents(&self, name: &WalFileName, variant: u64) -> Vec<u8> {
        match name {
            WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
                fixtures::segment(segment, SIZE, self.system, variant)
            }
            WalFileName::TimelineHistory(_) => fixtures::timeline_history(
                wal::TimelineId::FIRST,
                "0/700000",
                &format!("v{variant}"),
            ),
            WalFileName::BackupHistory { .. } => format!("LABEL: {variant}\n").into_bytes(),
        }
    }
}

/// How an archive stores files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) compression: Compression,
    pub(super) sealing: Sealing,
}

/// How an archive encrypts files. All of them belong to one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sealing {
    /// Not at all; what is encrypted can be read.
    None,
    /// It does, and can read them.
    Sealed,
    /// It does, and cannot read them.
    Blind,
}

impl From<Compression> for Way {
    fn from(compression: Compression) -> Way {
        Way {
            compression,
            sealing: Sealing::None,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sealing = match self.sealing {
            Sealing::None => "",
            Sealing::Sealed => ", encrypted",
            Sealing::Blind => ", encrypted without identity",
        };
        write!(f, "{}{sealing}", self.compression)
    }
}

const fn way(compression: Compression, sealing: Sealing) -> Way {
    Way {
        compression,
        sealing,
    }
}

pub(super) const COMPRESSIONS: [Way; 3] = [
    way(Compression::None, Sealing::None),
    way(Compression::Zstd(1), Sealing::None),
    way(Compression::Lz4, Sealing::None),
];

/// All ways to store a file; the last one is [`Sealing::Blind`], the others can read what any has stored.
pub(super) const WAYS: [Way; 6] = [
    way(Compression::None, Sealing::None),
    way(Compression::Zstd(1), Sealing::None),
    way(Compression::Lz4, Sealing::None),
    way(Compression::None, Sealing::Sealed),
    way(Compression::Zstd(1), Sealing::Sealed),
    way(Compression::Zstd(1), Sealing::Blind),
];

/// One that encrypts.
pub(super) const SEALED: Way = way(Compression::Zstd(1), Sealing::Sealed);

/// The secret of the one cluster.
pub(super) const SECRET: [u8; crate::CLUSTER_SECRET_BYTES] = [0x5a; crate::CLUSTER_SECRET_BYTES];

pub(super) fn name(text: &str) -> Result<WalFileName, Broken> {
    text.parse()
        .map_err(|_| Broken(format!("\"{text}\" is not a WAL file name")))
}

pub(super) fn segment_of(name: &WalFileName) -> Result<SegmentName, Broken> {
    name.segment()
        .copied()
        .ok_or_else(|| Broken(format!("\"{name}\" is no segment")))
}
