//! An archive module and a recovery module in one library, with a directory as the archive.
//!
//! Its promises are those of contrib's `basic_archive`, kept at any moment: a file is archived once its bytes
//! and its name survive a power cut, the same file again succeeds, other bytes under the same name are
//! refused, and nothing that is there is ever replaced. Files keep their names and bytes, so `cp` restores
//! them too.
//!
//! Here is what the server sees; what happens in the directory is in [`keep`] and [`fetch`], which know
//! nothing of the server. Slow storage is waited for on a thread, so that it holds up neither a reload nor
//! DROP DATABASE.

mod fetch;
mod keep;

use fetch::Fetched;
use keep::Kept;
use module::settings::{About, Check, StringSetting};
use module::{
    ArchiveCleanupModule, ArchiveModule, Archived, Failure, KeepFrom, Level, Module, OrFail,
    Process, RecoveryEndModule, Report, RestoreModule, Restored, Task, Waited, WalFileName, Woken,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long one attempt at a file is waited for. What takes longer goes on, and the next attempt joins it.
const ARCHIVE_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long one request of recovery is waited for; the recovery worker asks again.
const RESTORE_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a restartpoint is held up; what is left undone is done at the next one.
const CLEANUP_WAIT_MAX: Duration = Duration::from_secs(300);
/// `MAXPGPATH`: the server cuts longer paths.
const PATH_BYTES_MAX: usize = 1024;

static ARCHIVE_DIRECTORY: StringSetting = StringSetting::checked::<DirectoryCheck>(
    About::reload(
        c"basic_archive_rs.archive_directory",
        c"Sets the directory that WAL files are archived to and restored from.",
    )
    .long(c"An absolute path. An empty string means not configured."),
    c"",
);

struct DirectoryCheck;

impl Check for DirectoryCheck {
    /// Refuses what can never be right. A directory that is not there may be there later, so that is looked
    /// at before each file instead.
    fn check(value: &str) -> Result<(), String> {
        if !value.is_empty() && !value.starts_with('/') {
            return Err("The archive directory must be an absolute path.".to_owned());
        }
        if value.len() >= PATH_BYTES_MAX {
            return Err("The archive directory's path is too long.".to_owned());
        }
        Ok(())
    }
}

fn directory(process: Process) -> Result<PathBuf, Failure> {
    let directory = ARCHIVE_DIRECTORY.get(process);
    if directory.is_empty() {
        return Err(
            Failure::new("\"basic_archive_rs.archive_directory\" is not set")
                .hint("Set it to the directory of the archive and reload."),
        );
    }
    Ok(PathBuf::from(directory))
}

/// One file on its way into the archive.
struct Attempt {
    file: WalFileName,
    directory: PathBuf,
    task: Task<Result<Kept, Failure>>,
}

/// The module's state: in the archiver the attempt that is going on, in the recovery worker nothing.
struct BasicArchive {
    attempt: Option<Attempt>,
}

impl Module for BasicArchive {
    fn startup(_: Process) -> Result<Self, Failure> {
        Ok(BasicArchive { attempt: None })
    }
}

impl ArchiveModule for BasicArchive {
    fn check_configured(&mut self, process: Process) -> Result<(), Failure> {
        // A directory that is set and not there is a failure to archive: those are counted and retried.
        directory(process).map(drop)
    }

    fn archive_file(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
    ) -> Result<Archived, Failure> {
        let directory = directory(process)?;
        let mut attempt = match self.attempt.take() {
            Some(going_on) if going_on.file == *file && going_on.directory == directory => going_on,
            _ => Attempt::start(file, directory, path)?,
        };
        match attempt
            .task
            .wait(process, Instant::now() + ARCHIVE_WAIT_MAX)?
        {
            Waited::Done(kept) => {
                let how = match kept? {
                    Kept::Now => "archived",
                    Kept::Before => "was archived before, with the same contents:",
                };
                process.report(&Report::new(Level::Debug1, format!("{how} \"{file}\"")));
                Ok(Archived::Durably)
            }
            Waited::NotYet(why) => {
                self.attempt = Some(attempt);
                match why {
                    Woken::Deadline => Err(too_slow(file)),
                    // The server has something else to do first, and asks again.
                    _ => Ok(Archived::NotYet),
                }
            }
        }
    }
}

impl Attempt {
    fn start(file: &WalFileName, directory: PathBuf, path: &Path) -> Result<Self, Failure> {
        let (name, place, path) = (file.to_string(), directory.clone(), path.to_path_buf());
        let task = Task::start("basic archive", move || keep::keep(&path, &place, &name))?;
        Ok(Attempt {
            file: *file,
            directory,
            task,
        })
    }
}

fn too_slow(file: &WalFileName) -> Failure {
    let seconds = ARCHIVE_WAIT_MAX.as_secs();
    Failure::new(format!("could not archive \"{file}\" within {seconds} s"))
        .detail("The attempt goes on, and the next one joins it.")
}

impl RestoreModule for BasicArchive {
    fn restore(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
        _last_restartpoint: &KeepFrom,
    ) -> Result<Restored, Failure> {
        let directory = directory(process)?;
        let (name, path) = (file.to_string(), path.to_path_buf());
        let whole = match file {
            WalFileName::Segment(_) => Some(process.segment_size().bytes()),
            _ => None,
        };
        let fetched = Task::start("basic archive", move || {
            fetch::fetch(&directory, &name, &path, whole)
        })?
        .join(process, RESTORE_WAIT_MAX)
        .or_fail(format_args!("could not restore file \"{file}\""))??;
        Ok(match fetched {
            Fetched::Whole => Restored::Yes,
            Fetched::Absent => Restored::NotInArchive,
        })
    }
}

impl ArchiveCleanupModule for BasicArchive {
    fn archive_cleanup(&mut self, process: Process, keep: &KeepFrom) -> Result<(), Failure> {
        let (directory, from) = (directory(process)?, *keep);
        let removed = Task::start("basic archive", move || fetch::clean_up(&directory, &from))?
            .join(process, CLEANUP_WAIT_MAX)
            .or_fail("could not clean up the archive")??;
        process.report(&Report::new(
            Level::Debug1,
            format!("removed {removed} files before \"{keep}\" from the archive"),
        ));
        Ok(())
    }
}

impl RecoveryEndModule for BasicArchive {
    /// A directory needs nothing done at the end of recovery.
    fn recovery_end(&mut self, process: Process, _: &KeepFrom) -> Result<(), Failure> {
        process.report(&Report::new(
            Level::Log,
            "recovery from the archive has ended",
        ));
        Ok(())
    }
}

module::export! {
    settings: [ARCHIVE_DIRECTORY],
    archive: BasicArchive,
    recovery: BasicArchive { restore, archive_cleanup, recovery_end },
}
