//! Bringing a file to disk while it is written, for others who use the same disk.
//!
//! A file that is synced when it is whole sends all its bytes to the disk at once, and a process that syncs something small
//! meanwhile waits behind them: the startup process, which syncs `pg_control` as it replays
//! (`UpdateMinRecoveryPoint`, xlog.c, 15 to 18) and each segment that it takes over. Piece by piece the waits are short.
//! Promises nothing about durability.

use std::time::{Duration, Instant};

use crate::error::Error;

/// A sync follows every so many bytes. Half or twice as many were no better in the bench; sixteen times as many
/// doubled what the startup process waits for a segment.
const PIECE_BYTES: usize = 1 << 20;

/// Where a piece takes longer, syncs are what the disk is slow at, and the file gets one for the rest of it.
const PIECE_WAIT_MAX: Duration = Duration::from_millis(10);

/// When the bytes of one file go to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EarlySync {
    /// When its reader says so.
    Off,
    /// While it is written; so many bytes have not been synced yet.
    Pieces { written: usize },
    /// Once, when the file is complete.
    Whole,
}

impl EarlySync {
    /// Syncs piece by piece, from the beginning.
    pub(crate) const ON: EarlySync = EarlySync::Pieces { written: 0 };

    /// Notes that more bytes were written, and syncs if it is time.
    pub(crate) fn wrote(
        &mut self,
        bytes: usize,
        sync: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let EarlySync::Pieces { written } = self else {
            return Ok(());
        };
        *written += bytes;
        if *written < PIECE_BYTES {
            return Ok(());
        }
        *written = 0;
        let begun = Instant::now();
        sync()?;
        if begun.elapsed() > PIECE_WAIT_MAX {
            *self = EarlySync::Whole;
        }
        Ok(())
    }

    /// Syncs the rest: the file is complete.
    pub(crate) fn finish(self, sync: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        match self {
            EarlySync::Off | EarlySync::Pieces { written: 0 } => Ok(()),
            EarlySync::Pieces { .. } | EarlySync::Whole => sync(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many syncs a file of so many pieces gets, of which each takes this long.
    fn syncs(mut early: EarlySync, pieces: usize, rest: usize, each: Duration) -> usize {
        let mut count = 0;
        let mut sync = || {
            count += 1;
            let begun = Instant::now();
            while begun.elapsed() < each {
                std::hint::spin_loop();
            }
            Ok(())
        };
        for _ in 0..pieces * 4 {
            early.wrote(PIECE_BYTES / 4, &mut sync).unwrap();
        }
        early.wrote(rest, &mut sync).unwrap();
        early.finish(&mut sync).unwrap();
        count
    }

    #[test]
    fn every_piece_is_synced_and_nothing_twice() {
        let at_once = Duration::ZERO;
        assert_eq!(syncs(EarlySync::Off, 16, 1, at_once), 0);
        assert_eq!(syncs(EarlySync::ON, 0, 1, at_once), 1);
        // A machine that stops for a moment is a slow disk.
        let quick =
            |pieces, rest| (0..20).map(move |_| syncs(EarlySync::ON, pieces, rest, at_once));
        assert_eq!(quick(16, 0).max(), Some(16));
        assert_eq!(quick(16, 1).max(), Some(17));
    }

    #[test]
    fn a_slow_disk_gets_one_sync_for_the_rest() {
        let slow = PIECE_WAIT_MAX + Duration::from_millis(1);
        assert_eq!(syncs(EarlySync::ON, 16, 0, slow), 2);
    }

    #[test]
    fn a_sync_that_fails_is_a_failure() {
        let fails = || Err(Error::unavailable("no"));
        let mut early = EarlySync::ON;
        assert!(early.wrote(PIECE_BYTES, fails).is_err());
        let mut early = EarlySync::ON;
        early.wrote(1, fails).unwrap();
        assert!(early.finish(fails).is_err());
    }
}
