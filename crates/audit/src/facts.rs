//! What is worth knowing of a segment: which moments it holds, and how it goes on.
//!
//! Guarantees facts of bounded size, whatever is in the segment, which can be kept and read again: everything that choosing
//! a recovery target depends on, but for the single transactions between a segment's first and last. Reading is left to
//! `gather`, what follows from the facts to `targets`.

use serde::{Deserialize, Serialize};
use wal::{
    LongPageHeader, Lsn, Meaning, Record, SegmentEnd, SegmentName, SegmentSize, SystemIdentifier,
    TimelineId, Timestamp, WalFileName,
};

use crate::inventory::Stamp;
use crate::text;

/// How many restore points, checkpoints, beginnings and ends of backups are kept of one segment, each.
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

/// A checkpoint record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// LSN at which the record begins.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// Where replay from it begins.
    #[serde(with = "text::plain")]
    pub redo: Lsn,
    /// When, by the server's clock; to the second.
    #[serde(with = "text::maybe_timestamp")]
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
    #[serde(with = "text::maybe_timestamp")]
    pub at: Option<Timestamp>,
}

/// The end of a base backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupEnd {
    /// LSN at which the record begins.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// Where it ends: from here on the backup is consistent.
    #[serde(with = "text::plain")]
    pub end: Lsn,
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
    /// Why it does not go on where the segment ends; `None` if it does. A record between the two is among the facts of the
    /// segment.
    pub problem: Option<Problem>,
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
    /// How long the object is that holds it, in bytes.
    pub stored_bytes: u64,
    /// When it was stored, by the store's clock.
    #[serde(with = "text::timestamp")]
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
    /// How WAL ends in the segment.
    pub end: End,
    /// What comes behind it: the next segment, and those of timelines that begin there.
    pub following: Vec<Follower>,
    /// The place where its timeline begins in it, by the timeline history file that it was compared with.
    #[serde(with = "text::maybe_lsn")]
    pub switchpoint: Option<Lsn>,
    /// Whether anything was found to be wrong with it, beside the way that others follow it.
    pub has_findings: bool,
    /// The record that goes over its end: where it ends, and which transaction, if it ends one.
    pub over: Option<Over>,
    /// How many records begin in it.
    pub records: u64,
    /// Commits and rollbacks.
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
    /// LSN at which the record begins.
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
            name,
            system: header.system,
            start: header.address,
            segment_bytes: header.segment_size.bytes(),
            stored_bytes: 0,
            stored: Timestamp(0),
            first_timeline: header.timeline,
            first: None,
            last: None,
            end: End::Full,
            following: Vec::new(),
            switchpoint: None,
            has_findings: false,
            over: None,
            records: 0,
            ends: Ends::default(),
            restore_points: Vec::new(),
            checkpoints: Vec::new(),
            beginnings: Vec::new(),
            backup_ends: Vec::new(),
            left_out: 0,
        }
    }

    /// The next record; answers with the time that it tells.
    pub(crate) fn record(&mut self, record: &Record<'_>) -> Option<Timestamp> {
        self.first.get_or_insert(record.lsn);
        self.last = Some(record.lsn);
        self.records += 1;
        let meaning = record.meaning();
        if let Some(end) = of_meaning(record, &meaning) {
            self.ends.add(end);
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
                let checkpoint = Checkpoint { lsn, redo, at };
                push(&mut self.checkpoints, checkpoint, &mut self.left_out);
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
        time_of(&meaning)
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

    /// How the segment ends, and how it is stored; gives back memory that is not needed, for there may be a million of these.
    pub(crate) fn finish(&mut self, end: SegmentEnd, stamp: &Stamp) {
        self.end = match end {
            SegmentEnd::Full => End::Full,
            SegmentEnd::Switched(lsn) => End::Switched(lsn),
            SegmentEnd::Ended(lsn) => End::Ended(lsn),
        };
        self.restore_points.shrink_to_fit();
        self.checkpoints.shrink_to_fit();
        self.beginnings.shrink_to_fit();
        self.backup_ends.shrink_to_fit();
        self.stored_bytes = stamp.bytes;
        self.stored = Timestamp::from_system_time(stamp.time()).unwrap_or(Timestamp(0));
    }

    /// Why a segment does not follow this one, if it was looked at and does not.
    #[must_use]
    pub fn problem_of(&self, next: &SegmentName) -> Option<&str> {
        let next = WalFileName::Segment(*next);
        let follower = self.following.iter().find(|it| it.file == next)?;
        Some(&follower.problem.as_ref()?.why)
    }

    /// The record that begins here and ends in a later segment.
    pub(crate) fn record_over_end(&mut self, record: &Record<'_>) {
        self.record(record);
        self.over = Some(Over {
            lsn: record.lsn,
            end: record.end,
            transaction: transaction_end(record),
        });
    }

    /// Whether a record goes through all of it.
    pub(crate) fn goes_through(&self) -> bool {
        self.first.is_none() && self.end == End::Full
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
