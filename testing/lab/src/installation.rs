//! A PostgreSQL installation that labs are made from: its programs, and beside them, under a private
//! prefix, the libraries and programs under test.
//!
//! Guarantees that nothing is installed into the server's own directories, and that the prefix is removed
//! with the last lab made from it (kept when `WALDEN_TEST_KEEP` is set). Leaves to [`crate::Lab`] the
//! directories that scenarios work in.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::program::{ServerUser, run};

/// Debian's place for PostgreSQL 15.
const PG_BIN_DIR: &str = "/usr/lib/postgresql/15/bin";

/// Where labs are by default: a short path, which the servers' user can walk.
const PLACE: &str = "/tmp";

/// A server's programs and a private prefix beside them.
pub struct Installation {
    dir: TempDir,
    user: ServerUser,
    pg_bin_dir: PathBuf,
    version: Version,
    templates: Mutex<HashMap<u32, PathBuf>>,
    labs: AtomicU32,
}

/// What a server says of its version.
#[derive(Clone, Debug)]
struct Version {
    text: String,
    major: u32,
}

impl Installation {
    /// The installation that the environment names, shared by all labs of this program:
    ///
    /// * `WALDEN_PG_BINDIR`: PostgreSQL's programs, by default `/usr/lib/postgresql/15/bin`;
    /// * `WALDEN_LIB_DIR`: the directory with `libwalden.so`, our programs and the test modules, by default the
    ///   one that cargo built this very program in.
    ///
    /// # Errors
    ///
    /// When PostgreSQL is missing (it is never skipped), or the prefix cannot be made.
    pub fn of_environment() -> Result<Arc<Installation>> {
        // Weak, so that the directory goes with the last lab: a test program has no other end to tie
        // it to, since statics are never dropped.
        static CURRENT: Mutex<Weak<Installation>> = Mutex::new(Weak::new());
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(installation) = current.upgrade() {
            return Ok(installation);
        }
        let pg_bin_dir = match std::env::var("WALDEN_PG_BINDIR") {
            Ok(dir) if !dir.is_empty() => PathBuf::from(dir),
            _ => PathBuf::from(PG_BIN_DIR),
        };
        let installation = Installation::new(&pg_bin_dir)?;
        installation.add_built(&artifacts_dir()?)?;
        let installation = Arc::new(installation);
        *current = Arc::downgrade(&installation);
        Ok(installation)
    }

    /// The server whose programs are in this directory, with nothing beside it yet.
    ///
    /// # Errors
    ///
    /// When there is no server, or the prefix cannot be made.
    pub fn new(pg_bin_dir: &Path) -> Result<Installation> {
        Installation::below(pg_bin_dir, Path::new(PLACE))
    }

    /// As [`Installation::new`], with everything below this directory, whose path has to be short (that of a
    /// socket must stay below 108 bytes) and open to the servers' user, e.g. `/dev/shm` for speed.
    ///
    /// # Errors
    ///
    /// As [`Installation::new`].
    pub fn below(pg_bin_dir: &Path, place: &Path) -> Result<Installation> {
        if !pg_bin_dir.join("postgres").exists() {
            bail!(
                "there is no PostgreSQL server in \"{}\": run `make prerequisites` as root, \
                 or name the directory of another",
                pg_bin_dir.display()
            );
        }
        let mut dir = tempfile::Builder::new()
            .prefix("walden-")
            .tempdir_in(place)
            .with_context(|| format!("could not make a directory in \"{}\"", place.display()))?;
        dir.disable_cleanup(std::env::var_os("WALDEN_TEST_KEEP").is_some());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let user = ServerUser::find()?;
        user.own(dir.path())?;
        let installation = Installation {
            dir,
            user,
            version: Version::ask(&pg_bin_dir.join("postgres"))?,
            pg_bin_dir: pg_bin_dir.to_owned(),
            templates: Mutex::default(),
            labs: AtomicU32::new(0),
        };
        fs::create_dir_all(installation.library_dir())?;
        fs::create_dir_all(installation.bin_dir())?;
        Ok(installation)
    }

    /// The server's major version, e.g. 15.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.version.major
    }

    /// The server's version as it says it itself, e.g. `15.10 (Debian 15.10-0+deb12u1)`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version.text
    }

    /// The directory of the server's programs.
    #[must_use]
    pub fn pg_bin_dir(&self) -> &Path {
        &self.pg_bin_dir
    }

    /// The directory that servers look for libraries in first.
    #[must_use]
    pub fn library_dir(&self) -> PathBuf {
        self.dir.path().join("prefix/lib")
    }

    fn bin_dir(&self) -> PathBuf {
        self.dir.path().join("prefix/bin")
    }

    /// What the server's `pg_config` answers to one of its options, e.g. `--pkglibdir`.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub fn pg_config(&self, option: &str) -> Result<PathBuf> {
        let answer = run(Command::new(self.pg_bin_dir.join("pg_config")).arg(option))?;
        Ok(PathBuf::from(answer.success()?.trim()))
    }

    /// Puts a copy of a library where servers look first, under this name without `.so`.
    ///
    /// # Errors
    ///
    /// When it cannot be copied.
    pub fn add_library(&self, name: &str, file: &Path) -> Result<()> {
        copy(file, &self.library_dir().join(format!("{name}.so")))
    }

    /// Puts a copy of a program on the servers' PATH, in the `bin` beside the libraries' `lib`.
    ///
    /// # Errors
    ///
    /// When it cannot be copied.
    pub fn add_program(&self, file: &Path) -> Result<()> {
        copy(
            file,
            &self.bin_dir().join(file.file_name().unwrap_or_default()),
        )
    }

    /// Lays out all libraries that cargo built in a directory, and our programs, as an installation
    /// would have them, so that `walden.so` finds its client the way it will for users.
    fn add_built(&self, artifacts: &Path) -> Result<()> {
        for entry in fs::read_dir(artifacts)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let library = name
                .strip_prefix("lib")
                .and_then(|name| name.strip_suffix(".so"));
            if let Some(library) = library {
                self.add_library(library, &path)?;
            } else if name == "walden" || name == "walden-conformance" {
                self.add_program(&path)?;
            }
        }
        Ok(())
    }

    /// Whether a library of this name was laid out here or comes with the server.
    ///
    /// # Errors
    ///
    /// When the server cannot be asked.
    pub fn has_library(&self, name: &str) -> Result<bool> {
        let file = format!("{name}.so");
        Ok(self.library_dir().join(&file).exists()
            || self.pg_config("--pkglibdir")?.join(&file).exists())
    }

    /// A directory of its own for one more lab.
    pub(crate) fn next_lab(&self) -> PathBuf {
        let number = self.labs.fetch_add(1, Ordering::Relaxed);
        self.dir.path().join(number.to_string())
    }

    pub(crate) fn user(&self) -> ServerUser {
        self.user
    }

    /// An initialised data directory to copy: `initdb` takes seconds, `cp` does not.
    pub(crate) fn template(&self, segment_mb: u32) -> Result<PathBuf> {
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

    pub(crate) fn initdb(&self, data: &Path, segment_mb: u32) -> Result<()> {
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

    /// One of PostgreSQL's programs, or any other on PATH, run as the servers' user.
    pub(crate) fn server_command(&self, program: &str) -> Command {
        let mut command = self.user.command(&self.program(program));
        self.environment(&mut command);
        command
    }

    /// One of PostgreSQL's programs, or any other on PATH, run as the user who runs this.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.program(program));
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
        let (bin, pg_bin) = (self.bin_dir(), &self.pg_bin_dir);
        command
            .env_clear()
            .env(
                "PATH",
                format!("{}:{}:{own_path}", bin.display(), pg_bin.display()),
            )
            .env("HOME", self.dir.path())
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
    }
}

impl Version {
    /// Asks `postgres --version`, which answers e.g. `postgres (PostgreSQL) 18.6`.
    fn ask(postgres: &Path) -> Result<Version> {
        let answer = run(Command::new(postgres).arg("--version"))?.success()?;
        let text = answer
            .trim()
            .rsplit_once("(PostgreSQL) ")
            .map(|(_, version)| version.to_owned())
            .with_context(|| format!("{answer:?} names no version"))?;
        let major = text
            .split(|letter: char| !letter.is_ascii_digit())
            .next()
            .and_then(|digits| digits.parse().ok())
            .with_context(|| format!("{text:?} is no version"))?;
        Ok(Version { text, major })
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| {
        format!(
            "could not copy \"{}\" to \"{}\"",
            from.display(),
            to.display()
        )
    })?;
    Ok(())
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
