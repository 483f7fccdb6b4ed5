//! Where one segment ends and another begins, whoever has read them and in whichever order.
//!
//! Guarantees that two segments are joined once both have been read, that a record which goes through whole segments is
//! followed from its beginning to its end, and that each boundary says which objects it was looked at with: what is behind it,
//! and where a record goes through the segment, what lies before. Memory is that of the segments that wait for another.

use std::collections::BTreeMap;

use wal::{SegmentEnd, SegmentSummary, WalFileName};

use super::order::{self, Order};
use super::reader::Seen;
use super::wanted::{Plan, ToRead};
use crate::facts::{Follower, Over, Problem, SegmentFacts, trail};
use crate::finding::{Finding, Kind};
use crate::index::What;
use crate::inventory::Listing;

/// A segment that was read.
pub(crate) struct Scanned {
    /// Name of the file.
    pub(crate) file: WalFileName,
    /// Whether it was read for its neighbors alone: what is known of it is true, unless something is found.
    pub(crate) again: bool,
    /// What is wrong with it.
    pub(crate) findings: Vec<Finding>,
    facts: Option<Box<SegmentFacts>>,
    why: Option<String>,
    is_for_now: bool,
    end: Option<SegmentEnd>,
    following: Vec<Follower>,
    trail: Option<u64>,
}

impl Scanned {
    pub(super) fn of(to_read: &ToRead, seen: &mut Seen) -> Scanned {
        Scanned {
            file: to_read.file,
            again: to_read.again,
            findings: std::mem::take(&mut seen.findings),
            facts: seen.facts.take(),
            why: seen.why.take(),
            is_for_now: seen.is_for_now,
            end: seen.summary.as_ref().map(SegmentSummary::end),
            following: Vec::new(),
            trail: None,
        }
    }

    /// Whether what was known of it is true: it was read for others alone, and nothing was found.
    pub(crate) fn is_as_known(&self) -> bool {
        let is_sound = self.following.iter().all(|it| it.problem.is_none());
        self.again && self.facts.is_some() && self.findings.is_empty() && is_sound
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
                facts.trail = self.trail;
                Some(What::Segment(facts))
            }
            (None, Some(why)) if self.is_for_now => Some(What::Unfit(why)),
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
}

impl Open {
    fn goes_through(&self) -> bool {
        let summary = self.summary.as_ref();
        summary.is_some_and(goes_through)
    }

    fn is_settled(&self) -> bool {
        self.before.is_none() && self.behind.is_empty()
    }
}

/// All that wait.
pub(super) struct Boundaries<'a> {
    order: &'a Order<'a>,
    plan: &'a Plan<'a>,
    stamps: Option<&'a Listing>,
    open: BTreeMap<WalFileName, Open>,
}

impl<'a> Boundaries<'a> {
    pub(super) fn new(
        order: &'a Order<'a>,
        plan: &'a Plan<'a>,
        stamps: Option<&'a Listing>,
    ) -> Boundaries<'a> {
        Boundaries {
            order,
            plan,
            stamps,
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
        let is_read = |file: &WalFileName| self.plan.has(file);
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
            let mut over = None;
            let joined = summary.join(next_summary, |record| over = Some(Over::of(record)));
            let problem = joined.err().map(|damage| Problem {
                lsn: damage.lsn,
                why: damage.to_string(),
            });
            let stamp = |file| self.stamps.and_then(|all| all.get(file));
            before.scanned.following.push(Follower {
                file: next.scanned.file,
                stamp: stamp(&next.scanned.file).copied(),
                problem,
                over,
            });
            if next.goes_through() {
                next.scanned.trail = Some(trail(&left, stamp(&left), before.scanned.trail));
            }
        }
        self.open.insert(left, before);
    }
}

/// Whether a record goes through all of it: what comes behind it can be judged only by one who knows what lies before.
pub(super) fn goes_through(summary: &SegmentSummary) -> bool {
    summary.first.is_none() && summary.end() == SegmentEnd::Full
}

/// Whether one lies right behind the other: segments of another size do not, whatever their names are.
fn ends_where_begins(before: &SegmentSummary, next: &SegmentSummary) -> bool {
    let size = before.header.segment_size.bytes();
    before.header.address.0.checked_add(size) == Some(next.header.address.0)
}
