//! What has to be read of an archive, of which something is known already.
//!
//! Guarantees that what is learnt is the same with an index as without. What is known of a segment names the objects that it was
//! learnt from: those behind it, and where a record goes through it, those before it. It counts only as long as the archive has
//! these and no others there. Whatever else is known, however it came to be written down, is read anew, and with it what lies
//! before and behind as far as the same record goes.

use std::collections::BTreeSet;

use wal::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};

use super::order::Order;
use crate::facts::trail;
use crate::inventory::{Stamp, Stamps};

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

/// What is to be read.
#[derive(Default)]
pub(crate) struct Plan {
    /// In order.
    pub(crate) to_read: Vec<ToRead>,
    /// How many of them not for the sake of others.
    pub(crate) wanted: u64,
}

/// Plans the reading of these segments and partial segments, which are in order; `known` if anything is, of objects with these
/// stamps.
pub(crate) fn plan(
    order: &Order<'_>,
    files: &[WalFileName],
    known: Option<(Ask<'_>, &Stamps)>,
) -> Plan {
    let all = |files: &[WalFileName]| Plan {
        to_read: files.iter().map(|file| of(*file, false)).collect(),
        wanted: files.len() as u64,
    };
    let Some((known, stamps)) = known else {
        return all(files);
    };
    let planning = Planning {
        order,
        files,
        known,
        stamps,
    };
    let wanted = planning.wanted();
    let again = planning.again(&wanted);
    let mut plan = all(&wanted.into_iter().collect::<Vec<_>>());
    plan.to_read
        .extend(again.iter().map(|file| of(*file, true)));
    plan.to_read.sort_by_key(|it| it.file);
    plan
}

fn of(file: WalFileName, again: bool) -> ToRead {
    ToRead { file, again }
}

struct Planning<'a> {
    order: &'a Order<'a>,
    files: &'a [WalFileName],
    known: Ask<'a>,
    stamps: &'a Stamps,
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
    fn wanted(&self) -> BTreeSet<WalFileName> {
        let mut wanted = BTreeSet::new();
        // What a record goes through whose beginning is to be read anew. What is before a segment has an earlier name.
        let mut moved = BTreeSet::new();
        for file in self.files {
            let outline = match (self.known)(file) {
                Known::New => {
                    moved.insert(*file);
                    wanted.insert(*file);
                    continue;
                }
                Known::Unreadable => continue,
                Known::Read(outline) => outline,
            };
            let WalFileName::Segment(name) = file else {
                continue;
            };
            if outline.goes_through && self.has_moved(file, &outline, &moved) {
                moved.insert(*file);
                wanted.insert(*file);
            } else if self.is_stale(name, &outline) {
                wanted.insert(*file);
            }
        }
        wanted
    }

    /// Whether the end of a segment that a record goes through was looked at with something else before it than is there.
    fn has_moved(
        &self,
        file: &WalFileName,
        outline: &Outline,
        moved: &BTreeSet<WalFileName>,
    ) -> bool {
        match self.trail(file, outline, moved) {
            Trail::Open => true,
            Trail::Unasked => outline.trail.is_some(),
            Trail::Known(trail) => outline.trail != trail,
        }
    }

    fn trail(&self, file: &WalFileName, outline: &Outline, moved: &BTreeSet<WalFileName>) -> Trail {
        let Some(before) = self.order.before(file, Some(outline.page)) else {
            return Trail::Known(None);
        };
        let name = WalFileName::Segment(before);
        let is_asked_for = self.has(&name);
        match (self.known)(&name) {
            Known::New if is_asked_for => Trail::Open,
            Known::New => Trail::Unasked,
            Known::Unreadable => Trail::Known(None),
            Known::Read(_) if moved.contains(&name) => Trail::Open,
            Known::Read(of_before) => {
                if !self.follows(file, outline, &before, of_before.page.0) {
                    return Trail::Known(None);
                }
                let so_far = of_before.trail.filter(|_| of_before.goes_through);
                let trail = trail(&name, self.stamps.get(&name), so_far);
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
            stamp.is_some() && self.stamps.get(file) == stamp.as_ref()
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

    /// Whether it is one of those that were asked for.
    fn has(&self, file: &WalFileName) -> bool {
        self.files.binary_search(file).is_ok()
    }

    /// What is to be read for the sake of those that are wanted: what lies behind them, and before those that a record goes
    /// through, back to where it begins.
    fn again(&self, wanted: &BTreeSet<WalFileName>) -> BTreeSet<WalFileName> {
        let mut again = BTreeSet::new();
        for file in wanted {
            let outline = match (self.known)(file) {
                Known::Read(outline) => Some(outline),
                _ => None,
            };
            if let WalFileName::Segment(name) = file {
                let size = outline.as_ref().map(|outline| outline.page.0);
                for next in self.order.behind(name, size) {
                    let is_known = matches!((self.known)(&next), Known::Read(_));
                    if is_known && self.has(&next) && !wanted.contains(&next) {
                        again.insert(next);
                    }
                }
            }
            let mut through = outline.map(|outline| (*file, outline));
            while let Some((file, outline)) = through.take().filter(|(_, it)| it.goes_through) {
                let before = self.order.before(&file, Some(outline.page));
                let before = before.map(WalFileName::Segment);
                let Some(before) = before.filter(|before| self.has(before)) else {
                    break;
                };
                if let Known::Read(outline) = (self.known)(&before) {
                    // Of one that is wanted its own turn sees to the rest.
                    if !wanted.contains(&before) && again.insert(before) {
                        through = Some((before, outline));
                    }
                }
            }
        }
        again
    }
}
