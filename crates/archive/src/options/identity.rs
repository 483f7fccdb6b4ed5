//! The file with the secret keys that encrypted files are opened with: `walden.identity_file`.
//!
//! Guarantees: an [`IdentityFile`] is a path and nothing secret; the file is read anew whenever something encrypted is
//! opened, so that one that was replaced counts at once. No message repeats what stands in it, and what was read is
//! overwritten in memory when it has been used. The decrypting itself is in `format/seal.rs`.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use age::x25519::Identity;

use crate::base::small_file;
use crate::error::Error;
use crate::options::location::LOCATION_BYTES_MAX;

/// The longest identity file believed, in bytes: several hundred identities with their comments.
const IDENTITY_BYTES_MAX: usize = 64 * 1024;

/// What the parameter is called in hints.
const PARAMETER: &str = "\"walden.identity_file\" (--identity-file)";

/// Where the identities are, as `age-keygen` writes them: one a line, comments allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFile {
    path: PathBuf,
}

impl FromStr for IdentityFile {
    type Err = Error;

    /// Accepts an absolute path; anything else is [`crate::ErrorKind::Unusable`]: the server and a person's shell
    /// have different working directories.
    fn from_str(text: &str) -> Result<IdentityFile, Error> {
        let wrong = |why: &str| Err(Error::unusable(why));
        if crate::options::recipients::looks_secret(text) {
            return Err(Error::unusable("a secret key was given as the path of an identity file")
                .with_hint("Put the key into a file that only the server's user can read, and give its path."));
        }
        if text.len() > LOCATION_BYTES_MAX || text.contains('\0') {
            return wrong("path of the identity file is too long or contains a null byte");
        }
        if !Path::new(text).is_absolute() {
            // It is not repeated: it may be a key.
            return wrong("path of the identity file is not absolute");
        }
        Ok(IdentityFile { path: text.into() })
    }
}

impl fmt::Display for IdentityFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl IdentityFile {
    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its permission bits if others than its owner may do anything with it; fails if it cannot be looked at.
    pub fn open_to_others(&self) -> Result<Option<u32>, Error> {
        let stat = self.path.metadata();
        let stat = stat.map_err(|cause| {
            Error::io(format!("could not stat identity file \"{self}\""), cause)
        })?;
        let mode = stat.mode() & 0o7777;
        Ok((mode & 0o077 != 0).then_some(mode))
    }

    /// The public keys of the identities in it, comma separated; fails if it is not what it should be.
    pub fn recipients(&self) -> Result<String, Error> {
        Ok(self.read()?.recipients())
    }

    /// Reads the identities.
    ///
    /// Fails with [`crate::ErrorKind::Unavailable`] if the file cannot be read, and with
    /// [`crate::ErrorKind::Unusable`] if it is not what it should be.
    pub(crate) fn read(&self) -> Result<Identities, Error> {
        let text = small_file::read(
            &self.path,
            "identity file",
            IDENTITY_BYTES_MAX,
            &format!("{PARAMETER} must name a file that the user who reads the archive can read."),
        )?;
        self.parse(&text)
    }

    fn parse(&self, text: &[u8]) -> Result<Identities, Error> {
        if text.starts_with(b"age-encryption.org/")
            || text.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----")
        {
            return Err(Error::unusable(format!(
                "identity file \"{self}\" is protected by a passphrase"
            ))
            .with_hint(
                "A server cannot ask for it: give a file without a passphrase that only its owner can read.",
            ));
        }
        let mut keys = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let key = std::str::from_utf8(line)
                .ok()
                .and_then(|line| line.parse::<Identity>().ok());
            keys.push(key.ok_or_else(|| {
                let number = index + 1;
                Error::unusable(format!(
                    "line {number} of identity file \"{self}\" is not an age identity"
                ))
                .with_hint("Identities begin with \"AGE-SECRET-KEY-1\": age-keygen makes them.")
            })?);
        }
        if keys.is_empty() {
            return Err(Error::unusable(format!(
                "identity file \"{self}\" holds no identity"
            )));
        }
        Ok(Identities { keys })
    }
}

/// Secret keys, which overwrite themselves when they are dropped.
pub(crate) struct Identities {
    keys: Vec<Identity>,
}

impl Identities {
    pub(crate) fn keys(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.keys.iter().map(|key| key as &dyn age::Identity)
    }

    /// Whether one of them is that of one of these recipients.
    pub(crate) fn are_among(&self, recipients: &[String]) -> bool {
        self.keys
            .iter()
            .any(|key| recipients.contains(&key.to_public().to_string()))
    }

    /// The recipients that they open files of, for messages.
    pub(crate) fn recipients(&self) -> String {
        let recipients: Vec<String> = self
            .keys
            .iter()
            .map(|key| key.to_public().to_string())
            .collect();
        recipients.join(", ")
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({})", self.recipients())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use age::secrecy::ExposeSecret;
    use std::os::unix::fs::PermissionsExt;

    fn file(dir: &tempfile::TempDir, text: &[u8]) -> IdentityFile {
        let path = dir.path().join("identity");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().parse().unwrap()
    }

    fn secret(key: &Identity) -> String {
        key.to_string().expose_secret().to_owned()
    }

    #[test]
    fn several_identities_are_read_with_their_comments() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Identity::generate(), Identity::generate());
        let text = format!(
            "# created: today\n# public key: {}\n{}\n\n# the new one\r\n{}\r\n",
            one.to_public(),
            secret(&one),
            secret(&two)
        );
        let read = file(&dir, text.as_bytes()).read().unwrap();
        assert_eq!(
            read.recipients(),
            format!("{}, {}", one.to_public(), two.to_public())
        );
        assert!(!format!("{read:?}").contains("SECRET"));
    }

    #[test]
    fn a_file_that_is_no_identity_file_is_refused_and_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let good = secret(&Identity::generate());
        let cut = &good[..good.len() - 1];
        for (text, said) in [
            ("", "holds no identity"),
            ("# only a comment\n", "holds no identity"),
            (cut, "line 1 of"),
            (&format!("{good}\nAGE-PLUGIN-YUBIKEY-1QQQ\n"), "line 2 of"),
            (
                "age-encryption.org/v1\n-> scrypt x 18\n",
                "is protected by a passphrase",
            ),
            (
                "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n",
                "is protected by a passphrase",
            ),
            (&"#\n".repeat(40_000), "is longer than"),
        ] {
            let error = file(&dir, text.as_bytes()).read().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unusable);
            assert!(error.to_string().contains(said), "{error}");
            assert!(!format!("{error:?}").contains(&good[20..30]), "{error:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_may_be_there_later() {
        let dir = tempfile::tempdir().unwrap();
        let missing: IdentityFile = dir.path().join("none").to_str().unwrap().parse().unwrap();
        let error = missing.read().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            error
                .to_string()
                .ends_with("none\": No such file or directory"),
            "{error}"
        );
        assert!(error.hint().is_some());
    }

    #[test]
    fn only_absolute_paths_are_accepted_and_a_key_in_place_of_one_is_not_repeated() {
        assert!("key.txt".parse::<IdentityFile>().is_err());
        assert!("".parse::<IdentityFile>().is_err());
        let key = secret(&Identity::generate());
        let error = key.parse::<IdentityFile>().unwrap_err();
        assert!(!format!("{error:?}").contains(&key[20..30]), "{error:?}");
    }

    #[test]
    fn a_file_that_others_can_read_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let identity = file(&dir, b"x");
        let set = |mode| {
            std::fs::set_permissions(identity.path(), std::fs::Permissions::from_mode(mode))
                .unwrap()
        };
        set(0o600);
        assert_eq!(identity.open_to_others().unwrap(), None);
        set(0o640);
        assert_eq!(identity.open_to_others().unwrap(), Some(0o640));
    }
}
