//! What has to be read of an archive, of which something is known already.
//!
//! Guarantees that what is learnt is the same with an index as without: read are the segments that are new, those of which it
//! is no longer true what was learnt of the ones behind them, and, for their sake, what lies behind those.

use std::collections::BTreeSet;

use wal::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};

use super::order::Order;

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
    /// What was joined with it, in order.
    pub(crate) following: Vec<WalFileName>,
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

/// Plans the reading of these segments and partial segments, which are in order; `known` if anything is.
pub(crate) fn plan(order: &Order<'_>, files: &[WalFileName], known: Option<Ask<'_>>) -> Plan {
    let all = |files: &[WalFileName]| Plan {
        to_read: files.iter().map(|file| of(*file, false)).collect(),
        wanted: files.len() as u64,
    };
    let Some(known) = known else {
        return all(files);
    };
    let mut planning = Planning {
        order,
        files,
        known,
        wanted: Vec::new(),
    };
    // What is behind a segment has a later name.
    for file in files.iter().rev() {
        if planning.is_wanted(file) {
            planning.wanted.push(*file);
        }
    }
    planning.wanted.reverse();
    let again = planning.again();
    let mut plan = all(&planning.wanted);
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
    /// From the last one on, until all are known.
    wanted: Vec<WalFileName>,
}

impl Planning<'_> {
    fn is_wanted(&self, file: &WalFileName) -> bool {
        match ((self.known)(file), file) {
            (Known::New, _) => true,
            (Known::Read(outline), WalFileName::Segment(name)) => self.is_stale(name, &outline),
            _ => false,
        }
    }

    /// Whether it is no longer true what was learnt of what lies behind.
    fn is_stale(&self, name: &SegmentName, outline: &Outline) -> bool {
        let size = outline.page.0;
        if self.order.begins_in(name, size) != outline.switchpoint {
            return true;
        }
        let mut following = Vec::new();
        for file in self.order.behind(name, Some(size)) {
            match (self.known)(&file) {
                Known::New if self.files.binary_search(&file).is_ok() => return true,
                // A record that goes through all of the next one ends behind that.
                Known::Read(next) if self.follows(&file, &next, name, size) => {
                    if next.goes_through && self.has(&file) {
                        return true;
                    }
                    following.push(file);
                }
                _ => {}
            }
        }
        following.sort();
        following != outline.following
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

    fn has(&self, file: &WalFileName) -> bool {
        let found = self.wanted.binary_search_by(|it| file.cmp(it));
        found.is_ok()
    }

    /// What lies behind the segments that are wanted, up to where the last records of those end.
    fn again(&self) -> BTreeSet<WalFileName> {
        let mut again = BTreeSet::new();
        for file in &self.wanted {
            let mut open = vec![*file];
            while let Some(WalFileName::Segment(name)) = open.pop() {
                let size = match (self.known)(&WalFileName::Segment(name)) {
                    Known::Read(outline) => Some(outline.page.0),
                    _ => None,
                };
                for next in self.order.behind(&name, size) {
                    if self.wanted.binary_search(&next).is_ok() {
                        continue;
                    }
                    if let Known::Read(outline) = (self.known)(&next)
                        && again.insert(next)
                        && outline.goes_through
                    {
                        open.push(next);
                    }
                }
            }
        }
        again
    }
}
