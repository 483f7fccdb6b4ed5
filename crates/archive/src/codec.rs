//! Compressing on the way in, decompressing on the way out, in bounded memory, without ever calling a cut-off
//! stream complete.
//!
//! Guarantees: every frame written carries a checksum of its contents and its size. [`Decoded`] tells
//! apart the two things a failed read can mean: the store did not deliver
//! ([`crate::ErrorKind::Unavailable`]) or what is stored is damaged ([`crate::ErrorKind::Damaged`]).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lz4_flex::frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use zstd::zstd_safe::{CCtx, CParameter, DCtx};

use crate::compression::Compression;
use crate::compression::CompressionKind;
use crate::error::{Error, cause_of};
use crate::store::Object;

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
    Zstd(zstd::Encoder<'a, W>),
    Lz4(Box<FrameEncoder<W>>),
}

impl<'a, W: Write> Encoder<'a, W> {
    /// `bytes` is how many bytes will be written; the frame says so to whoever decodes it. `context` is made when
    /// there is none, and can be used for the next file.
    pub(crate) fn new(
        compression: Compression,
        bytes: u64,
        context: &'a mut Option<CCtx<'static>>,
        into: W,
    ) -> io::Result<Encoder<'a, W>> {
        Ok(match compression {
            Compression::None => Encoder::Raw(into),
            Compression::Zstd(level) => {
                let context = context.get_or_insert_with(CCtx::create);
                let mut encoder = zstd::Encoder::with_context(into, context);
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

    /// Ends the frame and gives the inner writer back.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Encoder::Raw(into) => Ok(into),
            Encoder::Zstd(encoder) => encoder.finish(),
            Encoder::Lz4(encoder) => encoder.finish().map_err(io::Error::from),
        }
    }
}

impl<W: Write> Write for Encoder<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::Raw(into) => into.write(bytes),
            Encoder::Zstd(encoder) => encoder.write(bytes),
            Encoder::Lz4(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::Raw(into) => into.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
            Encoder::Lz4(encoder) => encoder.flush(),
        }
    }
}

/// A stored object's contents, decompressed.
pub(crate) struct Decoded<'a> {
    decoder: Decoder<'a>,
    delivery: Arc<Delivery>,
    stored_bytes: u64,
    /// The object as messages name it.
    shown: String,
}

enum Decoder<'a> {
    Raw(Delivered),
    Zstd(zstd::Decoder<'a, BufReader<Delivered>>),
    Lz4(Box<FrameDecoder<NeverEnds<BufReader<Delivered>>>>),
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
        Ok(filled)
    }
}

impl<'a> Decoded<'a> {
    /// Begins to read an object. `shown` names it in messages.
    pub(crate) fn new(
        object: Object,
        kind: CompressionKind,
        shown: String,
    ) -> Result<Decoded<'a>, Error> {
        Decoded::begin(object, kind, shown, None)
    }

    /// The same with a context that is made when there is none, and can be used for the next file.
    pub(crate) fn with_context(
        object: Object,
        kind: CompressionKind,
        shown: String,
        context: &'a mut Option<DCtx<'static>>,
    ) -> Result<Decoded<'a>, Error> {
        Decoded::begin(object, kind, shown, Some(context))
    }

    fn begin(
        object: Object,
        kind: CompressionKind,
        shown: String,
        context: Option<&'a mut Option<DCtx<'static>>>,
    ) -> Result<Decoded<'a>, Error> {
        if object.bytes == 0 {
            // Neither a compressed file nor any WAL file is ever empty; an interrupted copy is.
            return Err(Error::damaged(format!("archive file \"{shown}\" is empty")));
        }
        let stored_bytes = object.bytes;
        let delivery = Arc::new(Delivery::default());
        let delivered = Delivered {
            inner: object.reader,
            bytes: object.bytes,
            delivery: Arc::clone(&delivery),
        };
        let decoder = match kind {
            CompressionKind::None => Decoder::Raw(delivered),
            CompressionKind::Zstd => {
                let buffered = BufReader::with_capacity(CHUNK_BYTES, delivered);
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
            CompressionKind::Lz4 => {
                let buffered = BufReader::with_capacity(CHUNK_BYTES, delivered);
                Decoder::Lz4(Box::new(FrameDecoder::new(NeverEnds(buffered))))
            }
        };
        Ok(Decoded {
            decoder,
            delivery,
            stored_bytes,
            shown,
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.decoder {
            Decoder::Raw(delivered) => delivered.read(buffer),
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
        let shown = &self.shown;
        if self.delivery.ended_early.load(Ordering::Acquire) {
            return Error::unavailable(format!(
                "could not read archive file \"{shown}\": it ended after {} of {} bytes",
                self.delivery.bytes.load(Ordering::Acquire),
                self.stored_bytes
            ));
        }
        if self.delivery.failed.load(Ordering::Acquire) {
            return Error::io(format!("could not read archive file \"{shown}\""), cause);
        }
        Error::damaged(format!(
            "archive file \"{shown}\" is damaged or cut short: {}",
            cause_of(&cause)
        ))
        .with_hint("A copy into the archive may have been interrupted, or may still be running.")
    }
}

/// What became of the stored bytes on their way, seen from both sides of the decoder.
#[derive(Default)]
struct Delivery {
    bytes: AtomicU64,
    failed: AtomicBool,
    ended_early: AtomicBool,
}

/// The store's reader, watched: it must deliver as many bytes as are stored, and no more are taken.
struct Delivered {
    inner: Box<dyn Read + Send>,
    bytes: u64,
    delivery: Arc<Delivery>,
}

impl Read for Delivered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.bytes - self.delivery.bytes.load(Ordering::Acquire).min(self.bytes);
        let wanted = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        loop {
            match self.inner.read(buffer) {
                Ok(0) => {
                    self.delivery.ended_early.store(true, Ordering::Release);
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Ok(read) => {
                    self.delivery.bytes.fetch_add(read as u64, Ordering::AcqRel);
                    return Ok(read);
                }
                // Repeated here, since not every decoder keeps its state across an interruption.
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => {
                    self.delivery.failed.store(true, Ordering::Release);
                    return Err(cause);
                }
            }
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
    use crate::error::ErrorKind;
    use std::io::Cursor;
    use std::time::SystemTime;

    fn contents() -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..700_000)
            .map(|i| if i % 3 == 0 { random.u8(..) } else { 0 })
            .collect()
    }

    fn encode(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut context = None;
        let bytes_in = bytes.len() as u64;
        let mut encoder = Encoder::new(compression, bytes_in, &mut context, Vec::new()).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn object(bytes: Vec<u8>) -> Object {
        let (bytes, reader) = (bytes.len() as u64, Box::new(Cursor::new(bytes)));
        Object {
            reader,
            bytes,
            modified: SystemTime::UNIX_EPOCH,
        }
    }

    fn decode(object: Object, kind: CompressionKind) -> Result<Vec<u8>, Error> {
        let mut decoded = Decoded::new(object, kind, "x".to_owned())?;
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
            assert_eq!(decode(object(stored), compression.kind()).unwrap(), bytes);
        }
    }

    #[test]
    fn frames_that_follow_one_another_decode_to_all_their_contents() {
        for compression in COMPRESSED {
            let stored = [encode(compression, b"one"), encode(compression, b"two")].concat();
            assert_eq!(
                decode(object(stored), compression.kind()).unwrap(),
                b"onetwo"
            );
        }
    }

    #[test]
    fn an_object_cut_short_anywhere_is_damaged_and_never_complete() {
        // Three lz4 blocks, and every cut of their frame: among them the cuts between two blocks.
        let bytes = contents();
        for compression in COMPRESSED {
            let stored = encode(compression, &bytes);
            let near_the_ends = (0..64).chain(stored.len() - 64..stored.len());
            for cut in near_the_ends.chain((64..stored.len() - 64).step_by(4999)) {
                let error = decode(object(stored[..cut].to_vec()), compression.kind()).unwrap_err();
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
        for (stored, compression) in small.iter().zip([Compression::Lz4, COMPRESSED[0]]) {
            for cut in (0..stored.len()).step_by(stored.len() / 300 + 1) {
                assert!(decode(object(stored[..cut].to_vec()), compression.kind()).is_err());
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
        let error = decode(object(stored[..cut].to_vec()), CompressionKind::Lz4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }

    #[test]
    fn a_flipped_bit_is_damage() {
        for compression in COMPRESSED {
            let mut stored = encode(compression, &contents());
            let middle = stored.len() / 2;
            stored[middle] ^= 0x10;
            let error = decode(object(stored), compression.kind()).unwrap_err();
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
            let error = decode(short, compression.kind()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{compression}");
        }
    }

    #[test]
    fn a_context_that_was_left_in_the_middle_of_one_file_reads_the_next_one_right() {
        let (mut context, stored) = (None, encode(Compression::Zstd(1), &contents()));
        for cut in [1000, stored.len() / 2, stored.len() - 5, stored.len()] {
            let part = object(stored[..cut].to_vec());
            let kind = CompressionKind::Zstd;
            let shown = || "x".to_owned();
            let mut buffer = vec![0; 1_000_000];
            let mut first = Decoded::with_context(part, kind, shown(), &mut context).unwrap();
            let _ = first.fill(&mut buffer);
            drop(first);
            let whole = object(stored.clone());
            let mut second = Decoded::with_context(whole, kind, shown(), &mut context).unwrap();
            let read = second.fill(&mut buffer).unwrap();
            assert!(buffer[..read] == contents(), "after a cut at {cut}");
        }
    }

    #[test]
    fn something_else_behind_a_frame_is_damage() {
        for compression in COMPRESSED {
            let mut stored = encode(compression, b"abc");
            stored.extend_from_slice(b"trailing rubbish");
            let error = decode(object(stored), compression.kind()).unwrap_err();
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
                let kind = compression.kind();
                proptest::prop_assert_eq!(&decode(object(stored.clone()), kind).unwrap(), &bytes);
                let at = at % stored.len();
                proptest::prop_assert!(decode(object(stored[..at].to_vec()), kind).is_err());
                let mut flipped = stored;
                flipped[at] ^= 1 << bit;
                // A flipped bit may fall where it changes nothing; it never changes the contents.
                if let Ok(decoded) = decode(object(flipped), kind) {
                    proptest::prop_assert_eq!(&decoded, &bytes);
                }
            }
        }
    }
}
