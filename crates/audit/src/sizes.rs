//! Segments of several sizes in one archive, as `pg_resetwal --wal-segsize` leaves them.
//!
//! Guarantees that an archive is taken apart by size only where all that segments of one size hold lies before what the next
//! ones hold, as such a reset has it; then each part is WAL of its own, and no recovery leads from one into the next. Where a
//! size comes back, each change must also begin WAL anew: else a segment that somebody put into a hole would hide it.
//! Segments of another size that lie anyhow else stay where they are, for whoever audits them to tell. Left to the callers:
//! when to ask, for the answer takes a look at every segment.

use std::ops::ControlFlow;

use archive::{Archive, Cancel, Error, ErrorKind};
use wal::{Lsn, SegmentName, SegmentNumber, SegmentReader, SegmentSize, WalFileName};

use crate::inventory::{Inventory, is_possible};
use crate::measure::{Measure, header, is_of_object};

/// How many runs of names, on each timeline, are looked at for another size; behind them the last one.
const RUNS_LOOKED_AT: usize = 16;

/// What an archive holds in segments of one size.
pub(crate) struct Part {
    /// Segment size.
    pub(crate) size: SegmentSize,
    /// They, all timeline history files, and in the last part everything else.
    pub(crate) inventory: Inventory,
    /// From where to where.
    pub(crate) places: (Lsn, Lsn),
    /// The first and the last of them.
    names: (SegmentName, SegmentName),
}

/// Whether segments of another size than was measured are seen at a look at the first and the last one of each run of names:
/// names of two sizes follow one another only by chance, and then in one place.
///
/// # Errors
/// When the archive is out of reach.
pub(crate) fn differ(
    archive: &Archive,
    inventory: &Inventory,
    measure: Measure,
    cancel: &Cancel,
) -> Result<bool, Error> {
    if inventory.impossible(measure.size).next().is_some() {
        return Ok(true);
    }
    for (timeline, runs) in inventory.runs(measure.size) {
        let last = runs.get(RUNS_LOOKED_AT..).and_then(|more| more.last());
        let looked_at = runs.iter().take(RUNS_LOOKED_AT).chain(last);
        let ends = looked_at.flat_map(|run| [*run.start(), *run.end()]);
        for number in ends {
            let name = SegmentName::new(timeline, SegmentNumber(number), measure.size);
            let name = WalFileName::Segment(name);
            if size_of(archive, &name, measure, cancel)?.is_some_and(|size| size != measure.size) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Takes an archive apart where the size changes, the oldest WAL first; `None` if that cannot be done, or it never does.
///
/// # Errors
/// When the archive is out of reach.
pub(crate) fn take_apart(
    archive: &Archive,
    inventory: &Inventory,
    measure: Measure,
    cancel: &Cancel,
) -> Result<Option<Vec<Part>>, Error> {
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for (file, stamp) in inventory.listing.all() {
        let name = match file {
            WalFileName::Segment(name) if is_possible(name) => name,
            WalFileName::Partial(name) => name,
            _ => continue,
        };
        let size = size_of(archive, file, measure, cancel)?;
        match size.and_then(|size| Some((name.start(size)?, size))) {
            Some((start, size)) => known.push((start, size, *file, *stamp)),
            None => unknown.push((*file, *stamp)),
        }
    }
    known.sort_by_key(|(start, size, file, _)| (*start, *size, *file));
    let mut parts: Vec<Part> = Vec::new();
    for (start, size, file, stamp) in known {
        let Some(name) = file.segment() else {
            continue;
        };
        match parts.last() {
            Some(part) if part.size == size => {}
            Some(part) if part.places.1 > start => return Ok(None),
            _ => parts.push(Part {
                size,
                inventory: Inventory::default(),
                places: (start, start),
                names: (*name, *name),
            }),
        }
        if let Some(part) = parts.last_mut() {
            part.inventory.put(file, stamp);
            part.places.1 = Lsn(start.0.saturating_add(size.bytes()));
            part.names.1 = *name;
        }
    }
    if parts.len() < 2 || !may_change(archive, &parts, cancel)? {
        return Ok(None);
    }
    for (file, stamp) in unknown {
        let nearest = parts.iter_mut().min_by_key(|part| part.distance(&file));
        if let Some(part) = nearest {
            part.inventory.put(file, stamp);
        }
    }
    for part in &mut parts {
        part.inventory.sort();
        part.inventory.take_histories(inventory);
    }
    if let Some(last) = parts.last_mut() {
        last.inventory.take_others(inventory);
    }
    Ok(Some(parts))
}

/// Whether the size may have changed as often as it seems.
fn may_change(archive: &Archive, parts: &[Part], cancel: &Cancel) -> Result<bool, Error> {
    let comes_back = |(at, part): (usize, &Part)| {
        let mut before = parts.iter().take(at);
        before.any(|before| before.size == part.size)
    };
    if !parts.iter().enumerate().any(comes_back) {
        return Ok(true);
    }
    for part in parts.iter().skip(1) {
        if !begins_anew(archive, part.names.0, cancel)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the first record of a segment follows none (`WriteEmptyXLOG`, pg_resetwal.c, 15 to 18).
fn begins_anew(archive: &Archive, name: SegmentName, cancel: &Cancel) -> Result<bool, Error> {
    let (mut reader, mut previous) = (SegmentReader::new(name), None);
    let mut reading = archive.reading();
    let read = reading.read(&name.to_string(), cancel, &mut |piece| {
        let fed = reader.feed(piece, |record| {
            previous.get_or_insert(record.header.previous);
        });
        match fed {
            Ok(()) if previous.is_none() => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    });
    match read {
        Ok(_) => Ok(previous == Some(Lsn(0))),
        Err(error) if is_of_object(&error) || error.kind() == ErrorKind::Unusable => Ok(false),
        Err(error) => Err(error),
    }
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
