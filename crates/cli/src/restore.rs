//! `walden restore NAME DEST [LAST_RESTARTPOINT]`: one file from the archive, done by this process.
//!
//! Guarantees the three answers: restored, absent, could not tell. What is told follows from the rules of the crate `recovery`,
//! as with the library: this is the recovery module run in-process.
//! `pg_rewind` runs this too: from any directory, with the final path as DEST, backwards, without `%r`.
//! LAST_RESTARTPOINT is accepted, since the server offers it, and not used.
//! Left to others: fetching and checking (`archive`), and asking a worker instead (`client.rs`).

use crate::caller;
use crate::exit::Outcome;
use crate::file_mode;
use crate::flags::{Global, Restore};
use crate::progress::{Progress, Where};
use crate::say;
use crate::settings::{self, Chosen};
use archive::{Answer, Backoff, Cancel, Error, ErrorKind, Settings};
use recovery::{Asker, Control, Judge, Phase, Question, Server, TargetTimeline};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::sleep;
use std::time::{Duration, Instant};
use wal::SystemIdentifier;

/// The least an attempt is given, however short its retries are: a slow archive is not a dead one.
const ATTEMPT_WAIT_MIN: Duration = Duration::from_secs(10);

/// Runs the command.
pub(crate) fn run(flags: &Restore, global: &Global) -> Outcome {
    if caller::is_servers_own(&flags.dest) {
        caller::die_with_parent();
    }
    file_mode::like(settings::data_dir_of(&flags.dest).as_deref());
    if flags.name.is_never_written() {
        // Before the archive is even chosen: the end of a recovery must not depend on it.
        return Outcome::Absent;
    }
    match restore(flags, global) {
        Ok(outcome) => outcome,
        Err(error) => caller::could_not_restore(
            &flags.name.to_string(),
            &flags.dest,
            &error.to_string(),
            error.hint(),
        ),
    }
}

fn restore(flags: &Restore, global: &Global) -> Result<Outcome, Error> {
    let chosen = settings::choose(global, settings::data_dir_of(&flags.dest));
    let asker = asker(flags, chosen.as_ref().ok());
    let question = Arc::new(Judge::new().ask(flags.name, asker));
    let answer = chosen
        .and_then(|chosen| ask(flags, &chosen, &question))
        .or_else(|error| question.failed(error).map(Answer::Absent));
    match answer? {
        Answer::Restored { bytes, .. } => {
            if global.verbose {
                say::note(&format!("restored \"{}\", {bytes} bytes", flags.name));
            }
            Ok(Outcome::Done)
        }
        Answer::Absent(notices) => {
            for notice in notices {
                say::warning_with_hint(&notice.message, notice.hint.as_deref());
            }
            if global.verbose {
                say::note(&format!("\"{}\" is not in the archive", flags.name));
            }
            Ok(Outcome::Absent)
        }
    }
}

/// Who asks: the server that this data directory is of, or a person or program that wants this one file.
fn asker(flags: &Restore, chosen: Option<&Chosen>) -> Asker {
    let data_directory = settings::data_dir_of(&flags.dest);
    let (Some(data_directory), true) = (data_directory, caller::is_servers_own(&flags.dest)) else {
        return Asker::Other;
    };
    let control = Control::read(&data_directory);
    let conf = chosen.and_then(|chosen| chosen.conf.as_ref());
    let target = conf.and_then(|conf| conf.get("recovery_target_timeline"));
    Asker::Recovery(Server {
        phase: Phase::of(&data_directory),
        target: TargetTimeline::parse(target.unwrap_or_default()),
        control,
        system: recovery::system_of(&data_directory).ok(),
        size: control.and_then(|control| control.segment_size),
        missing_segment: chosen
            .map(|chosen| chosen.missing_segment(flags.missing_segment))
            .unwrap_or_default(),
        data_directory,
    })
}

/// Asks the archive, trying again as long as the server can wait.
fn ask(flags: &Restore, chosen: &Chosen, question: &Arc<Question>) -> Result<Answer, Error> {
    let given = flags.timeout.map_or_else(|| chosen.restore_timeout(), Ok)?;
    // A standby tries again by itself, and streams meanwhile; waiting here would delay both. And what the server has itself
    // it need not wait for.
    let waits = caller::may_stop(&flags.dest) && !question.has_own();
    let timeout = if waits { given } else { Duration::ZERO };
    let attempt = Arc::new(Attempt {
        question: Arc::clone(question),
        dest: flags.dest.clone(),
        chosen: chosen.settings.clone(),
        system: chosen.system()?,
    });
    // Never for a server, whose restore has to be quick and silent.
    let progress = (!caller::is_servers_own(&flags.dest))
        .then(|| Progress::start("restoring", Where::OnTerminal));
    let answer = retried(timeout, || bounded(&attempt, given.max(ATTEMPT_WAIT_MIN)));
    drop(progress);
    answer
}

/// All that one attempt needs, so that it can run on a thread of its own.
struct Attempt {
    question: Arc<Question>,
    dest: PathBuf,
    chosen: Settings,
    system: Option<SystemIdentifier>,
}

impl Attempt {
    fn fetch(&self, cancel: &Cancel) -> Result<Answer, Error> {
        let archive = self.chosen.open(archive::spawn_plainly)?;
        recovery::restore(&archive, &self.question, &self.dest, self.system, cancel)
    }
}

/// One attempt with an end: a file system that does not answer (a dead NFS server) must not hold recovery
/// for good. A thread that is stuck there ends with this process, and has published nothing.
fn bounded(attempt: &Arc<Attempt>, wait_max: Duration) -> Result<Answer, Error> {
    let (tell, answer) = sync_channel(1);
    let cancel = Cancel::new();
    let (theirs, asked) = (Arc::clone(attempt), cancel.clone());
    let thread = std::thread::Builder::new().spawn(move || {
        // The receiver may have gone; then the answer is not wanted.
        let _ = tell.send(theirs.fetch(&asked));
    });
    thread.map_err(|error| Error::io("could not start a thread", error))?;
    match answer.recv_timeout(wait_max) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => {
            cancel.cancel();
            let place = &attempt.chosen.location;
            let waited = wait_max.as_secs();
            let message = format!("archive \"{place}\" has not answered within {waited} s");
            Err(Error::new(ErrorKind::Unavailable, message))
        }
        // The thread panicked, and the hook has said so.
        Err(RecvTimeoutError::Disconnected) => Err(Error::new(
            ErrorKind::Unusable,
            "the attempt ended without an answer",
        )),
    }
}

/// Tries until it works, fails for good, or the time is up. Says once that it is trying again.
fn retried<T>(timeout: Duration, attempt: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    let deadline = Instant::now() + timeout;
    let mut backoff = Backoff::new();
    loop {
        let error = match attempt() {
            Err(error) if error.kind() == ErrorKind::Unavailable => error,
            other => return other,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(error);
        }
        if backoff.tries() == 0 {
            say::warning(&format!(
                "{error}; trying again for up to {} s",
                left.as_secs()
            ));
        }
        sleep(backoff.pause().min(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn only_what_may_work_next_time_is_tried_again_and_only_in_time() {
        let tries = Cell::new(0);
        let failing = |kind| {
            tries.set(0);
            let tries = &tries;
            move || {
                tries.set(tries.get() + 1);
                if tries.get() == 3 {
                    Ok(())
                } else {
                    Err(Error::new(kind, "x"))
                }
            }
        };
        assert!(retried(Duration::from_secs(20), failing(ErrorKind::Unavailable)).is_ok());
        assert_eq!(tries.get(), 3);
        assert!(retried(Duration::ZERO, failing(ErrorKind::Unavailable)).is_err());
        assert_eq!(tries.get(), 1);
        assert!(retried(Duration::from_secs(20), failing(ErrorKind::Damaged)).is_err());
        assert_eq!(tries.get(), 1);
    }
}
