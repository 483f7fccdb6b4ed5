//! What can be wrong with a configuration: the server would refuse it, or it cannot be read now.

use std::io;

/// Whether a configuration may be readable later as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A file could not be read and may be readable next time.
    Unavailable,
    /// A file is not there, or the server would refuse it.
    Unusable,
}

/// A failure, with its kind, its message, and sometimes a hint. The message holds names of files and pieces of them as they
/// are: whoever shows it makes it fit to be shown.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
}

impl Error {
    /// Whether a later try may succeed.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Advice for the person who reads the message, if there is any.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(crate) fn new(kind: ErrorKind, message: String) -> Error {
        Error {
            kind,
            message,
            hint: None,
        }
    }

    pub(crate) fn unusable(message: String) -> Error {
        Error::new(ErrorKind::Unusable, message)
    }

    pub(crate) fn unavailable(message: String) -> Error {
        Error::new(ErrorKind::Unavailable, message)
    }

    /// `what` is completed with the cause in the system's words, without the number that Rust appends: the server prints `%m`.
    pub(crate) fn io(what: &str, cause: &io::Error) -> Error {
        let text = cause.to_string();
        let end = text.find(" (os error ").unwrap_or(text.len());
        let cause = text.get(..end).unwrap_or(&text);
        Error::unavailable(format!("{what}: {cause}"))
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }
}
