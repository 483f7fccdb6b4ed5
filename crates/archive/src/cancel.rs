//! [`Cancel`]: asks an operation to stop, from any thread.
//!
//! Guarantees that pauses end at once, and that an operation which moves a file stops at its next chunk. Leaves what is undone
//! to the operation.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// How long an operation stands still for another that goes first: longer than any deadline, which is an hour.
const HELD_MAX: Duration = Duration::from_secs(3700);

/// Asks a running operation, from any thread, to stop at its next chunk, and ends its pauses at once. Cheap to
/// clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    notifier: Condvar,
}

#[derive(Debug)]
struct State {
    asked: bool,
    /// Something else goes first.
    held: bool,
    alive: Instant,
}

impl Default for Shared {
    fn default() -> Shared {
        let state = State {
            asked: false,
            held: false,
            alive: Instant::now(),
        };
        Shared {
            state: Mutex::new(state),
            notifier: Condvar::new(),
        }
    }
}

impl Cancel {
    /// One that has not been asked for.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Asks. There is no way back: start the next operation with a new [`Cancel`].
    pub fn cancel(&self) {
        self.state().asked = true;
        self.shared.notifier.notify_all();
    }

    /// Lets the operation stand still at its next chunk, or go on again.
    pub(crate) fn hold(&self, held: bool) {
        self.state().held = held;
        self.shared.notifier.notify_all();
    }

    /// True once it has been asked for.
    pub fn is_cancelled(&self) -> bool {
        self.state().asked
    }

    /// Pauses for so long, or until it is asked for; true if it has been.
    pub fn wait(&self, pause: Duration) -> bool {
        let (state, _) = self
            .shared
            .notifier
            .wait_timeout_while(self.state(), pause, |state| !state.asked)
            .unwrap_or_else(PoisonError::into_inner);
        state.asked
    }

    /// When the operation last looked whether it should stop, which it does at every chunk that it moves.
    pub fn last_alive(&self) -> Instant {
        self.state().alive
    }

    /// An [`ErrorKind::Cancelled`] once it has been asked for; `what` names the work that is given up.
    pub(crate) fn check(&self, what: &str) -> Result<(), Error> {
        let mut state = self.state();
        if state.held {
            (state, _) = self
                .shared
                .notifier
                .wait_timeout_while(state, HELD_MAX, |state| state.held && !state.asked)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.alive = Instant::now();
        if state.asked {
            return Err(Error::new(
                ErrorKind::Cancelled,
                format!("{what} was cancelled"),
            ));
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_stands_still_until_it_may_go_on_or_is_cancelled() {
        for release in [Cancel::cancel, |cancel: &Cancel| cancel.hold(false)] {
            let cancel = Cancel::new();
            cancel.hold(true);
            let other = cancel.clone();
            let (sender, receiver) = std::sync::mpsc::channel();
            let working = std::thread::spawn(move || {
                let outcome = other.check("x");
                sender.send(()).unwrap();
                outcome
            });
            assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
            release(&cancel);
            assert_eq!(working.join().unwrap().is_err(), cancel.is_cancelled());
        }
    }

    #[test]
    fn a_cancellation_ends_a_pause_at_once() {
        let (cancel, asked) = (Cancel::new(), Cancel::new());
        let shared = asked.clone();
        assert!(!cancel.wait(Duration::from_millis(1)));
        let begun = Instant::now();
        let pausing = std::thread::spawn(move || shared.wait(Duration::from_secs(60)));
        asked.cancel();
        assert!(pausing.join().unwrap());
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
