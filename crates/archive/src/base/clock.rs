//! [`Clock`]: the time by which pauses, rests and deadlines go.
//!
//! Guarantees that whoever is given a clock looks at no other, so that hours of an outage pass in no time where a test or a
//! simulation gives one. Left to the system: times of files and of stores, which are facts and no pauses.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cancel::Cancel;

/// The time: that of the system, or one that is given. Cheap to clone; all clones of a given one show the same time.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// None for the time of the system.
    given: Option<Arc<Mutex<Instant>>>,
}

impl Clock {
    /// The time of the system.
    #[must_use]
    pub fn system() -> Clock {
        Clock::default()
    }

    /// A time that stands still but when it is let pass, or when somebody waits, who waits for no time at all.
    #[must_use]
    pub fn given() -> Clock {
        Clock {
            given: Some(Arc::new(Mutex::new(Instant::now()))),
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Instant {
        match &self.given {
            None => Instant::now(),
            Some(given) => *given.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// How long ago this was; 0 if it is to come.
    #[must_use]
    pub fn since(&self, before: Instant) -> Duration {
        self.now().saturating_duration_since(before)
    }

    /// Lets so much of a given time pass. That of the system passes by itself.
    pub fn pass(&self, time: Duration) {
        if let Some(given) = &self.given {
            *given.lock().unwrap_or_else(PoisonError::into_inner) += time;
        }
    }

    /// Pauses for so long, or until the operation is asked to stop; true if it has been.
    pub fn wait(&self, cancel: &Cancel, pause: Duration) -> bool {
        if self.given.is_none() {
            return cancel.wait(pause);
        }
        self.pass(pause);
        cancel.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_time_passes_only_when_it_is_let_or_waited_for() {
        let clock = Clock::given();
        let (begun, other) = (clock.now(), clock.clone());
        assert_eq!(clock.since(begun), Duration::ZERO);
        other.pass(Duration::from_secs(3600));
        assert_eq!(clock.since(begun), Duration::from_secs(3600));
        let cancel = Cancel::new();
        assert!(!clock.wait(&cancel, Duration::from_secs(60)));
        cancel.cancel();
        assert!(other.wait(&cancel, Duration::from_secs(60)));
        assert_eq!(clock.since(begun), Duration::from_secs(3720));
    }

    #[test]
    fn the_time_of_the_system_cannot_be_moved() {
        let clock = Clock::system();
        let begun = clock.now();
        clock.pass(Duration::from_secs(3600));
        assert!(clock.since(begun) < Duration::from_secs(3600));
    }
}
