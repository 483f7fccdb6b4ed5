//! Where archives lie: places for raw objects under flat keys. The waist is what any such place offers; a directory and the
//! object stores are two of them, memory is the model, and faults can be put around any.
//!
//! Knows nothing of WAL but the names of its files, and nothing of what bytes mean.

pub(crate) mod cloud;
pub(crate) mod dir;
pub(crate) mod faulty;
pub(crate) mod form;
pub(crate) mod key;
pub(crate) mod memory;
pub(crate) mod metered;
pub(crate) mod retry;
pub(crate) mod waist;
