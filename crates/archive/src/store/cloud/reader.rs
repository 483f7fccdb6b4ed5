//! The bytes of one object, as they come.
//!
//! Guarantees: at most [`BYTES_IN_MEMORY`] are in memory; an answer that breaks off, falls silent or only trickles is an
//! error and never the end of the object.

use std::io::{self, Read};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::asking::SILENCE_MAX;
use super::driver::Driver;
use super::failure::Failure;

/// How many pieces, of up to some hundred kilobytes, wait to be read: enough for neither side to wait for a handover.
const PIECES_AHEAD: usize = 4;

/// The most that an object takes in memory on its way: the pieces that wait, the one that is being handed over, the one that
/// is being read, and what the HTTP library reads into. It has 400 kB for that, and makes no piece larger.
pub(super) const BYTES_IN_MEMORY: u64 = (PIECES_AHEAD as u64 + 3) * 408 * 1024;

/// The slowest that an object may come, in bytes a second, beyond [`SILENCE_MAX`] in all: slower than any line that WAL can
/// be restored over, so that a store which sends a byte now and then is given up. Time between two reads does not count.
const SLOWEST: u64 = 16 * 1024;

/// An object that is being fetched.
pub(super) struct Reader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    now: Bytes,
}

impl Reader {
    /// Has the driver fetch what the stream gives.
    pub(super) fn start(
        driver: &Driver,
        mut stream: BoxStream<'static, object_store::Result<Bytes>>,
    ) -> Reader {
        let (tell, pieces) = mpsc::channel(PIECES_AHEAD);
        driver.start_work(async move {
            let mut pace = Pace::default();
            loop {
                let begun = Instant::now();
                let piece = match timeout(SILENCE_MAX, stream.next()).await {
                    Ok(None) => return,
                    Ok(Some(Ok(piece))) => {
                        pace.goes_on(begun.elapsed(), piece.len()).map(|()| piece)
                    }
                    Ok(Some(Err(error))) => Err(Failure::of(&error)),
                    Err(_) => Err(Failure::silence(SILENCE_MAX.as_secs())),
                };
                let ends = piece.is_err();
                let piece = piece.map_err(|failure| io::Error::other(failure.to_string()));
                if tell.send(piece).await.is_err() || ends {
                    return;
                }
            }
        });
        Reader {
            pieces,
            now: Bytes::new(),
        }
    }
}

/// How an object has come so far.
#[derive(Default)]
struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// So many bytes more have come, after so long. Fails when that is too slow by now.
    fn goes_on(&mut self, waited: Duration, bytes: usize) -> Result<(), Failure> {
        self.waited += waited;
        self.bytes += bytes as u64;
        if self.waited > SILENCE_MAX + Duration::from_secs(self.bytes / SLOWEST) {
            Err(Failure::trickle(self.bytes, self.waited.as_secs()))
        } else {
            Ok(())
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.now = piece?,
            }
        }
        let bytes = self.now.len().min(buffer.len());
        if let Some(start) = buffer.get_mut(..bytes) {
            self.now.copy_to_slice(start);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of pieces of so many bytes, one every so many seconds: the first that is not taken, of ten thousand.
    fn given_up_at(bytes: usize, seconds: u64) -> Option<(u64, String)> {
        let mut pace = Pace::default();
        (1..=10_000).find_map(|number| {
            let failure = pace.goes_on(Duration::from_secs(seconds), bytes).err()?;
            Some((number, failure.to_string()))
        })
    }

    #[test]
    fn a_slow_object_is_read_and_one_that_trickles_is_given_up() {
        assert_eq!(given_up_at(128 * 1024, 8), None);
        assert_eq!(given_up_at(16 * 1024, 1), None);
        let (number, told) = given_up_at(1024, 7).unwrap();
        assert_eq!((number, told.as_str()), (3, "only 3072 bytes within 21 s"));
        assert!(given_up_at(8 * 1024, 1).is_some());
    }
}
