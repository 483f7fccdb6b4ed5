//! The boundary between the server and Rust: the only place of this crate with `unsafe` in it.
//!
//! What it guarantees (argued callback by callback in `SAFETY.md`):
//! * no panic leaves Rust: every entry runs its work under [`panics::caught`];
//! * an ERROR raised by a server function lands in [`guard`], never in or beyond a Rust frame that owns
//!   something;
//! * the server is called on the process's main thread only: the calls are methods of [`Process`], which
//!   cannot be sent to another thread;
//! * pointers from C are looked at once, in [`alleged`].
//!
//! What it leaves to others: what a module does with its call.

pub(crate) mod alleged;
pub mod archive;
pub mod backup;
mod export;
pub mod guard;
pub mod load;
pub(crate) mod panics;
pub mod process;
pub mod recovery;
pub mod requester;
pub mod settings;
pub mod shared;
pub mod signals;
pub mod speech;
pub mod worker;

pub use guard::{ServerError, guard};
pub use process::Process;
