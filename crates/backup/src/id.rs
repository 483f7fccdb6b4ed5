//! What a backup is called: when it began, and four random digits, `20261129T171500Z-3fa9`.
//!
//! Guarantees that names sort by time, and that what is parsed can be part of a key.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

/// A form of the name; `d` stands for a digit, `x` for one of sixteen.
const FORM: &str = "ddddddddTddddddZ-xxxx";

/// The name of a backup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

/// A text that is not the name of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidId;

impl Id {
    /// For a backup that began then; to the second, UTC.
    #[must_use]
    pub fn new(began: SystemTime, random: u16) -> Id {
        let time: String = archive::rfc3339(began)
            .chars()
            .filter(|c| !"-:".contains(*c))
            .collect();
        Id(format!("{time}-{random:04x}"))
    }

    /// The key of an object of this backup.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}{self}/{name}", super::FOLDER)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Id, InvalidId> {
        let fits = |(form, byte): (u8, u8)| match form {
            b'd' => byte.is_ascii_digit(),
            b'x' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            form => form == byte,
        };
        let is_one = text.len() == FORM.len() && FORM.bytes().zip(text.bytes()).all(fits);
        is_one.then(|| Id(text.to_owned())).ok_or(InvalidId)
    }
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the ID of a backup, such as 20261129T171500Z-3fa9")
    }
}

impl std::error::Error for InvalidId {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_name_is_the_time_and_four_digits_and_sorts_by_time() {
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_972_500);
        let id = Id::new(began, 0x3fa9);
        assert_eq!(id.to_string(), "20261129T171500Z-3fa9");
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        assert_eq!(id.key("x"), "base/20261129T171500Z-3fa9/x");
        assert!(Id::new(began + Duration::from_secs(1), 0) > id);
    }

    #[test]
    fn other_texts_are_no_names() {
        for text in [
            "",
            "20261129T171500Z-3fa",
            "20261129T171500Z-3FA9",
            "20261129T171500Z-3fa9/",
            "20261129T171500Z_3fa9",
            "2026112xT171500Z-3fa9",
            "../../../../../etc/p",
        ] {
            assert_eq!(text.parse::<Id>(), Err(InvalidId), "{text}");
        }
    }
}
