//! Whom new files are encrypted for: the value of `walden.recipients`, parsed at the edge.
//!
//! Guarantees: [`Recipients`] are public keys of age's native kind (X25519); text and debug output hold nothing else.
//! What was given instead of a public key is named in the error, unless it looks like a secret key.
//! The encrypting itself is in `format/seal.rs`.

use std::fmt;
use std::str::FromStr;

use age::x25519::Recipient;

use crate::base::printable::printable;
use crate::error::Error;

/// The most recipients accepted: each costs two hundred bytes in every object, and a curve multiplication.
pub const RECIPIENTS_MAX: usize = 32;

/// The longest piece of a wrong value that is repeated in a message, in characters.
const REPEATED_MAX: usize = 80;

/// The longest wrong value that is repeated whatever it looks like, in bytes.
const SHORT_MAX: usize = 8;

/// The public keys that new files are encrypted for. None: new files are not encrypted.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Recipients {
    keys: Vec<Recipient>,
}

impl Recipients {
    /// How many keys new files are encrypted for.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True if new files are not encrypted.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys, each once, in the order in which they were given.
    pub(crate) fn keys(&self) -> &[Recipient] {
        &self.keys
    }
}

impl FromStr for Recipients {
    type Err = Error;

    /// Accepts age public keys (`age1…`), comma separated, with spaces around them; the empty text means none.
    ///
    /// Fails with [`crate::ErrorKind::Unusable`], naming the one that is wrong.
    fn from_str(text: &str) -> Result<Recipients, Error> {
        let mut keys: Vec<Recipient> = Vec::new();
        if text.trim().is_empty() {
            return Ok(Recipients { keys });
        }
        for part in text.split(',').map(str::trim) {
            let key = part.parse().map_err(|_| not_a_recipient(part))?;
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        if keys.len() > RECIPIENTS_MAX {
            return Err(Error::unusable(format!(
                "{} recipients are more than {RECIPIENTS_MAX}",
                keys.len()
            )));
        }
        Ok(Recipients { keys })
    }
}

fn not_a_recipient(part: &str) -> Error {
    if looks_secret(part) {
        return Error::unusable("a secret key was given as a recipient").with_hint(
            "Give the public key, which begins with \"age1\": age-keygen -y prints it. \
             Consider the secret key known to all who could read this value.",
        );
    }
    // What does not look like a public key is not repeated: it may be half of a secret one.
    let is_public = ["age1", "ssh-"].iter().any(|kind| part.starts_with(kind));
    let shown = if is_public || part.len() <= SHORT_MAX {
        let shown: String = part.chars().take(REPEATED_MAX).collect();
        format!("\"{}\" ", printable(&shown))
    } else {
        String::new()
    };
    Error::unusable(format!("recipient {shown}is not an age public key")).with_hint(
        "Give public keys as age-keygen makes them, comma separated: they begin with \"age1\". Keys of SSH and of \
         age's plugins are not supported.",
    )
}

/// True for anything that may be, or contain, a secret key of age.
pub(crate) fn looks_secret(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    ["AGE-SECRET", "AGE-PLUGIN", "SECRET-KEY", "PRIVATE KEY"]
        .iter()
        .any(|mark| upper.contains(mark))
}

impl fmt::Display for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, key) in self.keys.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{key}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipients({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use age::secrecy::ExposeSecret;
    use age::x25519::Identity;

    fn public() -> String {
        Identity::generate().to_public().to_string()
    }

    #[test]
    fn public_keys_are_read_with_spaces_and_each_counts_once() {
        let (one, two) = (public(), public());
        let recipients: Recipients = format!(" {one}, {two},{one} ").parse().unwrap();
        assert_eq!(recipients.to_string(), format!("{one},{two}"));
        assert_eq!(
            recipients.to_string().parse::<Recipients>().unwrap(),
            recipients
        );
        for text in ["", "  "] {
            assert!(text.parse::<Recipients>().unwrap().is_empty());
        }
    }

    #[test]
    fn what_is_no_public_key_is_refused_by_name() {
        let good = public();
        let mut flipped = good.clone();
        let last = flipped.pop().unwrap();
        flipped.push(if last == 'q' { 'p' } else { 'q' });
        for wrong in ["age1nonsense", "x", "ssh-ed25519 AAAA", flipped.as_str()] {
            let error = format!("{good},{wrong}").parse::<Recipients>().unwrap_err();
            let expected = format!("recipient \"{wrong}\" is not an age public key");
            assert_eq!(error.to_string(), expected);
            assert!(error.hint().is_some());
        }
        for wrong in [format!("{good},"), format!(",{good}"), ",".to_owned()] {
            assert!(wrong.parse::<Recipients>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_secret_key_is_never_repeated() {
        let secret = Identity::generate().to_string();
        let secret = secret.expose_secret();
        let lower = secret.to_lowercase();
        for text in [
            secret.to_owned(),
            format!("{},{secret}", public()),
            lower,
            format!("x{secret}y"),
        ] {
            let error = text.parse::<Recipients>().unwrap_err();
            let said = format!("{error} {:?} {error:?}", error.hint()).to_uppercase();
            assert!(!said.contains(&secret[20..30]), "{said}");
        }
    }

    #[test]
    fn more_recipients_than_a_header_should_hold_are_refused() {
        let many: Vec<String> = (0..=RECIPIENTS_MAX).map(|_| public()).collect();
        assert!(many.join(",").parse::<Recipients>().is_err());
        assert!(many[1..].join(",").parse::<Recipients>().is_ok());
    }
}
