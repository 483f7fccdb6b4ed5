//! Compressing on the way in, decompressing and decrypting on the way out, in bounded memory, without ever calling a
//! cut-off stream complete.
//!
//! Guarantees: every frame written carries a checksum of its contents and its size (zstd's are made in `frames.rs`). What is
//! read is unpacked as its first bytes say (`store/form.rs`): age, then zstd or lz4 inside, else it is plain. [`Decoded`] tells
//! apart what a failed read can mean: the store did not deliver ([`crate::ErrorKind::Unavailable`]); what is stored is damaged
//! ([`crate::ErrorKind::Damaged`]); it is encrypted and cannot be opened; or it is packed in a form not unpacked here, twice for
//! example ([`crate::ErrorKind::Unusable`]).
//!
//! This file is long because half of it is tests of every cut and flip.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read, Write};
use std::sync::Arc;

use lz4_flex::frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use zstd::zstd_safe::{self, CParameter, DCtx};

use crate::error::{Error, ErrorKind, Mark};
use crate::format::delivery::{Delivered, Delivery};
use crate::format::frames::{self, Compressor, Frames, Held};
use crate::format::seal::{self, NotOpened, Opened};
use crate::options::compression::Compression;
use crate::options::identity::IdentityFile;
use crate::store::form::{Form, HEAD_BYTES};
use crate::store::waist::Object;

/// Bytes moved at once. Large enough that system calls do not count, small enough to hold several of.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// A file's contents, wherever they come from.
pub(crate) trait Contents {
    /// Reads until `buffer` is full or the contents end. Less than a full buffer means the end, which was
    /// then seen to be the true one.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error>;
}

/// A writer that compresses into another.
pub(crate) enum Encoder<'a, W: Write> {
    Raw(W),
    Frames(Frames<'a, W>),
    Zstd(zstd::Encoder<'a, W>),
    Lz4(Box<FrameEncoder<W>>),
}

impl<'a, W: Write> Encoder<'a, W> {
    /// `bytes` is how many bytes will be written; frames say to decoders how much is in them. `compressor` can be used for
    /// the next file.
    pub(crate) fn new(
        compression: Compression,
        bytes: u64,
        compressor: &'a mut Compressor,
        into: W,
    ) -> io::Result<Encoder<'a, W>> {
        Ok(match compression {
            Compression::None => Encoder::Raw(into),
            Compression::Zstd(level) if level <= frames::LEVEL_MAX => {
                Encoder::Frames(Frames::new(level, Held::Lent(compressor), into)?)
            }
            Compression::Zstd(level) => {
                let mut encoder = zstd::Encoder::with_context(into, compressor.context());
                encoder.set_parameter(CParameter::CompressionLevel(level))?;
                encoder.include_checksum(true)?;
                encoder.set_pledged_src_size(Some(bytes))?;
                Encoder::Zstd(encoder)
            }
            Compression::Lz4 => {
                let frame = FrameInfo::new()
                    .block_size(BlockSize::Max256KB)
                    .content_checksum(true)
                    .content_size(Some(bytes));
                Encoder::Lz4(Box::new(FrameEncoder::with_frame_info(frame, into)))
            }
        })
    }

    /// The same for one file of which is not known how long it will be, with a compressor of its own: zstd's frames still say
    /// what is in them up to [`frames::LEVEL_MAX`], others do not.
    pub(crate) fn of_unknown_length(
        compression: Compression,
        into: W,
    ) -> io::Result<Encoder<'static, W>> {
        Ok(match compression {
            Compression::None => Encoder::Raw(into),
            Compression::Zstd(level) if level <= frames::LEVEL_MAX => {
                Encoder::Frames(Frames::new(level, Held::Own(Box::default()), into)?)
            }
            Compression::Zstd(level) => {
                let mut encoder = zstd::Encoder::new(into, level)?;
                encoder.include_checksum(true)?;
                Encoder::Zstd(encoder)
            }
            Compression::Lz4 => {
                let frame = FrameInfo::new()
                    .block_size(BlockSize::Max256KB)
                    .content_checksum(true);
                Encoder::Lz4(Box::new(FrameEncoder::with_frame_info(frame, into)))
            }
        })
    }

    /// Ends the frame and gives the inner writer back.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Encoder::Raw(into) => Ok(into),
            Encoder::Frames(frames) => frames.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
            Encoder::Lz4(encoder) => encoder.finish().map_err(io::Error::from),
        }
    }
}

impl<W: Write> Write for Encoder<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::Raw(into) => into.write(bytes),
            Encoder::Frames(frames) => frames.write(bytes),
            Encoder::Zstd(encoder) => encoder.write(bytes),
            Encoder::Lz4(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::Raw(into) => into.flush(),
            Encoder::Frames(frames) => frames.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
            Encoder::Lz4(encoder) => encoder.flush(),
        }
    }
}

/// A stored object's contents, decrypted and decompressed.
pub(crate) struct Decoded<'a> {
    decoder: Decoder<'a>,
    delivery: Arc<Delivery>,
    /// The object as messages name it.
    shown: String,
    /// Nothing has been read yet.
    is_new: bool,
}

enum Decoder<'a> {
    Raw(Looked<Unsealed>),
    Zstd(zstd::Decoder<'a, BufReader<Looked<Unsealed>>>),
    Lz4(Box<FrameDecoder<NeverEnds<BufReader<Looked<Unsealed>>>>>),
}

/// A reader whose first bytes have been looked at, and come again.
type Looked<R> = Chain<Cursor<Vec<u8>>, R>;

/// The form of what a reader gives, and the reader as it was before.
fn look<R: Read>(mut reader: R) -> io::Result<(Form, Looked<R>)> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    (&mut reader)
        .take(HEAD_BYTES as u64)
        .read_to_end(&mut head)?;
    Ok((Form::of(&head), Cursor::new(head).chain(reader)))
}

/// What is stored, decrypted if it was encrypted.
enum Unsealed {
    Plain(Looked<Delivered>),
    Sealed(Box<Opened<BufReader<Looked<Delivered>>>>),
}

impl Read for Unsealed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Unsealed::Plain(delivered) => delivered.read(buffer),
            Unsealed::Sealed(opened) => opened.read(buffer),
        }
    }
}

impl Contents for Decoded<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..)
            && !rest.is_empty()
        {
            match self.read(rest) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(cause) => return Err(self.failure(cause)),
            }
        }
        if self.is_new {
            self.is_new = false;
            let form = Form::of(buffer.get(..filled).unwrap_or_default());
            if !matches!(form, Form::Plain | Form::Empty) {
                return Err(packed(&self.shown, form));
            }
        }
        Ok(filled)
    }
}

impl<'a> Decoded<'a> {
    /// Begins to read an object. `shown` names it in messages; `identity` opens it if it is encrypted.
    ///
    /// Fails with [`crate::ErrorKind::Unusable`] or [`crate::ErrorKind::Unavailable`], and [`Mark::Locked`], if it is
    /// encrypted and cannot be opened.
    pub(crate) fn new(
        object: Object,
        shown: String,
        identity: Option<&IdentityFile>,
    ) -> Result<Decoded<'a>, Error> {
        Decoded::begin(object, shown, identity, None)
    }

    /// The same with a context that is made when there is none, and can be used for the next file.
    pub(crate) fn with_context(
        object: Object,
        shown: String,
        identity: Option<&IdentityFile>,
        context: &'a mut Option<DCtx<'static>>,
    ) -> Result<Decoded<'a>, Error> {
        Decoded::begin(object, shown, identity, Some(context))
    }

    fn begin(
        object: Object,
        shown: String,
        identity: Option<&IdentityFile>,
        context: Option<&'a mut Option<DCtx<'static>>>,
    ) -> Result<Decoded<'a>, Error> {
        if object.bytes == 0 {
            // Neither a compressed file nor any WAL file is ever empty; an interrupted copy is.
            let error = Error::damaged(format!("archive file \"{shown}\" is empty"));
            return Err(error.with_hint(
                "A copy into the archive may have been interrupted. Move it away; if the server still has the file, it is \
                 archived again.",
            ));
        }
        let (delivered, delivery) = Delivered::of(object);
        let failed = |cause| failure(&delivery, cause, &shown);
        let (form, looked) = look(delivered).map_err(failed)?;
        let stored = match form {
            Form::Age => {
                let buffered = BufReader::with_capacity(CHUNK_BYTES, looked);
                let opened = seal::open(buffered, identity)
                    .map_err(|why| not_opened(why, &shown, &delivery))?;
                Unsealed::Sealed(Box::new(opened))
            }
            _ => Unsealed::Plain(looked),
        };
        let (form, stored) = look(stored).map_err(failed)?;
        let decoder = match form {
            Form::Zstd => {
                let buffered = BufReader::with_capacity(CHUNK_BYTES, stored);
                Decoder::Zstd(match context {
                    Some(context) => {
                        let context = context.get_or_insert_with(DCtx::create);
                        zstd::Decoder::with_context(buffered, context)
                    }
                    None => zstd::Decoder::with_buffer(buffered).map_err(|cause| {
                        let what =
                            format!("could not begin to decompress archive file \"{shown}\"");
                        Error::io(what, cause)
                    })?,
                })
            }
            Form::Lz4 => {
                let buffered = BufReader::with_capacity(CHUNK_BYTES, stored);
                Decoder::Lz4(Box::new(FrameDecoder::new(NeverEnds(buffered))))
            }
            Form::Plain | Form::Age | Form::Other(_) | Form::Empty => Decoder::Raw(stored),
        };
        Ok(Decoded {
            decoder,
            delivery,
            shown,
            is_new: true,
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.decoder {
            Decoder::Raw(stored) => stored.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
            Decoder::Lz4(decoder) => loop {
                let read = decoder.read(buffer)?;
                // The decoder says 0 at the end of each frame. Frames may follow one another.
                if read > 0 || decoder.get_mut().0.fill_buf()?.is_empty() {
                    return Ok(read);
                }
            },
        }
    }

    fn failure(&self, cause: io::Error) -> Error {
        failure(&self.delivery, cause, &self.shown)
    }
}

/// What a failed read means; that a frame needs more memory than is given to one is no damage.
fn failure(delivery: &Delivery, cause: io::Error, shown: &str) -> Error {
    // The crate keeps the library's text of a code only, which is told back here: a frame whose window is too large.
    let too_large = zstd_safe::get_error_name(0_usize.wrapping_sub(WINDOW_TOO_LARGE));
    if delivery.is_sound() && cause.to_string() == too_large {
        return Error::unusable(format!(
            "archive file \"{shown}\" requires more memory to decompress than Walden allows"
        ))
        .with_hint(
            "Its window is larger than 128 MB (zstd --long or --ultra): compress it again without.",
        )
        .marked(Mark::Packed);
    }
    delivery.failure(cause, shown)
}

/// `ZSTD_error_frameParameter_windowTooLarge` (zstd_errors.h, 1.5).
const WINDOW_TOO_LARGE: usize = 16;

/// For contents that are packed once more, or by something else: whether they are damaged is not known.
fn packed(shown: &str, form: Form) -> Error {
    Error::unusable(format!(
        "archive file \"{shown}\" is packed in a form that Walden does not read: its contents are {form}"
    ))
    .with_hint(
        "Unpack it by hand, and give the contents the same name. What is read is plain, zstd or lz4, and each of them \
         encrypted with age.",
    )
    .marked(Mark::Packed)
}

/// Why an encrypted object cannot be read. Never that it is damaged because its key is missing.
fn not_opened(why: NotOpened, shown: &str, delivery: &Delivery) -> Error {
    match why {
        NotOpened::Unsound(cause) => failure(delivery, cause, shown),
        NotOpened::Unknown => Error::unusable(format!(
            "archive file \"{shown}\" is of a version of the age format that this version of Walden does not know"
        ))
        .marked(Mark::Locked(None)),
        NotOpened::Locked {
            noted,
            why,
            trouble,
        } => {
            let kind = trouble.as_ref().map(|trouble| trouble.kind());
            let hint = trouble.as_ref().and_then(|trouble| trouble.hint());
            let kind = kind.unwrap_or(ErrorKind::Unusable);
            Error::new(kind, format!("archive file \"{shown}\" {why}"))
                .with_hint(hint.unwrap_or(
                    "Set \"walden.identity_file\" (--identity-file) to a file with the identity of one of the \
                     recipients: the secret key that age-keygen made with that public key.",
                ))
                .marked(Mark::Locked(noted.digest))
        }
    }
}

/// Makes the end of input an error. `FrameDecoder` takes an input that ends between two blocks for
/// complete, so it must never see the end; a complete frame ends by its own mark before that.
struct NeverEnds<R>(R);

impl<R: Read> Read for NeverEnds<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Ok(0) if !buffer.is_empty() => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the frame has no end",
            )),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use std::time::SystemTime;

    fn contents() -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..700_000)
            .map(|i| if i % 3 == 0 { random.u8(..) } else { 0 })
            .collect()
    }

    fn encode(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::default();
        let bytes_in = bytes.len() as u64;
        let mut encoder = Encoder::new(compression, bytes_in, &mut compressor, Vec::new()).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn object(bytes: Vec<u8>) -> Object {
        let (bytes, reader) = (bytes.len() as u64, Box::new(Cursor::new(bytes)));
        Object {
            reader,
            bytes,
            modified: SystemTime::UNIX_EPOCH,
            file: None,
        }
    }

    fn decode(object: Object) -> Result<Vec<u8>, Error> {
        let mut decoded = Decoded::new(object, "x".to_owned(), None)?;
        let (mut all, mut buffer) = (Vec::new(), vec![0; 10_000]);
        loop {
            let read = decoded.fill(&mut buffer)?;
            all.extend_from_slice(&buffer[..read]);
            if read < buffer.len() {
                return Ok(all);
            }
        }
    }

    const COMPRESSED: [Compression; 2] = [Compression::Zstd(1), Compression::Lz4];

    #[test]
    fn what_is_encoded_decodes_to_the_same_bytes() {
        let bytes = contents();
        for compression in [Compression::None, Compression::Zstd(3), Compression::Lz4] {
            let stored = encode(compression, &bytes);
            assert_eq!(decode(object(stored)).unwrap(), bytes);
        }
    }

    #[test]
    fn frames_that_follow_one_another_decode_to_all_their_contents() {
        for compression in COMPRESSED {
            let stored = [encode(compression, b"one"), encode(compression, b"two")].concat();
            assert_eq!(decode(object(stored)).unwrap(), b"onetwo");
        }
    }

    #[test]
    fn an_object_cut_short_anywhere_is_damaged_and_never_complete() {
        // Three lz4 blocks, and every cut of their frame: among them the cuts between two blocks.
        let bytes = contents();
        for compression in COMPRESSED {
            let stored = encode(compression, &bytes);
            // Less than the four bytes that tell the form is no frame: that is for the file's own checks.
            let near_the_ends = (4..64).chain(stored.len() - 64..stored.len());
            for cut in near_the_ends.chain((64..stored.len() - 64).step_by(4999)) {
                let error = decode(object(stored[..cut].to_vec())).unwrap_err();
                assert_eq!(
                    error.kind(),
                    ErrorKind::Damaged,
                    "{compression} cut at {cut}"
                );
            }
        }
        let small = [
            encode(Compression::Lz4, &bytes[..300_000]),
            encode(COMPRESSED[0], b"abc"),
        ];
        for stored in &small {
            for cut in (4..stored.len()).step_by(stored.len() / 300 + 1) {
                assert!(decode(object(stored[..cut].to_vec())).is_err());
            }
        }
    }

    #[test]
    fn an_lz4_frame_cut_between_two_blocks_is_damaged() {
        let stored = encode(Compression::Lz4, &contents());
        // Magic 4, descriptor 2 + size 8 + check 1, then the first block's length.
        let first = 15;
        let length = u32::from_le_bytes(stored[first..first + 4].try_into().unwrap()) & 0x7FFF_FFFF;
        let cut = first + 4 + length as usize;
        let error = decode(object(stored[..cut].to_vec())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }

    #[test]
    fn a_flipped_bit_is_damage() {
        for compression in COMPRESSED {
            let mut stored = encode(compression, &contents());
            let middle = stored.len() / 2;
            stored[middle] ^= 0x10;
            let error = decode(object(stored)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{compression}");
        }
    }

    #[test]
    fn a_store_that_delivers_less_than_it_has_is_unavailable_not_damaged() {
        let bytes = contents();
        for compression in [Compression::None, Compression::Zstd(1), Compression::Lz4] {
            let stored = encode(compression, &bytes);
            let mut short = object(stored[..stored.len() - 5].to_vec());
            short.bytes = stored.len() as u64;
            let error = decode(short).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{compression}");
        }
    }

    #[test]
    fn a_context_that_was_left_in_the_middle_of_one_file_reads_the_next_one_right() {
        let (mut context, stored) = (None, encode(Compression::Zstd(1), &contents()));
        for cut in [1000, stored.len() / 2, stored.len() - 5, stored.len()] {
            let part = object(stored[..cut].to_vec());
            let shown = || "x".to_owned();
            let mut buffer = vec![0; 1_000_000];
            let mut first = Decoded::with_context(part, shown(), None, &mut context).unwrap();
            let _ = first.fill(&mut buffer);
            drop(first);
            let whole = object(stored.clone());
            let mut second = Decoded::with_context(whole, shown(), None, &mut context).unwrap();
            let read = second.fill(&mut buffer).unwrap();
            assert!(buffer[..read] == contents(), "after a cut at {cut}");
        }
    }

    #[test]
    fn something_else_behind_a_frame_is_damage() {
        for compression in COMPRESSED {
            let mut stored = encode(compression, b"abc");
            stored.extend_from_slice(b"trailing rubbish");
            let error = decode(object(stored)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{compression}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_read_back_and_no_cut_or_flip_goes_unnoticed(
            bytes in proptest::collection::vec(0_u8..4, 1..5000),
            at in 0..1000_usize,
            bit in 0..8_u32,
        ) {
            for compression in COMPRESSED {
                let stored = encode(compression, &bytes);
                proptest::prop_assert_eq!(&decode(object(stored.clone())).unwrap(), &bytes);
                // The first four bytes tell the form: without them it is plain, and not what its name says.
                let at = 4 + at % (stored.len() - 4);
                proptest::prop_assert!(decode(object(stored[..at].to_vec())).is_err());
                let mut flipped = stored;
                flipped[at] ^= 1 << bit;
                // A flipped bit may fall where it changes nothing; it never changes the contents.
                if let Ok(decoded) = decode(object(flipped)) {
                    proptest::prop_assert_eq!(&decoded, &bytes);
                }
            }
        }
    }
}
