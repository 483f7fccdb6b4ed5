//! The place a scenario works in: a directory of its own, PostgreSQL's programs, and Walden laid out
//! under a private prefix.
//!
//! Guarantees that scenarios share nothing but read-only templates and programs, and that everything
//! is removed with the last scenario that uses it (kept when `WALDEN_TEST_KEEP` is set).
//! Leaves to the environment where things are:
//!
//! * `WALDEN_PG_BINDIR`: PostgreSQL's programs, by default `/usr/lib/postgresql/15/bin`;
//! * `WALDEN_LIB_DIR`: the directory with `libwalden.so`, `walden` and the test modules, by default the
//!   one that cargo built this very program in;
//! * `WALDEN_TEST_SEED`: the seed of tests that choose moments at random.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;

use crate::archive_dir::ArchiveDir;
use crate::program::{ServerUser, run};
use crate::settings::Settings;

/// Debian's place for PostgreSQL 15.
const PG_BIN_DIR: &str = "/usr/lib/postgresql/15/bin";

/// How many lines of each server's log a failure shows.
const TAIL_LINES: usize = 60;

/// Runs a scenario in a [`Lab`] of its own; what it fails with is joined by the servers' logs.
///
/// # Errors
///
/// When the lab cannot be set up, and whatever the scenario fails with.
pub fn scenario(body: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let lab = Lab::new()?;
    match catch_unwind(AssertUnwindSafe(|| body(&lab))) {
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

/// What all scenarios of one program share.
struct Run {
    dir: TempDir,
    user: ServerUser,
    pg_bin_dir: PathBuf,
    artifacts: PathBuf,
    templates: Mutex<HashMap<u32, PathBuf>>,
    labs: AtomicU32,
}

impl Run {
    /// The run that is under way, or a new one.
    fn current() -> Result<Arc<Run>> {
        // Weak, so that the directory goes with the last lab: a test program has no other end to tie
        // it to, since statics are never dropped.
        static CURRENT: Mutex<Weak<Run>> = Mutex::new(Weak::new());
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = current.upgrade() {
            return Ok(run);
        }
        let run = Arc::new(Run::new()?);
        *current = Arc::downgrade(&run);
        Ok(run)
    }

    fn new() -> Result<Run> {
        let pg_bin_dir = match std::env::var("WALDEN_PG_BINDIR") {
            Ok(dir) if !dir.is_empty() => PathBuf::from(dir),
            _ => PathBuf::from(PG_BIN_DIR),
        };
        if !pg_bin_dir.join("postgres").exists() {
            bail!(
                "there is no PostgreSQL server in \"{}\": run `make prerequisites` as root, \
                 or set WALDEN_PG_BINDIR",
                pg_bin_dir.display()
            );
        }
        // Directly below /tmp: the path of a socket must stay below 108 bytes, and the servers' user
        // must be able to walk there.
        let mut dir = tempfile::Builder::new()
            .prefix("walden-")
            .tempdir_in("/tmp")?;
        dir.disable_cleanup(std::env::var_os("WALDEN_TEST_KEEP").is_some());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let user = ServerUser::find()?;
        user.own(dir.path())?;
        let run = Run {
            artifacts: artifacts_dir()?,
            dir,
            user,
            pg_bin_dir,
            templates: Mutex::default(),
            labs: AtomicU32::new(0),
        };
        run.lay_out_prefix()?;
        Ok(run)
    }

    /// Puts copies of what cargo built where an installation would have them, so that `walden.so`
    /// finds its client the way it will for users.
    fn lay_out_prefix(&self) -> Result<()> {
        let (lib, bin) = (
            self.dir.path().join("prefix/lib"),
            self.dir.path().join("prefix/bin"),
        );
        fs::create_dir_all(&lib)?;
        fs::create_dir_all(&bin)?;
        for entry in fs::read_dir(&self.artifacts)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if let Some(library) = name
                .strip_prefix("lib")
                .filter(|name| name.ends_with(".so"))
            {
                fs::copy(&path, lib.join(library))?;
            } else if name == "walden" {
                fs::copy(&path, bin.join(name))?;
            }
        }
        Ok(())
    }

    /// An initialised data directory to copy: `initdb` takes seconds, `cp` does not.
    fn template(&self, segment_mb: u32) -> Result<PathBuf> {
        let mut templates = self
            .templates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = templates.get(&segment_mb) {
            return Ok(path.clone());
        }
        let path = self.dir.path().join(format!("template-{segment_mb}MB"));
        self.initdb(&path, segment_mb)?;
        templates.insert(segment_mb, path.clone());
        Ok(path)
    }

    fn initdb(&self, data: &Path, segment_mb: u32) -> Result<()> {
        let mut command = self.server_command("initdb");
        command
            .arg("-D")
            .arg(data)
            .args(["-U", "postgres", "-A", "trust", "--no-sync"]);
        command.args(["--locale=C", "--encoding=UTF8", "--data-checksums"]);
        command.arg(format!("--wal-segsize={segment_mb}"));
        run(&mut command)?.success().context("initdb failed")?;
        Ok(())
    }

    fn server_command(&self, program: &str) -> Command {
        let mut command = self.user.command(&self.program(program));
        self.environment(&mut command);
        command
    }

    /// A bare name is one of PostgreSQL's programs or found on PATH by the system.
    fn program(&self, name: &str) -> PathBuf {
        let path = self.pg_bin_dir.join(name);
        if path.exists() {
            path
        } else {
            PathBuf::from(name)
        }
    }

    fn environment(&self, command: &mut Command) {
        let own_path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        let bin = self.dir.path().join("prefix/bin");
        command
            .env_clear()
            .env(
                "PATH",
                format!("{}:{}:{own_path}", bin.display(), self.pg_bin_dir.display()),
            )
            .env("HOME", self.dir.path())
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
    }
}

/// Where cargo put the libraries and programs: beside this test program, or where the user says.
fn artifacts_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("WALDEN_LIB_DIR") {
        return Ok(dir.into());
    }
    let mut dir = std::env::current_exe()?;
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    Ok(dir)
}

/// A scenario's own directory and programs.
pub struct Lab {
    run: Arc<Run>,
    dir: PathBuf,
}

impl Lab {
    /// Makes a lab; the first of a program lays out the prefix too.
    ///
    /// # Errors
    ///
    /// When PostgreSQL is missing (it is never skipped), or a directory cannot be made.
    pub fn new() -> Result<Lab> {
        let run = Run::current()?;
        let number = run.labs.fetch_add(1, Ordering::Relaxed);
        let lab = Lab {
            dir: run.dir.path().join(number.to_string()),
            run,
        };
        lab.directory("")?;
        Ok(lab)
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
        Settings::base(&self.run.dir.path().join("prefix/lib"))
    }

    /// Settings of a server with Walden preloaded, which archives through it.
    ///
    /// # Errors
    ///
    /// When Walden is not built.
    pub fn walden_settings(&self, archive: &ArchiveDir) -> Result<Settings> {
        self.require_library("walden")?;
        Ok(self
            .settings()
            .with("shared_preload_libraries", "walden")
            .with("archive_mode", "on")
            .with("archive_library", "walden")
            .with("walden.archive", &archive.text()))
    }

    /// Checks that a library was built, so that a test fails with this and not with a server's riddle.
    ///
    /// # Errors
    ///
    /// When it was not.
    pub fn require_library(&self, name: &str) -> Result<()> {
        let (so, bin) = (format!("lib/{name}.so"), "bin/walden");
        for file in [so.as_str(), bin] {
            if !self.run.dir.path().join("prefix").join(file).exists() {
                bail!(
                    "{file} was not built in \"{}\": run `make build`, or set WALDEN_LIB_DIR",
                    self.run.artifacts.display()
                );
            }
        }
        Ok(())
    }

    /// One of PostgreSQL's programs, or any other on PATH, run as the servers' user.
    #[must_use]
    pub fn server_command(&self, program: &str) -> Command {
        self.run.server_command(program)
    }

    /// One of PostgreSQL's programs, or any other on PATH (`walden` is), run as whoever runs the tests.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.run.program(program));
        self.run.environment(&mut command);
        command
    }

    /// Gives a file to the servers' user.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        self.run.user.own(path)
    }

    /// Makes a data directory with the segment size, of one system identifier for the whole run.
    pub(crate) fn copy_template(&self, data: &Path, segment_mb: u32) -> Result<()> {
        self.copy(&self.run.template(segment_mb)?, data)
    }

    /// Makes a data directory with a system identifier of its own.
    pub(crate) fn initialise(&self, data: &Path, segment_mb: u32) -> Result<()> {
        self.run.initdb(data, segment_mb)
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
