//! Into the directory: one file, durably, under a name that was free. Knows nothing of the server.
//!
//! Needs a file system that can make files without a name (`O_TMPFILE`), as ext4, XFS and Btrfs do.

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Copies the file `from` into `directory` as `name`.
///
/// When this succeeds, the copy and its name survive a power cut. A file that is there already is never
/// changed: the same bytes are made durable again, other bytes are an error.
pub fn put(from: &Path, directory: &Path, name: &str) -> io::Result<()> {
    let kept = directory.join(name);
    // Without a name nobody else can open it, and it is gone when this process is.
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut staged = File::from(open(directory, flags, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut File::open(from)?, &mut staged)?;
    staged.sync_all()?;
    match publish(&staged, &kept) {
        Err(Errno::EXIST) if same(from, &kept)? => File::open(&kept)?.sync_all()?,
        other => other?,
    }
    // The name has to be durable too, and it is the directory that holds names.
    File::open(directory)?.sync_all()
}

/// Gives the staged file its name. Unlike a rename, a link replaces nothing.
fn publish(staged: &File, kept: &Path) -> rustix::io::Result<()> {
    let staged = format!("/proc/self/fd/{}", staged.as_raw_fd());
    linkat(CWD, staged, CWD, kept, AtFlags::SYMLINK_FOLLOW)
}

fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let pairs = BufReader::new(one)
        .bytes()
        .zip(BufReader::new(other).bytes());
    for (a, b) in pairs {
        if a? != b? {
            return Ok(false);
        }
    }
    Ok(true)
}
