//! What the promises of archive modules have in common: waiting for an archiver, holding it, and coming
//! back from the archive.
//!
//! Guarantees that a wait for a module which has given up ends with the archiver's own words, and does not
//! last until the deadline.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use lab::{ArchiveDir, Cluster, Lab, Mark, Process, Settings, Shutdown, wait_for, wait_until};
use rustix::process::Signal;

use crate::promise::{hold, must};
use crate::stall::Stall;
use crate::subject::Subject;

/// What the server says after three failures in a row, before it pauses for up to a minute
/// (`pgarch_ArchiverCopyLoop`, 15 to 18).
const GIVEN_UP: &str = "failed too many times, will try again later";

/// Three attempts that fail at once, and the second's pause after each, are over by then.
const SLEEPS_WITHIN: Duration = Duration::from_secs(5);

/// A server that was stopped once: running again now, with a copy of what it was then.
pub(crate) struct Copied<'lab> {
    pub(crate) primary: Cluster<'lab>,
    pub(crate) copy: PathBuf,
}

/// A running server with the empty ledger, and a copy of its data directory from before
/// it wrote anything else.
pub(crate) fn copied<'lab>(
    lab: &'lab Lab,
    name: &str,
    segment_mb: u32,
    settings: Settings,
) -> Result<Copied<'lab>> {
    let primary = lab.primary(name, segment_mb, settings)?;
    primary.stop(Shutdown::Fast)?;
    let copy = primary.home().join("copy");
    lab.copy(&primary.data(), &copy)?;
    primary.start()?;
    Ok(Copied { primary, copy })
}

/// Waits until the archiver has nothing left to do. The promise is broken if it gives up on a file, or does
/// not get there.
pub(crate) fn drain(cluster: &Cluster, since: Mark, otherwise: &str) -> Result<()> {
    let mut given_up = false;
    let drained = wait_until("no .ready file left", || {
        if cluster.ready()?.is_empty() {
            return Ok(true);
        }
        given_up = !cluster.logged(since, &[GIVEN_UP])?.is_empty();
        anyhow::ensure!(cluster.is_running()?, "the server has ended");
        if cluster.processes("archiver")?.is_empty() {
            // A connection wakes the postmaster, which else looks for another archiver once a minute.
            cluster.psql("postgres", "select 1")?;
        }
        Ok(given_up)
    });
    must(drained, otherwise)?;
    let waiting = cluster.ready()?;
    hold(waiting.is_empty() || !given_up, || {
        let words = complaint(cluster, since);
        let first = waiting.first().map_or("", String::as_str);
        format!("{otherwise}: \"{first}\" {GIVEN_UP}; {words}")
    })
}

/// How [`complaint`] begins where there is one.
pub(crate) const COMPLAINT: &str = "the archiver logged: ";

/// The archiver's first words of complaint in the log.
pub(crate) fn complaint(cluster: &Cluster, since: Mark) -> String {
    let logged = cluster.logged(since, &[]).unwrap_or_default();
    let bad = ["WARNING:", "ERROR:", "FATAL:", "PANIC:"];
    let first = logged.iter().find(|entry| {
        entry.backend == "archiver" && bad.iter().any(|word| entry.text.starts_with(word))
    });
    match first {
        Some(entry) => format!("{COMPLAINT}{}", entry.text.replace('\n', " ")),
        None => "the archiver logged nothing".to_owned(),
    }
}

/// Looks out for an archiver's answer about a file: it is done with it, for now or for good.
pub(crate) struct Watch<'cluster> {
    cluster: &'cluster Cluster<'cluster>,
    archiver: Process,
    since: Mark,
    failures: u64,
}

impl<'cluster> Watch<'cluster> {
    /// Begins to watch.
    pub(crate) fn begin(cluster: &'cluster Cluster<'cluster>) -> Result<Watch<'cluster>> {
        Ok(Watch {
            cluster,
            archiver: archiver(cluster)?,
            since: cluster.mark()?,
            failures: cluster.archive_failures()?,
        })
    }

    /// Whether nothing waits any more, or an attempt failed: counted, or by the archiver's words, or by its end.
    pub(crate) fn answered(&self) -> Result<bool> {
        Ok(self.cluster.ready()?.is_empty()
            || complaint(self.cluster, self.since).starts_with(COMPLAINT)
            || !self.archiver.is_alive()
            || self.cluster.archive_failures()? > self.failures)
    }

    /// Waits until it has happened.
    pub(crate) fn wait(&self) -> Result<()> {
        wait_until("the archiver to answer for a file", || self.answered())
    }

    /// How many failures were counted since the beginning.
    pub(crate) fn failures(&self) -> Result<u64> {
        Ok(self
            .cluster
            .archive_failures()?
            .saturating_sub(self.failures))
    }

    /// What the archiver logged since the beginning.
    pub(crate) fn complaint(&self) -> String {
        complaint(self.cluster, self.since)
    }
}

/// A server that recovers from the archive, up to its end, starting from a copy of a data directory.
pub(crate) fn recovered<'lab>(
    subject: &Subject,
    lab: &'lab Lab,
    name: &str,
    copy: &Path,
    archive: &ArchiveDir,
) -> Result<Cluster<'lab>> {
    let recovered = lab.restored(name, copy, subject.recovering(lab, archive))?;
    recovered.touch("recovery.signal")?;
    let up = recovered
        .start()
        .and_then(|()| recovered.wait_until_promoted());
    must(up, "a server did not recover from the archive")?;
    Ok(recovered)
}

/// Stops the server, recovers another from the archive and compares the two. Answers with the number of
/// entries in the ledger of both.
pub(crate) fn compare_with_recovered(
    subject: &Subject,
    lab: &Lab,
    origin: &Copied,
    archive: &ArchiveDir,
) -> Result<u64> {
    let before = origin.primary.contents()?;
    origin.primary.stop(Shutdown::Immediate)?;
    let name = format!("{}-recovered", name_of(origin.primary.home()));
    let recovered = recovered(subject, lab, &name, &origin.copy, archive)?;
    let after = recovered.contents()?;
    let rows = |contents: &lab::Contents| contents.get("public.ledger").map_or(0, |it| it.rows);
    let (wanted, got) = (rows(&before), rows(&after));
    hold(before == after, || {
        format!(
            "a server that was recovered from the archive has {got} of {wanted} entries, or other contents"
        )
    })?;
    recovered.stop(Shutdown::Immediate)?;
    Ok(wanted)
}

/// Stops the archiver, has the server write this entry into a segment of its own, and has the archiver held
/// when it opens that segment, and, if wanted, at each read. Answers with the segment.
pub(crate) fn stall_at_next(
    cluster: &Cluster,
    archiver: &Process,
    entry: u32,
    also_reads: bool,
) -> Result<(String, Stall)> {
    pause(cluster, archiver)?;
    let segment = cluster.write_segments(entry..=entry)?.concat();
    let stall = stall_at(cluster, &segment, also_reads)?;
    archiver.signal(Signal::CONT)?;
    Ok((segment, stall))
}

/// Holds a process that opens this segment of the server and, if wanted, one that reads it.
pub(crate) fn stall_at(cluster: &Cluster, segment: &str, also_reads: bool) -> Result<Stall> {
    let path = cluster.data().join("pg_wal").join(segment);
    if also_reads {
        Stall::on_open_and_read(&path)
    } else {
        Stall::on_open(&path)
    }
}

/// The archiver process.
pub(crate) fn archiver(cluster: &Cluster) -> Result<Process> {
    cluster.wait_for_process("archiver")
}

/// Stops the archiver, until `Signal::CONT`, when it sleeps: stopped with a lock in its hands (it may have come
/// up just now), it would stop the whole server.
///
/// One that does not sleep within [`SLEEPS_WITHIN`] is stopped where it is: some modules never tell the server
/// that they wait.
pub(crate) fn pause(cluster: &Cluster, archiver: &Process) -> Result<()> {
    let asleep = "select wait_event_type in ('Activity', 'Extension') from pg_stat_activity
                  where backend_type = 'archiver'";
    let sleeps = || Ok((cluster.sql(asleep)?.trim() == "t").then_some(()));
    // In vain is fine; why an SQL command failed, the next one tells.
    let _ = wait_for("the archiver to sleep", SLEEPS_WITHIN, sleeps);
    archiver.pause()
}

/// The archiver of a server that has just come up, with nothing left to do.
pub(crate) fn idle_archiver(cluster: &Cluster) -> Result<Process> {
    drain(
        cluster,
        Mark::default(),
        "the first segments were not archived",
    )?;
    archiver(cluster)
}

/// Everything below the archive directory, by path from there.
pub(crate) fn tree(archive: &ArchiveDir) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![archive.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(archive.path()).unwrap_or(&path);
                found.insert(name.display().to_string(), path.clone());
            }
        }
    }
    Ok(found)
}

/// The bytes behind a WAL file name in the archive; `None` when it is not there.
pub(crate) fn stored_bytes(archive: &ArchiveDir, name: &str) -> Result<Option<Vec<u8>>> {
    if !archive.has(name)? {
        return Ok(None);
    }
    match fs::read(archive.stored(name)?) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The contents of a file that is not WAL.
pub(crate) const PLANTED: &[u8] = b"somebody else's";

/// Makes a file that holds [`PLANTED`], and which servers may do with as they like.
pub(crate) fn plant(lab: &Lab, path: &Path) -> Result<()> {
    fs::write(path, PLANTED)?;
    lab.own(path)
}

/// Where a WAL file would be stored, seen from where another is; under its own name, if that is not there.
pub(crate) fn place_of(archive: &ArchiveDir, known: &str, wanted: &str) -> Result<PathBuf> {
    if !archive.has(known)? {
        return Ok(archive.path().join(wanted));
    }
    let name = name_of(&archive.stored(known)?).replace(known, wanted);
    Ok(archive.path().join(name))
}

/// The last part of a path, as text.
pub(crate) fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
