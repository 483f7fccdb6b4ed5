//! One segment: read to its end, record by record.
//!
//! Guarantees that a segment it has a summary of decodes, has the right length and name, the system and size that were
//! expected, and that all of its records are right; anything else is a finding. What is in the records is noted where that is
//! wanted. How it fits its neighbors is left to `boundaries`.

use std::ops::ControlFlow;
use std::time::Duration;

use archive::{Archive, Backoff, Cancel, Error, ErrorKind, Reading};
use wal::{
    HeaderErrorKind, LongPageHeader, Lsn, ReadError, SegmentName, SegmentReader, SegmentSize,
    SegmentSummary, Timestamp, WalFileName,
};

use super::beginning::Beginning;
use super::small::{BRING_IT_BACK, removed, unreadable};
use crate::facts::SegmentFacts;
use crate::finding::{Finding, Kind, Severity};
use crate::lineage::Lineage;
use crate::measure::{Measure, is_of_object};

/// How often an object is tried that the store does not deliver.
const TRIES_MAX: u32 = 3;

/// The longest pause between tries: somebody waits.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What is known before anything is read.
pub(crate) struct Expected<'a> {
    pub(crate) archive: &'a Archive,
    /// Whose the segments are and how long; `None` if each may say so itself.
    pub(crate) measure: Option<Measure>,
    pub(crate) lineage: &'a Lineage,
    pub(crate) cancel: &'a Cancel,
}

/// Reads segments, one after the other.
pub(crate) struct Reader<'a> {
    expected: &'a Expected<'a>,
    reading: Reading<'a>,
    /// Whether facts are wanted.
    with_facts: bool,
    /// Whether the last object was out of the store's reach: then the next one is not waited for.
    is_out_of_reach: bool,
}

/// What became of reading an object.
#[derive(Default)]
pub(crate) struct Seen {
    /// What is known of it, if all of it is right.
    pub(crate) summary: Option<SegmentSummary>,
    /// Its facts, up to where it can be read.
    pub(crate) facts: Option<Box<SegmentFacts>>,
    /// The first and the last time that a record tells, likewise.
    pub(crate) times: Option<(Timestamp, Timestamp)>,
    /// Where the last record ends, likewise.
    pub(crate) until: Option<Lsn>,
    /// Findings about the segment.
    pub(crate) findings: Vec<Finding>,
    /// Why it is of no use, in a few words.
    pub(crate) why: Option<String>,
    /// Whether that is so only beside what was expected, or for the time being.
    pub(crate) is_for_now: bool,
    /// How many bytes of WAL were read.
    pub(crate) bytes: u64,
    /// Why it could not be had, where that is not its own fault.
    pub(crate) error: Option<Error>,
    /// Whether the store could not deliver it.
    pub(crate) is_unavailable: bool,
}

/// A segment while it is read.
struct Walk<'a> {
    expected: &'a Expected<'a>,
    name: SegmentName,
    is_partial: bool,
    key: &'a str,
    reader: Option<SegmentReader>,
    header: Option<LongPageHeader>,
    finding: Option<Finding>,
    with_facts: bool,
    seen: Seen,
    beginning: Option<Beginning>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(expected: &'a Expected<'a>, with_facts: bool) -> Reader<'a> {
        Reader {
            expected,
            reading: expected.archive.reading(),
            with_facts,
            is_out_of_reach: false,
        }
    }

    /// Reads a segment, or partial segment.
    pub(crate) fn segment(&mut self, name: SegmentName, file: &WalFileName) -> Seen {
        let key = &file.to_string();
        let mut backoff = Backoff::at_most(PAUSE_MAX);
        loop {
            let mut walk = Walk {
                expected: self.expected,
                name,
                is_partial: matches!(file, WalFileName::Partial(_)),
                key,
                reader: None,
                header: None,
                finding: None,
                with_facts: self.with_facts,
                seen: Seen::default(),
                beginning: None,
            };
            let cancel = self.expected.cancel;
            let read = self
                .reading
                .read(key, cancel, &mut |piece| walk.piece(piece));
            let failed = read.as_ref().is_err_and(is_unavailable);
            let again = failed && !self.is_out_of_reach && backoff.tries() + 1 < TRIES_MAX;
            if !again || cancel.wait(backoff.pause()) {
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

impl Walk<'_> {
    fn piece(&mut self, piece: &[u8]) -> ControlFlow<()> {
        let is_first = self.seen.bytes == 0;
        self.seen.bytes += piece.len() as u64;
        if is_first {
            self.header(piece);
        }
        if self.finding.is_none() && self.seen.bytes > self.length_expected() {
            self.length();
        }
        if self.finding.is_none() {
            self.records(piece);
        }
        // Also what is wrong is decoded to its end: whether the object is as it was stored makes the difference.
        if self.seen.bytes > SegmentSize::LARGEST.bytes() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
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
        let measure = self.expected.measure;
        let system = measure.and_then(|measure| measure.system);
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
        let size = measure.map(|measure| measure.size);
        if let Some(size) = size.filter(|size| header.segment_size != *size) {
            let why = format!(
                "it is a segment of {}, and the others are of {size}",
                header.segment_size
            );
            let finding = self.wrong(Kind::OtherSize, &why);
            return self
                .found(finding.hint(
                    "WAL from before pg_resetwal --wal-segsize needs an archive of its own.",
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
            let facts = self
                .with_facts
                .then(|| SegmentFacts::begin(self.name, &header));
            self.seen.facts = facts.map(Box::new);
        }
        let begins = self.expected.lineage.beginning(self.name.timeline());
        let number = self.name.number(header.segment_size);
        self.beginning = begins
            .filter(|(lsn, _)| !self.is_partial && Some(lsn.segment(header.segment_size)) == number)
            .map(|(lsn, _)| Beginning::new(self.name.timeline(), lsn));
    }

    /// On which timeline the segment's first page has to be, if that is known.
    fn timeline_at(&self, header: &LongPageHeader) -> Option<wal::TimelineId> {
        let timeline = self.name.timeline();
        match self.expected.lineage.history(timeline) {
            Some(history) => Some(history.timeline_at(header.address)),
            None if timeline == wal::TimelineId::FIRST => Some(timeline),
            None => None,
        }
    }

    fn records(&mut self, piece: &[u8]) {
        let Some(reader) = &mut self.reader else {
            return;
        };
        let (seen, beginning) = (&mut self.seen, &mut self.beginning);
        let fed = reader.feed(piece, |record| {
            if let Some(facts) = &mut seen.facts {
                seen.until = Some(record.end);
                if let Some(at) = facts.record(record) {
                    seen.times = Some((seen.times.map_or(at, |(first, _)| first), at));
                }
            }
            if let Some(beginning) = beginning {
                beginning.see(record);
            }
        });
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

    /// How many bytes it should have.
    fn length_expected(&self) -> u64 {
        let own = self.header.map(|header| header.segment_size);
        own.unwrap_or(SegmentSize::LARGEST).bytes()
    }

    fn length(&mut self) {
        let expected = self.length_expected();
        let bytes = self.seen.bytes;
        let why = if bytes > expected {
            format!("it is longer than {expected} bytes")
        } else {
            format!("it has {bytes} bytes instead of {expected}")
        };
        let finding = self.wrong(Kind::Damaged, &why);
        self.found(finding.hint(format!(
            "A copy into the archive may have been interrupted, or may still be running. {BRING_IT_BACK}"
        )));
    }

    fn wrong(&mut self, kind: Kind, why: &str) -> Finding {
        let is_relative = matches!(
            kind,
            Kind::OtherSystem | Kind::OtherSize | Kind::OtherTimeline
        );
        if self.seen.why.is_none() {
            self.seen.is_for_now = is_relative;
        }
        let message = format!("archive file \"{}\" is not valid: {why}", self.key);
        self.seen.why.get_or_insert_with(|| why.to_owned());
        Finding::error(kind, self.key, message)
    }

    fn found(&mut self, finding: Finding) {
        self.finding.get_or_insert(finding);
    }

    fn end(mut self, read: Result<Option<u64>, Error>) -> Seen {
        match read {
            Ok(None) => {
                self.seen.why = None;
                self.found(removed(self.key));
            }
            Err(why) => self.failed(why),
            Ok(Some(_)) if self.finding.is_none() => self.whole(),
            Ok(Some(_)) => {}
        }
        self.seen.findings.extend(self.finding);
        self.seen
    }

    fn failed(&mut self, error: Error) {
        self.seen.is_unavailable = is_unavailable(&error);
        self.seen.why = None;
        if error.kind() == ErrorKind::Damaged {
            self.finding = None;
        }
        if error.kind() != ErrorKind::Cancelled {
            let finding = unreadable(self.key, &error);
            self.found(finding);
        }
        if is_of_object(&error) {
            self.seen.is_for_now = error.is_no_file();
            self.seen.why = Some(error.to_string());
        } else {
            self.seen.error = Some(error);
        }
    }

    /// All of it was read, and nothing was wrong so far.
    fn whole(&mut self) {
        if self.seen.bytes != self.length_expected() {
            return self.length();
        }
        match (self.reader.take(), self.header) {
            (Some(reader), _) => match reader.finish() {
                Ok(summary) => {
                    self.seen.summary = Some(summary);
                    let beginning = self.beginning.as_ref();
                    self.finding = beginning.and_then(|beginning| beginning.finding(self.key));
                }
                Err(why) => self.read_error(&why),
            },
            (None, Some(header)) => {
                let why = format!(
                    "was written by a version of PostgreSQL that this version of Walden does not know, its pages have magic \
                     number {}",
                    header.magic
                );
                let message = format!("archive file \"{}\" {why}", self.key);
                self.seen.why = Some(format!("it {why}"));
                let kind = Kind::UnknownVersion;
                let finding = Finding::new(Severity::CouldNotTell, kind, self.key, message);
                self.found(finding.hint("A later version of Walden may know it."));
            }
            (None, None) => {}
        }
    }
}
