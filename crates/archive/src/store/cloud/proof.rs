//! A trial of the store that one thread makes for all.
//!
//! Guarantees that at most one trial is under way, that none is made once one has succeeded, and that a caller which waited for
//! one that failed gets its failure instead of making the next at once: a store that hangs would else be waited for by one
//! thread after the other. What is tried is left to `probe`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, ErrorKind};

/// What is known of one property of the store.
#[derive(Debug, Default)]
pub(super) struct Proof {
    known: Mutex<Known>,
    /// How many trials have ended.
    ended: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    is_proven: bool,
    failure: Option<(ErrorKind, String, Option<String>)>,
}

impl Proof {
    /// Succeeds once a trial has succeeded; makes one if there was none.
    pub(super) fn get(&self, trial: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        self.get_since(self.ended.load(Ordering::Acquire), trial)
    }

    /// The same for a caller who knows of so many trials that have ended.
    fn get_since(
        &self,
        ended: u64,
        trial: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_proven {
            return Ok(());
        }
        if let Some((kind, message, hint)) = &known.failure
            && self.ended.load(Ordering::Acquire) != ended
        {
            let failure = Error::new(*kind, message.clone());
            return Err(match hint {
                Some(hint) => failure.with_hint(hint.clone()),
                None => failure,
            });
        }
        let tried = trial();
        known.is_proven = tried.is_ok();
        known.failure = tried.as_ref().err().map(|failure| {
            let hint = failure.hint().map(str::to_owned);
            (failure.kind(), failure.to_string(), hint)
        });
        self.ended.fetch_add(1, Ordering::Release);
        tried
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    #[test]
    fn a_success_is_one_trial_for_all_and_for_ever() {
        let (proof, trials) = (Proof::default(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let got = proof.get(|| {
                        trials.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                        Ok(())
                    });
                    assert!(got.is_ok());
                });
            }
        });
        assert_eq!(trials.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn who_waited_for_a_failure_gets_it_and_who_asks_later_tries_again() {
        let proof = Proof::default();
        let before = proof.ended.load(Ordering::Acquire);
        assert!(
            proof
                .get(|| Err(Error::unavailable("busy").with_hint("Wait.")))
                .is_err()
        );
        let waited = proof.get_since(before, || Ok(())).unwrap_err();
        assert_eq!(
            (waited.to_string().as_str(), waited.hint()),
            ("busy", Some("Wait."))
        );
        assert_eq!(waited.kind(), ErrorKind::Unavailable);
        assert!(proof.get(|| Ok(())).is_ok());
    }
}
