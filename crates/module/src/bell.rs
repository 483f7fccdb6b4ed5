//! A bell: rung by any thread, heard by the process's main thread, which waits for it on its latch.

use crate::Failure;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// An event descriptor. All clones are one bell. It stays rung until it is silenced.
#[derive(Clone, Debug)]
pub struct Bell {
    event: Arc<OwnedFd>,
}

impl Bell {
    /// A bell that has not been rung.
    ///
    /// # Errors
    /// When no event descriptor can be had.
    pub fn new() -> Result<Self, Failure> {
        let event =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| {
                Failure::new(format!("could not create an event descriptor: {error}"))
            })?;
        Ok(Self {
            event: Arc::new(event),
        })
    }

    /// Rings. May be called by any thread, at any time.
    pub fn ring(&self) {
        // It can fail only when it is rung already, as often as can be counted.
        let _ = rustix::io::write(&*self.event, &1_u64.to_ne_bytes());
    }

    /// Silences it. To be done before looking for what it was rung for, so that what comes later rings again.
    pub fn silence(&self) {
        let _ = rustix::io::read(&*self.event, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
