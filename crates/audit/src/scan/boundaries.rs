//! Where one segment ends and another begins, whoever has read them and in whichever order.
//!
//! Guarantees that two segments are joined once both have been read, that a record which goes through whole segments is
//! followed to its end, and that it is among the facts of the segment in which it begins. Memory is that of the segments that
//! wait for another.

use std::collections::BTreeMap;

use wal::{SegmentEnd, SegmentSummary, WalFileName};

use super::order::{self, Order};
use super::reader::Seen;
use super::wanted::ToRead;
use crate::facts::{Follower, Problem, SegmentFacts};
use crate::finding::{Finding, Kind};
use crate::index::What;

/// A segment that was read.
pub(crate) struct Scanned {
    /// Name of the file.
    pub(crate) file: WalFileName,
    /// Whether it was read for its neighbors alone: what is known of it has not changed.
    pub(crate) again: bool,
    /// What is wrong with it.
    pub(crate) findings: Vec<Finding>,
    facts: Option<Box<SegmentFacts>>,
    why: Option<String>,
    end: Option<SegmentEnd>,
    following: Vec<Follower>,
}

impl Scanned {
    pub(super) fn of(to_read: &ToRead, seen: &mut Seen) -> Scanned {
        Scanned {
            file: to_read.file,
            again: to_read.again,
            findings: std::mem::take(&mut seen.findings),
            facts: seen.facts.take(),
            why: seen.why.take(),
            end: seen.summary.as_ref().map(SegmentSummary::end),
            following: Vec::new(),
        }
    }

    /// What is wrong where others follow it.
    pub(crate) fn at_its_end(&self) -> impl Iterator<Item = Finding> + '_ {
        let problems = self
            .following
            .iter()
            .filter_map(|it| Some((&it.file, it.problem.as_ref()?)));
        problems.map(|(file, problem)| self.does_not_go_on(file, problem))
    }

    fn does_not_go_on(&self, next: &WalFileName, problem: &Problem) -> Finding {
        let object = self.file.to_string();
        if let Some(SegmentEnd::Ended(lsn)) = self.end {
            let message = format!(
                "WAL ends at {lsn} in segment \"{object}\", although segment \"{next}\" is there"
            );
            return Finding::error(Kind::EndsEarly, object, message).at(lsn).hint(
                "Recovery ends there. Bring the whole segment back from a copy of the archive, or take a new base backup.",
            );
        }
        let message = format!(
            "segment \"{next}\" does not follow segment \"{object}\": {}",
            problem.why
        );
        let finding = Finding::error(Kind::DoesNotFollow, next.to_string(), message);
        finding.at(problem.lsn).hint(
            "One of the two is not what the server wrote there, or is from another branch of the cluster's history. Bring \
             the right one back from a copy of the archive, or take a new base backup.",
        )
    }

    /// What an index is to know of it; `None` if it was not read, or its facts are not wanted.
    pub(crate) fn known(self) -> Option<What> {
        match (self.facts, self.why) {
            (Some(mut facts), _) => {
                facts.following = self.following;
                facts.following.sort_by_key(|follower| follower.file);
                facts.has_findings = !self.findings.is_empty();
                Some(What::Segment(facts))
            }
            (None, why) => why.map(What::Unreadable),
        }
    }
}

/// A segment that has been read, and waits for others.
struct Open {
    scanned: Scanned,
    /// `None` if it is not what it should be: then nothing is joined with it.
    summary: Option<SegmentSummary>,
    /// The one that it follows, unless they have been joined.
    before: Option<WalFileName>,
    /// Those that may follow it and have not been joined with it.
    behind: Vec<WalFileName>,
    /// In which segment the record begins that goes through this one.
    origin: Option<WalFileName>,
    /// How many segments its last record goes through whose own followers have not been seen.
    holds: u32,
}

impl Open {
    fn goes_through(&self) -> bool {
        let summary = self.summary.as_ref();
        summary.is_some_and(|summary| summary.first.is_none())
    }

    fn is_settled(&self) -> bool {
        self.before.is_none() && self.behind.is_empty() && self.holds == 0
    }
}

/// All that wait.
pub(super) struct Boundaries<'a> {
    order: &'a Order<'a>,
    to_read: &'a [ToRead],
    open: BTreeMap<WalFileName, Open>,
}

impl<'a> Boundaries<'a> {
    pub(super) fn new(order: &'a Order<'a>, to_read: &'a [ToRead]) -> Boundaries<'a> {
        Boundaries {
            order,
            to_read,
            open: BTreeMap::new(),
        }
    }

    /// A segment has been read; hands on what waits for nothing any more.
    pub(super) fn take(
        &mut self,
        scanned: Scanned,
        summary: Option<SegmentSummary>,
        sink: &mut dyn FnMut(Scanned),
    ) {
        let file = scanned.file;
        let is_read = |file: &WalFileName| {
            let found = self.to_read.binary_search_by_key(file, |it| it.file);
            found.is_ok()
        };
        let page = summary.as_ref().map(|summary| order::page(&summary.header));
        let before = self.order.before(&file, page).map(WalFileName::Segment);
        let behind = match &file {
            WalFileName::Segment(name) => self.order.behind(name, page.map(|(size, _)| size)),
            _ => Vec::new(),
        };
        let open = Open {
            scanned,
            summary,
            before: before.filter(is_read),
            behind: behind.into_iter().filter(is_read).collect(),
            origin: None,
            holds: 0,
        };
        self.open.insert(file, open);
        let mut changed = vec![file];
        while let Some(file) = changed.pop() {
            self.settle(file, &mut changed, sink);
        }
    }

    /// Hands on what still waits, as it is.
    pub(super) fn flush(self, sink: &mut dyn FnMut(Scanned)) {
        for open in self.open.into_values() {
            sink(open.scanned);
        }
    }

    fn settle(
        &mut self,
        file: WalFileName,
        changed: &mut Vec<WalFileName>,
        sink: &mut dyn FnMut(Scanned),
    ) {
        let Some(open) = self.open.get(&file) else {
            return;
        };
        let (before, behind) = (open.before, open.behind.clone());
        if let Some(before) = before {
            self.join(before, file, changed);
        }
        for next in behind {
            self.join(file, next, changed);
        }
        if self.open.get(&file).is_some_and(Open::is_settled)
            && let Some(open) = self.open.remove(&file)
        {
            if let Some(origin) = open.origin
                && let Some(holder) = self.open.get_mut(&origin)
            {
                holder.holds = holder.holds.saturating_sub(1);
                changed.push(origin);
            }
            sink(open.scanned);
        }
    }

    /// Joins two segments if both are there and the first one can be.
    fn join(&mut self, left: WalFileName, right: WalFileName, changed: &mut Vec<WalFileName>) {
        let follows = self.open.get(&right).map(|open| open.before == Some(left));
        let (Some(follows), Some(before)) = (follows, self.open.get_mut(&left)) else {
            return;
        };
        if follows && before.before.is_some() && before.goes_through() {
            // What goes through it is not known yet.
            return;
        }
        before.behind.retain(|file| *file != right);
        changed.push(left);
        if !follows {
            return;
        }
        changed.push(right);
        let Some(mut next) = self.open.remove(&right) else {
            return;
        };
        next.before = None;
        self.follow(left, &mut next);
        self.open.insert(right, next);
    }

    fn follow(&mut self, left: WalFileName, next: &mut Open) {
        let Some(mut before) = self.open.remove(&left) else {
            return;
        };
        if let (Some(summary), Some(next_summary)) = (&before.summary, &mut next.summary)
            && ends_where_begins(summary, next_summary)
        {
            let origin = before.origin.filter(|_| before.goes_through());
            let mut of_origin = origin.and_then(|origin| self.open.get_mut(&origin));
            let facts = match &mut of_origin {
                Some(open) => &mut open.scanned.facts,
                None => &mut before.scanned.facts,
            };
            let joined = summary.join(next_summary, |record| {
                if let Some(facts) = facts.as_mut().filter(|facts| facts.over.is_none()) {
                    facts.record_over_end(record);
                }
            });
            let is_sound = joined.is_ok();
            let problem = joined.err().map(|damage| Problem {
                lsn: damage.lsn,
                why: damage.to_string(),
            });
            before.scanned.following.push(Follower {
                file: next.scanned.file,
                problem,
            });
            if is_sound && next.goes_through() {
                let origin = origin.unwrap_or(left);
                next.origin = Some(origin);
                match of_origin {
                    Some(open) => open.holds += 1,
                    None => before.holds += 1,
                }
            }
        }
        self.open.insert(left, before);
    }
}

/// Whether one lies right behind the other: segments of another size do not, whatever their names are.
fn ends_where_begins(before: &SegmentSummary, next: &SegmentSummary) -> bool {
    let size = before.header.segment_size.bytes();
    before.header.address.0.checked_add(size) == Some(next.header.address.0)
}
