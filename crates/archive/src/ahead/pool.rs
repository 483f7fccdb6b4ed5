//! A crew: threads that live while there is work, and for a moment after, each with buffers of its own.
//!
//! Guarantees: never more hands than asked for; a call is never lost, also when it comes while the last hand is
//! about to sleep; a panic in a job ends neither the hand nor the crew. Threads are started through a [`Spawn`],
//! because inside a server process they must not take its signals.
//! Left to others: what the work is, in which order, and who is told of its end.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::spawn::Spawn;
use crate::format::workspace::Workspace;

/// How long a hand without work stays: long enough to be there for the next segment of a busy server, short
/// enough to give its buffers back soon after a burst.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// One turn at the work: true if there was something to do.
type Work = Box<dyn Fn(&Hands<'_>, &mut Workspace) -> bool + Send + Sync>;

/// The crew. Dropping it sends idle hands home; busy ones go when their job ends.
pub(crate) struct Crew {
    shared: Arc<Shared>,
}

/// The crew as one of its hands sees it, who may call another.
pub(crate) struct Hands<'a> {
    shared: &'a Arc<Shared>,
}

struct Shared {
    name: &'static str,
    spawn: Spawn,
    work: Work,
    roster: Mutex<Roster>,
    bell: Condvar,
}

#[derive(Default)]
struct Roster {
    hands: usize,
    idle: usize,
    /// How many of the idle ones have been called and have not woken yet: a second call needs another hand.
    claimed: usize,
    /// Counts calls, so that a hand which found no work notices one that came meanwhile.
    calls: u64,
    closed: bool,
}

impl Crew {
    /// Nobody is there yet. `work` does one job, if there is one, and is called by several hands at once.
    pub(crate) fn new(
        name: &'static str,
        spawn: Spawn,
        work: impl Fn(&Hands<'_>, &mut Workspace) -> bool + Send + Sync + 'static,
    ) -> Crew {
        Crew {
            shared: Arc::new(Shared {
                name,
                spawn,
                work: Box::new(work),
                roster: Mutex::default(),
                bell: Condvar::new(),
            }),
        }
    }

    /// There may be work for one hand more, of at most `hands_max`.
    ///
    /// Fails only if there is nobody at all and no thread can be started.
    pub(crate) fn call(&self, hands_max: usize) -> io::Result<()> {
        call(&self.shared, hands_max)
    }
}

impl Hands<'_> {
    /// As [`Crew::call`]. There is somebody already, the caller, so it cannot fail.
    pub(crate) fn call(&self, hands_max: usize) {
        let _ = call(self.shared, hands_max);
    }
}

fn call(shared: &Arc<Shared>, hands_max: usize) -> io::Result<()> {
    {
        let mut roster = shared.roster();
        roster.calls += 1;
        if roster.idle > roster.claimed {
            roster.claimed += 1;
            shared.bell.notify_one();
            return Ok(());
        }
        if roster.closed || roster.hands >= hands_max.max(1) {
            return Ok(());
        }
        roster.hands += 1;
    }
    let hand = Arc::clone(shared);
    let started = (shared.spawn)(shared.name, Box::new(move || serve(&hand)));
    started.map(drop).or_else(|error| {
        let mut roster = shared.roster();
        roster.hands -= 1;
        if roster.hands == 0 {
            Err(error)
        } else {
            Ok(())
        }
    })
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.roster().closed = true;
        self.shared.bell.notify_all();
    }
}

impl Shared {
    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(shared: &Arc<Shared>) {
    let mut workspace = Workspace::default();
    let hands = Hands { shared };
    loop {
        let calls = shared.roster().calls;
        // A job that panics is its owner's to report; whatever the hand held for it may be half changed.
        let worked = catch_unwind(AssertUnwindSafe(|| (shared.work)(&hands, &mut workspace)))
            .unwrap_or_else(|_| {
                workspace = Workspace::default();
                true
            });
        let mut roster = shared.roster();
        if roster.closed {
            roster.hands -= 1;
            return;
        }
        if worked || roster.calls != calls {
            continue;
        }
        roster.idle += 1;
        let (mut roster, waited) = shared
            .bell
            .wait_timeout_while(roster, IDLE_MAX, |roster| {
                roster.calls == calls && !roster.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        roster.idle -= 1;
        if !waited.timed_out() {
            roster.claimed = roster.claimed.saturating_sub(1);
        }
        if roster.closed || (waited.timed_out() && roster.calls == calls) {
            roster.hands -= 1;
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
    fn every_call_leads_to_work_and_there_are_never_more_hands_than_asked_for() {
        let (waiting, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (jobs, ended, busy, peak) =
            (waiting.clone(), done.clone(), at_once.clone(), most.clone());
        let crew = Crew::new("test", spawn_plainly, move |_, _| {
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
            crew.call(3).unwrap();
            if round % 7 == 0 {
                until("the crew missed a call", || {
                    done.load(Ordering::SeqCst) == round
                });
            }
        }
        until("the crew missed a call", || {
            done.load(Ordering::SeqCst) == 2000
        });
        assert!(most.load(Ordering::SeqCst) <= 3);
    }

    #[test]
    fn a_panic_in_a_job_does_not_end_the_crew() {
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        let crew = Crew::new("test", spawn_plainly, move |_, _| {
            let turn = counted.fetch_add(1, Ordering::SeqCst);
            assert!(turn != 0, "planted");
            turn < 3
        });
        crew.call(1).unwrap();
        until("no turn after the panic", || {
            turns.load(Ordering::SeqCst) >= 3
        });
    }

    #[test]
    fn two_calls_at_once_wake_two_idle_hands() {
        let (waiting, inside) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (jobs, met) = (waiting.clone(), inside.clone());
        // Each job waits for the other: with one hand only, neither ends.
        let crew = Crew::new("test", spawn_plainly, move |_, _| {
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
            crew.call(2).unwrap();
            crew.call(2).unwrap();
            until("both jobs", || inside.load(Ordering::SeqCst) == 2 * round);
        }
    }

    #[test]
    fn a_crew_that_is_dropped_goes_home() {
        let token = Arc::new(());
        let held = token.clone();
        let crew = Crew::new("test", spawn_plainly, move |_, _| {
            let _ = &held;
            false
        });
        crew.call(1).unwrap();
        drop(crew);
        until("a hand stayed", || Arc::strong_count(&token) == 1);
    }
}
