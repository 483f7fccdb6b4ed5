//! Paths in a backup: bytes from outside, relative to the data directory.
//!
//! Guarantees that a [`SafePath`] leads nowhere but below the data directory.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use archive::printable;

/// The longest path that is believed, in bytes; the server's own have at most 1024 (`MAXPGPATH`).
const PATH_BYTES_MAX: usize = 4096;

/// A path below the data directory: no `..`, not absolute, no empty name, and no NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SafePath(Vec<u8>);

impl SafePath {
    /// From a name as it stands in a tar file or in a manifest, where it may begin with `./` and end with `/`. `None` for one
    /// that leads elsewhere, or is no path.
    pub(crate) fn new(name: &[u8]) -> Option<SafePath> {
        let name = name.strip_prefix(b"./").unwrap_or(name);
        let name = name.strip_suffix(b"/").unwrap_or(name);
        let is_safe = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
        let fits = name.len() <= PATH_BYTES_MAX && !name.contains(&0);
        (fits && name.split(|byte| *byte == b'/').all(is_safe)).then(|| SafePath(name.to_vec()))
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Where it is below a directory.
    pub(crate) fn below(&self, directory: &Path) -> PathBuf {
        directory.join(OsStr::from_bytes(&self.0))
    }

    /// The same path below another one.
    pub(crate) fn in_folder(&self, folder: &str) -> SafePath {
        SafePath([folder.as_bytes(), b"/", &self.0].concat())
    }
}

impl fmt::Display for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&String::from_utf8_lossy(&self.0)))
    }
}

impl fmt::Debug for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_out_of_the_directory_are_none() {
        for (name, path) in [
            ("base/1/1259", "base/1/1259"),
            ("./pg_wal/archive_status", "pg_wal/archive_status"),
            ("pg_notify/", "pg_notify"),
            ("a/..b/.c", "a/..b/.c"),
        ] {
            assert_eq!(
                SafePath::new(name.as_bytes()).unwrap().bytes(),
                path.as_bytes()
            );
        }
        for name in [
            "",
            "/",
            ".",
            "..",
            "/etc/passwd",
            "a/../b",
            "../a",
            "a//b",
            "a/./b",
            "a\0b",
            "././a",
        ] {
            assert_eq!(SafePath::new(name.as_bytes()), None, "{name:?}");
        }
        assert_eq!(SafePath::new(&[b'a'; 5000]), None);
    }

    #[test]
    fn a_path_is_shown_so_that_no_terminal_obeys_it() {
        let shown = SafePath::new(b"a\x1b[2J\xff").unwrap().to_string();
        assert!(!shown.contains('\x1b'), "{shown}");
    }
}
