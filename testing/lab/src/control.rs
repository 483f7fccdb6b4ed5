//! Starting and stopping a cluster's server.
//!
//! Guarantees that only the postmaster started here is ever signalled, by its own process id, and that
//! a stop returns when the last of its processes is gone. Reads the server's state from
//! `postmaster.pid`, as `pg_ctl` does (`AddToDataDirLockFile`, line `LOCK_FILE_LINE_PM_STATUS`, 10 and
//! later).

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::process::{Process, descendants, signal_pid};
use crate::program::wait_for_exit;
use crate::wait::{DEADLINE, wait_until};

/// How long a server may take to vanish when its cluster is dropped, before it is killed.
const DROP_DEADLINE: Duration = Duration::from_secs(20);

/// The server's two ways of shutting down that the tests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Disconnect clients, archive what is left, write a shutdown checkpoint.
    Fast,
    /// Leave at once; the next start recovers.
    Immediate,
}

impl Shutdown {
    fn signal(self) -> Signal {
        match self {
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
        }
    }
}

impl Cluster<'_> {
    /// Starts the server and waits until it takes connections (read-only ones in recovery).
    ///
    /// # Errors
    ///
    /// When it ends instead, or gets stuck.
    pub fn start(&self) -> Result<()> {
        self.launch()?;
        wait_until("the server to take connections", || {
            self.check_running()?;
            Ok(matches!(
                self.state()?.as_deref(),
                Some("ready" | "standby")
            ))
        })
    }

    /// Starts the server without waiting for anything.
    ///
    /// # Errors
    ///
    /// When the program cannot be started, or was already.
    pub fn launch(&self) -> Result<()> {
        let mut postmaster = self
            .postmaster
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if postmaster.is_some() {
            bail!("the server was started already");
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let mut command = self.lab.server_command("postgres");
        command
            .arg("-D")
            .arg(self.configuration())
            .stdout(log.try_clone()?)
            .stderr(log);
        *postmaster = Some(command.spawn().context("could not start the server")?);
        Ok(())
    }

    /// Starts the server, which must refuse, and answers with what it logged.
    ///
    /// # Errors
    ///
    /// When it does not end by itself with a failure.
    pub fn start_refused(&self) -> Result<String> {
        let mark = self.mark()?;
        self.launch()?;
        let status = self.wait_for_end()?;
        if status.success() {
            bail!("the server was to refuse, but ended with {status}");
        }
        self.log(mark)
    }

    /// Waits until the server has ended by itself.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn wait_for_end(&self) -> Result<ExitStatus> {
        let family = descendants(self.pid()?)?;
        self.wait_for_end_of(&family)
    }

    /// Signals the postmaster and waits until it and all its processes are gone.
    fn end_by(&self, signal: Signal) -> Result<ExitStatus> {
        // Before the signal: orphans cannot be found by their parent any more.
        let family = descendants(self.pid()?)?;
        signal_pid(self.pid()?, signal)?;
        self.wait_for_end_of(&family)
    }

    fn wait_for_end_of(&self, family: &[Process]) -> Result<ExitStatus> {
        let mut postmaster = self
            .postmaster
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let child = postmaster.as_mut().context("the server is not running")?;
        let status =
            wait_for_exit(child, DEADLINE)?.context("the server was to end, but runs on")?;
        *postmaster = None;
        wait_until("the server's processes to end", || {
            Ok(!family.iter().any(Process::is_alive))
        })?;
        Ok(status)
    }

    /// Stops the server; answers with how long that took.
    ///
    /// # Errors
    ///
    /// When it is not running, or does not end, or not with success.
    pub fn stop(&self, how: Shutdown) -> Result<Duration> {
        let begun = Instant::now();
        let status = self.end_by(how.signal())?;
        let took = begun.elapsed();
        // After an immediate shutdown a postmaster may say so with status 1.
        if !status.success() && how == Shutdown::Fast {
            bail!("the shut-down server ended with {status}");
        }
        Ok(took)
    }

    /// Kills the postmaster with SIGKILL and waits until every process of the server is gone.
    ///
    /// # Errors
    ///
    /// When it is not running, or a process stays.
    pub fn kill(&self) -> Result<()> {
        let status = self.end_by(Signal::KILL)?;
        if status.signal().is_none() {
            bail!("the killed server ended with {status}");
        }
        Ok(())
    }

    /// Has the server read its configuration again.
    pub(crate) fn signal_reload(&self) -> Result<()> {
        signal_pid(self.pid()?, Signal::HUP)
    }

    /// The postmaster's process id.
    ///
    /// # Errors
    ///
    /// When the server was not started, or has been stopped.
    pub fn pid(&self) -> Result<u32> {
        let postmaster = self
            .postmaster
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(postmaster
            .as_ref()
            .context("the server is not running")?
            .id())
    }

    /// Whether the server still runs.
    ///
    /// # Errors
    ///
    /// When its process cannot be asked.
    pub fn is_running(&self) -> Result<bool> {
        let mut postmaster = self
            .postmaster
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(match postmaster.as_mut() {
            Some(child) => child.try_wait()?.is_none(),
            None => false,
        })
    }

    /// Fails when the server has ended.
    pub(crate) fn check_running(&self) -> Result<()> {
        if !self.is_running()? {
            bail!("the server has ended");
        }
        Ok(())
    }

    /// Whether the server says that it takes connections, read-only ones included.
    ///
    /// # Errors
    ///
    /// When the server was not started, or has been stopped.
    pub fn takes_connections(&self) -> Result<bool> {
        Ok(matches!(
            self.state()?.as_deref(),
            Some("ready" | "standby")
        ))
    }

    /// What the server says of itself: `starting`, `ready`, `standby`, `stopping`.
    fn state(&self) -> Result<Option<String>> {
        let Ok(text) = fs::read_to_string(self.data().join("postmaster.pid")) else {
            return Ok(None);
        };
        let mut lines = text.lines();
        // The file of a killed predecessor lies there until the new postmaster has looked at it.
        if lines.next() != Some(self.pid()?.to_string().as_str()) {
            return Ok(None);
        }
        Ok(lines.nth(6).map(|state| state.trim().to_owned()))
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        let postmaster = self
            .postmaster
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(mut child) = postmaster.take() else {
            return;
        };
        // A destructor cannot report it: a server that cannot be stopped politely is killed.
        let family = descendants(child.id()).unwrap_or_default();
        let _ = signal_pid(child.id(), Signal::QUIT);
        if !matches!(wait_for_exit(&mut child, DROP_DEADLINE), Ok(Some(_))) {
            let _ = child.kill();
            let _ = child.wait();
        }
        // A process that a test stopped with SIGSTOP cannot answer its server's SIGQUIT.
        for process in family.iter().filter(|process| process.is_alive()) {
            let _ = process.signal(Signal::KILL);
        }
    }
}
