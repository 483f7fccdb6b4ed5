//! Where an archive is: the value of `walden.archive` and of `--archive`, parsed at the edge.
//!
//! Guarantees: a [`Location`] names an absolute directory, or a place in an object store. One that is refused is not
//! repeated in the error, since it may hold a secret that does not belong there. Whether it exists is
//! [`crate::Archive::open`]'s question.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::base::printable::is_plain_text;
use crate::error::Error;
use crate::store::cloud::{Address, Service};

/// The longest location accepted, in bytes: the server's own limit for paths (`MAXPGPATH`, 15 to 18).
pub const LOCATION_BYTES_MAX: usize = 1024;

/// The longest scheme that is repeated, in bytes.
const SCHEME_BYTES_MAX: usize = 8;

const FORMS: &str = "Give an absolute path, or a \"file:\", \"s3:\", \"gs:\" or \"az:\" URL.";

/// How an archive's directory and a cluster's lie in one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// It is the WAL directory: each file is its own copy, and the server removes it.
    WithWal,
    /// It lies in the WAL directory.
    InWal,
    /// It lies in the data directory, or is it.
    InData,
    /// The WAL directory or the data directory lies in it.
    Around,
}

/// Location of an archive: a directory or a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// A directory, named by an absolute path.
    Directory(PathBuf),
    /// A place in an object store.
    Cloud(Box<Address>),
}

impl Location {
    /// The location of a directory archive.
    ///
    /// Fails with [`crate::ErrorKind::Unusable`] if the path is not absolute: the server, its archiver and a
    /// person's shell have different working directories, so a relative path would mean several archives.
    pub fn directory(path: impl Into<PathBuf>) -> Result<Location, Error> {
        let directory = path.into();
        // It is not repeated: what is no path may be a URL with a word missing, with a key in it.
        if !directory.is_absolute() {
            return Err(
                Error::unusable("archive location is not an absolute path").with_hint(FORMS)
            );
        }
        Ok(Location::Directory(directory))
    }

    /// The directory, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Location::Directory(directory) => Some(directory),
            Location::Cloud(_) => None,
        }
    }
}

impl Location {
    /// Whether this is a directory within a cluster's data directory, or within its WAL directory, wherever that is: then the
    /// archive is lost with the cluster, and copied with every base backup. False where that cannot be told.
    pub fn lies_within(&self, data_directory: &Path) -> bool {
        matches!(
            self.overlap(data_directory),
            Some(Overlap::WithWal | Overlap::InWal | Overlap::InData)
        )
    }

    /// How this directory and those of a cluster lie in one another; `None` where they do not, or that cannot be told.
    pub fn overlap(&self, data_directory: &Path) -> Option<Overlap> {
        let own = self.path()?.canonicalize().ok()?;
        let wal = data_directory.join("pg_wal").canonicalize().ok();
        if let Some(wal) = &wal
            && (own == *wal || is_one(&own, wal))
        {
            return Some(Overlap::WithWal);
        }
        let data = data_directory.canonicalize().ok();
        let is_in = |inner: &Path, outer: Option<&PathBuf>| {
            outer.is_some_and(|outer| inner.starts_with(outer))
        };
        let is_around =
            |inner: Option<&PathBuf>| inner.is_some_and(|inner| inner.starts_with(&own));
        if is_in(&own, wal.as_ref()) {
            Some(Overlap::InWal)
        } else if is_in(&own, data.as_ref()) {
            Some(Overlap::InData)
        } else if is_around(wal.as_ref()) || is_around(data.as_ref()) {
            Some(Overlap::Around)
        } else {
            None
        }
    }

    /// What an archiver should be told each time it begins, if there is anything.
    pub fn warning(&self) -> Option<String> {
        let Location::Cloud(address) = self else {
            return None;
        };
        (address.options.unsafe_overwrite == Some(true)).then(|| {
            format!(
                "archive \"{}\" is used with \"unsafe_overwrite\": nothing keeps two servers from overwriting each \
                 other's files",
                address.place()
            )
        })
    }
}

impl FromStr for Location {
    type Err = Error;

    /// Accepts `/abs`, `file:/abs`, `file:///abs`, and URLs of object stores ([`Address`]); anything else is
    /// [`crate::ErrorKind::Unusable`].
    fn from_str(text: &str) -> Result<Location, Error> {
        if text.is_empty() {
            return Err(Error::unusable("archive location is empty"));
        }
        if text.len() > LOCATION_BYTES_MAX {
            return Err(Error::unusable(format!(
                "archive location is longer than {LOCATION_BYTES_MAX} bytes"
            )));
        }
        if text.contains('\0') {
            return Err(Error::unusable("archive location contains a null byte"));
        }
        if !is_plain_text(text) {
            return Err(Error::unusable(
                "archive location contains characters that cannot be shown",
            ));
        }
        let Some((scheme, rest)) = scheme_of(text) else {
            return Location::directory(text);
        };
        if scheme.eq_ignore_ascii_case("file") {
            return Location::directory(local_path(rest)?);
        }
        if Service::of_scheme(&scheme.to_ascii_lowercase()).is_some() {
            return Ok(Location::Cloud(Box::new(text.parse()?)));
        }
        // A key with a colon behind it looks like a scheme, too.
        let is_word = scheme.len() <= SCHEME_BYTES_MAX
            && scheme.chars().all(|letter| letter.is_ascii_lowercase());
        let shown = if is_word {
            format!(" \"{scheme}:\"")
        } else {
            String::new()
        };
        Err(
            Error::unusable(format!("archive location scheme{shown} is not supported"))
                .with_hint(FORMS),
        )
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Directory(directory) => directory.display().fmt(f),
            Location::Cloud(address) => address.fmt(f),
        }
    }
}

/// Splits `scheme:rest`. A path never counts as one, since what stands before its colon holds a slash.
fn scheme_of(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut letters = scheme.chars();
    let starts_right = letters.next().is_some_and(|c| c.is_ascii_alphabetic());
    let goes_on_right = letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    (starts_right && goes_on_right).then_some((scheme, rest))
}

/// The path of a `file:` URL, which may name no host.
fn local_path(rest: &str) -> Result<&str, Error> {
    match rest.strip_prefix("//") {
        None => Ok(rest),
        Some(path) if path.starts_with('/') => Ok(path),
        Some(_) => Err(Error::unusable("archive location \"file:\" names a host")
            .with_hint("A \"file:\" URL has no host: write file:///directory.")),
    }
}

/// Whether two directories are one that is mounted at two places.
fn is_one(left: &Path, right: &Path) -> bool {
    let identity = |path: &Path| path.metadata().map(|it| (it.dev(), it.ino())).ok();
    identity(left).is_some_and(|left| identity(right) == Some(left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_directory_is_named_by_its_path_or_a_file_url() {
        for text in [
            "/srv/wal",
            "file:/srv/wal",
            "file:///srv/wal",
            "FILE:/srv/wal",
        ] {
            let location: Location = text.parse().unwrap();
            assert_eq!(location.path(), Some(Path::new("/srv/wal")), "{text}");
            assert_eq!(location.to_string(), "/srv/wal");
        }
    }

    #[test]
    fn anything_else_is_refused_as_unusable() {
        for text in [
            "",
            "wal",
            "./wal",
            "file:wal",
            "file://host/wal",
            "sftp://host/wal",
            "az:x",
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unusable, "{text}");
        }
    }

    #[test]
    fn a_place_in_an_object_store_is_named_by_its_url() {
        for text in [
            "s3://bucket/wal?region=eu-west-1",
            "gs://bucket",
            "az://container/wal",
        ] {
            let location: Location = text.parse().unwrap();
            assert_eq!(location.to_string(), text);
            assert_eq!(location.path(), None);
        }
    }

    #[test]
    fn who_does_without_conditional_writes_is_told_so() {
        let warning = |text: &str| text.parse::<Location>().unwrap().warning();
        let said = warning("s3://bucket/wal?unsafe_overwrite=true").unwrap();
        assert!(said.contains("s3://bucket/wal") && said.contains("overwriting"));
        assert_eq!(warning("s3://bucket/wal?unsafe_overwrite=false"), None);
        assert_eq!(warning("/srv/wal"), None);
    }

    #[test]
    fn a_colon_inside_a_path_is_no_scheme() {
        let location: Location = "/srv/a:b".parse().unwrap();
        assert_eq!(location.path(), Some(Path::new("/srv/a:b")));
    }

    #[test]
    fn a_place_in_the_data_directory_or_where_its_wal_lies_is_within_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["data", "wal/archive", "data/archive", "database"] {
            std::fs::create_dir_all(at(path)).unwrap();
        }
        std::os::unix::fs::symlink(at("wal"), at("data/pg_wal")).unwrap();
        std::os::unix::fs::symlink(at("data/archive"), at("link")).unwrap();
        let within = |path: &str| {
            let location = Location::directory(at(path)).unwrap();
            location.lies_within(&at("data"))
        };
        for path in ["data", "wal", "wal/archive", "data/archive", "link"] {
            assert!(within(path), "{path}");
        }
        for path in ["database", "missing"] {
            assert!(!within(path), "{path}");
        }
    }

    #[test]
    fn an_archive_and_a_cluster_overlap_where_one_is_in_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["pg/data", "wal/main/archive", "pg/data/archive", "other"] {
            std::fs::create_dir_all(at(path)).unwrap();
        }
        std::os::unix::fs::symlink(at("wal/main"), at("pg/data/pg_wal")).unwrap();
        for (path, overlap) in [
            ("wal/main", Some(Overlap::WithWal)),
            ("pg/data/pg_wal", Some(Overlap::WithWal)),
            ("wal/main/archive", Some(Overlap::InWal)),
            ("pg/data", Some(Overlap::InData)),
            ("pg/data/archive", Some(Overlap::InData)),
            ("wal", Some(Overlap::Around)),
            ("pg", Some(Overlap::Around)),
            ("other", None),
            ("missing", None),
        ] {
            let location = Location::directory(at(path)).unwrap();
            assert_eq!(location.overlap(&at("pg/data")), overlap, "{path}");
        }
    }
}
