//! Places where one reader's segments follow another's: the ends of pieces, the beginnings of timelines, partial segments.
//!
//! Guarantees that both sides are joined once both have been read, whichever comes first, and that a record which goes over
//! whole pieces is followed through them. Memory is that of the joints of which one side has been read.

use std::collections::BTreeMap;

use wal::{SegmentEnd, SegmentSummary, TimelineId, WalFileName};

use crate::finding::{Finding, Kind};

/// A segment, by what follows: its timeline, its number, and whether it is a partial one.
pub(crate) type Key = (TimelineId, u64, bool);

/// The segments that something follows which another reads, by timeline and number.
pub(crate) type Sources = BTreeMap<(TimelineId, u64), Vec<Key>>;

/// What a reader knows of its first segments.
#[derive(Default)]
pub(crate) struct Lead {
    /// Those up to the first one in which a record begins.
    pub(crate) segments: Vec<SegmentSummary>,
    /// The last of its segments, if in none of them a record begins: then it has not been handed on as a left side.
    pub(crate) through_to: Option<u64>,
}

#[derive(Default)]
struct Joint {
    left: Option<Option<SegmentSummary>>,
    right: Option<Lead>,
}

/// A joint of which both sides have been looked at.
pub(crate) struct Joined {
    pub(crate) key: Key,
    pub(crate) finding: Option<Finding>,
    /// Whether there was something to join on both sides.
    pub(crate) is_whole: bool,
}

/// All joints that are still open.
#[derive(Default)]
pub(crate) struct Joints {
    open: BTreeMap<Key, Joint>,
    next: BTreeMap<(TimelineId, u64), Vec<Key>>,
}

impl Joints {
    pub(crate) fn new(sources: &Sources) -> Joints {
        let keys = sources.values().flatten();
        Joints {
            open: keys.map(|key| (*key, Joint::default())).collect(),
            next: sources.clone(),
        }
    }

    /// A segment has been read that others follow; `None` if it could not be.
    pub(crate) fn left(
        &mut self,
        source: (TimelineId, u64),
        summary: Option<&SegmentSummary>,
        joined: &mut Vec<Joined>,
    ) {
        for key in self.next.get(&source).cloned().unwrap_or_default() {
            if let Some(joint) = self.open.get_mut(&key) {
                joint.left = Some(summary.cloned());
                self.close(key, joined);
            }
        }
    }

    /// The beginning of what follows has been read; an empty lead if it could not be.
    pub(crate) fn right(&mut self, key: Key, lead: Lead, joined: &mut Vec<Joined>) {
        match self.open.get_mut(&key) {
            Some(joint) => {
                joint.right = Some(lead);
                self.close(key, joined);
            }
            // Nothing comes before.
            None => self.pass_on(key, lead, joined),
        }
    }

    /// Hands the end of segments in which no record begins to what follows them.
    fn pass_on(&mut self, key: Key, lead: Lead, joined: &mut Vec<Joined>) {
        if let Some(last) = lead.through_to {
            self.left((key.0, last), lead.segments.last(), joined);
        }
    }

    fn close(&mut self, key: Key, joined: &mut Vec<Joined>) {
        let is_ready = self
            .open
            .get(&key)
            .is_some_and(|joint| joint.left.is_some() && joint.right.is_some());
        if !is_ready {
            return;
        }
        let Some(Joint {
            left: Some(left),
            right: Some(mut lead),
        }) = self.open.remove(&key)
        else {
            return;
        };
        let is_whole = left.is_some() && !lead.segments.is_empty();
        let finding = left.and_then(|left| follow(left, &mut lead.segments, key.2));
        joined.push(Joined {
            key,
            finding,
            is_whole,
        });
        self.pass_on(key, lead, joined);
    }
}

/// Joins one segment after the other, up to the first in which a record begins.
fn follow(left: SegmentSummary, lead: &mut [SegmentSummary], is_partial: bool) -> Option<Finding> {
    let mut before = left;
    for next in lead {
        let found = join(&before, next, is_partial);
        if found.is_some() || next.first.is_some() {
            return found;
        }
        before = next.clone();
    }
    None
}

/// What is wrong where a segment follows another.
pub(crate) fn join(
    before: &SegmentSummary,
    next: &mut SegmentSummary,
    is_partial: bool,
) -> Option<Finding> {
    let damage = before.join(next, |_| ()).err()?;
    let name = match is_partial {
        true => WalFileName::Partial(next.name),
        false => WalFileName::Segment(next.name),
    };
    if let SegmentEnd::Ended(lsn) = before.end() {
        let object = before.name.to_string();
        let message = format!(
            "WAL ends at {lsn} in segment \"{object}\", although segment \"{name}\" is there"
        );
        return Some(Finding::error(Kind::EndsEarly, object, message).at(lsn).hint(
            "Recovery ends there. Bring the whole segment back from a copy of the archive, or take a new base backup.",
        ));
    }
    let message = format!(
        "segment \"{name}\" does not follow segment \"{}\": {damage}",
        before.name
    );
    let finding = Finding::error(Kind::DoesNotFollow, name.to_string(), message).at(damage.lsn);
    Some(finding.hint(
        "One of the two is not what the server wrote there, or is from another branch of the cluster's history. Bring the \
         right one back from a copy of the archive, or take a new base backup.",
    ))
}
