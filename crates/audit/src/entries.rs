//! What is known of the files of an archive, in memory: of each that is listed, what was read of it.
//!
//! Guarantees that only what was learnt of an object as it is listed now counts, and some hundred bytes for a file. How it is
//! written is left to `packed`, which of it is still true to `scan`.

use std::fmt;
use std::sync::Arc;

use wal::{SystemIdentifier, WalFileName};

use crate::index::{Entry, What};
use crate::inventory::{Listing, Stamp};
use crate::packed::Around;

/// What is known of the files of an archive.
#[derive(Clone, Default)]
pub struct Entries {
    listing: Arc<Listing>,
    /// Where in the bytes each file's begin; 0 where nothing is known.
    begins: Vec<usize>,
    bytes: Vec<u8>,
    /// Whose the first segment is that became known.
    system: Option<SystemIdentifier>,
}

impl Entries {
    /// Nothing, of these files.
    pub(crate) fn of(listing: Arc<Listing>) -> Entries {
        let begins = vec![0; listing.all().len()];
        Entries {
            listing,
            begins,
            bytes: vec![0],
            system: None,
        }
    }

    /// The files.
    pub(crate) fn listing(&self) -> &Arc<Listing> {
        &self.listing
    }

    /// Takes up what was learnt of an object, before or now. What was learnt of one that is not listed so is no use; nor is
    /// then what was learnt of the file before.
    pub fn learn(&mut self, file: WalFileName, entry: &Entry) {
        self.forget(&file);
        let place = self.listing.place(&file);
        if let What::Segment(facts) = &entry.what {
            self.system.get_or_insert(facts.system);
        }
        let begins = self.bytes.len();
        if self.listing.get(&file) == Some(&entry.stamp)
            && let Some(at) = place.and_then(|place| self.begins.get_mut(place))
        {
            let around = Around {
                listing: &self.listing,
                system: self.system.unwrap_or(SystemIdentifier(0)),
                file,
                stamp: entry.stamp,
            };
            if around.pack(&entry.what, &mut self.bytes) {
                *at = begins;
            } else {
                self.bytes.truncate(begins);
            }
        }
    }

    /// Forgets what is known of a file.
    pub fn forget(&mut self, file: &WalFileName) {
        let place = self.listing.place(file);
        if let Some(begins) = place.and_then(|place| self.begins.get_mut(place)) {
            *begins = 0;
        }
    }

    /// Forgets all of it.
    pub fn clear(&mut self) {
        *self = Entries::of(self.listing.clone());
    }

    /// What is known of a file.
    pub(crate) fn get(&self, file: &WalFileName) -> Option<What> {
        self.at(self.listing.place(file)?)
    }

    /// What is known of the file in this place of the listing.
    pub(crate) fn at(&self, place: usize) -> Option<What> {
        let begins = *self.begins.get(place).filter(|begins| **begins > 0)?;
        let (file, stamp) = *self.listing.all().get(place)?;
        let around = Around {
            listing: &self.listing,
            system: self.system.unwrap_or(SystemIdentifier(0)),
            file,
            stamp,
        };
        around.unpack(self.bytes.get(begins..)?)
    }

    /// How many files something is known of.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.begins.iter().filter(|begins| **begins > 0).count() as u64
    }

    /// What is known, in the order of the files' names.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = (WalFileName, Entry)> + '_ {
        let files = self.listing.all().iter().enumerate();
        files.filter_map(|(place, (file, stamp))| Some((*file, self.entry(place, *stamp)?)))
    }

    fn entry(&self, place: usize, stamp: Stamp) -> Option<Entry> {
        let what = self.at(place)?;
        Some(Entry { stamp, what })
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Entries) -> bool {
        self.all().eq(other.all())
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.all()).finish()
    }
}

#[cfg(test)]
mod tests {
    use wal::{Lsn, TimelineId, Timestamp};

    use super::*;
    use crate::facts::{BackupEnd, Beginning, End, Follower, Noted, Over, Problem, RestorePoint};
    use crate::facts::{SegmentFacts, TransactionEnd};
    use crate::fixtures::segment;

    const NAME: &str = "000000020000000000000007";
    const NEXT: &str = "000000020000000000000008";
    const STAMP: Stamp = Stamp {
        bytes: 70_000,
        modified: 1_800_000_000_000_000_000,
    };

    /// What is left of facts once they have been learnt.
    fn kept(facts: SegmentFacts) -> SegmentFacts {
        let next = Entry {
            stamp: STAMP,
            what: What::Text(String::new()),
        };
        let entry = Entry {
            stamp: STAMP,
            what: What::Segment(Box::new(facts)),
        };
        let all = [
            (NAME.parse().unwrap(), entry),
            (NEXT.parse().unwrap(), next),
        ];
        match Entries::made(all).get(&NAME.parse().unwrap()) {
            Some(What::Segment(facts)) => *facts,
            other => panic!("{other:?}"),
        }
    }

    fn follower(stamp: Option<Stamp>, noted: Option<Noted>) -> Follower {
        Follower {
            file: NEXT.parse().unwrap(),
            stamp,
            problem: None,
            over: Some(Over {
                lsn: Lsn(8 * 1024 * 1024 - 40),
                end: Lsn(8 * 1024 * 1024 + 80),
                noted: noted.map(Box::new),
            }),
        }
    }

    #[test]
    fn what_was_learnt_of_a_segment_is_kept_to_the_last_bit() {
        let mut facts = SegmentFacts {
            stamp: STAMP,
            ..segment(NAME).facts
        };
        assert_eq!(kept(facts.clone()), facts);
        let end = |at: i64, xid, is_commit| TransactionEnd {
            lsn: Lsn(u64::MAX - 1),
            end: Lsn(1),
            at: Timestamp(at),
            xid,
            is_commit,
        };
        let ends = [
            end(i64::MIN, None, true),
            end(i64::MAX, Some(u32::MAX), false),
            end(0, Some(0), true),
            end(-5, None, false),
        ];
        for end in ends {
            facts.ends.add(end);
            let noted = Noted::Transaction(end);
            facts.following = vec![follower(Some(STAMP), Some(noted))];
            assert_eq!(kept(facts.clone()), facts, "{end:?}");
        }
        facts.ends.commits = u64::MAX;
        facts.end = End::Ended(Lsn(u64::MAX));
        facts.last = Some(Lsn(0));
        facts.first_timeline = TimelineId::FIRST;
        facts.system = SystemIdentifier(u64::MAX);
        (facts.has_findings, facts.goes_through) = (true, true);
        facts.first_checkpoint = Some(Timestamp(i64::MIN));
        facts.last_checkpoint = Some(Timestamp(i64::MAX));
        assert_eq!(kept(facts.clone()), facts);
        facts.end = End::Switched(facts.start);
        facts.switchpoint = Some(Lsn(9));
        facts.trail = Some(u64::MAX);
        facts.left_out = 3;
        let (start, at) = (facts.start, Timestamp(i64::MIN));
        facts.restore_points = vec![RestorePoint {
            name: "one \"more\"".to_owned(),
            lsn: start,
            end: Lsn(0),
            at,
        }];
        facts.beginnings = vec![Beginning {
            timeline: TimelineId::FIRST,
            at: None,
        }];
        let latest = Some(at);
        facts.backup_ends = vec![BackupEnd { start, latest }];
        assert_eq!(kept(facts.clone()), facts);
    }

    #[test]
    fn whatever_follows_a_segment_is_kept_as_it_was_looked_at() {
        let mut facts = SegmentFacts {
            stamp: STAMP,
            ..segment(NAME).facts
        };
        // One that is stored otherwise, one with more about it, and several.
        let problem = Problem {
            lsn: Lsn(7),
            why: "so".to_owned(),
        };
        let broken = Follower {
            problem: Some(problem),
            ..follower(Some(STAMP), None)
        };
        let others = [
            follower(None, None),
            follower(Some(STAMP), Some(Noted::BackupEnd(Lsn(5)))),
            broken,
        ];
        for other in others {
            facts.following = vec![other.clone()];
            assert_eq!(kept(facts.clone()), facts);
            facts.following = vec![follower(Some(STAMP), None), other];
            assert_eq!(kept(facts.clone()), facts);
        }
    }

    #[test]
    fn what_is_of_another_object_or_of_no_segment_is_not_learnt_and_makes_forget_what_was() {
        let facts = segment(NAME).facts;
        let entry = |facts: &SegmentFacts, bytes| Entry {
            stamp: Stamp { bytes, ..STAMP },
            what: What::Segment(Box::new(facts.clone())),
        };
        let (file, first) = (NAME.parse().unwrap(), entry(&facts, 1));
        let mut entries = Entries::made([(file, first.clone())]);
        assert_eq!((entries.count(), entries.all().count()), (1, 1));
        let mut elsewhere = facts.clone();
        elsewhere.start = Lsn(0);
        let mut sizeless = facts.clone();
        sizeless.segment_bytes = 3;
        let mut misnamed = facts;
        misnamed.name = NEXT.parse().unwrap();
        for facts in [elsewhere, sizeless, misnamed] {
            entries.learn(file, &entry(&facts, 1));
            assert_eq!(entries.get(&file), None);
            entries.learn(file, &first);
            assert!(entries.get(&file).is_some());
        }
        entries.learn(file, &entry(&segment(NAME).facts, 2));
        assert_eq!(entries.count(), 0);
        entries.learn(NEXT.parse().unwrap(), &first);
        assert_eq!(entries.count(), 0);
    }
}
