//! Part (d): a server replays segments that it has to fetch.
//!
//! Measured: from "redo starts at" to "redo done at" in the server's log, which has milliseconds. Each recovery
//! begins in a fresh copy of one data directory, and counts only if it ends at the same place in WAL as the first
//! one. Latency is added to each open of an archived segment, by whatever program (fanotify(7)). No restartpoint and
//! no query disturbs. The server syncs what it restores (`fsync = on`), which is not asked of the limit: its segments
//! are in `pg_wal` when the clock starts. The floor is the cheapest command there can be: a rename, and nothing to
//! write but what the server syncs.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use lab::{Cluster, Lab, Mark, Shutdown};

use crate::backlog::{Backlog, settle, with};
use crate::fetchers::{Extent, Fetch, Fetcher};
use crate::part::{Measured, Session, Shared, progress};
use crate::plan::{Part, Run};
use crate::results::{Row, number};
use crate::{usage, watch};

/// The latencies, in milliseconds a fetch.
const LATE_MS: [u64; 3] = [0, 10, 50];

/// Measures all latencies.
///
/// # Errors
///
/// When a recovery does not get to its end.
pub(crate) fn measure(session: &Session, shared: &Shared<'_>, plan: &Run) -> Result<Measured> {
    let mut measured = Measured::default();
    let backlog = shared.of_pgbench()?;
    let fetchers = shared.fetchers()?;
    let count = plan.segments;
    let segments = backlog
        .segments()
        .get(..count)
        .context("too few segments")?;
    for late_ms in LATE_MS {
        let least = match late_ms {
            0 => Extent::Long,
            _ => Extent::Late,
        };
        let case = case(late_ms);
        measured.note(&format!("segments, {case}"), count);
        let mut field = Vec::new();
        for fetcher in fetchers {
            if plan.wants(fetcher.name) && fetcher.extent >= least {
                let row = match fetcher.way {
                    Fetch::Missing(why) => Row::missing(&case, fetcher.name, fetcher.codec, why),
                    _ => {
                        fetcher.trim(segments.last().context("no segments")?)?;
                        Row::new(&case, fetcher.name, fetcher.codec)
                    }
                };
                field.push((fetcher, row));
            }
        }
        let mut end = None;
        for run in 1..=plan.runs {
            for (fetcher, row) in &mut field {
                if row.missing.is_some() {
                    continue;
                }
                let late = fetcher.make_late(late_ms)?;
                let redo = replay(session, backlog, fetcher, segments, &[])?;
                drop(late);
                ensure!(
                    *end.get_or_insert(redo.end.clone()) == redo.end,
                    "{} ended at {}, others at {end:?}",
                    fetcher.name,
                    redo.end
                );
                let bytes = number(backlog.segment_bytes) * number(u64::try_from(count)?);
                row.add("redo_s", redo.seconds);
                let speed = bytes / 1e6 / redo.seconds;
                let said = format!("{:7.2} s  {speed:5.0} MB/s", redo.seconds);
                progress(Part::Recovery, run, plan.runs, row, &said);
            }
        }
        measured.rows.extend(field.into_iter().map(|(_, row)| row));
    }
    Ok(measured)
}

/// The name of the case with this latency.
pub(crate) fn case(late_ms: u64) -> String {
    format!("{late_ms} ms a fetch")
}

/// What one recovery came to.
pub(crate) struct Redo {
    /// From its first line to its last.
    pub(crate) seconds: f64,
    /// The end of replay.
    pub(crate) end: String,
    /// The server's log.
    pub(crate) log: String,
    /// Resident memory of Walden's recovery worker, if there was one: when it was first seen, and at its most.
    pub(crate) worker_kb: Option<(u64, u64)>,
}

/// Recovers a copy of the backlog's base through a fetcher.
///
/// # Errors
///
/// When the server does not replay to an end.
pub(crate) fn replay(
    session: &Session,
    backlog: &Backlog<'_>,
    fetcher: &Fetcher,
    segments: &[String],
    more: &[(String, String)],
) -> Result<Redo> {
    let lab = &session.lab;
    let cluster = copy_of(lab, backlog, fetcher, more)?;
    if let Some(place) = fetcher.lies_in() {
        let from = backlog.cluster.data().join("pg_wal");
        let to = cluster.data().join(place);
        fs::create_dir_all(&to)?;
        lab.own(&to)?;
        for segment in segments {
            fs::copy(from.join(segment), to.join(segment))?;
            lab.own(&to.join(segment))?;
        }
    }
    fetcher.forget(lab)?;
    settle(lab.dir())?;
    cluster.launch()?;
    let (log, worker_kb) = log_until_done(&cluster, fetcher.has_worker())?;
    cluster.stop(Shutdown::Immediate)?;
    usage::bury()?;
    let home = cluster.home().to_owned();
    drop(cluster);
    fs::remove_dir_all(home)?;
    if !matches!(fetcher.way, Fetch::Local) {
        // The server asks for the last one again, at the end of replay.
        let missing = segments
            .iter()
            .filter(|segment| !log.contains(&format!("restored log file \"{segment}\"")));
        ensure!(
            missing.count() == 0,
            "not every segment was restored: {log}"
        );
    }
    let (from, _) = line(&log, "redo starts at")?;
    let (to, words) = line(&log, "redo done at")?;
    Ok(Redo {
        seconds: span_ms(from, to) / 1e3,
        end: words
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned(),
        log,
        worker_kb,
    })
}

fn copy_of<'lab>(
    lab: &'lab Lab,
    backlog: &Backlog<'_>,
    fetcher: &Fetcher,
    more: &[(String, String)],
) -> Result<Cluster<'lab>> {
    let base = backlog
        .base
        .as_deref()
        .context("a backlog without a base")?;
    let settings = lab
        .settings()
        .with("fsync", "on")
        .with("shared_buffers", "256MB")
        .with("max_wal_size", "64GB")
        // Twice the largest segment of any part.
        .with("min_wal_size", "512MB")
        .with("checkpoint_timeout", "1d");
    let cluster = lab.restored("recovered", base, settings)?;
    let data = cluster.data();
    cluster.configure(|settings| {
        *settings = with(with(settings.clone(), &fetcher.settings(&data)), more);
    })?;
    cluster.touch("recovery.signal")?;
    Ok(cluster)
}

/// Waits for the end of replay; answers with the log up to there, and the worker's memory.
fn log_until_done(cluster: &Cluster<'_>, has_worker: bool) -> Result<(String, Option<(u64, u64)>)> {
    let mut log = String::new();
    let mut worker = None;
    watch::until("the end of replay", Instant::now(), || {
        // Until it is there, since looking for it reads all of /proc.
        if has_worker && worker.is_none() {
            worker = worker_of(cluster)?;
        }
        log = cluster.log(Mark::default())?;
        if log.contains("redo done at") {
            return Ok(true);
        }
        if !cluster.is_running()? {
            bail!("the server has ended: {log}");
        }
        Ok(false)
    })?;
    let peak = worker.and_then(|(pid, before_kb)| Some((before_kb, usage::peak_kb(pid)?)));
    Ok((log, peak))
}

/// Walden's recovery worker: its process id and its resident memory now.
fn worker_of(cluster: &Cluster<'_>) -> Result<Option<(u32, u64)>> {
    let found = cluster
        .processes("walden recovery worker")?
        .into_iter()
        .next();
    Ok(found.and_then(|worker| Some((worker.pid, usage::now_kb(worker.pid)?))))
}

/// The first line of a log that holds `words`: its time of day in milliseconds, and what follows the words.
fn line<'log>(log: &'log str, words: &str) -> Result<(f64, &'log str)> {
    let found = log.lines().find_map(|line| {
        let (_, rest) = line.split_once(words)?;
        Some((time_ms(line)?, rest))
    });
    found.with_context(|| format!("the log has no {words:?}"))
}

/// The time of day of a line of the log, in milliseconds: `2026-11-22 03:48:40.123 UTC|…`.
pub(crate) fn time_ms(line: &str) -> Option<f64> {
    let time = line.split(' ').nth(1)?;
    let mut parts = time.split(':');
    let hours: f64 = parts.next()?.parse().ok()?;
    let minutes: f64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next()?.parse().ok()?;
    Some(((hours * 60.0 + minutes) * 60.0 + seconds) * 1e3)
}

/// From one time of day to a later one, perhaps of the next day.
pub(crate) fn span_ms(from: f64, to: f64) -> f64 {
    (to - from).rem_euclid(24.0 * 3600.0 * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_log_are_told_apart_to_the_millisecond_and_over_midnight() {
        let log = "2026-11-22 23:59:59.900 UTC|1|startup|LOG:  redo starts at 0/28\n\
                   2026-11-23 00:00:01.150 UTC|1|startup|LOG:  redo done at 0/99 system usage: …\n";
        let (from, _) = line(log, "redo starts at").unwrap();
        let (to, rest) = line(log, "redo done at").unwrap();
        assert!((span_ms(from, to) - 1250.0).abs() < 0.01);
        assert!(rest.starts_with(" 0/99 "));
        assert!(line(log, "no such line").is_err());
    }
}
