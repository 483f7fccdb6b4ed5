//! `walden check`: is everything as it must be, and if not, what is the cure?
//!
//! Guarantees: nothing that is stored is changed; every line that is not "passed" names a cure; the command succeeds
//! when no line failed. Left to others: encryption, in `check_encryption.rs`; the server's settings, in
//! `check_server.rs`; what an object store can do, in `check_store.rs`; what is stored by its names, in `check_names.rs`; the
//! server's WAL directory, in `check_wal.rs`; whether what is stored is sound, which takes reading all of it.

use crate::check_encryption;
use crate::check_line::{Line, Verdict};
use crate::check_living;
use crate::check_names;
use crate::check_server;
use crate::check_store;
use crate::check_wal;
use crate::exit::Outcome;
use crate::flags::{Check, Global};
use crate::living::Target;
use crate::progress::{Progress, Where};
use crate::say;
use crate::settings::{self, Chosen};
use crate::within::within;
use archive::{Archive, Error, Location, Settings};
use rustix::fs::{Access, access};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// How long opening the archive may take: three tries to get credentials fit in, and one request that stays unanswered.
const OPENING_MAX: Duration = Duration::from_secs(30);

/// Makes all checks and prints a line for each; fails if one failed.
pub(crate) fn run(flags: &Check, global: &Global) -> Outcome {
    let progress = Progress::start("checking", Where::Everywhere);
    let lines = match all(flags, global, &progress) {
        Ok(lines) => lines,
        Err(error) => {
            say::failure(&error);
            return Outcome::Failed;
        }
    };
    drop(progress);
    let count = |verdict| {
        lines
            .iter()
            .filter(|line| line.verdict() == verdict)
            .count()
    };
    let report = Report {
        failed: count(Verdict::Failed),
        unknown: count(Verdict::Unknown),
        warnings: count(Verdict::Warning),
        checks: &lines,
    };
    let printed = if flags.json {
        say::json(&report)
    } else if flags.nagios {
        say::output(&report.for_nagios())
    } else {
        say::output(&report.text())
    };
    if flags.nagios {
        return Outcome::Nagios(report.nagios().0);
    }
    if report.failed > 0 {
        Outcome::Failed
    } else if report.unknown > 0 {
        Outcome::CouldNotTell
    } else {
        printed
    }
}

/// The whole report.
#[derive(Serialize)]
struct Report<'a> {
    checks: &'a [Line],
    failed: usize,
    unknown: usize,
    warnings: usize,
}

impl Report<'_> {
    fn text(&self) -> String {
        let mut text = String::new();
        for line in self.checks {
            text.push_str(&line.text());
        }
        let total = self.checks.len();
        let unknown = match self.unknown {
            0 => String::new(),
            unknown => format!("{unknown} unknown, "),
        };
        let _ = writeln!(
            text,
            "{total} checks: {} failed, {unknown}{} with a warning",
            self.failed, self.warnings
        );
        text
    }

    /// Exit status and word by the guidelines for monitoring plugins.
    fn nagios(&self) -> (u8, &'static str, Verdict) {
        match (self.failed, self.unknown, self.warnings) {
            (1.., _, _) => (2, "CRITICAL", Verdict::Failed),
            (0, 1.., _) => (3, "UNKNOWN", Verdict::Unknown),
            (0, 0, 1..) => (1, "WARNING", Verdict::Warning),
            (0, 0, 0) => (0, "OK", Verdict::Passed),
        }
    }

    /// One line with what is worst, then all that is not passed.
    fn for_nagios(&self) -> String {
        let (_, word, verdict) = self.nagios();
        let worst = self.checks.iter().find(|line| line.verdict() == verdict);
        let first = match worst {
            Some(line) if verdict != Verdict::Passed => line.found().to_owned(),
            _ => format!("{} passed", say::counted(self.checks.len() as u64, "check")),
        };
        let mut text = format!("WALDEN {word} - {}\n", first.replace('|', "/"));
        for line in self
            .checks
            .iter()
            .filter(|line| line.verdict() != Verdict::Passed)
        {
            text.push_str(&line.text().replace('|', "/"));
        }
        text
    }
}

/// All checks; fails if the server that is named cannot be the one that is meant.
fn all(flags: &Check, global: &Global, progress: &Progress) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    let target = Target::of(flags.dbname.as_deref(), global.pgdata.as_deref())?;
    let target = target.filter(|_| !flags.files_only);
    let mut found = None;
    match settings::choose(global, settings::current_data_dir()) {
        Ok(chosen) => {
            let location = &chosen.settings.location;
            lines.push(Line::passed(format!(
                "archive \"{location}\", named by {}",
                chosen.said_by
            )));
            let opened = archive(&chosen, &mut lines, progress);
            if target.is_some() {
                progress.doing("writing to the archive");
                check_living::directory(location, &mut lines);
            }
            progress.doing("checking");
            check_encryption::check(&chosen.settings.options, &mut lines);
            if let Some(conf) = &chosen.conf {
                check_server::check(conf, global.pgdata.as_deref(), &mut lines);
            }
            found = opened.map(|opened| (chosen, opened));
        }
        Err(error) => {
            // What the configuration says otherwise is worth knowing all the same, and may be the same.
            if let Some(Ok(conf)) = global.pgdata.as_deref().map(settings::read_conf) {
                check_server::check(&conf, global.pgdata.as_deref(), &mut lines);
            }
            if !lines.iter().any(|line| line.found() == error.to_string()) {
                lines.insert(0, Line::error(&error, "Correct the setting."));
            }
        }
    }
    if let Some(target) = &target {
        progress.doing("asking the server");
        let opened = found.as_ref().map(|(_, opened)| opened);
        check_living::check(target, opened, flags.switch, &mut lines);
        if let Some((chosen, _)) = found {
            lines.push(check_living::backups(chosen));
        }
    }
    Ok(lines)
}

/// The archive, if it can be opened.
fn archive(chosen: &Chosen, lines: &mut Vec<Line>, progress: &Progress) -> Option<Archive> {
    let location = &chosen.settings.location;
    progress.doing("opening the archive");
    let archive = match opened(&chosen.settings, OPENING_MAX) {
        Ok(archive) => archive,
        Err(error) => {
            let cure = match location.path() {
                Some(_) => format!(
                    "Create the directory or mount its file system, as the server's user: mkdir -m 700 {location}"
                ),
                None => "Correct the location, the credentials or the network.".to_owned(),
            };
            lines.push(Line::error(&error, &cure));
            check_wal::check(chosen, None, || None, lines);
            return None;
        }
    };
    progress.doing("listing the archive");
    let listed = check_names::list(&archive, progress);
    match &listed {
        Ok(names) => check_names::check(&archive, names, &chosen.settings.options, lines),
        Err(error) => lines.push(Line::error(
            error,
            "Let the server's user read the archive.",
        )),
    }
    match location {
        Location::Directory(directory) => lines.push(writable(directory)),
        Location::Cloud(address) => {
            progress.found(0);
            check_store::check(address, lines, progress);
        }
    }
    let is_ours = binding(&archive, chosen, lines);
    let archived = listed.as_ref().ok().filter(|_| is_ours);
    let archived = archived.map(|names| names.files.as_slice());
    let list = || {
        let listed = check_names::list(&archive, progress);
        Some(listed.ok()?.files)
    };
    check_wal::check(chosen, archived, list, lines);
    Some(archive)
}

/// Opens the archive, with a deadline: a person waits for an answer, even for none. A thread that is stuck there
/// ends with this process.
fn opened(settings: &Settings, wait_max: Duration) -> Result<Archive, Error> {
    let theirs = settings.clone();
    let what = format!("archive \"{}\"", settings.location);
    let opened = within(&what, wait_max, move || theirs.open(archive::spawn_plainly));
    opened.map_err(|error| match (error.hint(), &settings.location) {
        (Some(_), _) => error,
        (None, Location::Directory(_)) => error.with_hint("Is its file system alive?"),
        (None, Location::Cloud(_)) => error.with_hint(
            "Something accepts connections there and does not answer. Is it the store, and is the endpoint right?",
        ),
    })
}

fn writable(directory: &Path) -> Line {
    match access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Line::passed("archive directory can be written by this user"),
        Err(cause) => Line::error(
            &Error::io(
                format!("could not write to archive \"{}\"", directory.display()),
                cause.into(),
            ),
            "Let the server's user write there; run the check as that user.",
        ),
    }
}

/// Whether the archive may be this cluster's.
fn binding(archive: &Archive, chosen: &Chosen, lines: &mut Vec<Line>) -> bool {
    let bound = match archive.binding() {
        Ok(Some(binding)) => {
            lines.push(Line::passed(format!(
                "archive belongs to system {}",
                binding.system
            )));
            Some(binding.system)
        }
        Ok(None) => {
            lines.push(Line::passed(
                "archive belongs to no system yet, the first file archived will bind it",
            ));
            None
        }
        Err(error) => {
            lines.push(Line::error(
                &error,
                "Restore walden.json from a copy of the archive.",
            ));
            return false;
        }
    };
    match (chosen.system(), bound) {
        (Err(error), _) => {
            lines.push(Line::error(
                &error,
                "Give --pgdata a data directory, and run as its owner.",
            ));
            false
        }
        (Ok(Some(ours)), Some(bound)) if ours == bound => {
            lines.push(Line::passed(format!(
                "archive and data directory are both of system {ours}"
            )));
            true
        }
        (Ok(Some(ours)), Some(bound)) => {
            lines.push(Line::failed(
                format!("archive belongs to system {bound}, the data directory to system {ours}"),
                "Give this cluster an archive of its own, an empty directory.",
            ));
            false
        }
        (Ok(_), None) | (Ok(None), _) => true,
    }
}
