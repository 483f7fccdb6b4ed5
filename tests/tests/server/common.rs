//! What the scenarios share: a primary with a ledger, base backups, standbys, recoveries.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use lab::{ArchiveDir, Cluster, Contents, DEADLINE, Lab, Mark, Process, Settings, run, wait_for};

/// How often a recovery that is to be held may be over before that.
const HOLDS_MAX: u32 = 10;

/// How many segments more than asked for a recovery may have restored when it is held: with those that were fetched ahead by
/// then there must be some left to be asked for.
const LATE_MAX: usize = 12;

/// The smallest segment size: makes many segments quick.
pub(crate) const SMALL_MB: u32 = 1;

/// How long a test waits for "could not tell" where an outage is what it wants to see.
pub(crate) const SHORT_RESTORE_TIMEOUT: &str = "2s";

/// Whether tests are to show everything, at full length (`make test-all`), and not what a run of minutes can.
pub(crate) fn at_full_length() -> bool {
    std::env::var_os("WALDEN_TEST_WHOLE").is_some()
}

/// A running primary that archives through Walden, with an empty ledger.
pub(crate) fn primary<'lab>(
    lab: &'lab Lab,
    archive: &ArchiveDir,
    mb: u32,
) -> Result<Cluster<'lab>> {
    primary_with(lab, mb, lab.walden_settings(archive)?)
}

/// The same with settings of the test's own.
pub(crate) fn primary_with(lab: &Lab, mb: u32, settings: Settings) -> Result<Cluster<'_>> {
    lab.primary("primary", mb, settings)
}

/// Writes one entry.
pub(crate) fn write(cluster: &Cluster, entry: u32) -> Result<()> {
    cluster.sql(&format!("insert into ledger(entry) values ({entry})"))?;
    Ok(())
}

/// Puts a file's status back to what it was before the server noted that it is archived. The server must be stopped: this
/// is what a crash between publishing and the note leaves behind.
pub(crate) fn forget_the_note(cluster: &Cluster, name: &str) -> Result<()> {
    let status = cluster.data().join("pg_wal/archive_status");
    Ok(fs::rename(
        status.join(format!("{name}.done")),
        status.join(format!("{name}.ready")),
    )?)
}

/// Has a server crash between publishing these segments and its notes: it must archive them again without a failure, and
/// change nothing.
pub(crate) fn crash_before_the_notes(
    cluster: &Cluster,
    archive: &ArchiveDir,
    segments: &[String],
) -> Result<()> {
    let before = archive.snapshot()?;
    cluster.kill()?;
    for segment in segments {
        forget_the_note(cluster, segment)?;
    }
    cluster.start()?;
    cluster.wait_until_archived()?;
    assert_eq!(cluster.archive_failures()?, 0);
    let after = archive.snapshot()?;
    for (key, bytes) in &before {
        assert_eq!(after.get(key), Some(bytes), "{key} changed");
    }
    Ok(())
}

/// Settings of a server that recovers through Walden, and archives through it afterwards.
pub(crate) fn recovery_settings(lab: &Lab, archive: &ArchiveDir) -> Result<Settings> {
    Ok(lab
        .walden_settings(archive)?
        .with("walden.restore_library", "walden"))
}

/// A server about to recover from a base backup to a named restore point, not started.
pub(crate) fn recovery_to<'lab>(
    lab: &'lab Lab,
    backup: &Path,
    settings: Settings,
    restore_point: &str,
) -> Result<Cluster<'lab>> {
    let settings = settings
        .with("recovery_target_name", restore_point)
        .with("recovery_target_action", "promote");
    recovery_of(lab, backup, settings)
}

/// A server about to recover from a base backup to the end of what is archived, not started.
pub(crate) fn recovery_of<'lab>(
    lab: &'lab Lab,
    backup: &Path,
    settings: Settings,
) -> Result<Cluster<'lab>> {
    let cluster = lab.restored("recovered", backup, settings)?;
    cluster.touch("recovery.signal")?;
    Ok(cluster)
}

/// Starts a recovery, which must go through to its end and come back with these tables.
pub(crate) fn must_recover(cluster: &Cluster, contents: &Contents) -> Result<()> {
    cluster.start()?;
    cluster.wait_until_promoted()?;
    assert_eq!(cluster.contents()?, *contents);
    Ok(())
}

/// A running standby.
pub(crate) fn standby<'lab>(
    lab: &'lab Lab,
    name: &str,
    backup: &Path,
    settings: Settings,
) -> Result<Cluster<'lab>> {
    let cluster = lab.restored(name, backup, settings)?;
    cluster.touch("standby.signal")?;
    cluster.start()?;
    Ok(cluster)
}

/// Waits until a standby, or a recovered server, shows exactly this number of entries.
pub(crate) fn wait_for_entries(cluster: &Cluster, count: u32) -> Result<()> {
    cluster.wait_for_sql("select count(*) from ledger", &count.to_string())
}

/// Starts a recovery and stops its startup process once it has restored `segments` segments.
///
/// A recovery of small segments takes a quarter of a second, and a test on a busy machine may be late for that. Then the
/// recovery is begun anew, from the same files. Until one is held the server archives nothing, so that none leaves a timeline
/// behind. The answer is to be continued with SIGCONT.
pub(crate) fn start_and_hold(cluster: &Cluster, segments: usize) -> Result<Process> {
    let settings = cluster.settings();
    cluster.configure(|settings| {
        settings.set("archive_library", "");
        settings.set("archive_command", "");
    })?;
    cluster.keep()?;
    for _ in 0..HOLDS_MAX {
        if let Some(startup) = try_to_hold(cluster, segments)? {
            cluster.reload(|now| *now = settings)?;
            return Ok(startup);
        }
        cluster.begin_anew()?;
    }
    bail!("the recovery was over {HOLDS_MAX} times before it could be held")
}

fn try_to_hold(cluster: &Cluster, segments: usize) -> Result<Option<Process>> {
    let mark = cluster.mark()?;
    cluster.launch()?;
    let is_over = || -> Result<bool> {
        let over = cluster.logged(mark, &["redo done at"])?;
        Ok(!over.is_empty())
    };
    let mut startup = None;
    let in_time = wait_for("recovery to get under way", DEADLINE, || {
        if startup.is_none() {
            startup = cluster.processes("startup")?.into_iter().next();
        }
        if startup.is_some() && restored_since(cluster, mark)?.len() >= segments {
            return Ok(Some(true));
        }
        Ok(is_over()?.then_some(false))
    })?;
    let Some(startup) = startup.filter(|_| in_time) else {
        return Ok(None);
    };
    startup.pause()?;
    let is_late = restored_since(cluster, mark)?.len() > segments + LATE_MAX;
    Ok((!is_late && !is_over()?).then_some(startup))
}

/// The files that the server says it restored, in order.
pub(crate) fn restored_since(cluster: &Cluster, since: Mark) -> Result<Vec<String>> {
    let entries = cluster.logged(since, &["restored log file"])?;
    Ok(entries
        .iter()
        .filter_map(|entry| entry.text.split('"').nth(1).map(str::to_owned))
        .collect())
}

/// Starts a recovery that must end with the server's FATAL about a file that it could not restore, and
/// with no other: "recovery ended before configured recovery target was reached" would mean that it
/// took a failure for the end of WAL. Answers with the log.
pub(crate) fn start_could_not_restore(cluster: &Cluster, file: &str) -> Result<String> {
    let mark = cluster.mark()?;
    let log = cluster.start_refused()?;
    let fatal = cluster.logged(mark, &["FATAL", "could not restore file", file])?;
    ensure!(
        !fatal.is_empty(),
        "the server ended without saying that it could not restore {file:?}"
    );
    Ok(log)
}

/// Fails unless the server, which is stopped, is still in recovery on the first timeline.
pub(crate) fn check_not_promoted(lab: &Lab, cluster: &Cluster, archive: &ArchiveDir) -> Result<()> {
    ensure!(
        cluster.data().join("recovery.signal").exists(),
        "recovery.signal is gone"
    );
    ensure!(
        !cluster.data().join("pg_wal/00000002.history").exists(),
        "there is a second timeline"
    );
    ensure!(
        !archive.has("00000002.history")?,
        "there is a second timeline in the archive"
    );
    let control = run(lab
        .server_command("pg_controldata")
        .arg("-D")
        .arg(cluster.data()))?
    .success()?;
    ensure!(
        control.contains("in archive recovery"),
        "the server is not in archive recovery: {control}"
    );
    Ok(())
}
