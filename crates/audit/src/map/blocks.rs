//! The chart on a terminal: a lane is a line of blocks, with marks below it.
//!
//! Guarantees lines of the width that was asked for, and that nothing out of WAL reaches the terminal but escaped.

use std::fmt::Write;

use wal::Timestamp;

use super::{Chart, Division, Lane, Mark};
use crate::survey::Survey;
use crate::timestamp::readable;

/// How the chart is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// How many characters a line may have.
    pub width: usize,
    /// With characters that every terminal has.
    pub ascii: bool,
}

/// The least width that anything can be seen in.
const COLUMNS_MIN: usize = 20;

/// From little WAL to much.
const FILLED: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const FILLED_ASCII: [char; 8] = ['.', ':', '-', '=', '+', '*', '%', '@'];

struct Signs {
    filled: [char; 8],
    quiet: char,
    hole: char,
    point: char,
    backup: char,
    switch: char,
}

const SIGNS: Signs = Signs {
    filled: FILLED,
    quiet: '·',
    hole: '╳',
    point: '◆',
    backup: '▲',
    switch: '└',
};

const SIGNS_ASCII: Signs = Signs {
    filled: FILLED_ASCII,
    quiet: '_',
    hole: 'X',
    point: 'o',
    backup: 'B',
    switch: 'L',
};

/// The chart as text.
#[must_use]
pub fn blocks(survey: &Survey, how: Blocks) -> String {
    let names = survey
        .timelines()
        .into_iter()
        .map(|timeline| timeline.to_string().len());
    let label = names.max().unwrap_or_default().max("timeline".len()) + 1;
    let columns = how.width.saturating_sub(label).max(COLUMNS_MIN);
    let chart = Chart::of(survey, Division::Columns(columns as u64));
    let signs = if how.ascii { &SIGNS_ASCII } else { &SIGNS };
    let mut text = String::new();
    if chart.lanes.is_empty() {
        let _ = writeln!(text, "no WAL in \"{}\"", chart.place);
        return text;
    }
    // To the second: columns divide time as it comes.
    let second =
        |at: Timestamp| readable(Timestamp(at.0.saturating_sub(at.0.rem_euclid(1_000_000))));
    let (from, until) = (second(chart.from), second(chart.until()));
    let gap = columns.saturating_sub(from.len() + until.len());
    let _ = writeln!(text, "{:label$}{from}{:gap$}{until}", "timeline", "");
    let highest = chart.highest();
    for lane in &chart.lanes {
        let (wal, marks) = lane_in_blocks(lane, &chart, columns, highest, signs);
        let _ = writeln!(text, "{:<label$}{}", lane.timeline, wal.trim_end());
        if !marks.trim().is_empty() {
            let _ = writeln!(text, "{:label$}{}", "", marks.trim_end());
        }
    }
    legend(&mut text, &chart, signs, (highest, how.width));
    for lane in &chart.lanes {
        notes(&mut text, lane, signs);
    }
    text
}

fn lane_in_blocks(
    lane: &Lane,
    chart: &Chart,
    columns: usize,
    highest: u64,
    signs: &Signs,
) -> (String, String) {
    let mut wal = vec![' '; columns];
    let mut below = vec![' '; columns];
    let column = |at| usize::try_from(chart.part(at, columns as u64)).unwrap_or_default();
    let put = |line: &mut Vec<char>, at: usize, sign: char| {
        if let Some(place) = line.get_mut(at) {
            *place = sign;
        }
    };
    for span in &lane.spans {
        for at in column(span.from)..=column(span.until) {
            put(&mut wal, at, signs.quiet);
        }
    }
    for (at, bytes) in lane
        .columns
        .iter()
        .map(|column| column.wal_bytes)
        .enumerate()
    {
        let level = u128::from(bytes) * 8 / u128::from(highest.max(1));
        let level = usize::try_from(level).unwrap_or_default().min(7);
        if let Some(sign) = signs.filled.get(level).filter(|_| bytes > 0) {
            put(&mut wal, at, *sign);
        }
    }
    // A hole is worth more than what is beside it.
    for hole in &lane.holes {
        for at in column(hole.from)..=column(hole.until) {
            put(&mut wal, at, signs.hole);
        }
    }
    for backup in &lane.backups {
        put(&mut below, column(backup.until), signs.backup);
    }
    for point in &lane.points {
        put(&mut below, column(point.from), signs.point);
    }
    if let Some(left) = &lane.left {
        let at = column(left.at);
        put(&mut below, at, signs.switch);
    }
    (wal.into_iter().collect(), below.into_iter().collect())
}

fn legend(text: &mut String, chart: &Chart, signs: &Signs, (highest, width): (u64, usize)) {
    let most = crate::text::size(chart.per_hour(highest));
    let (least, full) = (signs.filled.first(), signs.filled.last());
    let words = [
        format!(
            "{} to {} WAL, at most {most} an hour",
            least.unwrap_or(&' '),
            full.unwrap_or(&' ')
        ),
        format!("{} none", signs.quiet),
        format!("{} missing", signs.hole),
        format!("{} base backup", signs.backup),
        format!("{} restore point", signs.point),
        format!("{} begins", signs.switch),
    ];
    let mut line = 0;
    for words in words {
        let length = words.chars().count();
        let between = match line {
            0 => "\n",
            line if line + 3 + length > width => "\n",
            _ => "   ",
        };
        line = match between {
            "\n" => length,
            _ => line + 3 + length,
        };
        let _ = write!(text, "{between}{words}");
    }
    let _ = writeln!(text);
    if chart.left_out > 0 {
        let _ = writeln!(text, "{} older timelines are left out", chart.left_out);
    }
}

fn notes(text: &mut String, lane: &Lane, signs: &Signs) {
    let timeline = lane.timeline;
    if let Some(left) = &lane.left {
        let reason = left.reason.escape_debug();
        let _ = writeln!(
            text,
            "{} timeline {timeline} left {} at {}: {reason}",
            signs.switch, left.from, left.lsn
        );
    }
    if lane.history_missing {
        let _ = writeln!(
            text,
            "{} timeline {timeline}: its timeline history file is missing",
            signs.hole
        );
    }
    let mut all = |marks: &[Mark], sign: char| {
        for mark in marks {
            let _ = writeln!(text, "{sign} timeline {timeline}: {}", mark.in_words());
        }
    };
    all(&lane.holes, signs.hole);
    all(&lane.backups, signs.backup);
    all(&lane.points, signs.point);
}
