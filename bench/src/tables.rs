//! Tables of Markdown, made of raw results and nothing else.
//!
//! Guarantees that a contender without figures is a row that says why, and that ratios are to the limit of the same
//! run. Figures are medians unless a column says otherwise.

use crate::contenders::LIMIT_EACH;
use crate::fetchers::LIMIT;
use crate::plan::Part;
use crate::records;
use crate::results::{Results, Row};
use crate::s3_tables;
use crate::stages::STEPS;

/// A segment of the default size, in MB of 10^6 bytes.
pub(crate) const SEGMENT_MB: f64 = 16.777_216;

/// The tables of one part.
pub(crate) fn of_part(results: &Results) -> String {
    let of: fn(&Results) -> String = match results.part.as_str() {
        "drain" => drain,
        "steady" => steady,
        "acknowledge" => acknowledge,
        "recovery" => recovery,
        "wait" => wait,
        "stages" => stages,
        "profile" => profile,
        "records" => records,
        "memory" => memory,
        "many" => many,
        "s3-drain" => s3_tables::drain,
        "s3-recovery" => s3_tables::recovery,
        _ => return String::new(),
    };
    of(results)
}

/// What to call a part's results: when they were made, and what was fixed.
pub(crate) fn caption(part: Part, results: &Results) -> String {
    let setup: Vec<String> = results
        .setup
        .iter()
        .map(|(what, value)| format!("{what}: {value}"))
        .collect();
    format!(
        "Measured on {} (`bench/results/{}-{}.json`); {}.",
        results.begun.get(..10).unwrap_or_default(),
        results.begun.get(..10).unwrap_or_default(),
        part.name(),
        setup.join(", ")
    )
}

/// A table; the first column to the left, all others to the right.
pub(crate) fn table(heads: &[&str], lines: Vec<Vec<String>>) -> String {
    let mut text = format!("| {} |\n|---|", heads.join(" | "));
    text.push_str(&"---:|".repeat(heads.len().saturating_sub(1)));
    text.push('\n');
    for line in lines {
        text.push_str(&format!("| {} |\n", line.join(" | ")));
    }
    text
}

/// A figure, or a dash.
pub(crate) fn figure(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

/// The line of a row that has no figures.
pub(crate) fn why_not(row: &Row, title: String, columns: usize) -> Option<Vec<String>> {
    let why = row.missing.clone()?;
    let mut line = vec![title, why];
    line.resize(columns, String::new());
    Some(line)
}

/// Contenders of one case with the limits first, then by codec, then by time.
pub(crate) fn in_order<'a>(results: &'a Results, case: &str, by: &str) -> Vec<&'a Row> {
    const CODECS: [&str; 4] = ["none", "zstd:1", "zstd", "lz4"];
    let codec = |row: &Row| CODECS.iter().position(|codec| *codec == row.codec);
    let mut rows: Vec<&Row> = results.rows.iter().filter(|row| row.case == case).collect();
    rows.sort_by(|one, other| {
        let is_limit = |row: &Row| !row.contender.starts_with("limit");
        let time = |row: &Row| row.median(by).unwrap_or(f64::MAX);
        is_limit(one)
            .cmp(&is_limit(other))
            .then(codec(one).cmp(&codec(other)))
            .then(time(one).total_cmp(&time(other)))
    });
    rows
}

fn drain(results: &Results) -> String {
    const HEADS: [&str; 6] = [
        "contender",
        "codec",
        "MB/s",
        "of the limit",
        "processor, s",
        "stored, MB",
    ];
    let mut text = String::new();
    for case in results.cases() {
        let limit = results.row(case, LIMIT_EACH, "none");
        let bytes = limit.and_then(|row| row.median("stored_bytes"));
        let limit_s = limit.and_then(|row| row.median("drain_s"));
        let mut lines = Vec::new();
        for row in in_order(results, case, "drain_s") {
            let mut line = vec![row.contender.clone(), row.codec.clone()];
            if let Some(why) = &row.missing {
                line.extend([why.clone(), String::new(), String::new(), String::new()]);
            } else {
                let seconds = row.median("drain_s");
                let speed = bytes
                    .zip(seconds)
                    .map(|(bytes, seconds)| bytes / 1e6 / seconds);
                let ratio = limit_s.zip(seconds).map(|(limit, seconds)| limit / seconds);
                line.extend([
                    figure(speed, 0),
                    figure(ratio, 2),
                    figure(row.median("cpu_s"), 2),
                    figure(row.median("stored_bytes").map(|bytes| bytes / 1e6), 0),
                ]);
            }
            lines.push(line);
        }
        text.push_str(&format!("**{case}**\n\n{}\n", table(&HEADS, lines)));
    }
    text
}

fn steady(results: &Results) -> String {
    const HEADS: [&str; 7] = [
        "contender",
        "WAL, MB/s",
        "transactions/s",
        "most files waiting",
        "behind at the end, s",
        "processor, ms a segment",
        "memory at most, MB",
    ];
    let seconds: Option<f64> = results
        .setup
        .get("seconds")
        .and_then(|text| text.parse().ok());
    let mut text = String::new();
    for case in results.cases() {
        let mut lines = Vec::new();
        for row in results.rows.iter().filter(|row| row.case == case) {
            if let Some(line) = why_not(row, row.title(), HEADS.len()) {
                lines.push(line);
                continue;
            }
            let wal_mb = row.median("wal_mb");
            let each = row
                .median("cpu_s")
                .zip(wal_mb)
                .map(|(cpu, wal)| cpu * 1e3 / (wal / SEGMENT_MB));
            lines.push(vec![
                row.title(),
                figure(wal_mb.zip(seconds).map(|(wal, seconds)| wal / seconds), 1),
                figure(row.median("tps"), 0),
                figure(row.max("waiting_max_files"), 0),
                figure(row.median("behind_s"), 2),
                figure(each, 1),
                figure(row.max("memory_peak_kb").map(|kb| kb / 1024.0), 1),
            ]);
        }
        text.push_str(&format!("**{case}**\n\n{}\n", table(&HEADS, lines)));
    }
    text
}

fn records(results: &Results) -> String {
    let reading = results
        .rows
        .iter()
        .filter(|row| row.case == records::READING);
    let speed = |row: &Row| Some(row.median("bytes")? / 1e9 / row.median("read_s")?);
    let limit = reading.clone().next().and_then(speed);
    let lines = reading.map(|row| {
        let of_limit = speed(row).zip(limit).map(|(own, limit)| own / limit);
        vec![row.title(), figure(speed(row), 2), figure(of_limit, 2)]
    });
    let reading = table(&["reader", "GB/s", "of the limit"], lines.collect());
    let archiving: Vec<&Row> = results
        .rows
        .iter()
        .filter(|row| row.case == records::ARCHIVING)
        .collect();
    let lines = archiving.chunks(2).flat_map(|pair| {
        let header = pair.first().and_then(|row| row.median("drain_s"));
        pair.iter().map(move |row| {
            let seconds = row.median("drain_s");
            let more = seconds
                .zip(header)
                .map(|(own, header)| (own / header - 1.0) * 100.0);
            let more = more.map_or_else(String::new, |more| format!("{more:+.1} %"));
            vec![
                row.title(),
                figure(seconds, 2),
                more,
                figure(row.median("cpu_s"), 2),
            ]
        })
    });
    let heads = ["contender", "drain, s", "against header", "processor, s"];
    format!(
        "**reading**\n\n{reading}\n**archiving**\n\n{}",
        table(&heads, lines.collect())
    )
}

fn acknowledge(results: &Results) -> String {
    const HEADS: [&str; 4] = ["contender", "median, µs", "answers", "of them under 50 µs"];
    let lines = results.rows.iter().map(|row| {
        why_not(row, row.title(), HEADS.len()).unwrap_or_else(|| {
            vec![
                row.title(),
                figure(row.median("answer_median_us"), 1),
                figure(row.median("answers"), 0),
                figure(row.median("answers_under_50_us"), 0),
            ]
        })
    });
    table(&HEADS, lines.collect())
}

fn recovery(results: &Results) -> String {
    const HEADS: [&str; 4] = ["contender", "seconds", "MB/s", "longer than the limit"];
    let mut text = String::new();
    for case in results.cases() {
        let limit = results
            .row(case, LIMIT, "none")
            .and_then(|row| row.median("redo_s"));
        let segments: Option<f64> = results
            .setup
            .get(&format!("segments, {case}"))
            .and_then(|text| text.parse().ok());
        let mut lines = Vec::new();
        for row in in_order(results, case, "redo_s") {
            if let Some(line) = why_not(row, row.title(), HEADS.len()) {
                lines.push(line);
                continue;
            }
            let seconds = row.median("redo_s");
            let speed = segments
                .zip(seconds)
                .map(|(count, s)| count * SEGMENT_MB / s);
            let longer = limit
                .zip(seconds)
                .map(|(limit, s)| (s / limit - 1.0) * 100.0);
            lines.push(vec![
                row.title(),
                figure(seconds, 2),
                figure(speed, 0),
                longer.map_or_else(String::new, |longer| format!("{longer:+.1} %")),
            ]);
        }
        let count = figure(segments, 0);
        text.push_str(&format!(
            "**{case}, {count} segments**\n\n{}\n",
            table(&HEADS, lines)
        ));
    }
    text
}

fn wait(results: &Results) -> String {
    const HEADS: [&str; 6] = [
        "contender",
        "mean, ms",
        "median, ms",
        "longest, ms",
        "fetched ahead",
        "mean of those, ms",
    ];
    let lines = results.rows.iter().map(|row| {
        why_not(row, row.title(), HEADS.len()).unwrap_or_else(|| {
            vec![
                row.title(),
                figure(row.median("wait_mean_ms"), 2),
                figure(row.median("wait_median_ms"), 0),
                figure(row.median("wait_max_ms"), 0),
                figure(row.median("ahead_segments"), 0),
                figure(row.median("ahead_mean_ms"), 2),
            ]
        })
    });
    table(&HEADS, lines.collect())
}

fn stages(results: &Results) -> String {
    const HEADS: [&str; 8] = [
        "codec",
        "read, ms",
        "check and compress",
        "write",
        "sync",
        "publish",
        "sync the directory",
        "sum",
    ];
    let lines = results.rows.iter().map(|row| {
        let steps = STEPS.map(|step| row.median(step));
        let mut line = vec![row.codec.clone()];
        line.extend(steps.iter().map(|step| figure(*step, 2)));
        line.push(figure(Some(steps.iter().flatten().sum()), 2));
        line
    });
    table(&HEADS, lines.collect())
}

/// How many functions of a profile are shown.
const FUNCTIONS_SHOWN: usize = 12;

fn profile(results: &Results) -> String {
    let mut text = String::new();
    for case in results.cases() {
        let mut lines = Vec::new();
        for row in results
            .rows
            .iter()
            .filter(|row| row.case == case)
            .take(FUNCTIONS_SHOWN)
        {
            lines.push(match &row.missing {
                Some(why) => vec![why.clone(), String::new(), String::new()],
                None => vec![
                    format!("`{}`", row.contender),
                    row.codec.clone(),
                    format!("{} %", figure(row.median("share_percent"), 1)),
                ],
            });
        }
        let heads = ["function", "in", "share"];
        text.push_str(&format!("**{case}**\n\n{}\n", table(&heads, lines)));
    }
    text
}

fn memory(results: &Results) -> String {
    const HEADS: [&str; 4] = ["process", "segments", "codec", "grown by at most, MB"];
    let lines = results.rows.iter().map(|row| {
        vec![
            row.contender.clone(),
            row.case.clone(),
            row.codec.clone(),
            figure(row.max("grown_kb").map(|kb| kb / 1024.0), 1),
        ]
    });
    table(&HEADS, lines.collect())
}

fn many(results: &Results) -> String {
    let mut contenders: Vec<String> = Vec::new();
    for row in &results.rows {
        if !contenders.contains(&row.title()) {
            contenders.push(row.title());
        }
    }
    let mut heads = vec!["ms a file".to_owned()];
    heads.extend(contenders.iter().cloned());
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let mut lines = Vec::new();
    for case in results.cases() {
        let mut line = vec![case.to_owned()];
        for contender in &contenders {
            let row = results
                .rows
                .iter()
                .find(|row| row.case == case && row.title() == *contender);
            line.push(figure(row.and_then(|row| row.median("file_ms")), 3));
        }
        lines.push(line);
    }
    table(&heads, lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contender_that_is_not_here_keeps_its_row() {
        let row = Row::missing("", "WAL-RUS", "none", "not here");
        let line = why_not(&row, row.title(), 4).unwrap();
        assert_eq!(line, ["WAL-RUS, none", "not here", "", ""]);
        let text = table(&["a", "b"], vec![vec!["x".to_owned(), "1".to_owned()]]);
        assert_eq!(text, "| a | b |\n|---|---:|\n| x | 1 |\n");
    }
}
