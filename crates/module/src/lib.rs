//! Write PostgreSQL archive and recovery modules, and base backup targets, in safe Rust.
//!
//! A module is a plain library crate, a `cdylib`: a type that implements [`Module`] and the jobs it does
//! ([`ArchiveModule`], [`RestoreModule`], [`ArchiveCleanupModule`], [`RecoveryEndModule`]), its parameters as
//! statics ([`settings`]), and one line that exports it all ([`export!`]). This is a whole archive module:
//!
//! ```no_run
//! //! A whole archive module: copies finished WAL files into a directory, and never overwrites one.
//!
//! use module::settings::{About, StringSetting};
//! use module::{ArchiveModule, Archived, Failure, Module, OrFail, Process, WalFileName};
//! use std::fs::{self, File};
//! use std::{io, path::Path};
//!
//! static DIRECTORY: StringSetting = StringSetting::new(
//!     About::reload(c"thirty_lines.directory", c"Sets where WAL files are kept."),
//!     c"",
//! );
//!
//! /// What the module keeps from its startup to its shutdown.
//! struct ThirtyLines {
//!     archived: u64,
//! }
//!
//! impl Module for ThirtyLines {
//!     fn startup(_: Process) -> Result<Self, Failure> {
//!         Ok(ThirtyLines { archived: 0 })
//!     }
//! }
//!
//! impl ArchiveModule for ThirtyLines {
//!     fn check_configured(&mut self, process: Process) -> Result<(), Failure> {
//!         match DIRECTORY.get(process).as_str() {
//!             "" => Err(Failure::new("\"thirty_lines.directory\" is not set")),
//!             _ => Ok(()),
//!         }
//!     }
//!
//!     fn archive_file(
//!         &mut self,
//!         process: Process,
//!         file: &WalFileName,
//!         path: &Path,
//!     ) -> Result<Archived, Failure> {
//!         let directory = DIRECTORY.get(process);
//!         keep(path, Path::new(&directory), &file.to_string())
//!             .or_fail(format_args!("could not keep \"{file}\" in \"{directory}\""))?;
//!         self.archived += 1;
//!         Ok(Archived::Durably) // the server may recycle the file from here on
//!     }
//! }
//!
//! fn keep(path: &Path, directory: &Path, name: &str) -> io::Result<()> {
//!     let (staged, kept) = (directory.join("staged"), directory.join(name));
//!     // What a killed attempt left may be linked already, so it is removed and not written into.
//!     let _ = fs::remove_file(&staged);
//!     fs::copy(path, &staged)?;
//!     sync(&staged)?;
//!     // Unlike a rename, a link replaces nothing. The same file may come again; then it has to be equal.
//!     match fs::hard_link(&staged, &kept) {
//!         Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
//!         Err(error) if fs::read(&kept)? != fs::read(&staged)? => return Err(error),
//!         _ => {}
//!     }
//!     fs::remove_file(&staged)?;
//!     sync(&kept)?;
//!     sync(directory)
//! }
//!
//! fn sync(path: &Path) -> io::Result<()> {
//!     File::open(path)?.sync_all()
//! }
//!
//! module::export! { settings: [DIRECTORY], archive: ThirtyLines, }
//! # fn main() {}
//! ```
//!
//! Built, it is loaded by 15, 16, 17, 18 and 19 alike: copy `libthirty_lines.so` to `thirty_lines.so` in the
//! directory that `pg_config --pkglibdir` prints, and set `archive_library = 'thirty_lines'`. The same text
//! is `examples/thirty_lines`, which the tests run on real servers.
//!
//! # What the kit takes care of
//!
//! * both dialects of the archive module interface (15; 16 and later) and the magic block of the server that
//!   loads the library: one file for all supported majors;
//! * panics: a failure that is reported, never a dead server; the module's state, which may be half changed,
//!   is dropped and made afresh;
//! * ERROR raised by server functions: a Rust error, after which the process is in order;
//! * parameters: defined, checked and shown by the server;
//! * waiting: on the process latch, with a deadline, serving interrupts ([`Process::wait`],
//!   [`Process::idle`]), or for slow work on a thread ([`Task`]);
//! * base backups that are whole or none ([`BackupTarget`]): forwarding, interrupts, and the server's own verdict;
//! * background workers ([`Loading::register_worker`]);
//! * what sessions are shown: memory that all processes share ([`SharedWords`]), and parameters whose value is made when
//!   they are shown ([`settings::ShownSetting`]).
//!
//! What it leaves to the module: the promises of its job, above all to answer [`Archived::Durably`] only for
//! bytes that survive a power cut, and [`Restored::NotInArchive`] only if the archive says so.
//!
//! # Where a module's code runs
//!
//! | what | in which process | when |
//! |---|---|---|
//! | `load` of [`export!`] | postmaster if preloaded, else the loading process | once, after the parameters are defined |
//! | [`Module::startup`] | archiver, or recovery worker | before the first job, and again after a failure or panic |
//! | [`ArchiveModule`] | archiver | for each finished WAL file |
//! | [`RestoreModule`] and the others | Walden's recovery worker | when recovery asks |
//! | [`BackupTarget`], [`BackupSink`] | the walsender that was asked for a backup | during the backup |
//! | a worker's main function | a process of its own | from the server's start to its end |
//! | [`Module::shutdown`] | where it was started | on an orderly exit |
//!
//! Everything of the server is reached through [`Process`], which every entry is given and which cannot leave
//! its thread. Threads of the module's own are started in the process that uses them (never in `load`) and
//! by [`Task`], which blocks their signals.

use std::path::Path;

mod backup;
pub mod boundary;
#[doc(hidden)]
mod notifier;
mod report;
pub mod task;

pub use backup::{BackupContent, BackupEnd, BackupFile, BackupSink, BackupStart, BackupTarget};
pub use boundary::Process;
pub use boundary::guard::{ServerError, guard};
pub use boundary::load::{Loading, library_path};
pub use boundary::process::Woken;
pub use boundary::requester::Requester;
pub use boundary::settings;
pub use boundary::shared::SharedWords;
pub use boundary::signals::spawn_with_signals_blocked;
pub use boundary::worker::Registration;
pub use notifier::Notifier;
pub use report::{Failure, Level, OrFail, Report};
pub use task::{RELOAD_GRACE, Task, Waited};
pub use wal::{KeepFrom, Lsn, SegmentSize, SystemIdentifier, TimelineId, WalFileName};

/// What every module has: a beginning and an end.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a module",
    note = "a module implements `module::Module` and a trait for each job that it is exported for"
)]
pub trait Module: Sized + 'static {
    /// Begins, in the process that does the work. May be called again after a failure or a panic.
    ///
    /// # Errors
    /// Why it could not begin; the job at hand then fails with it.
    fn startup(process: Process) -> Result<Self, Failure>;

    /// Ends, when the process leaves in an orderly way. Not called on a crash or an immediate shutdown.
    fn shutdown(self, _process: Process) {}
}

/// Archives finished WAL files; runs in the archiver.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an archive module: it does not implement `module::ArchiveModule`"
)]
pub trait ArchiveModule: Module {
    /// The archiver has loaded the library. [`Module::startup`] follows when there is a first file, which on an idle server
    /// may be in days: what is to be seen before belongs here. A panic here is reported and has no other effect.
    fn loaded(_process: Process)
    where
        Self: Sized,
    {
    }

    /// Whether all that files need is configured. Asked before every attempt on every file (pgarch.c,
    /// `pgarch_ArchiverCopyLoop`, 15 to 18); when not, nothing is counted as failed, and the server asks
    /// again when there is more to archive, on a reload, or after a minute. Storage that does not answer is
    /// better left to [`ArchiveModule::archive_file`], whose failures are counted and tried again at once.
    ///
    /// # Errors
    /// What is missing; shown to the administrator.
    fn check_configured(&mut self, _process: Process) -> Result<(), Failure> {
        Ok(())
    }

    /// Whether the archiver has to be started anew first, because of a change that a running module cannot
    /// follow. Asked before each [`ArchiveModule::check_configured`]. Answered with a report, that is made,
    /// [`Module::shutdown`] runs, and the archiver ends with status 0, as it does by itself when
    /// `archive_library` is changed (pgarch.c, 15 to 18); the server starts another one, ten seconds after
    /// the start of this one at the earliest.
    fn restart(&mut self, _process: Process) -> Option<Report> {
        None
    }

    /// One attempt at one file. `path` is relative to the data directory, the working directory.
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
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a module that restores: it does not implement `module::RestoreModule`"
)]
pub trait RestoreModule: Module {
    /// Creates `path` with the contents of `file`. `last_restartpoint` is the oldest file recovery may still
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
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a module that cleans the archive up: it does not implement `module::ArchiveCleanupModule`"
)]
pub trait ArchiveCleanupModule: Module {
    /// Files before `keep` may go.
    ///
    /// # Errors
    /// Why not; a WARNING in the log, and the next restartpoint asks again.
    fn archive_cleanup(&mut self, process: Process, keep: &KeepFrom) -> Result<(), Failure>;
}

/// Is told when recovery ends; runs in the recovery worker, asked by the startup process.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a module that is told of the end of recovery: it does not implement `module::RecoveryEndModule`"
)]
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
