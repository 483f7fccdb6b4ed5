//! `walden restore NAME DEST [LAST_RESTARTPOINT]`: one file from the archive, done by this process.
//!
//! Guarantees the three answers: restored, absent, could not tell. Only the archive's own word makes a
//! file absent, and an absent segment with later ones behind it is a hole, hence "could not tell",
//! unless `--missing-segment end` says otherwise or the server has the segment in its own `pg_wal`.
//! `pg_rewind` runs this too: from any directory, with the final path as DEST, backwards, without `%r`.
//! LAST_RESTARTPOINT is accepted, since the server offers it, and not used.
//! Left to others: fetching and checking (`archive`), and asking a worker instead (`client.rs`).

use crate::caller;
use crate::client::{self, Call};
use crate::exit::Outcome;
use crate::flags::{Global, Restore};
use crate::progress::{Progress, Where};
use crate::say;
use crate::settings;
use archive::{Backoff, Cancel, Error, ErrorKind, Got, Hole, MissingSegment, Settings};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::sleep;
use std::time::{Duration, Instant};
use wal::{SegmentName, SystemIdentifier, WalFileName};
use wire::Request;

/// The least an attempt is given, however short its retries are: a slow archive is not a dead one.
const ATTEMPT_WAIT_MIN: Duration = Duration::from_secs(10);

/// Runs the command.
pub(crate) fn run(flags: &Restore, global: &Global) -> Outcome {
    if let Some(library) = &flags.client.library {
        return client::run(&Call {
            library: library.clone(),
            single_user: flags.client.single_user,
            request: Request::Restore {
                file: flags.name.to_string(),
                path: flags.dest.display().to_string(),
                last_restartpoint: flags.last_restartpoint.clone().unwrap_or_default(),
            },
        });
    }
    if caller::is_servers_own(&flags.dest) {
        caller::die_with_parent();
    }
    if flags.name.is_never_written() {
        // Before the archive is even chosen: the end of a recovery must not depend on it.
        return Outcome::Absent;
    }
    match restore(flags, global) {
        Ok(outcome) => outcome,
        Err(error) if server_falls_back_on_own(flags) => {
            say::warning(&format!(
                "{error}; the server has its own copy of \"{}\"",
                flags.name
            ));
            Outcome::Absent
        }
        Err(error) => caller::could_not_restore(
            &flags.name.to_string(),
            &flags.dest,
            &error.to_string(),
            error.hint(),
        ),
    }
}

fn restore(flags: &Restore, global: &Global) -> Result<Outcome, Error> {
    let chosen = settings::choose(global, settings::data_dir_of(&flags.dest))?;
    let system = chosen.system()?;
    let given = flags.timeout.unwrap_or(chosen.restore_timeout);
    let timeout = match caller::may_stop(&flags.dest) {
        true => given,
        // A standby tries again by itself, and streams meanwhile; waiting here would delay both.
        false => Duration::ZERO,
    };
    let attempt_wait_max = given.max(ATTEMPT_WAIT_MIN);
    let attempt = Arc::new(Attempt {
        name: flags.name,
        dest: flags.dest.clone(),
        chosen: chosen.settings.clone(),
        system,
    });
    // Never for a server, whose restore has to be quick and silent.
    let progress = (!caller::is_servers_own(&flags.dest))
        .then(|| Progress::start("restoring", Where::OnTerminal));
    let found = retried(timeout, || bounded(&attempt, attempt_wait_max));
    drop(progress);
    match found? {
        Found::Restored { bytes } => {
            if global.verbose {
                let from = &chosen.settings.location;
                say::note(&format!(
                    "restored \"{}\" from \"{from}\", {bytes} bytes",
                    flags.name
                ));
            }
            Ok(Outcome::Done)
        }
        Found::Absent => {
            if global.verbose {
                let from = &chosen.settings.location;
                say::note(&format!("\"{}\" is not in \"{from}\"", flags.name));
            }
            Ok(Outcome::Absent)
        }
        Found::Hole(hole) => {
            let described = describe(&hole);
            match chosen.missing_segment(flags.missing_segment) {
                MissingSegment::Error => Err(Error::new(ErrorKind::Damaged, described).with_hint(
                    "Bring the missing segment back, or let recovery end before it with \
                     --missing-segment end (walden.missing_segment = 'end').",
                )),
                MissingSegment::End => {
                    say::warning(&format!("{described}; recovery may end here"));
                    Ok(Outcome::Absent)
                }
            }
        }
    }
}

/// What one attempt found out.
enum Found {
    Restored { bytes: u64 },
    Absent,
    Hole(Hole),
}

/// All that one attempt needs, so that it can run on a thread of its own.
struct Attempt {
    name: WalFileName,
    dest: PathBuf,
    chosen: Settings,
    system: Option<SystemIdentifier>,
}

impl Attempt {
    fn fetch(&self, cancel: &Cancel) -> Result<Found, Error> {
        let archive = self.chosen.open(archive::spawn_plainly)?;
        match archive.get(&self.name, &self.dest, self.system, cancel)? {
            Got::Restored { bytes } => Ok(Found::Restored { bytes }),
            Got::Absent => match &self.name {
                WalFileName::Segment(segment) if !server_has(segment, &self.dest) => Ok(archive
                    .hole_at(segment, None)?
                    .map_or(Found::Absent, Found::Hole)),
                // A standby asks again and again, and goes on with what it has.
                WalFileName::TimelineHistory(timeline) if caller::may_stop(&self.dest) => {
                    archive.must_have_no_wal_of(*timeline)?;
                    Ok(Found::Absent)
                }
                _ => Ok(Found::Absent),
            },
        }
    }
}

/// One attempt with an end: a file system that does not answer (a dead NFS server) must not hold recovery
/// for good.  A thread that is stuck there ends with this process, and has published nothing.
fn bounded(attempt: &Arc<Attempt>, wait_max: Duration) -> Result<Found, Error> {
    let (tell, answer) = sync_channel(1);
    let cancel = Cancel::new();
    let (theirs, asked) = (Arc::clone(attempt), cancel.clone());
    let thread = std::thread::Builder::new().spawn(move || {
        // Nobody may listen any more; then the answer is not wanted.
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

/// Whether the segment lies where DEST shall: the server looks into its own `pg_wal` after the archive
/// (`XLogFileReadAnyTLI`, `xlogrecovery.c`, 15 to 18), so nothing is missing for it.
fn server_has(segment: &SegmentName, dest: &Path) -> bool {
    settings::data_dir_of(dest).is_some() && dest.with_file_name(segment.to_string()).is_file()
}

/// Whether this is a timeline history file that the server already keeps in its `pg_wal`: it never
/// changes, and "absent" makes the server take that copy (`RestoreArchivedFile`, `xlogarchive.c`, 15 to 18).
fn server_falls_back_on_own(flags: &Restore) -> bool {
    matches!(flags.name, WalFileName::TimelineHistory(_))
        && caller::is_servers_own(&flags.dest)
        && flags.dest.with_file_name(flags.name.to_string()).is_file()
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

/// A hole in words: the missing segment, and what lies behind it.
fn describe(hole: &Hole) -> String {
    let later = hole.later.join("\", \"");
    let shown = u64::try_from(hole.later.len()).unwrap_or(u64::MAX);
    let more = match hole.later_count.saturating_sub(shown) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "segment \"{}\" is missing from the archive, which holds later WAL: \"{later}\"{more}",
        hole.missing
    )
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

    #[test]
    fn a_hole_is_described_by_the_missing_segment_and_the_later_ones() {
        let mut hole = Hole {
            missing: "000000010000000000000005".parse().unwrap(),
            later: vec![
                "000000010000000000000006".into(),
                "000000010000000000000007".into(),
            ],
            later_count: 2,
        };
        assert_eq!(
            describe(&hole),
            "segment \"000000010000000000000005\" is missing from the archive, which holds later \
             WAL: \"000000010000000000000006\", \"000000010000000000000007\""
        );
        hole.later_count = 9;
        assert!(describe(&hole).ends_with("\" and 7 more"));
    }
}
