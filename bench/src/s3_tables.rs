//! The tables of the parts with an object store: see `tables.rs`.

use crate::fetchers::LIMIT;
use crate::results::{Results, Row};
use crate::tables::{SEGMENT_MB, figure, in_order, table, why_not};

/// How many segments a part had.
fn segments(results: &Results) -> Option<f64> {
    results.setup.get("segments")?.parse().ok()
}

/// MB/s, if both are known.
fn speed(segments: Option<f64>, seconds: Option<f64>) -> Option<f64> {
    Some(segments? * SEGMENT_MB / seconds?)
}

/// MB/s from the first segment's mark on.
fn afterwards(row: &Row, segments: Option<f64>) -> Option<f64> {
    let seconds = row.median("drain_s")? - row.median("first_s")?;
    speed(segments.map(|count| count - 1.0), Some(seconds))
}

/// Requests a segment.
fn requests(row: &Row, segments: Option<f64>) -> Option<f64> {
    Some(row.median("requests")? / segments?)
}

/// The table of archiving into an object store.
pub(crate) fn drain(results: &Results) -> String {
    const HEADS: [&str; 8] = [
        "contender",
        "MB/s",
        "first file after, s",
        "from then on, MB/s",
        "requests a segment",
        "processor, s",
        "memory at most, MB",
        "machine busy",
    ];
    let segments = segments(results);
    let mut text = String::new();
    for case in results.cases() {
        let mut lines = Vec::new();
        for row in in_order(results, case, "drain_s") {
            if let Some(line) = why_not(row, row.title(), HEADS.len()) {
                lines.push(line);
                continue;
            }
            lines.push(vec![
                row.title(),
                figure(speed(segments, row.median("drain_s")), 0),
                figure(row.median("first_s"), 2),
                figure(afterwards(row, segments), 0),
                figure(requests(row, segments), 1),
                figure(row.median("cpu_s"), 2),
                figure(row.max("memory_peak_kb").map(|kb| kb / 1024.0), 1),
                format!("{} %", figure(row.median("busy_percent"), 0)),
            ]);
        }
        text.push_str(&format!("**{case}**\n\n{}\n", table(&HEADS, lines)));
    }
    text
}

/// The table of recovery from an object store.
pub(crate) fn recovery(results: &Results) -> String {
    const HEADS: [&str; 5] = [
        "contender",
        "seconds",
        "MB/s",
        "longer than the limit",
        "requests a segment",
    ];
    let segments = segments(results);
    let mut text = String::new();
    for case in results.cases() {
        let limit = results
            .row(case, LIMIT, "none")
            .and_then(|row| row.median("redo_s"));
        let mut lines = Vec::new();
        for row in in_order(results, case, "redo_s") {
            if let Some(line) = why_not(row, row.title(), HEADS.len()) {
                lines.push(line);
                continue;
            }
            let seconds = row.median("redo_s");
            let longer = limit
                .zip(seconds)
                .map(|(limit, s)| (s / limit - 1.0) * 100.0);
            lines.push(vec![
                row.title(),
                figure(seconds, 2),
                figure(speed(segments, seconds), 0),
                longer.map_or_else(String::new, |longer| format!("{longer:+.1} %")),
                figure(requests(row, segments).filter(|count| *count > 0.0), 1),
            ]);
        }
        text.push_str(&format!("**{case}**\n\n{}\n", table(&HEADS, lines)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_by_the_segment_and_those_that_were_not_measured_are_dashes() {
        let mut row = Row::new("round trip 10 ms", "Walden, 4 jobs", "zstd:1");
        row.add("requests", 25.0);
        assert_eq!(requests(&row, Some(20.0)), Some(1.25));
        assert_eq!(speed(Some(20.0), row.median("drain_s")), None);
        assert_eq!(figure(speed(Some(20.0), None), 0), "–");
        let speed = speed(Some(100.0), Some(10.0)).unwrap();
        assert!((speed - 167.772_16).abs() < 1e-6);
    }
}
