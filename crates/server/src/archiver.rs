//! The archive module: the file that the server hands over, and those it will hand over next, taken by helper
//! threads while the archiver waits on its latch.
//!
//! Guarantees: "archived" is answered only when the archive said so for exactly this file and these settings; what
//! outlives its call (deadline, reload) is joined by the next call for the same file; a stalled archive holds the
//! archiver's interrupts up for no longer than a second.
//! Leaves to the `archive` crate: which files are taken ahead, retries, what durable means, and that nothing is
//! overwritten.

mod report;

use crate::failure;
use crate::settings;
use crate::status;
use archive::{
    Archive, Archiving, ArchivingNote, Backoff, CONNECT_WAIT_MAX, ClusterSecret, ErrorKind,
    PROGRESS_WAIT_MAX, Place, Put,
};
use module::{
    ArchiveModule, Archived, Failure, Level, Module, Notifier, Process, RELOAD_GRACE, Report, Task,
    Waited, WalFileName, Woken, spawn_with_signals_blocked,
};
use report::{archived, beginning, report_of};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a server whose archive fails is looked at for its stop, which must not wait for the retries.
const STOPPING_LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a try may need to say that it has failed, when its deadline comes.
const ANSWER_GRACE: Duration = Duration::from_millis(200);

/// The archiver's own state.
pub(crate) struct Archiver {
    notifier: Notifier,
    /// Where files go, as of the last check; `None` while the settings say nothing that can be used.
    place: Option<Place>,
    open: Option<Open>,
    opening: Option<Opening>,
    /// Since when no file could be archived; the log hears of it when one can.
    failing_since: Option<Instant>,
}

struct Open {
    settings: Place,
    archiving: Archiving,
}

/// An open archive, and how many staged files of dead writers were removed from it.
type Opened = Result<(Archive, u64), archive::Error>;

struct Opening {
    settings: Place,
    task: Task<Opened>,
}

impl Module for Archiver {
    fn startup(_: Process) -> Result<Self, Failure> {
        Ok(Self {
            notifier: Notifier::new()?,
            place: None,
            open: None,
            opening: None,
            failing_since: None,
        })
    }

    /// Files that have not been acknowledged are given up.
    fn shutdown(self, _: Process) {
        drop(self.open);
    }
}

impl ArchiveModule for Archiver {
    /// Looks at the settings alone: an archive that cannot be reached is a failure to archive, which the server counts.
    fn check_configured(&mut self, process: Process) -> Result<(), Failure> {
        self.place = None;
        let place = settings::archive(process).inspect_err(|_| {
            // Unset: nothing more goes there, what is on its way included.
            self.open = None;
        });
        let place = place.inspect_err(status::archiver::not_configured)?;
        status::archiver::configured(process, &place);
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.settings != place)
        {
            self.open = None;
        }
        self.place = Some(place);
        Ok(())
    }

    fn archive_file(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
    ) -> Result<Archived, Failure> {
        let begun = Instant::now();
        let outcome = self.try_file(process, file, path, begun);
        match &outcome {
            Ok(Archived::Durably) => {
                if let Some(since) = self.failing_since.take() {
                    process.report(&report_of(ArchivingNote::Recovered {
                        name: *file,
                        after: since.elapsed(),
                    }));
                }
            }
            Ok(Archived::NotYet) => {}
            Err(_) => {
                self.failing_since.get_or_insert(begun);
            }
        }
        outcome
    }
}

impl Archiver {
    /// The settings that files are archived by, as of the last check; `None` when there are none.
    pub(crate) fn settings(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// One attempt, begun at `begun`: opens the archive if need be, and waits for the file.
    fn try_file(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
        begun: Instant,
    ) -> Result<Archived, Failure> {
        let deadline = begun + settings::archive_timeout(process);
        let limits = settings::archiving_limits(process);
        let what = format!("could not archive file \"{file}\"");
        if let Some(not_open) = self.open(process, file, deadline)? {
            return self.not_yet(process, file, not_open, begun);
        }
        let asked = self
            .archiving()?
            .ask(file, path, deadline, limits)
            .map_err(|error| failed(file, &what, &error))?;
        if let Some(put) = asked {
            let took = begun.elapsed().as_micros();
            archived(
                process,
                file,
                put,
                &format!(" ahead; acknowledged in {took} us"),
            );
            return Ok(Archived::Durably);
        }
        match self.wait(process, file, begun, deadline)? {
            Waited::Done(Ok(put)) => {
                let took = begun.elapsed().as_millis();
                archived(process, file, put, &format!(" in {took} ms"));
                Ok(Archived::Durably)
            }
            Waited::Done(Err(error)) => Err(failed(file, &what, &error)),
            Waited::NotYet(woken) => self.not_yet(process, file, woken, begun),
        }
    }

    /// What an attempt ends with that has no answer, and why it ended.
    fn not_yet(
        &mut self,
        process: Process,
        file: &WalFileName,
        woken: Woken,
        begun: Instant,
    ) -> Result<Archived, Failure> {
        match woken {
            Woken::Shutdown | Woken::PostmasterGone => {
                self.open = None;
                Ok(Archived::NotYet)
            }
            Woken::Reload => {
                let message = format!(
                    "archiving of file \"{file}\" goes on while the configuration is reloaded"
                );
                process.report(&Report::new(Level::Log, message));
                Ok(Archived::NotYet)
            }
            Woken::Deadline | Woken::Event => {
                let seconds = begun.elapsed().as_secs();
                let going_on = self.archiving()?.last_progress(file).is_some();
                let failure = Failure::new(format!(
                    "could not archive file \"{file}\" within {seconds} s"
                ))
                .detail(if going_on {
                    "The attempt goes on and is joined by the next one."
                } else {
                    "It was not begun: too many earlier attempts have not returned."
                })
                .hint("The archive is slow or does not answer; see \"walden.archive_timeout\".");
                status::archiver::unanswered(file, &failure);
                Err(failure)
            }
        }
    }

    fn archiving(&self) -> Result<&Archiving, Failure> {
        let open = self.open.as_ref();
        open.map(|open| &open.archiving)
            .ok_or_else(|| Failure::new("the archive is not open"))
    }

    /// Waits for the answer about a file, and meanwhile tells the log what it should know.
    fn wait(
        &self,
        process: Process,
        file: &WalFileName,
        begun: Instant,
        deadline: Instant,
    ) -> Result<Waited<Result<Put, archive::Error>>, Failure> {
        let archiving = self.archiving()?;
        let mut give_up = (deadline + ANSWER_GRACE, Woken::Deadline);
        let mut look = begun + PROGRESS_WAIT_MAX;
        loop {
            self.notifier.reset();
            while let Some(note) = archiving.note() {
                // Where more than this one wait has failed, the end of all of it is told by the call that ends it.
                let recovered = matches!(note, ArchivingNote::Recovered { .. });
                if !recovered || self.failing_since.is_none() {
                    process.report(&report_of(note));
                }
            }
            if let Some(outcome) = archiving.poll(file) {
                return Ok(Waited::Done(outcome));
            }
            let heed_reload = give_up.1 == Woken::Deadline;
            let in_trouble = archiving.is_in_trouble();
            if in_trouble {
                must_not_be_stopping(file)?;
            }
            let mut until = give_up.0.min(look);
            if in_trouble {
                until = until.min(Instant::now() + STOPPING_LOOK_EVERY);
            }
            match process.wait(self.notifier.as_fd(), Some(until), heed_reload)? {
                Woken::Event => {}
                Woken::Reload => {
                    let end = Instant::now() + RELOAD_GRACE;
                    if end < give_up.0 {
                        give_up = (end, Woken::Reload);
                    } else {
                        give_up.1 = Woken::Reload;
                    }
                }
                Woken::Deadline if Instant::now() >= give_up.0 => {
                    return Ok(Waited::NotYet(give_up.1));
                }
                Woken::Deadline if in_trouble || Instant::now() < look => {}
                Woken::Deadline => look = report_no_progress(process, file, archiving),
                woken => return Ok(Waited::NotYet(woken)),
            }
        }
    }

    /// Opens the archive if it is not open, trying again until `deadline` like everything else that may work later.
    /// With what the wait was ended by, if it was before that.
    ///
    /// On a helper thread too: even looking at a directory can hang for minutes.
    fn open(
        &mut self,
        process: Process,
        file: &WalFileName,
        deadline: Instant,
    ) -> Result<Option<Woken>, Failure> {
        if self.open.is_some() {
            return Ok(None);
        }
        let what = format!("could not archive file \"{file}\"");
        let place = self.place.clone();
        let place = place.ok_or_else(|| Failure::new(format!("{what}: no archive is set")))?;
        let mut backoff = Backoff::new();
        loop {
            let error = match self.open_once(process, file, &place, deadline)? {
                Waited::Done(Ok(())) => return Ok(None),
                Waited::Done(Err(error)) => error,
                Waited::NotYet(Woken::Deadline | Woken::Event) => {
                    let failure = Failure::new(format!(
                        "{what}: archive \"{}\" does not answer",
                        place.location
                    ))
                    .detail("The attempt to open it goes on and is joined by the next one.");
                    status::archiver::unanswered(file, &failure);
                    return Err(failure);
                }
                Waited::NotYet(woken) => return Ok(Some(woken)),
            };
            let again = Instant::now() + backoff.pause();
            if error.kind() != ErrorKind::Unavailable || again >= deadline {
                return Err(failed(file, &what, &error));
            }
            if self.failing_since.is_none() {
                self.failing_since = Some(Instant::now());
                process.report(&report_of(ArchivingNote::Retrying {
                    name: *file,
                    cause: error.to_string(),
                    hint: error.hint().map(str::to_owned),
                    is_denied: error.is_denied(),
                }));
            }
            while Instant::now() < again {
                must_not_be_stopping(file)?;
                let until = again.min(Instant::now() + STOPPING_LOOK_EVERY);
                match process.idle(Some(until))? {
                    Woken::Deadline | Woken::Event => {}
                    woken => return Ok(Some(woken)),
                }
            }
        }
    }

    /// One try to open the archive, or to join the one that goes on.
    fn open_once(
        &mut self,
        process: Process,
        file: &WalFileName,
        place: &Place,
        deadline: Instant,
    ) -> Result<Waited<Result<(), archive::Error>>, Failure> {
        let mut opening = match self.opening.take() {
            Some(opening) if opening.settings == *place => opening,
            _ => Opening {
                task: start_opening(place)?,
                settings: place.clone(),
            },
        };
        let give_up = deadline.min(Instant::now() + CONNECT_WAIT_MAX);
        let opened = loop {
            let slice = give_up.min(Instant::now() + STOPPING_LOOK_EVERY);
            match opening.task.wait(process, slice)? {
                Waited::Done(opened) => break opened,
                Waited::NotYet(Woken::Deadline) if Instant::now() < give_up => {
                    if self.failing_since.is_some() {
                        must_not_be_stopping(file)?;
                    }
                }
                Waited::NotYet(woken) => {
                    self.opening = Some(opening);
                    return Ok(Waited::NotYet(woken));
                }
            }
        };
        let (archive, leftovers) = match opened {
            Ok(opened) => opened,
            Err(error) => return Ok(Waited::Done(Err(error))),
        };
        if leftovers > 0 {
            let message =
                format!("removed {leftovers} staged files of dead writers from the archive");
            process.report(&Report::new(Level::Log, message));
        }
        let nonce = process.cluster_nonce()?;
        let archive = archive.with_secret(nonce.and_then(ClusterSecret::new));
        if let Some(warning) = place.location.warning() {
            process.report(&Report::new(Level::Warning, warning));
        }
        // The archiver's working directory is the data directory (ChangeToDataDir, 15 to 19).
        if place.location.lies_within(Path::new(".")) {
            let text = Failure::new(format!(
                "archive \"{}\" lies within the server's data directory",
                place.location
            ))
            .hint("It is lost with the cluster, and copied with every base backup. Use a directory elsewhere.");
            process.report(&Report::of(Level::Warning, text));
        }
        process.report(&Report::new(Level::Log, beginning(process, place)));
        let meter = archive.meter();
        let notifier = self.notifier.clone();
        let archiving = Archiving::new(
            Arc::new(archive),
            process.system_identifier()?,
            spawn_with_signals_blocked,
            move || notifier.notify(),
        );
        status::archiver::opened(meter, archiving.view());
        let settings = place.clone();
        self.open = Some(Open {
            settings,
            archiving,
        });
        Ok(Waited::Done(Ok(())))
    }
}

fn start_opening(settings: &Place) -> Result<Task<Opened>, Failure> {
    let settings = settings.clone();
    Task::start("walden open", move || {
        let archive = Archive::open(
            &settings.location,
            settings.options.clone(),
            spawn_with_signals_blocked,
        )?;
        // Clearing up is a courtesy: a failure to do so is no reason not to archive.
        let leftovers = archive.remove_leftovers().unwrap_or_default();
        Ok((archive, leftovers))
    })
}

/// Ends an attempt in trouble when the server is stopping: that must not wait for the retries.
fn must_not_be_stopping(file: &WalFileName) -> Result<(), Failure> {
    if !is_stopping() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "could not archive file \"{file}\" before the server stops"
    ))
    .detail("It stays in \"pg_wal\", and is archived when the server runs again."))
}

/// Whether the server has been told to stop. The archiver itself is told last, and of a stop as of any other end of a
/// backlog: by SIGUSR2, which no module sees (pgarch.c, 15 to 18); but the postmaster writes it down at once
/// (`PM_STATUS_STOPPING` on line 8 of postmaster.pid, miscadmin.h, 15 to 18).
fn is_stopping() -> bool {
    let status = std::fs::read_to_string("postmaster.pid").unwrap_or_default();
    status
        .lines()
        .nth(7)
        .is_some_and(|line| line.trim() == "stopping")
}

/// What a failed attempt is reported with.
fn failed(file: &WalFileName, what: &str, error: &archive::Error) -> Failure {
    let failure = failure::while_doing(what, error);
    status::archiver::failed(file, error, &failure);
    failure
}

/// Says that nothing moves, if so, and when to look again.
fn report_no_progress(process: Process, file: &WalFileName, archiving: &Archiving) -> Instant {
    let now = Instant::now();
    let Some(last) = archiving.last_progress(file) else {
        return now + PROGRESS_WAIT_MAX;
    };
    if last + PROGRESS_WAIT_MAX > now {
        return last + PROGRESS_WAIT_MAX;
    }
    let seconds = last.elapsed().as_secs();
    process.report(&Report::new(
        Level::Log,
        format!("archiving of file \"{file}\" has made no progress for {seconds} s"),
    ));
    // Once is enough for one call.
    now + settings::archive_timeout(process)
}
