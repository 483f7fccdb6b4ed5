//! Small files that a person names: identities, credentials, certificates.
//!
//! Guarantees: a fifo, a device or a directory is refused and never waited for; no more is read than such a file may have;
//! what was read is overwritten in memory when it is dropped, and stands in no error. Leaves what it means to the caller.

use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use crate::base::regular::open_without_waiting;
use crate::error::Error;

/// Reads such a file, of `bytes_max` at most. `what` is what it is called in messages.
///
/// Fails with [`crate::ErrorKind::Unavailable`] and `hint` if it cannot be read, since it may be put there later;
/// [`crate::ErrorKind::Unusable`] if it is no regular file, or longer.
pub(crate) fn read(
    path: &Path,
    what: &str,
    bytes_max: usize,
    hint: &str,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let shown = path.display();
    let could_not =
        |cause| Error::io(format!("could not read {what} \"{shown}\""), cause).with_hint(hint);
    // Not to hang on a fifo.
    let file = open_without_waiting(path).map_err(could_not)?;
    if !file.metadata().map_err(could_not)?.is_file() {
        return Err(Error::unusable(format!(
            "{what} \"{shown}\" is not a regular file"
        )));
    }
    // As large as it may get from the start: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
    let most = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    file.take(most.saturating_add(1))
        .read_to_end(&mut text)
        .map_err(could_not)?;
    if text.len() > bytes_max {
        return Err(Error::unusable(format!(
            "{what} \"{shown}\" is longer than {bytes_max} bytes"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use std::fs;
    use std::process::Command;

    #[test]
    fn a_file_is_read_up_to_the_longest_and_no_longer_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(*read(&path, "file", 5, "").unwrap(), b"12345");
        let error = read(&path, "file", 4, "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable);
        assert!(error.to_string().ends_with("is longer than 4 bytes"));
        fs::write(&path, "").unwrap();
        assert_eq!(*read(&path, "file", 5, "").unwrap(), b"");
    }

    #[test]
    fn what_is_no_file_hangs_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        assert!(
            Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        for path in [fifo.as_path(), dir.path(), Path::new("/dev/zero")] {
            let error = read(path, "file", 5, "").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unusable, "{error}");
            assert!(
                error.to_string().contains("is not a regular file"),
                "{error}"
            );
        }
    }

    #[test]
    fn one_that_is_not_there_may_be_there_later() {
        let dir = tempfile::tempdir().unwrap();
        let error = read(&dir.path().join("none"), "file", 5, "Make one.").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.hint(), Some("Make one."));
        assert!(
            error
                .to_string()
                .ends_with("none\": No such file or directory"),
            "{error}"
        );
    }
}
