//! The header that each page of WAL begins with.
//!
//! Guarantees to tell three kinds of page apart: the one that belongs to its place, one of another place or system (left
//! over in a recycled file, or never written), and one that belongs here and is damaged.

use crate::cursor::Cursor;
use crate::damage::PageProblem;
use crate::{LONG_PAGE_HEADER_BYTES, Lsn, WalMagic};

/// How many bytes the header of a segment's other pages has.
///
/// Source: `SizeOfXLogShortPHD` in `xlog_internal.h`, 15 to 18.
pub(crate) const SHORT_PAGE_HEADER_BYTES: usize = 24;

/// The page begins in the middle of a record (`XLP_FIRST_IS_CONTRECORD`).
const CONTINUES: u16 = 0x0001;
const LONG_HEADER: u16 = 0x0002;

/// A page's header as it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageHeader {
    magic: WalMagic,
    flags: u16,
    pub(crate) timeline: u32,
    address: Lsn,
    /// How many bytes of a record from an earlier page are still to come.
    pub(crate) remaining: u32,
    padding: u32,
}

/// Whose page it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose {
    /// The one that belongs here.
    Ours,
    /// Not this place's; a flipped bit can make it look so.
    Anothers(PageProblem),
    /// The one that belongs here, with a header that no server writes.
    Damaged(PageProblem),
}

impl PageHeader {
    /// Takes the fields apart; `None` if there are too few bytes.
    pub(crate) fn read(page: &[u8]) -> Option<PageHeader> {
        let mut cursor = Cursor(page);
        Some(PageHeader {
            magic: WalMagic(cursor.u16()?),
            flags: cursor.u16()?,
            timeline: cursor.u32()?,
            address: Lsn(cursor.u64()?),
            remaining: cursor.u32()?,
            padding: cursor.u32()?,
        })
    }

    /// Whose page this is, at `lsn` of a segment of that format.
    pub(crate) fn whose(&self, lsn: Lsn, magic: WalMagic, is_first: bool) -> Whose {
        if self.address != lsn {
            return Whose::Anothers(PageProblem::Address {
                found: self.address,
            });
        }
        // Whatever a recycled file held before has another address.
        if self.magic != magic {
            return Whose::Damaged(PageProblem::Magic {
                found: self.magic,
                expected: magic,
            });
        }
        let is_long = self.flags & LONG_HEADER != 0;
        let is_torn = self.continues() && self.overwrites();
        let says_more = self.remaining != 0 && !self.continues();
        if is_long != is_first || self.flags & !self.magic.flags() != 0 || is_torn || says_more {
            return Whose::Damaged(PageProblem::Flags { flags: self.flags });
        }
        match self.padding {
            0 => Whose::Ours,
            _ => Whose::Damaged(PageProblem::Padding),
        }
    }

    /// Whether the page begins in the middle of a record.
    pub(crate) fn continues(&self) -> bool {
        self.flags & CONTINUES != 0
    }

    /// Whether the page begins where the rest of an unfinished record should be.
    pub(crate) fn overwrites(&self) -> bool {
        self.flags & self.magic.overwrites_flag() != 0
    }
}

/// How long a page's header is.
pub(crate) fn header_bytes(is_first: bool) -> usize {
    if is_first {
        LONG_PAGE_HEADER_BYTES
    } else {
        SHORT_PAGE_HEADER_BYTES
    }
}
