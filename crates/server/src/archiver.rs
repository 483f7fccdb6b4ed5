//! The archive module: one file per call, taken by a helper thread while the archiver waits on its latch.
//!
//! Guarantees: "archived" is answered only when the archive said so for exactly this file and these settings;
//! an attempt that outlives its call (deadline, reload) is joined by the next call for the same file and never
//! runs beside a second one; a stalled archive holds the archiver's interrupts up for no longer than a second.
//! Leaves to the `archive` crate: what durable means, and that nothing is overwritten.

use crate::failure;
use crate::settings::{self, ArchiveSettings};
use archive::{Archive, Cancel, Put};
use module::{
    ArchiveModule, Archived, Failure, Level, Module, Process, Report, Task, Waited, WalFileName,
    Woken,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// The archiver's own state.
pub(crate) struct Archiver {
    open: Option<Open>,
    opening: Option<Opening>,
    attempt: Option<Attempt>,
}

struct Open {
    settings: ArchiveSettings,
    archive: Arc<Archive>,
}

/// An open archive, and how many staged files of dead writers were removed from it.
type Opened = Result<(Archive, u64), archive::Error>;

struct Opening {
    settings: ArchiveSettings,
    task: Task<Opened>,
}

struct Attempt {
    file: WalFileName,
    settings: ArchiveSettings,
    cancel: Cancel,
    task: Task<Result<Put, archive::Error>>,
}

impl Module for Archiver {
    fn startup(_: Process) -> Result<Self, Failure> {
        Ok(Self {
            open: None,
            opening: None,
            attempt: None,
        })
    }

    fn shutdown(self, _: Process) {
        if let Some(attempt) = self.attempt {
            attempt.cancel.cancel();
        }
    }
}

impl ArchiveModule for Archiver {
    fn check_configured(&mut self, process: Process) -> Result<(), Failure> {
        let settings = ArchiveSettings::now(process)?;
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.settings == settings)
        {
            return Ok(());
        }
        self.open(process, settings)
    }

    fn archive_file(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
    ) -> Result<Archived, Failure> {
        let mut attempt = self.attempt_at(process, file, path)?;
        let timeout = settings::archive_timeout(process);
        let waited = attempt.task.wait(process, Instant::now() + timeout)?;
        match waited {
            Waited::Done(outcome) => finished(process, file, outcome),
            Waited::NotYet(Woken::Shutdown | Woken::PostmasterGone) => {
                attempt.cancel.cancel();
                Ok(Archived::NotYet)
            }
            Waited::NotYet(Woken::Reload) => {
                self.attempt = Some(attempt);
                process.report(&Report::new(
                    Level::Log,
                    format!(
                        "archiving of file \"{file}\" goes on while the configuration is reloaded"
                    ),
                ));
                Ok(Archived::NotYet)
            }
            Waited::NotYet(_) => {
                self.attempt = Some(attempt);
                Err(Failure::new(format!(
                    "could not archive file \"{file}\" within {} s",
                    timeout.as_secs()
                ))
                .detail("The attempt goes on and is joined by the next one.")
                .hint("The archive is slow or does not answer; see \"walden.archive_timeout\"."))
            }
        }
    }
}

impl Archiver {
    /// The settings that files are archived by now; `None` before the archive is open.
    pub(crate) fn settings(&self) -> Option<&ArchiveSettings> {
        self.open.as_ref().map(|open| &open.settings)
    }

    /// Opens the archive on a helper thread too: even looking at a directory can hang for minutes.
    fn open(&mut self, process: Process, settings: ArchiveSettings) -> Result<(), Failure> {
        self.open = None;
        let mut opening = match self.opening.take() {
            Some(opening) if opening.settings == settings => opening,
            _ => Opening {
                task: start_opening(&settings)?,
                settings: settings.clone(),
            },
        };
        match opening
            .task
            .wait(process, Instant::now() + settings::archive_timeout(process))?
        {
            Waited::Done(Ok((archive, leftovers))) => {
                if leftovers > 0 {
                    process.report(&Report::new(
                        Level::Log,
                        format!(
                            "removed {leftovers} staged files of dead writers from the archive"
                        ),
                    ));
                }
                self.open = Some(Open {
                    settings,
                    archive: Arc::new(archive),
                });
                Ok(())
            }
            Waited::Done(Err(error)) => Err(failure::of_archive(error)),
            Waited::NotYet(_) => {
                let location = opening.settings.location.to_string();
                self.opening = Some(opening);
                Err(Failure::new(format!(
                    "archive \"{location}\" has not answered yet"
                )))
            }
        }
    }

    /// The attempt that is going on at this file, or a new one.
    fn attempt_at(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
    ) -> Result<Attempt, Failure> {
        let open = self
            .open
            .as_ref()
            .ok_or_else(|| Failure::new("the archive is not open"))?;
        if let Some(attempt) = self.attempt.take() {
            if attempt.file == *file && attempt.settings == open.settings {
                return Ok(attempt);
            }
            // The server has moved on, or the archive is another one: this answer is no longer wanted.  A
            // thread that is stuck cannot be ended; it cancels itself as soon as it moves.
            attempt.cancel.cancel();
        }
        let system = process.system_identifier()?;
        let cancel = Cancel::new();
        let (archive, name, path) = (Arc::clone(&open.archive), *file, path.to_path_buf());
        let asked = cancel.clone();
        let task = Task::start("walden archive", move || {
            archive.put_new(&name, &path, Some(system), &asked)
        })?;
        Ok(Attempt {
            file: *file,
            settings: open.settings.clone(),
            cancel,
            task,
        })
    }
}

fn start_opening(settings: &ArchiveSettings) -> Result<Task<Opened>, Failure> {
    let settings = settings.clone();
    Task::start("walden open", move || {
        let archive = Archive::open(&settings.location, settings.options)?;
        // Clearing up is a courtesy: a failure to do so is no reason not to archive.
        let leftovers = archive.remove_leftovers().unwrap_or_default();
        Ok((archive, leftovers))
    })
}

fn finished(
    process: Process,
    file: &WalFileName,
    outcome: Result<Put, archive::Error>,
) -> Result<Archived, Failure> {
    match outcome {
        Ok(Put::Stored {
            bytes_in,
            bytes_out,
        }) => {
            process.report(&Report::new(
                Level::Debug1,
                format!("archived file \"{file}\": {bytes_in} bytes stored as {bytes_out}"),
            ));
            Ok(Archived::Durably)
        }
        Ok(Put::AlreadyStored) => {
            process.report(&Report::new(
                Level::Debug1,
                format!("file \"{file}\" is in the archive already, with identical contents"),
            ));
            Ok(Archived::Durably)
        }
        Err(error) => Err(failure::while_doing(
            &format!("could not archive file \"{file}\""),
            &error,
        )),
    }
}
