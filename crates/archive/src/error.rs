//! The one error type of this crate: what the caller must do (`ErrorKind`), and the text to show a person.
//!
//! Guarantees: a message is one line in the server's style (lower case, no full stop, objects named and
//! quoted, cause last), and nothing in it is obeyed by a terminal (`base/printable.rs`); advice is in the hint.
//! Absence is never an error here: see [`crate::Got::Absent`].
//! Leaves logging to the caller: errors are returned, never printed.

use std::io;

use crate::base::digest::Digest;
use crate::base::printable::message;

/// The longest message, in bytes; what is put into one has limits of its own, which are much smaller.
const MESSAGE_BYTES_MAX: usize = 4096;

/// What the caller must do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The archive holds other bytes under the same name; nothing was changed, a human must look.
    Conflict,
    /// The WAL or the archive belongs to another system identifier.
    Foreign,
    /// Bytes fail their checks, in the archive or in the file offered to it.
    Damaged,
    /// It could not be done now and may work next time.
    Unavailable,
    /// A setting or an argument is wrong; it will not work until that is changed.
    Unusable,
    /// The caller asked to stop.
    Cancelled,
}

impl ErrorKind {
    /// True if the same call may succeed later by itself.
    pub fn may_work_later(self) -> bool {
        matches!(self, ErrorKind::Unavailable | ErrorKind::Cancelled)
    }
}

/// What this crate itself must know of some failures, beyond what callers must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A sync failed, so the file's contents are not to be trusted, whatever the next sync says.
    FailedSync,
    /// Its creator still holds it; that is over in a moment.
    Busy,
    /// The server has been told meanwhile that the file is archived.
    NotReady,
    /// It is encrypted, and no identity at hand opens it; with the digest that its header holds.
    Locked(Option<Digest>),
    /// It is packed in a form that is not unpacked here.
    Packed,
    /// What is stored under the name cannot be opened, nor can its digest be compared.
    CannotCompare,
    /// The name is there, and no file: a link to nowhere, a directory, a device.
    NoFile,
    /// The store does not let us: credentials, or permissions.
    Denied,
}

/// A failure, with its kind, its message, and sometimes a hint and the error that caused it.
///
/// `Display` is the whole message, its cause included, so a caller shows the message and the hint and
/// need not walk `source()`, which is there for code that wants the error number.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    mark: Option<Mark>,
    #[source]
    source: Option<io::Error>,
}

impl Error {
    /// An error of one kind with its message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error {
            kind,
            message: fit(message.into()),
            hint: None,
            mark: None,
            source: None,
        }
    }

    /// An [`ErrorKind::Unavailable`] for a failed system call: `what` is completed with its cause.
    ///
    /// One that has travelled inside of the other kind of error, as through a writer, keeps its kind and its hint, and
    /// does not say twice what could not be done.
    pub fn io(what: impl AsRef<str>, cause: io::Error) -> Error {
        let inner = cause.get_ref().and_then(|it| it.downcast_ref::<Error>());
        if let Some(inner) = inner {
            return Error {
                kind: inner.kind,
                message: if inner.message.starts_with(what.as_ref()) {
                    inner.message.clone()
                } else {
                    fit(format!("{}: {}", what.as_ref(), inner.message))
                },
                hint: inner.hint.clone(),
                mark: inner.mark,
                source: None,
            };
        }
        Error {
            kind: ErrorKind::Unavailable,
            message: fit(format!("{}: {}", what.as_ref(), cause_of(&cause))),
            hint: None,
            mark: (cause.kind() == io::ErrorKind::PermissionDenied).then_some(Mark::Denied),
            source: Some(cause),
        }
    }

    /// The same error with advice beside it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(message(hint.into(), MESSAGE_BYTES_MAX, true));
        self
    }

    /// The same error as another kind, for a caller that knows better what the failure means.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Error {
        self.kind = kind;
        self
    }

    /// What the caller must do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Advice for the person who reads the message, if there is any.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether what is stored is packed in a way that Walden does not read: not damaged, as far as is known, and not
    /// to be had before it is unpacked.
    pub fn is_packed(&self) -> bool {
        self.mark == Some(Mark::Packed)
    }

    /// Whether the name is there, and what has it is no file: a link to nowhere, a directory, a fifo, a device. Nobody can read
    /// that before somebody puts the file there, or mounts what the link leads to.
    pub fn is_no_file(&self) -> bool {
        self.mark == Some(Mark::NoFile)
    }

    /// Whether the store, or the file system, does not let this process in: credentials or permissions are missing or wrong.
    pub fn is_denied(&self) -> bool {
        self.mark == Some(Mark::Denied)
    }

    pub(crate) fn mark(&self) -> Option<Mark> {
        self.mark
    }

    pub(crate) fn marked(mut self, mark: Mark) -> Error {
        self.mark = Some(mark);
        self
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Conflict, message)
    }

    pub(crate) fn foreign(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Foreign, message)
    }

    pub(crate) fn damaged(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Damaged, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unavailable, message)
    }

    pub(crate) fn unusable(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unusable, message)
    }
}

/// A message as it may be shown, whatever was put into it.
fn fit(text: String) -> String {
    message(text, MESSAGE_BYTES_MAX, false)
}

/// The system's words for a failure, without the number that Rust appends: the server prints `%m`.
pub(crate) fn cause_of(cause: &io::Error) -> String {
    let text = cause.to_string();
    match text.find(" (os error ") {
        Some(end) => text.get(..end).unwrap_or(&text).to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_went_through_a_writer_keeps_its_hint_and_says_once_what_could_not_be_done() {
        let inner =
            Error::unavailable("could not store object \"x\": 403 AccessDenied").with_hint("Do.");
        let error = Error::io("could not store object \"x\"", io::Error::other(inner));
        assert_eq!(
            error.to_string(),
            "could not store object \"x\": 403 AccessDenied"
        );
        assert_eq!(error.hint(), Some("Do."));
        let inner = Error::unusable("no room");
        let error = Error::io("could not write", io::Error::other(inner));
        assert_eq!(error.to_string(), "could not write: no room");
        assert_eq!(error.kind(), ErrorKind::Unusable);
    }

    #[test]
    fn nothing_in_a_message_or_a_hint_is_obeyed_by_a_terminal() {
        let odd = "a\u{1b}]0;x\u{7}\u{202e}b\r\n";
        let cause = io::Error::other(odd);
        for error in [Error::unusable(odd), Error::io(odd, cause)] {
            let error = error.with_hint(odd);
            let said = format!("{error}{error:?}{}", error.hint().unwrap_or_default());
            let is_fit = |c: char| !c.is_control() && c != '\u{202e}';
            assert!(said.replace('\n', "").chars().all(is_fit), "{said:?}");
            assert!(!error.to_string().contains('\n'));
        }
        let long = Error::unusable("x".repeat(1_000_000)).to_string();
        assert!(long.len() < MESSAGE_BYTES_MAX + 10);
    }

    #[test]
    fn a_message_ends_with_the_systems_words_and_no_error_number() {
        let cause = io::Error::from_raw_os_error(28);
        let error = Error::io("could not write file \"x\"", cause);
        assert_eq!(
            error.to_string(),
            "could not write file \"x\": No space left on device"
        );
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
