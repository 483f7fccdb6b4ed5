//! A pool: a state under one lock, and threads that live while it has work for them, and for a moment after, each with buffers
//! of its own.
//!
//! Guarantees: never more workers than the state allows; no work is missed, because whatever adds some and a worker that is about
//! to wait hold the same lock; a panic in a job ends neither the worker nor the pool. Threads are started through a [`Spawn`],
//! because inside a server process they must not take its signals.
//! Left to others: what the work is, in which order, and who is told of its end.

use std::io;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::spawn::Spawn;
use crate::format::workspace::Workspace;

/// How long a worker without work stays: long enough to be there for the next segment of a busy server, short
/// enough to give its buffers back soon after a burst.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(5);

/// A state that has work for the workers of a pool. It is locked for moments only.
pub(crate) trait Work: Sized + Send + 'static {
    /// What the threads are called.
    const NAME: &'static str;
    /// What all jobs need, beside the state.
    type Tools: Send + Sync;
    type Job;
    /// Takes the next job.
    fn next_job(&mut self) -> Option<Self::Job>;
    /// How many workers there may be; one always may.
    fn workers_max(&self) -> usize;
    /// Does a job, on a worker. The state is not locked.
    fn run(pool: &Pool<Self>, job: Self::Job, workspace: &mut Workspace);
    /// There has been no work for a while; true if the last worker may go.
    fn rest(&mut self) -> bool {
        true
    }
    /// Gives up whatever is going on: the owner goes.
    fn close(&mut self);
}

/// The pool. Its owner closes it.
pub(crate) struct Pool<W: Work> {
    pub(crate) tools: W::Tools,
    /// None if the owner takes the turns.
    spawn: Option<Spawn>,
    idle_max: Duration,
    state: Mutex<Staffed<W>>,
    /// Told to a worker that waits for work.
    work: Condvar,
    /// Told to whatever waits for another change of the state.
    changed: Condvar,
}

/// The state, with what is known of its workers.
pub(crate) struct Staffed<W> {
    work: W,
    workers: usize,
    idle: usize,
    pub(crate) closed: bool,
}

impl<W> Deref for Staffed<W> {
    type Target = W;

    fn deref(&self) -> &W {
        &self.work
    }
}

impl<W> DerefMut for Staffed<W> {
    fn deref_mut(&mut self) -> &mut W {
        &mut self.work
    }
}

impl<W: Work> Pool<W> {
    /// No worker is there yet.
    pub(crate) fn new(
        work: W,
        tools: W::Tools,
        spawn: Option<Spawn>,
        idle_max: Duration,
    ) -> Pool<W> {
        Pool {
            tools,
            spawn,
            idle_max,
            state: Mutex::new(Staffed {
                work,
                workers: 0,
                idle: 0,
                closed: false,
            }),
            work: Condvar::new(),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, Staffed<W>> {
        // Changes are made whole before anything can panic, so the state is sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whatever waits in [`Pool::wait_while`].
    pub(crate) fn changed(&self) {
        self.changed.notify_all();
    }

    /// Waits as long as this holds of the state, and no longer than so.
    pub(crate) fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, Staffed<W>>,
        longest: Duration,
        holds: impl Fn(&W) -> bool,
    ) -> MutexGuard<'a, Staffed<W>> {
        let waited = self
            .changed
            .wait_timeout_while(state, longest, |state| holds(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// There may be work for one worker more.
    ///
    /// Fails only if there is no worker at all and no thread can be started.
    pub(crate) fn call(self: &Arc<Self>, state: &mut Staffed<W>) -> io::Result<()> {
        let Some(spawn) = self.spawn else {
            return Ok(());
        };
        if state.idle > 0 {
            self.work.notify_one();
            return Ok(());
        }
        if state.closed || state.workers >= state.workers_max().max(1) {
            return Ok(());
        }
        let pool = Arc::clone(self);
        match spawn(W::NAME, Box::new(move || pool.serve())) {
            Err(error) if state.workers == 0 => return Err(error),
            Err(_) => {}
            Ok(_) => state.workers += 1,
        }
        Ok(())
    }

    /// Does one job on this thread; false if there is none.
    pub(crate) fn turn(self: &Arc<Self>, workspace: &mut Workspace) -> bool {
        self.take_turn(self.state(), workspace).is_none()
    }

    /// Nothing more is begun, and what is going on is given up.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.work.close();
        self.work.notify_all();
        self.changed.notify_all();
    }

    /// Does a job. Gives the lock back if there is none.
    fn take_turn<'a>(
        self: &Arc<Self>,
        mut state: MutexGuard<'a, Staffed<W>>,
        workspace: &mut Workspace,
    ) -> Option<MutexGuard<'a, Staffed<W>>> {
        let next = if state.closed { None } else { state.next_job() };
        let Some(job) = next else {
            return Some(state);
        };
        // There is a worker, this one; another one sees whether there is more to do.
        let _ = self.call(&mut state);
        drop(state);
        // A job that panics is its engine's to report; the buffers may be half changed.
        if catch_unwind(AssertUnwindSafe(|| W::run(self, job, workspace))).is_err() {
            *workspace = Workspace::default();
        }
        None
    }

    fn serve(self: Arc<Self>) {
        let mut workspace = Workspace::default();
        let mut rested = false;
        loop {
            let Some(mut state) = self.take_turn(self.state(), &mut workspace) else {
                rested = false;
                continue;
            };
            // The last one that is idle stays for what is kept, though others may hang.
            if state.closed || (rested && (state.idle > 0 || state.rest())) {
                state.workers -= 1;
                return;
            }
            state.idle += 1;
            let waited = self.work.wait_timeout(state, self.idle_max);
            let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            rested = waited.timed_out();
            if rested {
                workspace = Workspace::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::spawn::spawn_plainly;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    /// So many jobs that are all alike.
    struct Pile {
        left: usize,
        workers_max: usize,
    }

    impl Work for Pile {
        const NAME: &'static str = "test";
        type Tools = Box<dyn Fn() + Send + Sync>;
        type Job = ();

        fn next_job(&mut self) -> Option<()> {
            self.left = self.left.checked_sub(1)?;
            Some(())
        }

        fn workers_max(&self) -> usize {
            self.workers_max
        }

        fn run(pool: &Pool<Pile>, (): (), _: &mut Workspace) {
            (pool.tools)();
        }

        fn close(&mut self) {}
    }

    fn pool(workers_max: usize, job: impl Fn() + Send + Sync + 'static) -> Arc<Pool<Pile>> {
        let pile = Pile {
            left: 0,
            workers_max,
        };
        Arc::new(Pool::new(
            pile,
            Box::new(job),
            Some(spawn_plainly),
            IDLE_MAX,
        ))
    }

    fn add(pool: &Arc<Pool<Pile>>, jobs: usize) {
        let mut pile = pool.state();
        pile.left += jobs;
        pool.call(&mut pile).unwrap();
    }

    fn until(what: &str, mut met: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !met() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn every_call_leads_to_work_and_there_are_never_more_workers_than_asked_for() {
        let done = Arc::new(AtomicUsize::new(0));
        let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (ended, busy, peak) = (done.clone(), at_once.clone(), most.clone());
        let pool = pool(3, move || {
            peak.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            busy.fetch_sub(1, Ordering::SeqCst);
            ended.fetch_add(1, Ordering::SeqCst);
        });
        for round in 1..=2000 {
            add(&pool, 1);
            if round % 7 == 0 {
                until("the pool missed a call", || {
                    done.load(Ordering::SeqCst) == round
                });
            }
        }
        until("the pool missed a call", || {
            done.load(Ordering::SeqCst) == 2000
        });
        assert!(most.load(Ordering::SeqCst) <= 3);
        pool.close();
    }

    #[test]
    fn a_panic_in_a_job_does_not_end_the_pool() {
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        let pool = pool(1, move || {
            assert!(counted.fetch_add(1, Ordering::SeqCst) != 0, "planted");
        });
        add(&pool, 3);
        until("no turn after the panic", || {
            turns.load(Ordering::SeqCst) >= 3
        });
        pool.close();
    }

    #[test]
    fn two_jobs_at_once_wake_two_idle_workers() {
        let inside = Arc::new(AtomicUsize::new(0));
        let met = inside.clone();
        // Each job waits for the other: with one worker only, neither ends.
        let pool = pool(2, move || {
            let round = met.fetch_add(1, Ordering::SeqCst) / 2;
            until("a job was left alone", || {
                met.load(Ordering::SeqCst) >= 2 * (round + 1)
            });
        });
        for round in 1..=200 {
            add(&pool, 2);
            until("both jobs", || inside.load(Ordering::SeqCst) == 2 * round);
        }
        pool.close();
    }

    #[test]
    fn the_workers_of_a_pool_that_is_closed_go_home() {
        let pool = pool(1, || {});
        add(&pool, 1);
        pool.close();
        until("a worker stayed", || Arc::strong_count(&pool) == 1);
    }

    #[test]
    fn workers_without_work_go_home() {
        let (pile, job) = (
            Pile {
                left: 0,
                workers_max: 3,
            },
            Box::new(|| ()),
        );
        let idle_max = Duration::from_millis(10);
        let pool = Arc::new(Pool::new(pile, job as _, Some(spawn_plainly), idle_max));
        add(&pool, 30);
        until("a worker stayed", || {
            pool.state().left == 0 && Arc::strong_count(&pool) == 1
        });
    }
}
