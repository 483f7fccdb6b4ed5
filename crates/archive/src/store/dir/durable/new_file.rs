//! New files, before they have their names: without one where that works, else with a staged one.
//!
//! Guarantees: a file is locked from the start, where locks work; it is its owner's and, where the umask allows it, for its
//! group to read. Left to `durable.rs`: everything that gives or takes a name.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::AsRawFd;

use rustix::fs::{self as sys, Mode, OFlags};
use rustix::io::Errno;

use crate::store::dir::directory::Directory;

/// How often a fresh staged name is tried. Names are random; a collision is already a surprise.
const STAGED_NAME_TRIES_MAX: u32 = 8;

/// A file without a name, locked; `None` where that cannot be had or could not be linked later.
pub(super) fn unnamed(dir: &Directory) -> io::Result<Option<File>> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file: File = match sys::openat(&dir.fd, ".", flags, file_mode()) {
        Ok(fd) => fd.into(),
        // Kernels and file systems that do not know the flag answer as if it were a plain open.
        Err(Errno::ISDIR) => return Ok(None),
        Err(errno) if is_unsupported(errno) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let reachable = match (sys::stat(proc_path(&file)), sys::fstat(&file)) {
        (Ok(by_path), Ok(by_fd)) => {
            (by_path.st_dev, by_path.st_ino) == (by_fd.st_dev, by_fd.st_ino)
        }
        _ => false,
    };
    if !reachable {
        return Ok(None);
    }
    // No other process can have this file open, so this fails only where locks do not work.
    let _ = file.try_lock();
    Ok(Some(file))
}

/// As the server's own files: for its group where the cluster is (`initdb -g`), for which the server has a umask of 027, and
/// of 077 otherwise (`pg_file_create_mode`, `SetDataDirectoryCreatePerm`, file_perm.c, 15 to 18).
fn file_mode() -> Mode {
    Mode::RUSR | Mode::WUSR | Mode::RGRP
}

/// A file under a new staged name, locked.
pub(super) fn named(dir: &Directory, stem: &str) -> io::Result<(File, String)> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    for _ in 0..STAGED_NAME_TRIES_MAX {
        let name = format!("{stem}.{}.{:016x}", std::process::id(), fastrand::u64(..));
        let file: File = match sys::openat(&dir.fd, name.as_str(), flags, file_mode()) {
            Ok(fd) => fd.into(),
            Err(Errno::EXIST) => continue,
            Err(errno) => return Err(errno.into()),
        };
        // A process that removes leftovers has the lock and is about to remove the name, or has done so: take another.
        let is_locked = !matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        if is_locked && sys::fstat(&file)?.st_nlink > 0 {
            return Ok((file, name));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        "every staged name is taken",
    ))
}

/// What an operation answers that this kernel or this file system does not have.
pub(super) fn is_unsupported(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::OPNOTSUPP
            | Errno::NOSYS
            | Errno::INVAL
            | Errno::XDEV
            | Errno::PERM
            | Errno::MLINK
            | Errno::NOENT
    )
}

pub(super) fn proc_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
