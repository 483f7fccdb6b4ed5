//! What the owner and the workers of restore-ahead share, and what a worker does.
//!
//! Guarantees: a demand goes before everything that is fetched ahead, and is never without a worker; no lock is held
//! while the archive is asked; a panic in a fetch fails that fetch alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ahead::memory;
use crate::archive::{Archive, Place};
use crate::error::Error;
use crate::format::workspace::Workspace;
use crate::get::{self, Request, Ruled};

use super::pace::Pace;
use super::state::{Around, Cost, Job, State, Why};

/// Opens an archive.
type Open = Box<dyn Fn(&Place) -> Result<Archive, Error> + Send + Sync>;

pub(super) struct Shared {
    state: Mutex<State>,
    /// Told to the keeper: there is nothing to keep any more.
    over: Condvar,
    notifier: Box<dyn Fn() + Send + Sync>,
    open: Open,
    kept_unused_max: Duration,
}

impl Shared {
    pub(super) fn new(
        notifier: Box<dyn Fn() + Send + Sync>,
        open: Open,
        kept_unused_max: Duration,
    ) -> Shared {
        Shared {
            state: Mutex::new(State::new()),
            over: Condvar::new(),
            notifier,
            open,
            kept_unused_max,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Changes are made whole before anything can panic, so the state is sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner goes.
    pub(super) fn close(&self) {
        self.state().close();
        self.over.notify_all();
    }

    /// One turn of a worker: true if there was something to do.
    pub(super) fn work(&self, workspace: &mut Workspace) -> bool {
        let Some(job) = self.state().next_job() else {
            return false;
        };
        let begun = Instant::now();
        // A request that waits for this job is answered, whatever happens to it.
        let found = catch_unwind(AssertUnwindSafe(|| self.fetch(&job, workspace)));
        let found = found.unwrap_or_else(|_| {
            *workspace = Workspace::default();
            Err(Error::unusable("the work ended without an answer"))
        });
        let cost = Cost {
            took: begun.elapsed(),
            bytes: workspace.bytes(),
        };
        if cost.bytes > memory::restoring_bytes() {
            // The rare large window is not kept for files that do not need it.
            *workspace = Workspace::default();
        }
        if self.state().ended(&job, found, &cost) {
            (self.notifier)();
        }
        true
    }

    /// Gives up a window that is not used; goes when there is none any more.
    pub(super) fn keep(&self) {
        let mut state = self.state();
        while !state.closed && !state.window.is_empty() {
            let mut left = self.kept_unused_max.saturating_sub(state.used.elapsed());
            if state.window.is_awaited() {
                // It is used, by a request that waits for longer than that.
                left = self.kept_unused_max;
            }
            if left.is_zero() {
                state.window.clear();
                // What is begun after such a pause is at another pace.
                state.pace = Pace::default();
                break;
            }
            state = self
                .over
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.has_keeper = false;
    }

    /// What became of the job. Of one that is ahead there is no answer, so nothing need be proven.
    fn fetch(&self, job: &Job, workspace: &mut Workspace) -> Result<Ruled, Error> {
        let archive = self.archive(job)?;
        let Around { parent, system, .. } = &job.around;
        let request = Request {
            name: &job.name,
            parent,
            system: Some(*system),
            ahead: matches!(job.why, Why::Ahead(_)),
        };
        match &job.why {
            Why::Demanded(_, rule) => {
                get::ruled(&archive, &request, rule.as_ref(), workspace, &job.cancel)
            }
            Why::Ahead(_) => {
                let fetched = get::fetch(&archive, &request, workspace, &job.cancel)?;
                Ok(fetched.map_or(Ruled::Absent(Vec::new()), |it| Ruled::File(Box::new(it))))
            }
        }
    }

    fn archive(&self, job: &Job) -> Result<Arc<Archive>, Error> {
        if let Some(archive) = self.state().archive(job.turn) {
            return Ok(archive);
        }
        let continuity = Arc::clone(&self.state().continuity);
        let archive = (self.open)(&job.around.place)?.remembering(continuity);
        let archive = Arc::new(archive);
        self.state().opened(job.turn, &archive);
        Ok(archive)
    }
}
