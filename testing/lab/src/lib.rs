//! Throwaway PostgreSQL servers: for the end-to-end tests, the conformance suite and the demonstration.
//!
//! Guarantees that each scenario has a directory of its own which is gone afterwards, that every
//! server it started is stopped by its own process id even when a scenario fails or panics, that no
//! wait is without a deadline, and that a failure comes with the tails of the servers' logs.
//! Leaves to its users what to expect of a server and of the modules in it. See [`Installation`] for
//! where the server's programs and the libraries are looked for.
//!
//! Run by root, servers and their tools run as the operating system's user `postgres`, because a
//! server refuses to run as root; run by another user, everything runs as that user.

mod archive_dir;
mod backup;
mod cluster;
mod contents;
mod control;
mod extension;
mod failing_storage;
mod installation;
mod lab;
mod ledger;
mod log;
mod process;
mod program;
mod settings;
mod small_disk;
pub mod stores;
mod timing;
mod wait;

pub use archive_dir::{ArchiveDir, wal_file};
pub use cluster::{Cluster, Shutdown};
pub use contents::{Contents, TableContents, contents_through};
pub use failing_storage::{Conditions, FailingStorage};
pub use installation::Installation;
pub use lab::{Lab, scenario, seed};
pub use ledger::Lost;
pub use log::{Entry, Mark};
pub use process::{Process, descendants};
pub use program::{Outcome, run, run_for};
pub use settings::Settings;
pub use small_disk::SmallDisk;
pub use timing::timed;
pub use wait::{DEADLINE, wait_for, wait_until};
