//! What is worth knowing of a segment: which moments it holds, and how it goes on.
//!
//! Guarantees facts of bounded size, whatever is in the segment, which can be kept and read again: everything that choosing
//! a recovery target depends on, but for the single transactions between a segment's first and last. Reading is left to
//! `gather`, what follows from the facts to `targets`.

use serde::{Deserialize, Serialize};
use wal::{
    Lsn, Meaning, Record, SegmentEnd, SegmentName, SegmentSize, SegmentSummary, SystemIdentifier,
    TimelineId, Timestamp,
};

use crate::text;

/// How many restore points, checkpoints, beginnings and ends of backups are kept of one segment, each.
pub const NOTED_MAX: usize = 256;

/// The end of a transaction: what a target time or transaction can stop at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionEnd {
    /// Where its record begins.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// Where the next record may begin.
    #[serde(with = "text::plain")]
    pub end: Lsn,
    /// When, by the server's clock, which need not run forward.
    #[serde(with = "text::moment")]
    pub at: Timestamp,
    /// Which transaction, where the record tells it.
    pub xid: Option<u32>,
    /// Committed, or rolled back.
    pub is_commit: bool,
}

/// `pg_create_restore_point()`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    /// Its name; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// Where its record begins.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// Where the next record may begin.
    #[serde(with = "text::plain")]
    pub end: Lsn,
    /// When, by the server's clock.
    #[serde(with = "text::moment")]
    pub at: Timestamp,
}

/// A checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Where its record begins.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// Where replay from it begins.
    #[serde(with = "text::plain")]
    pub redo: Lsn,
    /// When, by the server's clock; to the second.
    #[serde(with = "text::maybe_moment")]
    pub at: Option<Timestamp>,
}

/// The beginning of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// Where the record that says so begins.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// The timeline from here on.
    #[serde(with = "text::timeline")]
    pub timeline: TimelineId,
    /// The one up to here.
    #[serde(with = "text::timeline")]
    pub previous: TimelineId,
    /// When, by the server's clock, where the record tells it.
    #[serde(with = "text::maybe_moment")]
    pub at: Option<Timestamp>,
}

/// The end of a base backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupEnd {
    /// Where its record begins.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// Where it ends: from here on the backup is consistent.
    #[serde(with = "text::plain")]
    pub end: Lsn,
    /// Where replay of the backup begins.
    #[serde(with = "text::plain")]
    pub start: Lsn,
    /// The latest end of a transaction in this segment up to here.
    #[serde(with = "text::maybe_moment")]
    pub latest: Option<Timestamp>,
}

/// The ends of transactions whose records begin in a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// How many were committed.
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
    #[serde(with = "text::maybe_moment")]
    pub earliest: Option<Timestamp>,
    /// The latest time.
    #[serde(with = "text::maybe_moment")]
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

/// What is known of the record that goes over the segment's end, and of the segment that follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Following {
    /// None has been seen.
    Unknown,
    /// It goes on where this one ends; a record between the two is among the facts of this one.
    Joined,
    /// What is in its place does not.
    Broken(String),
}

/// What is known of one segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentFacts {
    /// Its name.
    #[serde(with = "text::plain")]
    pub name: SegmentName,
    /// Whose WAL.
    #[serde(with = "text::plain")]
    pub system: SystemIdentifier,
    /// Where it begins.
    #[serde(with = "text::plain")]
    pub start: Lsn,
    /// How long it is, in bytes.
    pub segment_bytes: u64,
    /// The key of the object that holds it.
    pub stored_as: String,
    /// How long that is, in bytes.
    pub stored_bytes: u64,
    /// When it was stored, by the store's clock.
    #[serde(with = "text::moment")]
    pub stored: Timestamp,
    /// The timeline of its first page.
    #[serde(with = "text::timeline")]
    pub first_timeline: TimelineId,
    /// Where the first record begins that begins in it; `None` if none does.
    #[serde(with = "text::maybe_lsn")]
    pub first: Option<Lsn>,
    /// Where the last record begins.
    #[serde(with = "text::maybe_lsn")]
    pub last: Option<Lsn>,
    /// How it ends.
    pub end: End,
    /// What comes behind it.
    pub following: Following,
    /// The record that goes over its end: where it ends, and which transaction, if it ends one.
    pub over: Option<Over>,
    /// How many records begin in it.
    pub records: u64,
    /// Ends of transactions.
    pub ends: Ends,
    /// Restore points, in order.
    pub restore_points: Vec<RestorePoint>,
    /// Checkpoints, in order.
    pub checkpoints: Vec<Checkpoint>,
    /// Timelines that begin here.
    pub beginnings: Vec<Beginning>,
    /// Ends of base backups.
    pub backup_ends: Vec<BackupEnd>,
    /// How many of the last four did not fit [`NOTED_MAX`].
    pub left_out: u64,
}

/// A record that goes over the end of the segment in which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Over {
    /// Where it begins.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// Where the next record may begin.
    #[serde(with = "text::plain")]
    pub end: Lsn,
    /// The end of a transaction, if it is one.
    pub transaction: Option<TransactionEnd>,
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
        match end.is_commit {
            true => self.commits += 1,
            false => self.aborts += 1,
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

impl Following {
    /// Whether a segment behind this one was looked at.
    #[must_use]
    pub fn is_known(&self) -> bool {
        *self != Following::Unknown
    }
}

/// Facts while a segment is read.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    first: Option<Lsn>,
    last: Option<Lsn>,
    records: u64,
    ends: Ends,
    restore_points: Vec<RestorePoint>,
    checkpoints: Vec<Checkpoint>,
    beginnings: Vec<Beginning>,
    backup_ends: Vec<BackupEnd>,
    left_out: u64,
}

impl Notes {
    /// The next record.
    pub(crate) fn record(&mut self, record: &Record<'_>) {
        self.first.get_or_insert(record.lsn);
        self.last = Some(record.lsn);
        self.records += 1;
        let meaning = record.meaning();
        if let Some(end) = of_meaning(record, &meaning) {
            self.ends.add(end);
            return;
        }
        let (lsn, end) = (record.lsn, record.end);
        match meaning {
            Meaning::RestorePoint { at, name } => {
                let name = String::from_utf8_lossy(name).into_owned();
                let point = RestorePoint { name, lsn, end, at };
                push(&mut self.restore_points, point, &mut self.left_out);
            }
            Meaning::Checkpoint {
                is_shutdown,
                redo,
                timelines,
                at,
            } => {
                push(
                    &mut self.checkpoints,
                    Checkpoint { lsn, redo, at },
                    &mut self.left_out,
                );
                if is_shutdown {
                    self.beginning(lsn, timelines, at);
                }
            }
            Meaning::EndOfRecovery { at, timelines } => self.beginning(lsn, timelines, Some(at)),
            Meaning::BackupEnd { start } => {
                let latest = self.ends.latest;
                let backup = BackupEnd {
                    lsn,
                    end,
                    start,
                    latest,
                };
                push(&mut self.backup_ends, backup, &mut self.left_out);
            }
            _ => {}
        }
    }

    fn beginning(&mut self, lsn: Lsn, timelines: wal::Timelines, at: Option<Timestamp>) {
        if timelines.this != timelines.previous {
            let beginning = Beginning {
                lsn,
                timeline: timelines.this,
                previous: timelines.previous,
                at,
            };
            push(&mut self.beginnings, beginning, &mut self.left_out);
        }
    }

    /// The facts, once the segment has been read to its end.
    pub(crate) fn of_segment(
        self,
        summary: &SegmentSummary,
        stored: &archive::Stored,
    ) -> SegmentFacts {
        let mut facts = SegmentFacts {
            name: summary.name,
            system: summary.header.system,
            start: summary.header.address,
            segment_bytes: summary.header.segment_size.bytes(),
            stored_as: stored.key.clone(),
            stored_bytes: stored.bytes,
            stored: Timestamp::from_system_time(stored.modified).unwrap_or(Timestamp(0)),
            first_timeline: summary.header.timeline,
            first: None,
            last: None,
            end: match summary.end() {
                SegmentEnd::Full => End::Full,
                SegmentEnd::Switched(lsn) => End::Switched(lsn),
                SegmentEnd::Ended(lsn) => End::Ended(lsn),
            },
            following: Following::Unknown,
            over: None,
            records: 0,
            ends: Ends::default(),
            restore_points: Vec::new(),
            checkpoints: Vec::new(),
            beginnings: Vec::new(),
            backup_ends: Vec::new(),
            left_out: 0,
        };
        facts.take(self);
        facts
    }
}

fn push<T>(list: &mut Vec<T>, item: T, left_out: &mut u64) {
    match list.len() < NOTED_MAX {
        true => list.push(item),
        false => *left_out += 1,
    }
}

impl SegmentFacts {
    /// The record that begins here and ends in a later segment.
    pub(crate) fn record_over_end(&mut self, record: &Record<'_>) {
        let mut notes = self.give();
        notes.record(record);
        self.take(notes);
        self.over = Some(Over {
            lsn: record.lsn,
            end: record.end,
            transaction: transaction_end(record),
        });
    }

    fn give(&mut self) -> Notes {
        Notes {
            first: self.first,
            last: self.last,
            records: self.records,
            ends: self.ends,
            restore_points: std::mem::take(&mut self.restore_points),
            checkpoints: std::mem::take(&mut self.checkpoints),
            beginnings: std::mem::take(&mut self.beginnings),
            backup_ends: std::mem::take(&mut self.backup_ends),
            left_out: self.left_out,
        }
    }

    fn take(&mut self, notes: Notes) {
        self.first = notes.first;
        self.last = notes.last;
        self.records = notes.records;
        self.ends = notes.ends;
        self.restore_points = notes.restore_points;
        self.checkpoints = notes.checkpoints;
        self.beginnings = notes.beginnings;
        self.backup_ends = notes.backup_ends;
        self.left_out = notes.left_out;
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
        let checkpoints = self.checkpoints.iter().map(|checkpoint| checkpoint.at);
        let beginnings = self.beginnings.iter().map(|beginning| beginning.at);
        let ends = std::iter::once(self.ends.latest);
        ends.chain(points)
            .chain(checkpoints)
            .chain(beginnings)
            .max()
            .flatten()
    }
}
