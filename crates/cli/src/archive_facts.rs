//! What an archive is worth, as far as little reading tells: holes, what it can be recovered to, its last base backup.
//!
//! Reads a listing, the first and last segment of each range, and the small files: what `walden list --wal` reads. Leaves to
//! `walden verify` whether the WAL between is sound, and to `walden targets` every other question.

use archive::{Archive, Cancel, Error, Found, Stored};
use audit::{Depth, Inventory, Ranges, Span};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use wal::{Lsn, Timestamp};

/// What was found. Times are Unix times in seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Facts {
    /// When this was looked at.
    pub(crate) at: f64,
    /// What to call the archive.
    pub(crate) archive: String,
    /// How many WAL files are stored, and the bytes that they take.
    pub(crate) files: u64,
    pub(crate) stored_bytes: u64,
    /// The segment that was stored last, by the store's clock.
    pub(crate) last_file: Option<String>,
    pub(crate) last_file_at: Option<f64>,
    /// Holes by timeline; 0 where there is none.
    pub(crate) holes: BTreeMap<u32, u64>,
    /// The first hole, in words.
    pub(crate) first_hole: Option<String>,
    /// From the end of this base backup on there is everything up to `recoverable_to`.
    pub(crate) recoverable_from: Option<f64>,
    /// The last time that a transaction tells, of those that can be recovered.
    pub(crate) recoverable_to: Option<f64>,
    /// The last base backup that has left a backup history file.
    pub(crate) last_backup: Option<Backup>,
    /// What could not be read, in words.
    pub(crate) trouble: Vec<String>,
}

/// A base backup.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Backup {
    /// Name of its backup history file.
    pub(crate) file: String,
    /// What it was called.
    pub(crate) label: String,
    /// When it ended.
    pub(crate) at: Option<f64>,
    #[serde(skip)]
    timeline: u32,
    #[serde(skip)]
    start: Lsn,
}

impl Facts {
    /// Looks.
    ///
    /// # Errors
    /// When the archive is out of reach.
    pub(crate) fn read(archive: &Archive) -> Result<Facts, Error> {
        let mut files = Vec::new();
        archive.each(&mut |found| {
            if let Found::File(stored) = found {
                files.push(stored);
            }
            ControlFlow::Continue(())
        })?;
        files.sort_by_key(|file: &Stored| file.name);
        let ranges = audit::ranges(
            archive,
            &Inventory::of(&files),
            Depth::Contents,
            &Cancel::new(),
        )?;
        Ok(Facts::of(archive.place(), &files, &ranges))
    }

    fn of(archive: String, files: &[Stored], ranges: &Ranges) -> Facts {
        let last = files.iter().max_by_key(|file| file.modified);
        let backups = backups(ranges);
        let (from, to) = recoverable(ranges, &backups).unzip();
        let holes = ranges.timelines.iter();
        let holes = holes.map(|(timeline, of)| (timeline.get(), of.holes.len() as u64));
        let first_hole = ranges.timelines.values().find_map(|of| of.holes.first());
        Facts {
            at: status::now(),
            archive,
            files: files.len() as u64,
            stored_bytes: files.iter().map(|file| file.bytes).sum(),
            last_file: last.map(|file| file.name.to_string()),
            last_file_at: last.map(|file| status::unix(file.modified)),
            holes: holes.collect(),
            first_hole: first_hole.map(in_words),
            recoverable_from: from.flatten(),
            recoverable_to: to.flatten(),
            last_backup: backups.last().cloned(),
            trouble: ranges.trouble.clone(),
        }
    }

    /// How many holes there are in all.
    pub(crate) fn hole_count(&self) -> u64 {
        self.holes.values().sum()
    }
}

/// The base backups whose files were read, the oldest first.
fn backups(ranges: &Ranges) -> Vec<Backup> {
    let mut found = Vec::new();
    for (timeline, of) in &ranges.timelines {
        for (file, history) in &of.backups {
            let Some(history) = history else { continue };
            let at = history.stop_time.as_deref();
            let at = at.and_then(|text| audit::timestamp::parse(text).ok());
            found.push(Backup {
                file: file.clone(),
                label: history.label.clone(),
                at: at.and_then(unix),
                timeline: timeline.get(),
                start: history.start,
            });
        }
    }
    found.sort_by_key(|backup| (backup.timeline, backup.start));
    found
}

/// When the oldest base backup ended from which all WAL is there up to where the last one gets, and the last time before that.
fn recoverable(ranges: &Ranges, backups: &[Backup]) -> Option<(Option<f64>, Option<f64>)> {
    let last = backups.last()?;
    // The first hole behind the last backup's start bounds what it reaches.
    let bound = holes_behind(ranges, last).min_by_key(|(_, start)| *start);
    let bound = bound.map(|(timeline, start)| (timeline, Some(start)));
    let newest = ranges.timelines.iter().next_back();
    let (timeline, before) =
        bound.or_else(|| newest.map(|(timeline, _)| (timeline.get(), None)))?;
    let spans = ranges.timelines.iter();
    let spans = spans.filter(|(of, _)| of.get() <= timeline && of.get() >= last.timeline);
    let to = spans
        .flat_map(|(_, of)| &of.spans)
        .filter(|span| before.is_none_or(|before| begins(span).is_some_and(|at| at < before)))
        .filter_map(|span| span.times.1)
        .max()
        .and_then(unix);
    let first = backups.iter().find(|backup| {
        holes_behind(ranges, backup).all(|(_, start)| before.is_some_and(|before| start >= before))
    });
    // The last segments of an idle server tell no time; what the last backup is consistent at can be recovered.
    Some((first.and_then(|backup| backup.at), to.or(last.at)))
}

/// Timeline and beginning of the holes that a recovery from this backup may meet.
fn holes_behind<'a>(
    ranges: &'a Ranges,
    backup: &'a Backup,
) -> impl Iterator<Item = (u32, Lsn)> + 'a {
    let later = ranges.timelines.iter();
    let later = later.filter(|(timeline, _)| timeline.get() >= backup.timeline);
    later.flat_map(move |(timeline, of)| {
        let starts = of.holes.iter().filter_map(begins);
        let behind = starts.filter(move |start| *start >= backup.start);
        behind.map(move |start| (timeline.get(), start))
    })
}

fn begins(span: &Span) -> Option<Lsn> {
    span.places.map(|(first, _)| first)
}

fn in_words(hole: &Span) -> String {
    match hole.segments {
        1 => format!("segment \"{}\" is missing", hole.first),
        segments => format!(
            "{segments} segments are missing, \"{}\" to \"{}\"",
            hole.first, hole.last
        ),
    }
}

fn unix(at: Timestamp) -> Option<f64> {
    at.to_system_time().map(status::unix)
}
