//! Slow work on a thread of its own, waited for on the process latch.
//!
//! The thread has all signals blocked and never calls the server; the main thread sleeps on its latch and
//! serves interrupts, so that slow storage stalls neither DROP DATABASE nor a reload.  A task outlives a wait
//! that ended early: the next callback can go on waiting for it.

use crate::boundary::signals::spawn_with_signals_blocked;
use crate::boundary::{panics, process::Woken};
use crate::{Failure, Process};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

/// How long a wait goes on after a reload was asked for.  Most files are done by then, and what is not done
/// counts as a failed attempt in `pg_stat_archiver`; a reload should not have to wait much longer.
const RELOAD_GRACE: Duration = Duration::from_millis(800);

/// Work in progress on another thread.
#[derive(Debug)]
pub struct Task<T> {
    answer: Receiver<Result<T, Failure>>,
    done: Arc<OwnedFd>,
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
        let done = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| {
            Failure::new(format!("could not create an event descriptor: {error}"))
        })?;
        let done = Arc::new(done);
        let (tell, answer) = sync_channel(1);
        let signal = Arc::clone(&done);
        spawn_with_signals_blocked(name, move || {
            // Nobody may listen any more; then the answer is not wanted.
            let _ = tell.send(panics::caught(work));
            let _ = rustix::io::write(&*signal, &1_u64.to_ne_bytes());
        })
        .map_err(|error| Failure::new(format!("could not start a thread: {error}")))?;
        Ok(Self { answer, done })
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
        match self.answer.try_recv() {
            Ok(answer) => answer.map(Waited::Done),
            Err(TryRecvError::Empty) => Ok(Waited::NotYet(woken)),
            Err(TryRecvError::Disconnected) => {
                Err(Failure::new("a thread ended without an answer"))
            }
        }
    }
}
