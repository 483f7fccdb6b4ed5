//! Modules in C made for one test: `tests/modules/plain.c`, compiled by it.
//!
//! Guarantees that a module is found by its name by the servers of its lab alone, and that it needs no server
//! header, so that every major is tested alike. What it does, and how it can be made to misbehave, is in the
//! source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use lab::{ArchiveDir, Lab, Settings, run};

/// A module of a lab, built.
pub(crate) struct CModule {
    name: String,
    folder: PathBuf,
    /// Where it keeps files.
    pub(crate) archive: ArchiveDir,
}

impl CModule {
    /// Builds a module for the server under test.
    pub(crate) fn build(lab: &Lab, name: &str) -> Result<CModule> {
        Self::build_as(lab, name, lab.installation().major(), &[])
    }

    /// Builds a module for a major, with these switches of the source.
    pub(crate) fn build_as(lab: &Lab, name: &str, major: u32, switches: &[&str]) -> Result<Self> {
        let folder = lab.directory(&format!("{name}-library"))?;
        let archive = lab.archive(name)?;
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]);
        compile.args(["-Wno-unused-function", "-Wno-unused-parameter"]);
        compile.arg(format!("-DMAJOR={major}"));
        compile.arg(format!("-DNAME=\"{name}\""));
        compile.arg(format!("-DDIRECTORY=\"{}\"", archive.text()));
        compile.args(switches.iter().map(|switch| format!("-D{switch}")));
        compile.arg("-I").arg(tests.join("../crates/abi/include"));
        compile.arg("-o").arg(folder.join(format!("{name}.so")));
        compile.arg(tests.join("modules/plain.c"));
        run(&mut compile)?
            .success()
            .context("could not build plain.c")?;
        Ok(Self {
            name: name.to_owned(),
            folder,
            archive,
        })
    }

    /// The library's file.
    pub(crate) fn found_at(&self) -> PathBuf {
        self.folder.join(format!("{}.so", self.name))
    }

    /// The settings with which a server finds this module too.
    pub(crate) fn found_with(&self, settings: Settings) -> Settings {
        let path = settings.get("dynamic_library_path").unwrap_or_default();
        let path = format!("{}:{path}", self.folder.display());
        settings.with("dynamic_library_path", &path)
    }

    /// Makes it misbehave: `false`, `error`, `unset`, `hang`, `start`, `wait` or `crash`.
    pub(crate) fn misbehave(&self, mode: &str) -> Result<()> {
        // Renamed into place, so that the module never reads half a word.
        let staged = self.folder.join("mode");
        fs::write(&staged, mode)?;
        Ok(fs::rename(staged, self.mode_file())?)
    }

    /// Makes it behave again.
    pub(crate) fn behave(&self) -> Result<()> {
        Ok(fs::remove_file(self.mode_file())?)
    }

    fn mode_file(&self) -> PathBuf {
        PathBuf::from(format!("{}.mode", self.archive.text()))
    }

    /// What it said, in order: the lines of a log that begin with its name, without it.
    pub(crate) fn said<'log>(&self, log: &'log str) -> Vec<&'log str> {
        let start = format!("{}: ", self.name);
        log.lines()
            .filter_map(|line| line.strip_prefix(start.as_str()))
            .map(str::trim_end)
            .collect()
    }

    /// How often it was handed this file to archive.
    pub(crate) fn times_asked(&self, log: &str, file: &str) -> usize {
        let asked = format!("is asked to archive {file}");
        self.said(log).iter().filter(|line| **line == asked).count()
    }
}
