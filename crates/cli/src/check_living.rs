//! What `walden check` says of the server that runs: its role, what it has still to archive, whether what it has archived is in
//! this archive, the space that is left, and the last base backup.
//!
//! Guarantees: nothing is changed, but that `--switch` has the server switch to a new segment; what could not be looked at is
//! "unknown" and never "passed". Left to others: settings in files, in `check_server.rs`.

use crate::archive_facts::Facts;
use crate::check_line::Line;
use crate::check_server::refused_by_server;
use crate::living::observed::Observed;
use crate::living::psql::Psql;
use crate::living::{Closed, Target};
use crate::say;
use crate::settings::Chosen;
use crate::status_screen::{hanging, lasting};
use crate::within::within;
use archive::{Archive, Error, Location};
use audit::size;
use recovery::Control;
use rustix::fs::statvfs;
use status::{Status, Task};
use std::path::Path;
use std::time::{Duration, Instant};
use wal::{Lsn, SegmentName, SegmentSize, WalFileName};

/// For how long a file may wait to be archived before that is worth a warning, in seconds.
const WAITS_S_MAX: f64 = 300.0;

/// What else is to be known of a module that hangs: the server waits for the process that is in it.
const HANGS_ON: &str = "A module that heeds no interrupts keeps a fast stop waiting without limit, too; only an immediate stop \
                        ends it, after which the next start recovers from the crash.";

/// How old the last base backup may be before that is worth a warning, in seconds.
const BACKUP_AGE_S_MAX: f64 = 8.0 * 86_400.0;

/// Below so many segments of space nothing goes on for long.
const SEGMENTS_FREE_MIN: u64 = 8;

/// Below this part of the file system, in percent, space is worth a warning.
const PERCENT_FREE_MIN: u64 = 5;

/// How long writing to the archive's disk, and looking at what is stored, may take.
const TRIAL_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long `--switch` waits for the segment to be archived.
const SWITCH_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often it looks.
const SWITCH_LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks at the server. `archive`: opened before; `None` if it could not be.
pub(crate) fn check(
    target: &Target,
    archive: Option<&Archive>,
    switch: bool,
    lines: &mut Vec<Line>,
) {
    let asked = target.session().and_then(|session| {
        let observe = |mut session| Observed::ask(&mut session).map(|it| (session, it));
        session.map(observe).transpose()
    });
    match asked {
        Ok(Some((mut session, observed))) => {
            observed_lines(&observed, archive, lines);
            lines.extend(refused_by_server(&mut session));
            if switch {
                lines.push(switched(&mut session));
            }
            return;
        }
        Ok(None) => lines.push(Line::failed("no server runs there", "Start the server.")),
        Err(error) => match target.closed() {
            Some(Ok(closed)) => closed_lines(&closed, target, lines),
            Some(Err(why)) => {
                lines.push(unknown(target, &error));
                lines.push(Line::unknown(
                    format!("what recovery does: {why}"),
                    "Run this as the server's user, and look into the server's log.",
                ));
            }
            None => lines.push(unknown(target, &error)),
        },
    }
    if switch {
        lines.push(Line::unknown(
            "whether a switched segment is archived: no session asked the server to switch",
            "Ask again once the server lets sessions in.",
        ));
    }
}

/// A server that lets no session in, by what its recovery worker is shown.
fn closed_lines(closed: &Closed, target: &Target, lines: &mut Vec<Line>) {
    let role = if closed.is_standby {
        "a standby"
    } else {
        "in recovery"
    };
    lines.push(Line::warning(
        format!("server runs, is {role}, and lets no session in"),
        "Wait until it is consistent: \"walden status --watch\" shows what it restores. With hot_standby = off none is let in.",
    ));
    // After a crash there is what the last archiver left, and on a primary no other before recovery has ended.
    let shown = closed.document.archiver.as_ref();
    if let Some(shown) = shown.filter(|shown| shown.live || closed.is_standby) {
        archiver(&closed.document, shown, lines);
    }
    lines.extend(recovery(&closed.document, true));
    if let Target::Directory(directory) = target {
        let size = Control::read(directory).and_then(|it| it.segment_size);
        let size = size.unwrap_or(SegmentSize::DEFAULT);
        lines.push(space("pg_wal", &directory.join("pg_wal"), size.bytes()));
    }
}

/// A server that cannot be asked.
fn unknown(target: &Target, error: &Error) -> Line {
    let state = target.running().map_or_else(String::new, |running| {
        format!(" (it is \"{}\" by its postmaster.pid)", running.state)
    });
    Line::unknown(
        format!("the server could not be asked{state}: {error}"),
        error
            .hint()
            .unwrap_or("Run this as the server's user, or name a role of pg_monitor with -d."),
    )
}

fn observed_lines(observed: &Observed, archive: Option<&Archive>, lines: &mut Vec<Line>) {
    let role = if observed.in_recovery {
        "in recovery"
    } else {
        "a primary"
    };
    let up = lasting(observed.now - observed.started);
    lines.push(Line::passed(format!(
        "server runs PostgreSQL {}, is {role}, up {up}",
        observed.version
    )));
    if observed.archives_through_walden() {
        through_walden(observed.status.as_ref(), lines);
        if let Some(archive) = archive {
            lines.push(follows(observed, archive));
        }
    }
    if !observed.archives_through_walden() {
        lines.extend(not_through_walden(observed));
    }
    if let Some(document) = &observed.status {
        lines.extend(recovery(document, observed.in_recovery));
    }
    if let Some(directory) = observed.data_directory.as_deref().map(Path::new)
        && directory.is_dir()
    {
        let pg_wal = directory.join("pg_wal");
        lines.push(space("pg_wal", &pg_wal, observed.segment_bytes));
    }
}

/// What the recovery worker says of itself, if there is one and a recovery goes on; a module that hangs does so behind that, too.
fn recovery(document: &Status, in_recovery: bool) -> Option<Line> {
    let worker = document.recovery.as_ref()?;
    if let Some(call) = worker.hangs().filter(|_| worker.live) {
        let look = match call.task {
            Task::Load | Task::Restore => {
                "If it is only slow, raise walden.restore_timeout. If not, look"
            }
            _ => "Look",
        };
        let cure = format!(
            "{look} at what process {} waits for. {HANGS_ON}",
            worker.pid
        );
        return Some(Line::failed(hanging(call), cure));
    }
    if !in_recovery {
        return None;
    }
    if !worker.live {
        return Some(Line::failed(
            "the recovery worker has said nothing for ten seconds, or is dead",
            "Look for its process, and into the server's log.",
        ));
    }
    let Some((since, failure)) = worker.failing(document.at, true) else {
        return Some(Line::passed("recovery gets its files"));
    };
    let found = format!(
        "recovery has not been told of its files for {}: {}",
        lasting(document.at - since),
        failure.message
    );
    let hint = failure.hint.as_deref();
    Some(Line::failed(
        found,
        hint.unwrap_or("Look into the server's log."),
    ))
}

/// What is said of a server whose archiver is not Walden's: with a data directory its files are looked at as well.
fn not_through_walden(observed: &Observed) -> Option<Line> {
    let library = observed.archive_library.as_deref().unwrap_or_default();
    match observed.archive_mode.as_str() {
        "off" if observed.in_recovery => None,
        "off" => Some(Line::failed(
            "archive_mode is \"off\", nothing is archived",
            "Set archive_mode = on and restart the server.",
        )),
        "on" if observed.in_recovery => None,
        _ if library.is_empty() => Some(Line::warning(
            "the server archives by a command, of which it says nothing here",
            "Set archive_library = 'walden', empty archive_command, and reload.",
        )),
        _ => Some(Line::warning(
            format!("the server archives through \"{library}\", of which it says nothing here"),
            "Set archive_library = 'walden' and reload.",
        )),
    }
}

/// What is said of a server that is to archive through Walden.
fn through_walden(document: Option<&Status>, lines: &mut Vec<Line>) {
    let Some(document) = document else {
        lines.push(Line::unknown(
            "what the archiver does: the server has not preloaded Walden",
            "Add walden to shared_preload_libraries and restart the server.",
        ));
        return;
    };
    let Some(shown) = &document.archiver else {
        lines.push(Line::failed(
            "no archiver has loaded Walden since the server's start",
            "Look into the server's log for why.",
        ));
        return;
    };
    archiver(document, shown, lines);
}

/// What an archiver says of itself.
fn archiver(document: &Status, shown: &status::Archiver, lines: &mut Vec<Line>) {
    if !shown.live {
        lines.push(Line::failed(
            "the archiver has said nothing for ten seconds, or is dead",
            "Look for its process, and into the server's log.",
        ));
        return;
    }
    lines.push(fails(shown, document.at));
    let Some(pending) = document.pending() else {
        lines.push(Line::unknown(
            "what is to be archived has not been counted for ten seconds",
            "Look whether the disk of \"pg_wal\" answers.",
        ));
        return;
    };
    let waits = pending.oldest_since.map(|since| document.at - since);
    let found = match (&pending.oldest, waits) {
        (Some(oldest), Some(waits)) => format!(
            "{} to be archived, {}; \"{oldest}\" for {}",
            say::counted(pending.files, "file"),
            size(pending.bytes),
            lasting(waits)
        ),
        _ => "nothing waits to be archived".to_owned(),
    };
    lines.push(if waits.is_some_and(|waits| waits > WAITS_S_MAX) {
        Line::warning(
            found,
            "If archiving does not fail, the archive is slower than the server writes: see walden.archive_jobs.",
        )
    } else {
        Line::passed(found)
    });
}

/// Whether the archiver gets its files archived.
fn fails(shown: &status::Archiver, now: f64) -> Line {
    if let Some(call) = shown.hangs() {
        let cure = format!(
            "If it is only slow, raise walden.archive_timeout. If not, look at what process {} waits for. {HANGS_ON}",
            shown.pid
        );
        return Line::failed(hanging(call), cure);
    }
    match shown.failing_since.zip(shown.last_failure.as_ref()) {
        Some((since, failure)) => Line::failed(
            format!(
                "archiving has failed for {} ({}): {}",
                lasting(now - since),
                failure.cause.word(),
                failure.message
            ),
            failure
                .hint
                .as_deref()
                .unwrap_or("Look into the server's log."),
        ),
        None => Line::passed("archiving does not fail"),
    }
}

/// Whether the segment before those that are not archived is in this archive: the server may archive elsewhere.
fn follows(observed: &Observed, archive: &Archive) -> Line {
    let last = last_archived(observed);
    let Some(last) = last else {
        return Line::unknown("which segment was archived last", "Ask again in a moment.");
    };
    let there =
        format!("\"{last}\", the last segment before what is not archived, is in this archive");
    // One request, in place of a listing, where nothing is wrong.
    if matches!(archive.form_of(&last.to_string()), Ok(Some(_))) {
        return Line::passed(there);
    }
    let mut is_empty = true;
    let mut is_there = false;
    let looked = archive.each(&mut |found| {
        if let archive::Found::File(stored) = found {
            is_empty = false;
            // Of its timeline, or of the one that it began in this segment's place.
            is_there |= match stored.name {
                WalFileName::Segment(name) | WalFileName::Partial(name) => {
                    name.position() == last.position() && name.timeline() <= last.timeline()
                }
                _ => false,
            };
        }
        std::ops::ControlFlow::Continue(())
    });
    match looked {
        Err(error) => Line::unknown(
            format!("whether \"{last}\" is archived: {error}"),
            error
                .hint()
                .unwrap_or("Let the server's user read the archive."),
        ),
        Ok(()) if is_there => Line::passed(there),
        Ok(()) if is_empty => Line::warning(
            "nothing is archived yet",
            "Wait for the first segment, or switch with --switch.",
        ),
        Ok(()) => Line::failed(
            format!("\"{last}\", which the server takes for archived, is not in this archive"),
            "Does the server archive elsewhere, or was it removed? Take a base backup once that is cured.",
        ),
    }
}

fn last_archived(observed: &Observed) -> Option<SegmentName> {
    let size = SegmentSize::new(observed.segment_bytes).ok()?;
    observed.first_unarchived()?.previous(size)
}

/// The space that is left where a directory lies.
pub(crate) fn space(what: &str, directory: &Path, segment_bytes: u64) -> Line {
    let space = match statvfs(directory) {
        Ok(space) => space,
        Err(cause) => {
            let what = format!("how much space \"{what}\" has");
            let error = Error::io(what, cause.into());
            return Line::unknown(error.to_string(), "Run the check as the server's user.");
        }
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let all = space.f_blocks.saturating_mul(space.f_frsize);
    let found = format!("\"{what}\" has {} of {} free", size(free), size(all));
    let cure =
        "Make room, or move it to a larger file system; never remove files from pg_wal by hand.";
    if free < segment_bytes.saturating_mul(SEGMENTS_FREE_MIN) {
        Line::failed(found, cure)
    } else if free / 100 < (all / 100).saturating_mul(PERCENT_FREE_MIN) / 100 {
        Line::warning(found, cure)
    } else {
        Line::passed(found)
    }
}

/// Space, and a write that goes to the disk and is taken back, where a directory archive lies.
pub(crate) fn directory(location: &Location, lines: &mut Vec<Line>) {
    let Some(path) = location.path().map(Path::to_owned) else {
        return;
    };
    let what = format!("archive \"{location}\"");
    let tried = within(&what, TRIAL_WAIT_MAX, move || {
        let space = space("archive", &path, SegmentSize::DEFAULT.bytes());
        Ok((space, archive::try_to_write(&path)))
    });
    let (space, written) = match tried {
        Ok(tried) => tried,
        Err(error) => {
            lines.push(Line::error(&error, "Is its file system alive?"));
            return;
        }
    };
    lines.push(space);
    lines.push(match written {
        Ok(bytes) => Line::passed(format!(
            "{} were written to the archive's disk and taken back",
            size(bytes)
        )),
        Err(error) => Line::error(&error, "Let the server's user write there, and make room."),
    });
}

/// The last base backup.
pub(crate) fn backups(chosen: Chosen) -> Line {
    let facts = match Facts::of_place(chosen, TRIAL_WAIT_MAX) {
        Ok(facts) => facts,
        Err(error) => {
            return Line::unknown(
                format!("which base backups there are: {error}"),
                error
                    .hint()
                    .unwrap_or("Let the server's user read the archive."),
            );
        }
    };
    let take = "Take a base backup, with pg_basebackup say.";
    if let Some(trouble) = facts.trouble.first() {
        return Line::unknown(
            format!("what the last base backup reaches: {trouble}"),
            "Let this user read the archive, with the identity file if it is encrypted.",
        );
    }
    let Some(backup) = &facts.last_backup else {
        return Line::warning(
            "no base backup has left a backup history file in the archive: nothing can be recovered from it alone",
            take,
        );
    };
    if !facts.last_reaches_end {
        let why = facts.first_hole.as_deref();
        let why = why.unwrap_or("its own WAL is not all there");
        let file = &backup.file;
        return Line::failed(
            format!("the last base backup \"{file}\" does not reach the end of WAL: {why}"),
            take,
        );
    }
    let age = facts.at - backup.at;
    let found = format!(
        "last base backup \"{}\", ended {} ago",
        backup.file,
        lasting(age)
    );
    if age > BACKUP_AGE_S_MAX {
        Line::warning(found, take)
    } else {
        Line::passed(found)
    }
}

/// Has the server switch to a new segment, and waits until the old one is archived.
fn switched(session: &mut Psql) -> Line {
    let mut switch = || -> Result<Option<Duration>, Error> {
        // A segment in which nothing has been written is not left.
        session.ask("select pg_catalog.pg_logical_emit_message(false, 'walden', 'check')")?;
        let end = session.ask("select pg_catalog.pg_switch_wal()")?;
        let switched_at = Observed::ask(session)?.now;
        let begun = Instant::now();
        while begun.elapsed() < SWITCH_WAIT_MAX {
            let observed = Observed::ask(session)?;
            let end = end.trim().parse::<Lsn>().ok();
            // What was looked at before the switch says nothing of it.
            let is_news = observed
                .unarchived()
                .is_some_and(|it| it.looked_at > switched_at);
            if is_news && observed.archived_through() >= end && end.is_some() {
                return Ok(Some(begun.elapsed()));
            }
            std::thread::park_timeout(SWITCH_LOOK_EVERY);
        }
        Ok(None)
    };
    match switch() {
        Ok(Some(took)) => Line::passed(format!(
            "a segment was switched and archived within {}",
            lasting(took.as_secs_f64().ceil())
        )),
        Ok(None) => Line::failed(
            format!(
                "a segment was switched and is not archived after {} s",
                SWITCH_WAIT_MAX.as_secs()
            ),
            "\"walden status\" shows what keeps it back.",
        ),
        Err(error) => Line::unknown(
            format!("whether a switched segment is archived: {error}"),
            "Switching takes a superuser, or a role with EXECUTE on pg_switch_wal, on a primary.",
        ),
    }
}

#[cfg(test)]
mod tests;
