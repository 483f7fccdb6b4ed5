//! Pointers from C are allegations: looked at once, here, and turned into checked Rust values.

use crate::Failure;
use core::ffi::{CStr, c_char};
use std::path::PathBuf;
use wal::{KeepFrom, WalFileName};

/// The manual promises names of at most 64 characters, paths are at most `MAXPGPATH`.
const NAME_BYTES_MAX: usize = 64;

/// The name of a WAL file.
///
/// # Safety
/// `name` is null or NUL-terminated and outlives the call.
pub(crate) unsafe fn wal_file_name(name: *const c_char) -> Result<WalFileName, Failure> {
    // SAFETY: passed on.
    let text = unsafe { text(name, "file name") }?;
    if text.len() > NAME_BYTES_MAX {
        return Err(Failure::new(format!("file name \"{text}\" is too long")));
    }
    text.parse()
        .map_err(|_| Failure::new(format!("\"{text}\" is not the name of a WAL file")))
}

/// A path, relative to the data directory or absolute.
///
/// # Safety
/// As [`wal_file_name`].
pub(crate) unsafe fn path(path: *const c_char) -> Result<PathBuf, Failure> {
    // SAFETY: passed on.
    unsafe { text(path, "path") }.map(PathBuf::from)
}

/// The oldest file to keep.
///
/// # Safety
/// As [`wal_file_name`].
pub(crate) unsafe fn keep_from(name: *const c_char) -> Result<KeepFrom, Failure> {
    // SAFETY: passed on.
    let text = unsafe { text(name, "name of the last restartpoint's file") }?;
    text.parse().map_err(|_| {
        Failure::new(format!(
            "\"{text}\" is not the name of a last restartpoint's file"
        ))
    })
}

/// A text, or `None` for null.
///
/// # Safety
/// As [`wal_file_name`].
pub(crate) unsafe fn optional_text(
    text: *const c_char,
    what: &str,
) -> Result<Option<String>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: passed on.
    unsafe { self::text(text, what) }.map(Some)
}

/// A text.
///
/// # Safety
/// As [`wal_file_name`].
pub(crate) unsafe fn text(text: *const c_char, what: &str) -> Result<String, Failure> {
    if text.is_null() {
        return Err(Failure::new(format!("no {what} was given")));
    }
    // SAFETY: not null, and NUL-terminated as the caller promises.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str()
        .map(str::to_owned)
        .map_err(|_| Failure::new(format!("{what} {text:?} is not valid UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_pointer_is_a_failure_and_not_a_crash() {
        // SAFETY: null is allowed.
        assert!(unsafe { wal_file_name(core::ptr::null()) }.is_err());
    }

    #[test]
    fn only_names_of_wal_files_pass() {
        for (name, passes) in [
            (c"000000010000000000000001", true),
            (c"00000002.history", true),
            (c"../../etc/passwd", false),
            (c"", false),
        ] {
            // SAFETY: literals are NUL-terminated.
            let parsed = unsafe { wal_file_name(name.as_ptr()) };
            assert_eq!(parsed.is_ok(), passes, "{name:?}");
        }
    }
}
