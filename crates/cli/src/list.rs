//! `walden list`: the archive's WAL files, for people as a table, for programs as one JSON document.
//!
//! Guarantees: sizes are bytes as stored, times are UTC; a reader that stops reading is no failure. Without `--wal` and
//! `--form` one listing is all it costs, and the headers of two segments of each timeline, or of all where those are of two
//! sizes; each file's form costs a request more in an object store, and next to nothing in a directory. Left to others: which
//! objects are WAL files (`archive`); ranges and what is in them (`audit`).
//!
//! This file is long because the table and the document say the same, each in its own way.

use crate::exit::Outcome;
use crate::flags::{Global, List};
use crate::progress::{Progress, Where};
use crate::say;
use crate::settings;
use archive::{Archive, Cancel, Error, Form, Found, Location, Stored};
use audit::{Depth, Inventory, Ranges, Span, TimelineRanges};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::time::SystemTime;
use wal::{TimelineId, Timestamp, WalFileName};

/// Prints the archive's WAL files.
pub(crate) fn run(flags: &List, global: &Global) -> Outcome {
    match read(flags, global) {
        Ok(read) if flags.json => print_json(&read),
        Ok(read) => say::output(&table(&read)),
        Err(error) => {
            say::failure(&error);
            Outcome::Failed
        }
    }
}

/// What was found.
struct Read {
    place: String,
    files: Vec<Stored>,
    /// In which form each file is stored, where that was looked for; `None` for one that has gone meanwhile.
    forms: Option<Vec<Option<Form>>>,
    ranges: Ranges,
}

fn read(flags: &List, global: &Global) -> Result<Read, Error> {
    let chosen = settings::choose(global, settings::current_data_dir())?;
    let progress = Progress::start("opening the archive", Where::Everywhere);
    let archive = chosen.open()?;
    progress.doing("listing");
    let (files, beside) = look(&archive, &progress)?;
    let is_directory = matches!(chosen.settings.location, Location::Directory(_));
    let forms = if flags.form || is_directory {
        progress.doing("looking at first bytes");
        Some(forms(&archive, &files, flags.form && !is_directory)?)
    } else {
        None
    };
    progress.doing("reading");
    let depth = if flags.wal {
        Depth::Contents
    } else {
        Depth::Names
    };
    let ranges = audit::ranges(&archive, &Inventory::of(&files), depth, &Cancel::new())?;
    drop(progress);
    warn_of(&beside);
    for note in &ranges.notes {
        say::note(note);
    }
    // Who has asked for names alone has not asked whether anything can be read.
    for trouble in ranges.trouble.iter().filter(|_| flags.wal) {
        say::warning(trouble);
    }
    Ok(Read {
        place: archive.place(),
        files,
        forms,
        ranges,
    })
}

/// How many names are given that stand beside a file's.
const BESIDE_TOLD_MAX: usize = 5;

/// The files in order, and what stands beside their names and is none.
fn look(archive: &Archive, progress: &Progress) -> Result<(Vec<Stored>, Vec<String>), Error> {
    let (mut files, mut beside) = (Vec::new(), Vec::new());
    archive.each(&mut |found| {
        match found {
            Found::File(stored) => files.push(stored),
            Found::Other(entry) if archive::beside(&entry.key).is_some() => beside.push(entry.key),
            Found::Other(_) => {}
        }
        progress.found(files.len() as u64);
        ControlFlow::Continue(())
    })?;
    if archive.skipped() > 0 {
        let objects = say::counted(archive.skipped(), "object");
        say::note(&format!(
            "ignored {objects} with names that no archive uses"
        ));
    }
    files.sort_by_key(|file: &Stored| file.name);
    beside.sort();
    Ok((files, beside))
}

/// Warns of objects that are named like WAL files, and that no restore finds.
fn warn_of(beside: &[String]) {
    for key in beside.iter().take(BESIDE_TOLD_MAX) {
        if let Some(name) = archive::beside(key) {
            let hint = archive::rename_hint(key, &name);
            say::warning(&format!(
                "\"{key}\" is not found by a restore of \"{name}\"; {hint}"
            ));
        }
    }
    if let Some(more) = beside
        .len()
        .checked_sub(BESIDE_TOLD_MAX)
        .filter(|it| *it > 0)
    {
        say::warning(&format!(
            "and {} more",
            say::counted(more as u64, "such name")
        ));
    }
}

/// In which form each file is stored.
fn forms(archive: &Archive, files: &[Stored], is_costly: bool) -> Result<Vec<Option<Form>>, Error> {
    if is_costly {
        say::note(&format!(
            "looking at the first bytes of {}, a request for each",
            say::counted(files.len() as u64, "object")
        ));
    }
    files
        .iter()
        .map(|stored| archive.form_of(&stored.key))
        .collect()
}

/// `zstd`; nothing of a file that has gone meanwhile.
fn form_in_words(form: Option<Form>) -> String {
    form.map(|form| form.to_string()).unwrap_or_default()
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
    ranges: Vec<Range>,
    missing: Vec<Range>,
    partials: Vec<String>,
    backups: Vec<Backup>,
    /// How many bytes its segments are when they are not compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    wal_bytes: Option<u64>,
    /// How many times the bytes that they take.
    #[serde(skip_serializing_if = "Option::is_none")]
    compression_ratio: Option<f64>,
}

/// Segments that follow one another.
#[derive(Serialize)]
struct Range {
    first_segment: String,
    last_segment: String,
    segments: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_lsn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_lsn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_time: Option<String>,
}

/// A base backup, by its backup history file.
#[derive(Serialize)]
struct Backup {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_lsn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_lsn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_time: Option<String>,
}

impl Range {
    fn of(span: &Span) -> Range {
        let time = |at: Option<Timestamp>| at.and_then(Timestamp::to_system_time);
        Range {
            first_segment: span.first.to_string(),
            last_segment: span.last.to_string(),
            segments: span.segments,
            first_lsn: span.places.map(|(first, _)| first.to_string()),
            end_lsn: span.places.map(|(_, end)| end.to_string()),
            first_time: time(span.times.0).map(archive::rfc3339),
            last_time: time(span.times.1).map(archive::rfc3339),
        }
    }

    /// `A to B, 0/5000000 to 0/9000000, 2026-… to 2026-…`
    fn in_words(&self) -> String {
        let mut words = match self.segments {
            1 => self.first_segment.clone(),
            _ => format!("{} to {}", self.first_segment, self.last_segment),
        };
        let pairs = [
            (&self.first_lsn, &self.end_lsn),
            (&self.first_time, &self.last_time),
        ];
        for (from, to) in pairs {
            let _ = match (from, to) {
                (Some(from), Some(to)) => {
                    write!(words, ", {} to {}", spaced(from), spaced(to))
                }
                (Some(from), None) => write!(words, ", since {}", spaced(from)),
                (None, Some(to)) => write!(words, ", until {}", spaced(to)),
                (None, None) => Ok(()),
            };
        }
        words
    }
}

/// What is known of a timeline beyond its files.
fn add(summary: &mut Summary, ranges: &TimelineRanges) {
    summary.ranges = ranges.spans.iter().map(Range::of).collect();
    summary.missing = ranges.holes.iter().map(Range::of).collect();
    summary.wal_bytes = ranges.wal_bytes.filter(|bytes| *bytes > 0);
    #[expect(clippy::cast_precision_loss, reason = "a ratio of two digits")]
    let ratio = |wal: u64| (wal as f64 / ranges.stored_bytes as f64 * 100.0).round() / 100.0;
    summary.compression_ratio = summary
        .wal_bytes
        .filter(|_| ranges.stored_bytes > 0)
        .map(ratio);
    let backups = ranges.backups.iter().map(|(name, label)| Backup {
        name: name.clone(),
        label: label.as_ref().map(|it| it.label.clone()),
        start_lsn: label.as_ref().map(|it| it.start.to_string()),
        stop_lsn: label.as_ref().map(|it| it.stop.to_string()),
        start_time: label.as_ref().and_then(|it| it.start_time.clone()),
        stop_time: label.as_ref().and_then(|it| it.stop_time.clone()),
    });
    summary.backups = backups.collect();
}

fn summaries(read: &Read) -> BTreeMap<TimelineId, Summary> {
    let mut all = of_files(&read.files);
    for (timeline, ranges) in &read.ranges.timelines {
        add(all.entry(*timeline).or_default(), ranges);
    }
    all
}

fn of_files(files: &[Stored]) -> BTreeMap<TimelineId, Summary> {
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
            WalFileName::Partial(_) => {
                summary.partial_segments += 1;
                summary.partials.push(file.name.to_string());
            }
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

fn table(read: &Read) -> String {
    let Read {
        place,
        files,
        forms,
        ..
    } = read;
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
    let forms: Option<Vec<String>> = forms
        .as_ref()
        .map(|forms| forms.iter().copied().map(form_in_words).collect());
    let form_width = forms.iter().flatten().map(String::len).max();
    let form_width = form_width.unwrap_or_default().max("FORM".len());
    let form = |at: Option<usize>| match (&forms, at) {
        (None, _) => String::new(),
        (Some(_), None) => format!("{:form_width$}  ", "FORM"),
        (Some(forms), Some(at)) => {
            let form = forms.get(at).map_or("", String::as_str);
            format!("{form:form_width$}  ")
        }
    };
    let bytes_width = total_bytes(files).to_string().len().max("BYTES".len());
    let _ = writeln!(
        text,
        "{:name_width$}  {}{:>bytes_width$}  TIME",
        "NAME",
        form(None),
        "BYTES"
    );
    for (at, (file, name)) in files.iter().zip(&names).enumerate() {
        let _ = writeln!(
            text,
            "{name:name_width$}  {}{:>bytes_width$}  {}",
            form(Some(at)),
            file.bytes,
            readable(file.modified)
        );
    }
    let _ = writeln!(text);
    for (timeline, summary) in summaries(read) {
        let _ = writeln!(text, "timeline {}: {}", timeline.get(), in_words(&summary));
        details(&mut text, &summary);
    }
    let _ = writeln!(
        text,
        "total: {}, {} bytes{} in \"{place}\"",
        say::counted(files.len() as u64, "file"),
        total_bytes(files),
        encrypted(read.forms.as_deref().unwrap_or_default())
    );
    text
}

fn details(text: &mut String, summary: &Summary) {
    for range in &summary.ranges {
        let _ = writeln!(text, "  {}", range.in_words());
    }
    for range in &summary.missing {
        let _ = writeln!(text, "  missing: {}", range.in_words());
    }
    for partial in &summary.partials {
        let _ = writeln!(text, "  partial: {partial}");
    }
    for backup in &summary.backups {
        let label = backup.label.as_ref();
        let label = label.map(|label| format!(", \"{}\"", label.escape_debug()));
        let _ = writeln!(
            text,
            "  backup: {}{}",
            backup.name,
            label.unwrap_or_default()
        );
    }
    if let Some((bytes, ratio)) = summary.wal_bytes.zip(summary.compression_ratio) {
        let _ = writeln!(
            text,
            "  {bytes} bytes of WAL, {ratio:.2} times what they take"
        );
    }
}

/// A time as the server prints it; anything else as it is.
fn spaced(text: &str) -> String {
    text.replace('T', " ").replace('Z', " UTC")
}

/// `, all encrypted`; `, 3 encrypted`; nothing if none is, or if it is not known.
fn encrypted(forms: &[Option<Form>]) -> String {
    let is_sealed = |form: &&Option<Form>| **form == Some(Form::Age);
    match forms.iter().filter(is_sealed).count() {
        0 => String::new(),
        all if all == forms.len() => ", all encrypted".to_owned(),
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
        let which = if first == last {
            first.clone()
        } else {
            format!("{first} to {last}")
        };
        words.push(format!(
            "{} ({which})",
            say::counted(summary.segments, "segment")
        ));
    }
    for (count, what) in [
        (summary.partial_segments, "partial segment"),
        (summary.timeline_history_files, "timeline history file"),
        (summary.backup_history_files, "backup history file"),
    ] {
        if count > 0 {
            words.push(say::counted(count, what));
        }
    }
    words.push(say::counted(summary.bytes, "byte"));
    words.join(", ")
}

/// The JSON document. Its fields are a promise to programs: add, never rename.
#[derive(Serialize)]
struct Document<'a> {
    archive: &'a str,
    files: Vec<File>,
    timelines: BTreeMap<u32, Summary>,
    total_files: usize,
    total_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_identifier: Option<String>,
}

#[derive(Serialize)]
struct File {
    name: String,
    kind: &'static str,
    timeline: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    form: Option<String>,
    bytes: u64,
    modified: String,
}

/// `2026-08-01 12:34:56 UTC`, as the server prints times.
fn readable(time: SystemTime) -> String {
    spaced(&archive::rfc3339(time))
}

fn print_json(read: &Read) -> Outcome {
    let Read {
        place,
        files,
        forms,
        ranges,
    } = read;
    let form = |at: usize| forms.as_ref()?.get(at).copied().flatten();
    let system = ranges.measure.and_then(|measure| measure.system);
    let document = Document {
        archive: place,
        files: files
            .iter()
            .enumerate()
            .map(|(at, stored)| file(stored, form(at)))
            .collect(),
        timelines: summaries(read)
            .into_iter()
            .map(|(id, sum)| (id.get(), sum))
            .collect(),
        total_files: files.len(),
        total_bytes: total_bytes(files),
        segment_bytes: ranges.measure.map(|measure| measure.size.bytes()),
        system_identifier: system.map(|system| system.to_string()),
    };
    say::json(&document)
}

fn file(stored: &Stored, form: Option<Form>) -> File {
    File {
        name: stored.name.to_string(),
        kind: match stored.name {
            WalFileName::Segment(_) => "segment",
            WalFileName::Partial(_) => "partial segment",
            WalFileName::TimelineHistory(_) => "timeline history file",
            WalFileName::BackupHistory { .. } => "backup history file",
        },
        timeline: stored.name.timeline().get(),
        form: form.map(|form| form.to_string()),
        bytes: stored.bytes,
        modified: archive::rfc3339(stored.modified),
    }
}
