//! Part (b): archiving beside a steady load.
//!
//! Each turn begins in a fresh copy of one data directory. pgbench's own transactions run for some seconds with eight
//! clients, as fast as the machine goes, beside the archiver; twenty times a second the files that wait are counted
//! and the memory of the archiver, of its children and of a peer's daemon is added up. Then the clock runs on until the
//! last finished segment is archived. So a contender that takes processor time from the server shows in the
//! transactions, and one that falls behind shows in the backlog. The server syncs its files, and has its defaults but
//! for `synchronous_commit = off`, which makes more WAL of the same disk.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Cluster, Lab, Settings, Shutdown};

use crate::backlog::{SEGMENT_MB, settle, with};
use crate::contenders::{Contender, Daemon, Served, Stage, Way};
use crate::part::{Measured, Session, progress, step};
use crate::plan::{Part, Run};
use crate::results::{Row, number};
use crate::{usage, watch};

/// pgbench's scale.
const SCALE: &str = "50";
/// How often pgbench's clients and the archiver are looked at: every tenth pace of [`watch::PACE`].
const LOOK_EVERY: u32 = 10;

/// Measures every contender.
///
/// # Errors
///
/// When a server or pgbench fails, or an archiver does not catch up.
pub(crate) fn measure(session: &Session, plan: &Run) -> Result<Measured> {
    let mut measured = Measured::default();
    measured.note("seconds", plan.steady_seconds);
    let lab = &session.lab;
    step("loading pgbench's tables");
    let template = template(lab)?;
    let stage = Stage {
        data: lab.dir().join("turn/data"),
        ..Stage::of(session, "steady")
    };
    let mut field = Vec::new();
    for contender in [
        stage.walden(stage.jobs(), "zstd:1")?,
        stage.cp()?,
        stage.basic_archive()?,
        stage.pgbackrest(true, "zstd:1")?,
        stage.walrus("zstd:1")?,
    ] {
        if plan.wants(contender.name) {
            let row = Row::new("pgbench", contender.name, contender.codec);
            field.push((contender, row));
        }
    }
    for run in 1..=plan.runs {
        for (contender, row) in &mut field {
            let said = turn(session, contender, row, &template, run, plan)?;
            progress(Part::Steady, run, plan.runs, row, &said);
        }
    }
    measured.rows = field.into_iter().map(|(_, row)| row).collect();
    Ok(measured)
}

fn settings(lab: &Lab) -> Settings {
    lab.settings()
        .with("fsync", "on")
        .with("archive_mode", "on")
        .with("synchronous_commit", "off")
        .with("shared_buffers", "256MB")
        .with("max_wal_size", "1GB")
}

/// A data directory with pgbench's tables.
fn template(lab: &Lab) -> Result<PathBuf> {
    let loading = settings(lab)
        .with("fsync", "off")
        .with("archive_mode", "off");
    let cluster = lab.cluster("steady", SEGMENT_MB, loading)?;
    cluster.start()?;
    cluster.pgbench(&["-i", "-q", "-s", SCALE])?;
    cluster.stop(Shutdown::Fast)?;
    Ok(cluster.data())
}

/// One contender, once; answers with a summary.
fn turn(
    session: &Session,
    contender: &Contender,
    row: &mut Row,
    template: &std::path::Path,
    run: usize,
    plan: &Run,
) -> Result<String> {
    let served = match &contender.way {
        Way::Missing(why) => {
            row.missing = Some((*why).to_owned());
            return Ok((*why).to_owned());
        }
        Way::Server(served) => served,
        Way::FileEach | Way::OneFile => return Ok("no contender of this part".to_owned()),
    };
    let lab = &session.lab;
    let all = with(with(settings(lab), &served.idle), &served.active);
    let cluster = lab.restored("turn", template, all)?;
    let daemon = served.prepare(lab, &cluster.data())?;
    settle(lab.dir())?;
    cluster.start()?;
    let mut roots = vec![cluster.wait_for_process("archiver")?.pid];
    roots.extend(daemon.as_ref().map(Daemon::pid));

    let before = wal_bytes(&cluster)?;
    let mut load = Load::begin(&cluster, plan.steady_seconds)?;
    let seen = watch_load(&cluster, &mut load, &roots)?;
    let generated = wal_bytes(&cluster)? - before;
    let waiting = cluster.ready()?.len();
    let begun = Instant::now();
    let behind = watch::until("the archiver to catch up", begun, || {
        ensure!(cluster.is_running()?, "the server has ended");
        Ok(cluster.ready()?.is_empty())
    })?;
    let cpu = usage::cpu_seconds(&roots)?;
    row.add("wal_mb", generated / 1e6);
    row.add("tps", load.transactions_per_second()?);
    row.add(
        "waiting_max_files",
        number(u64::try_from(seen.waiting_max)?),
    );
    row.add("waiting_at_end_files", number(u64::try_from(waiting)?));
    row.add("behind_s", behind.as_secs_f64());
    row.add("cpu_s", cpu);
    row.add("memory_peak_kb", number(seen.memory_max_kb));
    row.measures
        .insert(format!("series_{run}_waiting_files"), seen.series);
    end(lab, &cluster, daemon, served)?;
    Ok(format!(
        "{:5.0} MB of WAL, {waiting} waited, {:.2} s behind, {cpu:.2} s of processor",
        generated / 1e6,
        behind.as_secs_f64()
    ))
}

fn end(lab: &Lab, cluster: &Cluster<'_>, daemon: Option<Daemon>, served: &Served) -> Result<()> {
    cluster.stop(Shutdown::Immediate)?;
    drop(daemon);
    usage::bury()?;
    served.clear()?;
    fs::remove_dir_all(lab.dir().join("turn"))?;
    Ok(())
}

/// WAL written so far, in bytes.
fn wal_bytes(cluster: &Cluster<'_>) -> Result<f64> {
    let said = cluster.sql("select pg_current_wal_lsn() - '0/0'::pg_lsn")?;
    said.parse()
        .with_context(|| format!("{said:?} is no number"))
}

/// pgbench at work.
struct Load {
    child: Child,
    output: PathBuf,
}

impl Load {
    fn begin(cluster: &Cluster<'_>, seconds: u64) -> Result<Load> {
        let output = cluster.home().join("pgbench.out");
        let child = cluster
            .client("pgbench")
            .args([
                "-n",
                "-c",
                "8",
                "-j",
                "2",
                "-T",
                &seconds.to_string(),
                "postgres",
            ])
            .stdout(File::create(&output)?)
            .stderr(File::create(cluster.home().join("pgbench.err"))?)
            .spawn()
            .context("could not start pgbench")?;
        Ok(Load { child, output })
    }

    fn is_over(&mut self) -> Result<bool> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(false);
        };
        ensure!(status.success(), "pgbench ended with {status}");
        Ok(true)
    }

    fn transactions_per_second(&self) -> Result<f64> {
        let text = fs::read_to_string(&self.output)?;
        text.lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
            .with_context(|| format!("pgbench said {text:?}"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // A destructor cannot report it; it is over already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was seen while the load went on.
#[derive(Default)]
struct Watched {
    waiting_max: usize,
    memory_max_kb: u64,
    /// Files that waited, once a second.
    series: Vec<f64>,
}

fn watch_load(cluster: &Cluster<'_>, load: &mut Load, roots: &[u32]) -> Result<Watched> {
    let mut watched = Watched::default();
    let begun = Instant::now();
    let mut looks = 0_u32;
    watch::until("pgbench to end", begun, || {
        looks += 1;
        if looks.is_multiple_of(LOOK_EVERY) {
            let waiting = cluster.ready()?.len();
            watched.waiting_max = watched.waiting_max.max(waiting);
            let memory = usage::resident_kb(roots)?;
            watched.memory_max_kb = watched.memory_max_kb.max(memory);
            let due = Duration::from_secs(u64::try_from(watched.series.len())?);
            if begun.elapsed() >= due {
                watched.series.push(number(u64::try_from(waiting)?));
            }
        }
        load.is_over()
    })?;
    Ok(watched)
}
