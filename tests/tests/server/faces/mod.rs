//! What an archive may lack, and what a recovery needs all the same: each as a user comes to it, on a real server.
//!
//! Guarantees that each is tried with the library and with the plain command, which have to judge alike. The rules themselves
//! are tested where they are written.

mod still_recovers;

use std::cell::Cell;
use std::path::PathBuf;

use anyhow::Result;
use lab::{ArchiveDir, Cluster, Contents, Lab, Mark, Settings, Shutdown};

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

    /// A recovery must go through to its end and come back with these tables, whichever way it restores. Each has a copy
    /// of the archive, since it archives what it writes. Answers with their logs.
    pub(crate) fn recovers(&self, more: More<'_>, contents: &Contents) -> Result<Vec<String>> {
        let mut logs = Vec::new();
        for way in WAYS {
            let recovered = self.recovery_of_copy(way, more)?;
            must_recover(&recovered, contents)?;
            logs.push(recovered.log(Mark::default())?);
            recovered.stop(Shutdown::Immediate)?;
        }
        Ok(logs)
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

    fn copy_of_archive(&self) -> Result<ArchiveDir> {
        let copy = self.lab.archive(&format!("copy{}", self.next()))?;
        for key in self.archive.keys()? {
            self.lab
                .copy(&self.archive.path().join(&key), &copy.path().join(&key))?;
        }
        Ok(copy)
    }
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
