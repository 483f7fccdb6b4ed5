//! Running programs: as the right operating system user, in a known environment, against a deadline.
//!
//! Guarantees that a program that outlives its deadline is killed, and that output is collected
//! without pipes, so that a left-over grandchild cannot hold a test back.
//! Leaves to the caller what to think of the exit status.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::wait::DEADLINE;

/// What a program left behind.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Outcome {
    /// Its standard output, when it succeeded.
    ///
    /// # Errors
    ///
    /// When it did not; the message carries the status and both outputs.
    pub fn success(self) -> Result<String> {
        if !self.status.success() {
            bail!("{}; it said: {}{}", self.status, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

/// Runs a program to its end, for at most [`DEADLINE`].
///
/// # Errors
///
/// When it cannot be started, or is still running at the deadline (it is killed then).
pub fn run(command: &mut Command) -> Result<Outcome> {
    run_for(command, DEADLINE)
}

/// Runs a program to its end, for at most `deadline`.
///
/// # Errors
///
/// As [`run`].
pub fn run_for(command: &mut Command, deadline: Duration) -> Result<Outcome> {
    let mut stdout = tempfile::tempfile()?;
    let mut stderr = tempfile::tempfile()?;
    let mut child = command
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()
        .with_context(|| format!("could not start {command:?}"))?;
    let status = wait_for_exit(&mut child, deadline)?;
    let (stdout, stderr) = (read_back(&mut stdout)?, read_back(&mut stderr)?);
    let Some(status) = status else {
        child.kill()?;
        child.wait()?;
        bail!(
            "{command:?} was still running after {} s; it said: {stdout}{stderr}",
            deadline.as_secs()
        );
    };
    Ok(Outcome {
        status,
        stdout,
        stderr,
    })
}

/// Waits for a child's end; `None` when it is still running at the deadline.
pub(crate) fn wait_for_exit(child: &mut Child, deadline: Duration) -> Result<Option<ExitStatus>> {
    let begun = Instant::now();
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_sub(begun.elapsed());
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into()?,
            tv_nsec: 0,
        };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() >= deadline {
            return Ok(None);
        }
    }
}

fn read_back(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The operating system user that servers run as; `None` when that is who runs the tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerUser(Option<(u32, u32)>);

impl ServerUser {
    /// Finds out: `postgres` for root, the user itself otherwise.
    pub(crate) fn find() -> Result<ServerUser> {
        if !rustix::process::geteuid().is_root() {
            return Ok(ServerUser(None));
        }
        let accounts = std::fs::read_to_string("/etc/passwd")?;
        let mut line = accounts
            .lines()
            .find(|line| line.starts_with("postgres:"))
            .context("there is no user \"postgres\" to run servers as: install PostgreSQL")?
            .split(':')
            .skip(2);
        let mut next = || anyhow::Ok(line.next().context("short line in /etc/passwd")?.parse()?);
        Ok(ServerUser(Some((next()?, next()?))))
    }

    /// Gives a file to this user.
    pub(crate) fn own(self, path: &Path) -> Result<()> {
        if let ServerUser(Some((uid, gid))) = self {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .with_context(|| format!("could not chown \"{}\"", path.display()))?;
        }
        Ok(())
    }

    /// A command that runs `program` as this user and dies with the thread that started it: a server
    /// then shuts down at once (SIGQUIT is the immediate shutdown), also when the tests are killed.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        if let ServerUser(Some((uid, gid))) = self {
            command
                .arg(format!("--reuid={uid}"))
                .arg(format!("--regid={gid}"))
                .arg("--clear-groups");
        }
        command
            .arg("--pdeathsig=QUIT")
            .arg("--")
            .arg(program)
            .stdin(Stdio::null());
        command
    }
}
