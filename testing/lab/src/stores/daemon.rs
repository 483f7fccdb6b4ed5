//! One running store: a process group with an output file.
//!
//! Guarantees that the whole group is gone when this is dropped, stopped (SIGSTOP) or not, that nothing else is ever
//! signalled, and that it dies with the tests. Leaves to its user when it is ready.

use std::fs::{File, read_to_string};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::log::tail;
use crate::process::{descendants, wait_until_stopped};
use crate::program::wait_for_exit;

/// How long a store may take to end when asked to; then it is killed, and that is a failure.
const STOP_MAX: Duration = Duration::from_secs(60);

/// How many lines of its output a failure shows.
const TAIL_LINES: usize = 40;

/// A store's process and its children.
pub(super) struct Daemon {
    child: Child,
    output: PathBuf,
}

impl Daemon {
    /// Starts a command that is made to die with the thread that starts it; its output is appended to a file.
    pub(super) fn start(mut command: Command, output: &Path) -> Result<Daemon> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(output)
            .with_context(|| format!("could not open \"{}\"", output.display()))?;
        let child = command
            .process_group(0)
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("could not start {command:?}"))?;
        Ok(Daemon {
            child,
            output: output.to_owned(),
        })
    }

    /// Fails when it has ended by itself, with the end of its output.
    pub(super) fn ensure_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("it ended, {status}; it said: {}", self.last_words());
        }
        Ok(())
    }

    /// Sends a signal to all of it.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        match kill_process_group(Pid::from_child(&self.child), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).context("could not signal a store"),
        }
    }

    /// Stops all of it (SIGSTOP), and answers once no thread of it runs any more.
    pub(super) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let first = self.child.id();
        let below = descendants(first)?.into_iter().map(|process| process.pid);
        std::iter::once(first)
            .chain(below)
            .try_for_each(wait_until_stopped)
    }

    /// Ends it with this signal, and waits for its end.
    pub(super) fn stop(mut self, signal: Signal) -> Result<()> {
        self.signal(Signal::CONT)?;
        self.signal(signal)?;
        if wait_for_exit(&mut self.child, STOP_MAX)?.is_none() {
            let said = self.last_words();
            bail!(
                "still running {} s after it was told to stop; it said: {said}",
                STOP_MAX.as_secs()
            );
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        tail(
            &read_to_string(&self.output).unwrap_or_default(),
            TAIL_LINES,
        )
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Not reaped yet, or reaped without children left: the group's number is not used again.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
