//! What an audit has read so far, in a file, so that one that was interrupted goes on where it was.
//!
//! Guarantees that a line is written only once everything it speaks of has been looked at, and that a line which was cut off
//! by a crash costs no more than reading its segments again. The file is a line of JSON for each piece: it is appended to and
//! never changed, and may be thrown away.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use archive::{Error, ErrorKind, append_regular};
use serde::{Deserialize, Serialize};
use wal::{SegmentName, TimelineId};

use super::joints::Key;
use super::measure::Measure;
use crate::finding::{Finding, Findings, Severity};
use crate::positions::Run;

/// The only format there is so far.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    /// Which archive all of it is about. The first line.
    Archive {
        format: u32,
        place: String,
        system_identifier: Option<String>,
        segment_bytes: u64,
    },
    /// Segments that have been read.
    Segments {
        timeline: u32,
        first: u64,
        last: u64,
        bytes: u64,
        findings: Vec<Finding>,
    },
    /// A partial segment that has been read.
    Partial {
        name: String,
        bytes: u64,
        findings: Vec<Finding>,
    },
    /// A segment that has been compared with the one before it, where different pieces meet.
    Joined {
        timeline: u32,
        number: u64,
        partial: bool,
        finding: Option<Finding>,
    },
}

impl Line {
    /// Whether it tells of something that was wrong.
    fn is_trouble(&self) -> bool {
        let is_bad = |finding: &Finding| finding.severity > Severity::Note;
        match self {
            Line::Archive { .. } => false,
            Line::Segments { findings, .. } | Line::Partial { findings, .. } => {
                findings.iter().any(is_bad)
            }
            Line::Joined { finding, .. } => finding.as_ref().is_some_and(is_bad),
        }
    }
}

/// What earlier audits have read, and found in order.
#[derive(Debug, Default)]
pub(crate) struct Past {
    done: BTreeMap<TimelineId, Vec<Run>>,
    partials: BTreeSet<SegmentName>,
    joined: BTreeSet<Key>,
    pub(crate) findings: Findings,
    pub(crate) segments: u64,
}

impl Past {
    pub(crate) fn of(&self, timeline: TimelineId) -> &[Run] {
        self.done
            .get(&timeline)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    pub(crate) fn has_partial(&self, name: &SegmentName) -> bool {
        self.partials.contains(name)
    }

    pub(crate) fn has_joined(&self, key: &Key) -> bool {
        self.joined.contains(key)
    }

    fn found(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            self.findings.add(finding);
        }
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Archive { .. } => {}
            // What was wrong is looked at again: by now it may have been brought back.
            line if line.is_trouble() => {}
            Line::Segments {
                timeline,
                first,
                last,
                findings,
                ..
            } => {
                if let Some(timeline) = TimelineId::new(timeline).filter(|_| first <= last) {
                    self.done.entry(timeline).or_default().push(first..=last);
                    let count = (last - first).saturating_add(1);
                    self.segments = self.segments.saturating_add(count);
                    self.found(findings);
                }
            }
            Line::Partial { name, findings, .. } => {
                if let Ok(name) = name.parse() {
                    self.partials.insert(name);
                    self.segments = self.segments.saturating_add(1);
                    self.found(findings);
                }
            }
            Line::Joined {
                timeline,
                number,
                partial,
                finding,
            } => {
                if let Some(timeline) = TimelineId::new(timeline) {
                    self.joined.insert((timeline, number, partial));
                    self.found(finding);
                }
            }
        }
    }
}

/// The file, open to be written to.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the file, which need not exist yet, and reads what it says.
    ///
    /// Fails if it cannot be read or written, or is another archive's.
    pub(crate) fn open(
        path: &Path,
        place: &str,
        measure: Measure,
    ) -> Result<(Journal, Past), Error> {
        let could_not = |what: &str, cause| {
            Error::io(
                format!("could not {what} file \"{}\"", path.display()),
                cause,
            )
        };
        // What a pipe is given nobody could read again.
        let mut file = append_regular(path).map_err(|cause| could_not("open", cause))?;
        let mut text = String::new();
        file.read_to_string(&mut text)
            .map_err(|cause| could_not("read", cause))?;
        let head = Line::Archive {
            format: FORMAT,
            place: place.to_owned(),
            system_identifier: measure.system.map(|system| system.to_string()),
            segment_bytes: measure.size.bytes(),
        };
        let first_line = serde_json::to_string(&head).unwrap_or_default();
        let mut past = Past::default();
        let mut journal = Journal {
            path: path.to_owned(),
            file,
        };
        match text.lines().next() {
            None => journal.write(&head)?,
            Some(first) if first == first_line => {}
            // The disk was full, say, when it was begun.
            Some(_) if let Some(rest) = first_line.strip_prefix(&text) => {
                journal.put(rest)?;
            }
            Some(_) => {
                let message = format!(
                    "file \"{}\" is not the state of an audit of archive \"{place}\"",
                    path.display()
                );
                return Err(Error::new(ErrorKind::Unusable, message).with_hint(
                    "Give each archive a file of its own, or remove it to begin anew.",
                ));
            }
        }
        for line in text.lines().skip(1) {
            // A line that was cut off is no line.
            if let Ok(line) = serde_json::from_str(line) {
                past.take(line);
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            journal.put("\n")?;
        }
        for runs in past.done.values_mut() {
            runs.sort_by_key(|run| *run.start());
        }
        Ok((journal, past))
    }

    pub(crate) fn segments(
        &mut self,
        timeline: TimelineId,
        segments: Run,
        bytes: u64,
        findings: &[Finding],
    ) -> Result<(), Error> {
        self.write(&Line::Segments {
            timeline: timeline.get(),
            first: *segments.start(),
            last: *segments.end(),
            bytes,
            findings: findings.to_vec(),
        })
    }

    pub(crate) fn partial(
        &mut self,
        name: &SegmentName,
        bytes: u64,
        findings: &[Finding],
    ) -> Result<(), Error> {
        self.write(&Line::Partial {
            name: name.to_string(),
            bytes,
            findings: findings.to_vec(),
        })
    }

    pub(crate) fn joined(&mut self, key: Key, finding: Option<&Finding>) -> Result<(), Error> {
        let (timeline, number, partial) = key;
        self.write(&Line::Joined {
            timeline: timeline.get(),
            number,
            partial,
            finding: finding.cloned(),
        })
    }

    fn write(&mut self, line: &Line) -> Result<(), Error> {
        let text = serde_json::to_string(line).map_err(|cause| {
            Error::new(
                ErrorKind::Unusable,
                format!("could not write JSON: {cause}"),
            )
        })?;
        self.put(&(text + "\n"))
    }

    fn put(&mut self, text: &str) -> Result<(), Error> {
        self.file.write_all(text.as_bytes()).map_err(|cause| {
            Error::io(
                format!("could not write file \"{}\"", self.path.display()),
                cause,
            )
        })
    }
}
