//! One session with a server, through the server's own `psql`: so passwords, services, certificates and everything else of
//! libpq are where its users have them.
//!
//! Guarantees: no answer is waited for longer than a deadline, nor read beyond a bound; the session ends with this value.
//! Left to others: what is asked.

use archive::{Error, ErrorKind, printable};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the server may take to let us in, in seconds: libpq's `connect_timeout`, if nothing else is set.
const CONNECT_S: &str = "3";

/// How long the server may take for one answer.
const STATEMENT_TIMEOUT: &str = "3s";

/// How long an answer is waited for, the connecting included: less than a scraper waits for us, which is 10 s by default.
pub(crate) const ANSWER_WAIT_MAX: Duration = Duration::from_secs(7);

/// The longest answer, in bytes. One of ours has some 20 kB.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The longest text of an error, in bytes.
const ERROR_BYTES_MAX: u64 = 4096;

/// What follows an answer; no line of JSON is like it.
const END: &str = "-- end of the answer --";

/// A session.
pub(crate) struct Psql {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    errors: Arc<Mutex<String>>,
}

impl Psql {
    /// Starts one, as another user if one is given; whether the server lets it in shows at the first question.
    ///
    /// # Errors
    /// When `psql` cannot be run.
    pub(crate) fn start(conninfo: &str, user: Option<(u32, u32)>) -> Result<Psql, Error> {
        let mut command = Command::new(program());
        command.args(["-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-d"]);
        command.arg(conninfo);
        if let Some((user, group)) = user {
            // Its own working directory may be closed to that user.
            command.uid(user).gid(group).current_dir("/");
        }
        if std::env::var_os("PGCONNECT_TIMEOUT").is_none() {
            command.env("PGCONNECT_TIMEOUT", CONNECT_S);
        }
        command.env("PGAPPNAME", "walden");
        // Messages are looked for in no other language, and numbers are written in no other way.
        command.env("LC_ALL", "C");
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.map_err(|cause| {
            Error::io("could not run \"psql\"", cause).with_hint(
                "Install the client programs of PostgreSQL, or put their directory into PATH.",
            )
        })?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = pipes else {
            return Err(Error::new(ErrorKind::Unavailable, "psql has no pipes"));
        };
        let said = Arc::new(Mutex::new(String::new()));
        let mut session = Psql {
            child,
            input,
            lines: read_lines(output),
            errors: Arc::clone(&said),
        };
        std::thread::spawn(move || keep_start(errors, &said));
        session.send(&format!("set statement_timeout = '{STATEMENT_TIMEOUT}';"))?;
        Ok(session)
    }

    /// Asks, and waits for the answer: what `psql` prints without headings.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, or does not answer in time; the session is then of no more use.
    pub(crate) fn ask(&mut self, query: &str) -> Result<String, Error> {
        self.send(&format!("{query};\n\\echo {END}"))?;
        let deadline = Instant::now() + ANSWER_WAIT_MAX;
        let mut answer = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line == END => return Ok(answer),
                Ok(line) => {
                    if !answer.is_empty() {
                        answer.push('\n');
                    }
                    answer.push_str(&line);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = ANSWER_WAIT_MAX.as_secs();
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        format!("the server has not answered within {seconds} s"),
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.why()),
            }
        }
    }

    fn send(&mut self, text: &str) -> Result<(), Error> {
        let sent = writeln!(self.input, "{text}").and_then(|()| self.input.flush());
        // A session that has ended has said why.
        sent.map_err(|_| self.why())
    }

    /// Why the session has ended.
    fn why(&mut self) -> Error {
        // It has closed its output, so it is about to end, and its errors are all there then.
        drop(self.child.wait());
        let said = self
            .errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let first = said.lines().find(|line| !line.trim().is_empty());
        let first = first.unwrap_or("psql ended without a word");
        let first = first
            .trim_start_matches("psql: ")
            .trim_start_matches("error: ");
        let error = Error::new(
            ErrorKind::Unavailable,
            format!("could not ask the server: {}", printable(first)),
        );
        if said.contains("authentication failed") || said.contains("does not exist") {
            return error.with_hint(
                "Run this as the server's user, or name a role of pg_monitor with -d; passwords belong into ~/.pgpass.",
            );
        }
        if said.contains("permission denied") {
            return error.with_hint("Make the role a member of pg_monitor.");
        }
        error
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Beside this program, which is installed with the server's; else wherever PATH has it.
fn program() -> PathBuf {
    let here = std::env::current_exe().ok();
    let beside = here.and_then(|here| Some(here.parent()?.join("psql")));
    match beside {
        Some(psql) if psql.is_file() => psql,
        _ => PathBuf::from("psql"),
    }
}

/// Sends each line of the output, until it ends or is too long.
fn read_lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = sync_channel(16);
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        loop {
            let mut line = Vec::new();
            let read = (&mut output)
                .take(ANSWER_BYTES_MAX)
                .read_until(b'\n', &mut line);
            if !read.is_ok_and(|bytes| bytes > 0) || line.pop() != Some(b'\n') {
                return;
            }
            let line = String::from_utf8_lossy(&line).into_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Keeps the beginning of what is said, and reads the rest away.
fn keep_start(errors: impl Read, said: &Mutex<String>) {
    let mut errors = BufReader::new(errors);
    let mut line = Vec::new();
    while (&mut errors)
        .take(ERROR_BYTES_MAX)
        .read_until(b'\n', &mut line)
        .is_ok_and(|bytes| bytes > 0)
    {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if (said.len() as u64) < ERROR_BYTES_MAX {
            said.push_str(&String::from_utf8_lossy(&line));
        }
        line.clear();
    }
}
