//! A WAL record: whom it is from, which blocks it touches, how much of it is full-page images.
//!
//! Guarantees that a record handed out is one whose checksum was right, and that taking it apart never fails by a panic.
//! Block data are sized, not read; what a record means is left to `meaning`.

use crate::cursor::Cursor;
use crate::{Lsn, RECORD_HEADER_BYTES, RecordHeader, WalMagic};

/// How many bytes behind the header are kept of a record that goes over the end of a page. The headers of all blocks
/// take at most 905: 33 of 27 bytes, and 14 for origin, top-level transaction and main data.
pub(crate) const FRONT_BYTES: usize = 2048;

/// What stands for the main data, the origin and the top-level transaction where a block's number would stand.
const ID_MAX: u8 = 32;
const ID_DATA_SHORT: u8 = 255;
const ID_DATA_LONG: u8 = 254;
const ID_ORIGIN: u8 = 253;
const ID_TOP_LEVEL_XID: u8 = 252;

/// The bits of a block's flags that number its fork.
const FORK_MASK: u8 = 0x0F;
const HAS_IMAGE: u8 = 0x10;
const SAME_RELATION: u8 = 0x80;

/// In an image's flags: it has a hole; it is compressed with pglz, lz4 or zstd.
const IMAGE_HOLE: u8 = 0x01;
const IMAGE_COMPRESSED: u8 = 0x1C;

/// A record whose checksum was right.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// LSN at which the record begins.
    pub lsn: Lsn,
    /// Where it ends, and the next one may begin: rounded up to eight bytes; after a switch the end of the segment.
    pub end: Lsn,
    /// The record's header, with its checksum.
    pub header: RecordHeader,
    /// The format of the page it ends on.
    pub magic: WalMagic,
    /// What comes behind the header: all of it, or at least its first [`FRONT_BYTES`].
    pub(crate) front: &'a [u8],
}

/// A block that a record refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which of the record's references it is; at most 32.
    pub id: u8,
    /// The relation's tablespace, database and file number.
    pub relation: (u32, u32, u32),
    /// Which fork: 0 is the main one.
    pub fork: u8,
    /// Which block of the fork.
    pub block: u32,
    /// How many bytes of WAL its full-page image takes; 0 if there is none.
    pub image_bytes: u16,
    /// How many bytes of other data belong to it.
    pub data_bytes: u16,
}

/// What a record consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Parts<'a> {
    /// How many blocks it refers to.
    pub blocks: u32,
    /// How many bytes are full-page images.
    pub image_bytes: u32,
    /// How many bytes belong to the record itself.
    pub main_bytes: u32,
    /// Their beginning, as far as it was kept: all of it for records within one page.
    pub main: &'a [u8],
    /// The transaction's top-level transaction, where the record tells it.
    pub top_level_xid: Option<u32>,
}

/// A record with a right checksum whose inner lengths do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record at {lsn} does not consist of what it says")]
pub struct InvalidRecord {
    /// LSN at which the record begins.
    pub lsn: Lsn,
}

impl<'a> Record<'a> {
    /// Takes the record apart; `visit` is shown each block.
    ///
    /// # Errors
    /// When the lengths inside it do not add up to its own.
    ///
    /// Source: `DecodeXLogRecord` in `xlogreader.c`, 15 to 18.
    pub fn parts(&self, mut visit: impl FnMut(Block)) -> Result<Parts<'a>, InvalidRecord> {
        self.take_apart(&mut visit)
            .ok_or(InvalidRecord { lsn: self.lsn })
    }

    fn take_apart(&self, visit: &mut dyn FnMut(Block)) -> Option<Parts<'a>> {
        let total = self.header.bytes.checked_sub(RECORD_HEADER_BYTES as u32)?;
        let mut cursor = Cursor(self.front);
        let mut parts = Parts::default();
        let mut relation = None;
        // What comes behind the headers: images and data of blocks, then the main data.
        let mut behind: u64 = 0;
        while u64::try_from(self.front.len() - cursor.0.len()).ok()? + behind < u64::from(total) {
            match cursor.u8()? {
                ID_DATA_SHORT => parts.main_bytes = u32::from(cursor.u8()?),
                ID_DATA_LONG => parts.main_bytes = cursor.u32()?,
                ID_ORIGIN => {
                    cursor.u16()?;
                    continue;
                }
                ID_TOP_LEVEL_XID => {
                    parts.top_level_xid = Some(cursor.u32()?);
                    continue;
                }
                id if id <= ID_MAX => {
                    let block = block(id, &mut cursor, &mut relation)?;
                    visit(block);
                    parts.blocks += 1;
                    parts.image_bytes += u32::from(block.image_bytes);
                    behind += u64::from(block.image_bytes) + u64::from(block.data_bytes);
                    continue;
                }
                _ => return None,
            }
            // The main data's header is the last.
            let headers = u64::try_from(self.front.len() - cursor.0.len()).ok()?;
            if headers + behind + u64::from(parts.main_bytes) != u64::from(total) {
                return None;
            }
            let main = cursor
                .0
                .get(usize::try_from(behind).ok()?..)
                .unwrap_or_default();
            let kept = usize::try_from(parts.main_bytes).ok()?.min(main.len());
            parts.main = main.get(..kept)?;
            return Some(parts);
        }
        let headers = u64::try_from(self.front.len() - cursor.0.len()).ok()?;
        (headers + behind == u64::from(total)).then_some(parts)
    }
}

/// A block's header, without its number; `relation` is that of the block before.
fn block(id: u8, cursor: &mut Cursor<'_>, relation: &mut Option<(u32, u32, u32)>) -> Option<Block> {
    let flags = cursor.u8()?;
    let data_bytes = cursor.u16()?;
    let mut image_bytes = 0;
    if flags & HAS_IMAGE != 0 {
        image_bytes = cursor.u16()?;
        cursor.u16()?;
        let kind = cursor.u8()?;
        if kind & IMAGE_COMPRESSED != 0 && kind & IMAGE_HOLE != 0 {
            cursor.u16()?;
        }
    }
    if flags & SAME_RELATION == 0 {
        *relation = Some((cursor.u32()?, cursor.u32()?, cursor.u32()?));
    }
    Some(Block {
        id,
        relation: (*relation)?,
        fork: flags & FORK_MASK,
        block: cursor.u32()?,
        image_bytes,
        data_bytes,
    })
}
