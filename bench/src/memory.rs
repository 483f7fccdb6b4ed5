//! Goal 5: how much memory the archiver and the recovery worker take, at eight jobs.
//!
//! Measured: the most that was resident at once (`VmHWM`) less what was resident before the first file, for 16 MB and
//! for 256 MB segments, under the default `walden.memory_limit` of 128 MB. The tables show the greatest of all runs.

use anyhow::{Context, Result, bail};

use crate::backlog::Backlog;
use crate::contenders::{Contender, Stage, Way};
use crate::drain::drain_once;
use crate::fetchers::{Extent, Fetch, Fetcher, WALDEN};
use crate::part::{Measured, Session, progress, step};
use crate::plan::{Part, Run};
use crate::recovery::replay;
use crate::results::{Row, number};

/// Sizes of segments in MB, and how many of each: more than eight jobs can hold at once.
const SIZES: [(u32, usize); 2] = [(16, 32), (256, 9)];

/// The limit that is set, in MB: the parameter's default.
pub(crate) const LIMIT_MB: u32 = 128;

/// How many files at once.
const JOBS: u32 = 8;

/// The most runs: a maximum gains little from more.
const RUNS_MAX: usize = 3;

/// Measures both processes with both sizes.
///
/// # Errors
///
/// When the backlog is not archived or not replayed.
pub(crate) fn measure(session: &Session, plan: &Run) -> Result<Measured> {
    let mut measured = Measured::default();
    measured.note("walden.memory_limit", format!("{LIMIT_MB} MB"));
    measured.note("jobs", JOBS);
    measured.note("most runs", RUNS_MAX);
    for (segment_mb, count) in SIZES {
        step(&format!("making {count} segments of {segment_mb} MB"));
        let name = match segment_mb {
            16 => "messages-16",
            _ => "messages-256",
        };
        let backlog = Backlog::of_messages(&session.lab, name, segment_mb, count)?;
        let stage = Stage::new(session, name, &backlog.cluster);
        for codec in ["none", "zstd"] {
            let contender = limited(session, stage.walden(jobs(session), codec)?);
            let case = format!("{segment_mb} MB segments");
            let mut archiver = Row::new(&case, "archiver", codec);
            let mut worker = Row::new(&case, "recovery worker", codec);
            let runs = plan.runs.min(RUNS_MAX);
            for run in 1..=runs {
                both(session, &backlog, &contender, &mut archiver, &mut worker)?;
                let said = format!(
                    "{:6.1} MB and {:6.1} MB",
                    archiver.max("grown_kb").unwrap_or_default() / 1024.0,
                    worker.max("grown_kb").unwrap_or_default() / 1024.0
                );
                progress(Part::Memory, run, runs, &archiver, &said);
            }
            if let Way::Server(served) = &contender.way {
                served.clear()?;
            }
            measured.rows.extend([archiver, worker]);
        }
        std::fs::remove_dir_all(backlog.cluster.data())?;
        std::fs::remove_dir_all(backlog.base.as_deref().context("no base")?)?;
    }
    Ok(measured)
}

/// The eight jobs, or the one that a build without the parameter has.
fn jobs(session: &Session) -> u32 {
    if session.parameters.contains("walden.archive_jobs") {
        JOBS
    } else {
        1
    }
}

/// With the memory limit, if the build has it.
fn limited(session: &Session, mut contender: Contender) -> Contender {
    if let Way::Server(served) = &mut contender.way
        && session.parameters.contains("walden.memory_limit")
    {
        let limit = ("walden.memory_limit".to_owned(), format!("{LIMIT_MB}MB"));
        served.active.push(limit);
    }
    contender
}

/// Archives the backlog and recovers from what was archived.
fn both(
    session: &Session,
    backlog: &Backlog<'_>,
    contender: &Contender,
    archiver: &mut Row,
    worker: &mut Row,
) -> Result<()> {
    let Way::Server(served) = &contender.way else {
        bail!("\"{}\" is not served by a server", contender.name);
    };
    let drained = drain_once(session, backlog, served)?;
    archiver.add(
        "grown_kb",
        number(drained.peak_kb.saturating_sub(drained.before_kb)),
    );
    archiver.add("peak_kb", number(drained.peak_kb));
    let fetcher = Fetcher {
        name: WALDEN,
        codec: contender.codec,
        extent: Extent::Segment,
        way: Fetch::Walden(served.dir.clone()),
    };
    let mut more = Vec::new();
    for (name, value) in [
        ("walden.restore_prefetch", JOBS.to_string()),
        ("walden.memory_limit", format!("{LIMIT_MB}MB")),
    ] {
        if session.parameters.contains(name) {
            more.push((name.to_owned(), value));
        }
    }
    let redo = replay(session, backlog, &fetcher, backlog.segments(), &more)?;
    let (before_kb, peak_kb) = redo.worker_kb.context("the recovery worker was not seen")?;
    worker.add("grown_kb", number(peak_kb.saturating_sub(before_kb)));
    worker.add("peak_kb", number(peak_kb));
    Ok(())
}
