//! Everything that is known of an archive, once it has been read.
//!
//! Guarantees one entry for each segment, however often it is stored, and that a file which cannot be read is told as such.
//! Which segments follow one another is left to `line`.

use std::collections::{BTreeMap, BTreeSet};

use wal::{SegmentName, SegmentSize, SystemIdentifier, TimelineHistory, TimelineId, WalFileName};

use crate::backup_history::BackupHistory;
use crate::chain::{Chain, Piece, in_order};
use crate::entries::Entries;
use crate::facts::SegmentFacts;
use crate::index::What;
use crate::lineage::Lineage;

/// What is in an archive.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// What the archive is called in messages.
    pub place: String,
    /// Whose WAL it holds, if it is known.
    pub system: Option<SystemIdentifier>,
    /// How long its segments are, the latest ones if `pg_resetwal --wal-segsize` has changed it; `None` if it has none.
    pub size: Option<SegmentSize>,
    /// The segments that can be read, as far as they follow one another.
    pub(crate) chains: Vec<Chain>,
    /// What was read of them.
    entries: Entries,
    /// Those that cannot, and why.
    pub unreadable: BTreeMap<SegmentName, String>,
    /// Which timeline came from which.
    pub lineage: Lineage,
    /// Base backups that left a backup history file, by where they begin.
    pub backups: Vec<Backup>,
    /// What is wrong with other files, for people.
    pub notes: Vec<String>,
}

/// A base backup, by its backup history file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The name of its backup history file.
    pub file: String,
    /// Contents of the backup history file.
    pub history: BackupHistory,
}

impl Survey {
    /// What is known of an archive's files. `system` is whose WAL the archive is bound to; without that it is the first
    /// segment's.
    #[must_use]
    pub fn of(place: String, system: Option<SystemIdentifier>, entries: Entries) -> Survey {
        let mut survey = Survey {
            place,
            system,
            ..Survey::default()
        };
        let mut open = BTreeMap::new();
        for (place, (name, _)) in entries.listing().all().iter().enumerate() {
            match (*name, entries.at(place)) {
                (_, None) => {}
                (WalFileName::Segment(_), Some(What::Segment(facts))) => {
                    survey.segment(facts, &mut open);
                }
                (WalFileName::Segment(name), Some(What::Unreadable(why) | What::Unfit(why))) => {
                    survey.unreadable.insert(name, why);
                }
                (WalFileName::TimelineHistory(timeline), Some(What::Text(text))) => {
                    match TimelineHistory::parse(timeline, text.as_bytes()) {
                        Ok(history) => survey.lineage.add(history),
                        Err(invalid) => survey.notes.push(invalid.to_string()),
                    }
                }
                (name @ WalFileName::BackupHistory { .. }, Some(What::Text(text))) => {
                    let parsed = BackupHistory::parse(text.as_bytes());
                    match parsed.and_then(|history| history.fits(&name).map(|()| history)) {
                        Ok(history) => survey.backups.push(Backup {
                            file: name.to_string(),
                            history,
                        }),
                        Err(why) => survey
                            .notes
                            .push(format!("backup history file \"{name}\" is invalid: {why}")),
                    }
                }
                (name, Some(What::Unreadable(why) | What::Unfit(why))) => survey
                    .notes
                    .push(format!("\"{name}\" cannot be read: {why}")),
                _ => {}
            }
        }
        survey
            .chains
            .extend(open.into_values().map(|(chain, _)| chain));
        survey.entries = entries;
        survey.sizes();
        survey
            .backups
            .sort_by_key(|backup| (backup.history.start, backup.history.timeline));
        survey
    }

    /// Takes up the next segment; `open` are the chains that it may go on.
    fn segment(
        &mut self,
        facts: Box<SegmentFacts>,
        open: &mut BTreeMap<SegmentSize, (Chain, Box<SegmentFacts>)>,
    ) {
        let system = *self.system.get_or_insert(facts.system);
        let Some(size) = facts.size() else {
            return;
        };
        self.size = self.size.or(Some(size));
        if facts.system != system {
            let why = format!("it belongs to system {}", facts.system);
            self.unreadable.insert(facts.name, why);
            return;
        }
        if let Some((chain, last)) = open.get_mut(&size)
            && chain.go_on(last, &facts)
        {
            *last = facts;
        } else if let Some(chain) = Chain::begin(&facts, size) {
            let before = open.insert(size, (chain, facts));
            self.chains.extend(before.map(|(chain, _)| chain));
        }
    }

    /// What is known of a segment that can be read; the record over its end is not among it.
    pub(crate) fn facts(&self, name: &SegmentName) -> Option<Box<SegmentFacts>> {
        match self.entries.get(&WalFileName::Segment(*name))? {
            What::Segment(facts) => Some(facts),
            _ => None,
        }
    }

    /// Notes where the size of segments changes, and takes the latest one.
    fn sizes(&mut self) {
        let pieces = in_order(self.chains.iter().map(Piece::of).collect());
        let changes = pieces.windows(2).filter_map(|two| match two {
            [before, next] if before.chain.size != next.chain.size => Some(format!(
                "segments are of {} up to \"{}\", and of {} from \"{}\" on (pg_resetwal --wal-segsize): no recovery goes on from \
                 there",
                before.chain.size,
                before.last(),
                next.chain.size,
                next.first()
            )),
            _ => None,
        });
        self.notes.extend(changes);
        self.size = pieces.last().map(|piece| piece.chain.size).or(self.size);
    }

    /// Every timeline that has a segment or a timeline history file.
    #[must_use]
    pub fn timelines(&self) -> BTreeSet<TimelineId> {
        let readable = self.chains.iter().map(|chain| chain.timeline);
        let unreadable = self.unreadable.keys().map(SegmentName::timeline);
        readable
            .chain(unreadable)
            .chain(self.lineage.histories().flat_map(|history| {
                let ancestors = history.entries().iter().map(|it| it.timeline);
                ancestors.chain([history.timeline()])
            }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Entry;
    use crate::inventory::Stamp;

    fn made(what: What) -> Entry {
        let stamp = Stamp {
            bytes: 5,
            modified: 1,
        };
        Entry { stamp, what }
    }

    #[test]
    fn a_backup_history_file_under_another_ones_name_is_noted_and_not_believed() {
        let text = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
            STOP WAL LOCATION: 0/2000100 (file 000000010000000000000002)\nSTART TIMELINE: 1\n";
        let survey = |name: &str| {
            let entry = made(What::Text(text.to_owned()));
            let entries = Entries::made([(name.parse().unwrap(), entry)]);
            Survey::of("made".to_owned(), None, entries)
        };
        let right = survey("000000010000000000000002.00000028.backup");
        assert_eq!((right.backups.len(), right.notes.len()), (1, 0));
        let wrong = survey("000000010000000000000002.00000060.backup");
        assert_eq!((wrong.backups.len(), wrong.notes.len()), (0, 1));
    }

    /// Segments of 1 MB from `000…1` to `000…3`, then ones of 4 MB; their names alone follow one another.
    fn resized(unreadable: &[&str]) -> Survey {
        let mut entries = Vec::new();
        let name_of = |number: u64| format!("0000000100000000{number:08X}");
        let names: Vec<SegmentName> = (1..=5).map(|it| name_of(it).parse().unwrap()).collect();
        for (number, megabytes) in [(1, 1), (2, 1), (3, 1), (4, 4), (5, 4)] {
            let name = name_of(number);
            let size = SegmentSize::new(megabytes << 20).unwrap();
            let mut facts = crate::fixtures::segment(&name).facts;
            facts.start = facts.name.start(size).unwrap();
            facts.segment_bytes = size.bytes();
            facts.follow_all(&names);
            let what = if unreadable.contains(&name.as_str()) {
                What::Unreadable("rotten".to_owned())
            } else {
                What::Segment(Box::new(facts))
            };
            entries.push((name.parse().unwrap(), made(what)));
        }
        Survey::of("made".to_owned(), None, Entries::made(entries))
    }

    fn backup(megabytes: u64) -> BackupHistory {
        let start = wal::Lsn((megabytes << 20) + 40);
        BackupHistory {
            start,
            stop: wal::Lsn(start.0 + 1000),
            timeline: TimelineId::FIRST,
            label: "made".to_owned(),
            start_time: None,
            stop_time: None,
        }
    }

    #[test]
    fn each_segment_counts_by_its_own_size_and_every_backup_reaches_the_end_of_its_own() {
        let survey = resized(&[]);
        assert_eq!(survey.unreadable, BTreeMap::new());
        assert_eq!(survey.size, SegmentSize::new(4 << 20).ok());
        assert_eq!(survey.notes.len(), 1);
        assert!(survey.notes[0].contains("0003") && survey.notes[0].contains("0004"));
        let line = survey.line(TimelineId::FIRST);
        let segments: Vec<usize> = line.runs.iter().map(|run| run.count()).collect();
        assert_eq!((segments, line.holes.len()), (vec![3, 2], 0));
        for (begins, ends) in [(1, 4), (3, 4), (16, 24), (21, 24)] {
            let reach = line.reach(&backup(begins)).unwrap();
            assert_eq!(reach.until(), wal::Lsn(ends << 20));
            assert_eq!(*reach.ended, crate::line::Ended::Archive);
        }
        // Nothing was ever there.
        assert!(line.reach(&backup(9)).is_err());
    }

    #[test]
    fn a_segment_that_cannot_be_read_ends_the_wal_around_it_whatever_its_size_was() {
        let second = "000000010000000000000002";
        let survey = resized(&[second]);
        let line = survey.line(TimelineId::FIRST);
        let segments: Vec<usize> = line.runs.iter().map(|run| run.count()).collect();
        assert_eq!((segments, line.holes.len()), (vec![1, 1, 2], 1));
        assert_ne!(
            *line.reach(&backup(1)).unwrap().ended,
            crate::line::Ended::Archive
        );
        assert_eq!(line.reach(&backup(3)).unwrap().until(), wal::Lsn(4 << 20));
        assert_eq!(line.reach(&backup(16)).unwrap().until(), wal::Lsn(24 << 20));
        // The last one of an era: what comes before ends there.
        let survey = resized(&["000000010000000000000003"]);
        let line = survey.line(TimelineId::FIRST);
        assert_ne!(
            *line.reach(&backup(1)).unwrap().ended,
            crate::line::Ended::Archive
        );
        assert_eq!(line.reach(&backup(16)).unwrap().until(), wal::Lsn(24 << 20));
    }
}
