//! Which segment follows which: by their names, and by the timeline history files.
//!
//! Guarantees that each segment follows one other at most: the one before it on its timeline, or on the timeline that this one
//! left there. Where that is not known it is told by the first page.

use std::collections::BTreeMap;

use wal::{LongPageHeader, Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};

use crate::inventory::Inventory;
use crate::lineage::{Lineage, name_of};

/// The order of what an archive holds.
pub(crate) struct Order<'a> {
    inventory: &'a Inventory,
    lineage: &'a Lineage,
    /// How long segments are that do not say so.
    size: SegmentSize,
    /// What may follow a segment beside the next one on its timeline.
    branches: BTreeMap<SegmentName, Vec<WalFileName>>,
}

impl<'a> Order<'a> {
    pub(crate) fn of(inventory: &'a Inventory, lineage: &'a Lineage, size: SegmentSize) -> Self {
        let mut order = Order {
            inventory,
            lineage,
            size,
            branches: BTreeMap::new(),
        };
        for size in SegmentSize::all() {
            order.add_branches(size);
        }
        order
    }

    /// Adds what may follow where segments are of this size: whoever reads them sees which do.
    fn add_branches(&mut self, size: SegmentSize) {
        let (inventory, lineage) = (self.inventory, self.lineage);
        for (timeline, files) in &inventory.timelines {
            if let Some((begins, _)) = lineage.beginning(*timeline) {
                let first = name_of(*timeline, begins.segment(size).0, size);
                if inventory.has_segment(&first) {
                    self.branch(WalFileName::Segment(first), size);
                }
            } else if *timeline != TimelineId::FIRST && lineage.history(*timeline).is_none() {
                for run in inventory.runs_of(*timeline, size) {
                    self.maybe_branch(name_of(*timeline, *run.start(), size), size);
                }
            }
            for name in &files.partials {
                self.branch(WalFileName::Partial(*name), size);
            }
        }
    }

    fn branch(&mut self, file: WalFileName, size: SegmentSize) {
        if let Some(before) = self.before_of(&file, size, None) {
            self.add(before, file);
        }
    }

    /// The first of a run on a timeline whose history is not known may follow a segment of any older one.
    fn maybe_branch(&mut self, name: SegmentName, size: SegmentSize) {
        let Some(before) = name.previous(size) else {
            return;
        };
        let older = self.inventory.timelines.range(..name.timeline());
        let of_older: Vec<_> = older
            .map(|(timeline, _)| before.with_timeline(*timeline))
            .filter(|before| self.inventory.has_segment(before))
            .collect();
        for before in of_older {
            self.add(before, WalFileName::Segment(name));
        }
    }

    fn add(&mut self, before: SegmentName, file: WalFileName) {
        let branches = self.branches.entry(before).or_default();
        if !branches.contains(&file) {
            branches.push(file);
        }
    }

    /// Where a timeline begins, if that is in this segment.
    pub(crate) fn begins_in(&self, name: &SegmentName, size: SegmentSize) -> Option<Lsn> {
        let (begins, _) = self.lineage.beginning(name.timeline())?;
        (Some(begins.segment(size)) == name.number(size)).then_some(begins)
    }

    /// The segment that a file follows, by what its first page says if that is known.
    pub(crate) fn before(
        &self,
        file: &WalFileName,
        page: Option<(SegmentSize, TimelineId)>,
    ) -> Option<SegmentName> {
        let size = page.map_or(self.size, |(size, _)| size);
        self.before_of(file, size, page.map(|(_, first)| first))
    }

    fn before_of(
        &self,
        file: &WalFileName,
        size: SegmentSize,
        first: Option<TimelineId>,
    ) -> Option<SegmentName> {
        let name = file.segment()?;
        let before = name.previous(size)?;
        let own = name.timeline();
        let is_partial = matches!(file, WalFileName::Partial(_));
        let timeline = if is_partial || self.begins_in(name, size).is_some() {
            Some(self.lineage.asked_for(own, before.number(size)?.0, size))
        } else if self.lineage.history(own).is_some() || self.inventory.has_segment(&before) {
            Some(own)
        } else {
            first.map(|first| first.min(own))
        };
        let before = before.with_timeline(timeline?);
        self.inventory.has_segment(&before).then_some(before)
    }

    /// What may follow a segment; of any size, if that of the segment is not known.
    pub(crate) fn behind(&self, name: &SegmentName, size: Option<SegmentSize>) -> Vec<WalFileName> {
        let mut behind: Vec<WalFileName> = Vec::new();
        let mut add = |size| {
            let next = name.next(size).filter(|next| {
                self.inventory.has_segment(next) && self.begins_in(next, size).is_none()
            });
            behind.extend(next.map(WalFileName::Segment));
        };
        match size {
            Some(size) => add(size),
            None => SegmentSize::all().for_each(add),
        }
        behind.extend(self.branches.get(name).into_iter().flatten());
        behind.sort();
        behind.dedup();
        behind
    }
}

/// What a first page says of the order.
pub(crate) fn page(header: &LongPageHeader) -> (SegmentSize, TimelineId) {
    (header.segment_size, header.timeline)
}
