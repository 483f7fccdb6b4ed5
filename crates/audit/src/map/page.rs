//! The chart as a page: HTML with inline SVG, which needs nothing else.
//!
//! Guarantees that nothing out of an archive reaches the page but escaped, that the page asks no other for anything (and says
//! so to the browser), that everything in the picture stands in the tables, too, and a bounded size.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use wal::Timestamp;

use super::{Chart, Lane, Mark, Switch};
use crate::map::tables::tables;
use crate::targets::Report;
use crate::text::size;
use crate::timestamp::readable;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

// Of the picture, in its own units.
const WIDTH: f64 = 1100.0;
const LEFT: f64 = 104.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 34.0;
const LANE: f64 = 118.0;
/// From a lane's top to its bar of WAL, which the columns stand on and the marks hang below.
const BAR: f64 = 54.0;
const BAR_HEIGHT: f64 = 8.0;
const COLUMN_HEIGHT: f64 = 44.0;
/// What is too narrow to see is drawn this wide.
const WIDTH_MIN: f64 = 3.0;

/// How a page's policy names the one script, or style, that may be in it.
fn source(text: &str) -> String {
    let hash = STANDARD.encode(Sha256::digest(text));
    format!("sha256-{hash}")
}

/// The page. Whatever may have found its way from WAL into it, no browser runs it or fetches anything for it.
#[must_use]
pub fn page(chart: &Chart, report: &Report) -> String {
    let mut text = String::new();
    let place = escaped(&chart.place);
    let _ = write!(
        text,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src '{}'; \
         script-src '{}'\">\n\
         <title>What {place} can be recovered to</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
        source(STYLE),
        source(SCRIPT)
    );
    head(&mut text, chart, report);
    if !chart.lanes.is_empty() {
        figure(&mut text, chart);
    }
    tables(&mut text, chart, report);
    let _ = write!(text, "<script>{SCRIPT}</script>\n</body>\n</html>\n");
    text
}

fn head(text: &mut String, chart: &Chart, report: &Report) {
    let _ = writeln!(
        text,
        "<h1>What {} can be recovered to</h1>",
        escaped(&chart.place)
    );
    let system = chart.system.as_deref().unwrap_or("that is not known");
    let (from, until) = (range(chart, true), range(chart, false));
    let _ = if chart.lanes.is_empty() {
        writeln!(text, "<p>It holds no WAL.</p>")
    } else {
        writeln!(
            text,
            "<p>WAL of system {}, {from} to {until}.</p>",
            escaped(system)
        )
    };
    let timelines = report.timelines.iter();
    let holes: usize = timelines.map(|timeline| timeline.holes.len()).sum();
    if holes > 0 {
        let what = if holes == 1 { "a hole" } else { "holes" };
        let _ = writeln!(
            text,
            "<p class=\"alarm\">There {} {what} in it: no recovery gets past one.</p>",
            if holes == 1 { "is" } else { "are" }
        );
    }
    if report.backups.is_empty() && !chart.lanes.is_empty() {
        let _ = writeln!(
            text,
            "<p class=\"alarm\">No base backup has left a backup history file.</p>"
        );
    }
}

/// The first or the last moment that any WAL tells.
fn range(chart: &Chart, first: bool) -> String {
    let spans = chart.lanes.iter().flat_map(|lane| &lane.spans);
    let at = if first {
        spans.map(|span| span.from).min()
    } else {
        spans.map(|span| span.until).max()
    };
    at.map(time).unwrap_or_default()
}

fn figure(text: &mut String, chart: &Chart) {
    let height = TOP + LANE * chart.lanes.len() as f64 + 10.0;
    let _ = writeln!(
        text,
        "<figure>\n<div class=\"chart\">\n<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"group\" \
         aria-label=\"Timelines over time. Everything in it stands in the tables below.\">\n\
         <defs><pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\"><line class=\"hatch\" x1=\"0\" y1=\"0\" x2=\"0\" y2=\"6\"/></pattern></defs>"
    );
    axis(text, chart, height);
    let highest = chart.highest();
    for (number, lane) in chart.lanes.iter().enumerate() {
        lane_in_svg(text, chart, lane, top(number), highest);
    }
    for (number, lane) in chart.lanes.iter().enumerate() {
        if let Some(left) = &lane.left {
            switch_in_svg(text, chart, lane, left, number);
        }
    }
    let _ = writeln!(
        text,
        "</svg>\n</div>\n<div id=\"told\" class=\"dim\" role=\"status\" aria-live=\"polite\">\
         Point at something, or press Tab, and it is named here.</div>"
    );
    legend(text, chart, highest);
    let _ = writeln!(text, "</figure>");
}

fn top(lane: usize) -> f64 {
    TOP + LANE * lane as f64
}

fn x(chart: &Chart, at: Timestamp) -> f64 {
    LEFT + chart.position(at) * (WIDTH - LEFT - RIGHT)
}

/// Every so many columns a line through all lanes, with its time.
fn axis(text: &mut String, chart: &Chart, height: f64) {
    let every = chart.columns.div_ceil(7).max(1);
    let day = 86_400_000_000;
    let mut last_day = None;
    for column in (0..chart.columns).step_by(usize::try_from(every).unwrap_or(1)) {
        let at = chart.begins(column);
        let x = x(chart, at);
        let _ = writeln!(
            text,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>",
            TOP - 8.0,
            height - 8.0
        );
        let shown = readable(at);
        let (date, clock) = shown.split_once(' ').unwrap_or((&shown, ""));
        let clock = clock.get(..5).unwrap_or_default();
        let is_new = last_day != Some(at.0.div_euclid(day));
        last_day = Some(at.0.div_euclid(day));
        let label = match (is_new, chart.column >= 86_400_000_000) {
            (_, true) => date.to_owned(),
            (true, false) => format!("{date} {clock}"),
            (false, false) => clock.to_owned(),
        };
        let _ = writeln!(
            text,
            "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\">{label}</text>",
            TOP - 16.0
        );
    }
    let _ = writeln!(
        text,
        "<text class=\"tick\" x=\"8\" y=\"{:.1}\">UTC</text>",
        TOP - 16.0
    );
}

fn lane_in_svg(text: &mut String, chart: &Chart, lane: &Lane, top: f64, highest: u64) {
    let _ = writeln!(
        text,
        "<rect class=\"lane\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{}\" height=\"{:.1}\"/>\n\
         <text x=\"8\" y=\"{:.1}\" font-weight=\"600\">timeline {}</text>",
        top + 4.0,
        WIDTH - LEFT - RIGHT,
        LANE - 8.0,
        top + BAR + 2.0,
        lane.timeline
    );
    if lane.history_missing {
        let _ = writeln!(
            text,
            "<text class=\"missing\" x=\"8\" y=\"{:.1}\">no history file</text>",
            top + BAR + 17.0
        );
    }
    columns_in_svg(text, chart, lane, top, highest);
    for span in &lane.spans {
        let label = format!(
            "timeline {}: WAL from {} to {}, {} to {}, {} segments",
            lane.timeline,
            readable(span.from),
            readable(span.until),
            span.first_lsn,
            span.until_lsn,
            span.segments
        );
        let (from, width) = extent(chart, span.from, span.until);
        let shape = format!(
            "<rect class=\"span\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\"/>",
            top + BAR
        );
        seen(text, &label, &shape, (from, top + BAR, width, BAR_HEIGHT));
    }
    for hole in &lane.holes {
        let (from, width) = extent(chart, hole.from, hole.until);
        let width = width.max(8.0);
        let (y, height) = (top + BAR - 6.0, BAR_HEIGHT + 12.0);
        let rect = |class: &str| {
            format!(
                "<rect {class} x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\"/>"
            )
        };
        let shape = rect("class=\"hole-ground\"") + &rect("fill=\"url(#hatch)\"");
        let label = format!("timeline {}: {}", lane.timeline, hole.in_words());
        seen(text, &label, &shape, (from, y, width, height));
    }
    for backup in &lane.backups {
        let (at, y) = (x(chart, backup.until), top + BAR + BAR_HEIGHT + 3.0);
        let shape = format!("<path class=\"backup\" d=\"M{at:.1} {y:.1}l7 13h-14z\"/>");
        mark_in_svg(text, lane, backup, &shape, (at, y, 13.0));
    }
    for point in &lane.points {
        // Below the backups and their counts.
        let (at, y) = (x(chart, point.from), top + BAR + BAR_HEIGHT + 26.0);
        let shape = format!("<path class=\"point\" d=\"M{at:.1} {y:.1}l7 7l-7 7l-7 -7z\"/>");
        mark_in_svg(text, lane, point, &shape, (at, y, 14.0));
    }
}

/// The WAL of each column, and in front of it what it takes stored.
fn columns_in_svg(text: &mut String, chart: &Chart, lane: &Lane, top: f64, highest: u64) {
    let step = (WIDTH - LEFT - RIGHT) / chart.columns.max(1) as f64;
    let base = top + BAR - 2.0;
    for (number, column) in lane.columns.iter().enumerate() {
        if column.wal_bytes == 0 && column.stored_bytes == 0 {
            continue;
        }
        let at = LEFT + step * number as f64;
        let _ = write!(
            text,
            "<g><title>{}, {} of WAL an hour, {} stored</title>",
            readable(chart.begins(number as u64)),
            size(chart.per_hour(column.wal_bytes)),
            size(chart.per_hour(column.stored_bytes))
        );
        let mut bar = |class: &str, bytes: u64, inset: f64| {
            let height = (COLUMN_HEIGHT * bytes as f64 / highest.max(1) as f64).max(1.0);
            let _ = write!(
                text,
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
                at + step * inset,
                base - height,
                (step * (1.0 - 2.0 * inset)).max(0.5)
            );
        };
        bar("wal", column.wal_bytes, 0.06);
        bar("stored", column.stored_bytes, 0.28);
        let _ = writeln!(text, "</g>");
    }
}

fn switch_in_svg(text: &mut String, chart: &Chart, lane: &Lane, left: &Switch, number: usize) {
    let parent = chart
        .lanes
        .iter()
        .position(|other| other.timeline == left.from);
    let at = x(chart, left.at);
    let end = top(number) + BAR + BAR_HEIGHT / 2.0;
    let begin = match parent {
        Some(parent) => top(parent) + BAR + BAR_HEIGHT / 2.0,
        // The lane is left out, or there is no WAL of it.
        None => TOP - 8.0,
    };
    let label = format!(
        "timeline {} left {} at {}, about {}: {}",
        lane.timeline,
        left.from,
        left.lsn,
        readable(left.at),
        left.reason.escape_debug()
    );
    let shape = format!(
        "<path class=\"switch\" d=\"M{at:.1} {begin:.1}V{end:.1}\"/>\
         <circle class=\"switch-end\" cx=\"{at:.1}\" cy=\"{end:.1}\" r=\"5\"/>"
    );
    seen(text, &label, &shape, (at - 6.0, end - 6.0, 12.0, 12.0));
}

fn mark_in_svg(
    text: &mut String,
    lane: &Lane,
    mark: &Mark,
    shape: &str,
    (at, y, height): (f64, f64, f64),
) {
    let label = format!("timeline {}: {}", lane.timeline, mark.in_words());
    let count = match mark.count {
        0 | 1 => String::new(),
        count => format!(
            "<text class=\"count\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
            y + height + 9.0,
            if count < 1000 {
                count.to_string()
            } else {
                "999+".to_owned()
            }
        ),
    };
    seen(
        text,
        &label,
        &(shape.to_owned() + &count),
        (at - 8.0, y - 1.0, 16.0, height + 2.0),
    );
}

/// Something that has a name, for the pointer, the keyboard and those who hear the page.
fn seen(text: &mut String, label: &str, shape: &str, (x, y, width, height): (f64, f64, f64, f64)) {
    let label = escaped(label);
    let _ = writeln!(
        text,
        "<g class=\"seen\" tabindex=\"0\" role=\"img\" aria-label=\"{label}\"><title>{label}</title>{shape}\
         <rect class=\"halo\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\"/></g>",
        x - 2.0,
        y - 2.0,
        width + 4.0,
        height + 4.0
    );
}

/// From where, and how wide.
fn extent(chart: &Chart, from: Timestamp, until: Timestamp) -> (f64, f64) {
    let (from, until) = (x(chart, from), x(chart, until));
    (from, (until - from).max(WIDTH_MIN))
}

fn legend(text: &mut String, chart: &Chart, highest: u64) {
    let sign =
        |shape: &str| format!("<svg viewBox=\"0 0 18 14\" aria-hidden=\"true\">{shape}</svg>");
    let signs = [
        (
            "<rect class=\"wal\" x=\"2\" y=\"0\" width=\"14\" height=\"14\"/>",
            format!("WAL an hour, at most {}", size(chart.per_hour(highest))),
        ),
        (
            "<rect class=\"stored\" x=\"5\" y=\"3\" width=\"8\" height=\"11\"/>",
            "the same as stored".to_owned(),
        ),
        (
            "<rect class=\"span\" x=\"0\" y=\"4\" width=\"18\" height=\"6\"/>",
            "contiguous WAL".to_owned(),
        ),
        (
            "<rect class=\"hole-ground\" x=\"1\" y=\"1\" width=\"16\" height=\"12\"/>\
             <rect fill=\"url(#hatch)\" x=\"1\" y=\"1\" width=\"16\" height=\"12\"/>",
            "hole".to_owned(),
        ),
        (
            "<path class=\"backup\" d=\"M9 0l7 13h-14z\"/>",
            "base backup".to_owned(),
        ),
        (
            "<path class=\"point\" d=\"M9 0l7 7l-7 7l-7 -7z\"/>",
            "restore point".to_owned(),
        ),
        (
            "<path class=\"switch\" d=\"M9 0V14\"/><circle class=\"switch-end\" cx=\"9\" cy=\"7\" r=\"4\"/>",
            "beginning of a timeline".to_owned(),
        ),
    ];
    let _ = writeln!(text, "<ul class=\"legend\">");
    for (shape, words) in signs {
        let _ = writeln!(text, "<li>{}{words}</li>", sign(shape));
    }
    let _ = writeln!(text, "</ul>");
    if chart.left_out > 0 {
        let _ = writeln!(
            text,
            "<figcaption>{} older timelines are left out of the picture.</figcaption>",
            chart.left_out
        );
    }
}

/// A moment for people and programs.
pub(super) fn time(at: Timestamp) -> String {
    format!(
        "<time datetime=\"{}\">{}</time>",
        crate::timestamp::rfc3339(at),
        readable(at)
    )
}

/// Text that says nothing to a browser, whatever is in it: what HTML gives a meaning, and what changes how other text is
/// shown.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Controls, and those that turn the direction of writing.
            c if c.is_control()
                || matches!(c, '\u{200E}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}') =>
            {
                safe.extend(c.escape_unicode());
            }
            c => safe.push(c),
        }
    }
    safe
}
