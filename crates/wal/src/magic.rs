//! The magic number at the front of each WAL page.
//!
//! Knows which major version wrote which number. Whether a page is one at all is left to
//! `page_header`.

use std::fmt;

/// The first two bytes of a WAL page: it changes when the format of WAL does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WalMagic(pub u16);

impl WalMagic {
    /// The major version that writes this number; `None` for one that Walden does not know.
    ///
    /// Source: `XLOG_PAGE_MAGIC` in `xlog_internal.h` of each stable branch.
    #[must_use]
    pub fn major(self) -> Option<u32> {
        match self.0 {
            0xD110 => Some(15),
            0xD113 => Some(16),
            0xD116 => Some(17),
            0xD118 => Some(18),
            0xD122 => Some(19),
            _ => None,
        }
    }

    /// Whether the format of a major version is known.
    #[must_use]
    pub fn knows(major: u32) -> bool {
        (15..=19).contains(&major)
    }

    /// All flags that a page of this format can have (`XLP_ALL_FLAGS`); the server refuses a page with others. Of a format
    /// that is not known it can be any.
    pub(crate) fn flags(self) -> u16 {
        match self.major() {
            // With XLP_BKP_REMOVABLE, which says nothing about records.
            Some(15..=18) => 0x000F,
            Some(_) => 0x0007,
            None => u16::MAX,
        }
    }

    /// The flag of a page that begins where the rest of a record should be that was never finished
    /// (`XLP_FIRST_IS_OVERWRITE_CONTRECORD`): 19 has moved it to where `XLP_BKP_REMOVABLE` was.
    pub(crate) fn overwrites_flag(self) -> u16 {
        match self.major() {
            Some(15..=18) => 0x0008,
            _ => 0x0004,
        }
    }

    /// Whether the number looks like a server's: all since 12 begin with the byte D1.
    ///
    /// Versions in between, forks and future majors share that byte, so this tells WAL from other
    /// bytes without a complete list.
    pub(crate) fn is_plausible(self) -> bool {
        self.0 >> 8 == 0xD1
    }
}

/// Four hexadecimal digits, as the server's messages have it: `D110`.
impl fmt::Display for WalMagic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_major_has_its_number_and_other_numbers_have_none() {
        let known: Vec<(u16, u32)> = (0..=u16::MAX)
            .filter_map(|number| Some((number, WalMagic(number).major()?)))
            .collect();
        assert_eq!(
            known,
            [
                (0xD110, 15),
                (0xD113, 16),
                (0xD116, 17),
                (0xD118, 18),
                (0xD122, 19)
            ]
        );
        let majors: Vec<u32> = (0..100).filter(|major| WalMagic::knows(*major)).collect();
        assert!(majors.iter().eq(known.iter().map(|(_, major)| major)));
        assert!(
            known
                .iter()
                .all(|(number, _)| WalMagic(*number).is_plausible())
        );
    }

    #[test]
    fn a_number_is_shown_as_the_server_shows_it() {
        assert_eq!(WalMagic(0xD110).to_string(), "D110");
        assert_eq!(WalMagic(0).to_string(), "0000");
    }
}
