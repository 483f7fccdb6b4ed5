//! Long work is shown while it goes on: a line that moves on a terminal, plain lines now and then elsewhere.
//!
//! Guarantees: nothing is shown of short work, nothing stays on a terminal afterwards, and it all goes to standard error,
//! so that what a command prints is the same with and without. A message comes out whole: see [`apart`]. A command that a
//! server runs shows nothing on a terminal, not even the one that the server was started from: it is not in that
//! terminal's foreground. Left to others: what is counted, and who wants plain lines at all.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Work that is done by then is short.
const SHORT_MAX: Duration = Duration::from_secs(1);

/// How often a line on a terminal moves.
const MOVES_EVERY: Duration = Duration::from_millis(100);

/// How often there is a plain line: a log should not be full of them.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// The letters of a bar.
const BAR_LETTERS: u64 = 30;

/// What turns in a line of work whose end is not known.
const TURNS: [char; 4] = ['-', '\\', '|', '/'];

/// To the beginning of the line, and away with what is there.
const ANEW: &str = "\r\x1b[K";

/// Whether there is a line on the terminal now. The holder of the lock writes alone.
static SHOWN: Mutex<bool> = Mutex::new(false);

/// Where work is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    /// On a terminal, and in plain lines elsewhere.
    Everywhere,
    /// Only if standard error is a terminal.
    OnTerminal,
}

/// Shows that work goes on, until it is dropped.
pub(crate) struct Progress {
    work: Arc<Work>,
    /// Dropped to end the thread.
    ends: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What is known of the work.
struct Work {
    begun: Instant,
    doing: Mutex<String>,
    found: AtomicU64,
    /// How many there are; 0 while that is not known.
    total: AtomicU64,
}

impl Progress {
    /// Begins to watch; `doing` says what is done, as in "listing".
    pub(crate) fn start(doing: &str, place: Where) -> Progress {
        let work = Arc::new(Work {
            begun: Instant::now(),
            doing: Mutex::new(doing.to_owned()),
            found: AtomicU64::new(0),
            total: AtomicU64::new(0),
        });
        let mut progress = Progress {
            work: Arc::clone(&work),
            ends: None,
            thread: None,
        };
        let on_terminal = is_watched();
        if on_terminal || place == Where::Everywhere {
            let (ends, ended) = channel();
            let show = move || {
                if on_terminal {
                    on_terminal_until(&work, &ended)
                } else {
                    in_lines_until(&work, &ended, PLAIN_EVERY, &mut io::stderr())
                }
            };
            // Without a thread there is nothing to see, which is no reason to fail.
            progress.thread = std::thread::Builder::new().spawn(show).ok();
            progress.ends = Some(ends);
        }
        progress
    }

    /// From here on something else is done.
    pub(crate) fn doing(&self, doing: impl Into<String>) {
        *lock(&self.work.doing) = doing.into();
    }

    /// So many files have been found.
    pub(crate) fn found(&self, files: u64) {
        self.work.found.store(files, Ordering::Relaxed);
    }

    /// So many files are done, of so many.
    pub(crate) fn done(&self, files: u64, total: u64) {
        self.work.total.store(total, Ordering::Relaxed);
        self.found(files);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.ends.take();
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell but a panic, which has been told.
            drop(thread.join());
        }
    }
}

impl Work {
    /// `listing the archive, 2000 files, 12 s`
    fn in_words(&self) -> String {
        let total = self.total.load(Ordering::Relaxed);
        let files = match self.found.load(Ordering::Relaxed) {
            0 => String::new(),
            files if total > 0 => format!(", {files} of {total} files"),
            files => format!(", {files} files"),
        };
        let seconds = self.begun.elapsed().as_secs();
        format!("{}{files}, {seconds} s", lock(&self.doing))
    }
}

/// Says something while nothing else is on the terminal's line.
pub(crate) fn apart(say: impl FnOnce()) {
    let mut shown = lock(&SHOWN);
    if std::mem::take(&mut *shown) {
        let _ = write!(io::stderr(), "{ANEW}");
    }
    say();
}

/// Whether standard error is being looked at: it is a terminal, and this process is in its foreground.
fn is_watched() -> bool {
    let stderr = io::stderr();
    stderr.is_terminal()
        && rustix::termios::tcgetpgrp(&stderr)
            .is_ok_and(|group| group == rustix::process::getpgrp())
}

fn on_terminal_until(work: &Work, ended: &Receiver<()>) {
    if !lasts(ended, SHORT_MAX) {
        return;
    }
    for turn in TURNS.iter().cycle() {
        let line = on_one_line(work, *turn, columns());
        let mut shown = lock(&SHOWN);
        *shown = true;
        let _ = write!(io::stderr(), "{ANEW}{line}");
        drop(shown);
        if !lasts(ended, MOVES_EVERY) {
            break;
        }
    }
    apart(|| ());
}

/// `████████░░░░ reading, 12 of 40 files, 3 s`; letters that the terminal has no room for are left out.
fn on_one_line(work: &Work, turn: char, columns: usize) -> String {
    let (found, total) = (
        work.found.load(Ordering::Relaxed),
        work.total.load(Ordering::Relaxed),
    );
    let front = match (u128::from(found) * u128::from(BAR_LETTERS)).checked_div(u128::from(total)) {
        None => turn.to_string(),
        Some(done) => (0..u128::from(BAR_LETTERS))
            .map(|at| if at < done { '█' } else { '░' })
            .collect(),
    };
    let line = format!("{front} {}", work.in_words());
    // A line that is full would move the cursor into the next one.
    line.chars().take(columns.saturating_sub(1)).collect()
}

fn columns() -> usize {
    // A terminal that does not know says 0.
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
    let columns = size.map(|size| usize::from(size.ws_col));
    columns.filter(|columns| *columns > 0).unwrap_or(80)
}

fn in_lines_until(work: &Work, ended: &Receiver<()>, every: Duration, to: &mut dyn Write) {
    while lasts(ended, every) {
        let words = work.in_words();
        // A line that cannot be written is dropped, as other messages are.
        let _ = writeln!(to, "walden: note: {words}");
    }
}

/// Waits so long, unless the work ends.
fn lasts(ended: &Receiver<()>, wait: Duration) -> bool {
    ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_work_is_told_in_whole_lines_and_its_end_is_the_end_of_them() {
        /// Ends the work with the second line.
        struct Lines(Vec<u8>, Option<Sender<()>>);
        impl Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.extend_from_slice(bytes);
                if self.0.iter().filter(|byte| **byte == b'\n').count() == 2 {
                    self.1.take();
                }
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let work = Work {
            begun: Instant::now(),
            doing: Mutex::new("listing".to_owned()),
            found: AtomicU64::new(2000),
            total: AtomicU64::new(0),
        };
        let (ends, ended) = channel();
        let mut lines = Lines(Vec::new(), Some(ends));
        in_lines_until(&work, &ended, Duration::from_millis(1), &mut lines);
        let text = String::from_utf8(lines.0).unwrap();
        assert_eq!(text, "walden: note: listing, 2000 files, 0 s\n".repeat(2));
    }

    #[test]
    fn a_line_on_a_terminal_is_never_wider_than_that_and_its_bar_as_long_as_what_is_done() {
        let work = Work {
            begun: Instant::now(),
            doing: Mutex::new("reading".to_owned()),
            found: AtomicU64::new(20),
            total: AtomicU64::new(0),
        };
        assert_eq!(on_one_line(&work, '|', 80), "| reading, 20 files, 0 s");
        for (total, full) in [(20, 30), (40, 15), (10, 30), (u64::MAX, 0)] {
            work.total.store(total, Ordering::Relaxed);
            let line = on_one_line(&work, '|', 120);
            let bar = "█".repeat(full) + &"░".repeat(30 - full);
            assert_eq!(line, format!("{bar} reading, 20 of {total} files, 0 s"));
        }
        assert_eq!(on_one_line(&work, '|', 8).chars().count(), 7);
        assert_eq!(on_one_line(&work, '|', 0), "");
    }

    #[test]
    fn work_that_ends_at_once_is_never_told() {
        let work = Work {
            begun: Instant::now(),
            doing: Mutex::new("listing".to_owned()),
            found: AtomicU64::new(0),
            total: AtomicU64::new(0),
        };
        let (ends, ended) = channel();
        drop(ends);
        let mut text = Vec::new();
        in_lines_until(&work, &ended, PLAIN_EVERY, &mut text);
        assert!(text.is_empty());
    }
}
