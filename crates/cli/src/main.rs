//! The `walden` command: the same engine without a server, and the recovery worker's client.
//!
//! Guarantees: the program leaves through `exit.rs` alone, whatever happens, so a usage error or a panic
//! is never taken for the end of WAL; as the worker's client it does next to nothing before it asks.
//! Left to others: what each command does is in the file of its name, archives are in `archive`.

#[cfg(test)]
mod again;
mod archive_facts;
mod archive_file;
mod backups;
mod caller;
mod check;
mod check_encryption;
mod check_line;
mod check_living;
mod check_names;
mod check_server;
mod check_store;
mod check_wal;
mod cleanup;
mod client;
mod exit;
mod file_mode;
mod flags;
mod list;
mod living;
mod map;
mod metrics;
mod progress;
mod recovery_end;
mod restore;
mod say;
mod settings;
mod status_screen;
mod survey;
mod targets;
mod verify;
mod verify_backups;
mod within;

use exit::Outcome;
use flags::{Flags, Job};
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    exit::leave(&args, run)
}

fn run(args: &[OsString]) -> Outcome {
    if let Some(call) = client::Call::from_args(args) {
        return client::run(&call);
    }
    let flags = match Flags::read(args) {
        Ok(flags) => flags,
        Err(error) => return flags::explain(&error),
    };
    if let Some(call) = client::Call::of(&flags.job) {
        return client::run(&call);
    }
    match &flags.job {
        Job::Archive(job) => archive_file::run(job, &flags.global),
        Job::Restore(job) => restore::run(job, &flags.global),
        Job::ArchiveCleanup(job) => cleanup::run(job, &flags.global),
        Job::RecoveryEnd(_) => recovery_end::run(&flags.global),
        Job::List(job) => list::run(job, &flags.global),
        Job::Backups(job) => backups::run(job, &flags.global),
        Job::Verify(job) => verify::run(job, &flags.global),
        Job::Check(job) => check::run(job, &flags.global),
        Job::Targets(job) => targets::run(job, &flags.global),
        Job::Map(job) => map::run(job, &flags.global),
        Job::Status(job) => status_screen::run(job, &flags.global),
        Job::Metrics(job) => metrics::run(job, &flags.global),
    }
}
