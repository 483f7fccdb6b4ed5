//! What an archive is worth, as far as little reading tells: holes, what it can be recovered to, its last base backup.
//!
//! Reads a listing, the first and last segment of each range, and the small files: what `walden list --wal` reads. Leaves to
//! `walden verify` whether the WAL between is sound, and to `walden targets` every other question.

use crate::settings::Chosen;
use crate::within::within;
use archive::{Archive, Cancel, Error, Found, Stored};
use audit::{Depth, Inventory, Ranges, Span};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;
use wal::{Lsn, Timestamp, WalFileName};

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
    /// Whether a recovery from it gets to the end of the archived WAL.
    pub(crate) last_reaches_end: bool,
    /// How many base backups there are of whose own WAL something is missing.
    pub(crate) useless_backups: u64,
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
    /// When it ended, as its file says; where that is in a time zone that only the server knows, when the file was stored.
    pub(crate) at: f64,
    #[serde(skip)]
    timeline: u32,
    #[serde(skip)]
    start: Lsn,
    #[serde(skip)]
    stop: Lsn,
}

impl Facts {
    /// Opens an archive and looks at it, within this time.
    ///
    /// # Errors
    /// When the archive is out of reach, or does not answer in time.
    pub(crate) fn of_place(chosen: Chosen, wait_max: Duration) -> Result<Facts, Error> {
        let what = format!("archive \"{}\"", chosen.settings.location);
        within(&what, wait_max, move || {
            chosen.open().and_then(|archive| Facts::read(&archive))
        })
    }

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
        let is_backup = |file: &&Stored| matches!(file.name, WalFileName::BackupHistory { .. });
        let stored_at = files.iter().filter(is_backup);
        let stored_at = stored_at.map(|file| (file.name.to_string(), status::unix(file.modified)));
        let all = backups(ranges, &stored_at.collect());
        let useful: Vec<&Backup> = all
            .iter()
            .filter(|backup| has_own_wal(ranges, backup))
            .collect();
        let reached = Reached::from(ranges, &useful);
        let last_is_useful = useful.last().copied() == all.last();
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
            recoverable_from: reached.as_ref().and_then(|reached| reached.from),
            recoverable_to: reached.as_ref().map(|reached| reached.to),
            last_reaches_end: last_is_useful && reached.is_some_and(|reached| reached.is_end),
            useless_backups: (all.len() - useful.len()) as u64,
            last_backup: all.last().cloned(),
            trouble: ranges.trouble.clone(),
        }
    }

    /// How many holes there are in all.
    pub(crate) fn hole_count(&self) -> u64 {
        self.holes.values().sum()
    }
}

/// The base backups whose files were read, the oldest first.
fn backups(ranges: &Ranges, stored_at: &BTreeMap<String, f64>) -> Vec<Backup> {
    let mut found = Vec::new();
    for (timeline, of) in &ranges.timelines {
        for (file, history) in &of.backups {
            let Some(history) = history else { continue };
            let at = history.stop_time.as_deref();
            let at = at.and_then(|text| audit::timestamp::parse(text).ok());
            let at = at.and_then(unix).or_else(|| stored_at.get(file).copied());
            found.push(Backup {
                file: file.clone(),
                label: history.label.clone(),
                at: at.unwrap_or_default(),
                timeline: timeline.get(),
                start: history.start,
                stop: history.stop,
            });
        }
    }
    found.sort_by_key(|backup| (backup.timeline, backup.start));
    found
}

/// Whether the WAL is there that makes a backup consistent. What was cleaned up is no hole, and no use either.
fn has_own_wal(ranges: &Ranges, backup: &Backup) -> bool {
    let mut spans = ranges
        .timelines
        .iter()
        .filter(|(timeline, _)| timeline.get() == backup.timeline)
        .flat_map(|(_, of)| &of.spans);
    spans.any(|span| {
        let places = span.places;
        places.is_some_and(|(first, end)| first <= backup.start && backup.stop <= end)
    })
}

/// How far recovery gets from the last base backup that is of use.
struct Reached {
    /// When the oldest backup ended from which all WAL is there up to that.
    from: Option<f64>,
    /// The last time before that, of a transaction or of the backup's end.
    to: f64,
    /// Whether that is the end of the newest timeline.
    is_end: bool,
}

impl Reached {
    fn from(ranges: &Ranges, backups: &[&Backup]) -> Option<Reached> {
        let last = backups.last()?;
        // The first hole behind its start bounds what it reaches.
        let bound = holes_behind(ranges, last).min_by_key(|(_, start)| *start);
        let newest = ranges.timelines.keys().next_back()?.get();
        let (timeline, before) = match bound {
            Some((timeline, start)) => (timeline, Some(start)),
            None => (newest, None),
        };
        let spans = ranges.timelines.iter();
        let spans = spans.filter(|(of, _)| of.get() == timeline);
        let to = spans
            .flat_map(|(_, of)| &of.spans)
            .filter(|span| before.is_none_or(|before| begins(span).is_some_and(|at| at < before)))
            .filter_map(|span| span.times.1)
            .max()
            .and_then(unix);
        let first = backups.iter().find(|backup| {
            holes_behind(ranges, backup)
                .all(|(_, start)| before.is_some_and(|before| start >= before))
        });
        Some(Reached {
            from: first.map(|backup| backup.at),
            // The last segments of an idle server tell no time.
            to: to.map_or(last.at, |to| to.max(last.at)),
            is_end: bound.is_none(),
        })
    }
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
