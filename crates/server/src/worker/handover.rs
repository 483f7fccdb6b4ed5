//! The last step of a restore: from a private name to the name the server asked for.
//!
//! A module writes under a private name; only a file that is complete, of the right size, and still wanted
//! gets the asked-for one, by a rename within the directory. So no half-written file is ever visible, and a
//! module that is late cannot put a file where the server has moved on. Nothing is synced here: the server
//! syncs a restored file itself before it relies on it (xlogarchive.c, KeepFileRestoredFromArchive).

use module::{Failure, Process, WalFileName};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// pg_basebackup and pg_rewind leave out whatever begins with `pgsql_tmp` (basebackup.c, filemap.c).
const PREFIX: &str = "pgsql_tmp_walden_host";

/// A name asked for that is longer than this is left out of the private one: recovery's own have 15 bytes at most,
/// and file names end at 255.
const SHOWN_BYTES_MAX: usize = 64;

/// A private name beside the asked-for one, which it ends in: so a module can tell recovery, which restores as
/// `RECOVERYXLOG` or `RECOVERYHISTORY`, from others who want a file.
pub(crate) struct Handover {
    private: PathBuf,
    asked_for: PathBuf,
}

impl Handover {
    /// A name that has never been used: a late writer of an earlier request still has its own.
    pub(crate) fn begin(asked_for: &Path) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut name = format!("{PREFIX}.{}.{count}", std::process::id());
        let last = asked_for.file_name().unwrap_or_default().to_string_lossy();
        if last.len() <= SHOWN_BYTES_MAX {
            name = format!("{name}.{last}");
        }
        let private = asked_for.parent().unwrap_or(Path::new("")).join(name);
        Self {
            private,
            asked_for: asked_for.to_path_buf(),
        }
    }

    /// Where the module shall write.
    pub(crate) fn private(&self) -> &Path {
        &self.private
    }

    /// Gives the file its name.
    ///
    /// The server takes a missing file for the end of WAL although it was told "restored", and ends itself over
    /// one of the wrong size (xlogarchive.c, RestoreArchivedFile, 15 to 18), so both are looked at first.
    pub(crate) fn finish(&self, process: Process, file: &WalFileName) -> Result<(), Failure> {
        let bytes = fs::metadata(&self.private)
            .map_err(|error| {
                let what = "the recovery module said that it restored the file, but left none";
                Failure::new(format!("{what}: {error}"))
            })?
            .len();
        let expected = process.segment_size().bytes();
        if matches!(file, WalFileName::Segment(_)) && bytes != expected {
            return Err(Failure::new(format!(
                "the recovery module restored {bytes} bytes instead of {expected}"
            )));
        }
        fs::rename(&self.private, &self.asked_for).map_err(|error| {
            let asked_for = self.asked_for.display();
            Failure::new(format!(
                "could not rename the restored file to \"{asked_for}\": {error}"
            ))
        })
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        // Gone already when all went well. Otherwise its remains are of no use.
        let _ = fs::remove_file(&self.private);
    }
}

/// Removes what a worker that died left in `folder`. The caller is the only worker of its server.
pub(crate) fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_requests_for_the_same_file_never_share_a_private_name() {
        let path = Path::new("pg_wal/RECOVERYXLOG");
        let (one, other) = (Handover::begin(path), Handover::begin(path));
        assert_ne!(one.private(), other.private());
        assert_eq!(one.private().parent(), Some(Path::new("pg_wal")));
        let name = one.private().to_string_lossy().into_owned();
        assert!(name.ends_with(".RECOVERYXLOG"), "{name}");
    }

    #[test]
    fn leftovers_of_dead_workers_go_and_other_files_stay() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let leftover = folder.path().join(format!("{PREFIX}.1.0"));
        let other = folder.path().join("000000010000000000000001");
        fs::write(&leftover, "")?;
        fs::write(&other, "")?;
        remove_leftovers(folder.path());
        assert!(!leftover.exists());
        assert!(other.exists());
        Ok(())
    }
}
