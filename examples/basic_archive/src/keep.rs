//! Into the directory: one file, durably, under a name that was free.
//!
//! Guarantees: when [`keep`] says that a file is kept, its bytes and its name survive a power cut; no name
//! ever stands for a file that is not whole; no file that is there is replaced or written into, also when it
//! appears in between. A killed attempt leaves nothing behind, or, where the file system cannot make files
//! without a name, one file that the next attempt removes.

use module::{Failure, OrFail};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Archived files are the server's alone, as its own are (`PG_FILE_MODE_OWNER`).
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// How much is compared at a time.
const COMPARE_BYTES: usize = 128 * 1024;

/// How a file came to be in the archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// This attempt has stored it.
    Now,
    /// By an earlier one: the same bytes were there, and are durable now.
    Before,
}

/// Opens the archive directory.
pub(crate) fn open_directory(directory: &Path) -> Result<File, Failure> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    openat(CWD, directory, flags, Mode::empty())
        .map(File::from)
        .or_fail(format_args!(
            "could not open archive directory \"{}\"",
            directory.display()
        ))
}

/// Archives the file `path` as `name`.
///
/// # Errors
/// When it could not be done, or when `name` is taken by other bytes; then nothing is changed.
pub(crate) fn keep(path: &Path, directory: &Path, name: &str) -> Result<Kept, Failure> {
    keep_through(path, directory, name, Staging::Unnamed)
}

fn keep_through(
    path: &Path,
    directory: &Path,
    name: &str,
    staging: Staging,
) -> Result<Kept, Failure> {
    let directory = open_directory(directory)?;
    let cannot = |what: &str| format!("could not {what} archive file \"{name}\"");
    remove_leftover(&directory, name).or_fail("could not remove what a killed attempt left")?;
    let mut source =
        File::open(path).or_fail(format_args!("could not open \"{}\"", path.display()))?;
    // Only looked at to save the copying: the link decides.
    if let Some(there) = open(&directory, name).or_fail(cannot("open"))? {
        return compared(&mut source, there, &directory, name);
    }
    let mut staged = Staged::new(&directory, name, staging).or_fail(cannot("create"))?;
    io::copy(&mut source, &mut staged.file).or_fail(cannot("write"))?;
    // Before the link: from then on the name stands for these bytes, also after a power cut.
    staged.file.sync_all().or_fail(cannot("sync"))?;
    match staged.link() {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let there = open(&directory, name).or_fail(cannot("open"))?;
            let there = there.ok_or_else(|| Failure::new(format!("\"{name}\" came and went")))?;
            return compared(&mut source, there, &directory, name);
        }
        Err(error) => return Err(error).or_fail(cannot("link")),
    }
    // Removes the staged name where there was one, so that the sync below covers that too.
    drop(staged);
    directory
        .sync_all()
        .or_fail("could not sync the archive directory")?;
    Ok(Kept::Now)
}

/// The name is taken: by the same bytes, which are then made durable, or by others, which is a failure.
fn compared(
    source: &mut File,
    mut there: File,
    directory: &File,
    name: &str,
) -> Result<Kept, Failure> {
    rewind(source).or_fail("could not rewind the WAL file")?;
    if !same(source, &mut there).or_fail(format_args!("could not compare \"{name}\""))? {
        return Err(Failure::new(format!(
            "archive file \"{name}\" already exists with other contents"
        ))
        .hint("Another server may be archiving to the same directory; neither file was changed."));
    }
    // The process that archived it may have been killed between making it and making it durable.
    there
        .sync_all()
        .or_fail(format_args!("could not sync archive file \"{name}\""))?;
    directory
        .sync_all()
        .or_fail("could not sync the archive directory")?;
    Ok(Kept::Before)
}

fn rewind(file: &mut File) -> io::Result<()> {
    io::Seek::rewind(file)
}

/// Opens a file of the archive for reading; `None` when the directory has no such name.
pub(crate) fn open(directory: &File, name: &str) -> rustix::io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    match openat(directory, name, flags, Mode::empty()) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn same(one: &mut File, other: &mut File) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    loop {
        let (some, more) = (fill(one, &mut left)?, fill(other, &mut right)?);
        if left.get(..some) != right.get(..more) {
            return Ok(false);
        }
        if some == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends; answers with how much that was.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// How a file is made before it has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Staging {
    /// Without any name, where the file system can do that (`O_TMPFILE`).
    Unnamed,
    /// Under a name of its own.
    Named,
}

fn staged_name(name: &str) -> String {
    format!("{name}.staged")
}

/// Removes the staged name of a killed attempt at the same file.
fn remove_leftover(directory: &File, name: &str) -> rustix::io::Result<()> {
    match unlinkat(directory, staged_name(name), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A file on its way to its name.
struct Staged<'a> {
    file: File,
    directory: &'a File,
    name: &'a str,
    own_name: Option<String>,
}

impl<'a> Staged<'a> {
    fn new(directory: &'a File, name: &'a str, staging: Staging) -> rustix::io::Result<Self> {
        let open = |what: &str, flags| {
            openat(
                directory,
                what,
                flags | OFlags::WRONLY | OFlags::CLOEXEC,
                MODE,
            )
        };
        let (file, own_name) = match staging {
            Staging::Unnamed => match open(".", OFlags::TMPFILE) {
                // What file systems without the feature, and kernels before it, answer (open(2)).
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                    return Self::new(directory, name, Staging::Named);
                }
                file => (file?, None),
            },
            Staging::Named => {
                let own_name = staged_name(name);
                // One that is there already is never written into, for it may have been linked.
                let file = open(&own_name, OFlags::CREATE | OFlags::EXCL)?;
                (file, Some(own_name))
            }
        };
        Ok(Staged {
            file: file.into(),
            directory,
            name,
            own_name,
        })
    }

    /// Gives the file its name. A link replaces nothing, and it is this very file that is linked, whatever
    /// may have happened to a staged name meanwhile.
    fn link(&self) -> rustix::io::Result<()> {
        let this = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(
            CWD,
            this,
            self.directory,
            self.name,
            AtFlags::SYMLINK_FOLLOW,
        )
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if let Some(own_name) = &self.own_name {
            // What cannot be removed now is removed by the next attempt.
            let _ = unlinkat(self.directory, own_name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::{TempDir, tempdir};

    const NAME: &str = "000000010000000000000007";

    /// A directory for the archive, and a WAL file to be archived.
    fn place(contents: &[u8]) -> (TempDir, std::path::PathBuf, std::path::PathBuf) {
        let root = tempdir().unwrap();
        let (archive, wal) = (root.path().join("archive"), root.path().join("wal"));
        fs::create_dir(&archive).unwrap();
        fs::write(&wal, contents).unwrap();
        (root, archive, wal)
    }

    fn names(archive: &Path) -> Vec<String> {
        let entries = fs::read_dir(archive).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn the_same_bytes_succeed_again_and_other_bytes_are_refused() {
        for staging in [Staging::Unnamed, Staging::Named] {
            let (_root, archive, wal) = place(b"some WAL");
            let again = || keep_through(&wal, &archive, NAME, staging);
            assert_eq!(again().unwrap(), Kept::Now);
            assert_eq!(again().unwrap(), Kept::Before);
            fs::write(&wal, b"some WA").unwrap();
            assert!(again().unwrap_err().message.contains("other contents"));
            fs::write(&wal, b"some WAL and more").unwrap();
            assert!(again().is_err());
            assert_eq!(fs::read(archive.join(NAME)).unwrap(), b"some WAL");
            assert_eq!(names(&archive), [NAME]);
        }
    }

    #[test]
    fn a_file_that_appears_while_one_is_staged_is_not_replaced() {
        for staging in [Staging::Unnamed, Staging::Named] {
            let (_root, archive, _wal) = place(b"ours");
            let directory = open_directory(&archive).unwrap();
            let staged = Staged::new(&directory, NAME, staging).unwrap();
            fs::write(archive.join(NAME), b"theirs").unwrap();
            assert_eq!(staged.link().unwrap_err(), Errno::EXIST);
            drop(staged);
            assert_eq!(fs::read(archive.join(NAME)).unwrap(), b"theirs");
            assert_eq!(names(&archive), [NAME]);
        }
    }

    #[test]
    fn what_a_killed_attempt_left_is_removed_and_not_written_into() {
        let (_root, archive, wal) = place(b"some WAL");
        let left = archive.join(format!("{NAME}.staged"));
        fs::write(&left, b"another file's bytes").unwrap();
        fs::hard_link(&left, archive.join("another")).unwrap();
        let kept = keep_through(&wal, &archive, NAME, Staging::Named).unwrap();
        assert_eq!(kept, Kept::Now);
        assert!(!left.exists());
        assert_eq!(
            fs::read(archive.join("another")).unwrap(),
            b"another file's bytes"
        );
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let failure = keep(Path::new("/proc/self/stat"), Path::new("/nowhere"), NAME).unwrap_err();
        assert!(failure.message.contains("\"/nowhere\""), "{failure}");
    }
}
