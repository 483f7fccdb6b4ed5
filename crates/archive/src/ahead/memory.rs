//! What moving one file takes in memory, and so how many may be moved at once under `walden.memory_limit`.
//!
//! Guarantees: the figures are upper bounds for what this crate and its compressors allocate for one file,
//! whatever the segment size, since files stream through fixed buffers; tests compare them with the truth.
//! Not counted: thread stacks (some tens of kilobytes touched) and the kernel's page cache.

use crate::format::codec::CHUNK_BYTES;
use crate::options::compression::Compression;

const KB: u64 = 1024;
const MB: u64 = 1024 * KB;

/// Buffers that every file moved needs: a chunk, what is between compressor and file, and where contents have to be
/// compared one more for each side and one for what is stored.
const BUFFERS_BYTES: u64 = 4 * CHUNK_BYTES as u64 + 512 * KB;

/// What encrypting or decrypting takes: what is stored, buffered, and age's chunks of 64 kB, before and after.
const SEAL_BYTES: u64 = CHUNK_BYTES as u64 + 4 * 65 * KB;

/// A zstd decompressor's window for what [`Compression::Zstd`] writes up to level 19, with its own buffers.
/// Frames of higher levels have windows up to 128 MB.
const DECOMPRESSOR_BYTES: u64 = 9 * MB;

/// zstd compressors by level, with the contents and the frame that they work on at once, for files of any size: rounded up
/// from `ZSTD_sizeof_CCtx` after use, zstd 1.5.7.
const COMPRESSOR_MB: [u64; 22] = [
    5, 5, 6, 7, 8, 8, 10, 10, 15, 25, 25, 45, 37, 53, 69, 37, 57, 58, 90, 194, 386, 834,
];

/// Upper bound of what archiving one file takes.
pub(crate) fn archiving_bytes(compression: Compression) -> u64 {
    // A stored file of this name may have to be compared, however it was compressed.
    BUFFERS_BYTES
        + SEAL_BYTES
        + DECOMPRESSOR_BYTES
        + match compression {
            Compression::None => 0,
            Compression::Lz4 => 2 * MB,
            Compression::Zstd(level) => {
                let index = usize::try_from(level.max(1) - 1).unwrap_or(0);
                COMPRESSOR_MB.get(index).map_or(834 * MB, |mb| mb * MB)
            }
        }
}

/// Upper bound of what restoring one file takes, if Walden wrote it with a level up to 19.
pub(crate) fn restoring_bytes() -> u64 {
    BUFFERS_BYTES + SEAL_BYTES + DECOMPRESSOR_BYTES
}

/// How many files may be moved at once when each takes so much; at least one, or nothing would move at all.
pub(crate) fn jobs_within(memory_limit: u64, bytes_each: u64, jobs: usize) -> usize {
    let fitting = usize::try_from(memory_limit / bytes_each.max(1)).unwrap_or(usize::MAX);
    jobs.min(fitting).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::codec::Encoder;
    use crate::format::frames::{Compressor, LEVEL_MAX};
    use std::io::Write;

    #[test]
    fn a_compressor_never_takes_more_than_its_level_is_said_to() {
        let mut random = fastrand::Rng::with_seed(3);
        let block: Vec<u8> = (0..64 * 1024).map(|_| random.u8(..64)).collect();
        for level in 1..=22 {
            let (mut compressor, bytes) = (Compressor::default(), 1 << 30);
            let compression = Compression::Zstd(level);
            let mut encoder =
                Encoder::new(compression, bytes, &mut compressor, std::io::sink()).unwrap();
            // As much as a frame has: only then is it compressed.
            let times = if level <= LEVEL_MAX { 32 } else { 1 };
            encoder.write_all(&block.repeat(times)).unwrap();
            drop(encoder);
            let took = compressor.bytes();
            let said = archiving_bytes(compression) - archiving_bytes(Compression::None);
            assert!(took <= said, "level {level} takes {took}, not {said}");
            assert!(
                took + 2 * MB >= said,
                "level {level} takes {took}, said is {said}"
            );
        }
    }

    #[test]
    fn jobs_fit_into_the_limit_and_one_is_always_allowed() {
        let each = archiving_bytes(Compression::default());
        assert_eq!(jobs_within(128 * MB, each, 4), 4);
        assert_eq!(jobs_within(3 * each, each, 16), 3);
        assert_eq!(jobs_within(MB, each, 16), 1);
    }
}
