//! Unpacking a backup into directories that are empty, each file checked against the manifest while it is written.
//!
//! Guarantees: nothing is written outside of the directories that were named, whatever paths stand in the parts; no file is
//! overwritten; `global/pg_control` is written last, when all other files are there, as the manifest has them, and on disk, so
//! that no server starts in half a data directory. Tablespaces go where the caller says, and `tablespace_map` then names those
//! places, from which the server makes the links of `pg_tblspc` (`read_tablespace_map`, xlogrecovery.c, 15 to 19).
//!
//! Files have the permissions that the backup has, without those of others; run as root they belong to the owner of the
//! directory. Left to others: which backup, recovery's settings, and putting incremental backups together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use archive::{Error, ErrorKind};

use crate::document::{Committed, Tablespace};
use crate::layout::TarName;
use crate::path::SafePath;
use crate::tar::Member;
use crate::verify::{Request, Verified, verify_into};

/// The file without which no server starts.
const CONTROL: &[u8] = b"global/pg_control";

/// What it has at most, in bytes (`PG_CONTROL_FILE_SIZE`, pg_control.h, 15 to 19).
const CONTROL_BYTES_MAX: u64 = 8192;

/// Where the tablespaces are named.
const MAP: &[u8] = b"tablespace_map";

/// Permissions of a file and of a directory at most: its owner's, and for reading its group's.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// Where a backup goes.
#[derive(Debug, Clone)]
pub struct Target {
    /// The new data directory: empty, or not there yet.
    pub directory: PathBuf,
    /// Where each tablespace goes, by its number; one that is not here goes to where it was. Empty, or not there yet.
    pub tablespaces: BTreeMap<u32, PathBuf>,
}

/// Unpacks a backup, and checks it while it does. One with corrupt pages is restored with them, as it may be the only one
/// there is: [`Verified::corrupt_pages`] says how many, and `backup.pages` in which files.
///
/// # Errors
/// [`ErrorKind::Unusable`] if a directory is not empty, before anything is written; [`ErrorKind::Damaged`] if the backup is not
/// what its manifest says; else as the store and the file system do. What was written then stays, without `global/pg_control`.
pub fn restore(
    backup: &Committed,
    target: &Target,
    request: &Request<'_>,
) -> Result<Verified, Error> {
    let tree = Tree::begin(backup, target)?;
    let verified = verify_into(backup, request, Some(&tree));
    if let Some(complaint) = verified.complaints.first() {
        let kind = if complaint.is_unknown {
            ErrorKind::Unavailable
        } else {
            ErrorKind::Damaged
        };
        let error = Error::new(
            kind,
            format!(
                "could not restore backup {}: {}",
                backup.id, complaint.message
            ),
        );
        return Err(match &complaint.hint {
            Some(hint) => error.with_hint(hint.clone()),
            None => error,
        });
    }
    tree.finish(backup)?;
    Ok(verified)
}

/// The directories that a backup goes into.
pub(crate) struct Tree {
    directory: PathBuf,
    tablespaces: BTreeMap<u32, PathBuf>,
    /// Whose the files are to be, if that can be decided.
    owner: Option<(u32, u32)>,
    /// Directories that have been made, or were there.
    folders: Mutex<BTreeSet<PathBuf>>,
    /// `global/pg_control` with its permissions, until everything else is there.
    control: Mutex<Option<(Vec<u8>, u32)>>,
}

/// Where the contents of a file go.
pub(crate) enum Output {
    /// Into a file.
    File(File, PathBuf),
    /// They are kept, and the file is written at the end.
    Control(Vec<u8>, u32),
    /// Another file of that name is written at the end.
    Map,
}

impl Tree {
    fn begin(backup: &Committed, target: &Target) -> Result<Tree, Error> {
        let places = backup
            .tablespaces
            .iter()
            .map(|Tablespace { oid, location }| {
                let place = target.tablespaces.get(oid);
                (
                    *oid,
                    place.cloned().unwrap_or_else(|| PathBuf::from(location)),
                )
            });
        let tablespaces: BTreeMap<u32, PathBuf> = places.collect();
        let unknown = target
            .tablespaces
            .keys()
            .find(|oid| !tablespaces.contains_key(oid));
        if let Some(oid) = unknown {
            let what = format!("backup {} has no tablespace {oid}", backup.id);
            return Err(Error::new(ErrorKind::Unusable, what));
        }
        let all = || tablespaces.values().chain([&target.directory]);
        let distinct: BTreeSet<&PathBuf> = all().collect();
        if distinct.len() <= tablespaces.len() {
            let what = "two of the directories to restore into are the same";
            return Err(Error::new(ErrorKind::Unusable, what));
        }
        for directory in all() {
            must_be_new(directory)?;
        }
        let mut tree = Tree {
            directory: target.directory.clone(),
            tablespaces: tablespaces.clone(),
            owner: None,
            folders: Mutex::default(),
            control: Mutex::default(),
        };
        if is_root() {
            tree.owner = owner_of(&tree.directory);
        }
        for directory in all() {
            tree.make(directory)?;
        }
        Ok(tree)
    }

    fn folders(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a path in a tar file.
    fn place(&self, tar: TarName, path: &SafePath) -> Result<PathBuf, Error> {
        let root = match tar {
            TarName::Base => &self.directory,
            TarName::Tablespace(oid) => self.tablespaces.get(&oid).ok_or_else(|| {
                let what =
                    format!("it has a tablespace {oid}, which \"tablespace_map\" does not name");
                Error::new(ErrorKind::Damaged, what)
            })?,
        };
        Ok(path.below(root))
    }

    /// A directory of the backup.
    pub(crate) fn folder(&self, tar: TarName, path: &SafePath) -> Result<(), Error> {
        self.make(&self.place(tar, path)?)
    }

    /// A file of the backup begins.
    pub(crate) fn file(
        &self,
        tar: TarName,
        path: &SafePath,
        member: &Member,
    ) -> Result<Output, Error> {
        let mode = member.mode & FILE_MODE;
        let place = self.place(tar, path)?;
        if let Some(folder) = place.parent() {
            self.make(folder)?;
        }
        match (tar, path.bytes()) {
            (TarName::Base, CONTROL) if member.bytes <= CONTROL_BYTES_MAX => {
                Ok(Output::Control(Vec::new(), mode))
            }
            (TarName::Base, CONTROL) => Err(Error::new(
                ErrorKind::Damaged,
                format!("\"global/pg_control\" has {} bytes", member.bytes),
            )),
            (TarName::Base, MAP) => Ok(Output::Map),
            _ => Ok(Output::File(self.create(&place, mode)?, place)),
        }
    }

    fn create(&self, place: &Path, mode: u32) -> Result<File, Error> {
        let could_not = |cause| {
            Error::io(
                format!("could not create file \"{}\"", place.display()),
                cause,
            )
        };
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(mode).open(place);
        let file = file.map_err(could_not)?;
        // Whatever the umask is.
        file.set_permissions(fs::Permissions::from_mode(mode))
            .map_err(could_not)?;
        self.own(place).map_err(could_not)?;
        Ok(file)
    }

    fn own(&self, place: &Path) -> io::Result<()> {
        match self.owner {
            Some((user, group)) => chown(place, Some(user), Some(group)),
            None => Ok(()),
        }
    }

    /// Makes a directory, and those above it, unless they are there.
    fn make(&self, folder: &Path) -> Result<(), Error> {
        if self.folders().contains(folder) {
            return Ok(());
        }
        if let Some(above) = folder.parent()
            && !above.exists()
        {
            self.make(above)?;
        }
        let could_not = |cause| {
            Error::io(
                format!("could not create directory \"{}\"", folder.display()),
                cause,
            )
        };
        let mode = match fs::metadata(&self.directory) {
            Ok(root) => root.permissions().mode() & FOLDER_MODE,
            Err(_) => 0o700,
        };
        let mut builder = fs::DirBuilder::new();
        match builder.mode(mode | 0o700).create(folder) {
            Ok(()) => self.own(folder).map_err(could_not)?,
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(could_not(cause)),
        }
        // The one above has its name.
        let names = folder.ancestors().take(2).map(Path::to_owned);
        self.folders().extend(names);
        Ok(())
    }

    /// Makes everything durable, and writes what makes it a data directory.
    fn finish(self, backup: &Committed) -> Result<(), Error> {
        let map = self.directory.join("tablespace_map");
        if !self.tablespaces.is_empty() {
            let text = map_of(&self.tablespaces)?;
            self.write(&map, text.as_bytes(), 0o600)?;
        }
        let folders = self.folders().clone();
        for folder in &folders {
            sync(folder)?;
        }
        let control = self
            .control
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some((contents, mode)) = control else {
            let what = format!("backup {} has no \"global/pg_control\"", backup.id);
            return Err(Error::new(ErrorKind::Damaged, what));
        };
        let place = self.directory.join("global/pg_control");
        self.write(&place, &contents, mode)?;
        sync(&self.directory.join("global"))
    }

    fn write(&self, place: &Path, contents: &[u8], mode: u32) -> Result<(), Error> {
        let mut file = self.create(place, mode)?;
        file.write_all(contents)
            .and_then(|()| file.sync_all())
            .map_err(|cause| {
                Error::io(
                    format!("could not write file \"{}\"", place.display()),
                    cause,
                )
            })
    }
}

impl Output {
    /// So many bytes of it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Output::File(file, place) => file.write_all(bytes).map_err(|cause| {
                Error::io(
                    format!("could not write file \"{}\"", place.display()),
                    cause,
                )
            }),
            Output::Control(kept, _) => {
                kept.extend_from_slice(bytes);
                Ok(())
            }
            Output::Map => Ok(()),
        }
    }

    /// It is over: the file is on disk when this returns.
    pub(crate) fn end(self, tree: &Tree) -> Result<(), Error> {
        match self {
            Output::File(file, place) => file.sync_all().map_err(|cause| {
                Error::io(
                    format!("could not fsync file \"{}\"", place.display()),
                    cause,
                )
            }),
            Output::Control(kept, mode) => {
                let mut control = tree.control.lock().unwrap_or_else(PoisonError::into_inner);
                *control = Some((kept, mode));
                Ok(())
            }
            Output::Map => Ok(()),
        }
    }
}

fn is_root() -> bool {
    // Of the process that asks, which "/proc/self" belongs to.
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Whose a directory is, or the first one above it that is there.
fn owner_of(directory: &Path) -> Option<(u32, u32)> {
    let mut above = directory.ancestors();
    let there = above.find_map(|place| fs::metadata(place).ok())?;
    Some((there.uid(), there.gid()))
}

/// Refuses a directory that has something in it, and a path that is not absolute.
fn must_be_new(directory: &Path) -> Result<(), Error> {
    let shown = directory.display();
    let unusable = |what: String| Error::new(ErrorKind::Unusable, what);
    if !directory.is_absolute() {
        return Err(unusable(format!("\"{shown}\" is not an absolute path")));
    }
    match fs::read_dir(directory) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(unusable(format!("directory \"{shown}\" is not empty"))
                .with_hint("A backup is restored into an empty directory, or into one that is not there yet.")),
        },
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(Error::io(format!("could not open directory \"{shown}\""), cause)),
    }
}

fn sync(folder: &Path) -> Result<(), Error> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|cause| {
        let what = format!("could not fsync directory \"{}\"", folder.display());
        Error::io(what, cause)
    })
}

/// `tablespace_map` for these places, as the server reads it.
fn map_of(tablespaces: &BTreeMap<u32, PathBuf>) -> Result<String, Error> {
    let mut text = String::new();
    for (oid, place) in tablespaces {
        let Some(place) = place.to_str() else {
            let what = format!(
                "path \"{}\" of tablespace {oid} is no text",
                place.display()
            );
            return Err(Error::new(ErrorKind::Unusable, what));
        };
        text.push_str(&format!("{oid} "));
        for character in place.chars() {
            if matches!(character, '\n' | '\r' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
