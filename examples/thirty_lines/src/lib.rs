//! A whole archive module: copies finished WAL files into a directory, and never overwrites one.

use module::settings::{About, StringSetting};
use module::{ArchiveModule, Archived, Failure, Module, OrFail, Process, WalFileName};
use std::fs::{self, File};
use std::{io, path::Path};

static DIRECTORY: StringSetting = StringSetting::new(
    About::reload(c"thirty_lines.directory", c"Sets where WAL files are kept."),
    c"",
);

/// What the module keeps from its startup to its shutdown.
struct ThirtyLines {
    archived: u64,
}

impl Module for ThirtyLines {
    fn startup(_: Process) -> Result<Self, Failure> {
        Ok(ThirtyLines { archived: 0 })
    }
}

impl ArchiveModule for ThirtyLines {
    fn check_configured(&mut self, process: Process) -> Result<(), Failure> {
        match DIRECTORY.get(process).as_str() {
            "" => Err(Failure::new("\"thirty_lines.directory\" is not set")),
            _ => Ok(()),
        }
    }

    fn archive_file(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
    ) -> Result<Archived, Failure> {
        let directory = DIRECTORY.get(process);
        keep(path, Path::new(&directory), &file.to_string())
            .or_fail(format_args!("could not keep \"{file}\" in \"{directory}\""))?;
        self.archived += 1;
        Ok(Archived::Durably) // the server may recycle the file from here on
    }
}

fn keep(path: &Path, directory: &Path, name: &str) -> io::Result<()> {
    let (staged, kept) = (directory.join("staged"), directory.join(name));
    // What a killed attempt left may be linked already, so it is removed and not written into.
    let _ = fs::remove_file(&staged);
    fs::copy(path, &staged)?;
    sync(&staged)?;
    // Unlike a rename, a link replaces nothing. The same file may come again; then it has to be equal.
    match fs::hard_link(&staged, &kept) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Err(error) if fs::read(&kept)? != fs::read(&staged)? => return Err(error),
        _ => {}
    }
    fs::remove_file(&staged)?;
    sync(&kept)?;
    sync(directory)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

module::export! { settings: [DIRECTORY], archive: ThirtyLines, }
