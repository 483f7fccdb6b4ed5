//! The table of jobs under both engines: what is to be done, what is being done, and what has come of it.
//!
//! Guarantees: a job is begun once, and its result given once; one that is given up is asked to stop, and if a worker has it
//! stays until that worker is back, so that those which do not come back are counted. No threads, no I/O.
//! Left to others: what jobs there are, and in which order they are begun.

use std::time::Instant;

use crate::base::clock::Clock;
use crate::cancel::Cancel;

/// Number of a job, never used twice.
pub(super) type JobId = u64;

/// A job: work `W` with a result `R`.
#[derive(Debug)]
pub(super) struct Job<W, R> {
    pub(super) id: JobId,
    pub(super) work: W,
    pub(super) cancel: Cancel,
    pub(super) state: JobState<R>,
    pub(super) since: Instant,
}

/// How a job stands.
#[derive(Debug)]
pub(super) enum JobState<R> {
    InTurn,
    Running,
    Done(R),
    /// Its result is not wanted any more, and its worker has not come back.
    GivenUp,
}

impl<W, R> Job<W, R> {
    pub(super) fn is_in_turn(&self) -> bool {
        matches!(self.state, JobState::InTurn)
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, JobState::Running)
    }

    pub(super) fn is_given_up(&self) -> bool {
        matches!(self.state, JobState::GivenUp)
    }

    pub(super) fn result(&self) -> Option<&R> {
        match &self.state {
            JobState::Done(result) => Some(result),
            _ => None,
        }
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Jobs<W, R> {
    clock: Clock,
    jobs: Vec<Job<W, R>>,
    last: JobId,
}

impl<W, R> Jobs<W, R> {
    pub(super) fn new(clock: Clock) -> Jobs<W, R> {
        Jobs {
            clock,
            jobs: Vec::new(),
            last: 0,
        }
    }

    /// All of them, in the order of their coming.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Job<W, R>> {
        self.jobs.iter()
    }

    /// The first one that is so.
    pub(super) fn find_mut(
        &mut self,
        is_so: impl Fn(&Job<W, R>) -> bool,
    ) -> Option<&mut Job<W, R>> {
        self.jobs.iter_mut().find(|job| is_so(job))
    }

    /// Adds a job.
    pub(super) fn add(&mut self, work: W, state: JobState<R>) -> (JobId, Cancel) {
        self.last += 1;
        let cancel = Cancel::new();
        self.jobs.push(Job {
            id: self.last,
            work,
            cancel: cancel.clone(),
            state,
            since: self.clock.now(),
        });
        (self.last, cancel)
    }

    /// Begins the job in turn that comes first in this order; those that have no place in it wait.
    pub(super) fn begin<O: Ord>(&mut self, place: impl Fn(&W) -> Option<O>) -> Option<&Job<W, R>> {
        let in_turn = self.jobs.iter_mut().filter(|job| job.is_in_turn());
        let placed = in_turn.filter_map(|job| Some((place(&job.work)?, job)));
        let (_, job) = placed.min_by(|(one, _), (other, _)| one.cmp(other))?;
        job.state = JobState::Running;
        Some(job)
    }

    /// The worker is back, perhaps with a result. Gives it back if it is not wanted any more.
    pub(super) fn end(&mut self, id: JobId, result: Option<R>) -> Option<R> {
        let Some(at) = self.jobs.iter().position(|job| job.id == id) else {
            return result;
        };
        match (self.jobs.get_mut(at), result) {
            (Some(job), Some(result)) if job.is_running() => job.state = JobState::Done(result),
            (_, result) => {
                self.jobs.remove(at);
                return result;
            }
        }
        None
    }

    /// The result of a job that is done, which leaves the table.
    pub(super) fn take(&mut self, id: JobId) -> Option<(W, R)> {
        let at = self
            .jobs
            .iter()
            .position(|job| job.id == id && job.result().is_some())?;
        let job = self.jobs.remove(at);
        match job.state {
            JobState::Done(result) => Some((job.work, result)),
            _ => None,
        }
    }

    /// Gives up these jobs; how many of them were done.
    pub(super) fn give_up(&mut self, which: impl Fn(&Job<W, R>) -> bool) -> usize {
        let mut done = 0;
        self.jobs.retain_mut(|job| {
            if job.is_given_up() || !which(job) {
                return true;
            }
            job.cancel.cancel();
            done += usize::from(job.result().is_some());
            let is_running = job.is_running();
            job.state = JobState::GivenUp;
            is_running
        });
        done
    }
}
