//! Base backups that the server itself sends to a target, and servers made of what a target has kept.
//!
//! Guarantees that the stock `pg_basebackup` asks for them, and that a tablespace of a server that is made of one lies in a
//! directory of its own. Leaves to the caller where the target keeps what.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::lab::Lab;
use crate::program::{Outcome, run};

impl Cluster<'_> {
    /// `pg_basebackup` to this target, `NAME` or `NAME:DETAIL`, with a fast checkpoint. Without `-X` among what is added it
    /// refuses itself.
    #[must_use]
    pub fn backup_command(&self, target: &str) -> Command {
        let mut command = self.client("pg_basebackup");
        command.args(["-c", "fast", "--no-password"]);
        command.arg(format!("--target={target}"));
        command
    }

    /// Takes a base backup, its WAL included, to this target; answers with what `pg_basebackup` did.
    ///
    /// # Errors
    ///
    /// When it cannot be run, or does not end.
    pub fn back_up_to(&self, target: &str) -> Result<Outcome> {
        run(self.backup_command(target).args(["-X", "fetch"]))
    }
}

impl Lab {
    /// Unpacks the archives in a folder, `base.tar` and those of tablespaces, into a data directory of this name, and checks
    /// it by the manifest. Tablespaces get directories of their own, beside it.
    ///
    /// # Errors
    ///
    /// When something is missing or does not match.
    pub fn unpacked(&self, name: &str, folder: &Path) -> Result<PathBuf> {
        let data = self.directory(name)?;
        self.unpack(&folder.join("base.tar"), &data)?;
        let map = data.join("tablespace_map");
        let mut moved = String::new();
        for line in fs::read_to_string(&map).unwrap_or_default().lines() {
            let (oid, _) = line.split_once(' ').context("a line without a place")?;
            let place = self.directory(&format!("{name}-{oid}"))?;
            self.unpack(&folder.join(format!("{oid}.tar")), &place)?;
            let link = data.join("pg_tblspc").join(oid);
            std::os::unix::fs::symlink(&place, link)?;
            moved.push_str(&format!("{oid} {}\n", place.display()));
        }
        self.verify_backup(&data, &folder.join("backup_manifest"))?;
        if !moved.is_empty() {
            fs::write(&map, moved)?;
        }
        run(self.server_command("chmod").arg("0700").arg(&data))?.success()?;
        Ok(data)
    }

    fn unpack(&self, archive: &Path, place: &Path) -> Result<()> {
        let mut tar = self.server_command("tar");
        tar.arg("-xf").arg(archive).arg("-C").arg(place);
        run(&mut tar)?
            .success()
            .with_context(|| format!("could not unpack \"{}\"", archive.display()))?;
        Ok(())
    }

    /// Checks a data directory by a manifest, but for its WAL.
    ///
    /// # Errors
    ///
    /// When something is missing or does not match.
    pub fn verify_backup(&self, data: &Path, manifest: &Path) -> Result<()> {
        let mut verify = self.server_command("pg_verifybackup");
        verify.args(["--no-parse-wal", "--manifest-path"]);
        run(verify.arg(manifest).arg(data))?
            .success()
            .context("pg_verifybackup found something wrong")?;
        Ok(())
    }
}
