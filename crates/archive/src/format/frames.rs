//! zstd over input that lies in one piece: a file becomes several frames, each compressed at once.
//!
//! zstd's streaming interface copies its input into a buffer of the window's size that wraps; from the first wrap on a
//! slower variant of its match finders has to look on both sides of the seam (`extDict`). One call for each
//! [`FRAME_BYTES`] has no seam, and what it touches stays in the processor's cache: on WAL of pgbench that saves a sixth of
//! the time at level 1 and a fifth at level 3, and costs 0.2 % of the ratio at most, because each frame begins without a past.
//!
//! Guarantees: each frame carries a checksum and the size of its contents; memory does not grow with the file. Decoders
//! take frames that follow one another for one file. That one is missing at the end only the file's size shows, which
//! `check.rs` knows of every segment.

use std::io::{self, Write};
use std::ops::{Deref, DerefMut};

use zstd::zstd_safe::{CCtx, CParameter, ResetDirective, compress_bound, get_error_name};

/// Contents of one frame. As much as the window of [`LEVEL_MAX`], so that no match is lost within a frame.
const FRAME_BYTES: usize = 2 * 1024 * 1024;

/// The highest level whose window is no larger than a frame (`ZSTD_defaultCParameters`, 1.5.7). Above it ratio is what
/// was asked for, and a window that begins anew costs 1 % and more of it.
pub(crate) const LEVEL_MAX: i32 = 8;

/// What compresses, kept from file to file. Made as needed.
#[derive(Default)]
pub(crate) struct Compressor {
    context: Option<CCtx<'static>>,
    /// Contents of the next frame.
    contents: Vec<u8>,
    /// The frame that was made last.
    frame: Vec<u8>,
}

impl Compressor {
    pub(super) fn context(&mut self) -> &mut CCtx<'static> {
        self.context.get_or_insert_with(CCtx::create)
    }

    /// How many bytes it takes up at present.
    pub(crate) fn bytes(&self) -> u64 {
        let context = self.context.as_ref().map_or(0, CCtx::sizeof);
        (context + self.contents.capacity() + self.frame.capacity()) as u64
    }
}

/// What compresses one file: lent for that, or the file's own.
pub(crate) enum Held<'a> {
    Lent(&'a mut Compressor),
    Own(Box<Compressor>),
}

impl Deref for Held<'_> {
    type Target = Compressor;

    fn deref(&self) -> &Compressor {
        match self {
            Held::Lent(compressor) => compressor,
            Held::Own(compressor) => compressor,
        }
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Compressor {
        match self {
            Held::Lent(compressor) => compressor,
            Held::Own(compressor) => compressor,
        }
    }
}

/// A writer that makes frames of what is written to it, and writes them into another.
pub(crate) struct Frames<'a, W: Write> {
    compressor: Held<'a>,
    /// Whether a frame has been written: an empty file is one, too.
    has_begun: bool,
    into: W,
}

impl<'a, W: Write> Frames<'a, W> {
    /// `level` is at most [`LEVEL_MAX`].
    pub(super) fn new(level: i32, mut compressor: Held<'a>, into: W) -> io::Result<Frames<'a, W>> {
        let context = compressor.context();
        context
            .reset(ResetDirective::SessionAndParameters)
            .map_err(failed)?;
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::ChecksumFlag(true),
        ] {
            context.set_parameter(parameter).map_err(failed)?;
        }
        compressor.contents.clear();
        compressor.contents.reserve_exact(FRAME_BYTES);
        compressor.frame.clear();
        compressor.frame.reserve_exact(compress_bound(FRAME_BYTES));
        Ok(Frames {
            compressor,
            has_begun: false,
            into,
        })
    }

    /// Makes the last frame and gives the inner writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        if !self.has_begun || !self.compressor.contents.is_empty() {
            self.write_frame()?;
        }
        Ok(self.into)
    }

    fn write_frame(&mut self) -> io::Result<()> {
        let Compressor {
            context,
            contents,
            frame,
        } = &mut *self.compressor;
        let context = context.get_or_insert_with(CCtx::create);
        context.compress2(frame, contents).map_err(failed)?;
        contents.clear();
        self.has_begun = true;
        self.into.write_all(frame)
    }
}

impl<W: Write> Write for Frames<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let contents = &mut self.compressor.contents;
        let room = FRAME_BYTES.saturating_sub(contents.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        contents.extend_from_slice(taken);
        if contents.len() >= FRAME_BYTES {
            self.write_frame()?;
        }
        Ok(taken.len())
    }

    /// A frame is made when it is full, or by [`Frames::finish`].
    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

fn failed(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::codec::Encoder;
    use crate::options::compression::Compression;

    /// Three frames' worth, of which the last is not full.
    fn contents() -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(5);
        let bytes = 2 * FRAME_BYTES + 70_000;
        (0..bytes).map(|_| random.u8(..16)).collect()
    }

    fn encode(level: i32, contents: &[u8]) -> Vec<u8> {
        let (mut compressor, bytes) = (Compressor::default(), contents.len() as u64);
        let compression = Compression::Zstd(level);
        let mut encoder = Encoder::new(compression, bytes, &mut compressor, Vec::new()).unwrap();
        encoder.write_all(contents).unwrap();
        encoder.finish().unwrap()
    }

    /// Of each frame that is stored: its header's flags, its window's logarithm, and the size of its contents.
    fn frames(mut stored: &[u8]) -> Vec<(u8, u8, u64)> {
        let mut frames = Vec::new();
        while !stored.is_empty() {
            let bytes = zstd::zstd_safe::find_frame_compressed_size(stored).unwrap();
            let size = zstd::zstd_safe::get_frame_content_size(stored)
                .unwrap()
                .unwrap();
            // RFC 8878, 3.1.1.1: behind the magic the descriptor, and the window's, unless all is one segment.
            let (flags, window) = (stored[4], 10 + (stored[5] >> 3));
            frames.push((flags, window, size));
            stored = &stored[bytes..];
        }
        frames
    }

    #[test]
    fn a_file_is_made_of_frames_each_with_its_size_and_a_checksum() {
        let contents = contents();
        for level in [1, 3, LEVEL_MAX] {
            let stored = encode(level, &contents);
            let frames = frames(&stored);
            let sizes: Vec<u64> = frames.iter().map(|(_, _, size)| *size).collect();
            let full = FRAME_BYTES as u64;
            assert_eq!(sizes, [full, full, 70_000], "level {level}");
            assert!(frames.iter().all(|(flags, ..)| flags & 4 != 0), "checksum");
            assert_eq!(zstd::decode_all(&stored[..]).unwrap(), contents);
        }
        assert_eq!(frames(&encode(1, b"")).len(), 1);
    }

    #[test]
    fn no_window_is_larger_than_a_frame_up_to_the_level_that_says_so() {
        let contents = contents();
        let streamed = |level| {
            let mut encoder = zstd::Encoder::new(Vec::new(), level).unwrap();
            encoder
                .set_pledged_src_size(Some(contents.len() as u64 * 4))
                .unwrap();
            encoder.write_all(&contents.repeat(4)).unwrap();
            1_usize << frames(&encoder.finish().unwrap())[0].1
        };
        assert!((1..=LEVEL_MAX).all(|level| streamed(level) <= FRAME_BYTES));
        assert!(streamed(LEVEL_MAX + 1) > FRAME_BYTES);
    }

    #[test]
    fn above_that_level_a_file_is_one_frame() {
        let contents = contents();
        let stored = encode(LEVEL_MAX + 1, &contents);
        assert_eq!(frames(&stored).len(), 1);
        assert_eq!(zstd::decode_all(&stored[..]).unwrap(), contents);
    }

    #[test]
    fn what_was_left_in_the_middle_of_one_file_is_not_in_the_next() {
        let mut compressor = Compressor::default();
        for level in [1, LEVEL_MAX + 1, 1] {
            let compression = Compression::Zstd(level);
            let mut left = Encoder::new(compression, 1000, &mut compressor, io::sink()).unwrap();
            left.write_all(b"left").unwrap();
            drop(left);
            let mut next =
                Encoder::new(Compression::Zstd(1), 4, &mut compressor, Vec::new()).unwrap();
            next.write_all(b"next").unwrap();
            let stored = next.finish().unwrap();
            assert_eq!(zstd::decode_all(&stored[..]).unwrap(), b"next");
        }
    }
}
