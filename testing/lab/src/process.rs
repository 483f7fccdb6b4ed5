//! Looking at processes through `/proc`, and sending them signals.
//!
//! Guarantees that only processes below a given one are ever found, so that a test cannot hit another
//! test's server. Leaves to the caller that a process may be gone by the time it is signalled.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::wait_until;

/// One process, as it was when looked at.
#[derive(Clone, Debug)]
pub struct Process {
    /// The process id.
    pub pid: u32,
    /// Its command line; for a server process the title that `ps` shows.
    pub title: String,
}

impl Process {
    /// Sends it a signal; a process that is gone already is no error.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal_pid(self.pid, signal)
    }

    /// Stops it (SIGSTOP), and answers once no thread of it runs any more. SIGCONT lets it go on.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or a thread still runs at the [deadline](crate::DEADLINE).
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        wait_until_stopped(self.pid)
    }

    /// Whether it is still there, a zombie that waits for its parent counting as gone.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|(_, state)| state != "Z")
    }
}

/// Sends a signal; a process that is gone already is no error.
pub(crate) fn signal_pid(pid: u32, signal: Signal) -> Result<()> {
    let id = Pid::from_raw(pid.try_into()?).context("process id 0")?;
    match kill_process(id, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("could not signal process {pid}")),
    }
}

/// Waits until no thread of a process runs that was sent SIGSTOP; one that is gone has stopped too.
///
/// The signal stops whichever thread takes it up first, and this one stops the others: on a busy machine they go on for
/// long enough to answer a request.
pub(crate) fn wait_until_stopped(pid: u32) -> Result<()> {
    let threads = format!("/proc/{pid}/task");
    wait_until(&format!("process {pid} to stop"), || {
        let Ok(entries) = fs::read_dir(&threads) else {
            return Ok(true);
        };
        // Traced ones ("t"), dead ones ("X") and zombies ("Z") run no more either.
        let runs = |thread: fs::DirEntry| {
            let state = state_in(&thread.path().join("stat"));
            state.is_some_and(|(_, state)| !["T", "t", "X", "Z"].contains(&state.as_str()))
        };
        Ok(!entries.flatten().any(runs))
    })
}

/// Every live process below `ancestor`, in no order.
///
/// # Errors
///
/// When `/proc` cannot be read.
pub fn descendants(ancestor: u32) -> Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Some((parent, state)) = stat(pid) else {
            continue;
        };
        if state != "Z" {
            all.push((pid, parent));
        }
    }
    let mut family = vec![ancestor];
    let mut found = Vec::new();
    while let Some(parent) = family.pop() {
        for (pid, _) in all.iter().filter(|(_, its)| *its == parent) {
            family.push(*pid);
            found.push(Process {
                pid: *pid,
                title: title(*pid),
            });
        }
    }
    Ok(found)
}

/// Parent and state letter of a process, from `/proc/PID/stat`.
fn stat(pid: u32) -> Option<(u32, String)> {
    state_in(Path::new(&format!("/proc/{pid}/stat")))
}

fn state_in(file: &Path) -> Option<(u32, String)> {
    let line = fs::read_to_string(file).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let (_, rest) = line.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.to_owned();
    Some((fields.next()?.parse().ok()?, state))
}

fn title(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .replace('\0', " ")
        .trim()
        .to_owned()
}
