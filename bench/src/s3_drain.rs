//! A backlog of segments is archived into an object store, near and far.
//!
//! Measured as in `drain.rs`: from the reload that tells the archiver where to archive to, until the server has marked
//! every segment as archived. What a contender does before its first file is in it, and shown by itself as well: the
//! time until the first segment was marked. The bucket is empty before each run, but for what is made once in an archive's
//! life: pgBackRest's stanza, and Walden's binding. Processor time and memory (looked at
//! every 100 ms) are those of the archiver, of whatever it starts, and of a peer's daemon; the store and the relay are
//! not in them, but take their time from the same processors. Requests are those that the store has counted.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::run;

use crate::backlog::Backlog;
use crate::bucket::Bucket;
use crate::contenders::{Contender, Served, Stage, Way};
use crate::drain::drain_watched;
use crate::part::{Measured, Session, Shared, progress, step};
use crate::plan::{Part, Run};
use crate::results::{Row, number};
use crate::usage;

/// How far away the store is: round trips, in milliseconds.
pub(crate) const ROUND_TRIPS_MS: [u64; 3] = [0, 10, 50];

/// The most segments and the most runs: a store takes longer than a disk.
pub(crate) const SEGMENTS_MAX: usize = 100;
/// The most runs, for the same reason.
pub(crate) const RUNS_MAX: usize = 3;

/// How often memory is looked at, which reads all of /proc.
const MEMORY_EVERY: Duration = Duration::from_millis(100);

/// The name of the case with this round trip.
pub(crate) fn case(round_trip_ms: u64) -> String {
    format!("round trip {round_trip_ms} ms")
}

/// Measures all round trips, without compression the shortest one only.
///
/// # Errors
///
/// When a contender does not archive what it was given.
pub(crate) fn measure(session: &Session, shared: &Shared<'_>, plan: &Run) -> Result<Measured> {
    let mut measured = Measured::default();
    let backlog = shared.of_pgbench()?;
    let count = plan.segments_up_to(SEGMENTS_MAX);
    let runs = plan.runs.min(RUNS_MAX);
    measured.note("segments", count);
    measured.note("most runs", RUNS_MAX);
    step("starting an object store");
    let bucket = Bucket::open(&session.lab, "drain")?;
    let stage = Stage {
        bucket: Some(&bucket),
        ..Stage::new(session, "s3", &backlog.cluster)
    };
    let mut contenders = Vec::new();
    for codec in ["none", "zstd:1"] {
        contenders.push(stage.walden(4, codec)?);
        contenders.push(stage.walden(1, codec)?);
        contenders.push(stage.pgbackrest(true, codec)?);
        contenders.push(stage.pgbackrest(false, codec)?);
        contenders.push(stage.walrus(codec)?);
    }
    backlog.only(count);
    for round_trip_ms in ROUND_TRIPS_MS {
        bucket.put_away(round_trip_ms);
        let takes_part = |contender: &&Contender| {
            plan.wants(contender.name) && (round_trip_ms == 0 || contender.codec != "none")
        };
        let field: Vec<&Contender> = contenders.iter().filter(takes_part).collect();
        let mut rows: Vec<Row> = field.iter().map(|it| row(it, round_trip_ms)).collect();
        for run in 1..=runs {
            for (contender, row) in field.iter().zip(&mut rows) {
                let Way::Server(served) = &contender.way else {
                    continue;
                };
                let seconds = one(session, backlog, &bucket, served, row)?;
                let speed = number(backlog.bytes()) / 1e6 / seconds;
                let said = format!("{seconds:7.2} s  {speed:5.0} MB/s");
                progress(Part::S3Drain, run, runs, row, &said);
            }
        }
        measured.rows.extend(rows);
    }
    backlog.only(usize::MAX);
    Ok(measured)
}

fn row(contender: &Contender, round_trip_ms: u64) -> Row {
    let case = case(round_trip_ms);
    match contender.way {
        Way::Missing(why) => Row::missing(&case, contender.name, contender.codec, why),
        _ => Row::new(&case, contender.name, contender.codec),
    }
}

/// What is seen before the clock starts.
struct Before {
    at: Instant,
    requests: u64,
    ticks: (u64, u64),
}

/// What is seen while the work goes on.
#[derive(Default)]
struct Seen {
    first_s: Option<f64>,
    memory_kb: u64,
    memory_at: Option<Instant>,
    ticks: (u64, u64),
}

/// One contender, once; answers with the seconds.
fn one(
    session: &Session,
    backlog: &Backlog<'_>,
    bucket: &Bucket<'_>,
    served: &Served,
    row: &mut Row,
) -> Result<f64> {
    bucket.empty()?;
    let first = backlog.segments().first().cloned().unwrap_or_default();
    let mut settings = served.active.iter();
    if let Some((_, place)) = settings.find(|(name, _)| name == "walden.archive") {
        bind(session, backlog, place, &first)?;
    }
    let mark = backlog
        .cluster
        .data()
        .join(format!("pg_wal/archive_status/{first}.ready"));
    let mut before = None;
    let mut seen = Seen::default();
    let drained = drain_watched(session, backlog, served, |roots| {
        let Some(Before { at, .. }) = before else {
            before = Some(Before {
                requests: bucket.requests()?,
                ticks: usage::machine_ticks()?,
                at: Instant::now(),
            });
            return Ok(());
        };
        if seen.first_s.is_none() && !mark.exists() {
            seen.first_s = Some(at.elapsed().as_secs_f64());
        }
        if seen.memory_at.is_none_or(|at| at.elapsed() >= MEMORY_EVERY) {
            seen.memory_at = Some(Instant::now());
            seen.memory_kb = seen.memory_kb.max(usage::resident_kb(roots)?);
        }
        seen.ticks = usage::machine_ticks()?;
        Ok(())
    })?;
    let before = before.context("no measurement before")?;
    let requests = bucket.requests()?.saturating_sub(before.requests);
    let busy = number(seen.ticks.0.saturating_sub(before.ticks.0));
    let all = number(seen.ticks.1.saturating_sub(before.ticks.1).max(1));
    row.add("drain_s", drained.seconds);
    row.add("first_s", seen.first_s.unwrap_or(drained.seconds));
    row.add("cpu_s", drained.cpu_seconds);
    row.add(
        "memory_peak_kb",
        number(seen.memory_kb.max(drained.peak_kb)),
    );
    row.add("requests", number(requests));
    row.add("busy_percent", busy / all * 100.0);
    row.add("stored_bytes", number(bucket.stored(backlog.segments())?));
    Ok(drained.seconds)
}

/// Binds an archive to the server by the first file that is put into it, which is no segment.
fn bind(session: &Session, backlog: &Backlog<'_>, place: &str, first: &str) -> Result<()> {
    let file = session.lab.dir().join(format!("{first}.00000028.backup"));
    fs::write(&file, format!("START WAL LOCATION: 0/28 (file {first})\n"))?;
    let mut walden = session.lab.command("walden");
    walden.args(["archive", "-A", place, "-D"]);
    walden.arg(backlog.cluster.data()).arg(&file);
    run(&mut walden)?.success()?;
    Ok(())
}
