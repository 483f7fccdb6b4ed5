//! The built command, run as people and servers run it, in throwaway directories; each file has what it says.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    unreachable_pub
)]

mod check;
mod cleanup;
mod client;
mod common;
mod encryption;
mod exit_status;
mod file_mode;
mod list_and_check;
mod odd_files;
mod progress;
mod restore;
mod verify;
