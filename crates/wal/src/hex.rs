//! Reads the eight-digit hexadecimal words that WAL file names are made of.
//!
//! Guarantees that only what the server writes with `%08X` is accepted: exactly eight digits,
//! upper case. Which words a name has, and what they mean, is left to the name's own file.

/// Takes one word off the front of `text`: its value and what follows it.
///
/// `None` if `text` does not begin with eight digits out of `0123456789ABCDEF`.
pub(crate) fn split_word(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<8>()?;
    let mut value = 0_u32;
    for &digit in digits {
        // `char::to_digit` would take lower case too, and then one file could have two names.
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return None,
        };
        value = (value << 4) | u32::from(digit);
    }
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::split_word;

    #[test]
    fn a_word_is_read_and_the_rest_handed_back() {
        assert_eq!(split_word(b"000000FFtail"), Some((0xFF, &b"tail"[..])));
        assert_eq!(split_word(b"FFFFFFFF"), Some((u32::MAX, &b""[..])));
        assert_eq!(
            split_word(b"0123456789ABCDEF"),
            Some((0x0123_4567, &b"89ABCDEF"[..]))
        );
    }

    #[test]
    fn anything_but_eight_upper_case_digits_is_refused() {
        for text in [
            "", "0000000", "0000000f", "+0000001", " 0000001", "0x000001", "0000000G",
        ] {
            assert_eq!(split_word(text.as_bytes()), None, "{text:?}");
        }
    }
}
