//! A directory as a store, and the one file that changes names in file systems.

pub(crate) mod directory;
pub(crate) mod durable;
pub(crate) mod early_sync;
mod early_writes;
#[cfg(test)]
pub(crate) mod forks;
pub(crate) mod store;
