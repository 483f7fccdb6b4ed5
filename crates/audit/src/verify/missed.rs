//! A second look for what a listing seems to lack.
//!
//! An archive may be written to while it is listed, and by several uploads at a time, so that a later segment is found before
//! an earlier one is there. Guarantees that what is reported as missing was not there some time later either. What is missing
//! is found out by `lineage` and `histories`.

use std::collections::BTreeMap;
use std::time::Duration;

use archive::Error;
use wal::{SegmentSize, TimelineId, WalFileName};

use super::histories;
use crate::finding::Finding;
use crate::inventory::Inventory;
use crate::lineage::{Lineage, Run};
use crate::scan::small::Files;

/// How long uploads that go on side by side may take longer than one another.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// How often it is looked again: each time, only because the last look has found something.
const LOOKS_MAX: u32 = 3;

/// What is missing by name.
#[derive(Debug, Default)]
struct Missing {
    segments: BTreeMap<TimelineId, Vec<Run>>,
    histories: Vec<TimelineId>,
}

/// Looks again until nothing more turns up. What turns up is added to the inventory; what timeline history files say then,
/// and what is wrong with them, is the answer.
///
/// # Errors
/// When the archive cannot be listed to its end.
pub(crate) fn look(
    small: Files<'_>,
    inventory: &mut Inventory,
    size: SegmentSize,
) -> Result<(Lineage, Vec<Finding>), Error> {
    let mut read = small.check(inventory);
    for _ in 0..LOOKS_MAX {
        let missing = Missing::of(inventory, &read.0, size);
        if missing.is_nothing() || small.cancel.wait(SETTLED_AFTER) {
            break;
        }
        if !inventory.add_missed(small.archive, &|name| missing.has(name, size))? {
            break;
        }
        read = small.check(inventory);
    }
    Ok(read)
}

impl Missing {
    fn of(inventory: &Inventory, lineage: &Lineage, size: SegmentSize) -> Missing {
        let runs = inventory.runs(size);
        let mut missing = Missing::default();
        for gap in lineage.holes_before(&inventory.partials(), &runs, size) {
            let of = missing.segments.entry(gap.timeline).or_default();
            of.push(gap.segments);
        }
        let (oldest, histories) = histories::missing(inventory, lineage);
        // Without that of the oldest an archive may be as it should.
        missing.histories = histories;
        missing
            .histories
            .retain(|timeline| Some(*timeline) != oldest);
        missing
    }

    fn is_nothing(&self) -> bool {
        self.segments.is_empty() && self.histories.is_empty()
    }

    fn has(&self, name: &WalFileName, size: SegmentSize) -> bool {
        match name {
            WalFileName::Segment(name) => {
                let runs = self.segments.get(&name.timeline());
                let number = name.number(size);
                runs.zip(number)
                    .is_some_and(|(runs, number)| runs.iter().any(|run| run.contains(&number.0)))
            }
            WalFileName::TimelineHistory(timeline) => self.histories.contains(timeline),
            _ => false,
        }
    }
}
