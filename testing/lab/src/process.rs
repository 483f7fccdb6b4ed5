//! Looking at processes through `/proc`, and sending them signals.
//!
//! Guarantees that only processes below a given one are ever found, so that a test cannot hit another
//! test's server. Leaves to the caller that a process may be gone by the time it is signalled.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// One process, as it was when looked at.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its process id.
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

/// Every live process below `ancestor`, in no order.
pub(crate) fn descendants(ancestor: u32) -> Result<Vec<Process>> {
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
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
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
