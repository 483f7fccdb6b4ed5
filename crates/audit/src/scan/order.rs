//! Which segment follows which: by their names, and by the timeline history files.
//!
//! Guarantees that each segment follows one other at most: the one before it on its timeline, or on the timeline that this one
//! left there. Where that is not known it is told by the first page.

use std::collections::BTreeMap;

use wal::{LongPageHeader, Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};

use crate::inventory::Inventory;
use crate::lineage::Lineage;
use crate::positions::name_of;

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
        for (timeline, files) in &inventory.timelines {
            if let Some((begins, _)) = lineage.beginning(*timeline) {
                let first = name_of(*timeline, begins.segment(size).0, size);
                if inventory.has_segment(&first) {
                    order.branch(WalFileName::Segment(first));
                }
            } else if *timeline != TimelineId::FIRST && lineage.history(*timeline).is_none() {
                for run in files.segments.runs(size) {
                    order.maybe_branch(name_of(*timeline, *run.start(), size));
                }
            }
            for name in &files.partials {
                order.branch(WalFileName::Partial(*name));
            }
        }
        order
    }

    fn branch(&mut self, file: WalFileName) {
        if let Some(before) = self.before(&file, None) {
            self.add(before, file);
        }
    }

    /// The first of a run on a timeline whose history is not known may follow a segment of any older one.
    fn maybe_branch(&mut self, name: SegmentName) {
        let Some(before) = name.previous(self.size) else {
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
        self.branches.entry(before).or_default().push(file);
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
        let name = file.segment()?;
        let size = page.map_or(self.size, |(size, _)| size);
        let before = name.previous(size)?;
        let own = name.timeline();
        let is_partial = matches!(file, WalFileName::Partial(_));
        let timeline = if is_partial || self.begins_in(name, size).is_some() {
            Some(self.lineage.asked_for(own, before.number(size)?.0, size))
        } else if self.lineage.history(own).is_some() || self.inventory.has_segment(&before) {
            Some(own)
        } else {
            page.map(|(_, first)| first.min(own))
        };
        let before = before.with_timeline(timeline?);
        self.inventory.has_segment(&before).then_some(before)
    }

    /// What may follow a segment.
    pub(crate) fn behind(&self, name: &SegmentName, size: Option<SegmentSize>) -> Vec<WalFileName> {
        let size = size.unwrap_or(self.size);
        let next = name.next(size).filter(|next| {
            self.inventory.has_segment(next) && self.begins_in(next, size).is_none()
        });
        let branches = self.branches.get(name).into_iter().flatten().copied();
        next.map(WalFileName::Segment)
            .into_iter()
            .chain(branches)
            .collect()
    }
}

/// What a first page says of the order.
pub(crate) fn page(header: &LongPageHeader) -> (SegmentSize, TimelineId) {
    (header.segment_size, header.timeline)
}
