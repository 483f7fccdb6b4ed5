//! The only file that links, renames, syncs and unlinks, and makes directories. Publishing here cannot overwrite and cannot be
//! half done.
//!
//! How a file is published: it is written where it is not looked for, synced, linked to its name (which fails if the
//! name is taken), and the directory is synced. Preferably it has no name before (`O_TMPFILE`, linked through
//! `/proc/self/fd`), so that a crash leaves nothing behind. Where the file system or `/proc` cannot do
//! that, it has a staged name that readers skip; such names outlive a crash and are removed by
//! [`Disk::remove_dead`].
//!
//! Every helper here syncs the directory too, so no caller can forget. The one exception is named for what it
//! is: [`Staged::publish_unsynced`], for restored files, which the server syncs itself.
//!
//! Locks: a writer holds `flock` on its file from before it has a name until its handle is dropped. A lock
//! that can be taken therefore belongs to no living writer. Where locks do not work nothing is ever taken
//! for dead. A name whose sync has failed is removed again under that lock, and a process that settles a file waits for it.
//!
//! A failed sync is a failure: the staged file is dropped and the next attempt starts with a fresh one, since
//! the kernel may report a lost write only once and call the next sync a success.
//!
//! `close` is not checked, because there is nothing left for it to report after a sync.

mod new_file;

use std::fs::{File, TryLockError};
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;

use rustix::fs::{self as sys, AtFlags, CWD, Gid, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::{Error, Mark};
use crate::store::dir::directory::{Directory, names_of, same_file};
use new_file::{is_unsupported, named, proc_path, unnamed};

/// How files are staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Staging {
    /// Without a name where that works, with one elsewhere.
    #[default]
    Unnamed,
    /// With a name, even if the file system could do without.
    Named,
    /// Without a name at first, as if it then could not be linked. For tests of that fallback.
    #[cfg(test)]
    UnnamedUnlinkable,
    /// With a name, as if hard links did not exist. For tests of that fallback.
    #[cfg(test)]
    NamedUnlinkable,
}

impl Staging {
    fn begins_unnamed(self) -> bool {
        match self {
            Staging::Unnamed => true,
            Staging::Named => false,
            #[cfg(test)]
            Staging::UnnamedUnlinkable => true,
            #[cfg(test)]
            Staging::NamedUnlinkable => false,
        }
    }
}

/// The steps that can fail, or be the last before a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    MakeFolder,
    Stage,
    Write,
    SyncFile,
    Link,
    SyncDirectory,
    Unlink,
}

#[cfg(test)]
pub(crate) type Hook = std::sync::Arc<dyn Fn(Step) -> io::Result<()> + Send + Sync>;

/// The file system as this crate uses it.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) staging: Staging,
    /// New files get their directory's group, where this process may give it to them.
    pub(crate) group_of_directory: bool,
    /// Called before each step, so that tests can make any of them fail or be the last.
    #[cfg(test)]
    pub(crate) hook: Option<Hook>,
}

/// The outcome of giving a staged file its name.
pub(crate) enum Outcome {
    Created,
    Exists,
}

/// A file being written that is not visible yet. Dropping it removes it.
pub(crate) struct Staged {
    disk: Disk,
    dir: Directory,
    pub(crate) file: File,
    /// Its staged name, as long as it has one.
    staged_name: Option<String>,
    /// What a staged name of this file begins with.
    stem: String,
}

impl Disk {
    /// A file system used with this kind of staged files.
    pub(crate) fn with_staging(staging: Staging) -> Disk {
        Disk {
            staging,
            ..Disk::default()
        }
    }

    /// Begins a file in `dir`. `stem` begins its staged name, if it needs one, and must itself begin such
    /// that all readers of that directory skip it.
    pub(crate) fn stage(&self, dir: Directory, stem: String) -> Result<Staged, Error> {
        let could_not = |errno: io::Error| {
            Error::io(
                format!("could not create a file in \"{}\"", dir.path.display()),
                errno,
            )
        };
        self.step(Step::Stage).map_err(could_not)?;
        if self.staging.begins_unnamed()
            && let Some(file) = unnamed(&dir).map_err(could_not)?
        {
            self.give_group(&dir, &file);
            return Ok(Staged {
                disk: self.clone(),
                dir,
                file,
                staged_name: None,
                stem,
            });
        }
        let (file, name) = named(&dir, &stem).map_err(could_not)?;
        self.give_group(&dir, &file);
        Ok(Staged {
            disk: self.clone(),
            dir,
            file,
            staged_name: Some(name),
            stem,
        })
    }

    /// Opens a directory in `dir`, which is made if it is not there, and makes its name durable: another process may have made
    /// it just now.
    pub(crate) fn make_folder(&self, dir: &Directory, name: &str) -> Result<Directory, Error> {
        let could_not = |errno: io::Error| {
            let shown = dir.shown(name);
            Error::io(format!("could not create directory \"{shown}\""), errno)
        };
        self.step(Step::MakeFolder).map_err(could_not)?;
        // As the server's own directories (`pg_dir_create_mode`, file_perm.c, 15 to 18).
        let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP;
        let is_new = match sys::mkdirat(&dir.fd, name, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(could_not(errno.into())),
        };
        let folder = dir.folder(name)?;
        let folder = folder.ok_or_else(|| could_not(Errno::NOENT.into()))?;
        if is_new {
            self.give_group(dir, &folder.fd);
        }
        self.sync_directory(dir)?;
        Ok(folder)
    }

    /// Gives a new file its directory's group, if that is wanted. Who is not a member of it may not, and files then have the
    /// group that their writer has: that is how they would be without this.
    fn give_group(&self, dir: &Directory, file: impl AsFd) {
        if !self.group_of_directory {
            return;
        }
        if let (Ok(directory), Ok(own)) = (sys::fstat(&dir.fd), sys::fstat(&file))
            && directory.st_gid != own.st_gid
        {
            let _ = sys::fchown(&file, None, Some(Gid::from_raw(directory.st_gid)));
        }
    }

    /// Makes a file and its name durable again, whichever process wrote it.
    ///
    /// Fails while the file's creator holds its lock, because it is still syncing the name, and takes it back if that fails.
    pub(crate) fn settle(&self, dir: &Directory, name: &str) -> Result<(), Error> {
        let shown = dir.shown(name);
        let could_not =
            |errno: Errno| Error::io(format!("could not open file \"{shown}\""), errno.into());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file: File = sys::openat(&dir.fd, name, flags, Mode::empty())
            .map_err(could_not)?
            .into();
        // The lock is held until the end of this function, so the creator cannot take the file back between
        // our look and our sync. Without working locks we go on: see "Locks" above.
        if let Err(TryLockError::WouldBlock) = file.try_lock_shared() {
            return Err(Error::unavailable(format!(
                "file \"{shown}\" is being published by another process"
            ))
            .marked(Mark::Busy));
        }
        if !same_file(dir, name, &file) {
            return Err(Error::unavailable(format!(
                "file \"{shown}\" was removed meanwhile"
            )));
        }
        self.sync_file(&file, &shown)?;
        self.sync_directory(dir)
    }

    /// Removes a name, durably, and tells whether it was there.
    pub(crate) fn remove(&self, dir: &Directory, name: &str) -> Result<bool, Error> {
        let could_not = |errno| {
            Error::io(
                format!("could not remove file \"{}\"", dir.shown(name)),
                errno,
            )
        };
        self.step(Step::Unlink).map_err(could_not)?;
        match sys::unlinkat(&dir.fd, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(could_not(errno.into())),
        }
        self.sync_directory(dir)?;
        Ok(true)
    }

    /// Removes staged names with this prefix whose writers are dead, and tells how many there were.
    ///
    /// A name is dead if its file can be locked, for a writer holds the lock until it has published. A writer
    /// that has just created its name and not yet locked it can be taken for dead; it then loses the staged
    /// name, its own link fails with "no such file", nothing is published, and it tries again. No published
    /// name can be lost here: only staged ones are unlinked, and a staged name that is a second link to a
    /// published file (a crash between link and unlink) takes nothing from the published one.
    pub(crate) fn remove_dead(&self, dir: &Directory, prefix: &str) -> Result<u64, Error> {
        let mut removed = 0;
        for name in names_of(dir, |name, _| name.starts_with(prefix))? {
            // For writing, because a network file system grants an exclusive lock to writers only. One that is
            // gone, or that we may not open, is not ours.
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(fd) = sys::openat(&dir.fd, name.as_str(), flags, Mode::empty()) else {
                continue;
            };
            let file = File::from(fd);
            if file.try_lock().is_err() {
                continue;
            }
            removed += u64::from(self.remove(dir, &name)?);
        }
        Ok(removed)
    }

    fn sync_file(&self, file: &File, shown: &str) -> Result<(), Error> {
        self.step(Step::SyncFile)
            .and_then(|()| file.sync_all())
            .map_err(|errno| {
                Error::io(format!("could not fsync file \"{shown}\""), errno)
                    .marked(Mark::FailedSync)
            })
    }

    fn sync_directory(&self, dir: &Directory) -> Result<(), Error> {
        self.step(Step::SyncDirectory)
            .and_then(|()| sys::fsync(&dir.fd).map_err(io::Error::from))
            .map_err(|errno| {
                let shown = dir.path.display();
                Error::io(format!("could not fsync directory \"{shown}\""), errno)
                    .marked(Mark::FailedSync)
            })
    }

    #[cfg(test)]
    fn step(&self, step: Step) -> io::Result<()> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(step))
    }

    #[cfg(not(test))]
    fn step(&self, _: Step) -> io::Result<()> {
        Ok(())
    }
}

impl Staged {
    /// Makes the contents durable, gives the file its name, makes the name durable.
    pub(crate) fn publish(mut self, name: &str) -> Result<Outcome, Error> {
        let shown = self.dir.shown(name);
        self.disk.sync_file(&self.file, &shown)?;
        if !self.link(name)? {
            return Ok(Outcome::Exists);
        }
        self.forget_staged_name();
        self.disk.sync_directory(&self.dir).inspect_err(|_| {
            // The next sync of this directory might claim success for a name that the disk has lost. So the
            // name goes, still under our lock and so not acknowledged, and the next attempt makes a new
            // one. If it cannot be removed either, the next attempt finds it and must settle it. Between the look and
            // the unlink the name could only change hands if somebody removed our file and created another in that
            // instant, and nobody removes a file that has just been archived.
            if same_file(&self.dir, name, &self.file) {
                drop(self.disk.remove(&self.dir, name));
            }
        })?;
        Ok(Outcome::Created)
    }

    /// Gives the file its name without any sync. Only for files that their reader syncs.
    pub(crate) fn publish_unsynced(mut self, name: &str) -> Result<Outcome, Error> {
        if !self.link(name)? {
            return Ok(Outcome::Exists);
        }
        self.forget_staged_name();
        Ok(Outcome::Created)
    }

    /// Brings what is written to disk early, so that a later sync under its name takes less time. Promises nothing.
    pub(crate) fn sync_early(&self) -> Result<(), Error> {
        let shown = self.dir.path.display().to_string();
        self.disk.sync_file(&self.file, &shown)
    }

    /// True if it has a staged name, which outlives a crash.
    pub(crate) fn has_name(&self) -> bool {
        self.staged_name.is_some()
    }

    /// True if the name is ours now, false if it was taken.
    fn link(&mut self, name: &str) -> Result<bool, Error> {
        let shown = self.dir.shown(name);
        let could_not =
            |errno: io::Error| Error::io(format!("could not link file \"{shown}\""), errno);
        self.disk.step(Step::Link).map_err(could_not)?;
        if self.staged_name.is_none() {
            match self.link_unnamed(name) {
                Ok(()) => return Ok(true),
                Err(Errno::EXIST) => return Ok(same_file(&self.dir, name, &self.file)),
                Err(errno) if is_unsupported(errno) => self.give_staged_name()?,
                Err(errno) => return Err(could_not(errno.into())),
            }
        }
        let Some(staged) = self.staged_name.clone() else {
            return Err(Error::unavailable(format!(
                "file \"{shown}\" has no staged name"
            )));
        };
        match self.link_named(&staged, name) {
            Ok(()) => Ok(true),
            // A network file system may repeat a link whose answer was lost, and find its own work.
            Err(Errno::EXIST) => Ok(same_file(&self.dir, name, &self.file)),
            Err(errno) if is_unsupported(errno) && errno != Errno::NOENT => {
                self.rename(&staged, name)
            }
            Err(errno) => Err(could_not(errno.into())),
        }
    }

    fn link_unnamed(&self, name: &str) -> Result<(), Errno> {
        #[cfg(test)]
        if self.disk.staging == Staging::UnnamedUnlinkable {
            return Err(Errno::XDEV);
        }
        sys::linkat(
            CWD,
            proc_path(&self.file),
            &self.dir.fd,
            name,
            AtFlags::SYMLINK_FOLLOW,
        )
    }

    fn link_named(&self, staged: &str, name: &str) -> Result<(), Errno> {
        #[cfg(test)]
        if self.disk.staging == Staging::NamedUnlinkable {
            return Err(Errno::PERM);
        }
        sys::linkat(&self.dir.fd, staged, &self.dir.fd, name, AtFlags::empty())
    }

    /// For file systems without hard links. `RENAME_NOREPLACE` fails if the name is taken, like a link.
    fn rename(&mut self, staged: &str, name: &str) -> Result<bool, Error> {
        let flags = RenameFlags::NOREPLACE;
        match sys::renameat_with(&self.dir.fd, staged, &self.dir.fd, name, flags) {
            Ok(()) => {
                self.staged_name = None;
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(same_file(&self.dir, name, &self.file)),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(Error::unusable(format!(
                "file system of \"{}\" can neither link files nor rename them without overwriting",
                self.dir.path.display()
            ))),
            Err(errno) => {
                let what = format!("could not rename file to \"{}\"", self.dir.shown(name));
                Err(Error::io(what, errno.into()))
            }
        }
    }

    /// Copies an unnamed file that turned out to be unlinkable into a named one, synced if this one was.
    fn give_staged_name(&mut self) -> Result<(), Error> {
        let could_not = |errno: io::Error| {
            Error::io(
                format!("could not copy a file in \"{}\"", self.dir.path.display()),
                errno,
            )
        };
        let (mut file, name) = named(&self.dir, &self.stem).map_err(could_not)?;
        // From here on the name is ours to remove, whatever fails.
        self.staged_name = Some(name);
        self.disk.give_group(&self.dir, &file);
        self.file.rewind().map_err(could_not)?;
        io::copy(&mut self.file, &mut file).map_err(could_not)?;
        self.disk
            .sync_file(&file, &self.dir.path.display().to_string())?;
        self.file = file;
        Ok(())
    }

    /// Drops the staged name of a file that has its real one. A failure does no harm: the name is a leftover
    /// then, a second link to a published file, and goes with the others.
    fn forget_staged_name(&mut self) {
        if let Some(staged) = self.staged_name.take()
            && self.disk.step(Step::Unlink).is_ok()
        {
            let _ = sys::unlinkat(&self.dir.fd, staged, AtFlags::empty());
        }
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.step(Step::Write)?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.forget_staged_name();
    }
}

#[cfg(test)]
mod tests;
