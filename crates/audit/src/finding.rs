//! What an audit finds: how bad it is, where, in words, and what to do about it.
//!
//! Guarantees bounded memory however much is wrong: of each kind the first [`LISTED_MAX`] are kept, and all are counted.
//! How findings are shown is left to the command.

use std::collections::BTreeMap;
use std::fmt;

use archive::Error;
use serde::{Deserialize, Serialize};
use wal::Lsn;

use crate::text;

/// How many findings of one kind are kept.
pub const LISTED_MAX: u64 = 1000;

/// How bad a finding is, from the least to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know; recovery does not mind.
    Note,
    /// No WAL that recovery needs is at stake, but somebody should look.
    Warning,
    /// It could not be found out whether something is wrong.
    CouldNotTell,
    /// There is WAL that cannot be replayed, or must not be.
    Error,
}

/// What a finding is about. The names are a promise to programs: more may come, none is renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Segments that must have been there are not.
    Missing,
    /// Contents are not what was archived.
    Damaged,
    /// A file is under another's name.
    Misnamed,
    /// A segment of another database cluster.
    OtherSystem,
    /// A segment whose pages are of another timeline than its name and the timeline history files say.
    OtherTimeline,
    /// A segment of another size than the others.
    OtherSize,
    /// A segment that does not go on where the one before it ends.
    DoesNotFollow,
    /// WAL ends in a segment although there is more behind it.
    EndsEarly,
    /// A segment on a timeline that had not begun there.
    BeforeTimeline,
    /// A timeline history file does not fit the WAL.
    WrongSwitchpoint,
    /// A timeline history file is not there.
    MissingHistory,
    /// Timeline history files contradict each other.
    Contradiction,
    /// A backup history file that does not say what it should.
    BackupHistory,
    /// A file that is named like WAL, or has its name, and that nobody here can read: packed in another way, or under a suffix.
    Unreadable,
    /// A file that has nothing to do with WAL.
    Foreign,
    /// A file that was removed while the audit went on.
    Removed,
    /// Nobody has said which cluster the archive belongs to.
    Unbound,
    /// An object that could not be read.
    NotRead,
    /// WAL of a version whose records are not known.
    UnknownVersion,
    /// What has been read could not be written down.
    State,
}

impl fmt::Display for Kind {
    /// As it stands in JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// Error, could not tell, warning or note.
    pub severity: Severity,
    /// Kind of finding.
    pub kind: Kind,
    /// The object, or the name that none has.
    pub object: String,
    /// Where in WAL, if that is known.
    #[serde(
        with = "text::maybe_lsn",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub lsn: Option<Lsn>,
    /// One line in the server's style.
    pub message: String,
    /// Advice, if there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    pub(crate) fn new(
        severity: Severity,
        kind: Kind,
        object: impl Into<String>,
        message: impl Into<String>,
    ) -> Finding {
        Finding {
            severity,
            kind,
            object: object.into(),
            lsn: None,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn error(
        kind: Kind,
        object: impl Into<String>,
        message: impl Into<String>,
    ) -> Finding {
        Finding::new(Severity::Error, kind, object, message)
    }

    pub(crate) fn at(mut self, lsn: Lsn) -> Finding {
        self.lsn = Some(lsn);
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Finding {
        self.hint = Some(hint.into());
        self
    }

    /// An object that could not be read, for this reason.
    pub(crate) fn not_read(object: impl Into<String>, why: &Error) -> Finding {
        let mut finding = Finding::new(
            Severity::CouldNotTell,
            Kind::NotRead,
            object,
            why.to_string(),
        );
        finding.hint = why.hint().map(str::to_owned);
        finding
    }
}

/// Findings, in the order of their objects once [`Findings::sort`] was called.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    listed: Vec<Finding>,
    counts: BTreeMap<(Severity, Kind), u64>,
}

impl Findings {
    pub(crate) fn add(&mut self, finding: Finding) {
        let count = self
            .counts
            .entry((finding.severity, finding.kind))
            .or_default();
        *count += 1;
        if *count <= LISTED_MAX {
            self.listed.push(finding);
        }
    }

    /// Takes up what another list has, in number and as far as it was kept.
    pub(crate) fn merge(&mut self, other: Findings) {
        for finding in other.listed {
            let have = self.counts.get(&(finding.severity, finding.kind));
            if have.is_none_or(|have| *have < LISTED_MAX) {
                self.listed.push(finding);
            }
        }
        for (of, count) in other.counts {
            *self.counts.entry(of).or_default() += count;
        }
    }

    /// Takes up what another list has and this one has not.
    pub(crate) fn merge_new(&mut self, other: Findings) {
        let (known, new) = other.divide(|finding| self.listed.contains(finding));
        drop(known);
        self.merge(new);
    }

    /// Those that were kept and are such, and all others.
    pub(crate) fn divide(mut self, is_such: impl Fn(&Finding) -> bool) -> (Vec<Finding>, Findings) {
        let (such, listed): (Vec<_>, Vec<_>) = self.listed.into_iter().partition(is_such);
        for finding in &such {
            if let Some(count) = self.counts.get_mut(&(finding.severity, finding.kind)) {
                *count = count.saturating_sub(1);
            }
        }
        self.counts.retain(|_, count| *count > 0);
        let counts = self.counts;
        (such, Findings { listed, counts })
    }

    pub(crate) fn sort(&mut self) {
        self.listed
            .sort_by(|a, b| (&a.object, a.lsn, a).cmp(&(&b.object, b.lsn, b)));
        self.listed.dedup();
    }

    /// The findings that were kept, at most [`LISTED_MAX`] of a kind.
    pub fn listed(&self) -> &[Finding] {
        &self.listed
    }

    /// How many there are of each kind, kept or not.
    pub fn counts(&self) -> &BTreeMap<(Severity, Kind), u64> {
        &self.counts
    }

    /// How many there are of this severity.
    pub fn count(&self, severity: Severity) -> u64 {
        self.counts
            .iter()
            .filter(|((of, _), _)| *of == severity)
            .map(|(_, count)| count)
            .sum()
    }

    /// How bad the worst is; `None` if there is none.
    pub fn worst(&self) -> Option<Severity> {
        self.counts.keys().map(|(severity, _)| *severity).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_survives_being_written_down() {
        let finding = Finding::error(Kind::DoesNotFollow, "x", "y")
            .at(Lsn(0x16_0000_0028))
            .hint("z");
        let text = serde_json::to_string(&finding).unwrap();
        assert!(
            text.contains(r#""does-not-follow""#) && text.contains("16/28"),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Finding>(&text).unwrap(), finding);
        let plain = Finding::new(Severity::CouldNotTell, Kind::NotRead, "x", "y");
        let text = serde_json::to_string(&plain).unwrap();
        assert_eq!(serde_json::from_str::<Finding>(&text).unwrap(), plain);
        assert_eq!(Kind::OtherSystem.to_string(), "other-system");
    }

    #[test]
    fn memory_does_not_grow_with_what_is_wrong_and_nothing_goes_uncounted() {
        let mut findings = Findings::default();
        for number in 0..LISTED_MAX + 500 {
            findings.add(Finding::error(Kind::Damaged, number.to_string(), "x"));
        }
        findings.add(Finding::new(Severity::Note, Kind::Foreign, "x", "y"));
        assert_eq!(findings.listed().len() as u64, LISTED_MAX + 1);
        assert_eq!(findings.count(Severity::Error), LISTED_MAX + 500);
        assert_eq!(findings.worst(), Some(Severity::Error));
    }
}
