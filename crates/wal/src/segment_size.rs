//! The size of a WAL segment, checked once and then passed as a type.
//!
//! Guarantees a power of two from 1 MB to 1 GB, as the server demands, so arithmetic that divides
//! by it or multiplies with it needs no further checks. Where a size comes from is left to the
//! caller: for archived files it is the long page header, never an assumption.

use std::fmt;

const MIB: u32 = 1024 * 1024;

/// How many bytes a segment file has: the same for all segments of a database cluster.
///
/// Source: `IsValidWalSegSize` in `xlog_internal.h`, 15 to 18; set by `initdb --wal-segsize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSize {
    // At most 1 GB, so 32 bits hold it, as they do in the page header.
    bytes: u32,
}

impl SegmentSize {
    /// The smallest size the server allows, 1 MB.
    pub const SMALLEST: SegmentSize = SegmentSize { bytes: MIB };
    /// Smaller than any server allows, so that simulations are quick; 64 kB.
    #[cfg(feature = "test-segments")]
    pub const TEST: SegmentSize = SegmentSize { bytes: 64 * 1024 };
    /// What `initdb` chooses when not told otherwise, 16 MB.
    pub const DEFAULT: SegmentSize = SegmentSize { bytes: 16 * MIB };
    /// The largest size the server allows, 1 GB.
    pub const LARGEST: SegmentSize = SegmentSize { bytes: 1024 * MIB };

    /// Takes a number of bytes.
    ///
    /// # Errors
    /// [`InvalidSegmentSize`] unless `bytes` is a power of two from 1 MB to 1 GB.
    pub fn new(bytes: u64) -> Result<SegmentSize, InvalidSegmentSize> {
        #[cfg(feature = "test-segments")]
        if bytes == Self::TEST.bytes() {
            return Ok(Self::TEST);
        }
        match u32::try_from(bytes) {
            Ok(narrow)
                if narrow.is_power_of_two()
                    && (Self::SMALLEST.bytes..=Self::LARGEST.bytes).contains(&narrow) =>
            {
                Ok(SegmentSize { bytes: narrow })
            }
            _ => Err(InvalidSegmentSize { bytes }),
        }
    }

    /// The size in bytes: a power of two, 1 MB to 1 GB.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.bytes)
    }

    /// How many segments share the middle eight digits of their names: 4 (at 1 GB) to 4096 (at
    /// 1 MB).
    ///
    /// The last eight digits of a segment name are always below this. Source:
    /// `XLogSegmentsPerXLogId` in `xlog_internal.h`, 15 to 18.
    #[must_use]
    pub fn segments_per_log_id(self) -> u64 {
        (1_u64 << 32) / self.bytes()
    }

    /// All eleven sizes, smallest first.
    pub fn all() -> impl Iterator<Item = SegmentSize> {
        (0..=10).map(|power| SegmentSize {
            bytes: MIB << power,
        })
    }
}

impl Default for SegmentSize {
    fn default() -> SegmentSize {
        SegmentSize::DEFAULT
    }
}

/// As `SHOW wal_segment_size` prints it: `16MB`, `1GB`.
impl fmt::Display for SegmentSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes / MIB {
            #[cfg(feature = "test-segments")]
            0 => f.pad("64kB"),
            1024 => f.pad("1GB"),
            megabytes => f.pad(&format!("{megabytes}MB")),
        }
    }
}

/// A number that is no segment size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("WAL segment size must be a power of two from 1 MB to 1 GB, not {bytes} bytes")]
pub struct InvalidSegmentSize {
    /// The refused number of bytes.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_eleven_sizes_from_1_mb_to_1_gb_each_twice_the_one_before() {
        let all: Vec<SegmentSize> = SegmentSize::all().collect();
        assert_eq!(all.len(), 11);
        assert_eq!(all.first(), Some(&SegmentSize::SMALLEST));
        assert_eq!(all.last(), Some(&SegmentSize::LARGEST));
        assert!(all.contains(&SegmentSize::DEFAULT));
        assert!(
            all.windows(2)
                .all(|pair| pair[1].bytes() == 2 * pair[0].bytes())
        );
        for size in all {
            assert_eq!(SegmentSize::new(size.bytes()), Ok(size));
            assert_eq!(size.segments_per_log_id() * size.bytes(), 1 << 32);
        }
    }

    #[test]
    fn other_numbers_are_refused_and_named() {
        for bytes in [
            0,
            1,
            512 * 1024,
            (1 << 20) - 1,
            (1 << 20) + 1,
            3 << 20,
            1 << 31,
            1 << 32,
            // Its low 32 bits alone would pass for 16 MB.
            (1 << 32) + (16 << 20),
            u64::MAX,
        ] {
            let error = SegmentSize::new(bytes).unwrap_err();
            assert_eq!(error, InvalidSegmentSize { bytes });
            assert!(error.to_string().contains(&bytes.to_string()));
        }
    }

    #[test]
    fn a_size_is_shown_as_the_server_shows_it() {
        let shown: Vec<String> = SegmentSize::all().map(|size| size.to_string()).collect();
        assert_eq!(
            shown.join(" "),
            "1MB 2MB 4MB 8MB 16MB 32MB 64MB 128MB 256MB 512MB 1GB"
        );
        assert_eq!(SegmentSize::default().to_string(), "16MB");
    }
}
