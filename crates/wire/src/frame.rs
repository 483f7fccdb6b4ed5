//! Frames: what a request and an answer look like as bytes.
//!
//! A frame is one message of a SEQPACKET socket: a header and a payload. The header is the same in every
//! protocol version, for all time, so that a peer of another version can be told apart and named:
//!
//! ```text
//! "WLDN" | version: u16 | payload: kind u8, then fields: length u16, UTF-8
//! ```
//!
//! Numbers are big-endian. Guarantees: encoding and decoding are each other's inverse (but for
//! messages too long for a frame, which are cut), and decoding any bytes whatever returns an error
//! instead of panicking. Left to others: reading and writing, in `packet.rs`.

/// The version of the payload's layout that this library speaks. Raised when the layout of a request or answer changes that
/// there is already. A new kind of request needs no other version: a worker that does not know it says so, and all other
/// requests are understood as before, which is what a server needs whose program was upgraded before its library.
pub const PROTOCOL_VERSION: u16 = 2;

/// The longest frame, header included. The longest answer is the document of [`Answer::Status`], whose two sections have 24 kB
/// each at most; a peer that sends more is not ours.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// The longest path in a request: the server's own limit (`MAXPGPATH`, 15 to 18).
pub const PATH_BYTES_MAX: usize = 1024;

/// The longest file name in a request. The server's WAL file names have at most 40 bytes
/// (`MAX_XFN_CHARS`, `pgarch.h`, 15 to 18).
pub const FILE_BYTES_MAX: usize = 64;

/// The first bytes of every frame.
const MAGIC: [u8; 4] = *b"WLDN";

/// Bytes before the payload.
const HEADER_BYTES: usize = 6;

/// Most bytes of payload in a frame.
const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES;

/// Room for the message in an answer: the payload less its kind and the field's length.
const MESSAGE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - 3;

/// What the server's recovery asks of the worker: one value for each of the three commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `restore_command`: bring `file` to `path`.
    Restore {
        /// `%f`: the WAL file's name, at most [`FILE_BYTES_MAX`] bytes.
        file: String,
        /// `%p`: where it shall be, relative to the data directory, at most [`PATH_BYTES_MAX`] bytes.
        path: String,
        /// `%r`: the file that holds the last restartpoint's start; zeros before there is one.
        last_restartpoint: String,
    },
    /// `archive_cleanup_command`: files before that one may go.
    ArchiveCleanup {
        /// `%r`: the file that holds the last restartpoint's start; zeros before there is one.
        last_restartpoint: String,
    },
    /// `recovery_end_command`: recovery has finished.
    RecoveryEnd {
        /// `%r`: the file that holds the last restartpoint's start; zeros before there is one.
        last_restartpoint: String,
    },
    /// No command of the server's: a person asks what the worker is doing, while the server lets no session in.
    Status,
}

/// The worker's answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The file is where it was asked for, or the job is done.
    Done,
    /// The module says that the archive does not hold the file. Only a module may say it.
    Absent,
    /// Anything else, with the reason in the server's message style. Never the end of WAL.
    CouldNotTell(String),
    /// The same, and the reason stands in the server's log already: the client need not repeat it.
    Reported,
    /// What `SHOW walden.status` answers: a JSON document, to [`Request::Status`] alone.
    Status(String),
}

/// Why bytes are not a frame, or a request does not fit into one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The peer is no Walden at all.
    #[error("the other side does not speak Walden's protocol")]
    Magic,
    /// The peer is a Walden of another version: program and library of different installations.
    #[error(
        "the other side speaks protocol version {theirs}, this side version {ours}: the walden \
         program and the walden library are from different installations"
    )]
    Version {
        /// The version in the frame that arrived.
        theirs: u16,
        /// [`PROTOCOL_VERSION`].
        ours: u16,
    },
    /// The frame has more bytes than [`FRAME_BYTES_MAX`], or a field is longer than its limit.
    #[error("{what} has {bytes} bytes, more than the {bytes_max} allowed")]
    TooLong {
        /// Name of the field that is too long.
        what: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// Header and version are right, but the contents are not.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
}

mod kind {
    //! The payload's first byte. Requests and answers share no value, so that an echoed frame is an
    //! error.
    pub(super) const RESTORE: u8 = 1;
    pub(super) const ARCHIVE_CLEANUP: u8 = 2;
    pub(super) const RECOVERY_END: u8 = 3;
    pub(super) const ASK_STATUS: u8 = 4;
    pub(super) const DONE: u8 = 64;
    pub(super) const ABSENT: u8 = 65;
    pub(super) const COULD_NOT_TELL: u8 = 66;
    pub(super) const REPORTED: u8 = 67;
    pub(super) const STATUS: u8 = 68;
}

impl Request {
    /// The request as one frame.
    ///
    /// Fails with [`FrameError::TooLong`] for a field over its limit and [`FrameError::Malformed`] for
    /// one with a NUL byte, which no C callback could be given.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let mut frame = Writer::new();
        match self {
            Request::Restore {
                file,
                path,
                last_restartpoint,
            } => {
                frame.kind(kind::RESTORE);
                frame.field(&FILE, file)?;
                frame.field(&PATH, path)?;
                frame.field(&RESTARTPOINT, last_restartpoint)?;
            }
            Request::ArchiveCleanup { last_restartpoint } => {
                frame.kind(kind::ARCHIVE_CLEANUP);
                frame.field(&RESTARTPOINT, last_restartpoint)?;
            }
            Request::RecoveryEnd { last_restartpoint } => {
                frame.kind(kind::RECOVERY_END);
                frame.field(&RESTARTPOINT, last_restartpoint)?;
            }
            Request::Status => frame.kind(kind::ASK_STATUS),
        }
        Ok(frame.0)
    }

    /// Reads one whole frame; the same errors as [`Request::encode`], and those of a foreign frame.
    pub fn decode(frame: &[u8]) -> Result<Request, FrameError> {
        let (kind, mut fields) = Reader::open(frame)?;
        let request = match kind {
            kind::RESTORE => Request::Restore {
                file: fields.field(&FILE)?,
                path: fields.field(&PATH)?,
                last_restartpoint: fields.field(&RESTARTPOINT)?,
            },
            kind::ARCHIVE_CLEANUP => Request::ArchiveCleanup {
                last_restartpoint: fields.field(&RESTARTPOINT)?,
            },
            kind::RECOVERY_END => Request::RecoveryEnd {
                last_restartpoint: fields.field(&RESTARTPOINT)?,
            },
            kind::ASK_STATUS => Request::Status,
            _ => return Err(FrameError::Malformed("not a request")),
        };
        fields.finish()?;
        Ok(request)
    }
}

impl Answer {
    /// The answer as one frame. It cannot fail: a message too long for a frame is cut, and its NUL
    /// bytes become spaces, since an answer late is worse than an answer shortened. So is a document, which is then none.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut frame = Writer::new();
        match self {
            Answer::Done => frame.kind(kind::DONE),
            Answer::Absent => frame.kind(kind::ABSENT),
            Answer::Reported => frame.kind(kind::REPORTED),
            Answer::CouldNotTell(message) => frame.message(kind::COULD_NOT_TELL, message),
            Answer::Status(document) => frame.message(kind::STATUS, document),
        }
        frame.0
    }

    /// Reads one whole frame.
    pub fn decode(frame: &[u8]) -> Result<Answer, FrameError> {
        let (kind, mut fields) = Reader::open(frame)?;
        let answer = match kind {
            kind::DONE => Answer::Done,
            kind::ABSENT => Answer::Absent,
            kind::REPORTED => Answer::Reported,
            kind::COULD_NOT_TELL => Answer::CouldNotTell(fields.field(&MESSAGE)?),
            kind::STATUS => Answer::Status(fields.field(&MESSAGE)?),
            _ => return Err(FrameError::Malformed("not an answer")),
        };
        fields.finish()?;
        Ok(answer)
    }
}

/// The longest beginning of `text` that has at most `bytes_max` bytes and ends between characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut ends = (0..=bytes_max.min(text.len())).rev();
    ends.find_map(|end| text.get(..end)).unwrap_or_default()
}

/// A field's name in messages and its limit.
struct Field {
    name: &'static str,
    bytes_max: usize,
}

const FILE: Field = Field {
    name: "the file name",
    bytes_max: FILE_BYTES_MAX,
};
const PATH: Field = Field {
    name: "the path",
    bytes_max: PATH_BYTES_MAX,
};
const RESTARTPOINT: Field = Field {
    name: "the last restartpoint's file name",
    bytes_max: FILE_BYTES_MAX,
};
const MESSAGE: Field = Field {
    name: "the message",
    bytes_max: MESSAGE_BYTES_MAX,
};

impl Field {
    fn check(&self, value: &str) -> Result<(), FrameError> {
        if value.len() > self.bytes_max {
            return Err(FrameError::TooLong {
                what: self.name,
                bytes: value.len(),
                bytes_max: self.bytes_max,
            });
        }
        if value.contains('\0') {
            return Err(FrameError::Malformed("a field contains a NUL byte"));
        }
        Ok(())
    }
}

/// Builds a frame.
struct Writer(Vec<u8>);

impl Writer {
    fn new() -> Writer {
        let mut header = MAGIC.to_vec();
        header.extend(PROTOCOL_VERSION.to_be_bytes());
        Writer(header)
    }

    fn kind(&mut self, kind: u8) {
        self.0.push(kind);
    }

    /// A kind whose only field is a text of any length.
    fn message(&mut self, kind: u8, text: &str) {
        self.kind(kind);
        let text = cut(text, MESSAGE_BYTES_MAX).replace('\0', " ");
        self.raw(text.as_bytes());
    }

    fn field(&mut self, field: &Field, value: &str) -> Result<(), FrameError> {
        field.check(value)?;
        self.raw(value.as_bytes());
        Ok(())
    }

    /// A field whose limit the caller has seen to; every limit is far below what a u16 counts.
    fn raw(&mut self, value: &[u8]) {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_be_bytes());
        self.0.extend(value.iter().take(usize::from(length)));
    }
}

/// Takes a frame apart.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn open(frame: &'a [u8]) -> Result<(u8, Reader<'a>), FrameError> {
        let Some((header, payload)) = frame.split_first_chunk::<HEADER_BYTES>() else {
            return Err(FrameError::Malformed("shorter than a header"));
        };
        let [m0, m1, m2, m3, v0, v1] = *header;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(FrameError::Magic);
        }
        let theirs = u16::from_be_bytes([v0, v1]);
        if theirs != PROTOCOL_VERSION {
            return Err(FrameError::Version {
                theirs,
                ours: PROTOCOL_VERSION,
            });
        }
        match payload.split_first() {
            Some((kind, fields)) => Ok((*kind, Reader(fields))),
            None => Err(FrameError::Malformed("empty payload")),
        }
    }

    fn field(&mut self, field: &Field) -> Result<String, FrameError> {
        const SHORT: FrameError = FrameError::Malformed("a field is missing or cut");
        let (length, rest) = self.0.split_first_chunk::<2>().ok_or(SHORT)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (value, rest) = rest.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        let value = str::from_utf8(value)
            .map_err(|_| FrameError::Malformed("a field is not UTF-8"))?
            .to_owned();
        field.check(&value)?;
        Ok(value)
    }

    fn finish(self) -> Result<(), FrameError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Malformed("bytes after the last field"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn restore() -> Request {
        Request::Restore {
            file: "000000010000000A000000FE".into(),
            path: "pg_wal/RECOVERYXLOG".into(),
            last_restartpoint: "000000010000000A000000F0".into(),
        }
    }

    fn requests() -> impl Strategy<Value = Request> {
        let name = "[^\0]{0,16}";
        prop_oneof![
            (name, "[^\0]{0,256}", name).prop_map(|(file, path, last_restartpoint)| {
                Request::Restore {
                    file,
                    path,
                    last_restartpoint,
                }
            }),
            name.prop_map(|last_restartpoint| Request::ArchiveCleanup { last_restartpoint }),
            name.prop_map(|last_restartpoint| Request::RecoveryEnd { last_restartpoint }),
            Just(Request::Status),
        ]
    }

    proptest! {
        #[test]
        fn every_request_survives_the_wire(request in requests()) {
            let frame = request.encode().unwrap();
            prop_assert!(frame.len() <= FRAME_BYTES_MAX);
            prop_assert_eq!(Request::decode(&frame), Ok(request));
            prop_assert!(Answer::decode(&frame).is_err());
        }

        #[test]
        fn every_message_survives_the_wire(message in "[^\0]{0,2000}") {
            for answer in [Answer::CouldNotTell(message.clone()), Answer::Status(message)] {
                let frame = answer.encode();
                prop_assert_eq!(Answer::decode(&frame), Ok(answer));
                prop_assert!(Request::decode(&frame).is_err());
            }
        }

        #[test]
        fn decoding_any_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = Request::decode(&bytes);
            let _ = Answer::decode(&bytes);
        }

        #[test]
        fn decoding_any_payload_behind_a_right_header_never_panics(
            payload in prop::collection::vec(any::<u8>(), 0..512),
        ) {
            let mut frame = b"WLDN\0\x01".to_vec();
            frame.extend(&payload);
            let _ = Request::decode(&frame);
            let _ = Answer::decode(&frame);
        }

        #[test]
        fn a_frame_with_one_byte_changed_is_decoded_or_refused_but_never_panics(
            at in 0usize..80, to in any::<u8>(),
        ) {
            let mut frame = restore().encode().unwrap();
            if let Some(byte) = frame.get_mut(at) {
                *byte = to;
            }
            let _ = Request::decode(&frame);
        }
    }

    #[test]
    fn every_prefix_of_a_frame_is_refused() {
        let frame = restore().encode().unwrap();
        for end in 0..frame.len() {
            assert!(
                Request::decode(&frame[..end]).is_err(),
                "prefix of {end} bytes"
            );
        }
    }

    #[test]
    fn a_kind_of_request_that_is_not_known_is_refused_as_such_and_not_for_its_version() {
        let mut frame = Request::Status.encode().unwrap();
        *frame.last_mut().unwrap() = 63;
        let error = Request::decode(&frame).unwrap_err();
        assert_eq!(error, FrameError::Malformed("not a request"));
    }

    #[test]
    fn a_frame_of_another_version_is_refused_naming_both() {
        let mut frame = Answer::Done.encode();
        frame[5] = 9;
        let error = Answer::decode(&frame).unwrap_err();
        assert_eq!(
            error,
            FrameError::Version {
                theirs: 9,
                ours: PROTOCOL_VERSION
            }
        );
        let message = error.to_string();
        assert!(
            message.contains("version 9") && message.contains("version 2"),
            "{message}"
        );
    }

    #[test]
    fn a_message_too_long_for_a_frame_is_cut_between_characters() {
        let answer = Answer::CouldNotTell("ä".repeat(FRAME_BYTES_MAX));
        let frame = answer.encode();
        assert!(frame.len() <= FRAME_BYTES_MAX);
        let Ok(Answer::CouldNotTell(message)) = Answer::decode(&frame) else {
            panic!("not decoded");
        };
        assert!(message.len() > MESSAGE_BYTES_MAX - 2 && message.chars().all(|c| c == 'ä'));
    }

    #[test]
    fn a_path_over_the_limit_or_with_a_nul_byte_is_not_sent() {
        let mut request = restore();
        if let Request::Restore { path, .. } = &mut request {
            *path = "x".repeat(PATH_BYTES_MAX + 1);
        }
        assert!(matches!(request.encode(), Err(FrameError::TooLong { .. })));
        let request = Request::RecoveryEnd {
            last_restartpoint: "a\0b".into(),
        };
        assert!(matches!(request.encode(), Err(FrameError::Malformed(_))));
    }
}
