//! Walden's own recovery module: restores from the archive, cleans it up, and tidies when recovery ends.
//!
//! Guarantees: "not in the archive" is said only when the archive said so and no later segment of the same
//! line exists; everything else is a failure, which the host turns into "could not tell".  Leaves to the host:
//! retries, the final name of a restored file, and what a standby is told.

use crate::failure;
use crate::settings::{self, ArchiveSettings};
use archive::{Archive, Cancel, Cleaned, Got, Hole, MissingSegment};
use module::{
    ArchiveCleanupModule, Failure, KeepFrom, Level, Module, Process, RecoveryEndModule, Report,
    RestoreModule, Restored, Task, Waited, WalFileName, Woken,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use wal::{SegmentName, SegmentSize};

/// How long a restartpoint waits for its cleanup.  Usually it is done by then; the restores of a standby should
/// not have to wait for one that is not.
const CLEANUP_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long the opening of the server waits for tidying; what is left undone is done by the next archiver.
const RECOVERY_END_WAIT_MAX: Duration = Duration::from_secs(10);
/// How many requests may be stuck in an archive that does not answer (a dead NFS server): each keeps a thread.
const STUCK_MAX: usize = 4;

/// The module's own state.
pub(crate) struct Recovery {
    open: Option<(ArchiveSettings, Arc<Archive>)>,
    cleanup: Option<Task<Result<Cleaned, archive::Error>>>,
    stuck: Vec<Asking>,
}

impl Module for Recovery {
    fn startup(_: Process) -> Result<Self, Failure> {
        Ok(Self {
            open: None,
            cleanup: None,
            stuck: Vec::new(),
        })
    }
}

enum Found {
    Restored(u64),
    Absent,
    Hole(Hole),
}

impl RestoreModule for Recovery {
    fn restore(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
        _last_restartpoint: &KeepFrom,
    ) -> Result<Restored, Failure> {
        let system = process.system_identifier()?;
        let timeout = settings::restore_timeout(process);
        let size = process.segment_size();
        let (name, path) = (*file, path.to_path_buf());
        let what = format!("could not restore file \"{file}\" from the archive");
        let found = self.ask(
            process,
            timeout,
            &what,
            move |archive, cancel| match archive.get(&name, &path, Some(system), cancel)? {
                Got::Restored { bytes } => Ok(Found::Restored(bytes)),
                Got::Absent => absent(archive, &name, size),
            },
        )?;
        match found {
            Found::Restored(bytes) => {
                process.report(&Report::new(
                    Level::Debug1,
                    format!("restored file \"{file}\" from the archive: {bytes} bytes"),
                ));
                Ok(Restored::Yes)
            }
            Found::Absent => Ok(Restored::NotInArchive),
            Found::Hole(hole) => missing(process, &hole),
        }
    }
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
        let settings = ArchiveSettings::now(process)?;
        let system = process.system_identifier()?;
        let keep = *keep;
        let cleanup = Task::start("walden cleanup", move || {
            Archive::open(&settings.location, settings.options)?.clean_up(
                &keep,
                Some(system),
                &Cancel::new(),
            )
        })?;
        self.cleanup_ended(process, cleanup, CLEANUP_WAIT_MAX)
            .map(drop)
    }
}

impl RecoveryEndModule for Recovery {
    /// A directory archive needs nothing at the end of recovery but what any opening does: staged files of
    /// dead writers go.
    fn recovery_end(&mut self, process: Process, _: &KeepFrom) -> Result<(), Failure> {
        let what = "could not tidy the archive";
        let removed = self.ask(process, RECOVERY_END_WAIT_MAX, what, |archive, _| {
            archive.remove_leftovers()
        })?;
        process.report(&Report::new(
            Level::Debug1,
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
                let Cleaned { files, bytes } = cleaned;
                process.report(&Report::new(
                    Level::Debug1,
                    format!("removed {files} files, {bytes} bytes, from the archive"),
                ));
                Ok(true)
            }
            Waited::Done(Err(error)) => Err(failure::while_doing(
                "could not clean the archive up",
                &error,
            )),
            Waited::NotYet(_) => {
                self.cleanup = Some(cleanup);
                Ok(false)
            }
        }
    }

    /// Runs `work` on the open archive, on a helper thread, for at most `wait_max`.
    fn ask<T: Send + 'static>(
        &mut self,
        process: Process,
        wait_max: Duration,
        what: &str,
        work: impl FnOnce(&Archive, &Cancel) -> Result<T, archive::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let settings = ArchiveSettings::now(process)?;
        self.stuck.retain(|stuck| !stuck.thread.is_finished());
        if self.stuck.len() >= STUCK_MAX {
            return Err(Failure::new(format!(
                "{what}: archive \"{}\" still has not answered {STUCK_MAX} earlier requests",
                settings.location
            )));
        }
        let known = match &self.open {
            Some((opened, archive)) if *opened == settings => Some(Arc::clone(archive)),
            _ => None,
        };
        let cancel = Cancel::new();
        let (asked, to_open) = (cancel.clone(), settings.clone());
        let (tell, answer) = sync_channel(1);
        // The answer travels beside the task, so that tasks of all kinds of work can be kept together.
        let mut asking = Asking {
            cancel,
            thread: Task::start("walden recovery", move || {
                let archive = match known {
                    Some(archive) => Ok(archive),
                    None => Archive::open(&to_open.location, to_open.options).map(Arc::new),
                };
                let answer = archive.and_then(|archive| {
                    let answer = work(&archive, &asked)?;
                    Ok::<_, archive::Error>((archive, answer))
                });
                let _ = tell.send(answer);
            })?,
        };
        match asking.wait(process, wait_max) {
            Ok(()) => {}
            Err(why) => {
                asking.cancel.cancel();
                self.stuck.push(asking);
                return Err(Failure {
                    message: format!("{what}: {}", why.message),
                    ..why
                });
            }
        }
        match answer.try_recv() {
            Ok(Ok((archive, answer))) => {
                self.open = Some((settings, archive));
                Ok(answer)
            }
            Ok(Err(error)) => {
                // What was wrong may be the open archive itself (a stale handle, another mount).
                self.open = None;
                Err(failure::while_doing(what, &error))
            }
            Err(_) => Err(Failure::new(format!(
                "{what}: the work ended without an answer"
            ))),
        }
    }
}

/// Work on a helper thread, and how to tell it that nobody waits any more.
struct Asking {
    cancel: Cancel,
    thread: Task<()>,
}

impl Asking {
    /// Waits for the end of the work.  A reload is no reason to give up: the answer is about this request, with
    /// the settings it was made with.
    fn wait(&mut self, process: Process, wait_max: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + wait_max;
        loop {
            match self.thread.wait(process, deadline)? {
                Waited::Done(()) => return Ok(()),
                Waited::NotYet(Woken::Reload) if Instant::now() < deadline => {}
                Waited::NotYet(Woken::Shutdown | Woken::PostmasterGone) => {
                    return Err(Failure::new("the server is shutting down"));
                }
                Waited::NotYet(_) => {
                    let waited = wait_max.as_secs();
                    return Err(Failure::new(format!("no answer within {waited} s")));
                }
            }
        }
    }
}

/// Absent: or missing from the middle?
fn absent(
    archive: &Archive,
    name: &WalFileName,
    size: SegmentSize,
) -> Result<Found, archive::Error> {
    let WalFileName::Segment(segment) = name else {
        return Ok(Found::Absent);
    };
    if in_pg_wal(segment) {
        // The server looks there next, so recovery does not end here (xlogrecovery.c, XLogFileRead).
        return Ok(Found::Absent);
    }
    Ok(archive
        .hole_at(segment, Some(size))?
        .map_or(Found::Absent, Found::Hole))
}

fn in_pg_wal(segment: &SegmentName) -> bool {
    Path::new("pg_wal").join(segment.to_string()).exists()
}

fn missing(process: Process, hole: &Hole) -> Result<Restored, Failure> {
    let missing = &hole.missing;
    let message =
        format!("segment \"{missing}\" is missing from the archive, which holds later ones");
    let text = Failure::new(message).detail(later(hole));
    match settings::missing_segment(process) {
        MissingSegment::Error => Err(text.hint(format!(
            "Bring segment \"{missing}\" back into the archive, or set \"walden.missing_segment\" to \"end\" \
             to end recovery before it."
        ))),
        MissingSegment::End => {
            let text = text.hint("Recovery ends before it, as \"walden.missing_segment\" asks.");
            process.report(&Report::of(Level::Warning, text));
            Ok(Restored::NotInArchive)
        }
    }
}

fn later(hole: &Hole) -> String {
    let named = u64::try_from(hole.later.len()).unwrap_or(u64::MAX);
    let names = hole
        .later
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect::<Vec<_>>()
        .join(", ");
    match hole.later_count.saturating_sub(named) {
        0 => format!("Later segments: {names}."),
        more => format!("Later segments: {names} and {more} more."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_later_segments_is_cut_and_counted() {
        let hole = |names: &[&str], later_count| Hole {
            missing: "000000010000000000000005".parse().unwrap(),
            later: names.iter().map(|name| (*name).to_owned()).collect(),
            later_count,
        };
        assert_eq!(
            later(&hole(&["a", "b"], 2)),
            "Later segments: \"a\", \"b\"."
        );
        assert_eq!(later(&hole(&["a"], 9)), "Later segments: \"a\" and 8 more.");
    }
}
