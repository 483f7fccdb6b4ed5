//! `make bench`: Walden beside its peers, on real servers, every figure side by side in one run.
//!
//! Guarantees that contenders take turns (the first run of all, the second of all, …), so that whatever else
//! the machine does hits all of them; that a figure counts only if the work was seen to be done; and that
//! every single measurement is kept, with the machine's description, in `bench/results`. What a part measures
//! and how stands at the head of its file. Leaves building, and fetching peers, to the Makefile.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tables and progress are what this program is for"
)]

mod acknowledge;
mod backlog;
mod bucket;
mod contenders;
mod delay;
mod drain;
mod fetchers;
mod goals;
mod limit;
mod machine;
mod many;
mod memory;
mod page;
mod part;
mod peers;
mod plan;
mod profile;
mod records;
mod recovery;
mod results;
mod s3_drain;
mod s3_recovery;
mod s3_tables;
mod stages;
mod steady;
mod tables;
mod usage;
mod wait_cost;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::plan::{Command, Plan};

fn main() -> ExitCode {
    let done = match Plan::parse().command {
        Command::Run(run) => part::run_all(&run),
        Command::Page(page) => page::write(&page),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
