//! What a store delivers of an object, watched, so that a failed read can be told from a damaged object.
//!
//! Guarantees: a store that delivers less than it says is stored is [`crate::ErrorKind::Unavailable`]; bytes that came
//! whole and make no sense are [`crate::ErrorKind::Damaged`]. Left to others: making sense of them (`codec.rs`).

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, cause_of};
use crate::store::waist::Object;

/// What became of the stored bytes on their way, seen from both sides of the decoder.
pub(crate) struct Delivery {
    stored_bytes: u64,
    bytes: AtomicU64,
    failed: AtomicBool,
    ended_early: AtomicBool,
}

impl Delivery {
    fn left(&self) -> u64 {
        let delivered = self.bytes.load(Ordering::Acquire);
        self.stored_bytes.saturating_sub(delivered)
    }

    /// Whether the store has delivered so far what it said.
    pub(crate) fn is_sound(&self) -> bool {
        !self.ended_early.load(Ordering::Acquire) && !self.failed.load(Ordering::Acquire)
    }

    /// What a failed read of a stored object means.
    pub(crate) fn failure(&self, cause: io::Error, shown: &str) -> Error {
        if self.ended_early.load(Ordering::Acquire) {
            return Error::unavailable(format!(
                "could not read archive file \"{shown}\": it ended after {} of {} bytes",
                self.bytes.load(Ordering::Acquire),
                self.stored_bytes
            ));
        }
        if self.failed.load(Ordering::Acquire) {
            return Error::io(format!("could not read archive file \"{shown}\""), cause);
        }
        Error::damaged(format!(
            "archive file \"{shown}\" is damaged or cut short: {}",
            cause_of(&cause)
        ))
        .with_hint("A copy into the archive may have been interrupted, or may still be running.")
    }
}

/// The store's reader, watched: it must deliver as many bytes as are stored, and no more are taken.
pub(crate) struct Delivered {
    inner: Box<dyn Read + Send>,
    delivery: Arc<Delivery>,
}

impl Delivered {
    /// An object's bytes, and what is learnt of them while they are read.
    pub(crate) fn of(object: Object) -> (Delivered, Arc<Delivery>) {
        let delivery = Arc::new(Delivery {
            stored_bytes: object.bytes,
            bytes: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            ended_early: AtomicBool::new(false),
        });
        let delivered = Delivered {
            inner: object.reader,
            delivery: Arc::clone(&delivery),
        };
        (delivered, delivery)
    }
}

impl Read for Delivered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.delivery.left();
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
