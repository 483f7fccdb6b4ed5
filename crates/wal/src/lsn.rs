//! A place in WAL.
//!
//! Guarantees the server's text form in both directions and the arithmetic between a place and
//! the segment that holds it. What is written at a place is left to others.

use std::fmt;
use std::str::FromStr;

use crate::{SegmentNumber, SegmentSize};

/// A log sequence number: a place in WAL, in bytes from its beginning.
///
/// The server never writes a record at 0, and uses `0/0` for "no place".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The number of the segment that holds this place (`XLByteToSeg`, 15 to 18).
    #[must_use]
    pub fn segment(self, size: SegmentSize) -> SegmentNumber {
        SegmentNumber(self.0 / size.bytes())
    }

    /// How many bytes into its segment this place is; below `size` (`XLogSegmentOffset`, 15 to 18).
    #[must_use]
    pub fn offset_in_segment(self, size: SegmentSize) -> u64 {
        self.0 % size.bytes()
    }
}

/// As `pg_lsn_out` prints it in 15 to 18: two hexadecimal halves, upper case, not padded.
impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF))
    }
}

/// Reads what `pg_lsn_in` reads in 15 to 18: one to eight digits of either case, a slash, one to
/// eight digits.
impl FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Lsn, InvalidLsn> {
        parse(text).ok_or_else(|| InvalidLsn {
            text: text.to_owned(),
        })
    }
}

fn parse(text: &str) -> Option<Lsn> {
    let (high, low) = text.split_once('/')?;
    Some(Lsn((half(high)? << 32) | half(low)?))
}

fn half(digits: &str) -> Option<u64> {
    // Checked by hand because `from_str_radix` would take a leading plus sign.
    let fits = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if fits {
        u64::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

/// A text that is no LSN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not an LSN", text.escape_debug())]
pub struct InvalidLsn {
    /// The text, as it was given.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_is_written_as_the_server_writes_it() {
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        assert_eq!(Lsn(0).to_string(), "0/0");
        assert_eq!(Lsn(u64::MAX).to_string(), "FFFFFFFF/FFFFFFFF");
        assert_eq!(format!("[{:>12}]", Lsn(0x300_0000)), "[   0/3000000]");
    }

    #[test]
    fn padded_and_lower_case_forms_are_read_because_the_server_reads_them() {
        assert_eq!("0/03000148".parse(), Ok(Lsn(0x300_0148)));
        assert_eq!("16/b374d848".parse(), Ok(Lsn(0x16_B374_D848)));
    }

    #[test]
    fn malformed_places_are_refused_and_quoted() {
        for text in [
            "",
            "/",
            "0",
            "0/",
            "/0",
            "0/0/0",
            "+1/0",
            "0/-1",
            "0x1/0",
            " 0/0",
            "0/0 ",
            "1/000000001",
        ] {
            assert_eq!(
                text.parse::<Lsn>(),
                Err(InvalidLsn {
                    text: text.to_owned()
                })
            );
        }
        let error = "a\n".parse::<Lsn>().unwrap_err();
        assert_eq!(error.to_string(), r#""a\n" is not an LSN"#);
    }

    #[test]
    fn a_boundary_byte_belongs_to_the_segment_it_begins() {
        for size in SegmentSize::all() {
            let boundary = Lsn(7 * size.bytes());
            assert_eq!(boundary.segment(size), SegmentNumber(7));
            assert_eq!(boundary.offset_in_segment(size), 0);
            let before = Lsn(boundary.0 - 1);
            assert_eq!(before.segment(size), SegmentNumber(6));
            assert_eq!(before.offset_in_segment(size), size.bytes() - 1);
        }
    }
}
