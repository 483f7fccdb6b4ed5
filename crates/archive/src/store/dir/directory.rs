//! An open directory, and looking into it. What changes a directory is in `durable.rs`.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self as sys, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Mark};

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) fd: OwnedFd,
    pub(crate) path: PathBuf,
}

impl Directory {
    /// Opens a directory. That it is there is proven by this and holds for calls made through it right after.
    pub(crate) fn open(path: &Path) -> Result<Directory, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match sys::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Directory {
                fd,
                path: path.to_owned(),
            }),
            Err(Errno::NOTDIR) => Err(Error::unusable(format!(
                "\"{}\" is not a directory",
                path.display()
            ))),
            Err(errno) => {
                let what = format!("could not open directory \"{}\"", path.display());
                let error = Error::io(what, errno.into());
                Err(match errno {
                    Errno::NOENT => error.with_hint("Is its file system mounted?"),
                    _ => error,
                })
            }
        }
    }

    /// Opens a directory in it; `None` if there is none.
    pub(crate) fn folder(&self, name: &str) -> Result<Option<Directory>, Error> {
        self.opened(name, OFlags::empty())
    }

    /// The same, but not through a symbolic link: what that leads to is somebody else's.
    pub(crate) fn own_folder(&self, name: &str) -> Result<Option<Directory>, Error> {
        self.opened(name, OFlags::NOFOLLOW)
    }

    fn opened(&self, name: &str, more: OFlags) -> Result<Option<Directory>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more;
        match sys::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Directory {
                fd,
                path: self.path.join(name),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR) => Err(Error::unusable(format!(
                "\"{}\" is not a directory",
                self.shown(name)
            ))
            .marked(Mark::NoFile)),
            Err(errno) => {
                let what = format!("could not open directory \"{}\"", self.shown(name));
                Err(Error::io(what, errno.into()))
            }
        }
    }

    /// A name in it, as messages name it.
    pub(crate) fn shown(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

/// True if the name is this very file's.
pub(crate) fn same_file(dir: &Directory, name: &str, file: &File) -> bool {
    match (
        sys::statat(&dir.fd, name, AtFlags::empty()),
        sys::fstat(file),
    ) {
        (Ok(named), Ok(open)) => (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino),
        _ => false,
    }
}

/// The names in a directory that are wanted by name and kind, those that no key can have left out.
///
/// They are collected before anything is done to any of them: staged names and folders are few.
pub(crate) fn names_of(
    dir: &Directory,
    is_wanted: impl Fn(&str, FileType) -> bool,
) -> Result<Vec<String>, Error> {
    let could_not = |errno: Errno| {
        Error::io(
            format!("could not read directory \"{}\"", dir.path.display()),
            errno.into(),
        )
    };
    let mut names = Vec::new();
    for entry in sys::Dir::read_from(&dir.fd).map_err(could_not)? {
        let entry = entry.map_err(could_not)?;
        if let Ok(name) = entry.file_name().to_str()
            && is_wanted(name, entry.file_type())
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
