//! A promise that a module makes to its server, and what became of it.
//!
//! Guarantees that "broken" is said only by a check that saw the module break the promise; a check that
//! could not do its work says so instead.

use std::fmt;

use anyhow::Result;
use lab::Lab;
use serde::Serialize;

use crate::subject::Subject;

/// The kind of module that promises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An archive module's.
    Archive,
    /// A recovery module's.
    Recovery,
    /// A base backup target's.
    Target,
}

/// Something a server relies on.
pub struct Promise {
    /// Its name in reports and for `--only`: lower case, words joined by hyphens. Stays as it is.
    pub name: &'static str,
    /// The kind of module that promises it.
    pub kind: Kind,
    /// What is promised, as a sentence without a full stop.
    pub says: &'static str,
    /// Where that is written: a section of PostgreSQL's manual, or a function of the server, with majors.
    pub source: &'static str,
    /// Looks whether it is kept, and answers with the evidence.
    pub(crate) check: fn(&Subject, &Lab) -> Result<Evidence>,
}

/// What a check saw that had to be seen.
pub(crate) enum Evidence {
    /// The promise was kept; this is how that showed.
    Seen(String),
    /// The module makes no such promise: it lacks an optional callback, say.
    DoesNotApply(String),
}

/// A check's way to say that the promise was broken: an error, so that `?` carries it out.
#[derive(Debug)]
struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// The promise was broken; `evidence` says what was seen.
pub(crate) fn broken<T>(evidence: impl Into<String>) -> Result<T> {
    Err(Broken(evidence.into()).into())
}

/// The promise is broken unless `kept`.
pub(crate) fn hold(kept: bool, evidence: impl FnOnce() -> String) -> Result<()> {
    if kept { Ok(()) } else { broken(evidence()) }
}

/// The promise is broken if this, a wait for what the module has to do, fails: its error is the evidence.
pub(crate) fn must<T>(done: Result<T>, otherwise: &str) -> Result<T> {
    done.or_else(|error| broken(format!("{otherwise}: {error:#}")))
}

/// What became of a promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "evidence", rename_all = "kebab-case")]
pub enum Verdict {
    /// Kept, and what showed it.
    Kept(String),
    /// Broken, and what was seen.
    Broken(String),
    /// The module makes no such promise; why.
    DoesNotApply(String),
    /// The check could not be done; why. No judgement of the module.
    Unclear(String),
}

impl Promise {
    /// Puts the promise to the test.
    pub(crate) fn examine(&self, subject: &Subject, lab: &Lab) -> Verdict {
        match (self.check)(subject, lab) {
            Ok(Evidence::Seen(evidence)) => Verdict::Kept(evidence),
            Ok(Evidence::DoesNotApply(why)) => Verdict::DoesNotApply(why),
            Err(error) => match error.downcast_ref::<Broken>() {
                Some(Broken(evidence)) => Verdict::Broken(evidence.clone()),
                None => Verdict::Unclear(format!("{error:#}")),
            },
        }
    }
}

impl Verdict {
    /// The word for it, as wide as the widest.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Kept(_) => "kept",
            Verdict::Broken(_) => "BROKEN",
            Verdict::DoesNotApply(_) => "n/a",
            Verdict::Unclear(_) => "UNCLEAR",
        }
    }

    /// What was seen, or why nothing was.
    #[must_use]
    pub fn evidence(&self) -> &str {
        match self {
            Verdict::Kept(text)
            | Verdict::Broken(text)
            | Verdict::DoesNotApply(text)
            | Verdict::Unclear(text) => text,
        }
    }

    /// Whether nothing speaks against the module: the promise is kept, or it makes none.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Verdict::Kept(_) | Verdict::DoesNotApply(_))
    }
}
