//! Opening a file that ought to be a regular one.
//!
//! Guarantees: a fifo, a socket or a device in its place is an error and never waited for. Leaves what the contents mean, and how
//! much of them is read, to the caller. A file system that does not answer holds up any process that opens a file on it.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file for reading.
///
/// Fails as [`File::open`] does, and for anything but a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    must_be_regular(open_without_waiting(path)?)
}

/// Opens a regular file to be read and to have something added at its end; makes one for its owner
/// alone where there is nothing.
///
/// Fails as [`open_regular`] does.
pub fn append_regular(path: &Path) -> io::Result<File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(nonblocking)
        .open(path)?;
    must_be_regular(file)
}

fn must_be_regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "it is not a regular file",
    ))
}

/// Opens whatever it is for reading: a fifo without waiting for a writer.
pub(crate) fn open_without_waiting(path: &Path) -> io::Result<File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let socket = dir.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [&fifo, &socket, dir.path(), Path::new("/dev/zero")] {
            open_regular(path).unwrap_err();
            append_regular(path).unwrap_err();
        }
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        open_regular(&file).unwrap();
        append_regular(&file).unwrap();
        let made = append_regular(&dir.path().join("made")).unwrap();
        assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let missing = open_regular(&dir.path().join("none")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
