//! The name of a segment and the number behind it.
//!
//! Guarantees the 24 digits exactly as the server writes them, an order that agrees with the
//! order of the texts, and arithmetic that never leaves the WAL that an LSN can address. The other
//! files of WAL, built on these names, are left to `file_name`.

use std::fmt;
use std::str::FromStr;

use crate::file_name::{InvalidWalFileName, WalFileName};
use crate::{Lsn, SegmentSize, TimelineId};

/// Which segment of a timeline, counted from WAL's beginning; the server starts writing at 1.
///
/// The last one that exists depends on the size: see [`SegmentNumber::last`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// The last segment that an LSN can address.
    #[must_use]
    pub fn last(size: SegmentSize) -> SegmentNumber {
        Lsn(u64::MAX).segment(size)
    }

    /// Where the segment begins; `None` if it lies beyond the last one.
    #[must_use]
    pub fn start(self, size: SegmentSize) -> Option<Lsn> {
        self.0.checked_mul(size.bytes()).map(Lsn)
    }
}

/// The name of a segment: timeline, and the segment's number in two parts, each eight upper-case
/// hexadecimal digits.
///
/// The digits alone do not say how long the segment is, so the questions about numbers and places
/// take the size. Names order as their texts do: by timeline first.
///
/// Source: `XLogFileName` and `IsXLogFileName` in `xlog_internal.h`, 15 to 18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    // The derived order compares the fields in this sequence, which is that of the digits.
    timeline: TimelineId,
    high: u32,
    low: u32,
}

impl SegmentName {
    /// How many characters the text has.
    pub const CHARS: usize = 24;

    /// The name of segment `number` on `timeline`.
    ///
    /// A number beyond [`SegmentNumber::last`] names no segment; its name is then cut to 24
    /// digits, as the server cuts it.
    #[must_use]
    pub fn new(timeline: TimelineId, number: SegmentNumber, size: SegmentSize) -> SegmentName {
        let per_log_id = size.segments_per_log_id();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "documented above: cut as the server does"
        )]
        let (high, low) = (
            (number.0 / per_log_id) as u32,
            (number.0 % per_log_id) as u32,
        );
        SegmentName {
            timeline,
            high,
            low,
        }
    }

    /// The name made of these digits, whether or not a segment size exists that allows them.
    pub(crate) fn from_digits(timeline: TimelineId, high: u32, low: u32) -> SegmentName {
        SegmentName {
            timeline,
            high,
            low,
        }
    }

    /// The name of the segment on `timeline` that holds `place`.
    #[must_use]
    pub fn holding(timeline: TimelineId, place: Lsn, size: SegmentSize) -> SegmentName {
        SegmentName::new(timeline, place.segment(size), size)
    }

    /// The timeline: the first eight of the 24 digits.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The 16 digits after the timeline, as two numbers.
    ///
    /// They order as the segments lie in WAL, whatever the size. This is what
    /// `pg_archivecleanup` compares.
    #[must_use]
    pub fn position(&self) -> (u32, u32) {
        (self.high, self.low)
    }

    /// The segment's number; `None` if the last eight digits are too high for segments of `size`.
    #[must_use]
    pub fn number(&self, size: SegmentSize) -> Option<SegmentNumber> {
        let per_log_id = size.segments_per_log_id();
        let low = u64::from(self.low);
        // At most 2^32 * 4096, so this cannot overflow.
        (low < per_log_id).then(|| SegmentNumber(u64::from(self.high) * per_log_id + low))
    }

    /// Where the segment begins; `None` as for [`SegmentName::number`].
    #[must_use]
    pub fn start(&self, size: SegmentSize) -> Option<Lsn> {
        self.number(size)?.start(size)
    }

    /// The segment after this one on the same timeline; `None` as for [`SegmentName::number`], and
    /// after the last.
    #[must_use]
    pub fn next(&self, size: SegmentSize) -> Option<SegmentName> {
        let number = self.number(size)?;
        (number < SegmentNumber::last(size))
            .then(|| SegmentName::new(self.timeline, SegmentNumber(number.0 + 1), size))
    }

    /// The segment before this one on the same timeline; `None` as for [`SegmentName::number`], and
    /// before the first.
    #[must_use]
    pub fn previous(&self, size: SegmentSize) -> Option<SegmentName> {
        let number = self.number(size)?.0.checked_sub(1)?;
        Some(SegmentName::new(self.timeline, SegmentNumber(number), size))
    }

    /// The same part of WAL on another timeline.
    #[must_use]
    pub fn with_timeline(&self, timeline: TimelineId) -> SegmentName {
        SegmentName { timeline, ..*self }
    }
}

/// Writes the 24 digits, upper case.
impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!(
            "{:08X}{:08X}{:08X}",
            self.timeline.get(),
            self.high,
            self.low
        ))
    }
}

/// Reads the 24 digits and nothing else: not a partial segment, not lower case, not timeline 0.
impl FromStr for SegmentName {
    type Err = InvalidWalFileName;

    fn from_str(text: &str) -> Result<SegmentName, InvalidWalFileName> {
        match text.parse()? {
            WalFileName::Segment(name) => Ok(name),
            _ => Err(InvalidWalFileName {
                name: text.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SegmentName {
        text.parse().unwrap()
    }

    fn megabytes(count: u64) -> SegmentSize {
        SegmentSize::new(count << 20).unwrap()
    }

    #[test]
    fn the_same_digits_are_different_places_for_different_sizes() {
        let third = name("000000010000000000000003");
        assert_eq!(third.start(megabytes(1)), Some(Lsn(0x30_0000)));
        assert_eq!(third.start(megabytes(16)), Some(Lsn(0x300_0000)));
        assert_eq!(third.start(megabytes(1024)), Some(Lsn(0xC000_0000)));
    }

    #[test]
    fn the_last_digits_wrap_where_the_size_says() {
        for (size, last) in [(1, "FFF"), (16, "FF"), (64, "3F"), (1024, "3")] {
            let last = name(&format!("00000007000000A9{last:0>8}"));
            let next = last.next(megabytes(size)).unwrap();
            assert_eq!(next.to_string(), "00000007000000AA00000000", "{size} MB");
            let (high, low) = last.position();
            let beyond = SegmentName::from_digits(last.timeline(), high, low + 1);
            assert_eq!(beyond.number(megabytes(size)), None, "{size} MB");
            if size > 1 {
                assert!(last.next(megabytes(size / 2)).is_some());
            }
            if size < 1024 {
                assert_eq!(last.number(megabytes(size * 2)), None);
                assert_eq!(last.start(megabytes(size * 2)), None);
                assert_eq!(last.next(megabytes(size * 2)), None);
            }
        }
    }

    #[test]
    fn nothing_comes_after_the_last_segment_of_wal() {
        for size in SegmentSize::all() {
            let last = SegmentName::new(TimelineId::FIRST, SegmentNumber::last(size), size);
            assert_eq!(last.position().0, u32::MAX);
            assert_eq!(last.start(size), Some(Lsn(u64::MAX - (size.bytes() - 1))));
            assert_eq!(last.next(size), None);
            let before = last.previous(size).unwrap();
            assert_eq!(before.next(size), Some(last));
            let first = SegmentName::new(TimelineId::FIRST, SegmentNumber(0), size);
            assert_eq!(first.previous(size), None);
            assert_eq!(
                SegmentNumber(SegmentNumber::last(size).0 + 1).start(size),
                None
            );
        }
    }

    #[test]
    fn the_highest_number_makes_a_name_and_no_panic() {
        for size in SegmentSize::all() {
            let cut = SegmentName::new(TimelineId::FIRST, SegmentNumber(u64::MAX), size);
            assert_eq!(cut.to_string().len(), SegmentName::CHARS);
        }
    }

    #[test]
    fn a_name_moves_to_another_timeline_with_its_place() {
        let here = name("00000001000000A900000065");
        let there = here.with_timeline(TimelineId::new(0x1F).unwrap());
        assert_eq!(there.to_string(), "0000001F000000A900000065");
        assert_eq!(there.position(), here.position());
        assert!(there > here);
    }

    #[test]
    fn a_place_at_a_boundary_lies_in_the_segment_that_begins_there() {
        let of = |place| SegmentName::holding(TimelineId::FIRST, Lsn(place), SegmentSize::DEFAULT);
        assert_eq!(of(0x300_0000).to_string(), "000000010000000000000003");
        assert_eq!(of(0x2FF_FFFF).to_string(), "000000010000000000000002");
    }

    #[test]
    fn only_a_plain_segment_name_is_read_as_one() {
        for text in [
            "000000010000000000000003.partial",
            "000000010000000000000003.00000028.backup",
            "00000001.history",
            "00000001000000000000000a",
            "000000000000000000000003",
            "00000001000000000000003",
            "0000000100000000000000030",
        ] {
            let error = text.parse::<SegmentName>().unwrap_err();
            assert_eq!(error.name, text);
        }
    }

    #[test]
    fn a_name_can_be_padded_to_a_column() {
        let padded = format!("{:<26}|", name("000000010000000000000003"));
        assert_eq!(padded, "000000010000000000000003  |");
    }
}
