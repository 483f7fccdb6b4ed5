//! Everything that is known of an archive, once it has been read.
//!
//! Guarantees one entry for each segment, however often it is stored, and that a file which cannot be read is told as such.
//! Which segments follow one another is left to `line`.

use std::collections::{BTreeMap, BTreeSet};

use wal::{SegmentName, SegmentSize, SystemIdentifier, TimelineHistory, TimelineId, WalFileName};

use crate::backup_history::BackupHistory;
use crate::facts::SegmentFacts;
use crate::index::{Index, What};

/// What is in an archive.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// What the archive is called in messages.
    pub place: String,
    /// Whose WAL it holds, if it is known.
    pub system: Option<SystemIdentifier>,
    /// How long its segments are; `None` if it has none.
    pub size: Option<SegmentSize>,
    /// The segments that can be read.
    pub segments: BTreeMap<SegmentName, SegmentFacts>,
    /// Those that cannot, and why.
    pub unreadable: BTreeMap<SegmentName, String>,
    /// Timelines' ancestors.
    pub histories: BTreeMap<TimelineId, TimelineHistory>,
    /// Base backups that left a backup history file, by where they begin.
    pub backups: Vec<Backup>,
    /// What is wrong with other files, for people.
    pub notes: Vec<String>,
}

/// A base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The name of its backup history file.
    pub file: String,
    /// What that says.
    pub history: BackupHistory,
}

impl Survey {
    /// What an index says. `system` is whose WAL the archive is bound to; without that it is the first segment's.
    #[must_use]
    pub fn of(place: String, system: Option<SystemIdentifier>, index: Index) -> Survey {
        let mut survey = Survey {
            place,
            system,
            ..Survey::default()
        };
        for (name, entry) in index.entries {
            let Ok(name) = name.parse::<WalFileName>() else {
                continue;
            };
            match (name, entry.what) {
                (WalFileName::Segment(name), What::Segment(facts)) => survey.segment(name, *facts),
                (WalFileName::Segment(name), What::Unreadable(why)) => {
                    survey.unreadable.entry(name).or_insert(why);
                }
                (WalFileName::TimelineHistory(timeline), What::Text(text)) => {
                    match TimelineHistory::parse(timeline, text.as_bytes()) {
                        Ok(history) => drop(survey.histories.insert(timeline, history)),
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
                (name, What::Unreadable(why)) => survey
                    .notes
                    .push(format!("\"{name}\" cannot be read: {why}")),
                _ => {}
            }
        }
        survey
            .unreadable
            .retain(|name, _| !survey.segments.contains_key(name));
        survey
            .backups
            .sort_by_key(|backup| (backup.history.start, backup.history.timeline));
        survey
    }

    fn segment(&mut self, name: SegmentName, facts: SegmentFacts) {
        let system = *self.system.get_or_insert(facts.system);
        let size = facts.size();
        let size = match (self.size, size) {
            (None, Some(size)) => *self.size.insert(size),
            (Some(size), _) => size,
            (None, None) => return,
        };
        if facts.system != system {
            let why = format!("it belongs to system {}", facts.system);
            self.unreadable.entry(name).or_insert(why);
        } else if facts.segment_bytes != size.bytes() {
            let why = format!(
                "it is a segment of {} bytes among those of {size}",
                facts.segment_bytes
            );
            self.unreadable.entry(name).or_insert(why);
        } else {
            self.segments.entry(name).or_insert(facts);
        }
    }

    /// Every timeline that has a segment or a timeline history file.
    #[must_use]
    pub fn timelines(&self) -> BTreeSet<TimelineId> {
        let names = self.segments.keys().chain(self.unreadable.keys());
        names
            .map(SegmentName::timeline)
            .chain(self.histories.keys().copied())
            .chain(
                self.histories
                    .values()
                    .flat_map(|history| history.entries().iter().map(|ancestor| ancestor.timeline)),
            )
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Entry;

    #[test]
    fn a_backup_history_file_under_another_ones_name_is_noted_and_not_believed() {
        let text = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
            STOP WAL LOCATION: 0/2000100 (file 000000010000000000000002)\nSTART TIMELINE: 1\n";
        let survey = |name: &str| {
            let entry = Entry {
                key: name.to_owned(),
                bytes: 5,
                modified: 1,
                what: What::Text(text.to_owned()),
            };
            let entries = [(name.to_owned(), entry)].into();
            Survey::of("made".to_owned(), None, Index { entries })
        };
        let right = survey("000000010000000000000002.00000028.backup");
        assert_eq!((right.backups.len(), right.notes.len()), (1, 0));
        let wrong = survey("000000010000000000000002.00000060.backup");
        assert_eq!((wrong.backups.len(), wrong.notes.len()), (0, 1));
    }
}
