//! Restoring one file: open it by its name, decrypt, decompress and check it into a file that has no name yet,
//! and give it its name only when it is whole. The two halves may be far apart: see `prefetch`.
//!
//! Guarantees the three answers: restored; absent, which takes proof that the archive was there to be
//! asked; and everything else, an error. A destination is never overwritten and never appears half written.

mod absence;
mod branches;
pub(crate) mod lookup;
pub(crate) mod reading;
pub(crate) mod rule;

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use wal::{SegmentEnd, SegmentSummary, SystemIdentifier, TimelineHistory, WalFileName};

use crate::archive::Archive;
use crate::archive::binding;
use crate::archive::continuity;
use crate::cancel::Cancel;
use crate::error::Error;
use crate::format::check::Check;
use crate::format::codec::{CHUNK_BYTES, Contents, Decoded};
use crate::format::workspace::{Parts, Workspace};
use crate::store::dir::directory::Directory;
use crate::store::dir::durable::{Disk, Outcome, Staged};
use crate::store::dir::early_sync::EarlySync;
use crate::store::key::key_of;

pub use absence::{Evidence, SegmentEvidence, SoughtSegment};
pub use rule::{Answer, AsStored, NotStored, Notice, Rule};

/// What the names of staged files begin with, where they need names. pg_basebackup (`sendDir`) and pg_rewind
/// (`excludeFiles`, 15 to 18) skip what begins with `pgsql_tmp`.
const STAGED_PREFIX: &str = "pgsql_tmp_walden_get_";

/// How often a file is looked for that a listing shows and that cannot be opened.
const LOOKS_MAX: u32 = 3;

/// Result of [`Archive::get`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// The file is at its destination, whole and checked.
    Restored {
        /// Size of the restored file in bytes.
        bytes: u64,
    },
    /// The archive was there to be asked, and does not have the file.
    Absent,
}

/// What is to be fetched.
pub(crate) struct Request<'a> {
    pub(crate) name: &'a WalFileName,
    /// The directory that it is for.
    pub(crate) parent: &'a Path,
    /// Whose WAL it must be, if that is known.
    pub(crate) system: Option<SystemIdentifier>,
    /// No request waits for it yet: it is synced early.
    pub(crate) ahead: bool,
}

/// A file of the archive, whole and checked, in the file system it is wanted in, without its name yet. Dropping
/// it removes it.
pub(crate) struct RestoredFile {
    staged: Staged,
    parent: PathBuf,
    /// Its size, uncompressed.
    pub(crate) bytes: u64,
    /// What it says, if it is a timeline history file.
    pub(crate) history: Option<TimelineHistory>,
}

impl Archive {
    /// Restores a WAL file as `dest`, which must not exist and appears whole or not at all.
    ///
    /// The copy is not synced: the server syncs what it restores (`KeepFileRestoredFromArchive` through
    /// `durable_rename`, 15 to 18). Fails with
    /// * [`crate::ErrorKind::Unavailable`]: could not tell, or could not write;
    /// * [`crate::ErrorKind::Damaged`]: what is stored fails its checks;
    /// * [`crate::ErrorKind::Foreign`]: the archive or the segment is another system's than `system`;
    /// * [`crate::ErrorKind::Unusable`]: `dest` exists; or what is stored is encrypted, and not for our identities, or packed in
    ///   another way than Walden reads;
    /// * [`crate::ErrorKind::Cancelled`].
    pub fn get(
        &self,
        name: &WalFileName,
        dest: &Path,
        system: Option<SystemIdentifier>,
        cancel: &Cancel,
    ) -> Result<Got, Error> {
        match self.get_ruled(name, dest, system, &AsStored, cancel)? {
            Answer::Restored { bytes, .. } => Ok(Got::Restored { bytes }),
            Answer::Absent(_) => Ok(Got::Absent),
        }
    }

    /// The same for a caller that has a rule for what follows from a file's being stored, or not.
    ///
    /// Fails as [`Archive::get`] and as the rule do.
    pub fn get_ruled(
        &self,
        name: &WalFileName,
        dest: &Path,
        system: Option<SystemIdentifier>,
        rule: &dyn Rule,
        cancel: &Cancel,
    ) -> Result<Answer, Error> {
        // The end of a recovery must not depend on an archive that cannot be reached.
        if name.is_never_written() {
            return Ok(Answer::Absent(Vec::new()));
        }
        let dest = Destination::of(dest)?;
        let request = Request {
            name,
            parent: dest.parent,
            system,
            ahead: false,
        };
        if dest.is_taken() && self.store.open(&key_of(name))?.is_some() {
            // Only to fail before the work rather than after it; publishing is what cannot overwrite.
            return Err(dest.exists());
        }
        match ruled(self, &request, rule, &mut Workspace::default(), cancel)? {
            Ruled::File(fetched) => {
                let bytes = fetched.bytes;
                fetched.publish(&dest)?;
                Ok(Answer::Restored {
                    bytes,
                    ahead: false,
                })
            }
            Ruled::Absent(notices) => Ok(Answer::Absent(notices)),
        }
    }
}

/// What a file that was looked for has come to under its rule.
pub(crate) enum Ruled {
    /// It may be handed over.
    File(Box<RestoredFile>),
    /// It is absent; and what to say beside that.
    Absent(Vec<Notice>),
}

/// Fetches a file, and has its rule decide what follows. Works on any thread.
pub(crate) fn ruled(
    archive: &Archive,
    request: &Request<'_>,
    rule: &dyn Rule,
    workspace: &mut Workspace,
    cancel: &Cancel,
) -> Result<Ruled, Error> {
    for _ in 0..LOOKS_MAX {
        let Some(fetched) = fetch(archive, request, workspace, cancel)? else {
            match rule.not_stored(archive, cancel)? {
                NotStored::Absent(notices) => return Ok(Ruled::Absent(notices)),
                NotStored::LookAgain => continue,
            }
        };
        if rule.examines()
            && let Some(notices) = rule.stored(archive, &mut fetched.contents(request.name)?)?
        {
            return Ok(Ruled::Absent(notices));
        }
        return Ok(Ruled::File(Box::new(fetched)));
    }
    Err(Error::unavailable(format!(
        "archive file \"{}\" is listed and cannot be found",
        archive.shown(&key_of(request.name))
    )))
}

/// Fetches a file into an unnamed one in the directory that it is for, and checks it. Works on any thread.
///
/// `None` if no such name was found. That is no answer yet: see [`prove_present`].
pub(crate) fn fetch(
    archive: &Archive,
    request: &Request<'_>,
    workspace: &mut Workspace,
    cancel: &Cancel,
) -> Result<Option<RestoredFile>, Error> {
    let Request {
        name,
        parent,
        system,
        ahead,
    } = *request;
    // One that is wanted now is synced by the server, which waits for it either way.
    let mut early = if ahead { EarlySync::ON } else { EarlySync::Off };
    let bound = binding::known(archive)?;
    if let (Some(bound), Some(system)) = (&bound, system) {
        binding::check(archive, bound, system)?;
    }
    let key = key_of(name);
    let Some(object) = archive.store.open(&key)? else {
        return Ok(None);
    };
    let system = system.or(bound.as_ref().map(|bound| bound.system));
    let shown = archive.shown(&key);
    let mut check = Check::new(
        name,
        archive.options.verify,
        system,
        format!("archive file \"{shown}\""),
    )
    .of_size(bound.and_then(|bound| bound.segment_size))
    .of_server(archive.options.server_major);
    let Parts {
        chunk,
        decompressor,
        ..
    } = workspace.parts();
    let identity = archive.options.identity_file.as_ref();
    let mut contents = Decoded::with_context(object, shown, identity, decompressor)?;
    let mut staged = stage(archive, name, parent)?;
    let dir = parent.display();
    let what = format!("could not write file \"{name}\" in \"{dir}\"");
    let could_not_write = |cause| Error::io(&what, cause);
    loop {
        cancel.check(&format!("restoring of \"{name}\""))?;
        let bytes = contents.fill(chunk)?;
        let now = chunk.get(..bytes).unwrap_or_default();
        check.feed(now)?;
        staged.write_all(now).map_err(could_not_write)?;
        early.wrote(bytes, || staged.sync_early())?;
        if bytes < CHUNK_BYTES {
            break;
        }
    }
    let checked = check.finish()?;
    if let Some(summary) = checked.summary {
        must_fit(archive, request, &summary, &check.shown)?;
        archive.continuity.remember(name, summary);
    }
    let history = check.history();
    branches::must_fit(archive, history.as_ref(), &check.shown)?;
    early.finish(|| staged.sync_early())?;
    Ok(Some(RestoredFile {
        bytes: checked.bytes,
        history,
        staged,
        parent: parent.to_owned(),
    }))
}

/// A segment that does not go on where the one before it ends would be the end of recovery, not a failure of it: so would one
/// in which WAL ends, though it goes on in the next.
fn must_fit(
    archive: &Archive,
    request: &Request<'_>,
    summary: &SegmentSummary,
    shown: &str,
) -> Result<(), Error> {
    if let (SegmentEnd::Ended(lsn), WalFileName::Segment(own)) = (summary.end(), request.name)
        && let Some(next) = own.next(summary.header.segment_size)
        && lookup::is_begun(archive, next)?
    {
        let there = format!(
            "archive file \"{}\" is there",
            archive.shown(&next.to_string())
        );
        return Err(continuity::ends_early(shown, lsn, &there));
    }
    if let WalFileName::Segment(own) = request.name {
        branches::must_begin_here(archive, own, &summary.header, shown)?;
    }
    // What is fetched ahead has nothing replayed before it yet.
    let replayed = (!request.ahead).then_some(request.parent);
    archive.continuity.check(summary, replayed, shown)
}

/// Removes the restored files of dead processes that had names and did not come to be used, and tells how many there
/// were: there are such files only where a file cannot be without a name.
///
/// Fails if the directory cannot be read.
pub fn remove_restore_leftovers(directory: &Path) -> Result<u64, Error> {
    Disk::default().remove_dead(&Directory::open(directory)?, STAGED_PREFIX)
}

impl std::fmt::Debug for RestoredFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoredFile")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl RestoredFile {
    /// What is in the file, from its beginning.
    fn contents(&self, name: &WalFileName) -> Result<impl Read, Error> {
        let could_not = |cause| Error::io(format!("could not read back \"{name}\""), cause);
        let mut file = self.staged.file.try_clone().map_err(could_not)?;
        file.seek(SeekFrom::Start(0)).map_err(could_not)?;
        Ok(file)
    }

    /// Gives the file its name, in the directory that it was fetched for.
    ///
    /// Not synced: the server syncs a restored file before it relies on it (durable_rename in
    /// KeepFileRestoredFromArchive, 15 to 18), and after a crash it asks for the file again.
    pub(crate) fn publish(self, dest: &Destination<'_>) -> Result<(), Error> {
        if dest.parent != self.parent {
            return Err(Error::unusable(format!(
                "file for \"{}\" cannot be published as \"{}\"",
                self.parent.display(),
                dest.path.display()
            )));
        }
        match self.staged.publish_unsynced(&dest.name)? {
            Outcome::Created => Ok(()),
            Outcome::Exists => Err(dest.exists()),
        }
    }
}

/// The staged file lies beside the destination: a file is linked only within its own file system.
fn stage(archive: &Archive, name: &WalFileName, parent: &Path) -> Result<Staged, Error> {
    let disk = &archive.disk;
    let staged = disk.stage(Directory::open(parent)?, format!("{STAGED_PREFIX}{name}"))?;
    if staged.has_name() {
        // Then those before us had names too, and may have died with them. Failing to remove them is no
        // reason not to restore; the next one tries again.
        drop(disk.remove_dead(&Directory::open(parent)?, STAGED_PREFIX));
    }
    Ok(staged)
}

/// Where a restored file goes.
pub(crate) struct Destination<'a> {
    path: &'a Path,
    pub(crate) parent: &'a Path,
    name: String,
}

impl<'a> Destination<'a> {
    /// Fails with [`crate::ErrorKind::Unusable`] if the path cannot be a file's.
    pub(crate) fn of(path: &'a Path) -> Result<Destination<'a>, Error> {
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
        Ok(Destination {
            path,
            parent,
            name: name.to_owned(),
        })
    }

    fn is_taken(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    fn exists(&self) -> Error {
        Error::unusable(format!(
            "destination \"{}\" already exists",
            self.path.display()
        ))
        .with_hint("Remove it first: a restored file never overwrites another.")
    }
}
