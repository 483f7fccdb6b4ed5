//! Out of the directory: one file, whole or not at all; and removing what recovery no longer needs.

use module::{KeepFrom, WalFileName};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Copies the file `name` to `path`; false when the directory has no such file.
///
/// `bytes` is how long it has to be, where that is known.
pub fn get(directory: &Path, name: &str, path: &Path, bytes: Option<u64>) -> io::Result<bool> {
    let mut kept = match File::open(directory.join(name)) {
        Ok(kept) => kept,
        Err(error) if error.kind() == ErrorKind::NotFound && holds_anything(directory)? => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let copied = io::copy(&mut kept, &mut File::create(path)?)?;
    match bytes {
        Some(bytes) if bytes != copied => Err(io::Error::other(format!(
            "it has {copied} bytes instead of {bytes}"
        ))),
        _ => Ok(true),
    }
}

/// An empty directory is what a file system that is not mounted looks like. To call a file absent from it
/// could end recovery before the last of the WAL.
fn holds_anything(directory: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(directory)?.next().is_some())
}

/// Removes the files that are not needed from `keep` on.
pub fn clean_up(directory: &Path, keep: &KeepFrom) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let file = name
            .to_str()
            .and_then(|name| name.parse::<WalFileName>().ok());
        if file.is_some_and(|file| keep.may_remove(&file)) {
            fs::remove_file(directory.join(name))?;
        }
    }
    Ok(())
}
