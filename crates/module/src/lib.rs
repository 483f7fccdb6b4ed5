//! Write PostgreSQL archive and recovery modules in safe Rust.
//!
//! A module is a type that implements [`Module`] and the jobs it does ([`ArchiveModule`], [`RestoreModule`],
//! [`ArchiveCleanupModule`], [`RecoveryEndModule`]), exported from a `cdylib` by [`export!`]:
//!
//! ```
//! use module::{Archived, Failure, Module, Process, WalFileName};
//! use std::path::Path;
//!
//! struct Keeper;
//!
//! impl Module for Keeper {
//!     fn startup(_: Process) -> Result<Self, Failure> {
//!         Ok(Keeper)
//!     }
//! }
//!
//! impl module::ArchiveModule for Keeper {
//!     fn archive_file(
//!         &mut self, _: Process, file: &WalFileName, _path: &Path,
//!     ) -> Result<Archived, Failure> {
//!         Err(Failure::new(format!("could not archive file \"{file}\": this example keeps nothing")))
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! What the kit takes care of: both archive dialects (15; 16 and later), the magic block of the server that
//! loads the library, panics (a failure, never a dead server), ERROR raised by server functions (a Rust
//! error), and waiting on the process latch ([`Task`]).  What it leaves to the module: the promises of its
//! job, above all to answer [`Archived::Durably`] only for bytes that survive a power cut.

use std::path::Path;

pub mod boundary;
mod report;
pub mod task;

pub use boundary::Process;
pub use boundary::guard::ServerError;
pub use boundary::process::Woken;
pub use report::{Failure, Level, Report};
pub use task::{Task, Waited};
pub use wal::{KeepFrom, WalFileName};

/// What every module has: a beginning and an end.
pub trait Module: Sized + 'static {
    /// Begins, in the process that does the work.  May be called again after a failure or a panic.
    ///
    /// # Errors
    /// Why it could not begin; the job at hand then fails with it.
    fn startup(process: Process) -> Result<Self, Failure>;

    /// Ends, when the process leaves in an orderly way.  Not called on a crash or an immediate shutdown.
    fn shutdown(self, _process: Process) {}
}

/// Archives finished WAL files; runs in the archiver.
pub trait ArchiveModule: Module {
    /// Whether files can be taken now.  Asked before every attempt on every file (pgarch.c,
    /// `pgarch_ArchiverCopyLoop`, 15 to 18); when not, nothing is counted as failed and the server asks again.
    ///
    /// # Errors
    /// What is missing; shown to the administrator.
    fn check_configured(&mut self, _process: Process) -> Result<(), Failure> {
        Ok(())
    }

    /// One attempt at one file.  `path` is relative to the data directory, the working directory.
    ///
    /// # Errors
    /// Why not; reported as WARNING, counted in `pg_stat_archiver`, and tried again by the server.
    fn archive_file(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
    ) -> Result<Archived, Failure>;
}

/// The answer of an archive module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archived {
    /// The file is archived and survives a power cut: the server may recycle it.
    Durably,
    /// Not yet, for a reason that is no failure and has been reported if need be; the server tries again.
    NotYet,
}

/// Restores files from the archive; runs in the recovery worker.
pub trait RestoreModule: Module {
    /// Creates `path` with the contents of `file`.  `last_restartpoint` is the oldest file recovery may still
    /// need.
    ///
    /// # Errors
    /// Whatever keeps the module from telling: never taken for the end of WAL.
    fn restore(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
        last_restartpoint: &KeepFrom,
    ) -> Result<Restored, Failure>;
}

/// The answer of a restore module that could tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The file is there, complete.
    Yes,
    /// The archive says that it has no such file; this may end recovery.
    NotInArchive,
}

/// Removes what recovery no longer needs; runs in the recovery worker, asked by the checkpointer.
pub trait ArchiveCleanupModule: Module {
    /// Files before `keep` may go.
    ///
    /// # Errors
    /// Why not; a WARNING in the log, and the next restartpoint asks again.
    fn archive_cleanup(&mut self, process: Process, keep: &KeepFrom) -> Result<(), Failure>;
}

/// Is told when recovery ends; runs in the recovery worker, asked by the startup process.
pub trait RecoveryEndModule: Module {
    /// Recovery has ended; the server opens for writing next.
    ///
    /// # Errors
    /// What failed; a WARNING in the log, recovery ends all the same.
    fn recovery_end(
        &mut self,
        process: Process,
        last_restartpoint: &KeepFrom,
    ) -> Result<(), Failure>;
}
