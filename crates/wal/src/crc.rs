//! The checksum of WAL records, computed in pieces.
//!
//! Guarantees the server's CRC-32C (`pg_crc32c.h`, 15 to 18), with the processor's own instruction where it has one.

/// A CRC-32C of the bytes seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Crc(u32);

impl Crc {
    /// With these bytes behind those seen so far.
    #[inline]
    pub(crate) fn and(self, bytes: &[u8]) -> Crc {
        Crc(crc32c::crc32c_append(self.0, bytes))
    }

    /// With `count` bytes behind those seen so far, of which only their own CRC is known.
    pub(crate) fn and_those_of(self, later: Crc, count: usize) -> Crc {
        Crc(crc32c::crc32c_combine(self.0, later.0, count))
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
