//! The two engines, which move files before they are asked for, and the threads that they share.

pub(crate) mod archiving;
mod memory;
pub(crate) mod pool;
pub(crate) mod restoring;
