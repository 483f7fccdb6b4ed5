//! The vocabulary of PostgreSQL's WAL as types: names, places, timelines, page headers, records.
//!
//! Everything that Walden knows about the server's log starts as text or bytes from outside: a file
//! name from the archiver, a `%r` from a shell command, the first page of a segment. This crate
//! turns each of them into a type, once, at the edge, and answers the questions that only
//! arithmetic can answer. It does no I/O, has no `unsafe`, panics on no input, and depends on
//! nothing of ours, so its rules can be tested over every input that matters.
//!
//! It also reads what is in WAL: [`SegmentReader`] takes a segment's bytes as they come, and shows the records
//! whose checksums are right; [`SegmentSummary::join`] tells whether two segments are one stream.
//!
//! What it leaves to others: opening files, choosing what to archive or remove, and every
//! judgement about what an error means for a running server.
//!
//! # The words
//!
//! | The server says | Here | What it is |
//! |---|---|---|
//! | WAL segment size | [`SegmentSize`] | a power of two, 1 MB to 1 GB, set by `initdb`, never assumed |
//! | LSN | [`Lsn`] | a place in WAL, in bytes from its beginning: `16/B374D848` |
//! | segment number | [`SegmentNumber`] | which segment, counted from WAL's beginning |
//! | timeline | [`TimelineId`] | a line of WAL history; 1 is the first, there is no 0 |
//! | segment file name | [`SegmentName`] | 24 digits: timeline and number |
//! | any file that is archived | [`WalFileName`] | one of the four kinds of name |
//! | `%r` | [`KeepFrom`] | the oldest file to keep, and so which ones may go |
//! | timeline history file | [`TimelineHistory`] | a timeline's ancestors and where each was left |
//! | long page header | [`LongPageHeader`] | what the first 40 bytes of a segment say about it |
//! | page magic | [`WalMagic`] | which major version wrote a page |
//! | system identifier | [`SystemIdentifier`] | which database cluster the WAL is from |
//! | WAL record | [`Record`] | one change, with a checksum and the place of the one before |
//! | resource manager | [`ResourceManager`] | who wrote a record and replays it |
//! | `TimestampTz` | [`Timestamp`] | a moment, in microseconds since 2000 |
//!
//! A segment name does not say how long a segment is. The same 24 digits name different places in
//! WAL for different sizes, and some digits are impossible for some sizes. So every question
//! about places takes a [`SegmentSize`], and the answer may be "there is no such segment".
//!
//! # From a name to a place and back
//!
//! ```
//! use wal::{KeepFrom, Lsn, SegmentSize, WalFileName};
//!
//! let name: WalFileName = "00000002000000A9000000FF".parse()?;
//! let segment = *name.segment().ok_or("names no segment")?;
//! assert_eq!(segment.timeline().get(), 2);
//!
//! // With the usual 16 MB, 256 segments share the middle eight digits, and this is their last.
//! let size = SegmentSize::DEFAULT;
//! assert_eq!(segment.start(size), Some("A9/FF000000".parse()?));
//! let next = segment.next(size).ok_or("WAL ends here")?;
//! assert_eq!(next.to_string(), "00000002000000AA00000000");
//!
//! // With 64 MB there are only 64, so there is no such segment.
//! let larger = SegmentSize::new(64 * 1024 * 1024)?;
//! assert_eq!(segment.start(larger), None);
//! assert_eq!(Lsn(0xA9_FF00_0000).segment(larger).0, 0xA9 * 64 + 63);
//!
//! // The timeline takes no part in what may be removed, and timeline history files always stay.
//! let keep: KeepFrom = "00000002000000A9000000FF".parse()?;
//! assert!(keep.may_remove(&"00000001000000A9000000FE".parse()?));
//! assert!(!keep.may_remove(&"00000001000000A9000000FF".parse()?));
//! assert!(!keep.may_remove(&"00000002.history".parse()?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Strictness
//!
//! Names are taken as the server writes them and in no other form: upper-case digits, exact
//! lengths, no timeline 0. Where the server is more lenient with itself, the type's page says so.

mod crc;
mod cursor;
mod damage;
mod file_name;
mod hex;
mod history;
mod keep_from;
mod lsn;
mod magic;
mod meaning;
mod page_header;
mod reader;
mod record;
mod record_header;
mod resource_manager;
mod segment_name;
mod segment_size;
mod system_identifier;
mod timeline;
mod timestamp;

pub use damage::Damage;
pub use file_name::{InvalidWalFileName, WalFileName};
pub use history::{Ancestor, InvalidTimelineHistory, TimelineHistory};
pub use keep_from::{InvalidKeepFrom, KeepFrom};
pub use lsn::{InvalidLsn, Lsn};
pub use magic::WalMagic;
pub use meaning::{Meaning, Timelines};
pub use page_header::{HeaderError, HeaderErrorKind, LONG_PAGE_HEADER_BYTES, LongPageHeader};
pub use reader::{ReadError, SegmentEnd, SegmentReader, SegmentSummary};
pub use record::{Block, InvalidRecord, Parts, Record};
pub use record_header::{RECORD_HEADER_BYTES, RecordHeader};
pub use resource_manager::ResourceManager;
pub use segment_name::{SegmentName, SegmentNumber};
pub use segment_size::{InvalidSegmentSize, SegmentSize};
pub use system_identifier::{InvalidSystemIdentifier, SystemIdentifier};
pub use timeline::TimelineId;
pub use timestamp::Timestamp;
