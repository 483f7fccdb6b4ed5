//! Backlogs: clusters whose segments wait to be archived, again and again.
//!
//! A backlog is made once, with an archiver that has nowhere to archive to, and its server is stopped. Between two
//! measurements the marks in `archive_status` are set back, so that every contender finds the same files, in the
//! same state. Nothing in `pg_wal` is ever recycled (`wal_keep_size`), and servers are stopped at once, since an
//! orderly shutdown would switch to one more segment.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use lab::{Cluster, Lab, Settings, Shutdown, run};

/// pgbench's scale: 650 MB of tables, so that most of the pages that a checkpoint's half gigabyte of WAL changes are
/// changed for the first time, and in WAL as a whole.
const SCALE: &str = "50";
/// Where pgbench's WAL begins: 200 segments from here lie in one directory of a pgBackRest repository.
const FIRST_SEGMENT: &str = "000000010000000100000000";
/// Transactions of one round of pgbench; the rounds go on until there is WAL enough.
const TRANSACTIONS: &str = "4000";
/// The server's default segment size.
pub(crate) const SEGMENT_MB: u32 = 16;

/// A stopped cluster with finished segments.
pub(crate) struct Backlog<'lab> {
    lab: &'lab Lab,
    /// What the segments are full of.
    pub(crate) workload: &'static str,
    /// The cluster whose segments wait.
    pub(crate) cluster: Cluster<'lab>,
    all: Vec<String>,
    /// How many of them wait.
    waiting: Cell<usize>,
    /// Segment size in bytes.
    pub(crate) segment_bytes: u64,
    /// A copy of the data directory from before the first of them, without WAL, for recoveries.
    pub(crate) base: Option<PathBuf>,
    settings: Settings,
}

/// Settings under which nothing but the bench decides what happens to WAL.
pub(crate) fn settings(lab: &Lab) -> Settings {
    lab.settings()
        .with("archive_mode", "on")
        .with("wal_keep_size", "1TB")
        .with("max_wal_size", "1GB")
        .with("checkpoint_timeout", "1d")
        .with("synchronous_commit", "off")
        .with("shared_buffers", "256MB")
}

impl<'lab> Backlog<'lab> {
    /// WAL of pgbench's own transactions, with the full pages that checkpoints every half gigabyte bring.
    ///
    /// # Errors
    ///
    /// When the server cannot make it.
    pub(crate) fn of_pgbench(lab: &'lab Lab, count: usize) -> Result<Backlog<'lab>> {
        let cluster = lab.cluster("pgbench", SEGMENT_MB, settings(lab))?;
        cluster.start()?;
        cluster.pgbench(&["-i", "-q", "-s", SCALE])?;
        cluster.stop(Shutdown::Fast)?;
        go_on_at(lab, &cluster.data(), FIRST_SEGMENT)?;
        // pg_resetwal has put back the level of WAL that is written; a start says the real one.
        cluster.start()?;
        cluster.stop(Shutdown::Fast)?;
        let base = lab.dir().join("base");
        lab.copy(&cluster.data(), &base)?;
        empty_of_files(&base.join("pg_wal"))?;
        empty_of_files(&base.join("pg_wal/archive_status"))?;
        let first = last_checkpoint_segment(lab, &cluster.data())?;
        cluster.start()?;
        while ready_from(&cluster, &first)?.len() < count {
            cluster.pgbench(&[
                "-n",
                "-M",
                "prepared",
                "-c",
                "8",
                "-j",
                "2",
                "-t",
                TRANSACTIONS,
            ])?;
        }
        Backlog::close(lab, "pgbench", cluster, &first, count, Some(base))
    }

    /// Segments that were switched after a single row: nearly all of each is zeros.
    ///
    /// # Errors
    ///
    /// When the server cannot make it.
    pub(crate) fn of_empty_segments(lab: &'lab Lab, count: usize) -> Result<Backlog<'lab>> {
        let cluster = lab.cluster("empty", SEGMENT_MB, settings(lab))?;
        cluster.start()?;
        cluster.sql("create table t (at timestamptz)")?;
        let first = cluster.switch_segment()?;
        let one = "insert into t values (now()); select pg_switch_wal();\n";
        while ready_from(&cluster, &first)?.len() < count {
            cluster.sql(&one.repeat(20))?;
        }
        Backlog::close(lab, "mostly empty", cluster, &first, count, None)
    }

    /// WAL of logical messages of random bytes: quick to make and to replay, for any segment size.
    ///
    /// # Errors
    ///
    /// When the server cannot make it.
    pub(crate) fn of_messages(
        lab: &'lab Lab,
        name: &str,
        segment_mb: u32,
        count: usize,
    ) -> Result<Backlog<'lab>> {
        let settings = settings(lab)
            .with("min_wal_size", "1GB")
            .with("max_wal_size", "64GB");
        let cluster = lab.cluster(name, segment_mb, settings)?;
        cluster.start()?;
        cluster.stop(Shutdown::Fast)?;
        let base = lab.dir().join(format!("{name}-base"));
        lab.copy(&cluster.data(), &base)?;
        empty_of_files(&base.join("pg_wal"))?;
        empty_of_files(&base.join("pg_wal/archive_status"))?;
        let first = last_checkpoint_segment(lab, &cluster.data())?;
        cluster.start()?;
        // Half of each message compresses, as of real WAL.
        let some = "do $$ declare message text := string_agg(md5(random()::text) || repeat(' ', 32), '') \
                    from generate_series(1, 16384); \
                    begin for i in 1..64 loop \
                    perform pg_logical_emit_message(false, 'bench', message); end loop; end $$;";
        while ready_from(&cluster, &first)?.len() < count {
            cluster.sql(some)?;
        }
        Backlog::close(lab, "messages", cluster, &first, count, Some(base))
    }

    /// Stops the server, and puts everything on the disk, so that nothing of this is left to be written later.
    fn close(
        lab: &'lab Lab,
        workload: &'static str,
        cluster: Cluster<'lab>,
        first: &str,
        count: usize,
        base: Option<PathBuf>,
    ) -> Result<Backlog<'lab>> {
        let mut segments = ready_from(&cluster, first)?;
        segments.truncate(count);
        // So that no later start has anything to replay.
        cluster.sql("checkpoint")?;
        cluster.stop(Shutdown::Immediate)?;
        let backlog = Backlog::of_files(lab, workload, cluster, segments)?;
        Ok(Backlog { base, ..backlog })
    }

    /// A backlog of files that are there already, in a cluster whose server is stopped.
    ///
    /// # Errors
    ///
    /// When there are none.
    pub(crate) fn of_files(
        lab: &'lab Lab,
        workload: &'static str,
        cluster: Cluster<'lab>,
        segments: Vec<String>,
    ) -> Result<Backlog<'lab>> {
        let first = segments.first().context("a backlog without segments")?;
        let segment_bytes = fs::metadata(cluster.data().join("pg_wal").join(first))?.len();
        settle(lab.dir())?;
        Ok(Backlog {
            lab,
            workload,
            waiting: Cell::new(segments.len()),
            all: segments,
            segment_bytes,
            base: None,
            // Measured servers sync what they write, as every server should; shared memory is not needed.
            settings: cluster
                .settings()
                .with("fsync", "on")
                .with("shared_buffers", "16MB"),
            cluster,
        })
    }

    /// The segments that wait, in order.
    pub(crate) fn segments(&self) -> &[String] {
        self.all.get(..self.waiting.get()).unwrap_or(&self.all)
    }

    /// The segments' paths.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let dir = self.cluster.data().join("pg_wal");
        self.segments().iter().map(|name| dir.join(name)).collect()
    }

    /// Size of all segments together, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.segment_bytes * u64::try_from(self.segments().len()).unwrap_or_default()
    }

    /// Lets only the first so many segments wait from the next start on.
    pub(crate) fn only(&self, count: usize) {
        self.waiting.set(count.min(self.all.len()));
    }

    /// Makes every segment wait again, and nothing else.
    ///
    /// # Errors
    ///
    /// When a mark cannot be set.
    pub(crate) fn rewind(&self) -> Result<()> {
        let status = self.cluster.data().join("pg_wal/archive_status");
        let mut marked = BTreeSet::new();
        for entry in fs::read_dir(&status)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let (segment, mark) = name.split_once('.').unwrap_or((&name, ""));
            let path = status.join(&name);
            if self
                .segments()
                .binary_search_by(|it| it.as_str().cmp(segment))
                .is_err()
            {
                fs::remove_file(&path)?;
                continue;
            }
            if mark != "ready" {
                fs::rename(&path, status.join(format!("{segment}.ready")))?;
            }
            marked.insert(segment.to_owned());
        }
        for segment in self
            .segments()
            .iter()
            .filter(|name| !marked.contains(*name))
        {
            let path = status.join(format!("{segment}.ready"));
            fs::write(&path, "")?;
            self.lab.own(&path)?;
        }
        let waiting = self.cluster.ready()?.len();
        ensure!(
            waiting == self.segments().len(),
            "{waiting} segments wait instead of {}",
            self.segments().len()
        );
        Ok(())
    }

    /// Starts the server with these settings beside its own; the archiver must have nowhere to archive to.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub(crate) fn start(&self, idle: &[(String, String)]) -> Result<()> {
        self.rewind()?;
        settle(self.lab.dir())?;
        self.cluster.configure(|settings| {
            *settings = with(self.settings.clone(), idle);
        })?;
        self.cluster.start()?;
        self.cluster.wait_for_process("archiver")?;
        Ok(())
    }

    /// Gives the archiver somewhere to archive to; answers with the moment.
    ///
    /// # Errors
    ///
    /// When the server cannot be told.
    pub(crate) fn release(&self, active: &[(String, String)]) -> Result<Instant> {
        let begun = Instant::now();
        self.cluster.reload(|settings| {
            *settings = with(settings.clone(), active);
        })?;
        Ok(begun)
    }

    /// Whether all segments are marked as archived. Looks at one mark until that one is gone.
    ///
    /// # Errors
    ///
    /// When the server has ended, or the marks cannot be read.
    pub(crate) fn is_drained(&self) -> Result<bool> {
        let last = self
            .segments()
            .last()
            .map(String::as_str)
            .unwrap_or_default();
        let mark = format!("pg_wal/archive_status/{last}.ready");
        if self.cluster.data().join(mark).exists() {
            if !self.cluster.is_running()? {
                bail!("the server has ended");
            }
            return Ok(false);
        }
        Ok(self.cluster.ready()?.is_empty())
    }
}

/// Settings with some more.
pub(crate) fn with(settings: Settings, more: &[(String, String)]) -> Settings {
    more.iter().fold(settings, |settings, (name, value)| {
        settings.with(name, value)
    })
}

/// The finished segments that wait, from this one on.
fn ready_from(cluster: &Cluster<'_>, first: &str) -> Result<Vec<String>> {
    let mut ready = cluster.ready()?;
    ready.retain(|name| name.len() == first.len() && name.as_str() >= first);
    Ok(ready)
}

/// Has the stopped server of a data directory go on with this segment.
///
/// # Errors
///
/// When `pg_resetwal` fails.
pub(crate) fn go_on_at(lab: &Lab, data: &Path, segment: &str) -> Result<()> {
    let mut reset = lab.server_command("pg_resetwal");
    run(reset.args(["-l", segment, "-D"]).arg(data))?
        .success()
        .context("pg_resetwal failed")?;
    Ok(())
}

/// The segment that recovery of this data directory begins in.
pub(crate) fn last_checkpoint_segment(lab: &Lab, data: &Path) -> Result<String> {
    let said = run(lab.server_command("pg_controldata").arg(data))?.success()?;
    said.lines()
        .find_map(|line| line.strip_prefix("Latest checkpoint's REDO WAL file:"))
        .map(|name| name.trim().to_owned())
        .context("pg_controldata names no WAL file")
}

/// Removes the files of a directory, not those below.
pub(crate) fn empty_of_files(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Removes everything in a directory.
pub(crate) fn empty(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Waits until everything written to the file system of this directory is on its disk, so that no measurement pays
/// for what happened before it.
pub(crate) fn settle(dir: &Path) -> Result<()> {
    rustix::fs::syncfs(fs::File::open(dir)?).context("could not sync the file system")
}
