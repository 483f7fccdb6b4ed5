//! The checksum of WAL records, computed in pieces.
//!
//! Guarantees the server's CRC-32C (`pg_crc32c.h`, 15 to 18), with the processor's own instructions where it has some.

use crc_fast::{CrcAlgorithm, Digest, checksum_combine};

const CRC_32C: CrcAlgorithm = CrcAlgorithm::Crc32Iscsi;

/// Sums of 32 bits come as the low ones of 64.
#[expect(clippy::cast_possible_truncation, reason = "documented above")]
fn low_bits(sum: u64) -> u32 {
    sum as u32
}

/// A CRC-32C of the bytes seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Crc(u32);

impl Crc {
    /// With these bytes behind those seen so far.
    #[inline]
    pub(crate) fn and(self, bytes: &[u8]) -> Crc {
        let mut digest = Digest::new_with_init_state(CRC_32C, u64::from(!self.0));
        digest.update(bytes);
        Crc(low_bits(digest.finalize()))
    }

    /// With `count` bytes behind those seen so far, of which only their own CRC is known.
    pub(crate) fn and_those_of(self, later: Crc, count: usize) -> Crc {
        let (own, later) = (u64::from(self.0), u64::from(later.0));
        Crc(low_bits(checksum_combine(
            CRC_32C,
            own,
            later,
            count as u64,
        )))
    }

    /// The number as it stands in a record.
    pub(crate) fn value(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc_32c_comes_out() {
        assert_eq!(Crc::default().and(b"123456789").value(), 0xE306_9283);
    }

    #[test]
    fn pieces_give_the_same_as_the_whole_however_they_are_put_together() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let whole = Crc::default().and(&bytes);
        for cut in [0, 1, 7, 8, 500, 999, 1000] {
            let (front, back) = bytes.split_at(cut);
            let front = Crc::default().and(front);
            assert_eq!(front.and(back), whole);
            assert_eq!(
                front.and_those_of(Crc::default().and(back), back.len()),
                whole
            );
        }
    }
}
