//! Part (a): a backlog of segments is archived as fast as it goes.
//!
//! Measured: from the reload that tells the archiver where to archive to, until the server has marked every
//! segment as archived (looked at every 5 ms). Two workloads: pgbench's own WAL, and segments that were switched
//! when they were nearly empty. The segments are in the kernel's cache for all contenders. Processor time is that of
//! the archiver, of whatever it starts, and of a peer's daemon.

use anyhow::Result;
use lab::Shutdown;

use crate::backlog::{Backlog, settle};
use crate::contenders::{Contender, Daemon, Served, Stage, Way, limits};
use crate::part::{Measured, Session, Shared, progress, step};
use crate::plan::{Part, Run};
use crate::results::{Row, number};
use crate::{limit, usage, watch};

/// How many nearly empty segments a backlog has at most.
const EMPTY_SEGMENTS_MAX: usize = 100;

/// Measures both workloads, or one of them with two builds.
///
/// # Errors
///
/// When a contender does not archive what it was given.
pub(crate) fn measure(session: &Session, shared: &Shared<'_>, plan: &Run) -> Result<Measured> {
    let mut measured = Measured::default();
    measured.note("segments", plan.segments);
    let backlog = shared.of_pgbench()?;
    let stage = Stage::new(session, "pgbench", &backlog.cluster);
    if let Some(other) = &plan.against {
        let mut contenders = Vec::new();
        for codec in ["none", "zstd"] {
            contenders.extend(stage.both_builds(other, codec)?);
        }
        measured.rows = compare(session, backlog, contenders, plan)?;
        return Ok(measured);
    }
    let mut contenders = Vec::from(limits());
    for codec in ["none", "zstd:1", "zstd", "lz4"] {
        contenders.push(stage.walden(1, codec)?);
        contenders.push(stage.walden(4, codec)?);
    }
    contenders.push(stage.cp()?);
    contenders.push(stage.basic_archive()?);
    for codec in ["none", "zstd:1"] {
        contenders.push(stage.pgbackrest(false, codec)?);
        contenders.push(stage.pgbackrest(true, codec)?);
        contenders.push(stage.walrus(codec)?);
    }
    measured
        .rows
        .extend(compare(session, backlog, contenders, plan)?);

    let count = plan.segments_up_to(EMPTY_SEGMENTS_MAX);
    measured.note("mostly empty segments", count);
    step(&format!("making {count} nearly empty segments"));
    let backlog = Backlog::of_empty_segments(&session.lab, count)?;
    let stage = Stage::new(session, "empty", &backlog.cluster);
    let mut contenders = Vec::from(limits());
    for codec in ["none", "zstd:1"] {
        contenders.push(stage.walden(4, codec)?);
        contenders.push(stage.pgbackrest(true, codec)?);
        contenders.push(stage.walrus(codec)?);
    }
    contenders.push(stage.cp()?);
    contenders.push(stage.basic_archive()?);
    measured
        .rows
        .extend(compare(session, &backlog, contenders, plan)?);
    std::fs::remove_dir_all(backlog.cluster.data())?;
    Ok(measured)
}

/// Has each contender drain the backlog `runs` times, taking turns.
///
/// # Errors
///
/// As [`measure`].
pub(crate) fn compare(
    session: &Session,
    backlog: &Backlog<'_>,
    contenders: Vec<Contender>,
    plan: &Run,
) -> Result<Vec<Row>> {
    let mut field: Vec<(Contender, Row)> = Vec::new();
    for contender in contenders {
        if !plan.wants(contender.name) {
            continue;
        }
        let row = match contender.way {
            Way::Missing(why) => {
                Row::missing(backlog.workload, contender.name, contender.codec, why)
            }
            _ => Row::new(backlog.workload, contender.name, contender.codec),
        };
        field.push((contender, row));
    }
    for run in 1..=plan.runs {
        for (contender, row) in &mut field {
            if row.missing.is_some() {
                continue;
            }
            let seconds = one(session, backlog, contender, row)?;
            let speed = number(backlog.bytes()) / 1e6 / seconds;
            let said = format!("{seconds:7.2} s  {speed:5.0} MB/s");
            progress(Part::Drain, run, plan.runs, row, &said);
        }
    }
    Ok(field.into_iter().map(|(_, row)| row).collect())
}

/// One contender, once.
fn one(
    session: &Session,
    backlog: &Backlog<'_>,
    contender: &Contender,
    row: &mut Row,
) -> Result<f64> {
    let copy: fn(&[std::path::PathBuf], &std::path::Path) -> _ = match &contender.way {
        Way::FileEach => limit::a_file_each,
        Way::OneFile => limit::one_file,
        Way::Missing(_) => return Ok(0.0),
        Way::Server(served) => {
            let seconds = served_once(session, backlog, served, row)?;
            row.add("drain_s", seconds);
            return Ok(seconds);
        }
    };
    let into = session.lab.directory("limit")?;
    settle(&into)?;
    let seconds = copy(&backlog.paths(), &into)?.as_secs_f64();
    std::fs::remove_dir_all(&into)?;
    row.add("drain_s", seconds);
    row.add("stored_bytes", number(backlog.bytes()));
    Ok(seconds)
}

fn served_once(
    session: &Session,
    backlog: &Backlog<'_>,
    served: &Served,
    row: &mut Row,
) -> Result<f64> {
    let drained = drain_once(session, backlog, served)?;
    row.add("cpu_s", drained.cpu_seconds);
    row.add("archiver_peak_kb", number(drained.peak_kb));
    row.add("stored_bytes", number(served.stored(backlog.segments())?));
    served.clear()?;
    Ok(drained.seconds)
}

/// What one drain came to.
pub(crate) struct Drained {
    /// From the reload until the last mark was gone.
    pub(crate) seconds: f64,
    /// Processor time of archiver, children and daemon.
    pub(crate) cpu_seconds: f64,
    /// The archiver's resident memory before the first file.
    pub(crate) before_kb: u64,
    /// The archiver's resident memory at its most.
    pub(crate) peak_kb: u64,
}

/// Has a server drain the backlog into an archive that was empty, and stops it.
///
/// # Errors
///
/// When it does not get there.
pub(crate) fn drain_once(
    session: &Session,
    backlog: &Backlog<'_>,
    served: &Served,
) -> Result<Drained> {
    drain_watched(session, backlog, served, |_| Ok(()))
}

/// The same watched from outside, with the processes that archive: once before the clock starts, and then every
/// 5 ms.
///
/// # Errors
///
/// As [`drain_once`], and when looking fails.
pub(crate) fn drain_watched(
    session: &Session,
    backlog: &Backlog<'_>,
    served: &Served,
    mut look: impl FnMut(&[u32]) -> Result<()>,
) -> Result<Drained> {
    let daemon = served.prepare(&session.lab, &backlog.cluster.data())?;
    backlog.start(&served.idle)?;
    let archiver = backlog.cluster.wait_for_process("archiver")?;
    let mut roots = vec![archiver.pid];
    roots.extend(daemon.as_ref().map(Daemon::pid));
    let before = usage::cpu_seconds(&roots)?;
    usage::forget_peak(archiver.pid)?;
    let before_kb = usage::now_kb(archiver.pid).unwrap_or_default();
    look(&roots)?;
    let begun = backlog.release(&served.active)?;
    let took = watch::until("the backlog to be archived", begun, || {
        look(&roots)?;
        backlog.is_drained()
    })?;
    let after = usage::cpu_seconds(&roots)?;
    let peak_kb = usage::peak_kb(archiver.pid).unwrap_or_default();
    backlog.cluster.stop(Shutdown::Immediate)?;
    drop(daemon);
    usage::bury()?;
    Ok(Drained {
        seconds: took.as_secs_f64(),
        cpu_seconds: after - before,
        before_kb,
        peak_kb,
    })
}
