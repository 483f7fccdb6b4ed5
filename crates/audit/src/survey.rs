//! Everything that is known of an archive, once it has been read.
//!
//! Guarantees one entry for each segment, however often it is stored, and that a file which cannot be read is told as such.
//! Which segments follow one another is left to `line`.

use std::collections::{BTreeMap, BTreeSet};

use wal::{SegmentName, SegmentSize, SystemIdentifier, TimelineHistory, TimelineId, WalFileName};

use crate::backup_history::BackupHistory;
use crate::facts::{Over, SegmentFacts};
use crate::index::{Entries, What};
use crate::line::Line;
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
    /// The segments that can be read. The record over the end of each is among its facts, if there is one along the line of its
    /// own timeline or another one.
    pub segments: BTreeMap<SegmentName, Box<SegmentFacts>>,
    /// The facts of segments from which another record goes on, or none, along the line of a timeline.
    pub(crate) on_lines: BTreeMap<(TimelineId, SegmentName), Box<SegmentFacts>>,
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
        for (name, entry) in entries {
            match (name, entry.what) {
                (WalFileName::Segment(name), What::Segment(facts)) => survey.segment(name, facts),
                (WalFileName::Segment(name), What::Unreadable(why) | What::Unfit(why)) => {
                    survey.unreadable.entry(name).or_insert(why);
                }
                (WalFileName::TimelineHistory(timeline), What::Text(text)) => {
                    match TimelineHistory::parse(timeline, text.as_bytes()) {
                        Ok(history) => survey.lineage.add(history),
                        Err(invalid) => survey.notes.push(invalid.to_string()),
                    }
                }
                (name @ WalFileName::BackupHistory { .. }, What::Text(text)) => {
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
                (name, What::Unreadable(why) | What::Unfit(why)) => survey
                    .notes
                    .push(format!("\"{name}\" cannot be read: {why}")),
                _ => {}
            }
        }
        survey.sizes();
        survey
            .unreadable
            .retain(|name, _| !survey.segments.contains_key(name));
        survey
            .backups
            .sort_by_key(|backup| (backup.history.start, backup.history.timeline));
        survey.take_over();
        survey
    }

    /// Takes the records that go over the ends of segments among their facts: line by line, for it depends on what follows.
    fn take_over(&mut self) {
        let mut on_lines = BTreeMap::new();
        for timeline in self.timelines() {
            let line = self.line(timeline);
            for run in &line.runs {
                for (at, facts) in run.segments.iter().enumerate() {
                    let over = Line::over(&run.segments, at);
                    if over != self.over(facts) {
                        let mut facts = Box::new((*facts).clone());
                        if let Some(over) = over {
                            facts.take_over(over.clone());
                        }
                        on_lines.insert((timeline, facts.name), facts);
                    }
                }
            }
        }
        self.on_lines = on_lines;
        let names: Vec<SegmentName> = self.segments.keys().copied().collect();
        for name in names {
            let facts = self.segments.get(&name);
            let over = facts.and_then(|facts| self.over(facts).cloned());
            if let (Some(over), Some(facts)) = (over, self.segments.get_mut(&name)) {
                facts.take_over(over);
            }
        }
    }

    /// The record that goes over a segment's end along the line of its own timeline, as far as there is one; else along
    /// another.
    fn over<'a>(&'a self, facts: &'a SegmentFacts) -> Option<&'a Over> {
        let mut at = Some(facts).filter(|facts| !facts.goes_through);
        while let Some(facts) = at.take() {
            let names = facts.following.iter().filter_map(|it| match &it.file {
                WalFileName::Segment(name) if it.problem.is_none() => Some((name, it)),
                _ => None,
            });
            let own = |(name, _): &(&SegmentName, _)| name.timeline() != facts.name.timeline();
            let (name, follower) = names.min_by_key(own)?;
            if follower.over.is_some() {
                return follower.over.as_ref();
            }
            let next = self.segments.get(name);
            at = next.filter(|next| next.goes_through).map(|next| &**next);
        }
        None
    }

    fn segment(&mut self, name: SegmentName, facts: Box<SegmentFacts>) {
        let system = *self.system.get_or_insert(facts.system);
        self.size = self.size.or(facts.size());
        if facts.system == system {
            self.segments.entry(name).or_insert(facts);
        } else {
            let why = format!("it belongs to system {}", facts.system);
            self.unreadable.entry(name).or_insert(why);
        }
    }

    /// Notes where the size of segments changes, and takes the latest one.
    fn sizes(&mut self) {
        let mut segments: Vec<&SegmentFacts> = self.segments.values().map(|it| &**it).collect();
        segments.sort_by_key(|facts| (facts.start, facts.name));
        let changes = segments.windows(2).filter_map(|two| match two {
            [before, next] if before.segment_bytes != next.segment_bytes => {
                let (before_size, next_size) = (before.size()?, next.size()?);
                Some(format!(
                    "segments are of {before_size} up to \"{}\", and of {next_size} from \"{}\" on (pg_resetwal \
                     --wal-segsize): no recovery goes on from there",
                    before.name, next.name
                ))
            }
            _ => None,
        });
        self.notes.extend(changes);
        let latest = segments.last().and_then(|facts| facts.size());
        self.size = latest.or(self.size);
    }

    /// Every timeline that has a segment or a timeline history file.
    #[must_use]
    pub fn timelines(&self) -> BTreeSet<TimelineId> {
        let names = self.segments.keys().chain(self.unreadable.keys());
        names
            .map(SegmentName::timeline)
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
            let entries = [(name.parse().unwrap(), entry)].into();
            Survey::of("made".to_owned(), None, entries)
        };
        let right = survey("000000010000000000000002.00000028.backup");
        assert_eq!((right.backups.len(), right.notes.len()), (1, 0));
        let wrong = survey("000000010000000000000002.00000060.backup");
        assert_eq!((wrong.backups.len(), wrong.notes.len()), (0, 1));
    }

    /// Segments of 1 MB from `000…1` to `000…3`, then ones of 4 MB; their names alone follow one another.
    fn resized(unreadable: &[&str]) -> Survey {
        let mut entries = BTreeMap::new();
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
            entries.insert(name.parse().unwrap(), made(what));
        }
        Survey::of("made".to_owned(), None, entries)
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
        let segments: Vec<usize> = line.runs.iter().map(|run| run.segments.len()).collect();
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
        let segments: Vec<usize> = line.runs.iter().map(|run| run.segments.len()).collect();
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
