//! The digest that an object's writer notes with it, as the object's own metadata.
//!
//! It is part of the one request that creates the object, so it is there with the bytes that it tells of or not at all. Tools
//! that copy an object may take its metadata along, and some put other bytes under it: so the note says of how many stored
//! bytes it is, and is none where the object has another size. Objects that are sent in parts have none, since metadata is
//! wanted before the first part. It tells what the contents were when they were stored, as the store's own acknowledgement
//! does; it is no proof against who may write to the bucket, who could as well put another object there.

use std::fmt::Write as _;

use object_store::{Attribute, AttributeValue, GetOptions};

use crate::base::digest::ContentsDigest;
use crate::error::Error;
use crate::store::waist::Noted;

use super::asking::limit_for;
use super::requests::Shared;

/// Letters alone: Azure wants an identifier, and proxies drop headers with underscores.
const NAME: &str = "waldencontents";

/// How its value begins.
const PREFIX: &str = "sha256:";

fn attribute() -> Attribute {
    Attribute::Metadata(NAME.into())
}

/// The note for an object of so many stored bytes.
pub(super) fn of(digest: ContentsDigest, bytes: usize) -> (Attribute, AttributeValue) {
    (attribute(), value(digest, bytes as u64).into())
}

fn value(digest: ContentsDigest, bytes: u64) -> String {
    let mut value = PREFIX.to_owned();
    for byte in digest {
        // Writing to a string does not fail.
        let _ = write!(value, "{byte:02x}");
    }
    let _ = write!(value, ":{bytes}");
    value
}

/// The digest that a note holds, if it is one and of an object of so many stored bytes.
fn parse(note: &str, bytes: u64) -> Option<ContentsDigest> {
    let (hex, size) = note.strip_prefix(PREFIX)?.split_once(':')?;
    let digits: Vec<u8> = hex
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    let digest: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    let digest = digest.try_into().ok()?;
    (value(digest, bytes) == note && size.parse() == Ok(bytes)).then_some(digest)
}

/// Asks a store what is noted with an object.
pub(super) fn read(shared: &Shared, key: &str) -> Result<Noted, Error> {
    let path = shared.path(key);
    let found = shared.ask(limit_for(0), move |client| {
        let path = path.clone();
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        async move { client.get_opts(&path, options).await }
    })?;
    match found {
        Ok(found) => {
            let note = found.attributes.get(&attribute());
            let digest = note.and_then(|note| parse(note, found.meta.size));
            Ok(digest.map_or(Noted::Nothing, Noted::Digest))
        }
        // The answer to HEAD has no body that could say more.
        Err(failure) if failure.meaning.may_be_absent() => Ok(Noted::Absent),
        Err(failure) => Err(failure.error(&format!(
            "could not look for object \"{}\"",
            shared.shown(key)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_and_only_of_an_object_of_its_size() {
        let digest: ContentsDigest = std::array::from_fn(|place| place as u8 * 7);
        let note = value(digest, 1234);
        assert_eq!(parse(&note, 1234), Some(digest));
        assert_eq!(parse(&note, 1235), None);
    }

    #[test]
    fn what_is_no_note_is_none() {
        let note = value([0xAB; 32], 5);
        let upper = note.to_uppercase();
        let short = note.replacen("ab", "", 1);
        for wrong in [
            "",
            "sha256:",
            &upper,
            &short,
            &format!("{note} "),
            &note.replace(":5", ":05"),
        ] {
            assert_eq!(parse(wrong, 5), None, "{wrong}");
        }
    }
}
