//! What an archive may lack, hold twice or hold in the wrong form, and what recovery makes of it: each as a user comes to it,
//! on a real server.
//!
//! Guarantees that each is tried with the library and with the plain command, which have to judge alike. The rules themselves
//! are tested where they are written.

mod branch_begun;
mod cleaned_while_paused;
mod false_listing;
mod lost_history;
mod lost_middle;
mod own_directory;
mod snapshot;
mod still_recovers;
mod two_writers;
mod unreadable;

use std::cell::Cell;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use lab::{ArchiveDir, Cluster, Contents, Lab, Mark, Settings, Shutdown, run, wait_until};
use serde_json::Value;

use crate::common::{SHORT_RESTORE_TIMEOUT, SMALL_MB, must_recover, primary_with};

/// How a server restores.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// `walden.restore_library`: a worker answers.
    Library,
    /// `restore_command` alone: each file is restored by a program of its own.
    Command,
}

/// Both, for what has to be the same with either.
pub(crate) const WAYS: [Way; 2] = [Way::Library, Way::Command];

impl Way {
    /// Settings of a server that restores so, and archives what it writes. "Could not tell" comes soon.
    pub(crate) fn settings(self, lab: &Lab, archive: &ArchiveDir) -> Result<Settings> {
        let settings = plain(lab, archive)?.with("walden.restore_timeout", SHORT_RESTORE_TIMEOUT);
        Ok(match self {
            Way::Library => settings.with("walden.restore_library", "walden"),
            Way::Command => settings.with("restore_command", "walden restore %f %p %r"),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Way::Library => "library",
            Way::Command => "command",
        }
    }
}

/// Settings of a server that archives files as they are, so that a test can put them where it wants.
pub(crate) fn plain(lab: &Lab, archive: &ArchiveDir) -> Result<Settings> {
    Ok(lab
        .walden_settings(archive)?
        .with("walden.compression", "none"))
}

/// A running primary of that kind, with an empty ledger.
pub(crate) fn primary<'lab>(lab: &'lab Lab, archive: &ArchiveDir) -> Result<Cluster<'lab>> {
    primary_with(lab, SMALL_MB, plain(lab, archive)?)
}

/// More settings of one server: names and values.
pub(crate) type More<'a> = &'a [(&'a str, &'a str)];

/// An archive, and a base backup to begin a recovery from.
pub(crate) struct Case<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) archive: ArchiveDir,
    pub(crate) backup: PathBuf,
    servers: Cell<u32>,
}

impl<'lab> Case<'lab> {
    pub(crate) fn new(lab: &'lab Lab, archive: &ArchiveDir, backup: PathBuf) -> Case<'lab> {
        Case {
            lab,
            archive: archive.clone(),
            backup,
            servers: Cell::new(0),
        }
    }

    /// A number that no other server or copy of this case has.
    fn next(&self) -> u32 {
        self.servers.set(self.servers.get() + 1);
        self.servers.get()
    }

    /// The backup put back, with this archive and this signal file; not started.
    fn put_back(
        &self,
        way: Way,
        archive: &ArchiveDir,
        signal: &str,
        more: More<'_>,
    ) -> Result<Cluster<'lab>> {
        let name = format!("{}{}", way.name(), self.next());
        let mut settings = way.settings(self.lab, archive)?;
        for (name, value) in more {
            settings.set(name, value);
        }
        let cluster = self.lab.restored(&name, &self.backup, settings)?;
        cluster.touch(signal)?;
        Ok(cluster)
    }

    /// A recovery must end with the server's FATAL about this file, whichever way it restores, and neither promote nor
    /// touch the archive. The log has to hold these words, too.
    pub(crate) fn refuses(&self, more: More<'_>, file: &str, words: &[&str]) -> Result<()> {
        let before = self.archive.files()?;
        for way in WAYS {
            let recovered = self.recovery(way, more)?;
            let log = must_end_over(&recovered, file).with_context(|| format!("{way:?}"))?;
            for word in words {
                ensure!(log.contains(word), "{way:?} does not name {word:?}:\n{log}");
            }
            ensure!(
                recovered.data().join("recovery.signal").exists(),
                "{way:?}: recovery has ended"
            );
            ensure!(self.archive.files()? == before, "the archive has changed");
        }
        Ok(())
    }

    /// A recovery must go through to its end and come back with these tables, whichever way it restores. Each has a copy
    /// of the archive, since it archives what it writes.
    pub(crate) fn recovers(&self, more: More<'_>, contents: &Contents) -> Result<()> {
        for way in WAYS {
            let recovered = self.recovery_of_copy(way, more)?;
            must_recover(&recovered, contents)?;
            recovered.stop(Shutdown::Immediate)?;
        }
        Ok(())
    }

    /// A server about to recover from this archive, not started.
    pub(crate) fn recovery(&self, way: Way, more: More<'_>) -> Result<Cluster<'lab>> {
        self.put_back(way, &self.archive, "recovery.signal", more)
    }

    /// The same with a copy of the archive.
    pub(crate) fn recovery_of_copy(&self, way: Way, more: More<'_>) -> Result<Cluster<'lab>> {
        self.put_back(way, &self.copy_of_archive()?, "recovery.signal", more)
    }

    /// A running standby that follows this archive.
    pub(crate) fn standby(&self, way: Way, more: More<'_>) -> Result<Cluster<'lab>> {
        let standby = self.put_back(way, &self.archive, "standby.signal", more)?;
        standby.start()?;
        Ok(standby)
    }

    /// What the commands that audit an archive say of this one.
    pub(crate) fn audit(&self) -> Result<Audit> {
        Audit::of(self.lab, &self.archive, self.next())
    }

    pub(crate) fn copy_of_archive(&self) -> Result<ArchiveDir> {
        let copy = self.lab.archive(&format!("copy{}", self.next()))?;
        for key in self.archive.keys()? {
            self.lab
                .copy(&self.archive.path().join(&key), &copy.path().join(&key))?;
        }
        Ok(copy)
    }
}

/// What `walden verify` and `walden targets` say of an archive.
pub(crate) struct Audit {
    verify: Value,
    targets: Value,
}

impl Audit {
    /// `number`: one that no other audit of this lab has.
    pub(crate) fn of(lab: &Lab, archive: &ArchiveDir, number: u32) -> Result<Audit> {
        let say = |arguments: &[&str]| -> Result<Value> {
            let mut command = lab.command("walden");
            command.args(arguments).arg("-A").arg(archive.path());
            let said = run(&mut command)?;
            serde_json::from_str(&said.stdout).with_context(|| format!("{said:?}"))
        };
        let index = lab.dir().join(format!("index{number}"));
        let index = index.display().to_string();
        Ok(Audit {
            verify: say(&["verify", "--json"])?,
            targets: say(&["targets", "--json", "--index", &index])?,
        })
    }

    /// Fails unless `walden verify` has found this of an object.
    pub(crate) fn finds(&self, severity: &str, kind: &str, object: &str) -> Result<()> {
        let findings = self.verify.get("findings").and_then(Value::as_array);
        let findings = findings.context("no findings")?;
        let is_it = |finding: &Value| {
            let wanted = [("severity", severity), ("kind", kind), ("object", object)];
            wanted
                .iter()
                .all(|(field, text)| finding.get(field).is_some_and(|it| it == text))
        };
        ensure!(
            findings.iter().any(is_it),
            "verify finds no {severity}, {kind}, of {object}: {}",
            self.verify
        );
        Ok(())
    }

    /// Fails unless `walden verify` has found no error and nothing to warn of.
    pub(crate) fn is_clean(&self) -> Result<()> {
        let counts = ["errors", "could_not_tell", "warnings"];
        let is_clean = counts.into_iter().all(|what| self.counts_none(what));
        ensure!(is_clean, "{}", self.verify);
        Ok(())
    }

    fn counts_none(&self, what: &str) -> bool {
        self.verify.get(what).is_some_and(|count| count == 0)
    }

    /// How far the only base backup reaches along a timeline, and why no further, as `walden targets` says.
    pub(crate) fn reach(&self, timeline: u32) -> Result<(&str, &str)> {
        let reaches = self.targets.pointer("/backups/0/reaches");
        let reaches = reaches.and_then(Value::as_array);
        let mut reaches = reaches.with_context(|| self.targets.to_string())?.iter();
        let reach = reaches
            .find(|reach| reach.get("timeline").is_some_and(|it| it == timeline))
            .with_context(|| format!("no reach along {timeline}: {}", self.targets))?;
        let text = |field: &str| {
            let value = reach.get(field).and_then(Value::as_str);
            value.unwrap_or_default()
        };
        Ok((text("until_lsn"), text("why")))
    }

    /// Fails unless the only base backup reaches nothing along a timeline behind a segment, for this reason.
    pub(crate) fn stops_at(&self, timeline: u32, segment: &str, why: &str) -> Result<()> {
        let (until, said) = self.reach(timeline)?;
        let size = wal::SegmentSize::new(u64::from(SMALL_MB) * 1024 * 1024)?;
        let start = segment.parse::<wal::SegmentName>()?.start(size);
        let until: wal::Lsn = until.parse()?;
        ensure!(
            start == Some(until) && said.contains(why),
            "it reaches {until} ({said:?}), and {segment:?} begins at {start:?}: {}",
            self.targets
        );
        Ok(())
    }
}

/// Starts a recovery, which must end over this file; one that ends as if it had succeeded is found out at once. Answers with
/// the log.
fn must_end_over(recovered: &Cluster<'_>, file: &str) -> Result<String> {
    recovered.launch()?;
    wait_until("the server to end", || {
        if !recovered
            .logged(Mark::default(), &["archive recovery complete"])?
            .is_empty()
        {
            let log = recovered.log(Mark::default())?;
            bail!("recovery has ended as if it had succeeded:\n{log}");
        }
        Ok(!recovered.is_running()?)
    })?;
    recovered.wait_for_end()?;
    let fatal = ["FATAL", "could not restore file", file];
    let log = recovered.log(Mark::default())?;
    ensure!(
        !recovered.logged(Mark::default(), &fatal)?.is_empty(),
        "the server ended without saying that it could not restore {file:?}:\n{log}"
    );
    Ok(log)
}

/// A standby that streams from this server and restores from the archive what that no longer has; running.
pub(crate) fn streaming<'lab>(
    lab: &'lab Lab,
    name: &str,
    backup: &std::path::Path,
    from: &Cluster<'_>,
    settings: Settings,
) -> Result<Cluster<'lab>> {
    let settings = settings.with("primary_conninfo", &conninfo(from));
    crate::common::standby(lab, name, backup, settings)
}

/// How to connect to a server.
pub(crate) fn conninfo(server: &Cluster<'_>) -> String {
    format!("host={} user=postgres", server.home().display())
}

/// Ends a standby's recovery, on a timeline of its own.
pub(crate) fn promote(standby: &Cluster<'_>) -> Result<()> {
    standby.sql("select pg_promote(wait => false)")?;
    standby.wait_until_promoted()
}

/// The name of the segment that a server writes to.
pub(crate) fn current_segment(server: &Cluster<'_>) -> Result<String> {
    // The last byte that is there: at the very end of a segment the place itself belongs to the next.
    server.sql("select pg_walfile_name(pg_current_wal_lsn())")
}

/// The name of the segment so many places behind this one (1 MB segments).
pub(crate) fn segment_after(name: &str, count: u64) -> Result<String> {
    let segment: wal::SegmentName = name.parse()?;
    let size = wal::SegmentSize::new(u64::from(SMALL_MB) * 1024 * 1024)?;
    let mut segment = segment;
    for _ in 0..count {
        segment = segment
            .next(size)
            .ok_or_else(|| anyhow::anyhow!("no segment behind {name}"))?;
    }
    Ok(segment.to_string())
}

/// A data directory as a snapshot of its file system has it: at one moment, `pg_wal` included. The server goes on.
pub(crate) fn snapshot(lab: &Lab, server: &Cluster<'_>, name: &str) -> Result<PathBuf> {
    server.stop(Shutdown::Immediate)?;
    let path = lab.dir().join(name);
    lab.copy(&server.data(), &path)?;
    // What a snapshot has of a server that runs; it would be in the way of nothing.
    let _ = std::fs::remove_file(path.join("postmaster.pid"));
    server.start()?;
    Ok(path)
}
