//! The records of one segment, read again where its facts are not enough.
//!
//! Guarantees the records in order, that one over the segment's end included, and that an archive which has changed since it
//! was read is an error. At most a few segments' records are kept.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use archive::{Cancel, Error, ErrorKind, Reading};
use wal::{Lsn, Meaning, SegmentName, SegmentReader};

use crate::facts::{Noted, Over, SegmentFacts, TransactionEnd, transaction_end};

/// A record as far as recovery targets depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// LSN at which the record begins.
    pub lsn: Lsn,
    /// Where the next one may begin.
    pub end: Lsn,
    /// Kind of record.
    pub kind: SeenKind,
}

/// What a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeenKind {
    /// The end of a transaction.
    Transaction(TransactionEnd),
    /// A restore point of this name; bytes that are not UTF-8 are replaced.
    RestorePoint(String),
    /// A record that decides nothing.
    Other,
}

/// Where records come from.
pub trait Records {
    /// The records that begin in a segment.
    ///
    /// # Errors
    /// When the segment cannot be read any more.
    fn of(&mut self, segment: &SegmentFacts) -> Result<Vec<Seen>, Error>;
}

/// Records read from an archive.
pub struct FromArchive<'a> {
    reading: Reading<'a>,
    cancel: &'a Cancel,
}

impl<'a> FromArchive<'a> {
    /// Reads with `reading` until cancelled.
    #[must_use]
    pub fn new(reading: Reading<'a>, cancel: &'a Cancel) -> FromArchive<'a> {
        FromArchive { reading, cancel }
    }
}

impl Records for FromArchive<'_> {
    fn of(&mut self, segment: &SegmentFacts) -> Result<Vec<Seen>, Error> {
        let mut seen = Vec::new();
        let mut reader = SegmentReader::new(segment.name);
        let key = segment.name.to_string();
        let read = self.reading.read(&key, self.cancel, &mut |piece| {
            let fed = reader.feed(piece, |record| {
                let kind = match record.meaning() {
                    Meaning::RestorePoint { name, .. } => {
                        SeenKind::RestorePoint(String::from_utf8_lossy(name).into_owned())
                    }
                    _ => transaction_end(record).map_or(SeenKind::Other, SeenKind::Transaction),
                };
                seen.push(Seen {
                    lsn: record.lsn,
                    end: record.end,
                    kind,
                });
            });
            match fed {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        let changed = |why: String| {
            let what = format!("\"{key}\" is not what it was a moment ago: {why}");
            Error::new(ErrorKind::Unavailable, what)
        };
        if read.is_none() {
            return Err(changed("it is gone".to_owned()));
        }
        reader.finish().map_err(|why| changed(why.to_string()))?;
        if let Some(over) = &segment.over {
            seen.push(Seen {
                lsn: over.lsn,
                end: over.end,
                kind: match over.noted.as_deref() {
                    Some(Noted::Transaction(end)) => SeenKind::Transaction(*end),
                    Some(Noted::RestorePoint(point)) => SeenKind::RestorePoint(point.name.clone()),
                    _ => SeenKind::Other,
                },
            });
        }
        Ok(seen)
    }
}

/// The segments that were looked at last, so that several backups cost one reading.
pub(crate) struct Kept<'r> {
    records: &'r mut dyn Records,
    /// With the record over the end, which differs from line to line.
    last: VecDeque<(SegmentName, Option<Over>, Vec<Seen>)>,
}

/// How many segments' records are kept: those of a stop, and of what is behind it.
const KEPT_MAX: usize = 2;

impl<'r> Kept<'r> {
    pub(crate) fn new(records: &'r mut dyn Records) -> Kept<'r> {
        Kept {
            records,
            last: VecDeque::new(),
        }
    }

    pub(crate) fn of(&mut self, segment: &SegmentFacts) -> Result<&[Seen], Error> {
        let at = self
            .last
            .iter()
            .position(|(name, over, _)| *name == segment.name && *over == segment.over);
        let kept = match at.and_then(|at| self.last.remove(at)) {
            Some(kept) => kept,
            None => (
                segment.name,
                segment.over.clone(),
                self.records.of(segment)?,
            ),
        };
        self.last.truncate(KEPT_MAX - 1);
        self.last.push_front(kept);
        Ok(self
            .last
            .front()
            .map(|(_, _, seen)| seen.as_slice())
            .unwrap_or_default())
    }
}
