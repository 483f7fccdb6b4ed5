//! Segments of one timeline that follow one another: what a line is made of.
//!
//! Guarantees little memory: of each segment there is what tells whether it is worth a closer look, and no more. What is in it is
//! left to `survey`, which of them a recovery reads to `line`.

use std::collections::{BTreeMap, BTreeSet};

use wal::{Lsn, SegmentName, SegmentSize, TimelineId, Timestamp};

use crate::facts::{End, Ends, Noted, SegmentFacts};
use crate::lineage::{Run, name_of};

/// Segments of one timeline and size, each of which goes on where the one before it ends.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) timeline: TimelineId,
    pub(crate) size: SegmentSize,
    /// Number of the first segment.
    first: u64,
    /// Of each segment; with the record that goes over its end into the chain's next ones.
    pub(crate) briefs: Vec<Brief>,
    /// Which of them hold restore points, or something that was left out.
    pub(crate) points: BTreeSet<usize>,
    /// The last one in which a record begins.
    last_begun: Option<usize>,
}

/// What tells whether a recovery may stop in a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Brief {
    /// The latest end of a transaction; the least there is if none ends.
    latest: Timestamp,
    /// The lowest and the highest transaction that is told; the wrong way round if none is.
    xids: (u32, u32),
}

/// A part of a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub(crate) chain: &'a Chain,
    /// Which of its segments: from the first to before the second.
    pub(crate) part: (usize, usize),
}

impl Brief {
    pub(crate) fn of(ends: &Ends) -> Brief {
        Brief {
            latest: ends.latest.unwrap_or(Timestamp(i64::MIN)),
            xids: ends.xids.unwrap_or((u32::MAX, 0)),
        }
    }

    pub(crate) fn latest(&self) -> Option<Timestamp> {
        Some(self.latest).filter(|at| *at > Timestamp(i64::MIN))
    }

    pub(crate) fn may_have(&self, xid: u32) -> bool {
        (self.xids.0..=self.xids.1).contains(&xid)
    }
}

impl Chain {
    /// One with this segment; `None` if it has no place in WAL.
    pub(crate) fn begin(facts: &SegmentFacts, size: SegmentSize) -> Option<Chain> {
        let mut chain = Chain {
            timeline: facts.name.timeline(),
            size,
            first: facts.name.number(size)?.0,
            briefs: Vec::new(),
            points: BTreeSet::new(),
            last_begun: None,
        };
        chain.push(facts);
        Some(chain)
    }

    /// Takes up a segment if it goes on where the `last` one ends.
    pub(crate) fn go_on(&mut self, last: &SegmentFacts, facts: &SegmentFacts) -> bool {
        if facts.name != self.name(self.briefs.len()) || last.is_left(&facts.name).is_some() {
            return false;
        }
        let follower = last.follower(&facts.name);
        let over = follower.and_then(|it| it.over.as_ref()?.noted.as_deref());
        if let (Some(noted), Some(at)) = (over, self.last_begun) {
            match noted {
                Noted::Transaction(end) => {
                    if let Some(brief) = self.briefs.get_mut(at) {
                        brief.latest = brief.latest.max(end.at);
                        if let Some(xid) = end.xid {
                            brief.xids = (brief.xids.0.min(xid), brief.xids.1.max(xid));
                        }
                    }
                }
                Noted::RestorePoint(_) => drop(self.points.insert(at)),
                _ => {}
            }
        }
        self.push(facts);
        true
    }

    fn push(&mut self, facts: &SegmentFacts) {
        let at = self.briefs.len();
        if !facts.goes_through {
            self.last_begun = Some(at);
        }
        if !facts.restore_points.is_empty() || facts.left_out > 0 {
            self.points.insert(at);
        }
        self.briefs.push(Brief::of(&facts.ends));
    }

    pub(crate) fn name(&self, at: usize) -> SegmentName {
        name_of(
            self.timeline,
            self.first.saturating_add(at as u64),
            self.size,
        )
    }

    pub(crate) fn start(&self, at: usize) -> Lsn {
        let number = self.first.saturating_add(at as u64);
        Lsn(number.saturating_mul(self.size.bytes()))
    }
}

impl SegmentFacts {
    /// Why a recovery does not get from this segment into the next one; `None` if it does.
    pub(crate) fn is_left(&self, next: &SegmentName) -> Option<String> {
        match (self.end, self.follower(next)) {
            (End::Ended(lsn), _) => Some(format!("WAL ends at {lsn} before it")),
            (_, Some(follower)) => follower.problem.as_ref().map(|it| it.why.clone()),
            (_, None) => Some("it was not compared with the one before it".to_owned()),
        }
    }
}

impl<'a> Piece<'a> {
    /// All of a chain.
    pub(crate) fn of(chain: &'a Chain) -> Piece<'a> {
        let part = (0, chain.briefs.len());
        Piece { chain, part }
    }

    /// What of a chain has these numbers.
    pub(crate) fn within(chain: &'a Chain, numbers: &Run) -> Option<Piece<'a>> {
        let end = chain.first.saturating_add(chain.briefs.len() as u64);
        let from = chain.first.max(*numbers.start());
        let to = end.min(numbers.end().saturating_add(1));
        let at = |number: u64| usize::try_from(number - chain.first).ok();
        (from < to).then_some(())?;
        let part = (at(from)?, at(to)?);
        Some(Piece { chain, part })
    }

    pub(crate) fn count(&self) -> usize {
        self.part.1 - self.part.0
    }

    pub(crate) fn first(&self) -> SegmentName {
        self.chain.name(self.part.0)
    }

    pub(crate) fn last(&self) -> SegmentName {
        self.chain.name(self.part.1 - 1)
    }

    /// Numbers of the first and the last segment.
    pub(crate) fn numbers(&self) -> (u64, u64) {
        let number = |at: usize| self.chain.first.saturating_add(at as u64);
        (number(self.part.0), number(self.part.1 - 1))
    }

    fn key(&self) -> (Lsn, SegmentName) {
        (self.chain.start(self.part.0), self.first())
    }

    /// Which of its segments is the first that does not come before this one.
    fn split_at(&self, (start, name): (Lsn, SegmentName)) -> usize {
        let size = self.chain.size.bytes();
        let into = start.0.saturating_sub(self.chain.start(self.part.0).0);
        let at = self.part.0 + usize::try_from(into.div_ceil(size)).unwrap_or(usize::MAX / 2);
        let is_before = self.chain.start(at) == start && self.chain.name(at) < name;
        (at + usize::from(is_before)).min(self.part.1)
    }
}

/// Pieces in the order of WAL: one is divided where a segment of another lies between its own.
pub(crate) fn in_order(pieces: Vec<Piece<'_>>) -> Vec<Piece<'_>> {
    let mut left: BTreeMap<_, Piece<'_>> = pieces.into_iter().map(|it| (it.key(), it)).collect();
    let mut ordered = Vec::new();
    while let Some((_, mut piece)) = left.pop_first() {
        if let Some((next, _)) = left.first_key_value() {
            let at = piece.split_at(*next);
            if at < piece.part.1 {
                let part = (at, piece.part.1);
                let rest = Piece { part, ..piece };
                left.insert(rest.key(), rest);
                piece.part.1 = at;
            }
        }
        ordered.push(piece);
    }
    ordered
}
