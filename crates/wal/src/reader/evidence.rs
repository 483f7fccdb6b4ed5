//! Whether WAL was written at a place where reading it has failed.
//!
//! A file may hold anything behind the end of WAL: zeros, or what a recycled segment held before. So something that is no
//! record is damage only if there is a sign that a record was there. Guarantees that a single flipped bit in a record leaves
//! such a sign, and that what an older segment left behind is none: every sign contains a place in WAL that only this
//! one has, or a checksum of 32 bits. Signs on later pages are left to the reader.

use crate::crc::Crc;
use crate::record_header::{behind, checksum, of_length};
use crate::{Lsn, RECORD_HEADER_BYTES, RecordHeader};

/// Whether a record was written at `lsn`; `page` is its page from there on.
///
/// `previous` is where the record before it begins, if that is known. `is_cut` says that the record goes over the end of the
/// page, and that the next page is not there: then that it follows the one before is no sign of damage, since WAL may end
/// with a record that was never finished.
pub(crate) fn of_record(page: &[u8], lsn: Lsn, previous: Option<Lsn>, is_cut: bool) -> bool {
    let Some(header) = page.first_chunk::<RECORD_HEADER_BYTES>() else {
        return false;
    };
    let follows = previous == Some(RecordHeader::read(header).previous);
    let is_record = if is_cut {
        follows && has_some_length(page, header)
    } else {
        follows || previous.is_some_and(|previous| is_valid(page, &behind(header, previous)))
    };
    is_record || has_follower(page, lsn)
}

/// Whether these bytes begin with a record, if its header were this one.
fn is_valid(page: &[u8], header: &[u8; RECORD_HEADER_BYTES]) -> bool {
    let fields = RecordHeader::read(header);
    let rest = usize::try_from(fields.bytes)
        .ok()
        .and_then(|end| page.get(RECORD_HEADER_BYTES..end));
    rest.is_some_and(|rest| checksum(header, Crc::default().and(rest)) == fields.crc)
}

/// Whether these bytes begin with a record, if its length were another.
fn has_some_length(page: &[u8], header: &[u8; RECORD_HEADER_BYTES]) -> bool {
    let expected = RecordHeader::read(header).crc;
    let mut rest = Crc::default();
    let mut bytes = RECORD_HEADER_BYTES as u32;
    let ends = page
        .get(RECORD_HEADER_BYTES..)
        .unwrap_or_default()
        .chunks(1);
    // The empty piece is the record that has nothing behind its header.
    std::iter::once([].as_slice()).chain(ends).any(|byte| {
        bytes += u32::from(!byte.is_empty());
        rest = rest.and(byte);
        checksum(&of_length(header, bytes), rest) == expected
    })
}

/// Whether a later record on this page says that the one before it begins at `lsn`.
fn has_follower(page: &[u8], lsn: Lsn) -> bool {
    let mut rest = page.get(8..).unwrap_or_default();
    while let Some(header) = rest.first_chunk::<RECORD_HEADER_BYTES>() {
        if RecordHeader::read(header).previous == lsn {
            return true;
        }
        rest = rest.get(8..).unwrap_or_default();
    }
    false
}
