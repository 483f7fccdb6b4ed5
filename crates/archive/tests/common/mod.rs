//! A directory archive for a test, and files to offer it.
#![allow(dead_code, missing_docs, reason = "every test file uses a part of it")]

use std::fs;
use std::path::PathBuf;

use tempfile::{TempDir, tempdir};
use wal::{SegmentSize, SystemIdentifier, WalFileName};
use walden_archive::suite::fixtures;
use walden_archive::{
    Archive, Cancel, Compression, Error, Got, Location, Options, Put, Verify, spawn_plainly,
};

pub(crate) const OURS: SystemIdentifier = SystemIdentifier(7_000_000_000_000_000_001);
pub(crate) const THEIRS: SystemIdentifier = SystemIdentifier(7_000_000_000_000_000_002);

pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) scratch: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place {
            dir: tempdir().unwrap(),
            scratch: tempdir().unwrap(),
        }
    }

    pub(crate) fn archive(&self, compression: Compression) -> Archive {
        let options = Options {
            compression,
            verify: Verify::Header,
            ..Options::default()
        };
        let location = Location::directory(self.dir.path()).unwrap();
        Archive::open(&location, options, spawn_plainly).unwrap()
    }

    pub(crate) fn stored(&self, key: &str) -> PathBuf {
        self.dir.path().join(key)
    }

    pub(crate) fn source(&self, contents: &[u8]) -> PathBuf {
        let path = self
            .scratch
            .path()
            .join(format!("source{}", unused_number()));
        fs::write(&path, contents).unwrap();
        path
    }

    pub(crate) fn put(&self, archive: &Archive, name: &str, contents: &[u8]) -> Result<Put, Error> {
        let source = self.source(contents);
        archive.put_new(&name.parse().unwrap(), &source, Some(OURS), &Cancel::new())
    }

    /// The bytes restored, or none if absent.
    pub(crate) fn get(&self, archive: &Archive, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let dest = self.scratch.path().join(format!("dest{}", unused_number()));
        match archive.get(&name.parse().unwrap(), &dest, None, &Cancel::new())? {
            Got::Absent => Ok(None),
            Got::Restored { .. } => Ok(Some(fs::read(dest).unwrap())),
        }
    }
}

/// A number never used before in this process.
fn unused_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn segment_of(
    name: &str,
    system: SystemIdentifier,
    size: SegmentSize,
    variant: u64,
) -> Vec<u8> {
    let name: WalFileName = name.parse().unwrap();
    fixtures::segment(name.segment().unwrap(), size, system, variant)
}

pub(crate) fn segment(name: &str) -> Vec<u8> {
    segment_of(name, OURS, SegmentSize::SMALLEST, 1)
}

pub(crate) const ONE: &str = "000000010000000000000001";
pub(crate) const TWO: &str = "000000010000000000000002";
