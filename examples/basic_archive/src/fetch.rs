//! Out of the directory: one file, whole or not at all; and removing what is no longer needed.
//!
//! Guarantees: "absent" is said only of a directory that is an archive and has no such name; a file of the
//! wrong size is a failure; only WAL files that the server has said it no longer needs are removed, and
//! timeline history files never.

use crate::keep;
use module::{Failure, KeepFrom, OrFail, WalFileName};
use rustix::fs::{AtFlags, unlinkat};
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// The answer of the archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// It is where it was wanted.
    Whole,
    /// The archive has no such file.
    Absent,
}

/// Copies the archived file `name` to `path`; `bytes` is how long it has to be, where that is known.
///
/// # Errors
/// Whatever keeps this from telling or from copying; then `path` is not there.
pub(crate) fn fetch(
    directory: &Path,
    name: &str,
    path: &Path,
    bytes: Option<u64>,
) -> Result<Fetched, Failure> {
    let archive = keep::open_directory(directory)?;
    let Some(mut file) = keep::open(&archive, name)
        .or_fail(format_args!("could not open archive file \"{name}\""))?
    else {
        is_archive(directory)?;
        return Ok(Fetched::Absent);
    };
    let copied = copy(&mut file, path);
    let verdict = match copied.or_fail(format_args!("could not copy archive file \"{name}\"")) {
        Ok(copied) if bytes.is_some_and(|bytes| bytes != copied) => Err(Failure::new(format!(
            "archive file \"{name}\" has the wrong size: {copied} bytes"
        ))),
        Ok(_) => Ok(Fetched::Whole),
        Err(failure) => Err(failure),
    };
    if verdict.is_err() {
        let _ = fs::remove_file(path);
    }
    verdict
}

fn copy(from: &mut File, to: &Path) -> io::Result<u64> {
    io::copy(from, &mut File::create(to)?)
}

/// An empty directory is what a file system that is not mounted looks like. To call a file absent from it
/// might end recovery before the last of the WAL.
fn is_archive(directory: &Path) -> Result<(), Failure> {
    let mut entries = fs::read_dir(directory).or_fail("could not list the archive directory")?;
    if entries.next().is_none() {
        let place = directory.display();
        return Err(
            Failure::new(format!("archive directory \"{place}\" is empty"))
                .hint("Is the file system mounted?"),
        );
    }
    Ok(())
}

/// Removes what is not needed from `keep` on; answers with how many files that were.
///
/// # Errors
/// When the directory cannot be listed or a file not removed.
pub(crate) fn clean_up(directory: &Path, keep: &KeepFrom) -> Result<u64, Failure> {
    let archive = keep::open_directory(directory)?;
    let mut removed = 0;
    for entry in fs::read_dir(directory).or_fail("could not list the archive directory")? {
        let name = entry
            .or_fail("could not list the archive directory")?
            .file_name();
        let parsed = name
            .to_str()
            .and_then(|name| name.parse::<WalFileName>().ok());
        if let Some(file) = parsed.filter(|file| keep.may_remove(file)) {
            unlinkat(&archive, &name, AtFlags::empty())
                .or_fail(format_args!("could not remove archive file \"{file}\""))?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    #[test]
    fn a_file_that_is_not_there_is_absent_only_from_an_archive() {
        let archive = tempdir().unwrap();
        let (name, to) = ("000000010000000000000007", archive.path().join("to"));
        let ask = |directory: &Path| fetch(directory, name, &to, None);
        assert!(ask(archive.path()).is_err(), "an empty directory");
        assert!(
            ask(&archive.path().join("nowhere")).is_err(),
            "no directory"
        );
        fs::write(archive.path().join("000000010000000000000001"), b"WAL").unwrap();
        assert_eq!(ask(archive.path()).unwrap(), Fetched::Absent);
        assert!(!to.exists());
    }

    #[test]
    fn a_file_of_the_wrong_size_is_a_failure_and_leaves_nothing() {
        let archive = tempdir().unwrap();
        let (name, to) = ("000000010000000000000007", archive.path().join("to"));
        fs::write(archive.path().join(name), b"half").unwrap();
        assert!(fetch(archive.path(), name, &to, Some(8)).is_err());
        assert!(!to.exists());
        assert_eq!(
            fetch(archive.path(), name, &to, Some(4)).unwrap(),
            Fetched::Whole
        );
        assert_eq!(fs::read(&to).unwrap(), b"half");
    }

    #[test]
    fn cleaning_up_removes_older_segments_and_nothing_else() {
        let archive = tempdir().unwrap();
        let stay = [
            "000000010000000000000008",
            "00000002.history",
            "000000010000000000000007.00000028.backup",
            "notes",
        ];
        let go = [
            "000000010000000000000006",
            "000000020000000000000007",
            "000000010000000000000007.partial",
        ];
        for name in stay.iter().chain(&go) {
            fs::write(archive.path().join(name), b"").unwrap();
        }
        let keep = "000000010000000000000008".parse().unwrap();
        assert_eq!(clean_up(archive.path(), &keep).unwrap(), 3);
        for name in stay {
            assert!(archive.path().join(name).exists(), "{name}");
        }
    }
}
