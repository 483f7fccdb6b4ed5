//! Segments of several sizes in one archive, as `pg_resetwal --wal-segsize` leaves them.
//!
//! Guarantees that an archive is taken apart by size only where all that segments of one size hold lies before all that those
//! of the next size hold, as such a reset has it; then each part is WAL of its own, and no recovery leads from one into the
//! next. Segments of another size that lie anyhow else stay where they are, for whoever audits them to tell. Left to the
//! callers: when to ask, for the answer takes a look at every segment.

use std::collections::BTreeMap;

use archive::{Archive, Cancel, Error, ErrorKind};
use wal::{Lsn, SegmentName, SegmentSize, WalFileName};

use crate::inventory::Inventory;
use crate::verify::{Measure, header, is_of_object, segment};

/// What an archive holds in segments of one size.
pub(crate) struct Part {
    /// How long they are.
    pub(crate) size: SegmentSize,
    /// They, all timeline history files, and in the last part everything else.
    pub(crate) inventory: Inventory,
    /// From where to where.
    pub(crate) places: (Lsn, Lsn),
    /// The first and the last of them.
    names: (SegmentName, SegmentName),
}

/// Whether the first or the last segment of some timeline is of another size than was measured: a look at two of each.
///
/// # Errors
/// When the archive is out of reach.
pub(crate) fn differ(
    archive: &Archive,
    inventory: &Inventory,
    measure: Measure,
    cancel: &Cancel,
) -> Result<bool, Error> {
    if has_impossible(inventory, measure.size) {
        return Ok(true);
    }
    for (timeline, files) in &inventory.timelines {
        let mut all = files.segments.all();
        let ends = [all.next(), all.last()];
        for name in ends.into_iter().flatten() {
            let Some(name) = segment(*timeline, name) else {
                continue;
            };
            if size_of(archive, &name, measure, cancel)?.is_some_and(|size| size != measure.size) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether there are segments by names that those of this size do not have.
pub(crate) fn has_impossible(inventory: &Inventory, size: SegmentSize) -> bool {
    let mut files = inventory.timelines.values();
    files.any(|files| !files.segments.impossible(size).is_empty())
}

/// Takes an archive apart, the oldest WAL first; `None` if that cannot be done, or all segments are of one size.
///
/// # Errors
/// When the archive is out of reach.
pub(crate) fn take_apart(
    archive: &Archive,
    inventory: &Inventory,
    measure: Measure,
    cancel: &Cancel,
) -> Result<Option<Vec<Part>>, Error> {
    let mut parts: BTreeMap<SegmentSize, Part> = BTreeMap::new();
    let mut unknown = Vec::new();
    for name in segments(inventory) {
        let Some(segment) = name.segment().copied() else {
            continue;
        };
        let size = size_of(archive, &name, measure, cancel)?;
        let known = size.and_then(|size| Some((size, segment.start(size)?)));
        let Some((size, start)) = known else {
            unknown.push(name);
            continue;
        };
        let places = (start, Lsn(start.0.saturating_add(size.bytes())));
        let part = parts.entry(size).or_insert_with(|| Part {
            size,
            inventory: Inventory::default(),
            places,
            names: (segment, segment),
        });
        part.add(&name, segment, places);
    }
    let mut parts: Vec<Part> = parts.into_values().collect();
    parts.sort_by_key(|part| part.places);
    let is_in_order = |two: &[Part]| match two {
        [before, next] => before.places.1 <= next.places.0,
        _ => true,
    };
    if parts.len() < 2 || !parts.windows(2).all(is_in_order) {
        return Ok(None);
    }
    for name in unknown {
        let nearest = parts.iter_mut().min_by_key(|part| part.distance(&name));
        if let Some(part) = nearest {
            part.take(&name);
        }
    }
    for part in &mut parts {
        part.inventory.take_histories(inventory);
    }
    if let Some(last) = parts.last_mut() {
        last.inventory.take_others(inventory);
    }
    Ok(Some(parts))
}

/// Where the size changes, in words.
pub(crate) fn changes(parts: &[Part]) -> Vec<(String, String)> {
    let changes = parts.windows(2).filter_map(|two| match two {
        [before, next] => Some((
            next.names.0.to_string(),
            format!(
                "segments are of {} up to \"{}\", and of {} from \"{}\" on (pg_resetwal --wal-segsize): no recovery goes on \
                 from there",
                before.size, before.names.1, next.size, next.names.0
            ),
        )),
        _ => None,
    });
    changes.collect()
}

/// All segments and partial segments.
fn segments(inventory: &Inventory) -> impl Iterator<Item = WalFileName> + '_ {
    inventory.timelines.iter().flat_map(|(timeline, files)| {
        let all = files.segments.all();
        let whole = all.filter_map(|digits| segment(*timeline, digits));
        let partials = files.partials.iter();
        whole.chain(partials.map(|name| WalFileName::Partial(*name)))
    })
}

/// How long a segment is, as it says itself; `None` if it cannot, or is another cluster's.
fn size_of(
    archive: &Archive,
    name: &WalFileName,
    measure: Measure,
    cancel: &Cancel,
) -> Result<Option<SegmentSize>, Error> {
    match header(archive, name, cancel) {
        Ok(header) => {
            let own = |system| measure.system.is_none_or(|it| it == system);
            let header = header.filter(|header| own(header.system));
            Ok(header.map(|header| header.segment_size))
        }
        Err(error) if is_of_object(&error) || error.kind() == ErrorKind::Unusable => Ok(None),
        Err(error) => Err(error),
    }
}

impl Part {
    fn add(&mut self, name: &WalFileName, segment: SegmentName, places: (Lsn, Lsn)) {
        self.take(name);
        if places.0 < self.places.0 {
            self.names.0 = segment;
        }
        if places.1 > self.places.1 {
            self.names.1 = segment;
        }
        self.places = (self.places.0.min(places.0), self.places.1.max(places.1));
    }

    fn take(&mut self, name: &WalFileName) {
        self.inventory.take_name(name);
    }

    /// How far from it a segment lies if it is of this size.
    fn distance(&self, name: &WalFileName) -> u64 {
        let start = name.segment().and_then(|name| name.start(self.size));
        start.map_or(u64::MAX, |start| {
            let before = self.places.0.0.saturating_sub(start.0);
            let behind = start.0.saturating_sub(self.places.1.0);
            before.max(behind)
        })
    }
}
