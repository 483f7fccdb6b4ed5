//! Encrypting in the age format (version 1, X25519), and back.
//!
//! Guarantees: what is written here is read by any program that knows the format, without Walden: all that Walden adds
//! are stanzas of its own in the header, which others let be, as the format wants it. An object is streamed through
//! in chunks of 64 kB, and an end that is not the one its writer made is never taken for it. What cannot be opened is
//! kept apart from what is damaged.
//!
//! The stanzas, under the header's own authentication:
//! * `-> walden-recipient KEY`, one for each public key that the object is encrypted for, which age itself does not
//!   say; for messages alone;
//! * `-> walden-digest SECRET`, where the writer knew its cluster's secret: [`Digest`] of name and contents as the
//!   stanza's body, and as its argument which secret it was made with.
//!
//! Left to others: which identities there are (`options/identity.rs`), and what to make of a digest (`put/mod.rs`).

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{self, BufRead, BufWriter, Chain, Cursor, IntoInnerError, Read, Write};

use age::stream::{StreamReader, StreamWriter};
use age::x25519::Recipient;
use age::{DecryptError, Decryptor, EncryptError, Encryptor};
use age_core::format::{FileKey, Stanza};

use crate::base::digest::Digest;
use crate::error::Error;
use crate::options::identity::IdentityFile;
use crate::options::recipients::Recipients;

const RECIPIENT_TAG: &str = "walden-recipient";
const DIGEST_TAG: &str = "walden-digest";

/// The longest header believed, in bytes: that of the most recipients takes a tenth of it.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// A writer that encrypts into another, or does nothing.
pub(crate) enum Sealing<W: Write> {
    Plain(W),
    /// Buffered, because a header is written in many small pieces.
    Sealed(Box<StreamWriter<BufWriter<W>>>),
}

impl<W: Write> Sealing<W> {
    /// Nothing is encrypted for no recipients.
    pub(crate) fn begin(
        recipients: &Recipients,
        digest: Option<Digest>,
        into: W,
    ) -> io::Result<Sealing<W>> {
        if recipients.is_empty() {
            return Ok(Sealing::Plain(into));
        }
        let keys = recipients.keys();
        let notes = Notes {
            recipients: keys,
            digest,
        };
        let recipients = keys.iter().map(|key| key as &dyn age::Recipient);
        let with_notes = recipients.chain(std::iter::once(&notes as &dyn age::Recipient));
        let encryptor = Encryptor::with_recipients(with_notes)
            .map_err(|_| io::Error::other("age refused the recipients"))?;
        let buffered = BufWriter::new(into);
        Ok(Sealing::Sealed(Box::new(encryptor.wrap_output(buffered)?)))
    }

    /// Ends the object and gives the inner writer back.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Sealing::Plain(into) => Ok(into),
            Sealing::Sealed(writer) => writer
                .finish()?
                .into_inner()
                .map_err(IntoInnerError::into_error),
        }
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sealing::Plain(into) => into.write(bytes),
            Sealing::Sealed(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sealing::Plain(into) => into.flush(),
            Sealing::Sealed(writer) => writer.flush(),
        }
    }
}

/// Walden's own stanzas, as a recipient that is given the key of the file and does nothing with it.
struct Notes<'a> {
    recipients: &'a [Recipient],
    digest: Option<Digest>,
}

impl age::Recipient for Notes<'_> {
    fn wrap_file_key(&self, _: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        let stanza = |tag: &str, arg: String, body: &[u8]| Stanza {
            tag: tag.to_owned(),
            args: vec![arg],
            body: body.to_vec(),
        };
        let recipients = self
            .recipients
            .iter()
            .map(|key| stanza(RECIPIENT_TAG, key.to_string(), &[]));
        let digest = self
            .digest
            .map(|digest| stanza(DIGEST_TAG, hex(&digest.secret), &digest.value));
        Ok((recipients.chain(digest).collect(), HashSet::new()))
    }
}

/// What an object's header tells without a key.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Noted {
    /// The public keys that it is said to be encrypted for.
    pub(crate) recipients: Vec<String>,
    pub(crate) digest: Option<Digest>,
}

/// Looks at the stanzas, as a reader without a key.
#[derive(Default)]
struct Onlooker(RefCell<Noted>);

impl age::Identity for Onlooker {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        let mut noted = self.0.borrow_mut();
        match (stanza.tag.as_str(), stanza.args.as_slice()) {
            // Only what is a public key is repeated in messages.
            (RECIPIENT_TAG, [key]) => {
                if let Ok(key) = key.parse::<Recipient>() {
                    noted.recipients.push(key.to_string());
                }
            }
            (DIGEST_TAG, [secret]) => {
                let value = <[u8; 32]>::try_from(stanza.body.as_slice()).ok();
                noted.digest = unhex(secret)
                    .zip(value)
                    .map(|(secret, value)| Digest { secret, value });
            }
            _ => {}
        }
        None
    }
}

/// An object's contents, decrypted.
pub(crate) type Opened<R> = StreamReader<Chain<Cursor<Vec<u8>>, R>>;

/// Why an object could not be opened.
pub(crate) enum NotOpened {
    /// No identity at hand opens it, or the identities could not be had.
    Locked {
        noted: Noted,
        why: String,
        /// Why there are no identities, if there should be some.
        trouble: Option<Box<Error>>,
    },
    /// Reading failed, or what was read is not sound: the reader knows which.
    Unsound(io::Error),
    /// It is of a later version of the format.
    Unknown,
}

/// Begins to decrypt, with the identities of the file if there is one.
pub(crate) fn open<R: BufRead>(
    mut object: R,
    identity_file: Option<&IdentityFile>,
) -> Result<Opened<R>, NotOpened> {
    let header = header(&mut object).map_err(NotOpened::Unsound)?;
    let decryptor =
        Decryptor::new_buffered(Cursor::new(header).chain(object)).map_err(not_opened)?;
    let passphrase = decryptor.is_scrypt();
    let (identities, trouble) = match identity_file.map(IdentityFile::read).transpose() {
        Ok(identities) => (identities, None),
        Err(error) => (None, Some(error)),
    };
    let onlooker = Onlooker::default();
    let keys = identities.iter().flat_map(|identities| identities.keys());
    match decryptor.decrypt(std::iter::once(&onlooker as &dyn age::Identity).chain(keys)) {
        Ok(opened) => Ok(opened),
        Err(DecryptError::NoMatchingKeys) => {
            let noted = onlooker.0.into_inner();
            let ours = identities.as_ref();
            if ours.is_some_and(|ours| ours.are_among(&noted.recipients)) {
                return Err(NotOpened::Unsound(unsound(
                    "the key in its age header is not the one that was written",
                )));
            }
            let sealed = match noted.recipients.join(", ") {
                _ if passphrase => "with a passphrase".to_owned(),
                none if none.is_empty() => "for recipients that it does not name".to_owned(),
                named => format!("for {named}"),
            };
            let but = match (&trouble, identity_file, ours) {
                (Some(trouble), ..) => trouble.to_string(),
                (None, Some(file), Some(ours)) => {
                    format!("identity file \"{file}\" is for {}", ours.recipients())
                }
                _ => "\"walden.identity_file\" is not set".to_owned(),
            };
            Err(NotOpened::Locked {
                noted,
                why: format!("is encrypted {sealed}, and {but}"),
                trouble: trouble.map(Box::new),
            })
        }
        Err(error) => Err(not_opened(error)),
    }
}

/// Encrypts a few bytes in memory for these recipients and opens them with these identities.
///
/// Fails with [`crate::ErrorKind::Unusable`] if they are not for each other, and as [`IdentityFile::read`] does.
pub fn round_trip(recipients: &Recipients, identity_file: &IdentityFile) -> Result<(), Error> {
    const CONTENTS: &[u8] = b"round trip";
    let in_memory = |cause| Error::io("could not encrypt in memory", cause);
    let mut sealing = Sealing::begin(recipients, None, Vec::new()).map_err(in_memory)?;
    sealing.write_all(CONTENTS).map_err(in_memory)?;
    let object = sealing.finish().map_err(in_memory)?;
    let mut back = Vec::new();
    match open(object.as_slice(), Some(identity_file)) {
        Ok(mut opened) => opened.read_to_end(&mut back).map(drop).map_err(in_memory)?,
        Err(NotOpened::Locked { why, trouble, .. }) => {
            let locked = Error::unusable(format!("what is archived {why}"));
            return Err(trouble.map_or(locked, |trouble| *trouble));
        }
        Err(NotOpened::Unsound(cause)) => return Err(in_memory(cause)),
        Err(NotOpened::Unknown) => {}
    }
    if back == CONTENTS {
        Ok(())
    } else {
        Err(Error::unusable(
            "what was encrypted in memory was decrypted to something else",
        ))
    }
}

fn not_opened(error: DecryptError) -> NotOpened {
    NotOpened::Unsound(match error {
        DecryptError::Io(cause) => cause,
        DecryptError::UnknownFormat => return NotOpened::Unknown,
        DecryptError::InvalidMac => unsound("the age header is not the one that was written"),
        _ => unsound("the age header is not valid"),
    })
}

fn unsound(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The header as it stands, up to the line that ends it. Read here, because age's own reader knows no bound.
fn header(object: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    loop {
        let begin = header.len();
        let room = u64::try_from(HEADER_BYTES_MAX.saturating_sub(begin)).unwrap_or(0);
        object.by_ref().take(room).read_until(b'\n', &mut header)?;
        let line = header.get(begin..).unwrap_or_default();
        if !line.ends_with(b"\n") {
            return Err(unsound("the age header has no end"));
        }
        if line.starts_with(b"---") {
            return Ok(header);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 8]> {
    let right = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    right
        .then(|| u64::from_str_radix(text, 16).ok())
        .flatten()
        .map(u64::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use age::secrecy::ExposeSecret;
    use age::x25519::Identity;

    const DIGEST: Digest = Digest {
        secret: [0, 1, 2, 3, 0xfc, 0xfd, 0xfe, 0xff],
        value: [9; 32],
    };

    struct Keys {
        dir: tempfile::TempDir,
        keys: Vec<Identity>,
    }

    impl Keys {
        fn new(count: usize) -> Keys {
            Keys {
                dir: tempfile::tempdir().unwrap(),
                keys: (0..count).map(|_| Identity::generate()).collect(),
            }
        }

        fn public(&self, index: usize) -> String {
            self.keys[index].to_public().to_string()
        }

        fn recipients(&self) -> Recipients {
            let all: Vec<String> = (0..self.keys.len())
                .map(|index| self.public(index))
                .collect();
            all.join(",").parse().unwrap()
        }

        fn file(&self, index: usize) -> IdentityFile {
            let path = self.dir.path().join(index.to_string());
            std::fs::write(&path, self.keys[index].to_string().expose_secret()).unwrap();
            path.to_str().unwrap().parse().unwrap()
        }
    }

    fn sealed(recipients: &Recipients, digest: Option<Digest>, contents: &[u8]) -> Vec<u8> {
        let mut sealing = Sealing::begin(recipients, digest, Vec::new()).unwrap();
        sealing.write_all(contents).unwrap();
        sealing.finish().unwrap()
    }

    fn opened(object: &[u8], identity: &IdentityFile) -> io::Result<Vec<u8>> {
        let mut contents = Vec::new();
        match open(object, Some(identity)) {
            Ok(mut opened) => opened.read_to_end(&mut contents)?,
            Err(NotOpened::Unsound(cause)) => return Err(cause),
            Err(_) => panic!("not opened"),
        };
        Ok(contents)
    }

    fn locked(object: &[u8], identity: Option<&IdentityFile>) -> (Noted, String) {
        match open(object, identity) {
            Err(NotOpened::Locked { noted, why, .. }) => (noted, why),
            _ => panic!("not locked"),
        }
    }

    #[test]
    fn each_recipient_opens_what_was_sealed_for_several() {
        let keys = Keys::new(3);
        for bytes in [0, 1, 65_535, 65_536, 65_537, 200_000] {
            let contents: Vec<u8> = (0..bytes).map(|i: u32| i.to_le_bytes()[0]).collect();
            let object = sealed(&keys.recipients(), Some(DIGEST), &contents);
            for index in 0..3 {
                assert!(opened(&object, &keys.file(index)).unwrap() == contents);
            }
        }
    }

    #[test]
    fn whoever_has_no_key_learns_the_recipients_and_the_digest_and_no_more() {
        let (keys, strangers) = (Keys::new(2), Keys::new(1));
        let marker = b"a marker that must not be seen";
        let object = sealed(&keys.recipients(), Some(DIGEST), marker);
        assert!(!object.windows(10).any(|part| part == &marker[..10]));
        let expected = Noted {
            recipients: vec![keys.public(0), keys.public(1)],
            digest: Some(DIGEST),
        };
        let (noted, why) = locked(&object, None);
        assert_eq!(noted, expected);
        let said = format!(
            "is encrypted for {}, {}, and \"walden.identity_file\" is not set",
            keys.public(0),
            keys.public(1)
        );
        assert_eq!(why, said);
        let (noted, why) = locked(&object, Some(&strangers.file(0)));
        assert_eq!(noted, expected);
        assert!(
            why.ends_with(&format!("is for {}", strangers.public(0))),
            "{why}"
        );
    }

    #[test]
    fn what_was_sealed_by_other_programs_opens_and_says_nothing_of_its_recipients() {
        let keys = Keys::new(1);
        let object = age::encrypt(&keys.keys[0].to_public(), b"contents").unwrap();
        assert_eq!(opened(&object, &keys.file(0)).unwrap(), b"contents");
        let (noted, why) = locked(&object, None);
        assert_eq!(noted, Noted::default());
        assert!(
            why.contains("for recipients that it does not name"),
            "{why}"
        );
    }

    #[test]
    fn a_cut_or_a_flipped_bit_anywhere_is_unsound() {
        let keys = Keys::new(1);
        let file = keys.file(0);
        let object = sealed(&keys.recipients(), Some(DIGEST), &[7; 131_072]);
        let places = (0..1000).chain((1000..object.len()).step_by(997));
        for at in places.chain([object.len() - 16, object.len() - 1]) {
            assert!(opened(&object[..at], &file).is_err(), "cut at {at}");
            let mut flipped = object.clone();
            flipped[at] ^= 1;
            // In the stanza that holds the key itself it makes a file for another recipient.
            match open(flipped.as_slice(), Some(&file)) {
                Ok(mut opened) => assert!(
                    opened.read_to_end(&mut Vec::new()).is_err(),
                    "flipped at {at}"
                ),
                Err(NotOpened::Unsound(_) | NotOpened::Locked { .. } | NotOpened::Unknown) => {}
            }
        }
        let trailing = [object.as_slice(), b"x"].concat();
        assert!(opened(&trailing, &file).is_err());
    }

    #[test]
    fn a_round_trip_needs_an_identity_of_one_recipient() {
        let (keys, strangers) = (Keys::new(2), Keys::new(1));
        assert!(round_trip(&keys.recipients(), &keys.file(1)).is_ok());
        let error = round_trip(&keys.recipients(), &strangers.file(0)).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unusable);
        let said = format!("what is archived is encrypted for {}", keys.public(0));
        assert!(error.to_string().starts_with(&said), "{error}");
    }

    #[test]
    fn a_header_without_an_end_is_not_read_for_ever() {
        let line = b"-> x y\n\n";
        let mut endless = b"age-encryption.org/v1\n".to_vec();
        endless.extend(line.iter().cycle().take(10_000_000));
        let mut rest = endless.as_slice();
        assert!(matches!(open(&mut rest, None), Err(NotOpened::Unsound(_))));
        assert!(rest.len() > 9_900_000);
    }
}
