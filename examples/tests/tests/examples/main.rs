//! The examples, and the kit they are written with, on real servers.
//!
//! One file for each example, and one for the kit's settings; each test has a server, and an archive, of its
//! own.

mod backup_to_directory;
mod basic_archive;
mod c_recovery;
mod heartbeat;
mod settings;
mod thirty_lines;
