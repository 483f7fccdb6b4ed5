//! Slow work on a thread of its own, waited for on the process latch.
//!
//! The thread has all signals blocked and never calls the server; the main thread sleeps on its latch and
//! serves interrupts, so that slow storage stalls neither DROP DATABASE nor a reload. A task outlives a wait
//! that ended early: the next callback can go on waiting for it.

use crate::boundary::signals::spawn_with_signals_blocked;
use crate::boundary::{panics, process::Woken};
use crate::{Failure, Notifier, Process};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a wait goes on after a reload was asked for. Most files are done by then, and what is not done
/// counts as a failed attempt in `pg_stat_archiver`; a reload should not have to wait much longer.
pub const RELOAD_GRACE: Duration = Duration::from_millis(800);

/// Work in progress on another thread.
#[derive(Debug)]
pub struct Task<T> {
    answer: Receiver<Result<T, Failure>>,
    done: Notifier,
    thread: JoinHandle<()>,
}

/// What became of a wait.
#[derive(Debug)]
pub enum Waited<T> {
    /// The work is done.
    Done(T),
    /// Not yet; the task goes on, and the wait ended for this reason.
    NotYet(Woken),
}

impl<T: Send + 'static> Task<T> {
    /// Starts `work`.
    ///
    /// # Errors
    /// When no thread or event descriptor can be had.
    pub fn start(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<Self, Failure> {
        let done = Notifier::new()?;
        let (tell, answer) = sync_channel(1);
        let notifier = done.clone();
        let thread = spawn_with_signals_blocked(name, move || {
            // The receiver may have gone; then the answer is not wanted.
            let _ = tell.send(panics::caught(work));
            notifier.notify();
        })
        .map_err(|error| Failure::new(format!("could not start a thread: {error}")))?;
        Ok(Self {
            answer,
            done,
            thread,
        })
    }

    /// Waits until the work is done, the deadline passes, or the process has something else to do.
    ///
    /// # Errors
    /// What the server raises while waiting, or that the work panicked.
    pub fn wait(&mut self, process: Process, deadline: Instant) -> Result<Waited<T>, Failure> {
        let mut woken = process.wait(self.done.as_fd(), Some(deadline), true)?;
        if woken == Woken::Reload {
            let grace = Instant::now() + RELOAD_GRACE;
            woken = match process.wait(self.done.as_fd(), Some(deadline.min(grace)), false)? {
                Woken::Deadline if Instant::now() < deadline => Woken::Reload,
                other => other,
            };
        }
        Ok(self.answer()?.map_or(Waited::NotYet(woken), Waited::Done))
    }

    /// Waits until the work is done, for at most `wait_max`; a reload does not end this wait. For work whose
    /// answer is wanted now, as recovery wants its file; where it can come later, [`Task::wait`] does better.
    ///
    /// # Errors
    /// What the server raises while waiting, that the work panicked, that the time is up, or that the server
    /// is shutting down. In the last two cases the work goes on, and its answer is dropped.
    pub fn join(mut self, process: Process, wait_max: Duration) -> Result<T, Failure> {
        let deadline = Instant::now() + wait_max;
        let woken = process.wait(self.done.as_fd(), Some(deadline), false)?;
        match self.answer()? {
            Some(answer) => Ok(answer),
            None if woken == Woken::Deadline => Err(Failure::new(format!(
                "no answer within {} s",
                wait_max.as_secs()
            ))),
            None => Err(Failure::new("the server is shutting down")),
        }
    }

    /// Whether the work has come to an end, well or badly.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// The answer, if it is there.
    fn answer(&mut self) -> Result<Option<T>, Failure> {
        match self.answer.try_recv() {
            Ok(answer) => answer.map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => {
                Err(Failure::new("a thread ended without an answer"))
            }
        }
    }
}
