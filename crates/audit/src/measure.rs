//! Whose WAL an archive holds, and how long its segments are.
//!
//! Guarantees that one odd segment does not decide: some are asked, spread over all timelines, and most votes count.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use archive::{Archive, Cancel, Error, ErrorKind};
use wal::{LongPageHeader, SegmentSize, SystemIdentifier, WalFileName};

use crate::inventory::Inventory;

/// How many segments are asked on each timeline, and in all.
const ASKED_OF_TIMELINE: usize = 4;
const ASKED_MAX: usize = 24;

/// How many segments decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voters {
    /// Several segments on each timeline.
    Many,
    /// The first one that can be asked.
    One,
}

/// What all segments of an archive have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Whose they are; `None` if no segment could be asked and the archive is not bound.
    pub system: Option<SystemIdentifier>,
    /// Segment size.
    pub size: SegmentSize,
}

/// Finds out.
///
/// # Errors
/// When there are segments, and it cannot be told.
pub(crate) fn measure(
    archive: &Archive,
    inventory: &Inventory,
    bound: Option<SystemIdentifier>,
    voters: Voters,
    cancel: &Cancel,
) -> Result<Measure, Error> {
    let mut votes: BTreeMap<(SystemIdentifier, SegmentSize), usize> = BTreeMap::new();
    let mut trouble = None;
    for name in some(inventory) {
        if voters == Voters::One && !votes.is_empty() {
            break;
        }
        match header(archive, &name, cancel) {
            Ok(Some(header)) => {
                *votes
                    .entry((header.system, header.segment_size))
                    .or_default() += 1
            }
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => trouble = Some(error),
        }
    }
    let best = votes
        .iter()
        .max_by_key(|((system, _), count)| (Some(*system) == bound, **count));
    match (best, trouble) {
        (Some(((system, size), _)), _) => Ok(Measure {
            system: bound.or(Some(*system)),
            size: *size,
        }),
        (None, Some(error)) if !is_of_object(&error) => Err(error),
        // Nothing there is a segment; each will be named.
        (None, _) => Ok(Measure {
            system: bound,
            size: SegmentSize::DEFAULT,
        }),
    }
}

/// Whether the object is at fault, and not the store or the identity.
pub(crate) fn is_of_object(error: &Error) -> bool {
    error.kind() == ErrorKind::Damaged || error.is_packed() || error.is_no_file()
}

/// Some segments, and partial ones where there are no others.
fn some(inventory: &Inventory) -> Vec<WalFileName> {
    let mut names = Vec::new();
    for (timeline, files) in &inventory.timelines {
        let partials = files
            .partials
            .iter()
            .map(|name| WalFileName::Partial(*name));
        let count = usize::try_from(files.stored.objects).unwrap_or(usize::MAX);
        let segments = inventory.segments(*timeline).map(WalFileName::Segment);
        let spread = segments.step_by(count.div_ceil(ASKED_OF_TIMELINE).max(1));
        let before = names.len();
        names.extend(spread);
        if names.len() == before {
            names.extend(partials.take(1));
        }
    }
    names.truncate(ASKED_MAX);
    names
}

/// The header of a segment, if it is one.
pub(crate) fn header(
    archive: &Archive,
    name: &WalFileName,
    cancel: &Cancel,
) -> Result<Option<LongPageHeader>, Error> {
    let mut found = None;
    archive
        .reading()
        .read(&name.to_string(), cancel, &mut |piece| {
            found = LongPageHeader::parse(piece).ok();
            ControlFlow::Break(())
        })?;
    Ok(found.filter(|header| {
        name.segment()
            .is_some_and(|name| header.check_name(name).is_ok())
    }))
}
