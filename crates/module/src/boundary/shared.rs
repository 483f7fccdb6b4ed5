//! Memory that all processes of the server share, for what a module wants to show in sessions.
//!
//! The postmaster maps it while the library is preloaded, and every process that it starts afterwards inherits it, also
//! after a crash has restarted the others. It belongs to no file and asks nothing of the server, neither its shared memory
//! nor its locks (STYLE U3). Guarantees: words are atomic, so no access is undefined, whoever else writes. Leaves to the
//! module: what the words mean, and how a reader knows that it has seen a whole.

use super::load::Loading;
use crate::Failure;
use core::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// `WORDS` shared words, zero at first. A `static` of the module.
#[derive(Debug)]
pub struct SharedWords<const WORDS: usize> {
    place: AtomicPtr<AtomicU64>,
}

impl<const WORDS: usize> SharedWords<WORDS> {
    /// Not there yet.
    #[must_use]
    #[allow(clippy::new_without_default)] // it is a static
    pub const fn new() -> Self {
        Self {
            place: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Makes the words, in the process that preloads the library; does nothing elsewhere, where no other process would see
    /// them.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn create(&self, loading: Loading) -> Result<(), Failure> {
        if !loading.preloading() || !self.place.load(Ordering::Relaxed).is_null() {
            return Ok(());
        }
        let bytes = WORDS * size_of::<AtomicU64>();
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping at an address of the kernel's choice.
        let place = unsafe { libc::mmap(ptr::null_mut(), bytes, access, kind, -1, 0) };
        if place == libc::MAP_FAILED {
            let cause = std::io::Error::last_os_error();
            return Err(Failure::new(format!(
                "could not map {bytes} bytes of shared memory: {cause}"
            )));
        }
        self.place.store(place.cast(), Ordering::Relaxed);
        Ok(())
    }

    /// The words; `None` where the library was not preloaded.
    #[must_use]
    pub fn get(&self) -> Option<&'static [AtomicU64]> {
        let place = self.place.load(Ordering::Relaxed);
        if place.is_null() {
            return None;
        }
        // SAFETY: mapped by `create` with so many words, aligned to a page, zeroed by the kernel, and never unmapped.
        Some(unsafe { core::slice::from_raw_parts(place, WORDS) })
    }
}
