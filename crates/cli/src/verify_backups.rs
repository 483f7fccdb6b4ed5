//! `walden verify --backups`: whether base backups are what their manifests say. For people as a report, for programs as one
//! JSON document.
//!
//! Guarantees: success means that there is a backup, that every part of every one that was asked for was read, that every file
//! is there as the manifest has it, that no page is corrupt, that the WAL which makes it consistent is in the archive, and so is
//! what it is based on; what could not be read has an exit status of its own. A backup that is not committed is none, and is
//! only counted. Nothing that is stored is changed. Left to others: the verifying (`backup`); whether the WAL can be replayed
//! (`verify.rs`).

use std::fmt::Write;

use archive::{Cancel, Error, ErrorKind};
use backup::{Complaint, Found, Id, Request, State, Told, Verified};
use serde::Serialize;

use crate::backups::{Looked, look};
use crate::exit::Outcome;
use crate::flags::{BackupChoice, Global, Verify};
use crate::progress::{Progress, Where};
use crate::say;

/// How many complaints about one backup a person is shown.
const SHOWN_MAX: usize = 20;

/// Verifies the backups and prints a report.
pub(crate) fn run(choice: &BackupChoice, flags: &Verify, global: &Global) -> Outcome {
    let verified = look(global).and_then(|looked| verify(&looked, choice, flags));
    let report = match verified {
        Ok(report) => report,
        Err(error) => {
            say::failure(&error);
            return Outcome::CouldNotTell;
        }
    };
    let printed = if flags.json {
        say::json(&report)
    } else {
        say::output(&text(&report))
    };
    match report.outcome {
        "errors" => Outcome::Failed,
        "could-not-tell" => Outcome::CouldNotTell,
        // A report that could not be printed is of no use.
        _ if printed != Outcome::Done => Outcome::CouldNotTell,
        _ => printed,
    }
}

/// The report, and the JSON document. Its fields are a promise to programs: add, never rename.
#[derive(Serialize)]
struct Report {
    archive: String,
    /// `clean`, `errors`, or `could-not-tell`.
    outcome: &'static str,
    backups: Vec<OfBackup>,
    /// Backups that are not committed, and so none: running and abandoned ones.
    uncommitted: u64,
}

#[derive(Serialize)]
struct OfBackup {
    id: String,
    state: &'static str,
    parts: u64,
    files: u64,
    bytes: u64,
    pages: u64,
    corrupt_pages: u64,
    errors: Vec<Finding>,
    could_not_tell: Vec<Finding>,
    /// What more was found, and is not listed.
    more: u64,
}

#[derive(Serialize)]
struct Finding {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

fn verify(looked: &Looked, choice: &BackupChoice, flags: &Verify) -> Result<Report, Error> {
    let mut report = Report {
        archive: looked.archive.place(),
        outcome: "clean",
        backups: Vec::new(),
        uncommitted: 0,
    };
    let wanted = |found: &Found| match choice {
        BackupChoice::All => true,
        BackupChoice::One(id) => found.id == *id,
    };
    let progress = Progress::start("verifying", Where::Everywhere);
    let all = looked.catalogue.backups.iter().zip(looked.states());
    for (found, state) in all.filter(|(found, _)| wanted(found)) {
        if matches!(state, State::Running | State::Abandoned) {
            report.uncommitted += 1;
            continue;
        }
        progress.doing(format!("verifying {}", found.id));
        report
            .backups
            .push(one(looked, found, &state, flags, &progress));
    }
    drop(progress);
    if let BackupChoice::One(id) = choice
        && report.backups.is_empty()
    {
        return Err(nothing(id, report.uncommitted > 0, &report.archive));
    }
    let has_errors = report.backups.iter().any(|it| !it.errors.is_empty());
    // Of no backup at all nobody can say that it is sound.
    let has_unknown = report.backups.is_empty()
        || report
            .backups
            .iter()
            .any(|it| !it.could_not_tell.is_empty());
    report.outcome = match (has_errors, has_unknown) {
        (true, _) => "errors",
        (false, true) => "could-not-tell",
        (false, false) => "clean",
    };
    Ok(report)
}

fn nothing(id: &Id, is_running: bool, place: &str) -> Error {
    let what = if is_running {
        format!("backup {id} in \"{place}\" is not committed, and so none")
    } else {
        format!("backup {id} is not in \"{place}\"")
    };
    Error::new(ErrorKind::Unusable, what).with_hint("See walden backups.")
}

fn one(
    looked: &Looked,
    found: &Found,
    state: &State,
    flags: &Verify,
    progress: &Progress,
) -> OfBackup {
    let verified = found.committed().map_or_else(Verified::default, |backup| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        backup::verify(
            backup,
            &Request {
                archive: &looked.archive,
                readers: flags.jobs.map_or(processors, usize::from),
                told: &|Told::Parts(done, total)| progress.done(done, total),
                cancel: &Cancel::new(),
            },
        )
    });
    let (unknown, wrong): (Vec<_>, Vec<_>) = verified
        .complaints
        .into_iter()
        .partition(|complaint| complaint.is_unknown);
    let mut errors: Vec<Finding> = wrong.into_iter().map(Finding::of).collect();
    let mut could_not_tell: Vec<Finding> = unknown.into_iter().map(Finding::of).collect();
    match state {
        State::Waiting(segment) => errors.push(Finding::new(format!(
            "segment \"{segment}\", which makes the backup consistent, is not in the archive"
        ))),
        State::CorruptPages => errors.extend(corrupt_pages(found)),
        State::Damaged(why) | State::ParentMissing(why) => {
            errors.push(Finding::new(archive::printable(why)));
        }
        State::Unknown(why) => could_not_tell.push(Finding::new(archive::printable(why))),
        State::Complete | State::Running | State::Abandoned => {}
    }
    OfBackup {
        id: found.id.to_string(),
        state: state.word(),
        parts: verified.parts,
        files: verified.files,
        bytes: verified.bytes,
        pages: verified.pages,
        corrupt_pages: verified.corrupt_pages,
        errors,
        could_not_tell,
        more: verified.more,
    }
}

/// What is said of pages that were corrupt when the backup was stored, and are so still.
fn corrupt_pages(found: &Found) -> Vec<Finding> {
    let Some(backup) = found.committed() else {
        return Vec::new();
    };
    let count = say::counted(backup.pages.corrupt, "corrupt page");
    let mut findings = vec![Finding::new(format!("it was stored with {count}"))];
    findings.extend(backup.pages.files.iter().map(|file| {
        let file = archive::printable(file);
        Finding::new(format!("file \"{file}\" has corrupt pages"))
    }));
    findings
}

impl Finding {
    fn new(message: String) -> Finding {
        Finding {
            message,
            hint: None,
        }
    }

    fn of(complaint: Complaint) -> Finding {
        Finding {
            message: complaint.message,
            hint: complaint.hint,
        }
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for backup in &report.backups {
        let of = [
            ("ERROR  ", &backup.errors),
            ("UNKNOWN", &backup.could_not_tell),
        ];
        let mut more = backup.more;
        for (word, findings) in of {
            for finding in findings.iter().take(SHOWN_MAX) {
                let _ = writeln!(text, "{word}  {}: {}", backup.id, finding.message);
                if let Some(hint) = &finding.hint {
                    let _ = writeln!(text, "         cure: {hint}");
                }
            }
            more += findings.len().saturating_sub(SHOWN_MAX) as u64;
        }
        if more > 0 {
            let _ = writeln!(text, "         and {more} more: see --json");
        }
        let _ = writeln!(
            text,
            "{}: {}, {}, {}, {}",
            backup.id,
            say::counted(backup.parts, "part"),
            say::counted(backup.files, "file"),
            say::counted(backup.pages, "page"),
            match (backup.errors.len(), backup.could_not_tell.len()) {
                (0, 0) => "no errors".to_owned(),
                (0, unknown) => format!("{unknown} not known"),
                (errors, _) => say::counted(errors as u64 + backup.more, "error"),
            }
        );
    }
    if report.backups.is_empty() {
        text.push_str("UNKNOWN  there is no committed backup, so nothing was verified\n");
    }
    let uncommitted = match report.uncommitted {
        0 => String::new(),
        count => format!(", and {count} not committed"),
    };
    let _ = writeln!(
        text,
        "{} in \"{}\"{uncommitted}",
        say::counted(report.backups.len() as u64, "backup"),
        report.archive
    );
    text
}
