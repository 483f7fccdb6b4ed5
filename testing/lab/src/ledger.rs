//! The ledger: one table, written an entry to a segment, and the server that is lost with it.
//!
//! Guarantees that every entry lies in a segment of its own. Leaves to its users how a server archives, and
//! what it is recovered with.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use anyhow::Result;

use crate::cluster::{Cluster, Shutdown};
use crate::contents::Contents;
use crate::lab::Lab;
use crate::settings::Settings;

/// What is left of a lost server.
pub struct Lost {
    /// A base backup without WAL.
    pub backup: PathBuf,
    /// What its database held at the restore point.
    pub contents: Contents,
    /// The segments written since the backup.
    pub segments: Vec<String>,
}

impl Lost {
    /// The restore point that [`Cluster::lose`] makes.
    pub const RESTORE_POINT: &str = "goal";
}

impl Lab {
    /// A running cluster with an empty ledger.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn primary(&self, name: &str, segment_mb: u32, settings: Settings) -> Result<Cluster<'_>> {
        let primary = self.cluster(name, segment_mb, settings)?;
        primary.start()?;
        primary.create_ledger()?;
        Ok(primary)
    }
}

impl Cluster<'_> {
    /// Makes the table `ledger(entry, written)`. The time is a default, so that the same entries written twice
    /// are not the same contents.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub fn create_ledger(&self) -> Result<()> {
        self.sql(
            "create table ledger(entry int primary key, written timestamptz default clock_timestamp())",
        )?;
        Ok(())
    }

    /// Writes one entry into a segment of its own for each number; answers with the segments.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub fn write_segments(&self, entries: RangeInclusive<u32>) -> Result<Vec<String>> {
        // One psql for all: starting it for each entry would take longer than everything else.
        let mut statements = String::new();
        for entry in entries {
            statements.push_str(&format!("insert into ledger values ({entry});\n"));
            statements.push_str("select pg_walfile_name(pg_switch_wal());\n");
        }
        Ok(self.sql(&statements)?.lines().map(str::to_owned).collect())
    }

    /// Takes a base backup, writes this many entries up to [`Lost::RESTORE_POINT`], has everything archived and
    /// loses the server.
    ///
    /// # Errors
    ///
    /// When one of the steps fails.
    pub fn lose(&self, entries: u32) -> Result<Lost> {
        let backup = self.base_backup("backup")?;
        let segments = self.write_segments(1..=entries)?;
        let point = Lost::RESTORE_POINT;
        self.sql(&format!("select pg_create_restore_point('{point}')"))?;
        let contents = self.contents()?;
        self.archive_everything()?;
        self.stop(Shutdown::Immediate)?;
        Ok(Lost {
            backup,
            contents,
            segments,
        })
    }
}
