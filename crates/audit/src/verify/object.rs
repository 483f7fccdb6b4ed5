//! One segment: read to its end, record by record.
//!
//! Guarantees that a segment it has a summary of decodes, has the right length, system and name, and that all of its records
//! are right; anything else is a finding. How it fits its neighbours is left to `piece` and `joints`.

use std::ops::ControlFlow;
use std::time::Duration;

use archive::{Archive, Backoff, Cancel, Error, ErrorKind, Reading};
use wal::{
    HeaderErrorKind, LongPageHeader, ReadError, Record, SegmentName, SegmentReader, SegmentSize,
    SegmentSummary,
};

use super::measure::Measure;
use super::small::{BRING_IT_BACK, removed, unreadable};
use crate::finding::{Finding, Kind, Severity};
use crate::lineage::Lineage;

/// How often an object is tried that the store does not deliver.
const TRIES_MAX: u32 = 3;

/// The longest pause between tries: somebody waits.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What is known before anything is read.
pub(crate) struct Known<'a> {
    pub(crate) archive: &'a Archive,
    pub(crate) measure: Measure,
    pub(crate) lineage: &'a Lineage,
    pub(crate) cancel: &'a Cancel,
}

/// Reads segments, one after the other.
pub(crate) struct Eyes<'a> {
    known: &'a Known<'a>,
    reading: Reading<'a>,
    /// Whether the last object was out of the store's reach: then the next one is not waited for.
    is_out_of_reach: bool,
}

/// What became of reading an object.
#[derive(Default)]
pub(crate) struct Seen {
    /// What is known of it, if all of it is right.
    pub(crate) summary: Option<SegmentSummary>,
    /// What was found.
    pub(crate) findings: Vec<Finding>,
    /// How many bytes of WAL were read.
    pub(crate) bytes: u64,
    /// Whether the store could not deliver it.
    pub(crate) is_unavailable: bool,
}

/// A segment while it is read.
struct Walk<'a, 'v> {
    known: &'a Known<'a>,
    name: SegmentName,
    key: &'a str,
    reader: Option<SegmentReader>,
    header: Option<LongPageHeader>,
    bytes: u64,
    finding: Option<Finding>,
    visit: Option<&'v mut dyn FnMut(&Record<'_>)>,
}

impl<'a> Eyes<'a> {
    pub(crate) fn new(known: &'a Known<'a>) -> Eyes<'a> {
        Eyes {
            known,
            reading: known.archive.reading(),
            is_out_of_reach: false,
        }
    }

    /// Reads a segment, or partial segment, under this key. `visit` is shown its records.
    pub(crate) fn segment(
        &mut self,
        name: SegmentName,
        key: &str,
        mut visit: Option<&mut dyn FnMut(&Record<'_>)>,
    ) -> Seen {
        let mut backoff = Backoff::at_most(PAUSE_MAX);
        loop {
            let mut walk = Walk {
                known: self.known,
                name,
                key,
                reader: None,
                header: None,
                bytes: 0,
                finding: None,
                visit: visit.as_mut().map(|visit| &mut **visit as _),
            };
            let read = self
                .reading
                .read(key, self.known.cancel, &mut |piece| walk.piece(piece));
            let failed = read.as_ref().is_err_and(is_unavailable);
            let again = failed && !self.is_out_of_reach && backoff.tries() + 1 < TRIES_MAX;
            if !again || self.known.cancel.wait(backoff.pause()) {
                self.is_out_of_reach = failed;
                return walk.end(read);
            }
        }
    }
}

/// Whether the store is at fault, and not the object.
fn is_unavailable(why: &Error) -> bool {
    why.kind() == ErrorKind::Unavailable && !why.is_no_file()
}

impl Walk<'_, '_> {
    fn piece(&mut self, piece: &[u8]) -> ControlFlow<()> {
        let is_first = self.bytes == 0;
        self.bytes += piece.len() as u64;
        if is_first {
            self.header(piece);
        }
        if self.finding.is_none() && self.bytes > self.known.measure.size.bytes() {
            self.length();
        }
        if self.finding.is_none() {
            self.records(piece);
        }
        // Also what is wrong is decoded to its end: whether the object is as it was stored makes the difference.
        match self.bytes > SegmentSize::LARGEST.bytes() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn header(&mut self, piece: &[u8]) {
        let header = match LongPageHeader::parse(piece) {
            Ok(header) => header,
            Err(why) => {
                let finding = self.wrong(Kind::Damaged, &why.to_string());
                return self.found(finding.hint(BRING_IT_BACK));
            }
        };
        self.header = Some(header);
        let Measure { system, size } = self.known.measure;
        if let Some(system) = system.filter(|system| *system != header.system) {
            let why = format!(
                "it is from system identifier {}, not from {system}",
                header.system
            );
            let finding = self.wrong(Kind::OtherSystem, &why);
            return self.found(
                finding.hint("Move it away: every database cluster needs an archive of its own."),
            );
        }
        if header.segment_size != size {
            let why = format!(
                "it is a segment of {}, and the others are of {size}",
                header.segment_size
            );
            let finding = self.wrong(Kind::OtherSize, &why);
            return self.found(finding.hint(
                "WAL from before pg_resetwal --wal-segsize belongs into an archive of its own.",
            ));
        }
        if let Err(why) = header.check_name(&self.name) {
            let kind = match why.kind() {
                HeaderErrorKind::Misnamed => Kind::Misnamed,
                _ => Kind::Damaged,
            };
            let finding = self.wrong(kind, &why.to_string()).at(header.address);
            return self
                .found(finding.hint(
                    "Move it away, and bring the right one back from a copy of the archive.",
                ));
        }
        let expected = self.timeline_at(&header);
        if expected.is_some_and(|expected| expected != header.timeline) {
            let why = format!(
                "its first page is of timeline {}, where its timeline history file leads over timeline {}",
                header.timeline,
                expected.unwrap_or(self.name.timeline())
            );
            let finding = self.wrong(Kind::OtherTimeline, &why).at(header.address);
            return self.found(
                finding.hint("Either it has a wrong name, or the timeline history file is wrong."),
            );
        }
        if header.magic.major().is_some() {
            self.reader = Some(SegmentReader::new(self.name));
        }
    }

    /// On which timeline the segment's first page has to be, if that is known.
    fn timeline_at(&self, header: &LongPageHeader) -> Option<wal::TimelineId> {
        let timeline = self.name.timeline();
        match self.known.lineage.history(timeline) {
            Some(history) => Some(history.timeline_at(header.address)),
            None if timeline == wal::TimelineId::FIRST => Some(timeline),
            None => None,
        }
    }

    fn records(&mut self, piece: &[u8]) {
        let Some(reader) = &mut self.reader else {
            return;
        };
        let fed = match &mut self.visit {
            Some(visit) => reader.feed(piece, visit),
            None => reader.feed(piece, |_| ()),
        };
        if let Err(why) = fed {
            self.read_error(&why);
        }
    }

    fn read_error(&mut self, why: &ReadError) {
        let finding = self.wrong(Kind::Damaged, &why.to_string());
        let finding = match why {
            ReadError::Damage(damage) => finding.at(damage.lsn),
            ReadError::Header(_) | ReadError::Length { .. } => finding,
        };
        self.found(finding.hint(BRING_IT_BACK));
    }

    fn length(&mut self) {
        let expected = self.known.measure.size.bytes();
        let why = match self.bytes > expected {
            true => format!("it is longer than {expected} bytes"),
            false => format!("it has {} bytes instead of {expected}", self.bytes),
        };
        let finding = self.wrong(Kind::Damaged, &why);
        self.found(finding.hint(format!(
            "A copy into the archive may have been interrupted, or may still be running. {BRING_IT_BACK}"
        )));
    }

    fn wrong(&self, kind: Kind, why: &str) -> Finding {
        let message = format!("archive file \"{}\" is not valid: {why}", self.key);
        Finding::error(kind, self.key, message)
    }

    fn found(&mut self, finding: Finding) {
        self.finding.get_or_insert(finding);
    }

    fn end(mut self, read: Result<Option<u64>, Error>) -> Seen {
        let mut seen = Seen::default();
        match read {
            Ok(None) => self.found(removed(self.key)),
            Err(why) => {
                seen.is_unavailable = is_unavailable(&why);
                if why.kind() == ErrorKind::Damaged {
                    self.finding = None;
                }
                if why.kind() != ErrorKind::Cancelled {
                    let finding = unreadable(self.key, &why);
                    self.found(finding);
                }
            }
            Ok(Some(_)) if self.finding.is_none() => self.whole(&mut seen),
            Ok(Some(_)) => {}
        }
        seen.bytes = self.bytes;
        seen.findings.extend(self.finding);
        seen
    }

    /// All of it was read, and nothing was wrong so far.
    fn whole(&mut self, seen: &mut Seen) {
        if self.bytes != self.known.measure.size.bytes() {
            return self.length();
        }
        match (self.reader.take(), self.header) {
            (Some(reader), _) => match reader.finish() {
                Ok(summary) => seen.summary = Some(summary),
                Err(why) => self.read_error(&why),
            },
            (None, Some(header)) => {
                let message = format!(
                    "archive file \"{}\" was written by a version of PostgreSQL that this version of Walden does not know, \
                     its pages have magic number {}",
                    self.key, header.magic
                );
                let kind = Kind::UnknownVersion;
                let finding = Finding::new(Severity::CouldNotTell, kind, self.key, message);
                self.found(finding.hint("A later version of Walden may know it."));
            }
            (None, None) => {}
        }
    }
}
