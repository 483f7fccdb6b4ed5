//! The number that tells one database cluster's WAL from another's.
//!
//! Guarantees the decimal form that `pg_controldata` prints, both ways. Comparing it with what an
//! archive is bound to is left to the archive.

use std::fmt;
use std::str::FromStr;

/// Which database cluster: drawn by `initdb`, in the control file and in each segment's first
/// page, the same on a primary and all its standbys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemIdentifier(pub u64);

/// In decimal, as `pg_controldata` and `IDENTIFY_SYSTEM` print it, 15 to 18.
impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads decimal digits and nothing else: no sign, no blanks.
impl FromStr for SystemIdentifier {
    type Err = InvalidSystemIdentifier;

    fn from_str(text: &str) -> Result<SystemIdentifier, InvalidSystemIdentifier> {
        // `u64::from_str` would take a leading plus sign.
        let number = if text.starts_with('+') {
            None
        } else {
            text.parse().ok()
        };
        number
            .map(SystemIdentifier)
            .ok_or_else(|| InvalidSystemIdentifier {
                text: text.to_owned(),
            })
    }
}

/// A text that is no system identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not a system identifier", text.escape_debug())]
pub struct InvalidSystemIdentifier {
    /// The text, as it was given.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_identifier_goes_to_decimal_text_and_back() {
        for number in [0, 7_710_736_710_844_829_984, u64::MAX] {
            let system = SystemIdentifier(number);
            assert_eq!(system.to_string(), number.to_string());
            assert_eq!(system.to_string().parse(), Ok(system));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "+1", "-1", " 1", "1 ", "0x10", "18446744073709551616"] {
            assert!(text.parse::<SystemIdentifier>().is_err(), "{text:?}");
        }
    }
}
