//! Archives finished WAL files into a directory, and restores them from it.

mod fetch;
mod store;

use module::settings::{About, DurationSetting, StringSetting, TimeUnit};
use module::{
    ArchiveCleanupModule, ArchiveModule, Archived, Failure, KeepFrom, Module, OrFail, Process,
    RestoreModule, Restored, Task, Waited, WalFileName, Woken,
};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

static DIRECTORY: StringSetting = StringSetting::new(
    About::reload(
        c"my_archive.directory",
        c"Sets the directory that WAL files are kept in.",
    ),
    c"",
);

static TIMEOUT: DurationSetting = DurationSetting::new(
    About::reload(
        c"my_archive.timeout",
        c"Sets the time after which an attempt at one file counts as failed.",
    ),
    60,
    1..=3600,
    TimeUnit::Seconds,
);

/// The module's state: the attempt that nobody waits for at the moment.
struct MyArchive {
    attempt: Option<Attempt>,
}

/// One file on its way into the directory.
struct Attempt {
    file: WalFileName,
    directory: PathBuf,
    task: Task<io::Result<()>>,
}

impl Module for MyArchive {
    fn startup(_: Process) -> Result<Self, Failure> {
        Ok(MyArchive { attempt: None })
    }
}

impl ArchiveModule for MyArchive {
    fn check_configured(&mut self, process: Process) -> Result<(), Failure> {
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
            _ => Attempt::start(file, path, directory)?,
        };
        let deadline = Instant::now() + TIMEOUT.get(process);
        match attempt.task.wait(process, deadline)? {
            Waited::Done(outcome) => {
                outcome.or_fail(format_args!("could not keep file \"{file}\""))?;
                Ok(Archived::Durably)
            }
            Waited::NotYet(why) => {
                // The thread goes on, and the next call for this file finds it here.
                self.attempt = Some(attempt);
                match why {
                    Woken::Deadline => Err(Failure::new(format!(
                        "could not keep file \"{file}\" in time"
                    ))
                    .hint("The directory is slow; see \"my_archive.timeout\".")),
                    // The server has something else to do first, and asks again.
                    _ => Ok(Archived::NotYet),
                }
            }
        }
    }
}

impl RestoreModule for MyArchive {
    fn restore(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
        _last_restartpoint: &KeepFrom,
    ) -> Result<Restored, Failure> {
        let directory = directory(process)?;
        let (name, path) = (file.to_string(), path.to_path_buf());
        let bytes = match file {
            WalFileName::Segment(_) => Some(process.segment_size().bytes()),
            _ => None,
        };
        let task = Task::start("my archive", move || {
            fetch::get(&directory, &name, &path, bytes)
        })?;
        let found = task
            .join(process, TIMEOUT.get(process))?
            .or_fail(format_args!("could not restore file \"{file}\""))?;
        Ok(if found {
            Restored::Yes
        } else {
            Restored::NotInArchive
        })
    }
}

impl ArchiveCleanupModule for MyArchive {
    fn archive_cleanup(&mut self, process: Process, keep: &KeepFrom) -> Result<(), Failure> {
        let (directory, keep) = (directory(process)?, *keep);
        Task::start("my archive", move || fetch::clean_up(&directory, &keep))?
            .join(process, TIMEOUT.get(process))?
            .or_fail("could not clean up the archive")
    }
}

impl Attempt {
    fn start(file: &WalFileName, path: &Path, directory: PathBuf) -> Result<Self, Failure> {
        let (name, from, to) = (file.to_string(), path.to_path_buf(), directory.clone());
        let task = Task::start("my archive", move || store::put(&from, &to, &name))?;
        Ok(Attempt {
            file: *file,
            directory,
            task,
        })
    }
}

fn directory(process: Process) -> Result<PathBuf, Failure> {
    match DIRECTORY.get(process) {
        directory if directory.is_empty() => {
            Err(Failure::new("\"my_archive.directory\" is not set"))
        }
        directory => Ok(PathBuf::from(directory)),
    }
}

module::export! {
    settings: [DIRECTORY, TIMEOUT],
    archive: MyArchive,
    recovery: MyArchive { restore, archive_cleanup },
}
