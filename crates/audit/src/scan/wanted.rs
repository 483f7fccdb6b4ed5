//! What has to be read of an archive, of which something is known already.
//!
//! Guarantees that what is learnt is the same with an index as without. What is known of a segment names the objects that it was
//! learnt from: those behind it, and where a record goes through it, those before it. It counts only as long as the archive has
//! these and no others there. Whatever else is known, however it came to be written down, is read anew, and with it what lies
//! before and behind as far as the same record goes.

use wal::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};

use super::order::Order;
use crate::facts::trail;
use crate::inventory::{Listing, Stamp};

/// A segment, or partial segment, that is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ToRead {
    /// Name of the file.
    pub(crate) file: WalFileName,
    /// Whether for the sake of others alone.
    pub(crate) again: bool,
}

/// What has to be known of a segment to tell whether it has to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outline {
    /// Whether a record goes through all of it.
    pub(crate) goes_through: bool,
    /// How long it is, and of which timeline its first page.
    pub(crate) page: (SegmentSize, TimelineId),
    /// See [`crate::facts::SegmentFacts::switchpoint`].
    pub(crate) switchpoint: Option<Lsn>,
    /// See [`crate::facts::SegmentFacts::trail`].
    pub(crate) trail: Option<u64>,
    /// What was joined with it, in order.
    pub(crate) following: Vec<(WalFileName, Option<Stamp>)>,
}

/// What is known of a file.
pub(crate) enum Known {
    /// Nothing, or something that is not true any more.
    New,
    /// That it is of no use.
    Unreadable,
    /// What is in it.
    Read(Outline),
}

/// Says what is known of a file.
pub(crate) type Ask<'k> = &'k dyn Fn(&WalFileName) -> Known;

/// What becomes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Nothing: it was not asked for.
    Unasked,
    /// It is not read, for what is known of it is true.
    Known,
    /// It is read.
    Wanted,
    /// It is read for the sake of others alone.
    Again,
}

/// What is to be read of the files of a listing, in its order.
pub(crate) struct Plan<'a> {
    listing: &'a Listing,
    how: Vec<How>,
}

impl Plan<'_> {
    /// How many files the listing has.
    pub(crate) fn files(&self) -> usize {
        self.how.len()
    }

    /// The file in this place of the listing, if it is to be read.
    pub(crate) fn at(&self, place: usize) -> Option<ToRead> {
        let again = match self.how.get(place)? {
            How::Unasked | How::Known => return None,
            How::Wanted => false,
            How::Again => true,
        };
        let (file, _) = self.listing.all().get(place)?;
        Some(ToRead { file: *file, again })
    }

    /// Whether a file is to be read.
    pub(crate) fn has(&self, file: &WalFileName) -> bool {
        let place = self.listing.place(file);
        place.is_some_and(|place| self.at(place).is_some())
    }

    fn count(&self, is_such: impl Fn(How) -> bool) -> u64 {
        self.how.iter().filter(|how| is_such(**how)).count() as u64
    }

    /// How many files are to be read.
    pub(crate) fn to_read(&self) -> u64 {
        self.count(|how| matches!(how, How::Wanted | How::Again))
    }

    /// How many of them not for the sake of others.
    pub(crate) fn wanted(&self) -> u64 {
        self.count(|how| how == How::Wanted)
    }

    /// How many files were asked for and need not be read.
    pub(crate) fn known(&self) -> u64 {
        self.count(|how| how == How::Known)
    }
}

/// Plans the reading of segments and partial segments: of those that are asked for, what is not known.
pub(crate) fn plan<'a>(
    order: &Order<'_>,
    listing: &'a Listing,
    is_asked_for: &dyn Fn(&WalFileName) -> bool,
    known: Option<Ask<'_>>,
) -> Plan<'a> {
    let asked = if known.is_some() {
        How::Known
    } else {
        How::Wanted
    };
    let how = |(file, _): &(WalFileName, Stamp)| {
        if is_asked_for(file) {
            asked
        } else {
            How::Unasked
        }
    };
    let how = listing.all().iter().map(how).collect();
    let Some(known) = known else {
        return Plan { listing, how };
    };
    let mut planning = Planning {
        order,
        listing,
        how,
        known,
    };
    planning.want();
    planning.read_again();
    let how = planning.how;
    Plan { listing, how }
}

struct Planning<'a> {
    order: &'a Order<'a>,
    listing: &'a Listing,
    how: Vec<How>,
    known: Ask<'a>,
}

/// Which trail a segment has now.
#[derive(PartialEq, Eq)]
enum Trail {
    /// What is before it has to be read first.
    Open,
    /// What is before it is not known, and not asked for.
    Unasked,
    /// What is before it is known.
    Known(Option<u64>),
}

impl Planning<'_> {
    fn want(&mut self) {
        // What a record goes through whose beginning is to be read anew. What is before a segment has an earlier name.
        let mut moved = vec![false; self.how.len()];
        for (at, (file, _)) in self.listing.all().iter().enumerate() {
            if !self.is_asked_for(at) {
                continue;
            }
            let (is_moved, is_wanted) = match (self.known)(file) {
                Known::New => (true, true),
                Known::Unreadable => (false, false),
                Known::Read(outline) => match file {
                    WalFileName::Segment(name) => {
                        let is_moved =
                            outline.goes_through && self.has_moved(file, &outline, &moved);
                        (is_moved, is_moved || self.is_stale(name, &outline))
                    }
                    _ => (false, false),
                },
            };
            if let (Some(moved), Some(how)) = (moved.get_mut(at), self.how.get_mut(at)) {
                *moved = is_moved;
                if is_wanted {
                    *how = How::Wanted;
                }
            }
        }
    }

    /// Whether the end of a segment that a record goes through was looked at with something else before it than is there.
    fn has_moved(&self, file: &WalFileName, outline: &Outline, moved: &[bool]) -> bool {
        match self.trail(file, outline, moved) {
            Trail::Open => true,
            Trail::Unasked => outline.trail.is_some(),
            Trail::Known(trail) => outline.trail != trail,
        }
    }

    fn trail(&self, file: &WalFileName, outline: &Outline, moved: &[bool]) -> Trail {
        let Some(before) = self.order.before(file, Some(outline.page)) else {
            return Trail::Known(None);
        };
        let name = WalFileName::Segment(before);
        let place = self.listing.place(&name);
        let is_asked_for = place.is_some_and(|at| self.is_asked_for(at));
        let has_moved = place.is_some_and(|at| moved.get(at) == Some(&true));
        match (self.known)(&name) {
            Known::New if is_asked_for => Trail::Open,
            Known::New => Trail::Unasked,
            Known::Unreadable => Trail::Known(None),
            Known::Read(_) if has_moved => Trail::Open,
            Known::Read(of_before) => {
                if !self.follows(file, outline, &before, of_before.page.0) {
                    return Trail::Known(None);
                }
                let so_far = of_before.trail.filter(|_| of_before.goes_through);
                let trail = trail(&name, self.listing.get(&name), so_far);
                match outline.trail {
                    // Nor would it be read if nothing were known.
                    None if !is_asked_for => Trail::Unasked,
                    _ => Trail::Known(Some(trail)),
                }
            }
        }
    }

    /// Whether it is no longer true what was learnt of what lies behind.
    fn is_stale(&self, name: &SegmentName, outline: &Outline) -> bool {
        let size = outline.page.0;
        if self.order.begins_in(name, size) != outline.switchpoint {
            return true;
        }
        let is_there = |(file, stamp): &(WalFileName, Option<Stamp>)| {
            stamp.is_some() && self.listing.get(file) == stamp.as_ref()
        };
        if !outline.following.iter().all(is_there) {
            return true;
        }
        let was_joined = |file: &WalFileName| outline.following.iter().any(|it| it.0 == *file);
        let behind = self.order.behind(name, Some(size));
        // Another history may lead elsewhere.
        let leads_on = |(file, _): &(WalFileName, _)| match (self.known)(file) {
            Known::Read(next) => self.follows(file, &next, name, size),
            _ => true,
        };
        if !outline.following.iter().all(leads_on) {
            return true;
        }
        behind.iter().any(|file| match (self.known)(file) {
            Known::New => self.has(file),
            Known::Read(next) => {
                self.has(file) && self.follows(file, &next, name, size) && !was_joined(file)
            }
            Known::Unreadable => was_joined(file),
        })
    }

    fn follows(
        &self,
        file: &WalFileName,
        next: &Outline,
        name: &SegmentName,
        size: SegmentSize,
    ) -> bool {
        let start = file.segment().and_then(|file| file.start(next.page.0));
        let end = name.start(size).map(|start| Lsn(start.0 + size.bytes()));
        start == end && self.order.before(file, Some(next.page)) == Some(*name)
    }

    fn is_asked_for(&self, at: usize) -> bool {
        self.how.get(at).is_some_and(|how| *how != How::Unasked)
    }

    /// Whether it is one of those that were asked for.
    fn has(&self, file: &WalFileName) -> bool {
        let place = self.listing.place(file);
        place.is_some_and(|at| self.is_asked_for(at))
    }

    /// Has a file read for the sake of others; false if it is read anyhow, or was not asked for.
    fn again(&mut self, file: &WalFileName) -> bool {
        let how = self.listing.place(file).and_then(|at| self.how.get_mut(at));
        let is_new = how.as_ref().is_some_and(|how| **how == How::Known);
        if let (true, Some(how)) = (is_new, how) {
            *how = How::Again;
        }
        is_new
    }

    /// Adds what is to be read for the sake of those that are wanted: what lies behind them, and before those that a record
    /// goes through, back to where it begins.
    fn read_again(&mut self) {
        for (at, (file, _)) in self.listing.all().iter().enumerate() {
            if self.how.get(at) != Some(&How::Wanted) {
                continue;
            }
            let outline = match (self.known)(file) {
                Known::Read(outline) => Some(outline),
                _ => None,
            };
            if let WalFileName::Segment(name) = file {
                let size = outline.as_ref().map(|outline| outline.page.0);
                for next in self.order.behind(name, size) {
                    if matches!((self.known)(&next), Known::Read(_)) {
                        self.again(&next);
                    }
                }
            }
            let mut through = outline.map(|outline| (*file, outline));
            while let Some((file, outline)) = through.take().filter(|(_, it)| it.goes_through) {
                let before = self.order.before(&file, Some(outline.page));
                // Of one that is wanted its own turn sees to the rest.
                if let Some(before) = before.map(WalFileName::Segment)
                    && let Known::Read(outline) = (self.known)(&before)
                    && self.again(&before)
                {
                    through = Some((before, outline));
                }
            }
        }
    }
}
