//! What a module has to say: failures, and reports for the server's log.
//!
//! Texts follow the server's style guide: a primary message in lower case without a full stop, object quoted,
//! cause last; advice as a whole sentence in the hint.

use std::fmt;

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Primary message: one line in lower case, object quoted, cause last, no full stop.
    pub message: String,
    /// Facts, in whole sentences.
    pub detail: Option<String>,
    /// Advice, in whole sentences.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with a primary message alone.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// Adds a detail: facts, in whole sentences.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a hint: advice, in whole sentences.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Turns an error into a [`Failure`] that says what could not be done, with the error as the cause. Of a
/// [`Failure`] the message is kept, not its detail and hint.
///
/// ```
/// use module::{Failure, OrFail};
///
/// fn look(path: &str) -> Result<Vec<u8>, Failure> {
///     std::fs::read(path).or_fail(format_args!("could not read file \"{path}\""))
/// }
/// assert!(look("/nowhere").unwrap_err().message.starts_with("could not read file \"/nowhere\": No such"));
/// ```
pub trait OrFail<T> {
    /// `what` is in lower case, names its object, and ends before the colon.
    ///
    /// # Errors
    /// What this one had, as a failure.
    fn or_fail(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> OrFail<T> for Result<T, E> {
    fn or_fail(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|cause| Failure::new(format!("{what}: {cause}")))
    }
}

/// How important a report is, in the server's own levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `DEBUG2`: for developers, in detail.
    Debug2,
    /// `DEBUG1`: for developers.
    Debug1,
    /// `LOG`: for the administrator, routine.
    Log,
    /// `WARNING`: for the administrator, who should look at it.
    Warning,
}

/// A report for the server's log.
#[derive(Clone, Debug)]
pub struct Report {
    /// The level that it is logged at.
    pub level: Level,
    /// Message, detail and hint.
    pub text: Failure,
}

impl Report {
    /// A report with a primary message alone.
    #[must_use]
    pub fn new(level: Level, message: impl Into<String>) -> Self {
        Self {
            level,
            text: Failure::new(message),
        }
    }

    /// A report of a failure that is not the caller's answer.
    #[must_use]
    pub fn of(level: Level, text: Failure) -> Self {
        Self { level, text }
    }
}
