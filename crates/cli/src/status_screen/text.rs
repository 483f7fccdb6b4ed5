//! The screen of `walden status` as people read it.

use super::Screen;
use crate::archive_facts::Facts;
use crate::say;
use audit::size;
use audit::timestamp::readable;
use status::Task;
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};
use wal::Timestamp;

impl Screen {
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.server_text(&mut text);
        self.archiving_text(&mut text);
        self.archive_text(&mut text);
        self.recovery_text(&mut text);
        for unknown in &self.unknown {
            row(&mut text, "unknown", unknown);
        }
        text
    }

    fn server_text(&self, text: &mut String) {
        let server = &self.server;
        let mut said = match (server.state, &server.version) {
            ("running", Some(version)) => format!("PostgreSQL {version}"),
            ("closed", _) => "running, lets no session in".to_owned(),
            (state, _) => state.to_owned(),
        };
        if let Some(role) = server.role {
            let _ = write!(said, ", {role}");
        }
        if let Some(timeline) = server.timeline {
            let _ = write!(said, ", timeline {timeline}");
        }
        if let Some(started) = server.started {
            let _ = write!(said, ", up {}", lasting(self.at - started));
        }
        row(text, "server", &said);
    }

    fn archiving_text(&self, text: &mut String) {
        let shown = self.status.as_ref().and_then(|it| it.archiver.as_ref());
        let failing = shown.and_then(|shown| shown.failing_since.zip(shown.last_failure.as_ref()));
        let is_off = self.server.archive_mode.as_deref() == Some("off");
        let is_live = shown.is_some_and(|shown| shown.live);
        let hangs = shown.and_then(status::Archiver::hangs);
        let pending = self.pending.as_ref();
        let state = match (failing, pending) {
            _ if is_off => "off (archive_mode)".to_owned(),
            _ if self.server.version.is_some() && !self.server.archives_through_walden => {
                "not through Walden".to_owned()
            }
            _ if self.status.is_some() && shown.is_none() => "no archiver has begun".to_owned(),
            _ if shown.is_some() && !is_live => {
                "STALE: the archiver has said nothing for ten seconds, or is dead".to_owned()
            }
            _ if hangs.is_some() => "HANGING".to_owned(),
            (Some((since, _)), _) => format!(
                "FAILING for {}, since {}",
                lasting(self.at - since),
                clock(since)
            ),
            (None, Some(pending)) if pending.files > 0 => "behind".to_owned(),
            (None, Some(_)) => "up to date".to_owned(),
            (None, None) => "unknown".to_owned(),
        };
        row(text, "archiving", &state);
        if let Some(call) = hangs {
            more(text, &hanging(call));
        }
        if let Some((_, failure)) = failing {
            more(
                text,
                &format!("({}) {}", failure.cause.word(), failure.message),
            );
            if let Some(hint) = &failure.hint {
                more(text, hint);
            }
        }
        if let Some(pending) = pending.filter(|pending| pending.files > 0) {
            self.backlog_text(text, pending);
        }
        if let Some(through) = &self.archived_through {
            let lag = self.lag_bytes.map(size).unwrap_or_default();
            more(
                text,
                &format!("archived through {through}, {lag} behind what is flushed"),
            );
        }
        if let Some(last) = shown.and_then(|shown| shown.last_archived.as_ref()) {
            let ago = lasting(self.at - last.at);
            more(text, &format!("last \"{}\", {ago} ago", last.file));
        }
    }

    fn backlog_text(&self, text: &mut String, pending: &status::Pending) {
        let files = say::counted(pending.files, "file");
        let oldest = pending.oldest.as_deref().unwrap_or_default();
        let since = pending.oldest_since.map(|since| lasting(self.at - since));
        more(
            text,
            &format!(
                "{files}, {}, to be archived; \"{oldest}\" for {}",
                size(pending.bytes),
                since.unwrap_or_default()
            ),
        );
        if let (Some(free), Some(left)) = (self.wal_disk_free_bytes, self.wal_disk_full_in) {
            more(
                text,
                &format!(
                    "{} free in \"pg_wal\": full in {} at this rate",
                    size(free),
                    lasting(left)
                ),
            );
        }
    }

    fn archive_text(&self, text: &mut String) {
        if let Some(shown) = self.status.as_ref().and_then(|it| it.archiver.as_ref()) {
            row(text, "archive", &settings_text(shown));
        } else if let Some(facts) = &self.archive {
            row(text, "archive", &format!("\"{}\"", facts.archive));
        }
        let Some(facts) = &self.archive else {
            return;
        };
        let files = say::counted(facts.files, "file");
        let mut said = format!("{files}, {}", size(facts.stored_bytes));
        if let (Some(file), Some(at)) = (&facts.last_file, facts.last_file_at) {
            let _ = write!(
                said,
                "; last \"{file}\", stored {} ago",
                lasting(self.at - at)
            );
        }
        more(text, &said);
        match &facts.first_hole {
            None => more(text, "no hole"),
            Some(hole) => more(
                text,
                &format!("{}: {hole}", say::counted(facts.hole_count(), "HOLE")),
            ),
        }
        match (facts.recoverable_from, facts.recoverable_to) {
            (Some(from), Some(to)) => more(
                text,
                &format!("recoverable from {} to {}", clock(from), clock(to)),
            ),
            _ if facts.last_backup.is_none() => {}
            _ => more(text, "recoverable to no time that a transaction tells"),
        }
        for trouble in &facts.trouble {
            more(text, trouble);
        }
        row(text, "backups", &backup_text(facts, self.at));
    }

    fn recovery_text(&self, text: &mut String) {
        let server = &self.server;
        let shown = self.status.as_ref().and_then(|it| it.recovery.as_ref());
        let live = shown.filter(|shown| shown.live);
        let hangs = live.and_then(status::Recovery::hangs).map(hanging);
        if matches!(server.role, None | Some("primary")) {
            if let Some(hangs) = hangs {
                row(text, "recovery", &format!("HANGING: {hangs}"));
            }
            return;
        }
        let mut said = match (&server.replayed, server.state) {
            (Some(replayed), _) => format!("replayed through {replayed}"),
            // Only a session could tell.
            (None, "closed") => "replayed through unknown".to_owned(),
            (None, _) => "replayed through nothing yet".to_owned(),
        };
        if let Some(at) = server.replayed_at {
            let _ = write!(
                said,
                ", a transaction of {} ({} ago)",
                clock(at),
                lasting(self.at - at)
            );
        }
        row(text, "recovery", &said);
        if let Some(received) = &server.received {
            more(text, &format!("streamed through {received}"));
        }
        let Some(shown) = shown else {
            return;
        };
        if !shown.live {
            more(
                text,
                "STALE: the recovery worker has said nothing for ten seconds, or is dead",
            );
        }
        if let Some(hangs) = hangs {
            more(text, &format!("HANGING: {hangs}"));
        }
        if let Some(last) = &shown.last_restored {
            let ago = lasting(self.at - last.at);
            more(text, &format!("last restored \"{}\", {ago} ago", last.file));
        }
        if let Some(asked) = &shown.asked {
            let waits = lasting(self.at - asked.at);
            more(text, &format!("waits for \"{}\", for {waits}", asked.file));
        }
        let restored = shown.restored;
        let files = restored.ahead + restored.asked;
        let per_second = files_per_second(files, self.at - shown.since);
        more(
            text,
            &format!(
                "restored {} through \"{}\", {} of them fetched ahead, {per_second} a second; waited {}",
                say::counted(files, "file"),
                shown.library,
                restored.ahead,
                lasting(shown.waited)
            ),
        );
        if let Some((since, failure)) = shown.failing(self.at, true) {
            let since = lasting(self.at - since);
            more(
                text,
                &format!("COULD NOT TELL for {since}: {}", failure.message),
            );
        }
    }
}

/// The settings that files are archived by: what of them is known.
fn settings_text(shown: &status::Archiver) -> String {
    let mut text = format!("\"{}\"", shown.archive);
    if !shown.compression.is_empty() {
        let _ = write!(text, ", {}", shown.compression);
    }
    let _ = match shown.recipients {
        None => Ok(()),
        Some(0) => write!(text, ", not encrypted"),
        Some(keys) => {
            let keys = say::counted(keys as u64, "recipient");
            write!(text, ", encrypted for {keys}")
        }
    };
    let _ = write!(text, ", {}", say::counted(shown.jobs as u64, "job"));
    text
}

fn backup_text(facts: &Facts, now: f64) -> String {
    match &facts.last_backup {
        None => "no base backup has left a backup history file in the archive".to_owned(),
        Some(backup) => {
            let reaches = if facts.last_reaches_end {
                ""
            } else {
                ", which does NOT reach the end of WAL"
            };
            format!(
                "last \"{}\" ({}), ended {} ago{reaches}",
                backup.file,
                backup.label.escape_debug(),
                lasting(now - backup.at)
            )
        }
    }
}

/// `archive module "x" has not come back for 75 s from being asked to archive "000000010000000000000007"`
pub(crate) fn hanging(call: &status::Call) -> String {
    let (kind, asked) = match call.task {
        Task::Configure => ("archive", "being asked whether it is configured"),
        Task::Archive => ("archive", "being asked to archive"),
        Task::Load => ("recovery", "being loaded"),
        Task::Restore => ("recovery", "being asked to restore"),
        Task::Cleanup => ("recovery", "being asked to clean the archive up"),
        Task::End => ("recovery", "being told that recovery has ended"),
    };
    let lasts = lasting(call.lasts);
    let file = call.file.as_ref().map(|file| format!(" \"{file}\""));
    format!(
        "{kind} module \"{}\" has not come back for {lasts} from {asked}{}",
        call.module,
        file.unwrap_or_default()
    )
}

#[expect(clippy::cast_precision_loss, reason = "a rate of two digits")]
fn files_per_second(files: u64, seconds: f64) -> String {
    format!("{:.1}", files as f64 / seconds.max(1.0))
}

fn row(text: &mut String, heading: &str, said: &str) {
    let _ = writeln!(text, "{heading:<10} {said}");
}

fn more(text: &mut String, said: &str) {
    row(text, "", said);
}

/// `2026-11-21 10:00:00+00`
fn clock(at: f64) -> String {
    let time = Duration::try_from_secs_f64(at.max(0.0)).map(|since| UNIX_EPOCH + since);
    let time = time.ok().and_then(Timestamp::from_system_time);
    let whole = time.map(|time| Timestamp(time.0 - time.0.rem_euclid(1_000_000)));
    whole.map(readable).unwrap_or_default()
}

/// `45 s`, `4 min`, `3.2 h`, `5.0 d`
pub(crate) fn lasting(seconds: f64) -> String {
    const MINUTE: f64 = 60.0;
    const HOUR: f64 = 60.0 * MINUTE;
    const DAY: f64 = 24.0 * HOUR;
    let seconds = seconds.max(0.0);
    if seconds < 2.0 * MINUTE {
        format!("{seconds:.0} s")
    } else if seconds < 2.0 * HOUR {
        format!("{:.0} min", seconds / MINUTE)
    } else if seconds < 2.0 * DAY {
        format!("{:.1} h", seconds / HOUR)
    } else {
        format!("{:.1} d", seconds / DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_shown_in_the_unit_that_people_would_use() {
        for (seconds, text) in [
            (-1.0, "0 s"),
            (45.4, "45 s"),
            (240.0, "4 min"),
            (11_520.0, "3.2 h"),
            (432_000.0, "5.0 d"),
        ] {
            assert_eq!(lasting(seconds), text);
        }
        assert_eq!(clock(1_763_719_200.7), "2025-11-21 10:00:00+00");
    }

    #[test]
    fn a_screen_of_nothing_says_what_is_unknown() {
        let screen = Screen {
            unknown: vec!["the server: gone".to_owned()],
            ..Screen::default()
        };
        let text = screen.text();
        assert!(text.contains("archiving  unknown"), "{text}");
        assert!(text.contains("unknown    the server: gone"), "{text}");
    }

    #[test]
    fn a_form_that_is_not_known_is_not_told() {
        let mut shown = status::Archiver {
            archive: "/wal".to_owned(),
            jobs: 4,
            ..status::Archiver::default()
        };
        assert_eq!(settings_text(&shown), "\"/wal\", 4 jobs");
        shown.compression = "zstd".to_owned();
        shown.recipients = Some(0);
        assert_eq!(
            settings_text(&shown),
            "\"/wal\", zstd, not encrypted, 4 jobs"
        );
        shown.recipients = Some(2);
        assert!(settings_text(&shown).contains("encrypted for 2 recipients"));
    }

    #[test]
    fn a_recovery_module_that_hangs_is_told_in_recovery_and_behind_it() {
        let call = status::Call {
            module: "plain".to_owned(),
            task: Task::Load,
            lasts: 75.0,
            may_last: 65.0,
            ..status::Call::default()
        };
        let worker = status::Recovery {
            live: true,
            call: Some(call),
            ..status::Recovery::default()
        };
        let mut screen = Screen {
            status: Some(status::Status {
                recovery: Some(worker),
                ..status::Status::default()
            }),
            ..Screen::default()
        };
        for role in ["primary", "standby"] {
            screen.server.role = Some(role);
            let text = screen.text();
            let words = "recovery module \"plain\" has not come back for 75 s from being loaded";
            assert!(text.contains("HANGING") && text.contains(words), "{text}");
        }
    }
}
