//! The texts of a backup: `running.json`, `backup.json`, `confirmed.json`.
//!
//! Guarantees that what is read is checked: it is of this backup and of a known format, nothing in it is longer than it can
//! be, and names that are to be keys are keys. Fields that are not known are skipped, so that later versions may add some;
//! a change that a reader must know of gets a new number of the format.

use serde::{Deserialize, Serialize};
use wal::{
    Lsn, SegmentName, SegmentNumber, SegmentSize, SystemIdentifier, TimelineHistory, TimelineId,
};

use archive::{Error, ErrorKind};

use crate::id::Id;
use crate::layout::{MANIFEST, TarName};
use crate::text;

/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;

/// The longest label, in bytes: the server's bound (`MAXPGPATH`).
pub const LABEL_BYTES_MAX: usize = 1024;

/// The longest path of a tablespace, in bytes: the server's bound.
const LOCATION_BYTES_MAX: usize = 1024;

/// The longest `running.json` that is believed, in bytes.
pub(crate) const RUNNING_BYTES_MAX: u64 = 16 * 1024;

/// The longest `backup.json` that is believed, in bytes: a hundred thousand parts take a third of it.
pub(crate) const COMMITTED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The longest list that is believed in a document.
const LIST_MAX: usize = 200_000;

/// How many files with corrupt pages are named.
pub(crate) const CORRUPT_NAMED_MAX: usize = 20;

/// What is known of a backup while it runs: `running.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    format: u32,
    /// Which backup this is.
    #[serde(with = "text::plain")]
    pub id: Id,
    /// Whose.
    #[serde(rename = "system_identifier", with = "text::plain")]
    pub system: SystemIdentifier,
    /// The server's major version.
    pub major: u32,
    /// The LSN at which its replay begins: WAL from there on is needed.
    #[serde(with = "text::plain")]
    pub start_lsn: Lsn,
    /// The timeline that it began on.
    #[serde(with = "text::timeline")]
    pub timeline: TimelineId,
    /// Its label, as the target was given it; empty without.
    pub label: String,
    /// When it began, by the server's clock, RFC 3339.
    pub started: String,
}

/// A whole backup: `backup.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    format: u32,
    /// Which backup this is.
    #[serde(with = "text::plain")]
    pub id: Id,
    /// Whose.
    #[serde(rename = "system_identifier", with = "text::plain")]
    pub system: SystemIdentifier,
    /// The server's major version.
    pub major: u32,
    /// How long a segment is, in bytes.
    pub segment_bytes: u64,
    /// Whether it is complete in itself.
    pub kind: Kind,
    /// What an incremental backup is based on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Its label, as the target was given it, else as `backup_label` has it.
    pub label: String,
    /// The LSN at which its replay begins.
    #[serde(with = "text::plain")]
    pub start_lsn: Lsn,
    /// The timeline that it began on.
    #[serde(with = "text::timeline")]
    pub timeline: TimelineId,
    /// The LSN from which on it is consistent.
    #[serde(with = "text::plain")]
    pub stop_lsn: Lsn,
    /// The timeline that it ended on.
    #[serde(with = "text::timeline")]
    pub stop_timeline: TimelineId,
    /// The ancestors of the timeline that it ended on, oldest first.
    pub lineage: Vec<Lineage>,
    /// When it began, by the server's clock, RFC 3339.
    pub started: String,
    /// When it ended, by the server's clock, RFC 3339.
    pub stopped: String,
    /// Its tablespaces but for those in the data directory.
    pub tablespaces: Vec<Tablespace>,
    /// What is known of its pages.
    pub pages: PageReport,
    /// Its parts, in the order in which they were written.
    pub parts: Vec<Part>,
    /// The server's manifest; `None` if there was to be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Part>,
}

/// Whether a backup is complete in itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It is.
    Full,
    /// It holds what has changed since another one began.
    Incremental,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Full => "full",
            Kind::Incremental => "incremental",
        }
    }
}

/// What an incremental backup is based on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The LSN at which that one began (INCREMENTAL FROM LSN of `backup_label`).
    #[serde(with = "text::plain")]
    pub start_lsn: Lsn,
    /// The timeline that it began on.
    #[serde(with = "text::timeline")]
    pub timeline: TimelineId,
    /// The one backup of this archive that began there; `None` if there is no such one, or several.
    #[serde(default, with = "text::maybe")]
    pub id: Option<Id>,
}

/// An ancestor of a timeline, and where that left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The ancestor.
    #[serde(with = "text::timeline")]
    pub timeline: TimelineId,
    /// Where it was left.
    #[serde(with = "text::plain")]
    pub until_lsn: Lsn,
}

/// A tablespace outside of the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its number.
    pub oid: u32,
    /// Where it was.
    pub location: String,
}

/// What is known of a backup's pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageReport {
    /// All in all.
    pub state: PageState,
    /// How long a page is, in bytes; 0 where they were not checked.
    #[serde(default)]
    pub page_bytes: u32,
    /// How many pages a file of a relation has at most; 0 where they were not checked.
    #[serde(default)]
    pub segment_pages: u32,
    /// How many were checked.
    #[serde(default)]
    pub checked: u64,
    /// How many of them are corrupt.
    #[serde(default)]
    pub corrupt: u64,
    /// The files that the first of those are in.
    #[serde(default)]
    pub files: Vec<String>,
}

/// What is known of all pages together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageState {
    /// None of those that can be checked is corrupt.
    Ok,
    /// Some are.
    Corrupt,
    /// The cluster has no checksums, or they were not to be checked.
    Unchecked,
}

/// One object of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name in the backup's folder.
    pub name: String,
    /// How many bytes its contents are.
    pub bytes: u64,
    /// How many bytes are stored.
    pub stored_bytes: u64,
    /// SHA-256 of the bytes that are stored.
    #[serde(rename = "stored_sha256", with = "text::digest")]
    pub stored_digest: [u8; 32],
}

/// That a backup was told a success: `confirmed.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Confirmed {
    format: u32,
    #[serde(with = "text::plain")]
    id: Id,
}

impl Confirmed {
    pub(crate) fn of(id: &Id) -> Confirmed {
        Confirmed {
            format: FORMAT,
            id: id.clone(),
        }
    }
}

impl Running {
    pub(crate) fn new(
        id: Id,
        system: SystemIdentifier,
        major: u32,
        (start_lsn, timeline): (Lsn, TimelineId),
        label: String,
        started: String,
    ) -> Running {
        Running {
            format: FORMAT,
            id,
            system,
            major,
            start_lsn,
            timeline,
            label,
            started,
        }
    }

    /// What the bytes of an object of this backup say. Fails with [`ErrorKind::Damaged`], and with [`ErrorKind::Unusable`] for
    /// what a later version has written.
    pub(crate) fn parse(bytes: &[u8], id: &Id, shown: &str) -> Result<Running, Error> {
        let running: Running = parse(bytes, shown)?;
        let label = (running.label.len() > LABEL_BYTES_MAX).then_some("its label is too long");
        must_be_of(&running.id, id, shown)?;
        match label.or((!is_time(&running.started)).then_some("its time is none")) {
            Some(why) => Err(invalid(shown, why)),
            None => Ok(running),
        }
    }
}

/// What is written down of a backup beside what `running.json` has.
pub(crate) struct Rest {
    pub(crate) segment_size: SegmentSize,
    pub(crate) parent: Option<Parent>,
    pub(crate) label: String,
    pub(crate) stop_lsn: Lsn,
    pub(crate) stop_timeline: TimelineId,
    pub(crate) lineage: Vec<Lineage>,
    pub(crate) stopped: String,
    pub(crate) tablespaces: Vec<Tablespace>,
    pub(crate) pages: PageReport,
    pub(crate) parts: Vec<Part>,
    pub(crate) manifest: Option<Part>,
}

impl Committed {
    pub(crate) fn new(running: Running, rest: Rest) -> Committed {
        Committed {
            format: FORMAT,
            id: running.id,
            system: running.system,
            major: running.major,
            segment_bytes: rest.segment_size.bytes(),
            kind: if rest.parent.is_some() {
                Kind::Incremental
            } else {
                Kind::Full
            },
            parent: rest.parent,
            label: rest.label,
            start_lsn: running.start_lsn,
            timeline: running.timeline,
            stop_lsn: rest.stop_lsn,
            stop_timeline: rest.stop_timeline,
            lineage: rest.lineage,
            started: running.started,
            stopped: rest.stopped,
            tablespaces: rest.tablespaces,
            pages: rest.pages,
            parts: rest.parts,
            manifest: rest.manifest,
        }
    }

    /// What the bytes of an object of this backup say. Fails with [`ErrorKind::Damaged`], and with [`ErrorKind::Unusable`] for
    /// what a later version has written.
    pub(crate) fn parse(bytes: &[u8], id: &Id, shown: &str) -> Result<Committed, Error> {
        let committed: Committed = parse(bytes, shown)?;
        must_be_of(&committed.id, id, shown)?;
        match committed.fault() {
            Some(why) => Err(invalid(shown, why)),
            None => Ok(committed),
        }
    }

    /// What cannot be so, if anything.
    fn fault(&self) -> Option<&'static str> {
        let lists = [
            self.parts.len(),
            self.tablespaces.len(),
            self.lineage.len(),
            self.pages.files.len(),
        ];
        let is_long = |tablespace: &Tablespace| tablespace.location.len() > LOCATION_BYTES_MAX;
        let faults = [
            (
                lists.iter().any(|list| *list > LIST_MAX),
                "a list in it is too long",
            ),
            (self.label.len() > LABEL_BYTES_MAX, "its label is too long"),
            (
                self.tablespaces.iter().any(is_long),
                "the location of a tablespace is too long",
            ),
            (
                !is_time(&self.started) || !is_time(&self.stopped),
                "its times are none",
            ),
            (self.segment_size().is_none(), "its segment size is none"),
            (self.stop_lsn < self.start_lsn, "it ends before it begins"),
            (
                (self.kind == Kind::Incremental) != self.parent.is_some(),
                "only an incremental backup has a parent",
            ),
            (
                self.history().is_none(),
                "its timelines do not follow one another",
            ),
            (self.parts.is_empty(), "it has no parts"),
            (!self.are_parts_in_order(), "its parts are not in order"),
            (
                self.manifest.as_ref().is_some_and(|it| it.name != MANIFEST),
                "its manifest has another name",
            ),
        ];
        faults
            .into_iter()
            .find_map(|(is_so, why)| is_so.then_some(why))
    }

    /// Whether the parts are those of tar files, each numbered from 1, and of none twice.
    fn are_parts_in_order(&self) -> bool {
        let mut seen = std::collections::BTreeSet::new();
        let mut before: Option<(TarName, u32)> = None;
        for part in &self.parts {
            let Some((tar, number)) = TarName::of_part(&part.name) else {
                return false;
            };
            let follows = match before {
                Some((last, count)) if last == tar => number == count.saturating_add(1),
                _ => number == 1 && seen.insert(tar),
            };
            if !follows {
                return false;
            }
            before = Some((tar, number));
        }
        true
    }

    /// How long a segment of its WAL is.
    #[must_use]
    pub fn segment_size(&self) -> Option<SegmentSize> {
        SegmentSize::new(self.segment_bytes).ok()
    }

    /// The history of the timeline that it ended on.
    fn history(&self) -> Option<TimelineHistory> {
        let lines = self.lineage.iter();
        let lines = lines.map(|it| format!("{}\t{}\tx\n", it.timeline.get(), it.until_lsn));
        let text: String = lines.collect();
        TimelineHistory::parse(self.stop_timeline, text.as_bytes()).ok()
    }

    /// The first segment that its recovery needs up to where it is consistent, and of which `is_stored` says no; `None` if all
    /// are there. Asks for no more of them than the first that is not.
    #[must_use]
    pub fn first_missing(&self, is_stored: &dyn Fn(&SegmentName) -> bool) -> Option<SegmentName> {
        let (size, history) = (self.segment_size()?, self.history()?);
        // The record that makes it consistent ends at the stop LSN, so it may end with a segment.
        let last = Lsn(self.stop_lsn.0.saturating_sub(1)).max(self.start_lsn);
        let numbers = self.start_lsn.segment(size).0..=last.segment(size).0;
        let names = numbers.map(|number| {
            let number = SegmentNumber(number);
            SegmentName::new(history.first_asked_for(number, size), number, size)
        });
        let mut missing = names.filter(|name| !is_stored(name));
        missing.next()
    }

    /// How many bytes are stored of it, its manifest included.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let all = self.parts.iter().chain(&self.manifest);
        all.fold(0, |sum, part| sum.saturating_add(part.stored_bytes))
    }

    /// How many bytes of tar its parts are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let all = self.parts.iter();
        all.fold(0, |sum, part| sum.saturating_add(part.bytes))
    }
}

/// What every document says, whatever its format.
#[derive(Deserialize)]
struct Formatted {
    format: u32,
}

/// Fails with [`ErrorKind::Unusable`] for what a later version has written, [`ErrorKind::Damaged`] for what is no document.
fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8], shown: &str) -> Result<T, Error> {
    let damaged = |cause: serde_json::Error| invalid(shown, &cause.to_string());
    let Formatted { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format > FORMAT {
        let why =
            format!("it is of format {format}, and this version of Walden knows format {FORMAT}");
        let what = format!("archive file \"{shown}\" cannot be understood: {why}");
        let error = Error::new(ErrorKind::Unusable, what);
        return Err(
            error.with_hint("Use the version of Walden that has written it, or a later one.")
        );
    }
    if format < FORMAT {
        return Err(invalid(shown, &format!("there is no format {format}")));
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

fn must_be_of(said: &Id, id: &Id, shown: &str) -> Result<(), Error> {
    if said != id {
        return Err(invalid(shown, &format!("it is of backup {said}")));
    }
    Ok(())
}

fn invalid(shown: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::Damaged,
        format!("archive file \"{shown}\" is invalid: {why}"),
    )
}

/// `2026-11-29T17:15:00Z`, by its form.
fn is_time(text: &str) -> bool {
    const FORM: &str = "dddd-dd-ddTdd:dd:ddZ";
    let fits = |(form, byte): (u8, u8)| match form {
        b'd' => byte.is_ascii_digit(),
        form => form == byte,
    };
    text.len() == FORM.len() && FORM.bytes().zip(text.bytes()).all(fits)
}

/// A document as it is stored. Cannot fail for documents of ours.
pub(crate) fn bytes_of<T: Serialize>(document: &T) -> Result<Vec<u8>, Error> {
    let mut bytes = serde_json::to_vec_pretty(document).map_err(|cause| {
        Error::new(
            ErrorKind::Unavailable,
            format!("could not write a document: {cause}"),
        )
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests;
