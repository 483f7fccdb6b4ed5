//! A file system of a few megabytes in place of a directory, for what happens when a disk is full.
//!
//! Needs the right to mount, as root has it. It is gone when the value is dropped, which has to be after the servers that use
//! it were stopped.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{Lab, run};

/// What it is filled with at a time, in bytes.
const CHUNK: usize = 4096;

/// The file that fills it.
const FILLER: &str = "filler";

/// The file system.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many megabytes over a directory, which is the servers' user's then.
    ///
    /// # Errors
    ///
    /// Without the right to mount.
    pub fn over(lab: &Lab, dir: &Path, megabytes: u32) -> Result<SmallDisk> {
        let size = format!("size={megabytes}m,mode=0700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "walden-test"]);
        run(mount.arg(dir))?
            .success()
            .context("a small disk needs the right to mount: run this as root")?;
        let disk = SmallDisk { at: dir.to_owned() };
        lab.own(dir)?;
        Ok(disk)
    }

    /// Fills it to the last byte.
    ///
    /// # Errors
    ///
    /// When it cannot be written to for another reason than that it is full.
    pub fn fill(&self) -> Result<()> {
        let mut filler = fs::File::create(self.at.join(FILLER))?;
        loop {
            match filler.write(&[1; CHUNK]) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => {
                    let kind = error.kind();
                    ensure!(kind == std::io::ErrorKind::StorageFull, "{error}");
                    return Ok(());
                }
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Detached at once and gone with its last user, so that no failing test leaves it behind.
        let _ = run(Command::new("umount").arg("-l").arg(&self.at));
    }
}
