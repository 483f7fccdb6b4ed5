//! The file offered to the archive: read through a fixed buffer, from one open file, and checked to hold still.
//!
//! Guarantees: contents are believed only of a file that has kept its size and its name. The server renames segments
//! that it no longer needs and overwrites them (`InstallXLogFileSegment`, xlog.c, 15 to 18), so a descriptor that
//! was opened under one segment's name may read another's; [`Source::must_hold_still`] is asked after reading and
//! before anything is made of what was read.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use wal::SegmentName;

use crate::base::regular::open_without_waiting;
use crate::error::Error;
use crate::format::codec::Contents;
use crate::pg_wal::folder::header_in;

/// The offered file, open for reading.
pub(crate) struct Source {
    file: File,
    path: PathBuf,
    identity: Identity,
    /// The file as messages name it: `file "pg_wal/…"`.
    pub(crate) shown: String,
    /// Its size when it was opened; it must keep it.
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
    read: u64,
}

/// Which file a name stands for, and since when it has its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(stat: &Metadata) -> Identity {
        Identity {
            device: stat.dev(),
            inode: stat.ino(),
            bytes: stat.size(),
            modified: (stat.mtime(), stat.mtime_nsec()),
        }
    }

    /// Which file it is, whatever it holds.
    pub(crate) fn file(self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// What the name stands for now; `None` if it cannot be told.
    pub(crate) fn at(path: &Path) -> Option<Identity> {
        path.metadata().ok().map(|stat| Identity::of(&stat))
    }
}

impl Source {
    /// Fails with [`crate::ErrorKind::Unusable`] if there is no such regular file.
    pub(crate) fn open(path: &Path) -> Result<Source, Error> {
        let shown = format!("file \"{}\"", path.display());
        // Not to hang on a fifo.
        let file = open_without_waiting(path).map_err(|cause| {
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
            path: path.to_owned(),
            identity: Identity::of(&stat),
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

    /// Device, inode, size and time of the file.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Fails if the name has become another file's, or the file has changed, since it was opened.
    pub(crate) fn must_hold_still(&self) -> Result<(), Error> {
        if Identity::at(&self.path) == Some(self.identity) {
            return Ok(());
        }
        Err(self.changed())
    }

    /// Where the file lies.
    pub(crate) fn directory(&self) -> Option<&Path> {
        let parent = self.path.parent()?;
        // Of a bare name.
        Some(if parent == Path::new("") {
            Path::new(".")
        } else {
            parent
        })
    }

    /// Whether the segment of that name has been begun beside this file: it is there, and not what a recycled one held.
    pub(crate) fn has_sibling(&self, name: &SegmentName) -> bool {
        let header = self.directory().and_then(|folder| header_in(folder, *name));
        header.is_some_and(|header| {
            header.check_name(name).is_ok() && header.timeline == name.timeline()
        })
    }

    fn changed(&self) -> Error {
        Error::unavailable(format!("{} changed while it was read", self.shown))
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
