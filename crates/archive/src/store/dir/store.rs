//! The directory store: objects are files of one directory, and of directories in it where their keys name folders.
//!
//! Guarantees what [`Store`] asks, through `durable.rs`. The directory is opened anew for every call, so
//! that a file system mounted or unmounted meanwhile is noticed and never kept busy. A name that is not
//! there counts as absent only because the directory was opened, as a directory, by the very same call. A WAL file's name
//! that something else has, a link to nowhere or a directory, is listed as well, and is an error to whoever opens it.
//! New files get the directory's group, where this process may give it to them.
//!
//! Left to [`crate::Archive`]: an empty mount point is a directory too.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{self as sys, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::cancel::Cancel;
use crate::error::{Error, Mark};
use crate::store::dir::directory::{Directory, names_of};
use crate::store::dir::durable::{self, Disk, Outcome, Staging};
use crate::store::dir::early_writes::EarlyWrites;
use crate::store::key::{beside, parse_key};
use crate::store::waist::{self, Detail, Entry, Glance, Object, Published, Staged, Store};

/// The folders that writers of keys with folders use: base backups, and WAL that is not whole yet. Nothing is removed from any
/// other, which is somebody else's.
const OWN_FOLDERS: [&str; 2] = ["base", "tail"];

/// What the names of staged files begin with.
const STAGED_PREFIX: &str = "walden.staged.";

/// How long to wait for another process that has linked a file and syncs its name: a second in all, a hundred times what that
/// takes. One that hangs longer is reported, and the file is offered again.
const SETTLE_PAUSE: Duration = Duration::from_millis(10);
const SETTLE_TRIES_MAX: u32 = 100;

/// How often a name is looked at that is there and cannot be opened: it may be linked or removed in between.
const OPEN_TRIES_MAX: u32 = 3;

/// A directory as a store.
pub struct DirStore {
    root: PathBuf,
    disk: Disk,
    /// Files whose sync has failed under us. The kernel reports a lost write once; a later sync of the same
    /// file may succeed without the bytes, so it must not be believed.
    distrusted: Mutex<HashSet<String>>,
}

impl DirStore {
    /// The directory must exist and be readable.
    ///
    /// Fails with [`crate::ErrorKind::Unavailable`] if it cannot be opened, [`crate::ErrorKind::Unusable`] if
    /// it is not a directory or the path is not absolute.
    pub fn open(path: &Path) -> Result<DirStore, Error> {
        DirStore::with_disk(path, Disk::default())
    }

    /// The same with named staged files even where unnamed ones would do, to test what other file systems
    /// get.
    pub fn open_with_named_staging(path: &Path) -> Result<DirStore, Error> {
        DirStore::with_disk(path, Disk::with_staging(Staging::Named))
    }

    pub(crate) fn with_disk(path: &Path, disk: Disk) -> Result<DirStore, Error> {
        if !path.is_absolute() {
            return Err(Error::unusable(format!(
                "archive directory \"{}\" is not an absolute path",
                path.display()
            )));
        }
        Directory::open(path)?;
        Ok(DirStore {
            root: path.to_owned(),
            disk: Disk {
                group_of_directory: true,
                ..disk
            },
            distrusted: Mutex::default(),
        })
    }

    fn distrusted(&self) -> MutexGuard<'_, HashSet<String>> {
        self.distrusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn directory(&self) -> Result<Directory, Error> {
        Directory::open(&self.root)
    }

    /// Where a key's file is, and its name there; `None` if there is no such folder.
    fn place_of<'k>(&self, key: &'k str) -> Result<(Option<Directory>, &'k str), Error> {
        let (folder, name) = waist::split_key(key);
        Ok((self.folder(folder)?, name))
    }

    /// A folder, by what keys in it begin with.
    fn folder(&self, folder: &str) -> Result<Option<Directory>, Error> {
        let mut dir = self.directory()?;
        for name in folder.split_terminator('/') {
            let Some(below) = dir.folder(name)? else {
                return Ok(None);
            };
            dir = below;
        }
        Ok(Some(dir))
    }

    /// Shows what is in a directory, and below it if that is wanted. `folder` is what its keys begin with.
    fn walk(&self, dir: &Directory, folder: &str, wanted: &mut Wanted<'_>) -> Result<Walk, Error> {
        let could_not = |errno: Errno| {
            Error::io(
                format!("could not read directory \"{}\"", dir.path.display()),
                errno.into(),
            )
        };
        for entry in sys::Dir::read_from(&dir.fd).map_err(could_not)? {
            let entry = entry.map_err(could_not)?;
            // Names that are not text, or that no key may have, are not ours.
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            let key = format!("{folder}{name}");
            if waist::check_key(&key).is_err() || name.starts_with(STAGED_PREFIX) {
                continue;
            }
            let kind = entry.file_type();
            if wanted.goes_below && !kind.is_file() && wanted.may_be_below(&key) {
                match dir.folder(name) {
                    Ok(Some(below)) => {
                        let walk = self.walk(&below, &format!("{key}/"), wanted)?;
                        if walk == Walk::Ended {
                            return Ok(walk);
                        }
                        continue;
                    }
                    Ok(None) => continue,
                    // A link to a file.
                    Err(error) if error.is_no_file() => {}
                    Err(error) => return Err(error),
                }
            }
            if !key.starts_with(wanted.prefix) || key.as_str() <= wanted.start_after {
                continue;
            }
            let Some(entry) = self.entry(dir, &key, kind, wanted.detail)? else {
                continue;
            };
            if (wanted.visit)(entry).is_break() {
                return Ok(Walk::Ended);
            }
        }
        Ok(Walk::GoesOn)
    }

    fn shown(&self, key: &str) -> String {
        self.root.join(key).display().to_string()
    }

    fn object(&self, key: &str, file: File) -> Result<Object, Error> {
        let stat = sys::fstat(&file).map_err(|errno| self.could_not("stat", key, errno))?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            let message = format!("\"{}\" is not a regular file", self.shown(key));
            return Err(Error::unusable(message).marked(Mark::NoFile));
        }
        Ok(Object {
            bytes: bytes_of(&stat),
            modified: modified_of(&stat),
            file: Some((stat.st_dev, stat.st_ino)),
            reader: Box::new(file),
        })
    }

    fn could_not(&self, verb: &str, key: &str, errno: Errno) -> Error {
        Error::io(
            format!("could not {verb} file \"{}\"", self.shown(key)),
            errno.into(),
        )
    }
}

/// Bytes that [`try_to_write`] writes, and the key that they would have.
const TRIAL_BYTES: usize = 1024 * 1024;
const TRIAL_KEY: &str = "walden-check";

/// Writes to a directory's file system as a segment is written, to the disk, and takes it back; how many bytes that were. What
/// is stored there is not touched, and nothing ever has a key.
///
/// Fails as storing a segment there would: no room, no permission, a disk that does not take it.
pub fn try_to_write(directory: &Path) -> Result<u64, Error> {
    let store = DirStore::open(directory)?;
    let mut staged = store.stage(TRIAL_KEY)?;
    // Of all values, so that a file system that leaves out zeros has to keep them.
    let bytes: Vec<u8> = (0..TRIAL_BYTES).map(|at| at.to_le_bytes()[0]).collect();
    staged
        .write_all(&bytes)
        .and_then(|()| staged.flush())
        .map_err(|cause| Error::io(format!("could not write to \"{}\"", store.place()), cause))?;
    staged.prepare()?;
    Ok(TRIAL_BYTES as u64)
}

impl Store for DirStore {
    fn stage(&self, key: &str) -> Result<Box<dyn Staged>, Error> {
        waist::check_key(key)?;
        let (folder, name) = waist::split_key(key);
        let mut dir = self.directory()?;
        for folder in folder.split_terminator('/') {
            dir = self.disk.make_folder(&dir, folder)?;
        }
        let file = self.disk.stage(dir, format!("{STAGED_PREFIX}{name}"))?;
        Ok(Box::new(DirStaged {
            file,
            name: name.to_owned(),
            early: EarlyWrites::default(),
        }))
    }

    fn open(&self, key: &str) -> Result<Option<Object>, Error> {
        waist::check_key(key)?;
        let (Some(dir), name) = self.place_of(key)? else {
            return Ok(None);
        };
        // Not to hang on a fifo that somebody put there.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        for _ in 0..OPEN_TRIES_MAX {
            match sys::openat(&dir.fd, name, flags, Mode::empty()) {
                Ok(fd) => return self.object(key, fd.into()).map(Some),
                Err(Errno::NOENT) => {}
                Err(errno) if is_of_no_file(errno) => {
                    return Err(self.could_not("open", key, errno).marked(Mark::NoFile));
                }
                Err(errno) => return Err(self.could_not("open", key, errno)),
            }
            // A symbolic link to nowhere, into an unmounted file system perhaps, is there all the same.
            match sys::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(self.could_not("stat", key, errno)),
                Ok(_) => {}
            }
        }
        Err(self
            .could_not("open", key, Errno::NOENT)
            .marked(Mark::NoFile))
    }

    fn glance(&self, key: &str) -> Result<Glance, Error> {
        Ok(self.open(key)?.map_or(Glance::Absent, Glance::Object))
    }

    fn settle(&self, key: &str) -> Result<(), Error> {
        waist::check_key(key)?;
        if self.distrusted().contains(key) {
            let message = format!(
                "could not make file \"{}\" durable: an earlier fsync failed",
                self.shown(key)
            );
            return Err(Error::unavailable(message).with_hint(
                "Check the storage, then move the file away so that it is archived again.",
            ));
        }
        let (Some(dir), name) = self.place_of(key)? else {
            return Err(self.could_not("open", key, Errno::NOENT));
        };
        for _ in 1..SETTLE_TRIES_MAX {
            match self.disk.settle(&dir, name) {
                Err(error) if error.mark() == Some(Mark::Busy) => {
                    Cancel::new().wait(SETTLE_PAUSE);
                }
                settled => return self.distrust(key, settled),
            }
        }
        self.distrust(key, self.disk.settle(&dir, name))
    }

    fn list_after(
        &self,
        prefix: &str,
        start_after: &str,
        detail: Detail,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let (folder, _) = waist::split_key(prefix);
        let Some(dir) = self.folder(folder)? else {
            return Ok(());
        };
        let mut wanted = Wanted {
            prefix,
            start_after,
            detail,
            goes_below: !folder.is_empty(),
            visit,
        };
        self.walk(&dir, folder, &mut wanted).map(drop)
    }

    fn remove(&self, key: &str) -> Result<bool, Error> {
        waist::check_key(key)?;
        match self.place_of(key)? {
            (Some(dir), name) => self.disk.remove(&dir, name),
            (None, _) => Ok(false),
        }
    }

    fn remove_leftovers(&self) -> Result<u64, Error> {
        let root = self.directory()?;
        let mut removed = self.disk.remove_dead(&root, STAGED_PREFIX)?;
        for folder in OWN_FOLDERS {
            // One that is gone, or that we may not look into, is not ours.
            let Ok(Some(folder)) = root.own_folder(folder) else {
                continue;
            };
            removed += self.disk.remove_dead(&folder, STAGED_PREFIX)?;
            for name in folders_in(&folder)? {
                if let Ok(Some(below)) = folder.own_folder(&name) {
                    removed += self.disk.remove_dead(&below, STAGED_PREFIX)?;
                }
            }
        }
        Ok(removed)
    }

    fn may_be_unmounted(&self) -> bool {
        true
    }

    fn place(&self) -> String {
        self.root.display().to_string()
    }
}

impl DirStore {
    /// Remembers a failed sync.
    fn distrust(&self, key: &str, settled: Result<(), Error>) -> Result<(), Error> {
        settled.inspect_err(|error| {
            if error.mark() == Some(Mark::FailedSync) {
                self.distrusted().insert(key.to_owned());
            }
        })
    }

    /// One listed name; `None` if it is gone by now, or is no file and has no WAL file's name either.
    fn entry(
        &self,
        dir: &Directory,
        key: &str,
        listed_as: FileType,
        detail: Detail,
    ) -> Result<Option<Entry>, Error> {
        let key_only = Entry {
            key: key.to_owned(),
            bytes: 0,
            modified: SystemTime::UNIX_EPOCH,
        };
        if detail == Detail::Keys && listed_as.is_file() {
            return Ok(Some(key_only));
        }
        let (_, name) = waist::split_key(key);
        let is_wal = parse_key(key).is_some() || beside(key).is_some();
        match sys::statat(&dir.fd, name, AtFlags::empty()) {
            Ok(stat) if !FileType::from_raw_mode(stat.st_mode).is_file() => {
                Ok(is_wal.then_some(key_only))
            }
            Ok(stat) => Ok(Some(Entry {
                bytes: bytes_of(&stat),
                modified: modified_of(&stat),
                ..key_only
            })),
            Err(errno) if errno == Errno::NOENT || is_of_no_file(errno) => {
                match sys::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(_) => Ok(is_wal.then_some(key_only)),
                    Err(Errno::NOENT) => Ok(None),
                    Err(errno) => Err(self.could_not("stat", key, errno)),
                }
            }
            Err(errno) => Err(self.could_not("stat", key, errno)),
        }
    }
}

/// What a listing is to show, and to whom.
struct Wanted<'a> {
    prefix: &'a str,
    start_after: &'a str,
    detail: Detail,
    /// Whether folders are looked into.
    goes_below: bool,
    visit: &'a mut dyn FnMut(Entry) -> ControlFlow<()>,
}

impl Wanted<'_> {
    /// Whether a key that is wanted may be in the folder of this key.
    fn may_be_below(&self, key: &str) -> bool {
        key.starts_with(self.prefix) || self.prefix.starts_with(&format!("{key}/"))
    }
}

/// Whether a listing goes on behind a folder.
#[derive(PartialEq, Eq)]
enum Walk {
    GoesOn,
    Ended,
}

/// The names in a directory, as far as keys may have them, that may be those of folders: where a file system does not tell,
/// opening them does.
fn folders_in(dir: &Directory) -> Result<Vec<String>, Error> {
    names_of(dir, |name, kind| {
        matches!(kind, FileType::Directory | FileType::Unknown) && waist::check_key(name).is_ok()
    })
}

/// Whether a name that this happens to is there, and is no file: a link in a circle or through a file, a socket, a device that
/// is not there.
fn is_of_no_file(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::NODEV
    )
}

/// A staged file and the key it is meant for.
struct DirStaged {
    file: durable::Staged,
    /// In its directory.
    name: String,
    early: EarlyWrites,
}

impl Write for DirStaged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.early.wrote(&self.file.file, written);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Staged for DirStaged {
    fn prepare(&mut self) -> Result<(), Error> {
        self.file.sync_early()
    }

    fn publish(self: Box<Self>) -> Result<Published, Error> {
        let DirStaged { file, name, .. } = *self;
        Ok(match file.publish(&name)? {
            Outcome::Created => Published::Created,
            Outcome::Exists => Published::Exists,
        })
    }
}

fn bytes_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn modified_of(stat: &Stat) -> SystemTime {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let since = Duration::from_secs(seconds) + Duration::from_nanos(u64::from(nanos));
    SystemTime::UNIX_EPOCH + since
}
