//! `walden list`: the archive's WAL files, for people as a table, for programs as one JSON document.
//!
//! Guarantees: sizes are bytes as stored, times are UTC; a reader that stops reading is no failure.
//! Left to others: which objects are WAL files (`archive`).

use crate::exit::Outcome;
use crate::flags::{Global, List};
use crate::progress::{Progress, Where};
use crate::say;
use crate::settings;
use archive::{Error, Stored};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::SystemTime;
use wal::{TimelineId, WalFileName};

/// Runs the command.
pub(crate) fn run(flags: &List, global: &Global) -> Outcome {
    match read(global) {
        Ok((place, files)) if flags.json => print_json(&place, &files),
        Ok((place, files)) => say::output(&table(&place, &files)),
        Err(error) => {
            say::failure(&error);
            Outcome::Failed
        }
    }
}

fn read(global: &Global) -> Result<(String, Vec<Stored>), Error> {
    let chosen = settings::choose(global, settings::current_data_dir())?;
    let progress = Progress::start("opening the archive", Where::Everywhere);
    let archive = chosen.open()?;
    progress.doing("listing");
    let files = archive.list_with(&mut |files| progress.found(files))?;
    Ok((archive.place(), files))
}

/// One timeline's files in numbers.
#[derive(Default, Serialize)]
struct Summary {
    segments: u64,
    partial_segments: u64,
    timeline_history_files: u64,
    backup_history_files: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_segment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_segment: Option<String>,
}

fn summaries(files: &[Stored]) -> BTreeMap<TimelineId, Summary> {
    let mut all: BTreeMap<TimelineId, Summary> = BTreeMap::new();
    for file in files {
        let summary = all.entry(file.name.timeline()).or_default();
        summary.bytes = summary.bytes.saturating_add(file.bytes);
        match &file.name {
            WalFileName::Segment(segment) => {
                // The list is sorted, so the first one met is the first there is.
                let name = segment.to_string();
                summary.first_segment.get_or_insert_with(|| name.clone());
                summary.last_segment = Some(name);
                summary.segments += 1;
            }
            WalFileName::Partial(_) => summary.partial_segments += 1,
            WalFileName::TimelineHistory(_) => summary.timeline_history_files += 1,
            WalFileName::BackupHistory { .. } => summary.backup_history_files += 1,
        }
    }
    all
}

fn total_bytes(files: &[Stored]) -> u64 {
    files
        .iter()
        .fold(0, |total, file| total.saturating_add(file.bytes))
}

fn table(place: &str, files: &[Stored]) -> String {
    let mut text = String::new();
    if files.is_empty() {
        let _ = writeln!(text, "no WAL files in \"{place}\"");
        return text;
    }
    let names: Vec<String> = files.iter().map(|file| file.name.to_string()).collect();
    let name_width = names
        .iter()
        .map(String::len)
        .max()
        .unwrap_or_default()
        .max("NAME".len());
    let key_width = files
        .iter()
        .map(|file| file.key.len())
        .max()
        .unwrap_or_default()
        .max("STORED AS".len());
    let bytes_width = total_bytes(files).to_string().len().max("BYTES".len());
    let _ = writeln!(
        text,
        "{:name_width$}  {:key_width$}  {:>bytes_width$}  TIME",
        "NAME", "STORED AS", "BYTES"
    );
    for (file, name) in files.iter().zip(&names) {
        let _ = writeln!(
            text,
            "{name:name_width$}  {:key_width$}  {:>bytes_width$}  {}",
            file.key,
            file.bytes,
            readable(file.modified)
        );
    }
    let _ = writeln!(text);
    for (timeline, summary) in summaries(files) {
        let _ = writeln!(text, "timeline {}: {}", timeline.get(), in_words(&summary));
    }
    let _ = writeln!(
        text,
        "total: {}, {} bytes{} in \"{place}\"",
        counted(files.len() as u64, "file"),
        total_bytes(files),
        encrypted(files)
    );
    text
}

/// `, all encrypted`; `, 3 encrypted`; nothing if none is.
fn encrypted(files: &[Stored]) -> String {
    match files.iter().filter(|file| file.encrypted).count() {
        0 => String::new(),
        all if all == files.len() => ", all encrypted".to_owned(),
        some => format!(", {some} encrypted"),
    }
}

/// `9 segments (first to last), 1 partial segment, 1234 bytes`.
fn in_words(summary: &Summary) -> String {
    let mut words = Vec::new();
    if let Some((first, last)) = summary
        .first_segment
        .as_ref()
        .zip(summary.last_segment.as_ref())
    {
        words.push(format!(
            "{} ({first} to {last})",
            counted(summary.segments, "segment")
        ));
    }
    for (count, what) in [
        (summary.partial_segments, "partial segment"),
        (summary.timeline_history_files, "timeline history file"),
        (summary.backup_history_files, "backup history file"),
    ] {
        if count > 0 {
            words.push(counted(count, what));
        }
    }
    words.push(counted(summary.bytes, "byte"));
    words.join(", ")
}

fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// The JSON document. Its fields are a promise to programs: add, never rename.
#[derive(Serialize)]
struct Document<'a> {
    archive: &'a str,
    files: Vec<File<'a>>,
    timelines: BTreeMap<u32, Summary>,
    total_files: usize,
    total_bytes: u64,
}

#[derive(Serialize)]
struct File<'a> {
    name: String,
    kind: &'static str,
    timeline: u32,
    stored_as: &'a str,
    compression: String,
    encrypted: bool,
    bytes: u64,
    modified: String,
}

/// `2026-08-01 12:34:56 UTC`, as the server prints times.
fn readable(time: SystemTime) -> String {
    archive::rfc3339(time)
        .replace('T', " ")
        .replace('Z', " UTC")
}

fn print_json(place: &str, files: &[Stored]) -> Outcome {
    let document = Document {
        archive: place,
        files: files.iter().map(file).collect(),
        timelines: summaries(files)
            .into_iter()
            .map(|(id, sum)| (id.get(), sum))
            .collect(),
        total_files: files.len(),
        total_bytes: total_bytes(files),
    };
    say::json(&document)
}

fn file(stored: &Stored) -> File<'_> {
    File {
        name: stored.name.to_string(),
        kind: match stored.name {
            WalFileName::Segment(_) => "segment",
            WalFileName::Partial(_) => "partial segment",
            WalFileName::TimelineHistory(_) => "timeline history file",
            WalFileName::BackupHistory { .. } => "backup history file",
        },
        timeline: stored.name.timeline().get(),
        stored_as: &stored.key,
        compression: stored.compression.to_string(),
        encrypted: stored.encrypted,
        bytes: stored.bytes,
        modified: archive::rfc3339(stored.modified),
    }
}
