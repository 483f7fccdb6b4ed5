//! A throwaway database cluster: its files, its configuration, its SQL.
//!
//! Guarantees that its server is reachable through a socket in the lab only, and that the configuration
//! file holds exactly the settings given. Starting and stopping is `control.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::log::{Entry, Mark, entries, read, size};
use crate::process::{Process, descendants};
use crate::program::{Outcome, run, run_for};
use crate::settings::Settings;
use crate::wait::{DEADLINE, wait_for, wait_until};

pub use crate::control::Shutdown;

/// A database cluster in a lab, running or not. Dropped, its server is stopped.
pub struct Cluster<'lab> {
    pub(crate) lab: &'lab Lab,
    home: PathBuf,
    settings: Mutex<Settings>,
    /// Where its configuration is, if that is not in the data directory.
    configuration: Mutex<Option<PathBuf>>,
    pub(crate) postmaster: Mutex<Option<Child>>,
}

impl Lab {
    /// A new cluster, not started. All clusters of one segment size share their system identifier.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn cluster(&self, name: &str, segment_mb: u32, settings: Settings) -> Result<Cluster<'_>> {
        let cluster = self.empty_cluster(name, settings)?;
        self.copy_template(&cluster.data(), segment_mb)?;
        cluster.write_settings()?;
        Ok(cluster)
    }

    /// A new cluster with a system identifier of its own, not started.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn foreign_cluster(
        &self,
        name: &str,
        segment_mb: u32,
        settings: Settings,
    ) -> Result<Cluster<'_>> {
        let cluster = self.empty_cluster(name, settings)?;
        self.initialise(&cluster.data(), segment_mb)?;
        cluster.write_settings()?;
        Ok(cluster)
    }

    /// A cluster whose data directory is a copy of a base backup, not started.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn restored(&self, name: &str, backup: &Path, settings: Settings) -> Result<Cluster<'_>> {
        let cluster = self.empty_cluster(name, settings)?;
        self.copy(backup, &cluster.data())?;
        cluster.write_settings()?;
        Ok(cluster)
    }

    fn empty_cluster(&self, name: &str, settings: Settings) -> Result<Cluster<'_>> {
        let home = self.directory(name)?;
        let settings = settings.with("unix_socket_directories", &home.display().to_string());
        Ok(Cluster {
            lab: self,
            home,
            settings: Mutex::new(settings),
            configuration: Mutex::default(),
            postmaster: Mutex::default(),
        })
    }
}

impl Cluster<'_> {
    /// Keeps a copy of the data directory for [`Cluster::begin_anew`], in the place of an earlier one.
    ///
    /// # Errors
    ///
    /// When it cannot be copied.
    pub fn keep(&self) -> Result<()> {
        if self.kept().exists() {
            fs::remove_dir_all(self.kept())?;
        }
        self.lab.copy(&self.data(), &self.kept())
    }

    /// Stops the server at once, puts back the data directory that was kept, and forgets the log.
    ///
    /// # Errors
    ///
    /// When the server cannot be stopped, or the files cannot be replaced.
    pub fn begin_anew(&self) -> Result<()> {
        self.stop(Shutdown::Immediate)?;
        fs::remove_dir_all(self.data())?;
        self.lab.copy(&self.kept(), &self.data())?;
        fs::remove_file(self.log_path())?;
        Ok(())
    }

    fn kept(&self) -> PathBuf {
        self.home.join("kept")
    }

    /// Path of the data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// The directory that holds the data directory, the socket and the log.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A copy of its settings, as a base for another cluster's.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes settings in the configuration file; a running server sees them after a reload.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        change(&mut self.settings.lock().unwrap_or_else(PoisonError::into_inner));
        self.write_settings()
    }

    /// Changes settings in the configuration file and tells the server.
    ///
    /// # Errors
    ///
    /// When the file cannot be written or the server not told.
    pub fn reload(&self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        self.configure(change)?;
        self.signal_reload()
    }

    /// Moves the configuration into a directory of its own, from which the server is started from now on.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn move_configuration(&self) -> Result<()> {
        let directory = self.home.join("configuration");
        fs::create_dir(&directory)?;
        self.lab.own(&directory)?;
        fs::remove_file(self.data().join("postgresql.conf"))?;
        *self
            .configuration
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(directory);
        let data = self.data();
        let file = |name: &str| data.join(name).display().to_string();
        self.configure(|settings| {
            settings.set("data_directory", &data.display().to_string());
            settings.set("hba_file", &file("pg_hba.conf"));
            settings.set("ident_file", &file("pg_ident.conf"));
        })
    }

    /// What the server is started with: its configuration's directory.
    pub(crate) fn configuration(&self) -> PathBuf {
        let apart = self
            .configuration
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        apart.clone().unwrap_or_else(|| self.data())
    }

    fn write_settings(&self) -> Result<()> {
        let path = self.configuration().join("postgresql.conf");
        // In one step: a process that still carries out the last reload must not read half a file, in which
        // `archive_library` is not set, say.
        let staged = path.with_extension("staged");
        fs::write(&staged, self.settings().render())
            .with_context(|| format!("could not write \"{}\"", staged.display()))?;
        self.lab.own(&staged)?;
        fs::rename(&staged, &path)
            .with_context(|| format!("could not replace \"{}\"", path.display()))
    }

    /// Makes an empty file in the data directory, e.g. `recovery.signal` or `standby.signal`.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn touch(&self, name: &str) -> Result<()> {
        let path = self.data().join(name);
        fs::write(&path, "")?;
        self.lab.own(&path)
    }

    /// Runs SQL in the database `postgres`, each statement in a transaction of its own; answers with
    /// the rows, columns separated by `|`.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses a statement.
    pub fn sql(&self, text: &str) -> Result<String> {
        let outcome = self.psql("postgres", text)?;
        let answer = outcome
            .success()
            .with_context(|| format!("psql failed with {text:?}"))?;
        Ok(answer.trim_end().to_owned())
    }

    /// Runs SQL in any database and answers with what psql did, failures included.
    ///
    /// # Errors
    ///
    /// When psql cannot be run.
    pub fn psql(&self, database: &str, text: &str) -> Result<Outcome> {
        let input = self.home.join("input.sql");
        fs::write(&input, text)?;
        let mut command = self.client("psql");
        command.args([
            "-X",
            "-A",
            "-t",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            database,
        ]);
        run(command.stdin(Stdio::from(fs::File::open(&input)?)))
    }

    /// A client program with the connection options for this server.
    #[must_use]
    pub fn client(&self, program: &str) -> std::process::Command {
        let mut command = self.lab.command(program);
        command.arg("-h").arg(&self.home).args(["-U", "postgres"]);
        command
    }

    /// Runs `pgbench` with these further arguments on the database `postgres`.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn pgbench(&self, arguments: &[&str]) -> Result<()> {
        run(self.client("pgbench").args(arguments).arg("postgres"))?
            .success()
            .context("pgbench failed")?;
        Ok(())
    }

    /// Takes a base backup without WAL: what it needs must come from the archive.
    ///
    /// # Errors
    ///
    /// When `pg_basebackup` fails; it waits for the archive, at most five minutes.
    pub fn base_backup(&self, name: &str) -> Result<PathBuf> {
        let path = self.home.join(name);
        let mut command = self.lab.server_command("pg_basebackup");
        command
            .arg("-h")
            .arg(&self.home)
            .args(["-U", "postgres", "-D"])
            .arg(&path);
        command.args(["-X", "none", "-c", "fast", "--no-sync"]);
        run_for(&mut command, Duration::from_secs(300))?
            .success()
            .context("pg_basebackup failed")?;
        Ok(path)
    }

    /// Ends the current segment and answers with its name.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub fn switch_segment(&self) -> Result<String> {
        self.sql("select pg_walfile_name(pg_switch_wal())")
    }

    /// Ends the current segment and waits until everything is archived; answers with its name.
    ///
    /// # Errors
    ///
    /// When the server refuses or the archiver does not get there.
    pub fn archive_everything(&self) -> Result<String> {
        let last = self.switch_segment()?;
        self.wait_until_archived()?;
        Ok(last)
    }

    /// Waits until the archiver has nothing left to do.
    ///
    /// # Errors
    ///
    /// When it does not get there, or the server has ended.
    pub fn wait_until_archived(&self) -> Result<()> {
        wait_until("no .ready file left", || {
            self.check_running()?;
            Ok(self.ready()?.is_empty())
        })
    }

    /// The files that wait to be archived, sorted.
    ///
    /// # Errors
    ///
    /// When the directory cannot be listed.
    pub fn ready(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.data().join("pg_wal/archive_status"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(name.strip_suffix(".ready").map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// The value of one of the columns of `pg_stat_archiver`, empty for null.
    ///
    /// # Errors
    ///
    /// When the server cannot be asked.
    pub fn archiver(&self, column: &str) -> Result<String> {
        self.sql(&format!("select {column} from pg_stat_archiver"))
    }

    /// How many failed attempts `pg_stat_archiver` counts.
    ///
    /// # Errors
    ///
    /// When the server cannot be asked.
    pub fn archive_failures(&self) -> Result<u64> {
        Ok(self.archiver("failed_count")?.parse()?)
    }

    /// Waits until a query answers with `expected`; while the server does not answer, it waits too.
    ///
    /// # Errors
    ///
    /// When that does not come, or the server has ended.
    pub fn wait_for_sql(&self, query: &str, expected: &str) -> Result<()> {
        let mut last = String::new();
        wait_until(&format!("{query:?} to answer {expected:?}"), || {
            self.check_running()?;
            if !self.takes_connections()? {
                return Ok(false);
            }
            let outcome = self.psql("postgres", query)?;
            last = format!("{}{}", outcome.stdout, outcome.stderr);
            Ok(outcome.status.success() && outcome.stdout.trim_end() == expected)
        })
        .with_context(|| format!("the last answer was {last:?}"))
    }

    /// Waits until recovery has ended and the server takes writes.
    ///
    /// # Errors
    ///
    /// When that does not come, or the server has ended.
    pub fn wait_until_promoted(&self) -> Result<()> {
        self.wait_for_sql("select pg_is_in_recovery()", "f")
    }

    /// The end of the log so far.
    ///
    /// # Errors
    ///
    /// When its size cannot be read.
    pub fn mark(&self) -> Result<Mark> {
        size(&self.log_path())
    }

    /// The log's text since a mark.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn log(&self, since: Mark) -> Result<String> {
        read(&self.log_path(), since)
    }

    /// The log's messages since a mark that hold all of `words`.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn logged(&self, since: Mark, words: &[&str]) -> Result<Vec<Entry>> {
        let mut found = entries(&self.log(since)?);
        found.retain(|entry| entry.has(words));
        Ok(found)
    }

    /// Waits for a message since a mark that holds all of `words`, and answers with the first.
    ///
    /// # Errors
    ///
    /// When none comes.
    pub fn wait_for_log(&self, since: Mark, words: &[&str]) -> Result<Entry> {
        wait_for(&format!("a message with {words:?}"), DEADLINE, || {
            Ok(self.logged(since, words)?.into_iter().next())
        })
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.home.join("log")
    }

    /// The processes below this server whose title or command line holds `what`.
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read, or the server is not running.
    pub fn processes(&self, what: &str) -> Result<Vec<Process>> {
        let mut found = descendants(self.pid()?)?;
        found.retain(|process| process.title.contains(what));
        Ok(found)
    }

    /// Waits for a process below this server whose title or command line holds `what`.
    ///
    /// # Errors
    ///
    /// When none comes, or the server has ended.
    pub fn wait_for_process(&self, what: &str) -> Result<Process> {
        wait_for(&format!("a process with {what:?}"), DEADLINE, || {
            self.check_running()?;
            Ok(self.processes(what)?.into_iter().next())
        })
    }
}
