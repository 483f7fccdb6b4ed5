//! A pool: threads that live while there is work, and for a moment after, each with buffers of its own.
//!
//! Guarantees: never more workers than asked for; a call is never lost, also when it comes while the last worker is
//! about to sleep; a panic in a job ends neither the worker nor the pool. Threads are started through a [`Spawn`],
//! because inside a server process they must not take its signals.
//! Left to others: what the work is, in which order, and who is told of its end.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::spawn::Spawn;
use crate::format::workspace::Workspace;

/// How long a worker without work stays: long enough to be there for the next segment of a busy server, short
/// enough to give its buffers back soon after a burst.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// One turn at the work: true if there was something to do.
type Work = Box<dyn Fn(&Workers<'_>, &mut Workspace) -> bool + Send + Sync>;

/// The pool. Dropping it sends idle workers home; busy ones go when their job ends.
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

/// The pool as one of its workers sees it, who may call another.
pub(crate) struct Workers<'a> {
    shared: &'a Arc<Shared>,
}

struct Shared {
    name: &'static str,
    spawn: Spawn,
    work: Work,
    staff: Mutex<Staff>,
    notifier: Condvar,
}

#[derive(Default)]
struct Staff {
    workers: usize,
    idle: usize,
    /// How many of the idle ones have been called and have not woken yet: a second call needs another worker.
    claimed: usize,
    /// Counts calls, so that a worker which found no work notices one that came meanwhile.
    calls: u64,
    closed: bool,
}

impl Pool {
    /// Nobody is there yet. `work` does one job, if there is one, and is called by several workers at once.
    pub(crate) fn new(
        name: &'static str,
        spawn: Spawn,
        work: impl Fn(&Workers<'_>, &mut Workspace) -> bool + Send + Sync + 'static,
    ) -> Pool {
        Pool {
            shared: Arc::new(Shared {
                name,
                spawn,
                work: Box::new(work),
                staff: Mutex::default(),
                notifier: Condvar::new(),
            }),
        }
    }

    /// There may be work for one worker more, of at most `workers_max`.
    ///
    /// Fails only if there is nobody at all and no thread can be started.
    pub(crate) fn call(&self, workers_max: usize) -> io::Result<()> {
        call(&self.shared, workers_max)
    }
}

impl Workers<'_> {
    /// As [`Pool::call`]. There is somebody already, the caller, so it cannot fail.
    pub(crate) fn call(&self, workers_max: usize) {
        let _ = call(self.shared, workers_max);
    }
}

fn call(shared: &Arc<Shared>, workers_max: usize) -> io::Result<()> {
    {
        let mut staff = shared.staff();
        staff.calls += 1;
        if staff.idle > staff.claimed {
            staff.claimed += 1;
            shared.notifier.notify_one();
            return Ok(());
        }
        if staff.closed || staff.workers >= workers_max.max(1) {
            return Ok(());
        }
        staff.workers += 1;
    }
    let worker = Arc::clone(shared);
    let started = (shared.spawn)(shared.name, Box::new(move || serve(&worker)));
    started.map(drop).or_else(|error| {
        let mut staff = shared.staff();
        staff.workers -= 1;
        if staff.workers == 0 {
            Err(error)
        } else {
            Ok(())
        }
    })
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.staff().closed = true;
        self.shared.notifier.notify_all();
    }
}

impl Shared {
    fn staff(&self) -> MutexGuard<'_, Staff> {
        self.staff.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(shared: &Arc<Shared>) {
    let mut workspace = Workspace::default();
    let workers = Workers { shared };
    loop {
        let calls = shared.staff().calls;
        // A job that panics is its owner's to report; whatever the worker held for it may be half changed.
        let worked = catch_unwind(AssertUnwindSafe(|| (shared.work)(&workers, &mut workspace)))
            .unwrap_or_else(|_| {
                workspace = Workspace::default();
                true
            });
        let mut staff = shared.staff();
        if staff.closed {
            staff.workers -= 1;
            return;
        }
        if worked || staff.calls != calls {
            continue;
        }
        staff.idle += 1;
        let (mut staff, waited) = shared
            .notifier
            .wait_timeout_while(staff, IDLE_MAX, |staff| {
                staff.calls == calls && !staff.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        staff.idle -= 1;
        if !waited.timed_out() {
            staff.claimed = staff.claimed.saturating_sub(1);
        }
        if staff.closed || (waited.timed_out() && staff.calls == calls) {
            staff.workers -= 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::spawn::spawn_plainly;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    fn until(what: &str, mut met: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !met() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn every_call_leads_to_work_and_there_are_never_more_workers_than_asked_for() {
        let (waiting, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (jobs, ended, busy, peak) =
            (waiting.clone(), done.clone(), at_once.clone(), most.clone());
        let pool = Pool::new("test", spawn_plainly, move |_, _| {
            let taken = jobs.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |jobs| {
                jobs.checked_sub(1)
            });
            if taken.is_err() {
                return false;
            }
            peak.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            busy.fetch_sub(1, Ordering::SeqCst);
            ended.fetch_add(1, Ordering::SeqCst);
            true
        });
        for round in 1..=2000 {
            waiting.fetch_add(1, Ordering::SeqCst);
            pool.call(3).unwrap();
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
    }

    #[test]
    fn a_panic_in_a_job_does_not_end_the_pool() {
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        let pool = Pool::new("test", spawn_plainly, move |_, _| {
            let turn = counted.fetch_add(1, Ordering::SeqCst);
            assert!(turn != 0, "planted");
            turn < 3
        });
        pool.call(1).unwrap();
        until("no turn after the panic", || {
            turns.load(Ordering::SeqCst) >= 3
        });
    }

    #[test]
    fn two_calls_at_once_wake_two_idle_workers() {
        let (waiting, inside) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (jobs, met) = (waiting.clone(), inside.clone());
        // Each job waits for the other: with one worker only, neither ends.
        let pool = Pool::new("test", spawn_plainly, move |_, _| {
            let taken = jobs.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |jobs| {
                jobs.checked_sub(1)
            });
            if taken.is_err() {
                return false;
            }
            let round = met.fetch_add(1, Ordering::SeqCst) / 2;
            until("a job was left alone", || {
                met.load(Ordering::SeqCst) >= 2 * (round + 1)
            });
            true
        });
        for round in 1..=200 {
            waiting.fetch_add(2, Ordering::SeqCst);
            pool.call(2).unwrap();
            pool.call(2).unwrap();
            until("both jobs", || inside.load(Ordering::SeqCst) == 2 * round);
        }
    }

    #[test]
    fn the_workers_of_a_pool_that_is_dropped_go_home() {
        let token = Arc::new(());
        let held = token.clone();
        let pool = Pool::new("test", spawn_plainly, move |_, _| {
            let _ = &held;
            false
        });
        pool.call(1).unwrap();
        drop(pool);
        until("a worker stayed", || Arc::strong_count(&token) == 1);
    }
}
