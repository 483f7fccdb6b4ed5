//! The two engines, which move files before they are asked for, and the pool and the table of jobs that both have.

pub(crate) mod archiving;
mod jobs;
mod memory;
pub(crate) mod pool;
pub(crate) mod restoring;
