//! The long page header: what the first 40 bytes of a segment say about it.
//!
//! Guarantees that a header which passes could have been written by a server with the byte order
//! of this machine, and tells whether it belongs to the file name it came under. The records
//! behind it are not looked at, so a segment that is damaged further on passes; the rest of the
//! page, its padding and the length of a continued record are left to others too.

use crate::{Lsn, SegmentName, SegmentSize, SystemIdentifier, TimelineId, WalMagic};

/// How many bytes a long page header has, on every platform with eight-byte alignment.
///
/// Source: `SizeOfXLogLongPHD` in `xlog_internal.h`, 15 to 18.
pub const LONG_PAGE_HEADER_BYTES: usize = 40;

/// In the header's flags: this is a long header (`XLP_LONG_HEADER`).
const FLAG_LONG_HEADER: u16 = 0x0002;
/// The page sizes that `configure --with-wal-blocksize` allows, in bytes.
const BLOCK_BYTES_MIN: u32 = 1024;
const BLOCK_BYTES_MAX: u32 = 64 * 1024;

/// The header of a segment's first page.
///
/// Source: `XLogLongPageHeaderData` in `xlog_internal.h`, 15 to 18.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongPageHeader {
    /// The format, and so the major version that wrote it.
    pub magic: WalMagic,
    /// The timeline of the page; not always the one in the segment's name, see
    /// [`LongPageHeader::check_name`].
    pub timeline: TimelineId,
    /// Where the page, and so the segment, begins; a multiple of the segment size.
    pub address: Lsn,
    /// The database cluster that the segment is from.
    pub system: SystemIdentifier,
    /// How long every segment of that cluster is.
    pub segment_size: SegmentSize,
    /// How long a page is, in bytes: a power of two from 1024 to 65536, usually 8192.
    pub block_size: u32,
}

impl LongPageHeader {
    /// Reads the header from the first bytes of a segment; what follows the first
    /// [`LONG_PAGE_HEADER_BYTES`] is not looked at.
    ///
    /// A magic number of no known major passes if it looks like a server's:
    /// [`WalMagic::major`] then says `None`, and the caller decides.
    ///
    /// # Errors
    /// [`HeaderErrorKind::Short`] for fewer bytes, [`HeaderErrorKind::Damaged`] for bytes that no
    /// server of this machine's byte order puts there.
    pub fn parse(bytes: &[u8]) -> Result<LongPageHeader, HeaderError> {
        let raw = Raw::read(bytes).ok_or(Problem::Short { bytes: bytes.len() })?;
        raw.check().map_err(HeaderError::from)
    }

    /// Whether this is the header of the segment with that name.
    ///
    /// The page must begin where the named segment begins. Its timeline may be an ancestor of the
    /// name's, so here a lower number: when a timeline begins in the middle of a segment, the server
    /// copies the first part of the parent's segment, page headers included
    /// (`XLogInitNewTimeline`, 15 to 18). Which ancestors are right, only the timeline history file
    /// can say.
    ///
    /// # Errors
    /// [`HeaderErrorKind::Misnamed`] if the header belongs to another name.
    pub fn check_name(&self, name: &SegmentName) -> Result<(), HeaderError> {
        let (name, size) = (*name, self.segment_size);
        let expected = name
            .start(size)
            .ok_or(Problem::NoSuchSegment { name, size })?;
        if self.address != expected {
            let is = SegmentName::holding(self.timeline, self.address, size);
            return Err(Problem::OtherSegment { name, is }.into());
        }
        if self.timeline > name.timeline() {
            return Err(Problem::LaterTimeline {
                name,
                found: self.timeline,
            }
            .into());
        }
        Ok(())
    }
}

/// The fields as they stand in the file, unchecked.
struct Raw {
    magic: u16,
    flags: u16,
    timeline: u32,
    address: u64,
    system: u64,
    segment_bytes: u32,
    block_bytes: u32,
}

impl Raw {
    /// Takes the fields apart; `None` if there are too few bytes.
    fn read(bytes: &[u8]) -> Option<Raw> {
        let (magic, rest) = bytes.split_first_chunk()?;
        let (flags, rest) = rest.split_first_chunk()?;
        let (timeline, rest) = rest.split_first_chunk()?;
        let (address, rest) = rest.split_first_chunk()?;
        // Length of a continued record, and padding.
        let (_, rest) = rest.split_first_chunk::<8>()?;
        let (system, rest) = rest.split_first_chunk()?;
        let (segment_bytes, rest) = rest.split_first_chunk()?;
        let (block_bytes, _) = rest.split_first_chunk()?;
        Some(Raw {
            magic: u16::from_ne_bytes(*magic),
            flags: u16::from_ne_bytes(*flags),
            timeline: u32::from_ne_bytes(*timeline),
            address: u64::from_ne_bytes(*address),
            system: u64::from_ne_bytes(*system),
            segment_bytes: u32::from_ne_bytes(*segment_bytes),
            block_bytes: u32::from_ne_bytes(*block_bytes),
        })
    }

    /// Checks the fields in the order in which a wrong one makes the others meaningless.
    fn check(&self) -> Result<LongPageHeader, Problem> {
        let magic = WalMagic(self.magic);
        if !magic.is_plausible() {
            return Err(if WalMagic(self.magic.swap_bytes()).is_plausible() {
                Problem::ByteOrder
            } else {
                Problem::Magic { magic }
            });
        }
        if self.flags & FLAG_LONG_HEADER == 0 || self.flags & !magic.flags() != 0 {
            return Err(Problem::Flags { flags: self.flags });
        }
        let timeline = TimelineId::new(self.timeline).ok_or(Problem::Timeline)?;
        let segment_size =
            SegmentSize::new(u64::from(self.segment_bytes)).map_err(|_| Problem::SegmentSize {
                bytes: self.segment_bytes,
            })?;
        if !self.block_bytes.is_power_of_two()
            || !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&self.block_bytes)
        {
            return Err(Problem::BlockSize {
                bytes: self.block_bytes,
            });
        }
        let address = Lsn(self.address);
        if address.offset_in_segment(segment_size) != 0 {
            return Err(Problem::NotFirstPage {
                address,
                size: segment_size,
            });
        }
        Ok(LongPageHeader {
            magic,
            timeline,
            address,
            system: SystemIdentifier(self.system),
            segment_size,
            block_size: self.block_bytes,
        })
    }
}

/// Why bytes are not the header they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct HeaderError {
    problem: Problem,
}

impl HeaderError {
    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> HeaderErrorKind {
        match self.problem {
            Problem::Short { .. } => HeaderErrorKind::Short,
            Problem::NoSuchSegment { .. }
            | Problem::OtherSegment { .. }
            | Problem::LaterTimeline { .. } => HeaderErrorKind::Misnamed,
            Problem::Magic { .. }
            | Problem::ByteOrder
            | Problem::Flags { .. }
            | Problem::Timeline
            | Problem::SegmentSize { .. }
            | Problem::BlockSize { .. }
            | Problem::NotFirstPage { .. } => HeaderErrorKind::Damaged,
        }
    }
}

impl From<Problem> for HeaderError {
    fn from(problem: Problem) -> HeaderError {
        HeaderError { problem }
    }
}

/// What a caller can do about a [`HeaderError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderErrorKind {
    /// There are not enough bytes: read more, or the file is cut off.
    Short,
    /// These bytes are not the beginning of a segment.
    Damaged,
    /// It is a segment, under a name that belongs to another one.
    Misnamed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("only {bytes} of the {LONG_PAGE_HEADER_BYTES} bytes of a WAL page header are there")]
    Short { bytes: usize },
    #[error("magic number {magic} is not that of a WAL page")]
    Magic { magic: WalMagic },
    #[error("the WAL page was written by a server of the other byte order")]
    ByteOrder,
    #[error("flags {flags:04X} are not those of the first page of a WAL segment")]
    Flags { flags: u16 },
    #[error("the WAL page header has timeline 0")]
    Timeline,
    #[error("the WAL page header has an invalid segment size of {bytes} bytes")]
    SegmentSize { bytes: u32 },
    #[error("the WAL page header has an invalid page size of {bytes} bytes")]
    BlockSize { bytes: u32 },
    #[error("WAL page address {address} is not the beginning of a segment of {size}")]
    NotFirstPage { address: Lsn, size: SegmentSize },
    #[error("there is no segment \"{name}\" with the segment size of {size} in the page header")]
    NoSuchSegment {
        name: SegmentName,
        size: SegmentSize,
    },
    #[error("the page header under the name \"{name}\" is that of segment \"{is}\"")]
    OtherSegment { name: SegmentName, is: SegmentName },
    #[error("the page header under the name \"{name}\" is from the later timeline {found}")]
    LaterTimeline {
        name: SegmentName,
        found: TimelineId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header as a server of this machine's byte order lays it out.
    fn bytes() -> [u8; LONG_PAGE_HEADER_BYTES] {
        let mut bytes = [0; LONG_PAGE_HEADER_BYTES];
        bytes[0..2].copy_from_slice(&0xD110_u16.to_ne_bytes());
        bytes[2..4].copy_from_slice(&0x0007_u16.to_ne_bytes());
        bytes[4..8].copy_from_slice(&2_u32.to_ne_bytes());
        bytes[8..16].copy_from_slice(&0x1_0300_0000_u64.to_ne_bytes());
        bytes[16..20].copy_from_slice(&17_u32.to_ne_bytes());
        bytes[24..32].copy_from_slice(&42_u64.to_ne_bytes());
        bytes[32..36].copy_from_slice(&(16_u32 << 20).to_ne_bytes());
        bytes[36..40].copy_from_slice(&8192_u32.to_ne_bytes());
        bytes
    }

    fn with(at: usize, field: &[u8]) -> HeaderError {
        let mut bytes = bytes();
        bytes[at..at + field.len()].copy_from_slice(field);
        LongPageHeader::parse(&bytes).unwrap_err()
    }

    fn check(name: &str) -> Result<(), HeaderError> {
        LongPageHeader::parse(&bytes())
            .unwrap()
            .check_name(&name.parse().unwrap())
    }

    #[test]
    fn each_field_is_read_from_its_place() {
        assert_eq!(
            LongPageHeader::parse(&bytes()),
            Ok(LongPageHeader {
                magic: WalMagic(0xD110),
                timeline: TimelineId::new(2).unwrap(),
                address: Lsn(0x1_0300_0000),
                system: SystemIdentifier(42),
                segment_size: SegmentSize::DEFAULT,
                block_size: 8192,
            })
        );
    }

    #[test]
    fn a_cut_header_is_short_and_a_longer_text_is_read_to_byte_40() {
        let mut page = bytes().to_vec();
        for length in 0..LONG_PAGE_HEADER_BYTES {
            let error = LongPageHeader::parse(&page[..length]).unwrap_err();
            assert_eq!(error.kind(), HeaderErrorKind::Short);
            assert!(
                error
                    .to_string()
                    .contains(&format!("only {length} of the 40")),
                "{error}"
            );
        }
        let alone = LongPageHeader::parse(&page);
        page.extend_from_slice(&[0xFF; 100]);
        assert_eq!(LongPageHeader::parse(&page), alone);
    }

    #[test]
    fn padding_and_the_length_of_a_continued_record_do_not_matter() {
        let mut other = bytes();
        other[16..24].fill(0xFF);
        assert_eq!(
            LongPageHeader::parse(&other),
            LongPageHeader::parse(&bytes())
        );
    }

    #[test]
    fn impossible_fields_are_damage_and_the_message_says_which() {
        for (at, field, expected) in [
            (
                0,
                &0_u16.to_ne_bytes()[..],
                Problem::Magic { magic: WalMagic(0) },
            ),
            (
                0,
                &0xD110_u16.swap_bytes().to_ne_bytes(),
                Problem::ByteOrder,
            ),
            (2, &0_u16.to_ne_bytes(), Problem::Flags { flags: 0 }),
            (2, &0x0012_u16.to_ne_bytes(), Problem::Flags { flags: 0x12 }),
            (4, &0_u32.to_ne_bytes(), Problem::Timeline),
            (
                8,
                &0x1_0300_2000_u64.to_ne_bytes(),
                Problem::NotFirstPage {
                    address: Lsn(0x1_0300_2000),
                    size: SegmentSize::DEFAULT,
                },
            ),
            (32, &0_u32.to_ne_bytes(), Problem::SegmentSize { bytes: 0 }),
            (
                32,
                &0x8000_0000_u32.to_ne_bytes(),
                Problem::SegmentSize { bytes: 0x8000_0000 },
            ),
            (36, &0_u32.to_ne_bytes(), Problem::BlockSize { bytes: 0 }),
            (
                36,
                &8191_u32.to_ne_bytes(),
                Problem::BlockSize { bytes: 8191 },
            ),
            (
                36,
                &0x2_0000_u32.to_ne_bytes(),
                Problem::BlockSize { bytes: 0x2_0000 },
            ),
        ] {
            let error = with(at, field);
            assert_eq!(error.problem, expected);
            assert_eq!(error.kind(), HeaderErrorKind::Damaged);
            assert_eq!(error.to_string(), expected.to_string());
        }
    }

    #[test]
    fn an_unknown_major_passes_and_says_so() {
        let mut newer = bytes();
        newer[0..2].copy_from_slice(&0xD1FE_u16.to_ne_bytes());
        assert_eq!(LongPageHeader::parse(&newer).unwrap().magic.major(), None);
    }

    #[test]
    fn the_named_segment_may_be_on_the_headers_timeline_or_a_later_one() {
        assert_eq!(check("000000020000000100000003"), Ok(()));
        assert_eq!(check("000000030000000100000003"), Ok(()));
        let error = check("000000010000000100000003").unwrap_err();
        assert_eq!(error.kind(), HeaderErrorKind::Misnamed);
        assert_eq!(
            error.to_string(),
            "the page header under the name \"000000010000000100000003\" is from the later timeline 2"
        );
    }

    #[test]
    fn a_segment_under_anothers_name_is_told_by_its_right_one() {
        let error = check("000000020000000100000004").unwrap_err();
        assert_eq!(error.kind(), HeaderErrorKind::Misnamed);
        assert_eq!(
            error.to_string(),
            "the page header under the name \"000000020000000100000004\" \
             is that of segment \"000000020000000100000003\""
        );
    }

    #[test]
    fn a_name_that_the_segment_size_does_not_allow_is_wrong_for_every_header() {
        let error = check("000000020000000000000103").unwrap_err();
        assert_eq!(error.kind(), HeaderErrorKind::Misnamed);
        assert!(
            error.to_string().contains("segment size of 16MB"),
            "{error}"
        );
    }
}
