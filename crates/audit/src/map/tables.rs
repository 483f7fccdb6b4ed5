//! The tables of the page: what the picture shows, in words.
//!
//! Guarantees the same escaping and the same bounds as the picture: of long tables the newest rows.

use std::fmt::Write;

use super::page::{escaped, time};
use super::{Chart, LANES_MAX};
use crate::targets::{BackupReport, Hole, PointReport, Range, ReachReport, Report, TimelineReport};
use crate::text::size;

/// The most rows of a table.
const ROWS_MAX: usize = 400;

/// Writes all tables of the page.
pub(super) fn tables(text: &mut String, chart: &Chart, report: &Report) {
    if !report.timelines.is_empty() {
        timelines(text, &report.timelines);
    }
    if !report.backups.is_empty() {
        backups(text, &report.backups);
    }
    if !report.restore_points.is_empty() {
        points(text, &report.restore_points);
    }
    if !chart.lanes.is_empty() {
        volume(text, chart);
    }
    if !report.notes.is_empty() {
        let _ = writeln!(text, "<h2>Other files</h2>\n<ul>");
        for note in newest(&report.notes, ROWS_MAX) {
            let _ = writeln!(text, "<li>{}</li>", escaped(note));
        }
        let _ = writeln!(text, "</ul>");
    }
}

/// The end of a list.
fn newest<T>(all: &[T], max: usize) -> &[T] {
    all.get(all.len().saturating_sub(max)..).unwrap_or(all)
}

fn begin(
    text: &mut String,
    heading: &str,
    caption: &str,
    columns: &[&str],
    (shown, all): (usize, usize),
) {
    let _ = writeln!(text, "<h2>{heading}</h2>\n<div class=\"table\">\n<table>");
    let cut = if shown < all {
        format!(" The newest {shown} of {all}.")
    } else {
        String::new()
    };
    let _ = write!(text, "<caption>{caption}{cut}</caption>\n<thead><tr>");
    for column in columns {
        let class = if column.starts_with('#') {
            " class=\"number\""
        } else {
            ""
        };
        let _ = write!(
            text,
            "<th scope=\"col\"{class}>{}</th>",
            column.trim_start_matches('#')
        );
    }
    let _ = writeln!(text, "</tr></thead>\n<tbody>");
}

fn end(text: &mut String) {
    let _ = writeln!(text, "</tbody>\n</table>\n</div>");
}

fn timelines(text: &mut String, all: &[TimelineReport]) {
    let rows = newest(all, LANES_MAX);
    let columns = [
        "Timeline",
        "WAL",
        "Times",
        "#Segments",
        "#Commits",
        "#WAL",
        "#Stored",
    ];
    begin(
        text,
        "Timelines",
        "Contiguous WAL of each timeline.",
        &columns,
        (rows.len(), all.len()),
    );
    for timeline in rows {
        let mut first = match &timeline.left {
            Some(left) => format!(
                "{}, left {} at {}: {}",
                timeline.timeline,
                left.timeline,
                left.lsn,
                escaped(&left.reason)
            ),
            None => timeline.timeline.to_string(),
        };
        if timeline.history_missing {
            first.push_str(" <span class=\"alarm\">without its timeline history file</span>");
        }
        // That once: it can be long.
        let number = timeline.timeline.to_string();
        let mut first = || std::mem::replace(&mut first, number.clone());
        let (ranges, holes) = (
            newest(&timeline.ranges, ROWS_MAX),
            newest(&timeline.holes, ROWS_MAX),
        );
        let mut holes = holes.iter().peekable();
        for range in ranges {
            let is_before = |hole: &&Hole| hole.first_segment < range.first_segment.to_string();
            while let Some(hole) = holes.next_if(is_before) {
                hole_row(text, &first(), hole);
            }
            range_row(text, &first(), range);
        }
        for hole in holes {
            hole_row(text, &first(), hole);
        }
        if ranges.is_empty() {
            let _ = writeln!(
                text,
                "<tr><td>{}</td><td colspan=\"6\">no WAL</td></tr>",
                first()
            );
        }
    }
    end(text);
}

fn range_row(text: &mut String, first: &str, range: &Range) {
    let times = range.first_time.zip(range.last_time);
    let times = times.map(|(first, last)| format!("{} to<br>{}", time(first), time(last)));
    let _ = writeln!(
        text,
        "<tr><td>{first}</td><td><span class=\"place\">{}</span> to <span class=\"place\">{}</span></td><td>{}</td>\
         <td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
         <td class=\"number\">{}</td></tr>",
        range.first_lsn,
        range.until_lsn,
        times.unwrap_or_default(),
        range.segments,
        range.commits,
        size(range.wal_bytes),
        size(range.stored_bytes),
    );
}

fn hole_row(text: &mut String, first: &str, hole: &Hole) {
    let what = match (&hole.why, hole.segments) {
        (Some(why), _) => format!(
            "<code>{}</code> is of no use: {}",
            hole.first_segment,
            escaped(why)
        ),
        (None, 1) => format!("<code>{}</code> is missing", hole.first_segment),
        (None, count) => format!(
            "{count} segments are missing, <code>{}</code> to <code>{}</code>",
            hole.first_segment, hole.last_segment
        ),
    };
    let _ = writeln!(
        text,
        "<tr><td>{first}</td><td colspan=\"6\" class=\"alarm\">{what}</td></tr>"
    );
}

fn backups(text: &mut String, all: &[BackupReport]) {
    let rows = newest(all, ROWS_MAX);
    let columns = [
        "Label",
        "File",
        "Timeline",
        "Consistent at",
        "Ended",
        "Reaches",
    ];
    begin(
        text,
        "Base backups",
        "Those that left a backup history file.",
        &columns,
        (rows.len(), all.len()),
    );
    for backup in rows {
        let reaches: Vec<String> = newest(&backup.reaches, LANES_MAX)
            .iter()
            .map(reach)
            .collect();
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td><code>{}</code></td><td>{}</td><td class=\"place\">{}</td><td>{}</td><td>{}</td></tr>",
            escaped(&backup.label),
            file(&backup.file),
            backup.timeline,
            backup.stop_lsn,
            escaped(backup.stop_time.as_deref().unwrap_or_default()),
            reaches.join("<br>")
        );
    }
    end(text);
}

/// The name of a file, which may go on in another line behind that of the segment.
fn file(name: &str) -> String {
    escaped(name).replacen('.', "<wbr>.", 1)
}

fn reach(reach: &ReachReport) -> String {
    let why = reach.why.as_deref().map(escaped).unwrap_or_default();
    let Some(until) = &reach.until_lsn else {
        return format!(
            "<span class=\"alarm\">timeline {}: cannot be recovered: {why}</span>",
            reach.timeline
        );
    };
    let times = match (reach.from_time, reach.before_time) {
        (Some(from), Some(before)) => {
            format!("times from {} until before {}", time(from), time(before))
        }
        (None, Some(before)) => format!("times before {}", time(before)),
        (_, None) => "no target time".to_owned(),
    };
    let why = if why.is_empty() {
        why
    } else {
        format!(" <span class=\"alarm\">and no further: {why}</span>")
    };
    format!(
        "timeline {}: to <span class=\"place\">{until}</span>, {times}{why}",
        reach.timeline
    )
}

fn points(text: &mut String, all: &[PointReport]) {
    let rows = newest(all, ROWS_MAX);
    let columns = ["Name", "Made", "Timeline", "Place", "Reached from"];
    begin(
        text,
        "Restore points",
        "By their place in WAL.",
        &columns,
        (rows.len(), all.len()),
    );
    for point in rows {
        let reaches = newest(&point.reachable, LANES_MAX).iter();
        let reaches: Vec<String> = reaches
            .map(|reach| {
                let (count, last) = (reach.backup_count, reach.backups.last());
                let last = last.map(|last| file(last)).unwrap_or_default();
                let others = match count {
                    0 | 1 => String::new(),
                    count => format!(" and {} before it", count - 1),
                };
                format!(
                    "<code>{last}</code>{others}, on timeline {}",
                    reach.timeline
                )
            })
            .collect();
        let reaches = if reaches.is_empty() {
            "<span class=\"alarm\">no base backup</span>".to_owned()
        } else {
            reaches.join("<br>")
        };
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"place\">{}</td><td>{reaches}</td></tr>",
            escaped(&point.name),
            time(point.at),
            point.timeline,
            point.lsn
        );
    }
    end(text);
}

/// The columns of the picture, where any WAL was written.
fn volume(text: &mut String, chart: &Chart) {
    let lanes = chart.lanes.iter().rev();
    let rows: Vec<_> = lanes
        .flat_map(|lane| {
            let columns = lane.columns.iter().enumerate();
            columns
                .filter(|(_, column)| column.wal_bytes > 0)
                .map(move |column| (lane.timeline, column))
        })
        .collect();
    let shown = rows.len().min(ROWS_MAX);
    let columns = ["From", "Timeline", "#WAL an hour", "#Stored an hour"];
    begin(
        text,
        "WAL an hour",
        "The columns of the picture.",
        &columns,
        (shown, rows.len()),
    );
    for (timeline, (number, column)) in rows.into_iter().take(shown) {
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td>{timeline}</td><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
            time(chart.begins(number as u64)),
            size(chart.per_hour(column.wal_bytes)),
            size(chart.per_hour(column.stored_bytes))
        );
    }
    end(text);
}
