//! What stored bytes are: compressed, encrypted, checked, compared.

pub(crate) mod check;
pub(crate) mod codec;
pub(crate) mod compare;
mod delivery;
pub(crate) mod frames;
pub(crate) mod seal;
pub(crate) mod secret;
pub(crate) mod workspace;
