//! Walden's own recovery module: restores from the archive, cleans it up, and tidies when recovery ends.
//!
//! Guarantees: "not in the archive" is said only when the archive said so and no later segment of the same
//! line exists; everything else is a failure, which the host turns into "could not tell".  Leaves to the host:
//! retries, the final name of a restored file, and what a standby is told.

use crate::failure;
use crate::settings::{self, ArchiveSettings};
use archive::{Archive, Cancel, Got, Hole, MissingSegment};
use module::{
    ArchiveCleanupModule, Failure, KeepFrom, Level, Module, Process, RecoveryEndModule, Report,
    RestoreModule, Restored, Task, Waited, WalFileName,
};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wal::SegmentName;

/// How long clean-up and the end of recovery may take.  A restartpoint waits for the first, the opening of the
/// server for the second, and what is left undone is done by the next restartpoint or the next archiver.
const TIDYING_WAIT_MAX: Duration = Duration::from_secs(300);

/// The module's own state: nothing but the open archive.
pub(crate) struct Recovery {
    open: Option<(ArchiveSettings, Arc<Archive>)>,
}

impl Module for Recovery {
    fn startup(_: Process) -> Result<Self, Failure> {
        Ok(Self { open: None })
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
        let (name, path) = (*file, path.to_path_buf());
        let what = format!("could not restore file \"{file}\" from the archive");
        let found = self.ask(
            process,
            timeout,
            &what,
            move |archive, cancel| match archive.get(&name, &path, Some(system), cancel)? {
                Got::Restored { bytes } => Ok(Found::Restored(bytes)),
                Got::Absent => absent(archive, &name),
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
    fn archive_cleanup(&mut self, process: Process, keep: &KeepFrom) -> Result<(), Failure> {
        let keep_from = *keep;
        let cleaned = self.ask(
            process,
            TIDYING_WAIT_MAX,
            "could not clean the archive up",
            move |archive, cancel| archive.clean_up(&keep_from, cancel),
        )?;
        process.report(&Report::new(
            Level::Debug1,
            format!(
                "removed {} files before \"{keep}\" from the archive",
                cleaned.files
            ),
        ));
        Ok(())
    }
}

impl RecoveryEndModule for Recovery {
    /// A directory archive needs nothing at the end of recovery but what any opening does: staged files of
    /// dead writers go.
    fn recovery_end(&mut self, process: Process, _: &KeepFrom) -> Result<(), Failure> {
        let removed = self.ask(
            process,
            TIDYING_WAIT_MAX,
            "could not tidy the archive",
            |archive, _| archive.remove_leftovers(),
        )?;
        process.report(&Report::new(
            Level::Debug1,
            format!("recovery has ended; removed {removed} staged files of dead writers from the archive"),
        ));
        Ok(())
    }
}

impl Recovery {
    /// Runs `work` on the open archive, on a helper thread, for at most `wait_max`.
    fn ask<T: Send + 'static>(
        &mut self,
        process: Process,
        wait_max: Duration,
        what: &str,
        work: impl FnOnce(&Archive, &Cancel) -> Result<T, archive::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let settings = ArchiveSettings::now(process)?;
        let known = match &self.open {
            Some((opened, archive)) if *opened == settings => Some(Arc::clone(archive)),
            _ => None,
        };
        let cancel = Cancel::new();
        let (asked, to_open) = (cancel.clone(), settings.clone());
        let mut task = Task::start("walden recovery", move || {
            let archive = match known {
                Some(archive) => archive,
                None => Arc::new(Archive::open(&to_open.location, to_open.options)?),
            };
            let answer = work(&archive, &asked)?;
            Ok::<_, archive::Error>((archive, answer))
        })?;
        // A reload is no reason to give up here: the answer is about this request, with these settings.
        let deadline = Instant::now() + wait_max;
        loop {
            match task.wait(process, deadline)? {
                Waited::Done(Ok((archive, answer))) => {
                    self.open = Some((settings, archive));
                    return Ok(answer);
                }
                Waited::Done(Err(error)) => {
                    // What was wrong may be the open archive itself (a stale handle, another mount).
                    self.open = None;
                    return Err(failure::while_doing(what, &error));
                }
                Waited::NotYet(module::Woken::Reload) if Instant::now() < deadline => {}
                Waited::NotYet(why) => {
                    cancel.cancel();
                    return Err(gave_up(what, why, wait_max));
                }
            }
        }
    }
}

fn gave_up(what: &str, why: module::Woken, wait_max: Duration) -> Failure {
    match why {
        module::Woken::Deadline => {
            Failure::new(format!("{what}: no answer within {} s", wait_max.as_secs()))
        }
        _ => Failure::new(format!("{what}: the server is shutting down")),
    }
}

/// Absent: or missing from the middle?
fn absent(archive: &Archive, name: &WalFileName) -> Result<Found, archive::Error> {
    let WalFileName::Segment(segment) = name else {
        return Ok(Found::Absent);
    };
    if in_pg_wal(segment) {
        // The server looks there next, so recovery does not end here (xlogrecovery.c, XLogFileRead).
        return Ok(Found::Absent);
    }
    Ok(archive.hole_at(segment)?.map_or(Found::Absent, Found::Hole))
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
