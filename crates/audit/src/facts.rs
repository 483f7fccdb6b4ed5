//! What is worth knowing of a segment: which moments it holds, and how it goes on.
//!
//! Guarantees facts of bounded size, whatever is in the segment, which can be kept and read again: everything that choosing
//! a recovery target depends on, but for the single transactions between a segment's first and last. What was learnt of a
//! segment together with others names those, so that nobody takes it for true beside other ones. Reading is left to `gather`,
//! what follows from the facts to `targets`.
//!
//! The file is long because one record of the index is described here, field by field.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wal::{
    LongPageHeader, Lsn, Meaning, Record, SegmentEnd, SegmentName, SegmentSize, SystemIdentifier,
    TimelineId, Timestamp, WalFileName,
};

use crate::inventory::Stamp;
use crate::text;

/// How many restore points, beginnings and ends of backups are kept of one segment, each.
pub const NOTED_MAX: usize = 256;

/// The end of a transaction: what a target time or transaction can stop at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionEnd {
    /// LSN at which the record begins.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// Where the next record may begin.
    #[serde(with = "text::plain")]
    pub end: Lsn,
    /// When, by the server's clock, which need not run forward.
    #[serde(with = "text::timestamp")]
    pub at: Timestamp,
    /// Which transaction, where the record tells it.
    pub xid: Option<u32>,
    /// True for a commit, false for a rollback.
    pub is_commit: bool,
}

/// `pg_create_restore_point()`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    /// Its name; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// LSN at which the record begins.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// Where the next record may begin.
    #[serde(with = "text::plain")]
    pub end: Lsn,
    /// When, by the server's clock.
    #[serde(with = "text::timestamp")]
    pub at: Timestamp,
}

/// The beginning of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// The timeline from here on.
    #[serde(with = "text::timeline")]
    pub timeline: TimelineId,
    /// When, by the server's clock, where the record tells it.
    #[serde(with = "text::maybe_timestamp")]
    pub at: Option<Timestamp>,
}

/// The end of a base backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupEnd {
    /// Where replay of the backup begins.
    #[serde(with = "text::plain")]
    pub start: Lsn,
    /// The latest end of a transaction in this segment up to here.
    #[serde(with = "text::maybe_timestamp")]
    pub latest: Option<Timestamp>,
}

/// The ends of transactions whose records begin in a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// Number of commits.
    pub commits: u64,
    /// How many were rolled back.
    pub aborts: u64,
    /// The first one in WAL.
    pub first: Option<TransactionEnd>,
    /// The last one in WAL.
    pub last: Option<TransactionEnd>,
    /// The last one in WAL that is a commit.
    pub last_commit: Option<TransactionEnd>,
    /// The earliest time; with [`Ends::latest`], because times do not follow the order in WAL.
    #[serde(with = "text::maybe_timestamp")]
    pub earliest: Option<Timestamp>,
    /// Latest time of all of them.
    #[serde(with = "text::maybe_timestamp")]
    pub latest: Option<Timestamp>,
    /// The lowest and the highest transaction that is told, as plain numbers.
    pub xids: Option<(u32, u32)>,
}

/// How the WAL in a segment ends; see [`SegmentEnd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It goes on in the next segment.
    Full,
    /// The rest of the segment is unused, since this place; WAL goes on in the next segment.
    Switched(#[serde(with = "text::plain")] Lsn),
    /// There is no more WAL since this place.
    Ended(#[serde(with = "text::plain")] Lsn),
}

/// A file that comes behind a segment and has been looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follower {
    /// Name of the file.
    #[serde(with = "text::plain")]
    pub file: WalFileName,
    /// Which object was looked at.
    pub(crate) stamp: Option<Stamp>,
    /// Why it does not go on where the segment ends; `None` if it does.
    pub problem: Option<Problem>,
    /// The record that goes over the boundary and ends in it: in this segment or, where a record goes through all of this one,
    /// in an earlier one it begins.
    pub(crate) over: Option<Over>,
}

/// Why a segment does not follow another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// LSN at which it does not follow.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// In words, as a cause.
    pub why: String,
}

/// What is known of one segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentFacts {
    /// Name of the segment.
    #[serde(with = "text::plain")]
    pub name: SegmentName,
    /// System identifier in the first page header.
    #[serde(with = "text::plain")]
    pub system: SystemIdentifier,
    /// LSN of the segment's first byte.
    #[serde(with = "text::plain")]
    pub start: Lsn,
    /// How long it is, in bytes.
    pub segment_bytes: u64,
    /// How it is stored. In an index it stands beside the facts.
    #[serde(skip)]
    pub(crate) stamp: Stamp,
    /// The timeline of its first page.
    #[serde(with = "text::timeline")]
    pub first_timeline: TimelineId,
    /// Where the last record begins that begins in it; `None` if none does.
    #[serde(with = "text::maybe_lsn")]
    pub last: Option<Lsn>,
    /// How WAL ends in the segment.
    pub end: End,
    /// What comes behind it: the next segment, and those of timelines that begin there.
    pub following: Vec<Follower>,
    /// The place where its timeline begins in it, by the timeline history file that it was compared with.
    #[serde(with = "text::maybe_lsn")]
    pub switchpoint: Option<Lsn>,
    /// Whether anything was found to be wrong with it, beside the way that others follow it.
    pub has_findings: bool,
    /// Whether a record goes through all of it.
    pub(crate) goes_through: bool,
    /// Of a segment that a record goes through: what had been read of the ones before it when its end was looked at. See
    /// [`trail`].
    pub(crate) trail: Option<u64>,
    /// The record that goes over its end, once it is known along which line: then it is among the facts. Never in an index.
    #[serde(skip)]
    pub(crate) over: Option<Over>,
    /// Commits and rollbacks.
    pub ends: Ends,
    /// Restore points, in order.
    pub restore_points: Vec<RestorePoint>,
    /// The earliest time of a checkpoint, by the server's clock.
    #[serde(with = "text::maybe_timestamp")]
    pub first_checkpoint: Option<Timestamp>,
    /// The latest time of a checkpoint.
    #[serde(with = "text::maybe_timestamp")]
    pub last_checkpoint: Option<Timestamp>,
    /// Timelines that begin here.
    pub beginnings: Vec<Beginning>,
    /// Ends of base backups.
    pub backup_ends: Vec<BackupEnd>,
    /// How many of the last three did not fit [`NOTED_MAX`].
    pub left_out: u64,
}

/// A record that goes over the end of the segment in which it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Over {
    /// LSN at which the record begins.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// Where the next record may begin.
    #[serde(with = "text::plain")]
    pub end: Lsn,
    /// What is noted of it, if anything is.
    pub(crate) noted: Option<Box<Noted>>,
}

/// What is noted of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Noted {
    /// The end of a transaction.
    Transaction(TransactionEnd),
    /// A restore point.
    RestorePoint(RestorePoint),
    /// A checkpoint at this time, and which timeline begins with it.
    Checkpoint(
        #[serde(with = "text::maybe_timestamp")] Option<Timestamp>,
        Option<Beginning>,
    ),
    /// The end of a recovery, with which a timeline begins.
    EndOfRecovery(Beginning),
    /// The end of the base backup whose replay begins here.
    BackupEnd(#[serde(with = "text::plain")] Lsn),
}

impl Over {
    pub(crate) fn of(record: &Record<'_>) -> Over {
        Over {
            lsn: record.lsn,
            end: record.end,
            noted: Noted::of(record, &record.meaning()).map(Box::new),
        }
    }
}

impl Noted {
    fn of(record: &Record<'_>, meaning: &Meaning<'_>) -> Option<Noted> {
        if let Some(end) = of_meaning(record, meaning) {
            return Some(Noted::Transaction(end));
        }
        let (lsn, end) = (record.lsn, record.end);
        let begins = |timelines: wal::Timelines, at| Beginning {
            timeline: timelines.this,
            at,
        };
        let begins = |timelines: wal::Timelines, at| {
            (timelines.this != timelines.previous).then(|| begins(timelines, at))
        };
        Some(match *meaning {
            Meaning::RestorePoint { at, name } => {
                let name = String::from_utf8_lossy(name).into_owned();
                Noted::RestorePoint(RestorePoint { name, lsn, end, at })
            }
            Meaning::Checkpoint {
                is_shutdown,
                timelines,
                at,
                ..
            } => Noted::Checkpoint(at, begins(timelines, at).filter(|_| is_shutdown)),
            Meaning::EndOfRecovery { at, timelines } => {
                Noted::EndOfRecovery(begins(timelines, Some(at))?)
            }
            Meaning::BackupEnd { start } => Noted::BackupEnd(start),
            _ => return None,
        })
    }
}

/// Says in a number which objects a record goes through up to this one, the one in which it begins first; `before` is the
/// trail of the segment before.
pub(crate) fn trail(file: &WalFileName, stamp: Option<&Stamp>, before: Option<u64>) -> u64 {
    let stamp = stamp.map(|stamp| (stamp.bytes, stamp.modified));
    let digest = Sha256::digest(format!("{file} {stamp:?} {before:?}"));
    let bytes = digest.iter().take(8);
    bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The end of a transaction that a record is, if it is one.
#[must_use]
pub fn transaction_end(record: &Record<'_>) -> Option<TransactionEnd> {
    of_meaning(record, &record.meaning())
}

fn of_meaning(record: &Record<'_>, meaning: &Meaning<'_>) -> Option<TransactionEnd> {
    let (at, xid, is_commit) = match *meaning {
        Meaning::Commit { at, xid } => (at, xid, true),
        Meaning::Abort { at, xid } => (at, xid, false),
        _ => return None,
    };
    Some(TransactionEnd {
        lsn: record.lsn,
        end: record.end,
        at,
        xid,
        is_commit,
    })
}

impl Ends {
    /// One more, behind the others.
    pub fn add(&mut self, end: TransactionEnd) {
        if end.is_commit {
            self.commits += 1;
        } else {
            self.aborts += 1;
        }
        self.first.get_or_insert(end);
        self.last = Some(end);
        if end.is_commit {
            self.last_commit = Some(end);
        }
        self.earliest = Some(self.earliest.map_or(end.at, |at| at.min(end.at)));
        self.latest = self.latest.max(Some(end.at));
        if let Some(xid) = end.xid {
            let (low, high) = self.xids.unwrap_or((xid, xid));
            self.xids = Some((low.min(xid), high.max(xid)));
        }
    }
}

impl SegmentFacts {
    /// Those of a segment of which nothing but the header has been read.
    pub(crate) fn begin(name: SegmentName, header: &LongPageHeader) -> SegmentFacts {
        SegmentFacts {
            first_timeline: header.timeline,
            ..SegmentFacts::of(name, header.system, header.address, header.segment_size)
        }
    }

    /// Those of a segment in which nothing is.
    pub(crate) fn of(
        name: SegmentName,
        system: SystemIdentifier,
        start: Lsn,
        size: SegmentSize,
    ) -> SegmentFacts {
        SegmentFacts {
            name,
            system,
            start,
            segment_bytes: size.bytes(),
            stamp: Stamp::default(),
            first_timeline: name.timeline(),
            last: None,
            end: End::Full,
            following: Vec::new(),
            switchpoint: None,
            has_findings: false,
            goes_through: false,
            trail: None,
            over: None,
            ends: Ends::default(),
            restore_points: Vec::new(),
            first_checkpoint: None,
            last_checkpoint: None,
            beginnings: Vec::new(),
            backup_ends: Vec::new(),
            left_out: 0,
        }
    }

    /// The next record; answers with the time that it tells.
    pub(crate) fn record(&mut self, record: &Record<'_>) -> Option<Timestamp> {
        let meaning = record.meaning();
        let noted = Noted::of(record, &meaning);
        self.note(record.lsn, noted);
        time_of(&meaning)
    }

    fn note(&mut self, lsn: Lsn, noted: Option<Noted>) {
        self.last = Some(lsn);
        match noted {
            Some(Noted::Transaction(end)) => self.ends.add(end),
            Some(Noted::RestorePoint(point)) => {
                push(&mut self.restore_points, point, &mut self.left_out);
            }
            Some(Noted::Checkpoint(at, beginning)) => {
                let first = self.first_checkpoint.into_iter().chain(at).min();
                self.first_checkpoint = first;
                self.last_checkpoint = self.last_checkpoint.max(at);
                if let Some(beginning) = beginning {
                    push(&mut self.beginnings, beginning, &mut self.left_out);
                }
            }
            Some(Noted::EndOfRecovery(beginning)) => {
                push(&mut self.beginnings, beginning, &mut self.left_out);
            }
            Some(Noted::BackupEnd(start)) => {
                let latest = self.ends.latest;
                let backup = BackupEnd { start, latest };
                push(&mut self.backup_ends, backup, &mut self.left_out);
            }
            None => {}
        }
    }

    /// Takes the record that goes over the end, on a line that leads to where it ends, among the facts.
    pub(crate) fn take_over(&mut self, over: Over) {
        self.note(over.lsn, over.noted.as_deref().cloned());
        self.over = Some(over);
    }

    /// How the segment ends, and how it is stored.
    pub(crate) fn finish(&mut self, end: SegmentEnd, stamp: &Stamp) {
        self.end = match end {
            SegmentEnd::Full => End::Full,
            SegmentEnd::Switched(lsn) => End::Switched(lsn),
            SegmentEnd::Ended(lsn) => End::Ended(lsn),
        };
        self.stamp = *stamp;
    }

    /// A segment behind this one, if it was looked at.
    #[must_use]
    pub fn follower(&self, next: &SegmentName) -> Option<&Follower> {
        let next = WalFileName::Segment(*next);
        self.following.iter().find(|it| it.file == next)
    }

    /// The place behind the segment.
    #[must_use]
    pub fn behind(&self) -> Lsn {
        Lsn(self.start.0.saturating_add(self.segment_bytes))
    }

    /// Where its WAL ends: behind the segment, or where WAL ends in it.
    #[must_use]
    pub fn wal_end(&self) -> Lsn {
        match self.end {
            End::Ended(lsn) => lsn,
            End::Full | End::Switched(_) => self.behind(),
        }
    }

    /// How many bytes of it are WAL.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        let end = match self.end {
            End::Full => self.behind(),
            End::Switched(lsn) | End::Ended(lsn) => lsn,
        };
        end.0.saturating_sub(self.start.0)
    }

    /// Its size as a type; `None` if the facts are not of a segment.
    #[must_use]
    pub fn size(&self) -> Option<SegmentSize> {
        SegmentSize::new(self.segment_bytes).ok()
    }

    /// The latest time that anything in it tells.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        let points = self.restore_points.iter().map(|point| Some(point.at));
        let beginnings = self.beginnings.iter().map(|beginning| beginning.at);
        let ends = [self.ends.latest, self.last_checkpoint].into_iter();
        ends.chain(points).chain(beginnings).max().flatten()
    }
}

/// The time that a record tells.
fn time_of(meaning: &Meaning<'_>) -> Option<Timestamp> {
    match *meaning {
        Meaning::Commit { at, .. }
        | Meaning::Abort { at, .. }
        | Meaning::Prepare { at, .. }
        | Meaning::RestorePoint { at, .. }
        | Meaning::EndOfRecovery { at, .. } => Some(at),
        Meaning::Checkpoint { at, .. } => at,
        _ => None,
    }
}

fn push<T>(list: &mut Vec<T>, item: T, left_out: &mut u64) {
    if list.len() < NOTED_MAX {
        list.push(item);
    } else {
        *left_out += 1;
    }
}
