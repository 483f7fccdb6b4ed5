//! The bytes of one object, as they come.
//!
//! Guarantees: at most [`PIECES_AHEAD`] pieces are in memory; an answer that breaks off, or falls silent, is an error
//! and never the end of the object.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::asking::SILENCE_MAX;
use super::driver::Driver;
use super::failure::Failure;

/// How many pieces, of up to some hundred kilobytes, wait to be read: enough for neither side to wait for a handover.
const PIECES_AHEAD: usize = 4;

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
            loop {
                let piece = match timeout(SILENCE_MAX, stream.next()).await {
                    Ok(None) => return,
                    Ok(Some(Ok(piece))) => Ok(piece),
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
