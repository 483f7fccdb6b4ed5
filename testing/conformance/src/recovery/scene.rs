//! What the promises share: a lost primary, its backup, servers that recover through the module, and a way to
//! ask the module for one file.
//!
//! Guarantees: a module is asked the way servers ask, by the command that its host put into
//! `restore_command`; what a module is judged by comes from the primary, never from the archive.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{
    ArchiveDir, Cluster, Contents, Lab, Lost, Mark, Outcome, Process, Settings, run_for, wait_for,
};

use crate::promise::{broken, hold, must};
use crate::subject::Subject;

/// The smallest segment size: makes many segments quick.
pub(super) const SMALL_MB: u32 = 1;

/// How long something may take that a working module does in a moment, on a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(25);

/// The longest that a single request may take before the one who waits for it is a fault of the suite.
const REQUEST_MAX: Duration = Duration::from_secs(60);

/// What `%r` is while no restartpoint is known.
pub(super) const ZEROS: &str = "000000000000000000000000";

/// Where a file is put that only a promise asks for.
const ASKED_FOR: &str = "pg_wal/asked_for";

/// The recovery worker, as the server's process list shows it.
const WORKER: &str = "walden recovery worker";

/// A running primary that keeps its segments, to compare them with what comes out of the archive.
pub(super) fn primary<'lab>(
    subject: &Subject,
    lab: &'lab Lab,
    archive: &ArchiveDir,
    name: &str,
    segment_mb: u32,
) -> Result<Cluster<'lab>> {
    let settings = subject.archiving(lab, archive).with("wal_keep_size", "1GB");
    lab.primary(name, segment_mb, settings)
}

/// Archives `entries` segments after a backup and loses the primary.
pub(super) fn lose(
    subject: &Subject,
    lab: &Lab,
    archive: &ArchiveDir,
    entries: u32,
) -> Result<Lost> {
    primary(subject, lab, archive, "primary", SMALL_MB)?.lose(entries)
}

/// The settings with recovery to the restore point.
pub(super) fn to_goal(settings: Settings) -> Settings {
    settings
        .with("recovery_target_name", Lost::RESTORE_POINT)
        .with("recovery_target_action", "promote")
}

/// A server about to recover from a backup, not started.
pub(super) fn recovery_of<'lab>(
    lab: &'lab Lab,
    name: &str,
    backup: &Path,
    settings: Settings,
) -> Result<Cluster<'lab>> {
    let cluster = lab.restored(name, backup, settings)?;
    cluster.touch("recovery.signal")?;
    Ok(cluster)
}

/// Starts a recovery, which must go through to its end and come back with these tables.
pub(super) fn must_recover(cluster: &Cluster, contents: &Contents) -> Result<()> {
    let mark = cluster.mark()?;
    let signal = cluster.data().join("recovery.signal");
    let recovered = cluster.launch().and_then(|()| {
        wait_for("recovery to end", PATIENCE, || {
            ensure!(cluster.is_running()?, "the server has ended");
            if signal.exists() {
                return Ok(None);
            }
            answers(cluster, "select pg_is_in_recovery()", "f")
        })
    });
    if let Err(error) = recovered {
        return broken(format!(
            "recovery did not end: {error:#}; {}",
            last_words(cluster, mark)?
        ));
    }
    let now = cluster.contents()?;
    hold(now == *contents, || {
        format!("the recovered tables hold {now:?}, the primary's held {contents:?}")
    })
}

/// What the server said last of what went wrong.
pub(super) fn last_words(cluster: &Cluster, since: Mark) -> Result<String> {
    let said = cluster.logged(since, &[])?;
    let bad = |text: &str| {
        ["FATAL:", "PANIC:", "WARNING:"]
            .iter()
            .any(|word| text.starts_with(word))
    };
    let waiting = "the database system is ";
    let last = said
        .iter()
        .filter(|entry| bad(&entry.text) && !entry.has(&[waiting]))
        .map(|entry| entry.text.replace('\n', " "));
    let last: Vec<String> = last.collect();
    let last = last.get(last.len().saturating_sub(3)..).unwrap_or_default();
    Ok(match last {
        [] => "its log has no complaint".to_owned(),
        last => format!("its log says: {}", last.join("; ")),
    })
}

/// A running standby without streaming.
pub(super) fn standby<'lab>(
    subject: &Subject,
    lab: &'lab Lab,
    archive: &ArchiveDir,
    backup: &Path,
) -> Result<Cluster<'lab>> {
    standby_with(lab, backup, subject.recovering(lab, archive))
}

/// The same with settings of the promise's own.
pub(super) fn standby_with<'lab>(
    lab: &'lab Lab,
    backup: &Path,
    settings: Settings,
) -> Result<Cluster<'lab>> {
    // Says each time that it asked in vain (RestoreArchivedFile, xlogarchive.c, 15 to 18).
    let settings = settings.with("log_min_messages", "debug2");
    let standby = lab.restored("standby", backup, settings)?;
    standby.touch("standby.signal")?;
    must(standby.start(), "the standby did not come up")?;
    Ok(standby)
}

/// Waits until a server shows exactly this number of entries.
pub(super) fn must_show(cluster: &Cluster, entries: u32) -> Result<()> {
    let mark = cluster.mark()?;
    let (query, expected) = ("select count(*) from ledger", entries.to_string());
    let shown = wait_for(&format!("{entries} entries"), PATIENCE, || {
        ensure!(cluster.is_running()?, "the server has ended");
        answers(cluster, query, &expected)
    });
    if let Err(error) = shown {
        return broken(format!("{error:#}; {}", last_words(cluster, mark)?));
    }
    Ok(())
}

/// Something when the server gives this answer; while it does not answer at all, nothing.
pub(super) fn answers(cluster: &Cluster, query: &str, expected: &str) -> Result<Option<()>> {
    let outcome = cluster.psql("postgres", query)?;
    Ok((outcome.status.success() && outcome.stdout.trim_end() == expected).then_some(()))
}

/// Waits until a standby has asked for something in vain, `times` times.
pub(super) fn wait_until_asked_in_vain(standby: &Cluster, since: Mark, times: usize) -> Result<()> {
    wait_for("the standby to ask in vain", PATIENCE, || {
        let asked = standby.logged(since, &["DEBUG", "could not restore file", "from archive"])?;
        Ok((asked.len() >= times).then_some(()))
    })
}

/// The process that calls the module.
pub(super) fn worker(cluster: &Cluster) -> Result<Process> {
    cluster.wait_for_process(WORKER)
}

/// Whether the module can do the job that this parameter names it for. The host says so, if not, before it
/// answers the first request.
pub(super) fn does(cluster: &Cluster, parameter: &str) -> Result<bool> {
    let said = cluster.logged(Mark::default(), &["has no callback for", parameter])?;
    Ok(said.is_empty())
}

/// A server that runs the module, asks for nothing by itself, and can be asked through.
pub(super) struct Asker<'lab> {
    pub(super) server: Cluster<'lab>,
    lab: &'lab Lab,
    restore: String,
}

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// "Restored", with these bytes.
    Restored(Vec<u8>),
    /// "Not in the archive."
    Absent,
    /// "Could not tell", with this exit status.
    CouldNotTell(i32),
    /// "Restored", and nothing was there.
    Nothing,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Restored(bytes) => write!(f, "exit status 0 and {} bytes", bytes.len()),
            Answer::Absent => f.write_str("exit status 1"),
            Answer::CouldNotTell(status) => write!(f, "exit status {status}"),
            Answer::Nothing => f.write_str("exit status 0 and no file"),
        }
    }
}

impl<'lab> Asker<'lab> {
    /// Starts a server of the primary's system identifier, with these settings.
    pub(super) fn start(
        lab: &'lab Lab,
        name: &str,
        mb: u32,
        settings: Settings,
    ) -> Result<Asker<'lab>> {
        let server = lab.cluster(name, mb, settings)?;
        server.start()?;
        let restore = server.sql("show restore_command")?;
        worker(&server)?;
        Ok(Asker {
            server,
            lab,
            restore,
        })
    }

    /// A scene with the usual settings.
    pub(super) fn of(
        subject: &Subject,
        lab: &'lab Lab,
        archive: &ArchiveDir,
    ) -> Result<Asker<'lab>> {
        Asker::start(lab, "asker", SMALL_MB, subject.recovering(lab, archive))
    }

    /// Asks for a file.
    pub(super) fn ask(&self, file: &str) -> Result<Answer> {
        let path = self.server.data().join(ASKED_FOR);
        let outcome = self.run(&self.restore, file, ZEROS)?;
        // Up to 125 the server takes for "not there" (RestoreArchivedFile, xlogarchive.c, 15 to 18).
        let answer = match outcome.status.code() {
            Some(0) if path.is_file() => Answer::Restored(fs::read(&path)?),
            Some(0) => Answer::Nothing,
            Some(1..=125) => Answer::Absent,
            Some(status) => Answer::CouldNotTell(status),
            None => anyhow::bail!("the command ended with {}", outcome.status),
        };
        if path.exists() {
            fs::remove_file(&path)?;
        }
        Ok(answer)
    }

    /// Asks for a file, which must come with these bytes.
    pub(super) fn must_restore(&self, file: &str, bytes: &[u8], when: &str) -> Result<()> {
        let mark = self.server.mark()?;
        match self.ask(file)? {
            Answer::Restored(restored) => hold(restored == bytes, || {
                format!(
                    "{when}, \"{file}\" came with other bytes than it was archived with: {} of them instead of {}",
                    restored.len(),
                    bytes.len()
                )
            }),
            other => broken(format!(
                "{when}, \"{file}\" was not restored: {other}; {}",
                last_words(&self.server, mark)?
            )),
        }
    }

    /// Asks for a file, which must be absent.
    pub(super) fn must_be_absent(&self, file: &str, when: &str) -> Result<()> {
        let mark = self.server.mark()?;
        match self.ask(file)? {
            Answer::Absent => Ok(()),
            other => broken(format!(
                "{when}, \"{file}\", which the archive does not hold, was answered with {other} instead of exit \
                 status 1; {}",
                last_words(&self.server, mark)?
            )),
        }
    }

    /// Runs one of the commands that the host wired, as the server would.
    pub(super) fn run(&self, command: &str, file: &str, oldest_kept: &str) -> Result<Outcome> {
        let command = command
            .replace("%f", file)
            .replace("%p", ASKED_FOR)
            .replace("%r", oldest_kept);
        let mut shell = self.lab.server_command("sh");
        shell.arg("-c").arg(command).current_dir(self.server.data());
        run_for(&mut shell, REQUEST_MAX)
    }
}
