//! Is a file stored? The only answers to that.
//!
//! Guarantees that "no" is the store's own answer. That the store is the archive, and what follows from a "no", is for
//! `absence.rs`.

use std::ops::ControlFlow;

use wal::{LONG_PAGE_HEADER_BYTES, LongPageHeader, SegmentName, WalFileName};

use crate::archive::Archive;
use crate::error::{Error, ErrorKind};
use crate::format::codec::Contents;
use crate::store::key::{key_of, parse_key};
use crate::store::waist::Detail;

/// The header of a stored segment; `None` if it has been removed meanwhile.
pub(crate) fn header_of(archive: &Archive, key: &str) -> Result<Option<LongPageHeader>, Error> {
    let Some(object) = archive.store.open(key)? else {
        return Ok(None);
    };
    let shown = archive.shown(key);
    let mut head = [0; LONG_PAGE_HEADER_BYTES];
    let bytes = archive.decode(object, key)?.fill(&mut head)?;
    match LongPageHeader::parse(head.get(..bytes).unwrap_or_default()) {
        Ok(header) => Ok(Some(header)),
        Err(cause) => Err(Error::damaged(format!(
            "archive file \"{shown}\" is not valid: {cause}"
        ))),
    }
}

/// Whether a segment is stored.
pub(super) fn is_stored(archive: &Archive, segment: SegmentName) -> Result<bool, Error> {
    let key = key_of(&WalFileName::Segment(segment));
    Ok(archive.store.open(&key)?.is_some())
}

/// Whether a listing shows a segment, be it only as a name that is no file.
pub(crate) fn is_listed(archive: &Archive, segment: &SegmentName) -> Result<bool, Error> {
    let mut found = false;
    let wanted = WalFileName::Segment(*segment);
    archive
        .store
        .list(&segment.to_string(), Detail::Keys, &mut |entry| {
            found |= parse_key(&entry.key).is_some_and(|name| name == wanted);
            ControlFlow::Continue(())
        })?;
    Ok(found)
}

/// Whether a segment is stored that begins as its name says, on the timeline in its name: a file that was copied by hand may
/// hold what a recycled segment held before.
pub(super) fn is_begun(archive: &Archive, segment: SegmentName) -> Result<bool, Error> {
    let key = key_of(&WalFileName::Segment(segment));
    let header = match header_of(archive, &key) {
        Ok(header) => header,
        Err(error) if error.kind() == ErrorKind::Damaged => None,
        Err(error) => return Err(error),
    };
    Ok(header.is_some_and(|header| {
        header.check_name(&segment).is_ok() && header.timeline == segment.timeline()
    }))
}
