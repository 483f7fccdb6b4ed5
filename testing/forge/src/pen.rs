//! WAL written record by record as a running server does: from any place on, into segments of any size.
//!
//! Guarantees page headers, padding, checksums and the chain of records as the server makes them. Where the bytes go is the
//! caller's: each piece is handed over with its place, and none goes over a page. So what a segment held before, behind the
//! end of WAL, stays as it was.

use wal::{LONG_PAGE_HEADER_BYTES, RecordHeader};

use crate::{MAGIC, PAGE, whole};

/// Bytes of a page header that is not a segment's first.
const SHORT_HEADER: usize = 24;

/// Flags of a page's header (`xlog_internal.h`, 15 to 18).
const IS_CONTINUED: u16 = 1;
const IS_LONG: u16 = 2;

/// The page begins with a record in place of one that was never finished (`XLP_FIRST_IS_OVERWRITE_CONTRECORD`).
pub const OVERWRITES: u16 = 8;

/// Where a record lies, and which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Written {
    /// Where it begins, behind a page header.
    pub lsn: u64,
    /// Where it ends, padding included.
    pub end: u64,
    /// CRC-32C of the record, as in its header.
    pub crc: u32,
}

/// Writes WAL of one system.
#[derive(Clone, Debug)]
pub struct Pen {
    /// Segment size in bytes.
    pub segment: u64,
    /// Whose WAL it is.
    pub system: u64,
    /// The timeline of the pages that are begun next.
    pub timeline: u32,
    /// Where WAL ends so far.
    pub at: u64,
    /// Where the last record begins.
    pub previous: u64,
    /// Flags of the page that is begun next.
    pub page_flags: u16,
    /// The transaction of the next record; different ones make records different that say the same.
    pub xid: u32,
}

impl Pen {
    /// Where the next record will begin.
    #[must_use]
    pub fn next(&self) -> u64 {
        match self.at % PAGE as u64 {
            0 => self.at + self.header_bytes() as u64,
            _ => self.at,
        }
    }

    fn header_bytes(&self) -> usize {
        if self.at.is_multiple_of(self.segment) {
            LONG_PAGE_HEADER_BYTES
        } else {
            SHORT_HEADER
        }
    }

    /// Begins a page if the last one is full; `remaining` bytes of a record are still to come.
    fn begin_page(&mut self, remaining: usize, put: &mut dyn FnMut(u64, &[u8])) {
        if !self.at.is_multiple_of(PAGE as u64) {
            return;
        }
        // The server writes pages out of its buffers, which are zeros at first.
        put(self.at, &[0; PAGE]);
        let is_first = self.at.is_multiple_of(self.segment);
        let continued = if remaining > 0 { IS_CONTINUED } else { 0 };
        let long = if is_first { IS_LONG } else { 0 };
        let flags = self.page_flags | continued | long;
        self.page_flags = 0;
        let mut header = Vec::with_capacity(LONG_PAGE_HEADER_BYTES);
        header.extend_from_slice(&MAGIC.to_ne_bytes());
        header.extend_from_slice(&flags.to_ne_bytes());
        header.extend_from_slice(&self.timeline.to_ne_bytes());
        header.extend_from_slice(&self.at.to_ne_bytes());
        header.extend_from_slice(&(remaining as u32).to_ne_bytes());
        header.extend_from_slice(&[0; 4]);
        if is_first {
            header.extend_from_slice(&self.system.to_ne_bytes());
            header.extend_from_slice(&(self.segment as u32).to_ne_bytes());
            header.extend_from_slice(&(PAGE as u32).to_ne_bytes());
        }
        put(self.at, &header);
        self.at += header.len() as u64;
    }

    /// Writes a record; `rest` is what follows its header.
    pub fn record(
        &mut self,
        manager: u8,
        info: u8,
        rest: &[u8],
        put: &mut dyn FnMut(u64, &[u8]),
    ) -> Written {
        self.begin_page(0, put);
        let lsn = self.at;
        let bytes = whole(self.xid, manager, info, self.previous, rest);
        let crc = crc_of(&bytes);
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            self.begin_page(left.len(), put);
            let room = PAGE - (self.at % PAGE as u64) as usize;
            let (now, later) = left.split_at(room.min(left.len()));
            put(self.at, now);
            self.at += now.len() as u64;
            left = later;
        }
        self.at = self.at.next_multiple_of(8);
        self.previous = lsn;
        Written {
            lsn,
            end: self.at,
            crc,
        }
    }

    /// A record with short main data.
    pub fn short(
        &mut self,
        manager: u8,
        info: u8,
        main: &[u8],
        put: &mut dyn FnMut(u64, &[u8]),
    ) -> Written {
        let mut rest = Vec::with_capacity(main.len() + 2);
        if !main.is_empty() {
            rest.extend_from_slice(&[255, main.len() as u8]);
            rest.extend_from_slice(main);
        }
        self.record(manager, info, &rest, put)
    }

    /// A record with that much main data, different for each `seed`.
    pub fn data(&mut self, main: usize, seed: u64, put: &mut dyn FnMut(u64, &[u8])) -> Written {
        let mut rest = vec![254];
        rest.extend_from_slice(&(main as u32).to_ne_bytes());
        let mut word = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        while rest.len() < main + 5 {
            word = word
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(seed | 1);
            rest.extend_from_slice(&word.to_ne_bytes());
        }
        rest.truncate(main + 5);
        self.record(10, 0, &rest, put)
    }

    /// A switch: the rest of the segment becomes zeros.
    pub fn switch(&mut self, put: &mut dyn FnMut(u64, &[u8])) -> Written {
        let mut written = self.short(0, 0x40, &[], put);
        while !self.at.is_multiple_of(self.segment) {
            let room = PAGE - (self.at % PAGE as u64) as usize;
            put(self.at, &vec![0; room]);
            self.at += room as u64;
        }
        written.end = self.at;
        written
    }

    /// A checkpoint that replay begins at `redo` from, on this timeline, which was left from `from` if it begins it.
    pub fn checkpoint(
        &mut self,
        is_shutdown: bool,
        redo: u64,
        from: u32,
        put: &mut dyn FnMut(u64, &[u8]),
    ) -> Written {
        // `CheckPoint` in `pg_control.h` has 88 bytes in 15 to 18; only its beginning matters here.
        let mut main = vec![0; 88];
        let fields = redo.to_ne_bytes().into_iter();
        let fields = fields
            .chain(self.timeline.to_ne_bytes())
            .chain(from.to_ne_bytes());
        for (place, byte) in main.iter_mut().zip(fields) {
            *place = byte;
        }
        let info = if is_shutdown { 0 } else { 0x10 };
        self.short(0, info, &main, put)
    }

    /// This timeline begins here, left from `from`, after a promotion.
    pub fn end_of_recovery(&mut self, from: u32, put: &mut dyn FnMut(u64, &[u8])) -> Written {
        let mut main = 800_000_000_000_000_i64.to_ne_bytes().to_vec();
        main.extend_from_slice(&self.timeline.to_ne_bytes());
        main.extend_from_slice(&from.to_ne_bytes());
        self.short(0, 0x90, &main, put)
    }

    /// In place of the rest of a record that was never finished, at the beginning of a page.
    pub fn overwrite(&mut self, unfinished: u64, put: &mut dyn FnMut(u64, &[u8])) -> Written {
        self.page_flags = OVERWRITES;
        let mut main = unfinished.to_ne_bytes().to_vec();
        main.extend_from_slice(&800_000_000_000_000_i64.to_ne_bytes());
        self.short(0, 0xD0, &main, put)
    }

    /// The end of the backup that began at `start`.
    pub fn backup_end(&mut self, start: u64, put: &mut dyn FnMut(u64, &[u8])) -> Written {
        self.short(0, 0x50, &start.to_ne_bytes(), put)
    }
}

/// The checksum of a whole record, as its header has it.
fn crc_of(record: &[u8]) -> u32 {
    let field = record.get(wal::RECORD_HEADER_BYTES - 4..wal::RECORD_HEADER_BYTES);
    let field = field.and_then(|field| field.try_into().ok());
    u32::from_ne_bytes(field.unwrap_or_default())
}

/// Whether a record's checksum is right, for readers of their own; `record` is all of it.
#[must_use]
pub fn is_sound(record: &[u8]) -> bool {
    let Some((_, rest)) = record.split_at_checked(wal::RECORD_HEADER_BYTES) else {
        return false;
    };
    let word = |at: usize| {
        let bytes = record
            .get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok());
        u64::from_ne_bytes(bytes.unwrap_or_default())
    };
    let header = RecordHeader {
        bytes: 0,
        xid: (word(0) >> 32) as u32,
        previous: wal::Lsn(word(8)),
        info: word(16) as u8,
        manager: wal::ResourceManager((word(16) >> 8) as u8),
        crc: 0,
    };
    record.starts_with(&header.before(rest))
}
