//! Has the disk begin with a file while it is still being written.
//!
//! Without it a file's bytes wait in memory for its sync, and the disk waits for them. Promises nothing: the sync
//! makes the file durable, and finds less to do.

use std::fs::File;
use std::num::NonZeroU64;

use rustix::fs::{Advice, fadvise};

/// As much as one request to the disk is worth. An eighth of it made no difference.
const PIECE_BYTES: u64 = 2 << 20;

/// How much of a file has been written, and of how much of it the disk has been told.
#[derive(Debug, Default)]
pub(crate) struct EarlyWrites {
    written: u64,
    told: u64,
}

impl EarlyWrites {
    /// More bytes were written at the end of the file.
    pub(crate) fn wrote(&mut self, file: &File, bytes: usize) {
        if let Some((from, length)) = self.due(bytes as u64) {
            // Linux begins to write what is dirty and does not wait (posix_fadvise(2), mm/fadvise.c). Whatever it
            // answers, the sync comes.
            let _ = fadvise(file, from, NonZeroU64::new(length), Advice::DontNeed);
        }
    }

    /// The part of the file that is to be told of now: offset and length.
    fn due(&mut self, bytes: u64) -> Option<(u64, u64)> {
        self.written += bytes;
        let whole = self.written - self.written % PIECE_BYTES;
        let from = std::mem::replace(&mut self.told, whole);
        (whole > from).then(|| (from, whole - from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_whole_piece_is_told_of_once_and_in_order() {
        let mut early = EarlyWrites::default();
        assert_eq!(early.due(PIECE_BYTES - 1), None);
        assert_eq!(early.due(1), Some((0, PIECE_BYTES)));
        assert_eq!(early.due(0), None);
        assert_eq!(
            early.due(3 * PIECE_BYTES + 5),
            Some((PIECE_BYTES, 3 * PIECE_BYTES))
        );
        assert_eq!(early.due(PIECE_BYTES - 6), None);
        assert_eq!(early.due(1), Some((4 * PIECE_BYTES, PIECE_BYTES)));
    }
}
