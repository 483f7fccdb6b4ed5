//! The conformance suite: holds any store, and the archive above it, to the promises that they make.
//!
//! For whoever writes a store: implement [`Subject`] for it, run [`run`], and show the [`Report`]. Every
//! promise is a sentence; the verdict comes with what was seen. Some promises are tried with operations
//! drawn from a seed, under injected faults; the report names the seed, and the same seed draws the same
//! operations again.
//!
//! Guarantees that it notices stores that overwrite, that show objects too early, and that call absent
//! what they could not look for: tests of this crate plant such stores and demand that the suite catches
//! them.
//!
//! Leaves what it wrote below the scratch directory to the caller, and durability, which no test from
//! inside can see, to the tests of each store.

mod archive_promises;
pub mod forge;
mod race_promises;
mod random;
mod store_promises;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use fastrand::Rng;
use wal::{SegmentName, SegmentSize, SystemIdentifier, WalFileName};

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

/// What the suite found about one promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The promise, a sentence.
    pub promise: &'static str,
    /// Whether it was kept.
    pub kept: bool,
    /// What was seen.
    pub evidence: String,
}

/// What the suite found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Draws the same operations again.
    pub seed: u64,
    /// Every promise, in the order in which they were checked.
    pub checked: Vec<Checked>,
}

impl Report {
    /// True if every promise was kept.
    pub fn all_kept(&self) -> bool {
        self.checked.iter().all(|checked| checked.kept)
    }

    /// The promises that were broken.
    pub fn broken(&self) -> Vec<&'static str> {
        self.checked
            .iter()
            .filter(|checked| !checked.kept)
            .map(|checked| checked.promise)
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "WALDEN_SEED={}", self.seed)?;
        for Checked {
            promise,
            kept,
            evidence,
        } in &self.checked
        {
            let verdict = if *kept { "kept  " } else { "BROKEN" };
            writeln!(f, "{verdict}  {promise} ({evidence})")?;
        }
        Ok(())
    }
}

/// The seed to run with: the environment's `WALDEN_SEED`, to replay a report, else one that was never used.
pub fn seed_from_environment() -> u64 {
    let given = std::env::var("WALDEN_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..))
}

/// Checks every promise. Sources and restored files go below `scratch`, an empty directory.
pub fn run(subject: &mut dyn Subject, scratch: &Path, seed: u64) -> Report {
    let promises = store_promises::ALL
        .iter()
        .chain(archive_promises::ALL)
        .chain(race_promises::ALL)
        .chain(random::ALL);
    let (identity, recipients) = match keys(scratch) {
        Ok(keys) => keys,
        Err(error) => {
            let checked = Checked {
                promise: "the suite can write below its scratch directory",
                kept: false,
                evidence: error.to_string(),
            };
            return Report {
                seed,
                checked: vec![checked],
            };
        }
    };
    let mut bench = Bench {
        subject,
        scratch,
        random: Rng::with_seed(seed),
        system: SYSTEM,
        identity,
        recipients,
        files: 0,
    };
    let checked = promises.map(|(promise, check)| {
        let outcome = bench
            .subject
            .reset()
            .map_err(Broken::from)
            .and_then(|()| check(&mut bench));
        let (kept, evidence) = match outcome {
            Ok(evidence) => (true, evidence),
            Err(Broken(evidence)) => (false, evidence),
        };
        Checked {
            promise,
            kept,
            evidence,
        }
    });
    Report {
        seed,
        checked: checked.collect(),
    }
}

/// The system whose WAL the suite archives, and another.
const SYSTEM: SystemIdentifier = SystemIdentifier(7_123_456_789_012_345_678);
const STRANGER: SystemIdentifier = SystemIdentifier(7_876_543_210_987_654_321);

/// The smallest segments there are, for speed.
const SIZE: SegmentSize = SegmentSize::SMALLEST;

/// A promise and how it is checked: what was seen, or how it was broken.
type Promise = (&'static str, fn(&mut Bench<'_>) -> Result<String, Broken>);

/// How a promise was broken.
struct Broken(String);

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

fn must(condition: bool, otherwise: impl Into<String>) -> Result<(), Broken> {
    if condition {
        Ok(())
    } else {
        Err(Broken(otherwise.into()))
    }
}

/// What every check works with.
struct Bench<'a> {
    subject: &'a mut dyn Subject,
    scratch: &'a Path,
    random: Rng,
    system: SystemIdentifier,
    identity: IdentityFile,
    recipients: Recipients,
    files: u64,
}

impl Bench<'_> {
    fn archive(&self, way: impl Into<Way>) -> Result<Archive, Error> {
        Ok(self.over(self.subject.open()?, way.into()))
    }

    /// An archive over this store.
    fn over(&self, store: Box<dyn Store>, way: Way) -> Archive {
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
    fn lift_note(&self) -> Result<(), Error> {
        self.subject.open()?.remove(crate::ENCRYPTED_KEY).map(drop)
    }

    /// A path below the scratch directory that was never used.
    fn path(&mut self) -> PathBuf {
        self.files += 1;
        self.scratch.join(format!("file{}", self.files))
    }

    /// A file with these contents.
    fn source(&mut self, contents: &[u8]) -> Result<PathBuf, Broken> {
        let path = self.path();
        fs::write(&path, contents)?;
        Ok(path)
    }

    /// Contents for a file of this name.
    fn contents(&self, name: &WalFileName, variant: u64) -> Vec<u8> {
        match name {
            WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
                forge::segment(segment, SIZE, self.system, variant)
            }
            WalFileName::TimelineHistory(_) => {
                forge::timeline_history(wal::TimelineId::FIRST, "0/700000", &format!("v{variant}"))
            }
            WalFileName::BackupHistory { .. } => format!("LABEL: {variant}\n").into_bytes(),
        }
    }
}

/// How an archive stores files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    compression: Compression,
    sealing: Sealing,
}

/// How an archive encrypts files. All of them belong to one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sealing {
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

const COMPRESSIONS: [Way; 3] = [
    way(Compression::None, Sealing::None),
    way(Compression::Zstd(1), Sealing::None),
    way(Compression::Lz4, Sealing::None),
];

/// All ways to store a file; the last one is [`Sealing::Blind`], the others can read what any has stored.
const WAYS: [Way; 6] = [
    way(Compression::None, Sealing::None),
    way(Compression::Zstd(1), Sealing::None),
    way(Compression::Lz4, Sealing::None),
    way(Compression::None, Sealing::Sealed),
    way(Compression::Zstd(1), Sealing::Sealed),
    way(Compression::Zstd(1), Sealing::Blind),
];

/// One that encrypts.
const SEALED: Way = way(Compression::Zstd(1), Sealing::Sealed);

/// The secret of the one cluster.
const SECRET: [u8; crate::CLUSTER_SECRET_BYTES] = [0x5a; crate::CLUSTER_SECRET_BYTES];

/// A new identity in a file, and the recipient that it is for.
fn keys(scratch: &Path) -> Result<(IdentityFile, Recipients), Error> {
    let identity = age::x25519::Identity::generate();
    let path = scratch.join("identity");
    let text = identity.to_string();
    fs::write(&path, text.expose_secret())
        .map_err(|cause| Error::io("could not write identity file", cause))?;
    let file = path.to_string_lossy().parse()?;
    Ok((file, identity.to_public().to_string().parse()?))
}

fn name(text: &str) -> Result<WalFileName, Broken> {
    text.parse()
        .map_err(|_| Broken(format!("\"{text}\" is not a WAL file name")))
}

fn segment_of(name: &WalFileName) -> Result<SegmentName, Broken> {
    name.segment()
        .copied()
        .ok_or_else(|| Broken(format!("\"{name}\" is no segment")))
}

#[cfg(test)]
mod tests;
