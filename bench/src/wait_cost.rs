//! What the startup process waits for one segment: from before `system()` until the file is there.
//!
//! Measured: the server's own log lines at `log_min_messages = debug3`, "executing restore command" before the shell
//! is started and "restored log file" after it has ended; they have milliseconds, so a single one says little and the
//! mean of many says more than that. Includes the fork of the server, the shell, the command's start, the request and
//! the answer. Recoveries of their own, because such a log slows the server.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use crate::fetchers::Fetch;
use crate::part::{Measured, Session, Shared, progress};
use crate::plan::{Part, Run};
use crate::recovery::{replay, span_ms, time_ms};
use crate::results::{Row, median, number};

/// How many segments are replayed.
const SEGMENTS_MAX: usize = 30;

/// Measures all who fetch.
///
/// # Errors
///
/// When a recovery does not get to its end.
pub(crate) fn measure(session: &Session, shared: &Shared<'_>, plan: &Run) -> Result<Measured> {
    let mut measured = Measured::default();
    let backlog = shared.of_pgbench()?;
    let count = plan.segments_up_to(SEGMENTS_MAX);
    measured.note("segments", count);
    let segments = backlog
        .segments()
        .get(..count)
        .context("too few segments")?;
    let more = [("log_min_messages".to_owned(), "debug3".to_owned())];
    let mut field = Vec::new();
    for fetcher in shared.fetchers()? {
        if !plan.wants(fetcher.name) || matches!(fetcher.way, Fetch::Local) {
            continue;
        }
        let row = match fetcher.way {
            Fetch::Missing(why) => Row::missing("", fetcher.name, fetcher.codec, why),
            _ => {
                fetcher.trim(segments.last().context("no segments")?)?;
                Row::new("", fetcher.name, fetcher.codec)
            }
        };
        field.push((fetcher, row));
    }
    for run in 1..=plan.runs {
        for (fetcher, row) in &mut field {
            if row.missing.is_some() {
                continue;
            }
            let redo = replay(session, backlog, fetcher, segments, &more)?;
            let waits: Vec<f64> = waits_ms(&redo.log).into_iter().map(|(_, ms)| ms).collect();
            let mean = mean_of(&waits)?;
            let ahead = ahead_ms(&redo.log);
            row.add("wait_mean_ms", mean);
            row.add("wait_median_ms", median(&waits).unwrap_or_default());
            row.add("wait_max_ms", waits.iter().copied().fold(0.0, f64::max));
            if !ahead.is_empty() {
                row.add("ahead_mean_ms", mean_of(&ahead)?);
                row.add("ahead_segments", number(u64::try_from(ahead.len())?));
            }
            progress(Part::Wait, run, plan.runs, row, &format!("{mean:7.2} ms"));
        }
    }
    measured.rows = field.into_iter().map(|(_, row)| row).collect();
    Ok(measured)
}

fn mean_of(waits: &[f64]) -> Result<f64> {
    Ok(waits.iter().sum::<f64>() / number(u64::try_from(waits.len().max(1))?))
}

/// The waits of a log: each segment that was restored, and for how long.
fn waits_ms(log: &str) -> Vec<(&str, f64)> {
    let mut waits = Vec::new();
    let mut asked = None;
    for line in log.lines() {
        if line.contains("executing restore command") {
            asked = time_ms(line);
        } else if let Some((_, rest)) = line.split_once("restored log file \"")
            && let (Some(from), Some(to)) = (asked.take(), time_ms(line))
        {
            let name = rest.split('"').next().unwrap_or_default();
            waits.push((name, span_ms(from, to)));
        }
    }
    waits
}

/// The waits for those segments of which Walden says that they were there, or on their way, when they were asked for.
fn ahead_ms(log: &str) -> Vec<f64> {
    let ahead: BTreeSet<&str> = log
        .lines()
        .filter(|line| line.contains("(fetched ahead)"))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    waits_ms(log)
        .into_iter()
        .filter(|(name, _)| ahead.contains(name))
        .map(|(_, ms)| ms)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_found_nothing_is_no_wait_for_a_segment() {
        let log = "2026-11-22 01:00:00.000 UTC|1|startup|DEBUG:  executing restore command \"x\"\n\
                   2026-11-22 01:00:00.500 UTC|1|startup|DEBUG:  executing restore command \"y\"\n\
                   2026-11-22 01:00:00.503 UTC|1|startup|LOG:  restored log file \"y\" from archive\n\
                   2026-11-22 01:00:00.900 UTC|1|startup|LOG:  restored log file \"z\" from archive\n";
        let waits = waits_ms(log);
        assert_eq!(waits.len(), 1);
        assert_eq!(waits[0].0, "y");
        assert!((waits[0].1 - 3.0).abs() < 0.01);
        assert!(ahead_ms(log).is_empty());
        let said =
            "2026-11-22 01:00:00.502 UTC|2|worker|DEBUG:  restored file \"y\" … (fetched ahead)\n";
        assert_eq!(ahead_ms(&format!("{log}{said}")).len(), 1);
    }
}
