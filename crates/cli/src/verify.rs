//! `walden verify`: can all that is archived be replayed? For people as a report, for programs as one JSON document.
//!
//! Guarantees: success means that everything that was asked for was read, and that nothing in it keeps recovery from going
//! through; what could not be read has an exit status of its own. Nothing that is stored is changed. Left to others: the
//! verifying (`audit`).

use std::collections::BTreeMap;
use std::fmt::Write;

use archive::{Cancel, Error};
use audit::{Finding, Report, Request, Scope, Severity, Told};
use serde::Serialize;

use crate::exit::Outcome;
use crate::flags::{Global, Verify};
use crate::progress::{Progress, Where};
use crate::say;
use crate::settings;
use crate::verify_backups;

/// How many findings of one kind a person is shown.
const SHOWN_MAX: usize = 20;

/// Verifies the archive and prints a report.
pub(crate) fn run(flags: &Verify, global: &Global) -> Outcome {
    if let Some(choice) = &flags.backups {
        return verify_backups::run(choice, flags, global);
    }
    let report = match verify(flags, global) {
        Ok(report) => report,
        Err(error) => {
            say::failure(&error);
            return Outcome::CouldNotTell;
        }
    };
    let printed = if flags.json {
        say::json(&Document::of(&report))
    } else {
        say::output(&text(&report))
    };
    match report.worst() {
        Some(Severity::Error) => Outcome::Failed,
        Some(Severity::CouldNotTell) => Outcome::CouldNotTell,
        // A report that could not be printed is of no use.
        _ if printed != Outcome::Done => Outcome::CouldNotTell,
        _ => printed,
    }
}

fn verify(flags: &Verify, global: &Global) -> Result<Report, Error> {
    let progress = Progress::start("opening the archive", Where::Everywhere);
    let chosen = settings::choose(global, settings::current_data_dir())?;
    let archive = chosen.open()?;
    progress.doing("listing");
    let request = Request {
        scope: Scope {
            from: flags.from,
            to: flags.to,
            timeline: flags.timeline,
        },
        readers: flags.jobs.unwrap_or_default().into(),
        state: flags.resume.clone(),
    };
    let told = |told: Told| match told {
        Told::Listed(files) => progress.found(files),
        Told::Read(1, total) => {
            progress.doing("verifying");
            progress.done(1, total);
        }
        Told::Read(files, total) => progress.done(files, total),
    };
    audit::verify(&archive, &request, &told, &Cancel::new())
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut shown: BTreeMap<_, usize> = BTreeMap::new();
    for finding in report.findings.listed() {
        let count = shown.entry((finding.severity, finding.kind)).or_default();
        *count += 1;
        if *count <= SHOWN_MAX {
            line(&mut text, finding);
        }
    }
    for ((severity, kind), count) in report.findings.counts() {
        let more = count.saturating_sub(SHOWN_MAX as u64);
        if more > 0 {
            let word = word(*severity);
            let _ = writeln!(
                text,
                "{word}  and {more} more of the kind {kind}: see --json"
            );
        }
    }
    let _ = writeln!(text, "{}", summary(report));
    text
}

fn line(text: &mut String, finding: &Finding) {
    let _ = writeln!(text, "{}  {}", word(finding.severity), finding.message);
    if let Some(hint) = &finding.hint {
        let _ = writeln!(text, "         cure: {hint}");
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note   ",
        Severity::Warning => "warning",
        Severity::CouldNotTell => "UNKNOWN",
        Severity::Error => "ERROR  ",
    }
}

/// `9 segments, 1234 records, in "…": 0 errors, 0 not known, 0 warnings, 0 notes`.
fn summary(report: &Report) -> String {
    let count = |severity, what: &str| say::counted(report.findings.count(severity), what);
    let before = match report.read_before {
        0 => String::new(),
        before => format!(" (and {} before)", say::counted(before, "segment")),
    };
    format!(
        "{}{before}, {}, in \"{}\": {}, {} not known, {}, {}",
        say::counted(report.segments, "segment"),
        say::counted(report.records, "record"),
        report.place,
        count(Severity::Error, "error"),
        report.findings.count(Severity::CouldNotTell),
        count(Severity::Warning, "warning"),
        count(Severity::Note, "note"),
    )
}

/// The JSON document. Its fields are a promise to programs: add, never rename.
#[derive(Serialize)]
struct Document<'a> {
    archive: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_identifier: Option<String>,
    segment_bytes: u64,
    /// `clean`, `errors`, or `could-not-tell`.
    outcome: &'static str,
    objects: u64,
    stored_bytes: u64,
    segments: u64,
    segments_before: u64,
    wal_bytes: u64,
    records: u64,
    errors: u64,
    could_not_tell: u64,
    warnings: u64,
    notes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<&'a str>,
    /// How many findings there are of each kind, listed or not.
    kinds: BTreeMap<String, u64>,
    findings: &'a [Finding],
}

impl<'a> Document<'a> {
    fn of(report: &'a Report) -> Document<'a> {
        let findings = &report.findings;
        let mut kinds = BTreeMap::new();
        for ((_, kind), count) in findings.counts() {
            *kinds.entry(kind.to_string()).or_default() += count;
        }
        Document {
            archive: &report.place,
            system_identifier: report.measure.system.map(|system| system.to_string()),
            segment_bytes: report.measure.size.bytes(),
            outcome: match report.worst() {
                Some(Severity::Error) => "errors",
                Some(Severity::CouldNotTell) => "could-not-tell",
                _ => "clean",
            },
            objects: report.objects,
            stored_bytes: report.stored_bytes,
            segments: report.segments,
            segments_before: report.read_before,
            wal_bytes: report.bytes,
            records: report.records,
            errors: findings.count(Severity::Error),
            could_not_tell: findings.count(Severity::CouldNotTell),
            warnings: findings.count(Severity::Warning),
            notes: findings.count(Severity::Note),
            stopped: report.stopped.as_deref(),
            kinds,
            findings: findings.listed(),
        }
    }
}
