//! The threads that read.
//!
//! Guarantees that the caller's thread works, too, so that no lack of threads keeps anything from being read.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// The most readers: more are of no use to any archive, and each takes some megabytes.
pub const READERS_MAX: usize = 256;

/// How many readers there are if so many were asked for.
pub(super) fn readers(asked_for: usize) -> usize {
    let readers = match asked_for {
        0 => thread::available_parallelism().map_or(1, usize::from),
        some => some,
    };
    readers.min(READERS_MAX)
}

/// Does the same on so many threads, the caller's among them.
pub(super) fn side_by_side(threads: usize, work: &(dyn Fn() + Sync)) {
    thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads)
            .map(|_| thread::Builder::new().spawn_scoped(scope, work))
            .collect();
        work();
        // Fewer threads only take longer.
        drop(helpers);
    });
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
