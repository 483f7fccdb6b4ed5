//! What is done to an archive as a whole: binding it to a system, listing it, cleaning it up.

pub(crate) mod claim;
pub(crate) mod clean_up;
pub(crate) mod list;
