//! Walden's own recovery module: restores from the archive, cleans it up, and tidies when recovery ends.
//!
//! Guarantees: what is told about a file follows from the rules of the crate `recovery`, whatever is fetched ahead; everything
//! that is neither "restored" nor "absent" is a failure, which the host turns into "could not tell". Leaves to the host:
//! retries, the final name of a restored file, and what a standby is told. Leaves to `archive::Prefetch`: what is fetched before
//! it is asked for.

use crate::failure;
use crate::once::Once;
use crate::settings;
use crate::status;
use archive::{
    Answer, Archive, CONNECT_WAIT_MAX, Cancel, Cleaned, Error, ErrorKind, Notice,
    PROGRESS_WAIT_MAX, PendingRequest, Prefetch, RestoreRequest, Tally,
};
use module::{
    ArchiveCleanupModule, Failure, KeepFrom, Level, Module, Notifier, Process, RecoveryEndModule,
    Report, RestoreModule, Restored, Task, Waited, WalFileName, Woken, spawn_with_signals_blocked,
};
use recovery::{Asker, Control, Judge, Phase, Question, Server, TargetTimeline};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a restartpoint waits for its cleanup. Usually it is done by then; the restores of a standby should
/// not have to wait for one that is not.
const CLEANUP_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long the opening of the server waits for tidying; what is left undone is done by the next archiver.
const RECOVERY_END_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long recovery waits for a file before everything that is fetched ahead stands still for it: a slow way to the
/// archive, shared by several, would bring them all and this one too late.
const HURRY_AFTER: Duration = Duration::from_secs(2);

/// What part of `walden.restore_timeout` a file is waited for that the server goes on without: a promotion asks for two or
/// three, one after the other, and must not take minutes because a store answers nothing. A part of the parameter, so
/// that a user whose archive is slow to begin an answer gives this more time, too.
const DISPENSABLE_PART: u32 = 6;
/// And how long at least, if the parameter allows: a first request that needs a new connection is not to fail for that.
const DISPENSABLE_WAIT_MIN: Duration = Duration::from_secs(5);

/// How often a request that may be in the way of a promotion looks whether it is.
const PROMOTION_LOOK_EVERY: Duration = Duration::from_secs(1);

/// The server's note that a promotion has been asked for; its startup process removes it when it takes that up, which it
/// does not while it waits for a file (`PROMOTE_SIGNAL_FILE`, xlog.h; `CheckForStandbyTrigger`, xlogrecovery.c, 15 to 18).
const PROMOTE_FILE: &str = "promote";

/// The module's own state.
pub(crate) struct Recovery {
    judge: Judge,
    once: Once,
    prefetch: Prefetch,
    notifier: Notifier,
    cleanup: Option<Task<Result<Cleaned, archive::Error>>>,
}

impl Module for Recovery {
    fn startup(_: Process) -> Result<Self, Failure> {
        let notifier = Notifier::new()?;
        let notified = notifier.clone();
        let prefetch = Prefetch::new(spawn_with_signals_blocked, move || notified.notify());
        status::recovery::begun(prefetch.meter());
        Ok(Self {
            judge: Judge::new(),
            once: Once::default(),
            prefetch,
            notifier,
            cleanup: None,
        })
    }
}

impl RestoreModule for Recovery {
    fn restore(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
        _last_restartpoint: &KeepFrom,
    ) -> Result<Restored, Failure> {
        let what = format!("could not restore file \"{file}\" from the archive");
        let question = Arc::new(self.judge.ask(*file, asker(process, path)?));
        let request = request(process, file, path, &question)?;
        let answer = self.ask(process, request, &question);
        // Where the server must not stop over trouble with the archive, it is told to go on.
        match answer.or_else(|error| question.failed(error).map(Answer::Absent)) {
            Ok(Answer::Restored { bytes, ahead }) => {
                let tally = self.prefetch.tally();
                status::recovery::from_archive(ahead, tally.depth);
                process.report(&restored(file, bytes, ahead, tally));
                Ok(Restored::Yes)
            }
            Ok(Answer::Absent(notices)) => {
                for notice in notices {
                    if self.once.is_news(&notice.message) {
                        process.report(&warning(notice));
                    }
                }
                Ok(Restored::NotInArchive)
            }
            Err(error) => {
                status::recovery::because(&error);
                Err(failure::while_doing(&what, &error))
            }
        }
    }
}

impl Recovery {
    /// Asks for the file, and waits.
    fn ask(
        &mut self,
        process: Process,
        request: RestoreRequest,
        question: &Question,
    ) -> Result<Answer, Error> {
        let (file, by_recovery) = (request.name, request.in_line);
        let mut pending = self.prefetch.ask(request)?;
        let waited = wait(
            process,
            &self.notifier,
            &mut pending,
            &file,
            by_recovery,
            question,
        );
        waited.map_err(|why| {
            let error = Error::new(ErrorKind::Unavailable, why.message);
            match why.hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            }
        })?
    }
}

/// Who asks: recovery, or a program or person that wants this one file.
fn asker(process: Process, path: &Path) -> Result<Asker, Failure> {
    if !recovery::is_recoverys_own(path) {
        return Ok(Asker::Other);
    }
    let here = Path::new(".");
    let target = process.parameter(c"recovery_target_timeline")?;
    Ok(Asker::Recovery(Server {
        data_directory: PathBuf::from(here),
        phase: Phase::of(here),
        target: TargetTimeline::parse(&target.unwrap_or_default()),
        control: Control::read(here),
        system: Some(process.system_identifier()?),
        size: Some(process.segment_size()),
        missing_segment: settings::missing_segment(process),
    }))
}

/// The request as the archive's side understands it.
fn request(
    process: Process,
    file: &WalFileName,
    path: &Path,
    question: &Arc<Question>,
) -> Result<RestoreRequest, Failure> {
    Ok(RestoreRequest {
        name: *file,
        dest: path.to_path_buf(),
        in_line: recovery::is_recoverys_own(path),
        place: settings::archive(process)?,
        system: process.system_identifier()?,
        size: process.segment_size(),
        rule: Arc::clone(question) as Arc<dyn archive::Rule>,
        prefetch_max: settings::restore_prefetch(process),
        memory_limit: settings::memory_limit(process),
    })
}

/// Waits for the answer. A reload is no reason to give up: the answer is about this request, with the settings it
/// was made with.
fn wait(
    process: Process,
    notifier: &Notifier,
    pending: &mut PendingRequest<'_>,
    file: &WalFileName,
    by_recovery: bool,
    question: &Question,
) -> Result<Result<Answer, Error>, Failure> {
    let (begun, restore_timeout) = (Instant::now(), settings::restore_timeout(process));
    let mut patience = restore_timeout;
    let mut is_dispensable = false;
    let mut look = Some(begun + CONNECT_WAIT_MAX.min(PROGRESS_WAIT_MAX));
    let mut hurry = Some(begun + HURRY_AFTER);
    loop {
        notifier.reset();
        if let Some(answer) = pending.answer() {
            return Ok(answer);
        }
        let phase = Phase::of(Path::new("."));
        if by_recovery && !is_dispensable && goes_on_without(phase, file, question) {
            is_dispensable = true;
            let part = (restore_timeout / DISPENSABLE_PART).max(DISPENSABLE_WAIT_MIN);
            patience = patience.min(begun.elapsed() + part);
        }
        let deadline = begun + patience;
        let promotion =
            (by_recovery && !phase.stops()).then(|| Instant::now() + PROMOTION_LOOK_EVERY);
        let until = [look, hurry, promotion]
            .into_iter()
            .flatten()
            .fold(deadline, Instant::min);
        match process.wait(notifier.as_fd(), Some(until), false)? {
            Woken::Event | Woken::Reload => {}
            Woken::Shutdown | Woken::PostmasterGone => {
                return Err(Failure::new("the server is shutting down"));
            }
            Woken::Deadline if Instant::now() >= deadline => {
                let waited = patience.as_secs();
                return Err(Failure::new(format!("no answer within {waited} s")));
            }
            Woken::Deadline if hurry.take_if(|at| Instant::now() >= *at).is_some() => {
                pending.hurry();
            }
            Woken::Deadline if look.take_if(|at| Instant::now() >= *at).is_some() => {
                let waited = begun.elapsed().as_secs();
                if !pending.is_connected() {
                    let place = settings::archive_text(process);
                    return Err(Failure::new(format!(
                        "archive \"{place}\" has not answered within {waited} s"
                    )));
                }
                process.report(&Report::new(
                    Level::Log,
                    format!("restoring of file \"{file}\" has had no answer for {waited} s"),
                ));
            }
            Woken::Deadline => {}
        }
    }
}

/// Whether the server does not stop without this file, and either need not have it now or is to be promoted, which waits
/// for the answer. A standby asks for a new timeline again and again, and reads a segment that it has in `pg_wal` next.
fn goes_on_without(phase: Phase, file: &WalFileName, question: &Question) -> bool {
    match (phase, file) {
        (Phase::Targeted, _) => question.has_own(),
        (Phase::Ending, _) => true,
        (Phase::Standby, WalFileName::Segment(_)) => {
            question.has_own() || Path::new(PROMOTE_FILE).exists()
        }
        (Phase::Standby, _) => true,
    }
}

fn warning(notice: Notice) -> Report {
    let text = Failure::new(notice.message);
    Report::of(
        Level::Warning,
        match notice.hint {
            Some(hint) => text.hint(hint),
            None => text,
        },
    )
}

fn restored(file: &WalFileName, bytes: u64, ahead: bool, tally: Tally) -> Report {
    let how = if ahead { "fetched ahead" } else { "on demand" };
    let Tally {
        fetched,
        unused,
        depth,
    } = tally;
    let text = Failure::new(format!(
        "restored file \"{file}\" from the archive: {bytes} bytes ({how})"
    ));
    Report::of(
        Level::Debug1,
        text.detail(format!(
            "Fetched ahead so far: {fetched} segments, of which {unused} were not needed; at present {depth} at a \
             time."
        )),
    )
}

impl ArchiveCleanupModule for Recovery {
    /// Starts the cleanup and waits for it a moment only: a long one goes on beside the restores that follow,
    /// and what it has to say is said at the next restartpoint.
    fn archive_cleanup(&mut self, process: Process, keep: &KeepFrom) -> Result<(), Failure> {
        if let Some(cleanup) = self.cleanup.take()
            && !self.cleanup_ended(process, cleanup, Duration::ZERO)?
        {
            process.report(&Report::new(
                Level::Debug1,
                "the previous archive cleanup still goes on; this one is left to the next restartpoint",
            ));
            return Ok(());
        }
        let place = settings::archive(process)?;
        let system = process.system_identifier()?;
        let keep = *keep;
        let cleanup = Task::start("walden cleanup", move || {
            Archive::open(
                &place.location,
                place.options.clone(),
                spawn_with_signals_blocked,
            )?
            .clean_up(&keep, Some(system), &Cancel::new())
        })?;
        self.cleanup_ended(process, cleanup, CLEANUP_WAIT_MAX)
            .map(drop)
    }
}

impl RecoveryEndModule for Recovery {
    /// A directory archive needs nothing at the end of recovery but what any opening does: staged files of
    /// dead writers go.
    fn recovery_end(&mut self, process: Process, _: &KeepFrom) -> Result<(), Failure> {
        self.prefetch.forget();
        self.judge.forget();
        let what = "could not tidy the archive";
        let place = settings::archive(process)?;
        let tidying = Task::start("walden tidying", move || {
            Archive::open(
                &place.location,
                place.options.clone(),
                spawn_with_signals_blocked,
            )?
            .remove_leftovers()
        })?;
        let removed = tidying
            .join(process, RECOVERY_END_WAIT_MAX)
            .map_err(|why| Failure {
                message: format!("{what}: {}", why.message),
                ..why
            })?;
        let removed = removed.map_err(|error| failure::while_doing(what, &error))?;
        let level = if removed > 0 {
            Level::Log
        } else {
            Level::Debug1
        };
        process.report(&Report::new(
            level,
            format!("recovery has ended; removed {removed} staged files of dead writers from the archive"),
        ));
        Ok(())
    }
}

impl Recovery {
    /// Whether the cleanup has ended; if not within `wait_max` it is kept.
    fn cleanup_ended(
        &mut self,
        process: Process,
        mut cleanup: Task<Result<Cleaned, archive::Error>>,
        wait_max: Duration,
    ) -> Result<bool, Failure> {
        match cleanup.wait(process, Instant::now() + wait_max)? {
            Waited::Done(Ok(cleaned)) => {
                let Cleaned { files, bytes, .. } = cleaned;
                let report = match cleaned.range {
                    Some((first, last)) => Report::new(
                        Level::Log,
                        format!(
                            "removed {files} files, {bytes} bytes, from the archive: \"{first}\" to \"{last}\""
                        ),
                    ),
                    None => Report::new(Level::Debug1, "removed nothing from the archive"),
                };
                process.report(&report);
                Ok(true)
            }
            Waited::Done(Err(error)) => Err(failure::while_doing(
                "could not clean up the archive",
                &error,
            )),
            Waited::NotYet(_) => {
                self.cleanup = Some(cleanup);
                Ok(false)
            }
        }
    }
}
