//! Base backup targets: where `pg_basebackup --target=NAME[:DETAIL]` sends a base backup, inside the server.
//!
//! Guarantees in which order the methods are called, and that a backup is committed only if the server itself has found
//! nothing wrong with it. Leaves to the target where the files go; the callbacks are in `boundary/backup.rs`.

use crate::{Failure, Process, Requester};
use core::ffi::CStr;
use wal::{Lsn, TimelineId};

/// A base backup target. The library has to be in `shared_preload_libraries`.
///
/// Everything runs in the walsender that was asked for the backup, on its main thread, outside any transaction. A session
/// may take several backups, one after the other; several sessions may take backups at the same time.
///
/// The kit serves interrupts between the calls, so that a backup holds up neither a fast shutdown nor `DROP DATABASE` nor a
/// promotion. What takes long within a call, a second or more, waits through [`Process::wait`] or a [`crate::Task`], or
/// looks in between with [`Process::check_interrupts`]. Nothing is served while a sink is dropped: a `Drop` that takes long
/// holds all of these up.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a base backup target: it does not implement `module::BackupTarget`"
)]
pub trait BackupTarget: 'static {
    /// What it is called in `pg_basebackup --target=NAME`. Not `client`, `server` or `blackhole`, which the server has
    /// itself, and without a colon.
    const NAME: &'static CStr;

    /// What was made of the target's detail.
    type Detail: 'static;

    /// Looks at what stands behind the colon, `None` for nothing, and at who asks. This is the place to refuse, and to try
    /// whether the storage is there: the checkpoint that begins the backup is still to come. Any role with `REPLICATION`
    /// may name a target that does not refuse it.
    ///
    /// # Errors
    /// Why there will be no backup.
    fn check_detail(
        process: Process,
        requester: Requester<'_>,
        detail: Option<&str>,
    ) -> Result<Self::Detail, Failure>;

    /// Begins a backup: the checkpoint is done, the files follow.
    ///
    /// # Errors
    /// What ends the backup.
    fn begin(
        process: Process,
        detail: Self::Detail,
        start: &BackupStart,
    ) -> Result<Box<dyn BackupSink>, Failure>;
}

/// One base backup on its way to where it is kept.
///
/// The files come one after the other: a tar archive for each tablespace, `base.tar`, which ends with the WAL if that was
/// asked for, and the manifest unless it was not. Then [`BackupSink::end_backup`] and, if all is well,
/// [`BackupSink::commit`].
///
/// A sink that is dropped without that has failed, in itself or elsewhere: nothing that it has stored may be taken for a
/// backup. It may not be dropped at all, when the process is killed or ends in the middle of a call: so nothing may depend
/// on `Drop`, which may remove what is left and may not call the server.
///
/// Whatever a method answers with `Err`, and a panic, ends the backup and is an ERROR that the client gets.
pub trait BackupSink {
    /// The next file begins.
    ///
    /// # Errors
    /// What ends the backup.
    fn begin_file(&mut self, process: Process, file: &BackupFile) -> Result<(), Failure>;

    /// The next bytes of the file: never none, at most 32 kB as the server sends them.
    ///
    /// # Errors
    /// What ends the backup.
    fn contents(&mut self, process: Process, bytes: &[u8]) -> Result<(), Failure>;

    /// The file is complete.
    ///
    /// # Errors
    /// What ends the backup.
    fn end_file(&mut self, process: Process) -> Result<(), Failure>;

    /// All files are complete. This is not success yet: if the checksum of a page is wrong, the server says so only now,
    /// and the sink is dropped.
    ///
    /// # Errors
    /// What ends the backup.
    fn end_backup(&mut self, process: Process, end: &BackupEnd) -> Result<(), Failure>;

    /// The server has found nothing wrong: makes a backup of what was stored. The client is told of success only after
    /// this, and of a failure here as of any other.
    ///
    /// A [`crate::Task`] whose [`crate::Task::join`] gives up goes on, and may publish the backup after that. So once
    /// publishing may have begun, `Drop` has to leave alone what was stored, and a failure means that it is not known
    /// whether there is a backup.
    ///
    /// # Errors
    /// Why there is no backup, or why that is not known.
    fn commit(self: Box<Self>, process: Process) -> Result<(), Failure>;
}

/// What is known when a backup begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupStart {
    /// Where replay will have to begin.
    pub lsn: Lsn,
    /// The timeline there.
    pub timeline: TimelineId,
    /// About how many bytes will come, without WAL; known if the client asked for
    /// progress.
    pub bytes_estimated: Option<u64>,
}

/// What is known when all files of a backup are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupEnd {
    /// Where the backup becomes consistent.
    pub lsn: Lsn,
    /// The timeline there.
    pub timeline: TimelineId,
}

/// A file of a base backup, by the name that the server gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFile {
    name: String,
    content: BackupContent,
}

/// What is in a file of a base backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupContent {
    /// The tablespace with this OID, as a tar archive.
    Tablespace(u32),
    /// The data directory, as a tar archive.
    DataDirectory,
    /// The manifest.
    Manifest,
}

impl BackupFile {
    /// The manifest, under the name that the server's own target gives it (basebackup_server.c, 15 to 19).
    #[must_use]
    pub fn manifest() -> Self {
        Self {
            name: "backup_manifest".to_owned(),
            content: BackupContent::Manifest,
        }
    }

    /// An archive, by the server's name for it: `base.tar`, or an OID and `.tar` (basebackup.c, 15 to 19).
    ///
    /// # Errors
    /// When it is another name, as archives have that the server has compressed (`base.tar.zst`): its own compression need not
    /// pass on the end of a backup (lz4 and zstd do not, 15 to 19, nor does gzip of 19rc1), so that no target could tell
    /// success from failure.
    pub fn archive(name: &str) -> Result<Self, Failure> {
        let content = match name.split_once('.') {
            Some(("base", "tar")) => Some(BackupContent::DataDirectory),
            Some((oid, "tar")) if oid.bytes().all(|byte| byte.is_ascii_digit()) => {
                oid.parse().ok().map(BackupContent::Tablespace)
            }
            Some((_, "tar.gz" | "tar.lz4" | "tar.zst")) => {
                return Err(Failure::new(format!(
                    "archive {name:?} has been compressed by the server, which this target does not take"
                ))
                .detail("Behind its own compression the server need not tell a target whether a base backup has succeeded.")
                .hint("Leave out --compress of pg_basebackup."));
            }
            _ => None,
        };
        let content = content.ok_or_else(|| {
            Failure::new(format!(
                "{name:?} is not the name of an archive of a base backup"
            ))
        })?;
        Ok(Self {
            name: name.to_owned(),
            content,
        })
    }

    /// Its name: `base.tar`, `16384.tar`, `backup_manifest`. Has no slash.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is in it.
    #[must_use]
    pub fn content(&self) -> BackupContent {
        self.content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_the_servers_names_and_by_no_others() {
        for (name, content) in [
            ("base.tar", BackupContent::DataDirectory),
            ("16384.tar", BackupContent::Tablespace(16384)),
            ("4294967295.tar", BackupContent::Tablespace(u32::MAX)),
        ] {
            let file = BackupFile::archive(name).unwrap();
            assert_eq!((file.name(), file.content()), (name, content));
        }
        for name in [
            "",
            ".tar",
            "base",
            "base.tar.",
            "base.tar.xz",
            "../base.tar",
            "+1.tar",
            "4294967296.tar",
            "a/b.tar",
            "base.tar\n",
        ] {
            let failure = BackupFile::archive(name).unwrap_err();
            assert!(failure.message.contains("is not the name"), "{name}");
        }
    }

    #[test]
    fn what_the_server_has_compressed_is_refused_with_the_cure() {
        for name in ["base.tar.gz", "16384.tar.lz4", "base.tar.zst"] {
            let failure = BackupFile::archive(name).unwrap_err();
            assert!(failure.message.contains(name), "{failure:?}");
            assert!(failure.hint.is_some_and(|hint| hint.contains("--compress")));
        }
    }
}
