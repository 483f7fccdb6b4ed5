//! The conversation between Walden's `restore_command` client and its recovery worker.
//!
//! The server runs a program for every file it wants restored. That program is the client: it
//! connects to the worker's socket, sends one [`Request`], waits for one [`Answer`] and exits. Both
//! sides are in this crate, so that a frame is defined once.
//!
//! Guarantees: decoding never panics, whatever bytes arrive; a frame is one message, whole and bounded
//! ([`FRAME_BYTES_MAX`]); every read, write, connect and accept has a deadline; a client and a worker
//! of different versions say so by name and never misread each other; only the server's own
//! user and root are served; no failure looks like [`Answer::Absent`].
//!
//! Left to others: what a request means, threads, signals, logging and exit statuses.

mod ask;
mod common;
mod frame;
mod listener;
mod packet;

pub use ask::{ANSWER_WAIT_MAX, ASK_AGAIN_COUNT_MAX, AskError, WORKER_START_WAIT_MAX, ask};
pub use common::{OWN_LIBRARY, is_own_library};
pub use frame::{
    Answer, FILE_BYTES_MAX, FRAME_BYTES_MAX, FrameError, PATH_BYTES_MAX, PROTOCOL_VERSION, Request,
};
pub use listener::{
    ANSWER_WRITE_WAIT_MAX, Accepted, Connection, Listener, REQUEST_READ_WAIT_MAX, ServeError, Stop,
};

/// Where the worker listens, relative to the data directory.
///
/// The server runs its recovery commands with the data directory as current directory
/// (`ChangeToDataDir`, `miscinit.c`, 15 to 18), so the path stays short wherever that directory is: a
/// socket's path may have 107 bytes only. What lies in `pg_stat_tmp` is left out by `pg_basebackup`
/// and `pg_rewind` (`excludeDirContents` in `basebackup.c` and `filemap.c`, 15 to 18), so a copied
/// data directory never brings another server's socket along.
pub const SOCKET_PATH: &str = "pg_stat_tmp/walden_recovery.sock";
