//! What can be recovered, as a picture: timelines as lanes over time.
//!
//! Guarantees a chart of bounded size, however large the archive is: WAL in columns, marks that would lie on one another
//! counted as one. Times are those that WAL tells; where it tells none they are taken from its neighbours. Drawing is left to
//! `page` and `blocks`.

mod blocks;
mod lane;
mod page;
mod tables;
#[cfg(test)]
mod tests;

pub use blocks::{Blocks, blocks};
pub use page::page;

use wal::{Lsn, TimelineId, Timestamp};

use crate::line::Line;
use crate::survey::Survey;

/// The most lanes that are drawn: the newest timelines.
pub const LANES_MAX: usize = 60;

/// The most columns of a page.
const COLUMNS_MAX: u64 = 120;

/// How finely holes are told apart: as parts of the chart's width.
const HOLES_MAX: u64 = 240;

/// How many signs have room beside one another: one with its count is some 24 units wide, the chart 976.
const SIGNS_MAX: f64 = 40.0;

const MINUTE: u64 = 60 * 1_000_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// How wide columns may be: what people divide time into.
const WIDTHS: [u64; 16] = [
    MINUTE,
    5 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    14 * DAY,
    28 * DAY,
    91 * DAY,
    364 * DAY,
];

/// All lanes, divided into columns of time.
#[derive(Debug, Clone)]
pub struct Chart {
    /// What the archive is called in messages.
    pub place: String,
    /// System identifier of the cluster, if it is known.
    pub system: Option<String>,
    /// Time at which it begins.
    pub from: Timestamp,
    /// How long a column is, in microseconds.
    pub column: u64,
    /// How many columns there are.
    pub columns: u64,
    /// From the oldest timeline to the newest.
    pub lanes: Vec<Lane>,
    /// How many older timelines are not drawn.
    pub left_out: usize,
}

/// One timeline of a chart.
#[derive(Debug, Clone)]
pub struct Lane {
    /// Number of the timeline.
    pub timeline: TimelineId,
    /// Where it left the timeline before it; `None` for the first.
    pub left: Option<Switch>,
    /// Whether its timeline history file is missing.
    pub history_missing: bool,
    /// Contiguous WAL of its own.
    pub spans: Vec<Span>,
    /// What is missing between spans.
    pub holes: Vec<Mark>,
    /// Restore points, by time.
    pub points: Vec<Mark>,
    /// Base backups, where they end.
    pub backups: Vec<Mark>,
    /// What was written in each column.
    pub columns: Vec<Column>,
}

/// Where a timeline left another.
#[derive(Debug, Clone)]
pub struct Switch {
    /// Number of the timeline that was left.
    pub from: TimelineId,
    /// The first place of its own.
    pub lsn: Lsn,
    /// Time, by the server's clock.
    pub at: Timestamp,
    /// Why, in the server's words.
    pub reason: String,
}

/// A range of contiguous WAL, in time.
#[derive(Debug, Clone)]
pub struct Span {
    /// Time at which it begins.
    pub from: Timestamp,
    /// Time at which it ends.
    pub until: Timestamp,
    /// LSN at which it begins.
    pub first_lsn: Lsn,
    /// LSN at which it ends.
    pub until_lsn: Lsn,
    /// How many segments it has.
    pub segments: u64,
}

/// One thing, or several that lie close to one another.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Time at which it begins.
    pub from: Timestamp,
    /// When it ends: the same, for a point in time.
    pub until: Timestamp,
    /// Number of things that are drawn as one.
    pub count: u64,
    /// The first of them, in words.
    pub text: String,
}

/// What was written in a column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Column {
    /// Size of the WAL in bytes.
    pub wal_bytes: u64,
    /// Size as stored, in bytes.
    pub stored_bytes: u64,
}

/// How time is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Division {
    /// Into minutes, hours or days, so that there are not too many columns.
    Round,
    /// Into so many columns.
    Columns(u64),
}

impl Chart {
    /// A chart of all that is known.
    #[must_use]
    pub fn of(survey: &Survey, division: Division) -> Chart {
        let timelines = survey.timelines();
        let left_out = timelines.len().saturating_sub(LANES_MAX);
        let lines: Vec<Line<'_>> = timelines
            .into_iter()
            .skip(left_out)
            .map(|timeline| survey.line(timeline))
            .collect();
        let clocks: Vec<lane::Clock<'_>> = lines.iter().map(lane::Clock::of).collect();
        let from = clocks
            .iter()
            .filter_map(lane::Clock::begins)
            .min()
            .unwrap_or(Timestamp(0));
        let until = clocks
            .iter()
            .filter_map(lane::Clock::ends)
            .max()
            .unwrap_or(from);
        let mut chart = Chart {
            place: survey.place.clone(),
            system: survey.system.map(|system| system.to_string()),
            from,
            column: 1,
            columns: 1,
            lanes: Vec::new(),
            left_out,
        };
        chart.divide(until, division);
        chart.lanes = lines
            .iter()
            .zip(&clocks)
            .map(|(line, clock)| lane::lane(survey, line, clock, &clocks, &chart))
            .collect();
        chart
    }

    fn divide(&mut self, until: Timestamp, division: Division) {
        let length = until.0.abs_diff(self.from.0).saturating_add(1);
        match division {
            Division::Columns(columns) => {
                self.columns = columns.max(1);
                self.column = length.div_ceil(self.columns);
            }
            Division::Round => {
                let fits = |width: &&u64| length.div_ceil(**width) < COLUMNS_MAX;
                let widest = length.div_ceil(COLUMNS_MAX - 1);
                self.column = WIDTHS.iter().find(fits).copied().unwrap_or(widest);
                // Columns begin with the hour, or the day.
                let into = self
                    .from
                    .0
                    .rem_euclid(i64::try_from(self.column).unwrap_or(i64::MAX));
                self.from = Timestamp(self.from.0.saturating_sub(into));
                self.columns = (until.0.abs_diff(self.from.0) / self.column).saturating_add(1);
            }
        }
    }

    /// When it ends.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        let length = self.column.saturating_mul(self.columns);
        Timestamp(self.from.0.saturating_add_unsigned(length))
    }

    /// Where a moment lies, from 0 to 1.
    #[must_use]
    pub fn position(&self, at: Timestamp) -> f64 {
        let length = self.column.saturating_mul(self.columns).max(1) as f64;
        (at.0.saturating_sub(self.from.0) as f64 / length).clamp(0.0, 1.0)
    }

    /// In which of so many parts a moment lies.
    fn part(&self, at: Timestamp, parts: u64) -> u64 {
        ((self.position(at) * parts as f64) as u64).min(parts.saturating_sub(1))
    }

    /// When a column begins.
    #[must_use]
    pub fn begins(&self, column: u64) -> Timestamp {
        Timestamp(
            self.from
                .0
                .saturating_add_unsigned(self.column.saturating_mul(column)),
        )
    }

    /// Bytes in a column as bytes in an hour.
    #[must_use]
    pub fn per_hour(&self, bytes: u64) -> u64 {
        u64::try_from(u128::from(bytes) * u128::from(HOUR) / u128::from(self.column.max(1)))
            .unwrap_or(u64::MAX)
    }

    /// The most WAL of any column.
    #[must_use]
    pub fn highest(&self) -> u64 {
        let columns = self.lanes.iter().flat_map(|lane| &lane.columns);
        columns
            .map(|column| column.wal_bytes.max(column.stored_bytes))
            .max()
            .unwrap_or_default()
    }

    /// Holes that lie on one another become one.
    fn merged(&self, mut marks: Vec<Mark>) -> Vec<Mark> {
        marks.sort_by_key(|mark| mark.from);
        let mut merged: Vec<Mark> = Vec::new();
        for mark in marks {
            let part = self.part(mark.from, HOLES_MAX);
            match merged.last_mut() {
                Some(last) if self.part(last.until, HOLES_MAX) == part => {
                    last.count += mark.count;
                    last.until = last.until.max(mark.until);
                }
                _ => merged.push(mark),
            }
        }
        merged
    }

    /// Signs that would cover one another, each drawn where it ends, become the first of them.
    fn spread(&self, mut marks: Vec<Mark>) -> Vec<Mark> {
        marks.sort_by_key(|mark| mark.until);
        let mut spread: Vec<Mark> = Vec::new();
        for mark in marks {
            let at = self.position(mark.until);
            match spread.last_mut() {
                Some(last) if at < self.position(last.until) + 1.0 / SIGNS_MAX => {
                    last.count += mark.count;
                }
                _ => spread.push(mark),
            }
        }
        spread
    }
}

impl Mark {
    /// In words, with how many more there are.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self.count {
            0 | 1 => self.text.clone(),
            2 => format!("{}, and another close to it", self.text),
            more => format!("{}, and {} others close to it", self.text, more - 1),
        }
    }
}
