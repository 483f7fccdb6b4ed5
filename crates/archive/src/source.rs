//! The file offered to the archive: read through a fixed buffer, from one open file, and checked to hold
//! still.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use crate::codec::Contents;
use crate::error::Error;

/// A file being read.
pub(crate) struct Source {
    file: File,
    /// The file as messages name it: `file "pg_wal/…"`.
    pub(crate) shown: String,
    /// Its size when it was opened; it must keep it.
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
    read: u64,
}

impl Source {
    /// Fails with [`crate::ErrorKind::Unusable`] if there is no such regular file.
    pub(crate) fn open(path: &Path) -> Result<Source, Error> {
        let shown = format!("file \"{}\"", path.display());
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        // Not to hang on a fifo.
        let opened = File::options()
            .read(true)
            .custom_flags(nonblocking)
            .open(path);
        let file = opened.map_err(|cause| {
            let missing = cause.kind() == io::ErrorKind::NotFound;
            let error = Error::io(format!("could not open {shown}"), cause);
            if missing {
                error.with_kind(crate::ErrorKind::Unusable)
            } else {
                error
            }
        })?;
        let stat = file
            .metadata()
            .map_err(|cause| Error::io(format!("could not stat {shown}"), cause))?;
        if !stat.is_file() {
            return Err(Error::unusable(format!("{shown} is not a regular file")));
        }
        let modified = stat.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Source {
            file,
            shown,
            bytes: stat.len(),
            modified,
            read: 0,
        })
    }

    /// Back to the beginning, of the same file whatever its name has become.
    pub(crate) fn rewind(&mut self) -> Result<(), Error> {
        self.read = 0;
        let shown = &self.shown;
        self.file
            .rewind()
            .map_err(|cause| Error::io(format!("could not read {shown}"), cause))
    }

    fn changed(&self) -> Error {
        Error::unavailable(format!("{} changed its size while it was read", self.shown))
    }
}

impl Contents for Source {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..)
            && !rest.is_empty()
        {
            match self.file.read(rest) {
                Ok(0) if self.read == self.bytes => break,
                Ok(0) => return Err(self.changed()),
                Ok(read) => {
                    filled += read;
                    self.read += read as u64;
                    if self.read > self.bytes {
                        return Err(self.changed());
                    }
                }
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => {
                    return Err(Error::io(format!("could not read {}", self.shown), cause));
                }
            }
        }
        Ok(filled)
    }
}
