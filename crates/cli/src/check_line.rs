//! One line of the report of `walden check`: how a check ended, what was found, and its cure.
//!
//! Guarantees that every line that is not "passed" has a cure, and the same words for counts and names in all of them.

use crate::say;
use archive::Error;
use serde::Serialize;
use std::fmt::{Display, Write};

/// Result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// Everything is right; nothing to do.
    Passed,
    /// It works, and needs attention.
    Warning,
    /// Archiving or recovery does not work like this.
    Failed,
    /// It could not be looked at.
    Unknown,
}

/// One line of the report.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
}

impl Line {
    /// A check that passed.
    pub(crate) fn passed(found: impl Into<String>) -> Line {
        Line {
            verdict: Verdict::Passed,
            found: found.into(),
            cure: None,
        }
    }

    /// A check that passed, with advice.
    pub(crate) fn warning(found: impl Into<String>, cure: impl Into<String>) -> Line {
        Line {
            verdict: Verdict::Warning,
            found: found.into(),
            cure: Some(cure.into()),
        }
    }

    /// Does not work, with its cure.
    pub(crate) fn failed(found: impl Into<String>, cure: impl Into<String>) -> Line {
        Line {
            verdict: Verdict::Failed,
            found: found.into(),
            cure: Some(cure.into()),
        }
    }

    /// Could not be looked at, with what would let it be.
    pub(crate) fn unknown(found: impl Into<String>, cure: impl Into<String>) -> Line {
        Line {
            verdict: Verdict::Unknown,
            found: found.into(),
            cure: Some(cure.into()),
        }
    }

    /// What was found.
    pub(crate) fn found(&self) -> &str {
        &self.found
    }

    /// Does not work for this reason; `cure` is for reasons that come without a hint.
    pub(crate) fn error(error: &Error, cure: &str) -> Line {
        Line::failed(error.to_string(), error.hint().unwrap_or(cure))
    }

    /// Result of the check.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The line as people read it, and its cure below it.
    pub(crate) fn text(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Passed => "passed ",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED ",
            Verdict::Unknown => "unknown",
        };
        let mut text = format!("{verdict}  {}\n", self.found);
        if let Some(cure) = &self.cure {
            text.push_str(&format!("         cure: {cure}\n"));
        }
        text
    }
}

/// How many names are given of those that something is wrong with.
const NAMED_MAX: usize = 3;

/// `"a", "b", "c" and 4 more`.
pub(crate) fn some_of(names: &[impl Display]) -> String {
    let first = names.iter().take(NAMED_MAX);
    let named: Vec<String> = first.map(|name| format!("\"{name}\"")).collect();
    let mut text = named.join(", ");
    if names.len() > NAMED_MAX {
        let _ = write!(text, " and {} more", names.len() - NAMED_MAX);
    }
    text
}

/// `1 file is`, `2 files are`.
pub(crate) fn are(count: usize, what: &str) -> String {
    let verb = if count == 1 { "is" } else { "are" };
    format!("{} {verb}", say::counted(count as u64, what))
}
