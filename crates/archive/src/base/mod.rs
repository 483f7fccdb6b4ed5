//! What everything else may use: values and small helpers that know nothing of archives.

pub(crate) mod clock;
pub(crate) mod digest;
pub(crate) mod printable;
pub(crate) mod regular;
pub(crate) mod small_file;
pub(crate) mod spawn;
pub(crate) mod time;
