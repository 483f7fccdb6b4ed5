//! Archives finished WAL files into a directory.

mod store;

use module::settings::{About, StringSetting};
use module::{ArchiveModule, Archived, Failure, Module, OrFail, Process, WalFileName};
use std::path::Path;

static DIRECTORY: StringSetting = StringSetting::new(
    About::reload(
        c"my_archive.directory",
        c"Sets the directory that WAL files are kept in.",
    ),
    c"",
);

struct MyArchive;

impl Module for MyArchive {
    fn startup(_: Process) -> Result<Self, Failure> {
        Ok(MyArchive)
    }
}

impl ArchiveModule for MyArchive {
    fn check_configured(&mut self, process: Process) -> Result<(), Failure> {
        match DIRECTORY.get(process).as_str() {
            "" => Err(Failure::new("\"my_archive.directory\" is not set")),
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
        store::put(path, Path::new(&directory), &file.to_string()).or_fail(format_args!(
            "could not keep file \"{file}\" in \"{directory}\""
        ))?;
        Ok(Archived::Durably)
    }
}

module::export! {
    settings: [DIRECTORY],
    archive: MyArchive,
}
