//! What an archive holds, by name: one listing, in memory that stays small for a million objects.
//!
//! Guarantees that every object is counted, as a file of WAL or as something else. What is in the objects is left to
//! `verify`, which timeline came from which to `lineage`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use archive::{Archive, Error, Found, Stored};
use serde::{Deserialize, Serialize};
use wal::{SegmentName, SegmentSize, TimelineId, WalFileName};

use crate::positions::Positions;

/// What the names of Walden's own files begin with.
const OWN_PREFIX: &str = "walden.";

/// How many foreign names are kept.
const FOREIGN_LISTED_MAX: usize = 100;

/// After how many objects their number is told once more.
const TOLD_EVERY: u64 = 256;

/// How many objects there are, and their bytes as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of objects.
    pub objects: u64,
    /// Size as stored, in bytes.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// The files of one timeline.
#[derive(Clone, Debug, Default)]
pub struct TimelineFiles {
    /// Segments of the timeline.
    pub segments: Positions,
    /// Number and size of those segments as stored.
    pub stored: Tally,
    /// Partial segments of the timeline.
    pub partials: BTreeSet<SegmentName>,
    /// Whether its timeline history file is there.
    pub has_history: bool,
    /// Its backup history files: segment and offset in it.
    pub backups: BTreeSet<(SegmentName, u32)>,
}

impl TimelineFiles {
    /// Whether it has WAL.
    pub fn has_wal(&self) -> bool {
        !self.segments.is_empty() || !self.partials.is_empty()
    }
}

/// What is neither WAL nor Walden's own.
#[derive(Clone, Debug, Default)]
pub struct Foreign {
    /// How many such objects there are.
    pub count: u64,
    /// The names of the first ones that were met.
    pub names: Vec<String>,
}

/// How an object is stored: another one under the same name has another stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Its size as stored.
    pub bytes: u64,
    /// When it was stored, in nanoseconds since 1970; a time that cannot be told that way is 0.
    pub modified: u64,
}

/// The stamps of files.
pub(crate) type Stamps = BTreeMap<WalFileName, Stamp>;

impl Stamp {
    fn of(stored: &Stored) -> Stamp {
        let since = stored.modified.duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since.unwrap_or(Duration::ZERO).as_nanos();
        Stamp {
            bytes: stored.bytes,
            modified: u64::try_from(nanos).unwrap_or_default(),
        }
    }

    /// When it was stored.
    pub(crate) fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.modified)
    }
}

/// Whether an object that stands beside this name, as `NAME.gz` does, stops a recovery: it asks for the file, and that is not
/// stored under its own name.
pub fn stops_recovery(name: &WalFileName, is_stored: impl FnOnce() -> bool) -> bool {
    let is_asked_for = matches!(
        name,
        WalFileName::Segment(_) | WalFileName::TimelineHistory(_)
    );
    is_asked_for && !is_stored()
}

/// What an archive holds.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// WAL files of each timeline.
    pub timelines: BTreeMap<TimelineId, TimelineFiles>,
    /// Everything that is a file of WAL.
    pub total: Tally,
    /// Everything else, but for Walden's own.
    pub foreign: Foreign,
    /// Names that stand beside a file of WAL's: `NAME.gz`, `NAME.zst`, `NAME.tmp`.
    pub unreadable: Foreign,
    /// Segments that no segment size allows.
    pub impossible: Foreign,
    /// How each file is stored, if that is asked for.
    pub(crate) stamps: Option<Stamps>,
}

impl Inventory {
    /// Takes it, telling now and then how many objects have been found so far.
    ///
    /// # Errors
    /// When the archive cannot be listed to its end.
    pub fn take(archive: &Archive, told: &mut dyn FnMut(u64)) -> Result<Inventory, Error> {
        Inventory::default().taken(archive, told)
    }

    /// The same, with how each file is stored.
    pub(crate) fn take_with_stamps(
        archive: &Archive,
        told: &mut dyn FnMut(u64),
    ) -> Result<Inventory, Error> {
        let inventory = Inventory {
            stamps: Some(Stamps::new()),
            ..Inventory::default()
        };
        inventory.taken(archive, told)
    }

    fn taken(self, archive: &Archive, told: &mut dyn FnMut(u64)) -> Result<Inventory, Error> {
        let mut inventory = self;
        let mut seen = 0_u64;
        archive.each(&mut |found| {
            match found {
                Found::File(stored) => inventory.file(&stored),
                Found::Other(entry) => inventory.other(entry.key),
            }
            seen += 1;
            if seen.is_multiple_of(TOLD_EVERY) {
                told(seen);
            }
            ControlFlow::Continue(())
        })?;
        Ok(inventory)
    }

    /// Takes up what is there by now of what was `wanted` and not listed. True if something is.
    ///
    /// # Errors
    /// When the archive cannot be listed to its end.
    pub(crate) fn add_missed(
        &mut self,
        archive: &Archive,
        wanted: &dyn Fn(&WalFileName) -> bool,
    ) -> Result<bool, Error> {
        let before = self.total.objects;
        archive.each(&mut |found| {
            if let Found::File(stored) = found
                && wanted(&stored.name)
            {
                self.file(&stored);
            }
            ControlFlow::Continue(())
        })?;
        Ok(self.total.objects > before)
    }

    /// That of files which somebody has listed.
    pub fn of(files: &[Stored]) -> Inventory {
        let mut inventory = Inventory::default();
        for stored in files {
            inventory.file(stored);
        }
        inventory
    }

    fn file(&mut self, stored: &Stored) {
        self.total.add(stored.bytes);
        if let Some(stamps) = &mut self.stamps {
            stamps.insert(stored.name, Stamp::of(stored));
        }
        let files = self.timelines.entry(stored.name.timeline()).or_default();
        match stored.name {
            WalFileName::Segment(name) => {
                if files.segments.insert(&name) {
                    files.stored.add(stored.bytes);
                } else {
                    self.impossible.add(stored.key.clone());
                }
            }
            WalFileName::Partial(name) => drop(files.partials.insert(name)),
            WalFileName::TimelineHistory(_) => files.has_history = true,
            WalFileName::BackupHistory { segment, offset } => {
                files.backups.insert((segment, offset));
            }
        }
    }

    fn other(&mut self, key: String) {
        if key.starts_with(OWN_PREFIX) {
            return;
        }
        match archive::beside(&key) {
            Some(_) => self.unreadable.add(key),
            None => self.foreign.add(key),
        }
    }

    /// Takes up a segment by its name.
    pub(crate) fn take_name(&mut self, name: &WalFileName) {
        let files = self.timelines.entry(name.timeline()).or_default();
        match name {
            WalFileName::Segment(name) => drop(files.segments.insert(name)),
            WalFileName::Partial(name) => drop(files.partials.insert(*name)),
            WalFileName::TimelineHistory(_) | WalFileName::BackupHistory { .. } => {}
        }
    }

    /// Takes up the timeline history files of another one.
    pub(crate) fn take_histories(&mut self, other: &Inventory) {
        for (timeline, _) in other.timelines.iter().filter(|(_, it)| it.has_history) {
            self.timelines.entry(*timeline).or_default().has_history = true;
        }
    }

    /// Takes up what in another one is neither a segment nor a timeline history file.
    pub(crate) fn take_others(&mut self, other: &Inventory) {
        for (timeline, files) in other
            .timelines
            .iter()
            .filter(|(_, it)| !it.backups.is_empty())
        {
            let own = self.timelines.entry(*timeline).or_default();
            own.backups.clone_from(&files.backups);
        }
        self.foreign = other.foreign.clone();
        self.unreadable = other.unreadable.clone();
        self.impossible = other.impossible.clone();
    }

    /// All partial segments.
    pub(crate) fn partials(&self) -> Vec<SegmentName> {
        let files = self.timelines.values();
        files
            .flat_map(|files| files.partials.iter())
            .copied()
            .collect()
    }

    /// How long segments are as far as names tell: before the digits in the middle change, the last ones go up to what the
    /// size allows. Where they do not change it does not matter.
    pub(crate) fn likely_size(&self) -> SegmentSize {
        let files = self.timelines.values();
        let all = files.map(|files| &files.segments);
        let (has_changed, last) = Positions::spread(all);
        let per_log_id = (last + 1).next_power_of_two();
        let bytes = (1_u64 << 32) / per_log_id.max(4);
        let likely = SegmentSize::new(bytes).unwrap_or(SegmentSize::DEFAULT);
        if has_changed {
            likely
        } else {
            likely.min(SegmentSize::DEFAULT)
        }
    }

    /// Whether there is no file of WAL at all.
    pub fn is_empty(&self) -> bool {
        self.total.objects == 0
    }

    /// Whether a segment is there.
    pub(crate) fn has_segment(&self, name: &SegmentName) -> bool {
        let files = self.timelines.get(&name.timeline());
        files.is_some_and(|files| files.segments.has(name))
    }

    /// Whether a segment or timeline history file is there under its own name.
    pub(crate) fn has_file(&self, name: &WalFileName) -> bool {
        match name {
            WalFileName::Segment(name) => self.has_segment(name),
            _ => self.has_history(name.timeline()),
        }
    }

    /// Whether a timeline history file is there.
    pub(crate) fn has_history(&self, timeline: TimelineId) -> bool {
        let files = self.timelines.get(&timeline);
        files.is_some_and(|files| files.has_history)
    }
}

impl Foreign {
    fn add(&mut self, name: String) {
        self.count += 1;
        if self.names.len() < FOREIGN_LISTED_MAX {
            self.names.push(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use archive::{MemoryStore, Options};

    use super::*;

    #[test]
    fn names_tell_how_long_segments_are_unless_that_makes_no_difference() {
        let size = |names: &[&str]| {
            let keys: Vec<String> = names.iter().map(|it| format!("00000001{it}")).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            inventory(&keys).likely_size().bytes() >> 20
        };
        assert_eq!(size(&[]), 16);
        assert_eq!(size(&["0000000000000001", "0000000000000002"]), 16);
        assert_eq!(size(&["00000000000000FF", "0000000100000000"]), 16);
        assert_eq!(size(&["0000000000000003", "0000000100000000"]), 1024);
        assert_eq!(size(&["0000000000000FFF", "0000000100000000"]), 1);
        assert_eq!(size(&["0000000000000234"]), 4);
    }

    fn inventory(keys: &[&str]) -> Inventory {
        let store = MemoryStore::new();
        for key in keys {
            store.overwrite(key, b"four");
        }
        let archive = Archive::with_store(Box::new(store), Options::default());
        Inventory::take(&archive, &mut |_| ()).unwrap()
    }

    #[test]
    fn every_object_is_counted_as_what_it_is() {
        let inventory = inventory(&[
            "000000010000000000000001",
            "000000010000000000000002",
            "000000010000000000000003",
            "000000010000000000000004.partial",
            "000000010000000000000002.00000028.backup",
            "000000010000000000001000",
            "00000002.history",
            "walden.json",
            "walden.encrypted",
            "notes.txt",
            "000000010000000000000002.gz",
            "000000010000000000000002.zst",
            "00000002.history.old",
        ]);
        assert_eq!(inventory.total.objects, 7);
        assert_eq!(inventory.total.bytes, 28);
        assert_eq!(inventory.foreign.names, ["notes.txt"]);
        assert_eq!(inventory.unreadable.count, 3);
        assert_eq!(inventory.impossible.names, ["000000010000000000001000"]);
        let first = &inventory.timelines[&TimelineId::FIRST];
        assert_eq!(first.segments.runs(SegmentSize::DEFAULT), [1..=3]);
        assert_eq!((first.partials.len(), first.backups.len()), (1, 1));
        assert_eq!(first.stored.objects, 3);
        let has = |name: &str| inventory.has_segment(&name.parse().unwrap());
        assert!(has("000000010000000000000002"));
        assert!(!has("000000010000000000000004"));
        let second = &inventory.timelines[&TimelineId::new(2).unwrap()];
        assert!(!second.has_wal() && second.has_history);
    }
}
