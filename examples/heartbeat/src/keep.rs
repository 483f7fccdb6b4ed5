//! Into the directory: one file, durably, under a name that was free.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Archives the file `path` as `name`; the same file again is made durable again.
///
/// # Errors
/// What could not be done, or that the name is taken by other bytes; then nothing is changed.
pub(crate) fn keep(path: &Path, directory: &Path, name: &str) -> io::Result<()> {
    let (staged, kept) = (directory.join("heartbeat.staged"), directory.join(name));
    // What a killed attempt left may be linked already, so it is removed and not written into.
    remove(&staged)?;
    fs::copy(path, &staged)?;
    sync(&staged)?;
    // Unlike a rename, a link replaces nothing.
    match fs::hard_link(&staged, &kept) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        Err(error) if fs::read(&kept)? != fs::read(&staged)? => return Err(error),
        _ => {}
    }
    remove(&staged)?;
    sync(&kept)?;
    sync(directory)
}

/// Makes a file, or the names in a directory, durable.
fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes a file that may not be there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
