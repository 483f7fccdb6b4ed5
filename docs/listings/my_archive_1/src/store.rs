//! Into the directory: one file, durably, under a name that was free. Knows nothing of the server.

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;
use std::process;

/// Copies the file `from` into `directory` as `name`.
///
/// When this succeeds, the copy and its name survive a power cut. A file that is there already is never
/// changed: the same bytes are made durable again, other bytes are an error.
pub fn put(from: &Path, directory: &Path, name: &str) -> io::Result<()> {
    let staged = directory.join(format!("{name}.{}.staged", process::id()));
    let put = copy(from, &staged).and_then(|()| publish(&staged, &directory.join(name)));
    // Linked or not, the staged name is of no more use.
    let _ = fs::remove_file(&staged);
    put?;
    // The name has to be durable too, and it is the directory that holds names.
    File::open(directory)?.sync_all()
}

/// Copies, and syncs the copy while it has no name that anybody looks for.
fn copy(from: &Path, staged: &Path) -> io::Result<()> {
    // What a killed attempt left may be linked already, so it is removed and not written into.
    let _ = fs::remove_file(staged);
    fs::copy(from, staged)?;
    File::open(staged)?.sync_all()
}

/// Gives the staged file its name. Unlike a rename, a link replaces nothing.
fn publish(staged: &Path, kept: &Path) -> io::Result<()> {
    match fs::hard_link(staged, kept) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && same(staged, kept)? => {
            File::open(kept)?.sync_all()
        }
        other => other,
    }
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
