//! Names of files, and timeline history files as the server reads and writes them.
//!
//! Source: `timeline.c`, `xlog_internal.h`, 15 to 18.

use crate::{SEGMENT, segment_of};

/// A piece of a line: a timeline from `begin` to `end`; 0 for "open".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub timeline: u32,
    pub begin: u64,
    pub end: u64,
}

#[must_use]
pub fn segment_name(timeline: u32, number: u64) -> String {
    let per_id = (1 << 32) / SEGMENT;
    format!(
        "{timeline:08X}{:08X}{:08X}",
        number / per_id,
        number % per_id
    )
}

#[must_use]
pub fn history_name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

/// Timeline and number of a segment, by its name.
#[must_use]
pub fn parse_segment(name: &str) -> Option<(u32, u64)> {
    if name.len() != 24 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let part = |at: usize| u64::from_str_radix(&name[at..at + 8], 16).ok();
    Some((
        u32::try_from(part(0)?).ok()?,
        part(8)? * ((1 << 32) / SEGMENT) + part(16)?,
    ))
}

/// The timeline of a history file, by its name.
#[must_use]
pub fn parse_history_name(name: &str) -> Option<u32> {
    let digits = name
        .strip_suffix(".history")
        .filter(|digits| digits.len() == 8)?;
    u32::from_str_radix(digits, 16).ok()
}

/// A line of one timeline, as far as is known.
#[must_use]
pub fn alone(timeline: u32) -> Vec<Entry> {
    vec![Entry {
        timeline,
        begin: 0,
        end: 0,
    }]
}

/// Reads a timeline history file, newest first (`readTimeLineHistory`).
///
/// # Errors
/// What the server would die with.
pub fn parse(timeline: u32, contents: &[u8]) -> Result<Vec<Entry>, String> {
    let text = String::from_utf8_lossy(contents);
    let mut entries: Vec<Entry> = Vec::new();
    let mut before = 0;
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = || format!("syntax error in history file: {line}");
        let mut fields = line.split_whitespace();
        let own = fields
            .next()
            .and_then(|field| field.parse().ok())
            .ok_or_else(wrong)?;
        let end: wal::Lsn = fields
            .next()
            .and_then(|field| field.parse().ok())
            .ok_or_else(wrong)?;
        if entries.first().is_some_and(|last| own <= last.timeline) {
            return Err(format!("invalid data in history file: {line}"));
        }
        entries.insert(
            0,
            Entry {
                timeline: own,
                begin: before,
                end: end.0,
            },
        );
        before = end.0;
    }
    if entries
        .first()
        .is_some_and(|last| timeline <= last.timeline)
    {
        return Err(format!(
            "invalid data in history file of timeline {timeline}"
        ));
    }
    entries.insert(
        0,
        Entry {
            timeline,
            begin: before,
            end: 0,
        },
    );
    Ok(entries)
}

/// The timeline of a place (`tliOfPointInHistory`).
#[must_use]
pub fn timeline_at(line: &[Entry], place: u64) -> Option<u32> {
    let holds = |entry: &&Entry| {
        (entry.begin == 0 || entry.begin <= place) && (entry.end == 0 || place < entry.end)
    };
    line.iter().find(holds).map(|entry| entry.timeline)
}

/// Where `line` leaves timeline `timeline` for good: the least end among its entries from that one on; `None` where it has
/// none.
#[must_use]
pub fn left(line: &[Entry], timeline: u32) -> Option<u64> {
    line.iter()
        .find(|entry| entry.timeline == timeline && entry.end != 0)?;
    let later = line
        .iter()
        .filter(|entry| entry.timeline >= timeline && entry.end != 0);
    later.map(|entry| entry.end).min()
}

/// The segment that a timeline begins in, by the history that ends with it.
#[must_use]
pub fn begins_in(line: &[Entry], timeline: u32) -> Option<u64> {
    let entry = line.iter().find(|entry| entry.timeline == timeline)?;
    Some(segment_of(entry.begin))
}

#[must_use]
pub fn contains(line: &[Entry], timeline: u32) -> bool {
    line.iter().any(|entry| entry.timeline == timeline)
}
