//! Fixtures: facts made up, for tests.
//!
//! Guarantees segments of 1 MB whose facts fit together, with a record every kilobyte.

use std::collections::BTreeMap;

use archive::Error;
use wal::{
    LongPageHeader, Lsn, SegmentName, SegmentSize, SystemIdentifier, TimelineHistory, TimelineId,
    Timestamp, WalFileName, WalMagic,
};

use crate::backup_history::BackupHistory;
use crate::entries::Entries;
use crate::facts::{BackupEnd, Follower, RestorePoint, SegmentFacts, TransactionEnd};
use crate::index::{Entry, What};
use crate::inventory::{Inventory, Stamp};
use crate::records::{Records, Seen, SeenKind};
use crate::survey::{Backup, Survey};

/// A segment and its records.
pub(crate) struct Made {
    pub(crate) facts: SegmentFacts,
    records: Vec<Seen>,
}

const RECORD_BYTES: u64 = 1024;

pub(crate) fn segment(name: &str) -> Made {
    let name: SegmentName = name.parse().unwrap();
    let header = LongPageHeader {
        magic: WalMagic(0xD110),
        timeline: name.timeline(),
        address: name.start(SegmentSize::SMALLEST).unwrap(),
        system: SystemIdentifier(7),
        segment_size: SegmentSize::SMALLEST,
        block_size: 8192,
    };
    Made {
        facts: SegmentFacts::begin(name, &header),
        records: Vec::new(),
    }
}

impl SegmentFacts {
    /// Is followed by all of these that lie behind it, by their names.
    pub(crate) fn follow_all(&mut self, names: &[SegmentName]) {
        let size = self.size().unwrap();
        let behind = |name: &&SegmentName| name.start(size) == Some(self.behind());
        let following = names.iter().filter(behind).map(|name| Follower {
            file: WalFileName::Segment(*name),
            stamp: None,
            problem: None,
            over: None,
        });
        let mut following: Vec<Follower> = following.collect();
        let is_new = |it: &Follower| self.following.iter().all(|had| had.file != it.file);
        following.retain(is_new);
        self.following.extend(following);
    }
}

impl Made {
    fn next(&mut self) -> (Lsn, Lsn) {
        let first = Lsn(self.facts.start.0 + 40);
        let last = self.facts.last;
        let lsn = last.map_or(first, |last| Lsn(last.0 + RECORD_BYTES));
        self.facts.last = Some(lsn);
        (lsn, Lsn(lsn.0 + RECORD_BYTES))
    }

    fn push(&mut self, kind: SeenKind) -> (Lsn, Lsn) {
        let (lsn, end) = self.next();
        self.records.push(Seen { lsn, end, kind });
        (lsn, end)
    }

    /// A commit at this second by this transaction.
    pub(crate) fn with_end(self, second: i64, xid: u32) -> Made {
        self.with(second, xid, true)
    }

    pub(crate) fn with(mut self, second: i64, xid: u32, is_commit: bool) -> Made {
        let (lsn, end) = self.next();
        let end = TransactionEnd {
            lsn,
            end,
            at: Timestamp(second * 1_000_000),
            xid: Some(xid),
            is_commit,
        };
        self.facts.ends.add(end);
        let kind = SeenKind::Transaction(end);
        self.records.push(Seen {
            lsn,
            end: end.end,
            kind,
        });
        self
    }

    pub(crate) fn with_other(mut self) -> Made {
        self.push(SeenKind::Other);
        self
    }

    pub(crate) fn with_point(mut self, name: &str, second: i64) -> Made {
        let (lsn, end) = self.push(SeenKind::RestorePoint(name.to_owned()));
        self.facts.restore_points.push(RestorePoint {
            name: name.to_owned(),
            lsn,
            end,
            at: Timestamp(second * 1_000_000),
        });
        self
    }

    pub(crate) fn with_backup_end(mut self, start: u64) -> Made {
        self.push(SeenKind::Other);
        self.facts.backup_ends.push(BackupEnd {
            start: Lsn(start),
            latest: self.facts.ends.latest,
        });
        self
    }
}

impl Entries {
    /// Of an archive that has these files and no others.
    pub(crate) fn made(all: impl IntoIterator<Item = (WalFileName, Entry)>) -> Entries {
        let all: Vec<_> = all.into_iter().collect();
        let mut inventory = Inventory::default();
        for (file, entry) in &all {
            inventory.put(*file, entry.stamp);
        }
        inventory.sort();
        let mut entries = Entries::of(inventory.listing);
        for (file, entry) in &all {
            entries.learn(*file, entry);
        }
        entries
    }
}

/// An archive, and the records in it.
pub(crate) struct World {
    pub(crate) survey: Survey,
    records: BTreeMap<SegmentName, Vec<Seen>>,
}

impl World {
    pub(crate) fn of(segments: impl IntoIterator<Item = Made>) -> World {
        let (mut all, mut records) = (Vec::new(), BTreeMap::new());
        for made in segments {
            records.insert(made.facts.name, made.records);
            all.push(made.facts);
        }
        let names: Vec<SegmentName> = all.iter().map(|facts| facts.name).collect();
        // Stored when the year 2000 began.
        let stamp = Stamp {
            bytes: 1000,
            modified: 946_684_800_000_000_000,
        };
        for facts in &mut all {
            facts.follow_all(&names);
        }
        let entries = all.into_iter().map(|facts| {
            let file = WalFileName::Segment(facts.name);
            let what = What::Segment(Box::new(facts));
            (file, Entry { stamp, what })
        });
        World {
            survey: Survey::of(String::new(), None, Entries::made(entries)),
            records,
        }
    }

    pub(crate) fn with_backup(mut self, timeline: u32, start: u64, stop: u64) -> World {
        self.survey.backups.push(Backup {
            file: format!("{start:X}.backup"),
            history: BackupHistory {
                start: Lsn(start),
                stop: Lsn(stop),
                timeline: TimelineId::new(timeline).unwrap(),
                label: "made".to_owned(),
                start_time: None,
                stop_time: None,
            },
        });
        self
    }

    pub(crate) fn with_history(mut self, timeline: u32, text: &str) -> World {
        let timeline = TimelineId::new(timeline).unwrap();
        let history = TimelineHistory::parse(timeline, text.as_bytes()).unwrap();
        self.survey.lineage.add(history);
        self
    }

    pub(crate) fn records(&self) -> FromMemory<'_> {
        FromMemory(&self.records)
    }
}

pub(crate) struct FromMemory<'a>(&'a BTreeMap<SegmentName, Vec<Seen>>);

impl Records for FromMemory<'_> {
    fn of(&mut self, segment: &SegmentFacts) -> Result<Vec<Seen>, Error> {
        Ok(self.0[&segment.name].clone())
    }
}
