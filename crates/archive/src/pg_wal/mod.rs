//! The files on the server's side: the one that is offered, and what lies beside it in `pg_wal`.

pub(crate) mod folder;
pub(crate) mod pending;
pub(crate) mod source;
pub(crate) mod unarchived;
