//! The place a scenario works in: a directory of its own, and an [`Installation`]'s programs.
//!
//! Guarantees that scenarios share nothing but read-only templates and programs, and that everything
//! is removed with the last scenario that uses it (kept when `WALDEN_TEST_KEEP` is set).
//! `WALDEN_TEST_SEED` is the seed of tests that choose moments at random, `WALDEN_TEST_ARCHIVE_JOBS` how many files
//! Walden archives at once.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};

use crate::archive_dir::ArchiveDir;
use crate::installation::Installation;
use crate::process::Process;
use crate::program::run;
use crate::settings::Settings;
use crate::timing::timed;

/// How many lines of each server's log a failure shows.
const TAIL_LINES: usize = 60;

/// How long Walden tries before an attempt counts as failed: tests that wait for failures wait for several.
const ARCHIVE_TIMEOUT: &str = "5s";

/// Runs a scenario in a [`Lab`] of its own; what it fails with is joined by the servers' logs.
///
/// # Errors
///
/// When the lab cannot be set up, and whatever the scenario fails with.
pub fn scenario(body: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let lab = Lab::new()?;
    match timed(|| catch_unwind(AssertUnwindSafe(|| body(&lab)))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(anyhow!("{error:#}\n{}", lab.log_tails())),
        Err(panic) => {
            // Through the macro, so that the test runner shows it with the test that failed.
            #[expect(clippy::print_stderr, reason = "the test runner collects it")]
            {
                eprintln!("{}", lab.log_tails());
            }
            resume_unwind(panic)
        }
    }
}

/// The seed of this run's random choices: `WALDEN_TEST_SEED`, else a fresh one. Tests print it.
///
/// # Errors
///
/// When the variable is not a number.
pub fn seed() -> Result<u64> {
    match std::env::var("WALDEN_TEST_SEED") {
        Ok(text) => text.parse().context("WALDEN_TEST_SEED is not a number"),
        Err(_) => Ok(fastrand::u64(..)),
    }
}

/// A scenario's own directory and programs.
pub struct Lab {
    installation: Arc<Installation>,
    dir: PathBuf,
}

impl Lab {
    /// Makes a lab of the installation that the environment names.
    ///
    /// # Errors
    ///
    /// As [`Installation::of_environment`], or when the directory cannot be made.
    pub fn new() -> Result<Lab> {
        Lab::of(Installation::of_environment()?)
    }

    /// Makes a lab of this installation.
    ///
    /// # Errors
    ///
    /// When its directory cannot be made.
    pub fn of(installation: Arc<Installation>) -> Result<Lab> {
        let lab = Lab {
            dir: installation.next_lab(),
            installation,
        };
        lab.directory("")?;
        Ok(lab)
    }

    /// The server and libraries it works with.
    #[must_use]
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The lab's own directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a directory of this name in the lab, which belongs to the servers' user.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::create_dir(&path)
            .with_context(|| format!("could not create \"{}\"", path.display()))?;
        self.own(&path)?;
        Ok(path)
    }

    /// Makes an empty archive directory.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn archive(&self, name: &str) -> Result<ArchiveDir> {
        Ok(ArchiveDir::new(self.directory(name)?))
    }

    /// Settings of a plain server, without Walden.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings::base(&self.installation.library_dir())
    }

    /// Settings of a server with Walden preloaded, which archives through it: as many files at once as
    /// `WALDEN_TEST_ARCHIVE_JOBS` says, by default as many as Walden's own default.
    ///
    /// # Errors
    ///
    /// When Walden is not built.
    pub fn walden_settings(&self, archive: &ArchiveDir) -> Result<Settings> {
        self.walden_settings_at(&archive.text())
    }

    /// The same for an archive anywhere: a value of `walden.archive`.
    ///
    /// # Errors
    ///
    /// As [`Lab::walden_settings`].
    pub fn walden_settings_at(&self, location: &str) -> Result<Settings> {
        self.require_library("walden")?;
        let settings = self
            .settings()
            .with("shared_preload_libraries", "walden")
            .with("archive_mode", "on")
            .with("archive_library", "walden")
            .with("walden.archive", location)
            .with("walden.archive_timeout", ARCHIVE_TIMEOUT);
        Ok(match std::env::var("WALDEN_TEST_ARCHIVE_JOBS") {
            Ok(jobs) if !jobs.is_empty() => settings.with("walden.archive_jobs", &jobs),
            _ => settings,
        })
    }

    /// Checks that a library was built, so that a test fails with this and not with a server's riddle.
    ///
    /// # Errors
    ///
    /// When it was not, nor comes with the server.
    pub fn require_library(&self, name: &str) -> Result<()> {
        ensure!(
            self.installation.has_library(name)?,
            "{name}.so was not built: run `make build`, or set WALDEN_LIB_DIR"
        );
        Ok(())
    }

    /// One of PostgreSQL's programs, or any other on PATH, run as the servers' user.
    #[must_use]
    pub fn server_command(&self, program: &str) -> Command {
        self.installation.server_command(program)
    }

    /// One of PostgreSQL's programs, or any other on PATH (`walden` is), run as the user who runs the tests.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.installation.command(program)
    }

    /// The bytes of a file, out of an archive, as `walden restore` brings it.
    ///
    /// # Errors
    ///
    /// When it cannot be restored.
    pub fn fetch(&self, archive: &ArchiveDir, name: &str) -> Result<Vec<u8>> {
        self.fetch_with(archive, name, &[])
    }

    /// The same, with more flags for `walden restore`.
    ///
    /// # Errors
    ///
    /// As [`Lab::fetch`].
    pub fn fetch_with(&self, archive: &ArchiveDir, name: &str, flags: &[&str]) -> Result<Vec<u8>> {
        let folder = tempfile::tempdir_in(self.dir()).context("could not make a directory")?;
        let dest = folder.path().join(name);
        let mut command = self.command("walden");
        command
            .args(["restore", "-A"])
            .arg(archive.path())
            .args(flags);
        run(command.arg(name).arg(&dest))?
            .success()
            .with_context(|| format!("could not fetch \"{name}\""))?;
        Ok(fs::read(&dest)?)
    }

    /// Lets a process of the servers' user have this many bytes of memory more than it has, and refuses it the rest: what it
    /// asks for beyond fails.
    ///
    /// # Errors
    ///
    /// When it is gone, or the kernel refuses.
    pub fn limit_memory(&self, process: &Process, more: u64) -> Result<()> {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid))?;
        let data = status.lines().find_map(|line| line.strip_prefix("VmData:"));
        let data = data.and_then(|rest| rest.split_whitespace().next());
        let data: u64 = data.context("no VmData in a process's status")?.parse()?;
        let mut command = self.server_command("prlimit");
        command.arg(format!("--pid={}", process.pid));
        run(command.arg(format!("--data={}", data * 1024 + more)))?
            .success()
            .with_context(|| format!("could not limit process {}", process.pid))?;
        Ok(())
    }

    /// Gives a file to the servers' user.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn own(&self, path: &Path) -> Result<()> {
        self.installation.user().own(path)
    }

    /// Makes a data directory with the segment size, of one system identifier for the whole run.
    pub(crate) fn copy_template(&self, data: &Path, segment_mb: u32) -> Result<()> {
        self.copy(&self.installation.template(segment_mb)?, data)
    }

    /// Makes a data directory with a system identifier of its own.
    pub(crate) fn initialise(&self, data: &Path, segment_mb: u32) -> Result<()> {
        self.installation.initdb(data, segment_mb)
    }

    /// Copies a directory tree with owners and times, as the servers' user.
    ///
    /// # Errors
    ///
    /// When `cp` fails.
    pub fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        run(self.server_command("cp").arg("-a").arg(from).arg(to))?.success()?;
        Ok(())
    }

    /// The ends of all logs in the lab.
    fn log_tails(&self) -> String {
        let mut tails = String::new();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if let Ok(log) = fs::read(entry.path().join("log")) {
                // What waiting tests provoke says nothing of why they waited.
                let log: String = String::from_utf8_lossy(&log)
                    .split_inclusive('\n')
                    .filter(|line| !line.contains("FATAL:  the database system is "))
                    .collect();
                let name = entry.file_name();
                tails.push_str(&format!(
                    "--- end of the log of {} ---\n",
                    name.to_string_lossy()
                ));
                tails.push_str(&crate::log::tail(&log, TAIL_LINES));
                tails.push('\n');
            }
        }
        tails
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::env::var_os("WALDEN_TEST_KEEP").is_none() {
            // What cannot be removed now goes, or stays, with the run's directory.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
