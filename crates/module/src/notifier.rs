//! A notifier: any thread notifies, and the process's main thread, which waits for that on its latch, wakes.

use crate::Failure;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// An event descriptor. All clones are one notifier. It stays notified until it is reset.
#[derive(Clone, Debug)]
pub struct Notifier {
    event: Arc<OwnedFd>,
}

impl Notifier {
    /// One that has not been notified.
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

    /// Notifies. May be called by any thread, at any time.
    pub fn notify(&self) {
        // It can fail only when it is notified already, as often as can be counted.
        let _ = rustix::io::write(&*self.event, &1_u64.to_ne_bytes());
    }

    /// Resets it. To be done before looking for what it was notified of, so that what comes later notifies again.
    pub fn reset(&self) {
        let _ = rustix::io::read(&*self.event, &mut [0; 8]);
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
