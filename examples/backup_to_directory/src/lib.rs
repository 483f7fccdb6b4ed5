//! A whole base backup target: `pg_basebackup -X fetch --target=directory:NAME` makes a folder of tar archives.

use module::settings::{About, StringSetting};
use module::{BackupEnd, BackupFile, BackupSink, BackupStart, BackupTarget};
use module::{Failure, OrFail, Process, Requester};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::{ffi::CStr, io::Write, process};

static DIRECTORY: StringSetting = StringSetting::new(
    About::reload(
        c"backup_to_directory.directory",
        c"Sets where base backups are kept.",
    ),
    c"",
);

struct Directory;

impl BackupTarget for Directory {
    const NAME: &'static CStr = c"directory";
    type Detail = PathBuf;

    fn check_detail(
        process: Process,
        _: Requester<'_>,
        detail: Option<&str>,
    ) -> Result<PathBuf, Failure> {
        let directory = usable(&DIRECTORY.get(process))?;
        let name = detail.unwrap_or_default();
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(
                Failure::new(format!("{name:?} cannot be the name of a backup"))
                    .hint("Give one after the colon: letters, digits, \"-\" and \"_\"."),
            );
        }
        let kept = directory.join(name);
        if kept.symlink_metadata().is_ok() {
            let failure = format!("\"{}\" is there already", kept.display());
            return Err(Failure::new(failure).hint("Give another name after the colon."));
        }
        Ok(kept)
    }

    fn begin(
        _: Process,
        kept: PathBuf,
        start: &BackupStart,
    ) -> Result<Box<dyn BackupSink>, Failure> {
        // Of this process and backup alone: another may be under way, even under the same name, and a killed one leaves its own.
        let unfinished = format!("{:016X}.{}.partial", start.lsn.0, process::id());
        let staged = kept.with_extension(unfinished);
        fs::create_dir(&staged)
            .or_fail(format_args!("could not create \"{}\"", staged.display()))?;
        let file =
            File::open(&staged).or_fail(format_args!("could not open \"{}\"", staged.display()))?;
        Ok(Box::new(Backup { staged, kept, file }))
    }
}

/// Where backups are kept, if they can be: a base backup takes along whatever lies in the data directory.
fn usable(directory: &str) -> Result<PathBuf, Failure> {
    const NAME: &str = "\"backup_to_directory.directory\"";
    if directory.is_empty() {
        return Err(Failure::new(format!("{NAME} is not set")));
    }
    let path = Path::new(directory);
    if !path.is_absolute() {
        return Err(Failure::new(format!("{NAME} is not absolute"))
            .hint(format!("Set {NAME} to an absolute path.")));
    }
    fs::read_dir(path).or_fail(format_args!("could not look into \"{directory}\""))?;
    let whole = |path: &Path| {
        fs::canonicalize(path).or_fail(format_args!("could not resolve \"{}\"", path.display()))
    };
    // A server process works in its data directory (miscinit.c, ChangeToDataDir, 15 to 19).
    if whole(path)?.starts_with(whole(Path::new("."))?) {
        return Err(Failure::new(format!("{NAME} lies in the data directory"))
            .hint(format!("Set {NAME} to a directory elsewhere.")));
    }
    Ok(path.to_owned())
}

struct Backup {
    staged: PathBuf,
    kept: PathBuf,
    file: File,
}

impl BackupSink for Backup {
    fn begin_file(&mut self, _: Process, file: &BackupFile) -> Result<(), Failure> {
        let path = self.staged.join(file.name());
        self.file = File::create_new(&path)
            .or_fail(format_args!("could not create \"{}\"", path.display()))?;
        Ok(())
    }

    fn contents(&mut self, _: Process, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).or_fail(format_args!(
            "could not write below \"{}\"",
            self.staged.display()
        ))
    }

    fn end_file(&mut self, _: Process) -> Result<(), Failure> {
        self.file.sync_all().or_fail(format_args!(
            "could not sync below \"{}\"",
            self.staged.display()
        ))
    }

    fn end_backup(&mut self, _: Process, _: &BackupEnd) -> Result<(), Failure> {
        sync(&self.staged)
    }

    fn commit(self: Box<Self>, _: Process) -> Result<(), Failure> {
        // It replaces nothing: a directory with something in it is not renamed over.
        let shown = self.kept.display();
        fs::rename(&self.staged, &self.kept)
            .or_fail(format_args!("could not name the backup \"{shown}\""))?;
        self.kept.parent().map_or(Ok(()), sync)
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.staged); // not there any more if it has been named
    }
}

fn sync(directory: &Path) -> Result<(), Failure> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.or_fail(format_args!("could not sync \"{}\"", directory.display()))
}

module::export! { settings: [DIRECTORY], backup_target: Directory, }
