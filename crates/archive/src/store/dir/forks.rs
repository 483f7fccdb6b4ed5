//! Keeps tests that start processes apart from tests that rely on locks.
//!
//! Between its fork and its exec a child holds copies of all its parent's descriptors, and with them the locks on
//! the files behind. A test in which a lock must be free as soon as its file is closed would see it taken by
//! another test's child. (No process that archives starts others: neither the archiver nor the command.)

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static FORKS: RwLock<()> = RwLock::new(());

/// While this lives no test forks.
pub(crate) fn none() -> RwLockReadGuard<'static, ()> {
    FORKS.read().unwrap_or_else(PoisonError::into_inner)
}

/// To be held around starting a process: when that returns the child has let go.
pub(crate) fn one() -> RwLockWriteGuard<'static, ()> {
    FORKS.write().unwrap_or_else(PoisonError::into_inner)
}
