//! Credentials from a file that the archive's URL names (`credentials_file`).
//!
//! For S3 and Azure: lines of `NAME = VALUE` with the names of the environment variables, in any case, such as
//! `AWS_ACCESS_KEY_ID` or `azure_storage_account_key`; empty lines, comments (`#`, `;`) and section headers are skipped,
//! so that a file of the AWS tools with one profile serves too. For Google Cloud Storage: the service account's key file.
//!
//! Guarantees: no value is ever part of an error.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::base::small_file;
use crate::error::Error;

/// The longest file believed, in bytes.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// One line of a credentials file.
#[derive(Debug)]
pub(super) struct Credential {
    pub(super) line: u32,
    /// In lower case. It is a key rather, if one was put alone on a line, and is not repeated.
    pub(super) name: String,
    pub(super) value: Zeroizing<String>,
}

/// The names and values of a credentials file.
///
/// Fails with [`crate::ErrorKind::Unavailable`] if it cannot be read, since a secret may be put there later;
/// [`crate::ErrorKind::Unusable`] if it has other lines.
pub(super) fn read(path: &Path) -> Result<Vec<Credential>, Error> {
    let text = read_text(path)?;
    let mut found = Vec::new();
    for (line, number) in text.lines().zip(1_u32..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';', '[']) {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(Error::unusable(format!(
                "credentials file \"{}\" line {number} is not NAME = VALUE",
                path.display()
            )));
        };
        let name = name.trim().to_ascii_lowercase();
        found.push(Credential {
            line: number,
            name,
            value: Zeroizing::new(value.trim().to_owned()),
        });
    }
    Ok(found)
}

/// Which version of a file is there, by what a replaced one does not share; `None` if it cannot be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version(Option<[i64; 6]>);

impl Version {
    pub(super) fn of(path: &Path) -> Version {
        let stat = std::fs::metadata(path).ok();
        Version(stat.map(|stat| {
            let (device, inode) = (stat.dev().cast_signed(), stat.ino().cast_signed());
            let changed = [
                stat.mtime(),
                stat.mtime_nsec(),
                stat.ctime(),
                stat.ctime_nsec(),
            ];
            let [a, b, c, d] = changed;
            [device, inode, a, b, c, d]
        }))
    }
}

/// A whole file of the user's, for credentials or certificates.
pub(super) fn read_text(path: &Path) -> Result<Zeroizing<String>, Error> {
    let bytes = small_file::read(
        path,
        "file",
        FILE_BYTES_MAX,
        "It has to be readable for the operating system user that the database server runs as.",
    )?;
    // Its contents must not be part of the error, as they are of the standard library's.
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        let shown = path.display();
        Error::unusable(format!("file \"{shown}\" is not a text file"))
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_aws_tools_and_one_of_variables_both_serve() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let text = "# mine\n[default]\naws_access_key_id = A\nAWS_SECRET_ACCESS_KEY=b=c\n\n";
        std::fs::write(&path, text).unwrap();
        let found = read(&path).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|it| (it.line, it.name.as_str(), it.value.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                (3, "aws_access_key_id", "A"),
                (4, "aws_secret_access_key", "b=c")
            ]
        );
    }

    #[test]
    fn no_error_repeats_what_stands_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        std::fs::write(&path, "hushhush\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.contains("line 1") && !error.contains("hushhush"),
            "{error}"
        );
        let missing = read(&dir.path().join("none")).unwrap_err();
        assert_eq!(missing.kind(), crate::ErrorKind::Unavailable);
    }
}
