//! WAL made up for tests, byte by byte as the server writes it.
//!
//! Guarantees WAL that a reader of segments takes, of one database cluster, on one timeline after another. For tests alone:
//! nothing of the product uses it.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that forges beyond its WAL is to fail"
)]

pub mod pen;

use wal::{
    LONG_PAGE_HEADER_BYTES, Lsn, RECORD_HEADER_BYTES, RecordHeader, ResourceManager, SegmentName,
    SegmentSize, TimelineId,
};

const PAGE: usize = 8192;
const MAGIC: u16 = 0xD110;

/// The transaction of all records.
const XID: u32 = 700;

/// How long segments are, in bytes: as short as they can be.
pub const SEGMENT: usize = 1024 * 1024;

/// Which system the WAL is from, unless the test wants another.
pub const SYSTEM: u64 = 7_654_321;

/// Which segment the WAL begins with, unless the test wants another.
pub const FIRST: u64 = 5;

/// WAL from the beginning of a segment on, as long as whole segments.
#[derive(Clone, Debug)]
pub struct Written {
    /// All of it, zeros to the end of the last segment included.
    pub bytes: Vec<u8>,
    /// The timeline of what is written next.
    pub timeline: u32,
    /// Where the last record begins.
    pub previous: u64,
    /// How much has been written.
    pub end: usize,
    /// Flags of the next page.
    pub next_page_flags: u16,
    /// The system of segments that are begun from here on.
    pub system: u64,
    first: u64,
    /// How long its segments are.
    segment: usize,
}

impl Default for Written {
    fn default() -> Written {
        Written::new()
    }
}

impl Written {
    /// WAL that begins with segment [`FIRST`].
    #[must_use]
    pub fn new() -> Written {
        Written::behind(FIRST, FIRST * SEGMENT as u64 - 100)
    }

    /// From segment `first` on, behind a record at `previous`.
    #[must_use]
    pub fn behind(first: u64, previous: u64) -> Written {
        Written::of_segments(SEGMENT, first, previous)
    }

    /// The same in segments of this many bytes.
    #[must_use]
    pub fn of_segments(segment: usize, first: u64, previous: u64) -> Written {
        Written {
            bytes: Vec::new(),
            timeline: 1,
            previous,
            end: 0,
            next_page_flags: 0,
            system: SYSTEM,
            first,
            segment,
        }
    }

    /// Where the next record begins, but for a page header.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        Lsn(self.first * self.segment as u64 + self.end as u64)
    }

    /// Begins a page if the last one is full; `remaining` bytes of a record are still to come.
    fn begin_page(&mut self, remaining: usize) {
        if !self.end.is_multiple_of(PAGE) {
            return;
        }
        let address = self.lsn().0;
        let is_first = self.end.is_multiple_of(self.segment);
        let flags = self.next_page_flags | u16::from(remaining > 0) | (u16::from(is_first) << 1);
        self.next_page_flags = 0;
        let mut header = Vec::new();
        header.extend_from_slice(&MAGIC.to_ne_bytes());
        header.extend_from_slice(&flags.to_ne_bytes());
        header.extend_from_slice(&self.timeline.to_ne_bytes());
        header.extend_from_slice(&address.to_ne_bytes());
        header.extend_from_slice(&(remaining as u32).to_ne_bytes());
        header.extend_from_slice(&[0; 4]);
        if is_first {
            header.extend_from_slice(&self.system.to_ne_bytes());
            header.extend_from_slice(&(self.segment as u32).to_ne_bytes());
            header.extend_from_slice(&(PAGE as u32).to_ne_bytes());
            assert_eq!(header.len(), LONG_PAGE_HEADER_BYTES);
            self.bytes.resize(self.end + self.segment, 0);
        }
        self.put(&header);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Writes a record, and returns where it begins.
    pub fn record(&mut self, manager: u8, info: u8, rest: &[u8]) -> Lsn {
        self.begin_page(0);
        let lsn = self.lsn();
        let bytes = whole(XID, manager, info, self.previous, rest);
        let mut written = 0;
        while written < bytes.len() {
            self.begin_page(bytes.len() - written);
            let room = PAGE - self.end % PAGE;
            let now = room.min(bytes.len() - written);
            self.put(&bytes[written..written + now]);
            written += now;
        }
        self.end = self.end.next_multiple_of(8);
        self.previous = lsn.0;
        lsn
    }

    /// A record of that many bytes in all, with main data that differ from place to place.
    pub fn data(&mut self, bytes: usize) -> Lsn {
        assert!(bytes >= RECORD_HEADER_BYTES + 5);
        let main = bytes - RECORD_HEADER_BYTES - 5;
        let seed = self.end;
        let mut rest = vec![254];
        rest.extend_from_slice(&(main as u32).to_ne_bytes());
        rest.extend((0..main).map(|at| (at * 31 + seed * 7 + 1) as u8));
        self.record(10, 0, &rest)
    }

    /// A record with short main data.
    pub fn short(&mut self, manager: u8, info: u8, main: &[u8]) -> Lsn {
        let mut rest = Vec::new();
        if !main.is_empty() {
            rest.extend_from_slice(&[255, main.len() as u8]);
            rest.extend_from_slice(main);
        }
        self.record(manager, info, &rest)
    }

    /// Records of mixed lengths until this many bytes are written.
    pub fn fill(&mut self, until: usize) {
        let mut length = 40;
        while self.end < until {
            length = (length * 13 + 17) % 700 + 29;
            self.data(length);
        }
    }

    /// A switch: the rest of the segment stays as zeros.
    pub fn switch(&mut self) -> Lsn {
        let lsn = self.short(0, 0x40, &[]);
        self.end = self.end.next_multiple_of(self.segment);
        lsn
    }

    /// Begins a timeline here, as a promotion does, and returns the LSN.
    pub fn promote(&mut self, timeline: u32) -> Lsn {
        let mut main = 800_000_000_000_000_i64.to_ne_bytes().to_vec();
        main.extend_from_slice(&timeline.to_ne_bytes());
        main.extend_from_slice(&self.timeline.to_ne_bytes());
        self.timeline = timeline;
        self.short(0, 0x90, &main)
    }

    /// The segments, under the names of a timeline; none if there is no such timeline.
    #[must_use]
    pub fn segments(&self, timeline: u32) -> Vec<(SegmentName, Vec<u8>)> {
        let size = SegmentSize::new(self.segment as u64).ok();
        let Some((timeline, size)) = TimelineId::new(timeline).zip(size) else {
            return Vec::new();
        };
        let name = |index: usize| {
            let begin = (self.first + index as u64) * self.segment as u64;
            SegmentName::holding(timeline, Lsn(begin), size)
        };
        let pieces = self.bytes.chunks(self.segment).enumerate();
        pieces
            .map(|(index, bytes)| (name(index), bytes.to_vec()))
            .collect()
    }
}

/// A record with its header.
fn whole(xid: u32, manager: u8, info: u8, previous: u64, rest: &[u8]) -> Vec<u8> {
    let header = RecordHeader {
        bytes: 0,
        xid,
        previous: Lsn(previous),
        info,
        manager: ResourceManager(manager),
        crc: 0,
    };
    let mut bytes = header.before(rest).to_vec();
    bytes.extend_from_slice(rest);
    bytes
}
