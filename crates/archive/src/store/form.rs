//! What the first bytes of stored contents say that they are.
//!
//! Guarantees that nothing but those bytes decides: no key, no content type, and no version number of WAL, which may be
//! damaged, or newer than this. What is none of the forms below is plain: whether it is the file that its name says is for
//! that file's own checks. Knows nothing of stores and archives.

use std::fmt;
use std::io::{self, Read};

/// How many first bytes are enough to tell.
pub(crate) const HEAD_BYTES: usize = 40;

/// What an encrypted file begins with. Its version follows; what the reader does not know it names.
const AGE: &[u8] = b"age-encryption.org/";

const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
const LZ4: [u8; 4] = [0x04, 0x22, 0x4D, 0x18];

/// Skippable frames have sixteen numbers: the low half of the first byte is free (RFC 8878, 3.1.2). Several compressors
/// begin with one (`pzstd`, seekable formats).
const SKIPPABLE: [u8; 3] = [0x2A, 0x4D, 0x18];

/// Packings that people's scripts have used for WAL, and that only those unpack.
const OTHERS: [(&[u8], &str); 8] = [
    (&[0x1F, 0x8B], "gzip"),
    (&[0xFD, b'7', b'z', b'X', b'Z', 0], "xz"),
    (b"BZh", "bzip2"),
    (&[0x02, 0x21, 0x4C, 0x18], "lz4 (legacy format)"),
    (b"PK\x03\x04", "zip"),
    (b"-----BEGIN AGE ENCRYPTED FILE-----", "age (armored)"),
    (b"-----BEGIN PGP MESSAGE-----", "gpg (armored)"),
    (b"Salted__", "openssl enc"),
];

/// In which form a file is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// Neither compressed nor encrypted.
    Plain,
    /// Compressed with zstd.
    Zstd,
    /// Compressed with lz4.
    Lz4,
    /// Encrypted in the age format; what is inside shows when it is opened.
    Age,
    /// Packed by something that Walden does not unpack.
    Other(&'static str),
    /// Not a byte, which no file of an archive is.
    Empty,
}

impl Form {
    /// What begins so: with [`HEAD_BYTES`] bytes, or all there are.
    pub(crate) fn of(head: &[u8]) -> Form {
        if head.is_empty() {
            return Form::Empty;
        }
        if head.starts_with(AGE) {
            return Form::Age;
        }
        if head.starts_with(&ZSTD) || is_skippable(head) {
            return Form::Zstd;
        }
        if head.starts_with(&LZ4) {
            return Form::Lz4;
        }
        let other = OTHERS.iter().find(|(sign, _)| head.starts_with(sign));
        match other {
            Some((_, name)) => Form::Other(name),
            None if is_gpg(head) => Form::Other("gpg"),
            None => Form::Plain,
        }
    }

    /// What begins as this does; reads no more than that takes.
    ///
    /// Fails as the reader does.
    pub fn of_contents(contents: impl Read) -> io::Result<Form> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        contents.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        Ok(Form::of(&head))
    }

    /// What to tell a store that the contents are. It decides nothing, ever: it is for people who look, and never a
    /// `Content-Encoding`, which proxies and clients act on.
    pub(crate) fn content_type(head: &[u8]) -> &'static str {
        match Form::of(head) {
            Form::Zstd => "application/zstd",
            Form::Lz4 => "application/x-lz4",
            Form::Age => "application/age-encryption",
            Form::Plain if head.starts_with(b"{") => "application/json",
            Form::Plain if is_text(head) => "text/plain",
            Form::Plain | Form::Other(_) | Form::Empty => "application/octet-stream",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::Plain => "plain",
            Form::Zstd => "zstd",
            Form::Lz4 => "lz4",
            Form::Age => "age",
            Form::Other(name) => name,
            Form::Empty => "empty",
        })
    }
}

fn is_skippable(head: &[u8]) -> bool {
    matches!(head.split_first(), Some((0x50..=0x5F, rest)) if rest.starts_with(&SKIPPABLE))
}

/// A binary message of OpenPGP has no sign of its own: it begins with a packet that holds a session key (RFC 4880, 4.2 and
/// 5.1), whose length is of one byte or two, and then its version.
fn is_gpg(head: &[u8]) -> bool {
    match head {
        [0x84, _, version, ..] | [0x85, _, _, version, ..] => matches!(version, 3 | 6),
        [0x8C, _, version, ..] => matches!(version, 4..=6),
        _ => false,
    }
}

fn is_text(head: &[u8]) -> bool {
    head.iter()
        .all(|byte| matches!(byte, b'\t' | b'\n' | b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_the_form_and_wal_and_histories_are_plain_whatever_their_version() {
        let told = [
            (&b"\x28\xB5\x2F\xFD rest"[..], "zstd"),
            (b"\x5A\x2A\x4D\x18\0\0\0\0", "zstd"),
            (b"\x04\x22\x4D\x18 rest", "lz4"),
            (b"age-encryption.org/v1\n", "age"),
            (b"age-encryption.org/v9\n", "age"),
            (b"\x1F\x8B\x08", "gzip"),
            (b"\xFD7zXZ\0", "xz"),
            (b"BZh91AY", "bzip2"),
            (b"\x85\x01\x0c\x03abc", "gpg"),
            (b"\x8c\x0d\x04\x09\x03", "gpg"),
            (b"-----BEGIN AGE ENCRYPTED FILE-----\n", "age (armored)"),
            (b"-----BEGIN PGP MESSAGE-----\n", "gpg (armored)"),
            (b"", "empty"),
            (b"\x10\xD1\x07\0", "plain"),
            (b"\xFF\xFF\x07\0", "plain"),
            (b"\0\0\0\0", "plain"),
            (b"1\t0/5000028\tno recovery target specified\n", "plain"),
            (b"START WAL LOCATION: 0/2000028", "plain"),
            (b"\x28\xB5\x2F", "plain"),
        ];
        for (head, form) in told {
            assert_eq!(Form::of(head).to_string(), form, "{head:?}");
        }
    }

    #[test]
    fn a_content_type_is_that_of_the_first_bytes() {
        let told = [
            (&b"\x28\xB5\x2F\xFD rest"[..], "application/zstd"),
            (b"\x04\x22\x4D\x18 rest", "application/x-lz4"),
            (b"age-encryption.org/v1\n", "application/age-encryption"),
            (b"{\"format\":1}\n", "application/json"),
            (b"1\t0/5000028\tx\n", "text/plain"),
            (b"\x10\xD1\x07\0", "application/octet-stream"),
        ];
        for (head, content_type) in told {
            assert_eq!(Form::content_type(head), content_type);
        }
    }
}
