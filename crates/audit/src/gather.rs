//! Facts of everything that an archive holds: what is new since the last time is read.
//!
//! Guarantees that memory is bounded but for what `entries` keeps. What cannot be decoded is noted as such; an archive that
//! cannot be asked is an error, never an archive that holds less. Partial segments are left out, because no recovery asks for
//! them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use archive::{Archive, Cancel, Error, ErrorKind};
use wal::{SegmentSize, TimelineHistory, WalFileName};

use crate::entries::Entries;
use crate::facts::SegmentFacts;
use crate::index::{Entry, Index, What};
use crate::inventory::{Inventory, Listing};
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
    /// The index, if there is one.
    pub index: Option<Index>,
    /// Why not all of it is in the index, if so.
    pub not_kept: Option<std::io::Error>,
}

impl Gathering<'_> {
    /// Brings up to date what is known, and adds what is new to the index. Once the archive is listed, `open` opens that, if
    /// there is one, and says what is in it.
    ///
    /// # Errors
    /// When the archive cannot be listed or read, or an identity is missing.
    pub fn update(
        &self,
        open: impl FnOnce(&mut Entries) -> Option<Index>,
    ) -> Result<Gathered, Error> {
        let inventory = Inventory::take(self.archive, &mut |count| (self.listed)(count))?;
        let mut entries = Entries::of(inventory.listing.clone());
        let index = open(&mut entries);
        for partial in inventory.partials() {
            entries.forget(&WalFileName::Partial(partial));
        }
        let listing: Arc<Listing> = inventory.listing.clone();
        let mut keeping = Keeping {
            entries,
            index,
            not_kept: None,
        };
        if let Some(index) = &keeping.index {
            // If it cannot be, neither can the index.
            drop(index.folder());
        }
        let is_unknown = |name: &WalFileName| keeping.entries.get(name).is_none();
        let mut texts = small::names(&inventory);
        let all_texts = texts.clone();
        texts.retain(is_unknown);
        // How many segments are to be read shows once the histories are known.
        let (texts_read, so_far) = (texts.len() as u64, AtomicU64::new(0));
        let told = || (self.read)(so_far.fetch_add(1, Ordering::AcqRel) + 1, texts_read);
        let small = self.files().read(&texts, &told);
        keeping.texts(small)?;
        let lineage = lineage(&all_texts, &keeping.entries);
        let size = self.size(&inventory, &keeping.entries)?;
        let order = Order::of(&inventory, &lineage, size);
        let plan = to_read(&order, &listing, &keeping.entries, &lineage);
        let all = texts_read + plan.to_read();
        let scan = Scan {
            expected: &Expected {
                archive: self.archive,
                measure: None,
                lineage: &lineage,
                cancel: self.cancel,
            },
            order: &order,
            readers: self.jobs,
            stamps: Some(&listing),
            gone_after: 1,
            told: &|segments| (self.read)(texts_read + segments, all),
        };
        let tally = scan.run(&plan, &mut |scanned| keeping.take(scanned));
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
            read: texts_read + plan.wanted(),
            not_kept: keeping.not_kept,
            index: keeping.index,
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
        let known = entries.all().rev().find_map(|(_, entry)| match entry.what {
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
fn lineage(texts: &[WalFileName], entries: &Entries) -> Lineage {
    let mut lineage = Lineage::default();
    for name in texts {
        if let WalFileName::TimelineHistory(timeline) = name
            && let Some(What::Text(text)) = entries.get(name)
            && let Ok(history) = TimelineHistory::parse(*timeline, text.as_bytes())
        {
            lineage.add(history);
        }
    }
    lineage
}

fn to_read<'a>(
    order: &Order<'_>,
    listing: &'a Listing,
    entries: &Entries,
    lineage: &Lineage,
) -> Plan<'a> {
    let is_segment = |file: &WalFileName| matches!(file, WalFileName::Segment(_));
    let known = |file: &WalFileName| entries.known(file, lineage);
    plan(order, listing, &is_segment, Some(&known))
}

impl Entries {
    /// What a plan has to know of a file. What these histories contradict is to be read again.
    pub(crate) fn known(&self, file: &WalFileName, lineage: &Lineage) -> Known {
        match self.get(file) {
            Some(What::Segment(facts)) if facts.fits(lineage) => {
                facts.outline().map_or(Known::New, Known::Read)
            }
            None | Some(What::Segment(_) | What::Unfit(_)) => Known::New,
            Some(What::Unreadable(_) | What::Text(_)) => Known::Unreadable,
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
struct Keeping {
    entries: Entries,
    index: Option<Index>,
    not_kept: Option<std::io::Error>,
}

impl Keeping {
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
            self.entries.forget(&file);
        }
    }

    fn put(&mut self, name: WalFileName, what: What) {
        let Some(stamp) = self.entries.listing().get(&name).copied() else {
            return;
        };
        let entry = Entry { stamp, what };
        if self.not_kept.is_none()
            && let Some(index) = &mut self.index
        {
            self.not_kept = index.add(name, &entry).err();
        }
        self.entries.learn(name, &entry);
    }
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
