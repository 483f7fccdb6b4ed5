//! The recovery worker: the host that stock PostgreSQL does not have for recovery modules.
//!
//! A background worker started with the server. It loads the configured libraries once, and answers the
//! clients that the startup process and the checkpointer run as shell commands. It lives as long as the
//! server, because restartpoints begun before a promotion end after it.
//!
//! Guarantees: one call into one module at a time, on the main thread; "absent" is answered only when a module
//! said so; a failure is retried while recovery can wait, and then reported as "could not tell". What it
//! leaves to the client: which exit status that is.

mod handover;
mod left_behind;
mod libraries;
mod request_server;
mod trouble;

use crate::loader::c_text;
use crate::loader::recovery::Library;
use crate::once::Once;
use crate::settings::{self, Job};
use crate::status::{InCall, recovery as status};
use crate::wiring;
use ::status::Task;
use archive::Backoff;
use handover::Handover;
use left_behind::LeftBehind;
use libraries::Libraries;
use module::{Failure, KeepFrom, Level, Process, Report, WalFileName, Woken};
use recovery::Phase;
use request_server::{Asked, RequestServer};
use std::ffi::CStr;
use std::path::Path;
use std::time::{Duration, Instant};
use trouble::Trouble;
use wire::{Answer, Request};

/// Longest pause between tries: a server stands still until a repaired archive is noticed.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long archive cleanup and the end of recovery may take, before their clients are told that it has failed
/// and those who wait behind them give up too.
const TIDYING_WAIT_MAX: Duration = Duration::from_secs(300);

/// The worker's main function.
pub(crate) fn main(process: Process) -> Result<(), Failure> {
    status::started(process);
    handover::remove_leftovers(Path::new("pg_wal"));
    // A courtesy, as above: what is left takes up space and nothing else.
    drop(archive::remove_restore_leftovers(Path::new("pg_wal")));
    let requests = RequestServer::open(settings::restore_timeout(process))?;
    let libraries = Libraries::load(process);
    requests.is_ready();
    let mut worker = Worker {
        process,
        libraries,
        requests,
        left_behind: LeftBehind::default(),
        once: Once::default(),
        trouble: Trouble::default(),
        told_no_cleanup: false,
    };
    worker.serve()
}

struct Worker {
    process: Process,
    libraries: Libraries,
    requests: RequestServer,
    left_behind: LeftBehind,
    once: Once,
    trouble: Trouble,
    /// That cleanup is left out has been said.
    told_no_cleanup: bool,
}

impl Worker {
    fn serve(&mut self) -> Result<(), Failure> {
        loop {
            let look_again = self
                .left_behind
                .is_open()
                .then(|| Instant::now() + left_behind::LOOK_EVERY);
            match self
                .process
                .wait(self.requests.notifier(), look_again, true)?
            {
                Woken::Shutdown | Woken::PostmasterGone => return Ok(()),
                Woken::Reload => self.reload()?,
                Woken::Deadline => self.left_behind.look(self.process, false),
                Woken::Event => {
                    while let Some(asked) = self.requests.next() {
                        self.attend(asked);
                        if self.process.shutdown_requested() {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    fn reload(&mut self) -> Result<(), Failure> {
        self.process.reload_configuration()?;
        status::reloaded(self.process);
        wiring::warn_of_commands(self.process);
        Ok(())
    }

    fn attend(&mut self, asked: Asked) {
        let restore_wait_max = settings::restore_timeout(self.process);
        let answer = match &asked.request {
            Request::Restore {
                file,
                path,
                last_restartpoint,
            } => {
                if !asked.is_wanted() {
                    // Answered by the request server while a module did not come back.
                    return;
                }
                asked.take_up(restore_wait_max, restore_wait_max);
                let wanted = || asked.is_wanted();
                self.restore(file, path, last_restartpoint, &wanted)
            }
            Request::ArchiveCleanup { last_restartpoint } => {
                asked.take_up(TIDYING_WAIT_MAX, restore_wait_max);
                self.archive_cleanup(last_restartpoint)
            }
            // Answered by the request server itself.
            Request::Status => return,
            Request::RecoveryEnd { last_restartpoint } => {
                asked.take_up(TIDYING_WAIT_MAX, restore_wait_max);
                self.recovery_end(last_restartpoint)
            }
        };
        // A worker that was told to end answers nothing it did not finish: the client then looks for another,
        // as after a crash, instead of taking the end of this worker for trouble with the file.
        if self.process.shutdown_requested() && answer == Answer::Reported {
            return;
        }
        asked.answer(answer);
    }

    /// Restores a file, trying again while recovery can wait.
    fn restore(&mut self, file: &str, path: &str, last: &str, wanted: &dyn Fn() -> bool) -> Answer {
        let Ok(name) = file.parse::<WalFileName>() else {
            return Answer::CouldNotTell(format!("{file:?} is not the name of a WAL file"));
        };
        if name.is_never_written() {
            // Before any module is asked: the end of a recovery must not depend on it.
            return Answer::Absent;
        }
        status::asked(&name);
        let answer = self.restore_patiently(&name, path, last, wanted);
        status::answered(&name, &answer);
        answer
    }

    fn restore_patiently(
        &mut self,
        name: &WalFileName,
        path: &str,
        last: &str,
        wanted: &dyn Fn() -> bool,
    ) -> Answer {
        // The module may be so late that the standby has been promoted meanwhile.
        let asked_in = Phase::of(Path::new("."));
        let give_up = Instant::now() + settings::restore_timeout(self.process);
        let mut backoff = Backoff::at_most(RETRY_PAUSE_MAX);
        loop {
            let failure = match self.restore_once(name, path, last, wanted) {
                Ok(restored) => {
                    self.left_behind.answered(*name);
                    if let Some(over) = self.trouble.answered(name) {
                        self.process.report(&over);
                    }
                    return if restored {
                        Answer::Done
                    } else {
                        Answer::Absent
                    };
                }
                Err(failure) => failure,
            };
            // The end of the server is no trouble worth a report; its clients are ending too.
            if self.process.shutdown_requested() {
                return Answer::Reported;
            }
            self.report_once(&failure);
            status::in_trouble(name, &failure);
            self.trouble.failed(*name);
            if let WalFileName::TimelineHistory(timeline) = name
                && recovery::keeps_history(Path::new("."), *timeline)
            {
                return Answer::Absent;
            }
            // A standby tries again by itself, and streams meanwhile; the end of a recovery must not be held up.
            let phase = Phase::of(Path::new("."));
            if !phase.stops() || Instant::now() >= give_up || !wanted() {
                if asked_in == Phase::Standby {
                    self.left_behind.could_not_tell(*name);
                }
                // What was said at the start only belongs beside the FATAL that it leads to.
                return if phase.stops() && self.libraries.has_reported(&failure) {
                    Answer::CouldNotTell(failure.message)
                } else {
                    Answer::Reported
                };
            }
            let left = give_up.saturating_duration_since(Instant::now());
            match self.process.pause(backoff.pause().min(left)) {
                Ok(Woken::Shutdown | Woken::PostmasterGone) | Err(_) => return Answer::Reported,
                Ok(_) => {}
            }
            // The cure may be in the configuration file.
            if self.process.reload_requested()
                && let Err(failure) = self.reload()
            {
                self.report_once(&failure);
            }
        }
    }

    fn restore_once(
        &mut self,
        name: &WalFileName,
        path: &str,
        last: &str,
        wanted: &dyn Fn() -> bool,
    ) -> Result<bool, Failure> {
        let handover = Handover::begin(Path::new(path));
        let (file, last) = (c_text(&name.to_string())?, c_text(last)?);
        let private = c_text(&handover.private().to_string_lossy())?;
        let library = self.libraries.for_job(self.process, Job::Restore)?;
        let library = library.ok_or_else(|| not_configured(Job::Restore))?;
        let time_limit = settings::restore_timeout(self.process);
        let in_call = self.calling(Job::Restore, Some(name), time_limit);
        if !library.restore(self.process, &file, &private, &last)? {
            return Ok(false);
        }
        drop(in_call);
        if !wanted() {
            return Err(Failure::new(format!(
                "the client no longer waits for file \"{name}\""
            )));
        }
        handover.finish(self.process, name)?;
        Ok(true)
    }

    /// During targeted recovery no module is asked: a recovery to a target may have to be tried again, from the same
    /// base backup, which takes the WAL that a restartpoint needs no more.
    fn archive_cleanup(&mut self, last: &str) -> Answer {
        if Phase::of(Path::new(".")) == Phase::Targeted {
            if !self.told_no_cleanup {
                self.told_no_cleanup = true;
                self.process.report(&Report::new(
                    Level::Log,
                    "archive cleanup removes nothing during targeted recovery, which may be tried again",
                ));
            }
            return Answer::Done;
        }
        self.tell(Job::ArchiveCleanup, last, |library, process, last| {
            library.archive_cleanup(process, last)
        })
    }

    fn recovery_end(&mut self, last: &str) -> Answer {
        self.left_behind.look(self.process, true);
        self.tell(Job::RecoveryEnd, last, |library, process, last| {
            library.recovery_end(process, last)
        })
    }

    fn tell(
        &mut self,
        job: Job,
        last: &str,
        call: impl Fn(&Library, Process, &CStr) -> Result<(), Failure>,
    ) -> Answer {
        let outcome = (|| {
            last.parse::<KeepFrom>()
                .map_err(|error| Failure::new(error.to_string()))?;
            let library = self.libraries.for_job(self.process, job)?;
            let library = library.ok_or_else(|| not_configured(job))?;
            let last = c_text(last)?;
            let _in_call = self.calling(job, None, TIDYING_WAIT_MAX);
            call(library, self.process, &last)
        })();
        match outcome {
            Ok(()) => Answer::Done,
            Err(failure) => {
                self.report_once(&failure);
                Answer::Reported
            }
        }
    }

    /// Shows that the module for this job is called, until that is dropped.
    fn calling(&self, job: Job, file: Option<&WalFileName>, time_limit: Duration) -> InCall {
        let module = job.library(self.process).unwrap_or_default();
        let task = match job {
            Job::Restore => Task::Restore,
            Job::ArchiveCleanup => Task::Cleanup,
            Job::RecoveryEnd => Task::End,
        };
        status::calling(&module, task, file, time_limit)
    }

    /// Reports trouble, but the same trouble only once in a while, and that of libraries at the start only.
    fn report_once(&mut self, failure: &Failure) {
        if self.libraries.has_reported(failure) {
            return;
        }
        if !self.once.is_news(&failure.message) {
            return;
        }
        self.process
            .report(&Report::of(Level::Warning, failure.clone()));
    }
}

fn not_configured(job: Job) -> Failure {
    Failure::new(format!(
        "{:?} is not set",
        job.parameter().to_str().unwrap_or_default()
    ))
}
