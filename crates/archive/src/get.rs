//! Restoring one file: find it under any suffix, decompress and check it into a file that has no name yet,
//! and give it its name only when it is whole.
//!
//! Guarantees the three answers: restored; absent, which takes proof that the archive was there to be
//! asked; and everything else, an error. A destination is never overwritten and never appears half written.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use wal::{SystemIdentifier, WalFileName};

use crate::archive::{Archive, Got};
use crate::binding::{self, BINDING_KEY};
use crate::check::Check;
use crate::codec::{CHUNK_BYTES, Contents, Decoded};
use crate::compare::{Comparison, Side, compare};
use crate::compression::CompressionKind;
use crate::directory::Directory;
use crate::durable::{Outcome, Staged};
use crate::error::Error;
use crate::key::{key_of, parse_key};
use crate::options::Cancel;
use crate::store::{Detail, Object};

/// What the names of staged files begin with, where they need names. pg_basebackup (`sendDir`) and pg_rewind
/// (`excludeFiles`, 15 to 18) skip what begins with `pgsql_tmp`.
const STAGED_PREFIX: &str = "pgsql_tmp_walden_get_";

/// See [`Archive::get`].
pub(crate) fn get(
    archive: &Archive,
    name: &WalFileName,
    dest: &Path,
    system: Option<SystemIdentifier>,
    cancel: &Cancel,
) -> Result<Got, Error> {
    // The end of a recovery must not depend on an archive that cannot be reached.
    if name.is_never_written() {
        return Ok(Got::Absent);
    }
    let bound = binding::read(archive)?;
    if let (Some(bound), Some(system)) = (&bound, system) {
        binding::check(archive, bound, system)?;
    }
    let Some((key, kind, object)) = find(archive, name, cancel)? else {
        prove_present(archive)?;
        return Ok(Got::Absent);
    };
    let system = system.or(bound.map(|bound| bound.system));
    let dest = Destination::of(dest)?;
    let shown = archive.shown(&key);
    let mut check = Check::new(
        name,
        archive.options.verify,
        system,
        format!("archive file \"{shown}\""),
    );
    let mut contents = Decoded::new(object, kind, shown)?;
    let mut staged = dest.stage(archive, name)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        cancel.check(&format!("restoring of \"{name}\""))?;
        let bytes = contents.fill(&mut chunk)?;
        let now = chunk.get(..bytes).unwrap_or_default();
        check.feed(now)?;
        staged.write_all(now).map_err(|cause| {
            Error::io(
                format!("could not write file \"{}\"", dest.path.display()),
                cause,
            )
        })?;
        if bytes < CHUNK_BYTES {
            break;
        }
    }
    let bytes = check.finish()?;
    // Not synced: the server syncs a restored file before it relies on it (durable_rename in
    // KeepFileRestoredFromArchive, 15 to 18), and after a crash it asks for the file again.
    match staged.publish_unsynced(&dest.name)? {
        Outcome::Created(_) => Ok(Got::Restored { bytes }),
        Outcome::Exists => Err(dest.exists()),
    }
}

/// The object that holds this file. Equal twins under two suffixes are fine; different ones are nobody's
/// choice.
fn find(
    archive: &Archive,
    name: &WalFileName,
    cancel: &Cancel,
) -> Result<Option<(String, CompressionKind, Object)>, Error> {
    let mut found: Vec<(String, CompressionKind)> = Vec::new();
    let mut first = None;
    for kind in CompressionKind::ALL {
        let key = key_of(name, kind);
        if let Some(object) = archive.store.open(&key)? {
            found.push((key.clone(), kind));
            first.get_or_insert((key, kind, object));
        }
    }
    // The usual case: one object, opened once.
    let Some((chosen, rivals)) = found.split_first() else {
        return Ok(None);
    };
    for rival in rivals {
        must_be_twins(archive, chosen, rival, cancel)?;
    }
    Ok(first)
}

fn must_be_twins(
    archive: &Archive,
    one: &(String, CompressionKind),
    other: &(String, CompressionKind),
    cancel: &Cancel,
) -> Result<(), Error> {
    let open = |(key, kind): &(String, CompressionKind)| {
        let object = archive.store.open(key)?.ok_or_else(|| {
            Error::unavailable(format!(
                "archive file \"{}\" was taken away",
                archive.shown(key)
            ))
        })?;
        Decoded::new(object, *kind, archive.shown(key))
    };
    let (mut left, mut right) = (open(one)?, open(other)?);
    match compare(&mut left, &mut right, cancel, "comparing archive files") {
        Ok(Comparison::Equal) => Ok(()),
        Ok(Comparison::Differ { at, .. }) => Err(Error::damaged(format!(
            "archive files \"{}\" and \"{}\" have different contents from byte {at} on",
            archive.shown(&one.0),
            archive.shown(&other.0)
        ))
        .with_hint("Find out which one is right and move the other away.")),
        Err(Side::Left(error) | Side::Right(error) | Side::Neither(error)) => Err(error),
    }
}

/// "Absent" needs more than names that are not there: an unmounted mount point is an empty directory.
///
/// A bound archive proves itself by its binding, read again now, after the names were looked for. An
/// unbound one proves itself by holding any WAL file at all: nobody recovers from an archive that holds
/// none, so nothing is lost by calling that "could not tell", and recovery is not ended by a mount that
/// failed.
fn prove_present(archive: &Archive) -> Result<(), Error> {
    if binding::read(archive)?.is_some() {
        return Ok(());
    }
    let mut holds_wal = false;
    archive.store.list(Detail::Keys, &mut |entry| {
        holds_wal = parse_key(&entry.key).is_some();
        if holds_wal {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    if holds_wal {
        return Ok(());
    }
    Err(Error::unavailable(format!(
        "archive \"{}\" holds no WAL and no \"{BINDING_KEY}\"",
        archive.place()
    ))
    .with_hint("Is the archive's file system mounted? Is this the right directory?"))
}

/// Where a restored file goes.
struct Destination<'a> {
    path: &'a Path,
    parent: &'a Path,
    name: String,
}

impl<'a> Destination<'a> {
    fn of(path: &'a Path) -> Result<Destination<'a>, Error> {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| {
                Error::unusable(format!(
                    "destination \"{}\" is not a file name",
                    path.display()
                ))
            })?;
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let dest = Destination {
            path,
            parent,
            name: name.to_owned(),
        };
        // Only to fail before the work rather than after it; publishing is what cannot overwrite.
        if path.symlink_metadata().is_ok() {
            return Err(dest.exists());
        }
        Ok(dest)
    }

    /// The staged file lies beside the destination: a file is linked only within its own file system.
    fn stage(&self, archive: &Archive, name: &WalFileName) -> Result<Staged, Error> {
        let disk = &archive.disk;
        let staged = disk.stage(
            Directory::open(self.parent)?,
            format!("{STAGED_PREFIX}{name}"),
        )?;
        if staged.has_name() {
            // Then those before us had names too, and may have died with them. Failing to remove them is no
            // reason not to restore; the next one tries again.
            drop(disk.remove_dead(&Directory::open(self.parent)?, STAGED_PREFIX));
        }
        Ok(staged)
    }

    fn exists(&self) -> Error {
        Error::unusable(format!(
            "destination \"{}\" already exists",
            self.path.display()
        ))
        .with_hint("Remove it first: a restored file never overwrites another.")
    }
}
