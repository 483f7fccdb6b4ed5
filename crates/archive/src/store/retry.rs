//! The one policy for trying again, whatever is tried and wherever the archive is.
//!
//! Guarantees: pauses double from [`PAUSE_MIN`] to [`PAUSE_MAX`], each shortened by chance so that servers which
//! lost the same archive do not come back to it in step. How long all tries together may take, their deadline,
//! is the caller's, and so is what is worth another try: see [`crate::ErrorKind::may_work_later`].

use std::time::Duration;

/// The first pause: most trouble that ends by itself (a name being published by another server, a descriptor
/// shortage) is over by then.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest pause: an archive that works again is noticed soon, and asking one that does not costs nothing.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long opening an archive may take before it counts as unreachable. The next caller waits for the same opening.
pub const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long an operation may go without moving a byte before that is reported. The deadline itself is longer: a slow
/// archive is no failure, a silent one is worth a line in the log.
pub const PROGRESS_WAIT_MAX: Duration = Duration::from_secs(10);

/// The pauses between the tries of one operation.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
    tries: u32,
}

impl Backoff {
    /// Nothing has been tried yet.
    pub fn new() -> Backoff {
        Backoff::at_most(PAUSE_MAX)
    }

    /// With another longest pause, for work that is waited for.
    pub fn at_most(longest: Duration) -> Backoff {
        Backoff {
            next: PAUSE_MIN.min(longest),
            longest,
            tries: 0,
        }
    }

    /// The same, with nothing tried yet.
    pub(crate) fn afresh(&self) -> Backoff {
        Backoff::at_most(self.longest)
    }

    /// A try has failed: the pause before the next one, between half and the whole of what the doubling gives.
    pub fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.longest);
        self.tries += 1;
        whole.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// How many tries have failed.
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_never_in_step() {
        let mut backoff = Backoff::new();
        let mut whole = PAUSE_MIN;
        for tries in 1..=12 {
            let pause = backoff.pause();
            assert!(
                pause >= whole / 2 && pause <= whole,
                "{pause:?} of {whole:?}"
            );
            assert_eq!(backoff.tries(), tries);
            whole = (whole * 2).min(PAUSE_MAX);
        }
        let pauses = |seed| {
            fastrand::seed(seed);
            let mut backoff = Backoff::new();
            (0..4).map(|_| backoff.pause()).collect::<Vec<_>>()
        };
        assert_ne!(pauses(1), pauses(2));
    }

    #[test]
    fn a_shorter_longest_pause_holds_from_the_first_on() {
        let longest = Duration::from_millis(30);
        let mut backoff = Backoff::at_most(longest);
        assert!((0..5).all(|_| backoff.pause() <= longest));
    }
}
