//! What an archive holds, by name: one listing, in memory that stays small for a million objects.
//!
//! Guarantees that every object is counted, as a file of WAL or as something else. What is in the objects is left to
//! `verify`, which timeline came from which to `lineage`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use archive::{Archive, CompressionKind, Error, Found, Stored};
use wal::{SegmentName, SegmentSize, TimelineId, WalFileName};

use crate::positions::Positions;

/// What the names of Walden's own files begin with.
const OWN_PREFIX: &str = "walden.";

/// How many foreign names are kept.
const FOREIGN_LISTED_MAX: usize = 100;

/// After how many objects their number is told once more.
const TOLD_EVERY: u64 = 256;

/// In which form a file is stored, which its suffixes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Form {
    /// How it is compressed.
    pub compression: CompressionKind,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

impl Form {
    /// Every form, in the order in which they are looked for.
    pub const ALL: [Form; 6] = [
        Form::new(CompressionKind::None, false),
        Form::new(CompressionKind::Zstd, false),
        Form::new(CompressionKind::Lz4, false),
        Form::new(CompressionKind::None, true),
        Form::new(CompressionKind::Zstd, true),
        Form::new(CompressionKind::Lz4, true),
    ];

    const fn new(compression: CompressionKind, encrypted: bool) -> Form {
        Form {
            compression,
            encrypted,
        }
    }

    fn of(stored: &Stored) -> Form {
        Form::new(stored.compression, stored.encrypted)
    }

    /// The key of a file in this form.
    pub(crate) fn key(self, name: &WalFileName) -> String {
        archive::stored_key(name, self.compression, self.encrypted)
    }
}

/// How many objects there are, and their bytes as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Objects.
    pub objects: u64,
    /// Bytes.
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
    /// Its segments, in each form they have.
    pub segments: BTreeMap<Form, Positions>,
    /// The sizes of those.
    pub stored: BTreeMap<Form, Tally>,
    /// Its partial segments.
    pub partials: BTreeMap<SegmentName, Vec<Form>>,
    /// In which forms its timeline history file is there.
    pub history: Vec<Form>,
    /// Its backup history files: segment and offset in it.
    pub backups: BTreeMap<(SegmentName, u32), Vec<Form>>,
}

impl TimelineFiles {
    /// Its segments in any form.
    pub fn positions(&self) -> Positions {
        let mut all = Positions::default();
        for positions in self.segments.values() {
            all.add(positions);
        }
        all
    }

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

/// What an archive holds.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// The files of WAL.
    pub timelines: BTreeMap<TimelineId, TimelineFiles>,
    /// Everything that is a file of WAL.
    pub total: Tally,
    /// Everything else, but for Walden's own.
    pub foreign: Foreign,
    /// Names that begin like a file of WAL and go on in a way that nobody reads: `.gz`, `.tmp`.
    pub unreadable: Foreign,
    /// Segments that no segment size allows.
    pub impossible: Foreign,
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
        let form = Form::of(stored);
        self.total.add(stored.bytes);
        let files = self.timelines.entry(stored.name.timeline()).or_default();
        match stored.name {
            WalFileName::Segment(name) => {
                if files.segments.entry(form).or_default().insert(&name) {
                    files.stored.entry(form).or_default().add(stored.bytes);
                } else {
                    self.impossible.add(stored.key.clone());
                }
            }
            WalFileName::Partial(name) => files.partials.entry(name).or_default().push(form),
            WalFileName::TimelineHistory(_) => files.history.push(form),
            WalFileName::BackupHistory { segment, offset } => files
                .backups
                .entry((segment, offset))
                .or_default()
                .push(form),
        }
    }

    fn other(&mut self, key: String) {
        if key.starts_with(OWN_PREFIX) {
            return;
        }
        match begins_like_wal(&key) {
            true => self.unreadable.add(key),
            false => self.foreign.add(key),
        }
    }

    /// All partial segments.
    pub(crate) fn partials(&self) -> Vec<SegmentName> {
        let files = self.timelines.values();
        files
            .flat_map(|files| files.partials.keys())
            .copied()
            .collect()
    }

    /// How long segments are as far as names tell: before the digits in the middle change, the last ones go up to what the
    /// size allows. Where they do not change it does not matter.
    pub(crate) fn likely_size(&self) -> SegmentSize {
        let files = self.timelines.values();
        let all = files.flat_map(|files| files.segments.values());
        let (has_changed, last) = Positions::spread(all);
        let per_log_id = (last + 1).next_power_of_two();
        let bytes = (1_u64 << 32) / per_log_id.max(4);
        let likely = SegmentSize::new(bytes).unwrap_or(SegmentSize::DEFAULT);
        match has_changed {
            true => likely,
            false => likely.min(SegmentSize::DEFAULT),
        }
    }

    /// Whether there is no file of WAL at all.
    pub fn is_empty(&self) -> bool {
        self.total.objects == 0
    }

    /// In which forms a segment is stored.
    pub(crate) fn forms_of(
        &self,
        timeline: TimelineId,
        number: u64,
        size: SegmentSize,
    ) -> Vec<Form> {
        let files = self.timelines.get(&timeline);
        let forms = files.iter().flat_map(|files| files.segments.iter());
        forms
            .filter(|(_, positions)| positions.contains(number, size))
            .map(|(form, _)| *form)
            .collect()
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

/// Whether a key that is no file of WAL has such a name up to one of its dots.
fn begins_like_wal(key: &str) -> bool {
    key.match_indices('.')
        .filter_map(|(dot, _)| key.get(..dot))
        .any(|front| front.parse::<WalFileName>().is_ok())
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
            "000000010000000000000001.zst",
            "000000010000000000000002.zst",
            "000000010000000000000002",
            "000000010000000000000003.lz4.age",
            "000000010000000000000004.partial.zst",
            "000000010000000000000002.00000028.backup",
            "000000010000000000001000",
            "00000002.history",
            "walden.json",
            "walden.form.zst",
            "notes.txt",
            "000000010000000000000002.gz",
            "00000002.history.old",
        ]);
        assert_eq!(inventory.total.objects, 8);
        assert_eq!(inventory.total.bytes, 32);
        assert_eq!(inventory.foreign.names, ["notes.txt"]);
        assert_eq!(inventory.unreadable.count, 2);
        assert_eq!(inventory.impossible.names, ["000000010000000000001000"]);
        let first = &inventory.timelines[&TimelineId::FIRST];
        assert_eq!(first.positions().runs(SegmentSize::DEFAULT), [1..=3]);
        assert_eq!((first.partials.len(), first.backups.len()), (1, 1));
        let zstd = Form::new(CompressionKind::Zstd, false);
        assert_eq!(first.stored[&zstd].objects, 2);
        let twins = inventory.forms_of(TimelineId::FIRST, 2, SegmentSize::DEFAULT);
        assert_eq!(twins, [Form::ALL[0], zstd]);
        let second = &inventory.timelines[&TimelineId::new(2).unwrap()];
        assert!(!second.has_wal() && second.history == [Form::ALL[0]]);
    }
}
