//! Taking fields off the front of bytes.
//!
//! Guarantees that bytes which are not there are `None`, never a panic. What the fields mean is left to others.

/// The bytes that are still to be taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// The next byte.
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_ne_bytes)
    }

    /// The next two bytes.
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    /// The next four bytes.
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    /// The next eight bytes.
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    /// The next eight bytes, with a sign.
    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_ne_bytes)
    }

    /// A number of items of `bytes` each, and the items, which are left out.
    pub(crate) fn skip_items(&mut self, bytes: usize) -> Option<()> {
        let count = usize::try_from(self.u32()?).ok()?;
        self.take(count.checked_mul(bytes)?).map(drop)
    }

    /// What comes before the next zero byte, which is taken too.
    pub(crate) fn text(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = self.take(end)?;
        self.u8()?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_in_order_and_what_is_not_there_is_none() {
        let mut bytes = vec![7];
        bytes.extend_from_slice(&0x1234_u16.to_ne_bytes());
        bytes.extend_from_slice(b"name\0");
        let mut cursor = Cursor(&bytes);
        assert_eq!(cursor.u8(), Some(7));
        assert_eq!(cursor.u16(), Some(0x1234));
        assert_eq!(cursor.text(), Some(b"name".as_slice()));
        assert_eq!(cursor.u32(), None);
        assert_eq!(cursor.u8(), None);
    }

    #[test]
    fn a_number_of_items_beyond_the_bytes_is_none() {
        let mut bytes = u32::MAX.to_ne_bytes().to_vec();
        bytes.resize(100, 0);
        assert_eq!(Cursor(&bytes).skip_items(usize::MAX), None);
        assert_eq!(Cursor(&bytes).skip_items(16), None);
    }
}
