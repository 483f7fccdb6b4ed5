//! What a server in recovery is told about a file that it asks for: restored, absent, or could not tell.
//!
//! The server takes "absent" for the end of WAL, or of timelines, and promotes; so this crate decides who may be told that. The
//! archive finds evidence (`archive`, `get/absence.rs`); here it is weighed with what else decides: who asks, in which phase of
//! recovery, for which timeline, what a timeline history file is asked for, and what the server itself has in `pg_wal`.
//! [`table`] is the whole of it, as functions of values; a [`Judge`] gathers the values.
//!
//! Guarantees: the same question gets the same answer in the recovery worker and in the command, which is the module run
//! in-process. Calls no server, starts no thread, logs nothing. Left to the hosts: retries, deadlines, exit statuses.

mod control;
mod direct;
mod judge;
mod line;
mod own;
mod phase;
mod server;
pub mod table;
mod words;

#[cfg(test)]
mod tests;

pub use control::{Control, secret_of, system_of};
pub use direct::restore;
pub use judge::{Judge, Question};
pub use own::{Own, own};
pub use phase::Phase;
pub use server::{Asker, Server, TargetTimeline, is_recoverys_own, keeps_history};
