//! Facts of everything that an archive holds: what is new since the last time is read.
//!
//! Guarantees that memory is bounded but for the facts. What cannot be decoded is noted as such; an archive that cannot be asked
//! is an error, never an archive that holds less. Partial segments are left out, because no recovery asks for them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use archive::{Archive, Cancel, Error, ErrorKind};
use wal::{SegmentSize, TimelineHistory, WalFileName};

use crate::facts::SegmentFacts;
use crate::index::{Entries, Entry, Index, What};
use crate::inventory::{Inventory, Stamps};
use crate::lineage::Lineage;
use crate::measure::{Voters, is_of_object, measure};
use crate::scan::small::{self, Small};
use crate::scan::{Expected, Known, Order, Outline, Plan, Scan, Scanned, plan};

/// How an archive is read.
pub struct Gathering<'a> {
    /// Archive to read.
    pub archive: &'a Archive,
    /// How many files are read at a time.
    pub jobs: usize,
    /// Told how many files have been listed.
    pub listed: &'a (dyn Fn(u64) + Sync),
    /// Told how many files of how many have been read.
    pub read: &'a (dyn Fn(u64, u64) + Sync),
    /// Ends the reading early.
    pub cancel: &'a Cancel,
}

/// What is known of an archive now.
#[derive(Debug)]
pub struct Gathered {
    /// Of each file.
    pub entries: Entries,
    /// How many files had to be read.
    pub read: u64,
    /// Why not all of it is in the index, if so.
    pub not_kept: Option<std::io::Error>,
}

impl Gathering<'_> {
    /// Brings up to date what is known, and adds what is new to the index.
    ///
    /// # Errors
    /// When the archive cannot be listed or read, or an identity is missing.
    pub fn update(&self, known: Entries, index: Option<&mut Index>) -> Result<Gathered, Error> {
        let mut inventory =
            Inventory::take_with_stamps(self.archive, &mut |count| (self.listed)(count))?;
        let stamps = inventory.stamps.take().unwrap_or_default();
        let mut keeping = Keeping {
            stamps: &stamps,
            entries: known,
            index,
            not_kept: None,
        };
        keeping.forget();
        if let Some(index) = &keeping.index {
            // If it cannot be, neither can the index.
            drop(index.folder());
        }
        let texts: Vec<WalFileName> = small::names(&inventory)
            .into_iter()
            .filter(|name| !keeping.entries.contains_key(name))
            .collect();
        // How many segments are to be read shows once the histories are known.
        let (texts_read, so_far) = (texts.len() as u64, AtomicU64::new(0));
        let told = || (self.read)(so_far.fetch_add(1, Ordering::AcqRel) + 1, texts_read);
        let small = self.files().read(&texts, &told);
        keeping.texts(small)?;
        let lineage = lineage(&keeping.entries);
        let size = self.size(&inventory, &keeping.entries)?;
        let order = Order::of(&inventory, &lineage, size);
        let plan = to_read(&order, &stamps, &keeping.entries, &lineage);
        let all = texts_read + plan.to_read.len() as u64;
        let scan = Scan {
            expected: &Expected {
                archive: self.archive,
                measure: None,
                lineage: &lineage,
                cancel: self.cancel,
            },
            order: &order,
            readers: self.jobs,
            stamps: Some(&stamps),
            gone_after: 1,
            told: &|segments| (self.read)(texts_read + segments, all),
        };
        let tally = scan.run(&plan.to_read, &mut |scanned| keeping.take(scanned));
        if let Some(failure) = tally.failure {
            return Err(failure);
        }
        if self.cancel.is_cancelled() {
            return Err(Error::new(
                ErrorKind::Cancelled,
                "reading of the archive was cancelled",
            ));
        }
        Ok(Gathered {
            read: texts_read + plan.wanted,
            not_kept: keeping.not_kept,
            entries: keeping.entries,
        })
    }

    fn files(&self) -> small::Files<'_> {
        small::Files {
            archive: self.archive,
            cancel: self.cancel,
            readers: self.jobs,
            gives_up: &|why| !is_of_object(why),
        }
    }

    /// How long segments are that do not say so: as one that is known, or else as the first one that can be asked.
    fn size(&self, inventory: &Inventory, entries: &Entries) -> Result<SegmentSize, Error> {
        let known = entries.values().rev().find_map(|entry| match &entry.what {
            What::Segment(facts) => facts.size(),
            _ => None,
        });
        match known {
            Some(size) => Ok(size),
            None => Ok(measure(self.archive, inventory, None, Voters::One, self.cancel)?.size),
        }
    }
}

/// The timeline history files that are known and can be read.
fn lineage(entries: &Entries) -> Lineage {
    let mut lineage = Lineage::default();
    for (name, entry) in entries {
        if let (WalFileName::TimelineHistory(timeline), What::Text(text)) = (name, &entry.what)
            && let Ok(history) = TimelineHistory::parse(*timeline, text.as_bytes())
        {
            lineage.add(history);
        }
    }
    lineage
}

fn to_read(order: &Order<'_>, stamps: &Stamps, entries: &Entries, lineage: &Lineage) -> Plan {
    let is_segment = |file: &&WalFileName| matches!(file, WalFileName::Segment(_));
    let segments: Vec<WalFileName> = stamps.keys().filter(is_segment).copied().collect();
    let known = |file: &WalFileName| match entries.get(file) {
        None => Known::New,
        Some(entry) => entry.known(lineage),
    };
    plan(order, &segments, Some((&known, stamps)))
}

impl Entry {
    /// What a plan has to know of it. What these histories contradict is to be read again.
    pub(crate) fn known(&self, lineage: &Lineage) -> Known {
        match &self.what {
            What::Segment(facts) if facts.fits(lineage) => {
                facts.outline().map_or(Known::New, Known::Read)
            }
            What::Segment(_) | What::Unfit(_) => Known::New,
            What::Unreadable(_) | What::Text(_) => Known::Unreadable,
        }
    }
}

impl SegmentFacts {
    /// Whether its first page is of the timeline that its timeline history file, if there is one, leads over there.
    fn fits(&self, lineage: &Lineage) -> bool {
        let history = lineage.history(self.name.timeline());
        let timeline = history.map(|history| history.timeline_at(self.start));
        timeline.is_none_or(|timeline| timeline == self.first_timeline)
    }

    /// `None` if the facts are not of a segment.
    fn outline(&self) -> Option<Outline> {
        Some(Outline {
            goes_through: self.goes_through,
            page: (self.size()?, self.first_timeline),
            switchpoint: self.switchpoint,
            trail: self.trail,
            following: self
                .following
                .iter()
                .map(|it| (it.file, it.stamp))
                .collect(),
        })
    }
}

/// What is learnt, on its way to where it stays.
struct Keeping<'a> {
    stamps: &'a Stamps,
    entries: Entries,
    index: Option<&'a mut Index>,
    not_kept: Option<std::io::Error>,
}

impl Keeping<'_> {
    /// Forgets what is not true any more, of objects that have changed, and what is of no use here: partial segments.
    fn forget(&mut self) {
        let stamps = self.stamps;
        self.entries.retain(|name, entry| {
            let is_partial = matches!(name, WalFileName::Partial(_));
            !is_partial && stamps.get(name) == Some(&entry.stamp)
        });
    }

    fn texts(&mut self, small: BTreeMap<WalFileName, Small>) -> Result<(), Error> {
        for (name, small) in small {
            match small {
                Small::Contents(bytes) => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    self.put(name, What::Text(text));
                }
                Small::TooLong => self.put(name, What::Unreadable(small::too_long())),
                // Cleaned up meanwhile.
                Small::Gone => {}
                Small::Failed(why) if is_of_object(&why) => {
                    self.put(name, What::Unreadable(why.to_string()));
                }
                Small::Failed(why) => return Err(why),
            }
        }
        Ok(())
    }

    fn take(&mut self, scanned: Scanned) {
        if scanned.is_as_known() {
            return;
        }
        let file = scanned.file;
        if let Some(what) = scanned.known() {
            self.put(file, what);
        } else {
            self.entries.remove(&file);
        }
    }

    fn put(&mut self, name: WalFileName, what: What) {
        let Some(stamp) = self.stamps.get(&name) else {
            return;
        };
        let entry = Entry {
            stamp: *stamp,
            what,
        };
        if self.not_kept.is_none()
            && let Some(index) = &mut self.index
        {
            self.not_kept = index.add(name, &entry).err();
        }
        self.entries.insert(name, entry);
    }
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
