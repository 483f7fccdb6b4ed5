//! What these tests share: places in stores, archives there, and WAL to put into them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use archive::suite::fixtures;
use archive::{
    Archive, Cancel, CloudStore, Compression, Got, Location, Options, Published, Put, Store as _,
    spawn_plainly,
};
use lab::stores::Store;
use wal::{SegmentSize, SystemIdentifier, WalFileName};

/// System identifier of all WAL here.
pub(crate) const SYSTEM: SystemIdentifier = SystemIdentifier(7_123_456_789_012_345_678);

/// The smallest segments there are.
pub(crate) const SIZE: SegmentSize = SegmentSize::SMALLEST;

/// A URL with what is needed to be let in.
pub(crate) fn with_credentials(store: &Store<'_>, url: &str) -> Result<String> {
    Ok(format!(
        "{url}&credentials_file={}",
        store.credentials_file()?.display()
    ))
}

/// A place in a store.
pub(crate) fn place(store: &Store<'_>, prefix: &str) -> Result<Location> {
    Ok(with_credentials(store, &store.url(prefix))?.parse()?)
}

/// An archive, with small files in mind.
pub(crate) fn open(location: &Location, compression: Compression) -> Result<Archive> {
    let options = Options {
        compression,
        ..Options::default()
    };
    Ok(Archive::open(location, options, spawn_plainly)?)
}

/// The name of a segment on the first timeline.
pub(crate) fn segment(number: u64) -> Result<WalFileName> {
    Ok(format!("00000001{:08X}{:08X}", number / 4096, number % 4096).parse()?)
}

/// A segment in a file; what it holds follows from its name and the variant.
pub(crate) fn source(folder: &Path, name: &WalFileName, variant: u64) -> Result<PathBuf> {
    let path = folder.join(format!("{name}.{variant}"));
    if !path.exists() {
        fs::write(&path, contents(name, variant)?)?;
    }
    Ok(path)
}

/// What such a segment holds.
pub(crate) fn contents(name: &WalFileName, variant: u64) -> Result<Vec<u8>> {
    let segment = name
        .segment()
        .ok_or_else(|| anyhow::anyhow!("\"{name}\" is no segment"))?;
    Ok(fixtures::segment(segment, SIZE, SYSTEM, variant))
}

/// Puts a segment there as other programs would: plain, and past the archive.
pub(crate) fn copy_by_hand(location: &Location, name: &WalFileName, variant: u64) -> Result<()> {
    let Location::Cloud(address) = location else {
        bail!("{location} is a directory");
    };
    let store = CloudStore::open(address, spawn_plainly)?;
    let mut staged = store.stage(&name.to_string())?;
    staged.write_all(&contents(name, variant)?)?;
    ensure!(staged.publish()? == Published::Created, "{name} was there");
    Ok(())
}

/// Archives a segment.
pub(crate) fn put(
    archive: &Archive,
    folder: &Path,
    name: &WalFileName,
    variant: u64,
) -> Result<Put> {
    let source = source(folder, name, variant)?;
    Ok(archive.put_new(name, &source, Some(SYSTEM), &Cancel::new())?)
}

/// Restores a segment, which must be this one.
pub(crate) fn must_restore(
    archive: &Archive,
    folder: &Path,
    name: &WalFileName,
    variant: u64,
) -> Result<()> {
    let dest = folder.join(format!("{name}.restored.{:x}", fastrand::u64(..)));
    let got = archive.get(name, &dest, Some(SYSTEM), &Cancel::new())?;
    ensure!(got != Got::Absent, "{name} is absent");
    ensure!(
        fs::read(&dest)? == contents(name, variant)?,
        "{name} was restored with other bytes"
    );
    Ok(fs::remove_file(&dest)?)
}
