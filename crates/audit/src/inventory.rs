//! What an archive holds, by name: one listing, some 40 bytes for each file.
//!
//! Guarantees that every object is counted, as a file of WAL or as something else. What is in the objects is left to
//! `verify`, which timeline came from which to `lineage`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use archive::{Archive, Error, Found, Stored};
use serde::{Deserialize, Serialize};
use wal::{SegmentName, SegmentSize, TimelineId, Timestamp, WalFileName};

use crate::lineage::{Run, Runs};

/// What the names of Walden's own files begin with.
const OWN_PREFIX: &str = "walden.";

/// How many foreign names are kept.
const FOREIGN_LISTED_MAX: usize = 100;

/// After how many objects their number is told once more.
const TOLD_EVERY: u64 = 256;

/// No segment size has more segments to the middle eight digits of a name.
const LOW_MAX: u32 = 4096;

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
    /// Number of its segments, and their size as stored.
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
        self.stored.objects > 0 || !self.partials.is_empty()
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Its size as stored.
    pub bytes: u64,
    /// When it was stored, in nanoseconds since 1970; a time that cannot be told that way is 0.
    pub modified: u64,
}

/// The files of an archive in the order of their names, and how each is stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing(Vec<(WalFileName, Stamp)>);

impl Listing {
    /// All of them.
    pub(crate) fn all(&self) -> &[(WalFileName, Stamp)] {
        &self.0
    }

    /// The place of a file in the order.
    pub(crate) fn place(&self, file: &WalFileName) -> Option<usize> {
        self.0.binary_search_by_key(file, |it| it.0).ok()
    }

    /// How a file is stored.
    pub(crate) fn get(&self, file: &WalFileName) -> Option<&Stamp> {
        self.0.get(self.place(file)?).map(|(_, stamp)| stamp)
    }

    /// Those of one timeline.
    fn of(&self, timeline: TimelineId) -> &[(WalFileName, Stamp)] {
        let from = self.0.partition_point(|it| it.0.timeline() < timeline);
        let rest = self.0.get(from..).unwrap_or_default();
        let count = rest.partition_point(|it| it.0.timeline() == timeline);
        rest.get(..count).unwrap_or_default()
    }
}

impl Stamp {
    fn of(stored: &Stored) -> Stamp {
        let since = stored.modified.duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since.unwrap_or(Duration::ZERO).as_nanos();
        Stamp {
            bytes: stored.bytes,
            modified: u64::try_from(nanos).unwrap_or_default(),
        }
    }

    /// When it was stored, by the store's clock.
    pub(crate) fn timestamp(&self) -> Timestamp {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(self.modified);
        Timestamp::from_system_time(time).unwrap_or(Timestamp(0))
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
    /// All files of WAL.
    pub(crate) listing: Arc<Listing>,
}

impl Inventory {
    /// Takes it, telling now and then how many objects have been found so far.
    ///
    /// # Errors
    /// When the archive cannot be listed to its end.
    pub fn take(archive: &Archive, told: &mut dyn FnMut(u64)) -> Result<Inventory, Error> {
        let mut inventory = Inventory::default();
        let mut seen = 0_u64;
        archive.each(&mut |found| {
            match found {
                Found::File(stored) => inventory.put(stored.name, Stamp::of(&stored)),
                Found::Other(entry) => inventory.other(entry.key),
            }
            seen += 1;
            if seen.is_multiple_of(TOLD_EVERY) {
                told(seen);
            }
            ControlFlow::Continue(())
        })?;
        inventory.sort();
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
                self.put(stored.name, Stamp::of(&stored));
            }
            ControlFlow::Continue(())
        })?;
        self.sort();
        Ok(self.total.objects > before)
    }

    /// That of files which have been listed.
    pub fn of(files: &[Stored]) -> Inventory {
        let mut inventory = Inventory::default();
        for stored in files {
            inventory.put(stored.name, Stamp::of(stored));
        }
        inventory.sort();
        inventory
    }

    /// Takes up a file; the listing is to be sorted afterwards.
    pub(crate) fn put(&mut self, file: WalFileName, stamp: Stamp) {
        self.total.add(stamp.bytes);
        Arc::make_mut(&mut self.listing).0.push((file, stamp));
        let files = self.timelines.entry(file.timeline()).or_default();
        match file {
            WalFileName::Segment(name) if is_possible(&name) => files.stored.add(stamp.bytes),
            WalFileName::Segment(name) => self.impossible.add(name.to_string()),
            WalFileName::Partial(name) => drop(files.partials.insert(name)),
            WalFileName::TimelineHistory(_) => files.has_history = true,
            WalFileName::BackupHistory { segment, offset } => {
                files.backups.insert((segment, offset));
            }
        }
    }

    pub(crate) fn sort(&mut self) {
        let listing = Arc::make_mut(&mut self.listing);
        listing.0.sort_unstable_by_key(|(file, _)| *file);
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

    /// The segments of a timeline, in order.
    pub(crate) fn segments(
        &self,
        timeline: TimelineId,
    ) -> impl Iterator<Item = SegmentName> + Clone + '_ {
        let files = self.listing.of(timeline).iter();
        files.filter_map(|(file, _)| match file {
            WalFileName::Segment(name) if is_possible(name) => Some(*name),
            _ => None,
        })
    }

    /// Where the segments of each timeline that has WAL follow one another, if they are of this size. Names that it does not
    /// have are left out.
    pub(crate) fn runs(&self, size: SegmentSize) -> Runs {
        let with_wal = self.timelines.iter().filter(|(_, files)| files.has_wal());
        with_wal
            .map(|(timeline, _)| (*timeline, self.runs_of(*timeline, size)))
            .collect()
    }

    pub(crate) fn runs_of(&self, timeline: TimelineId, size: SegmentSize) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let names = self.segments(timeline);
        for number in names.filter_map(|name| Some(name.number(size)?.0)) {
            match runs.last_mut() {
                Some(run) if *run.end() + 1 == number => *run = *run.start()..=number,
                _ => runs.push(number..=number),
            }
        }
        runs
    }

    /// The segments whose names those of this size do not have.
    pub(crate) fn impossible(&self, size: SegmentSize) -> impl Iterator<Item = SegmentName> + '_ {
        let all = self.timelines.keys().flat_map(|it| self.segments(*it));
        all.filter(move |name| name.number(size).is_none())
    }

    /// How long segments are as far as names tell: before the digits in the middle change, the last ones go up to what the
    /// size allows. Where they do not change it does not matter.
    pub(crate) fn likely_size(&self) -> SegmentSize {
        let (mut first, mut has_changed, mut highest) = (None, false, 0);
        for name in self.timelines.keys().flat_map(|it| self.segments(*it)) {
            let (high, low) = name.position();
            has_changed |= *first.get_or_insert(high) != high;
            highest = highest.max(u64::from(low));
        }
        let per_log_id = (highest + 1).next_power_of_two();
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
    pub fn has_segment(&self, name: &SegmentName) -> bool {
        is_possible(name) && self.listing.place(&WalFileName::Segment(*name)).is_some()
    }

    /// Whether a segment is there, and has any bytes, of which an empty file or a name that is no file has none.
    pub fn has_bytes_of(&self, name: &SegmentName) -> bool {
        let stamp = self.listing.get(&WalFileName::Segment(*name));
        is_possible(name) && stamp.is_some_and(|stamp| stamp.bytes > 0)
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

/// Whether segments of any size have such a name.
pub(crate) fn is_possible(name: &SegmentName) -> bool {
    name.position().1 < LOW_MAX
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
    use wal::SegmentNumber;

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
        let runs = inventory.runs(SegmentSize::DEFAULT);
        assert_eq!(runs[&TimelineId::FIRST], [1..=3]);
        assert_eq!((first.partials.len(), first.backups.len()), (1, 1));
        assert_eq!(first.stored.objects, 3);
        let has = |name: &str| inventory.has_segment(&name.parse().unwrap());
        assert!(has("000000010000000000000002"));
        assert!(!has("000000010000000000000004"));
        let second = &inventory.timelines[&TimelineId::new(2).unwrap()];
        assert!(!second.has_wal() && second.has_history);
    }

    #[test]
    fn runs_go_over_the_middle_digits_as_the_segment_size_says() {
        let inventory = inventory(&[
            "0000000100000002000000FF",
            "000000010000000300000000",
            "000000010000000300000001",
            "000000010000000300000003",
        ]);
        let runs = |size| inventory.runs_of(TimelineId::FIRST, size);
        assert_eq!(runs(SegmentSize::DEFAULT), [0x2FF..=0x301, 0x303..=0x303]);
        let name = |number| SegmentName::new(TimelineId::FIRST, number, SegmentSize::DEFAULT);
        assert!(inventory.has_segment(&name(SegmentNumber(0x300))));
        assert!(!inventory.has_segment(&name(SegmentNumber(0x302))));
        // With 1 MB there are 4096 to the middle digits.
        let small = runs(SegmentSize::SMALLEST);
        assert_eq!(small, [0x20FF..=0x20FF, 0x3000..=0x3001, 0x3003..=0x3003]);
        let impossible: Vec<_> = inventory.impossible(SegmentSize::LARGEST).collect();
        assert_eq!(impossible, [name(SegmentNumber(0x2FF))]);
        assert_eq!(inventory.segments(TimelineId::FIRST).count(), 4);
        // One that no size allows.
        assert!(!inventory.has_segment(&"000000010000000200001000".parse().unwrap()));
    }

    #[test]
    fn a_segment_without_bytes_is_there_and_has_none() {
        let store = MemoryStore::new();
        store.overwrite("000000010000000000000001", b"four");
        store.overwrite("000000010000000000000002", b"");
        let archive = Archive::with_store(Box::new(store), Options::default());
        let inventory = Inventory::take(&archive, &mut |_| ()).unwrap();
        let told = [1, 2, 3].map(|number| {
            let name = SegmentName::new(
                TimelineId::FIRST,
                SegmentNumber(number),
                SegmentSize::DEFAULT,
            );
            (inventory.has_segment(&name), inventory.has_bytes_of(&name))
        });
        assert_eq!(told, [(true, true), (true, false), (false, false)]);
    }
}
