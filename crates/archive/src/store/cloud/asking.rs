//! One request until it is answered: deadlines, a few more tries, and patience with a store that has too much to do.
//!
//! Guarantees: no try waits longer than its limit; what may pass is tried [`TRIES_MAX`] times with the pauses of
//! `retry.rs`; when the store says that it is asked too much, all requests to it hold back together. Longer trouble is
//! the caller's, who knows how long to go on.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use object_store::{Error as StoreError, Result as StoreResult};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::store::retry::Backoff;

use super::connect::Credentials;
use super::failure::{CREDENTIALS, Failure, Meaning};

/// How often a request is made that fails in a way that may pass: what a lost connection or one bad server among many
/// needs. A caller that waits for a segment tries again anyway, from its start.
const TRIES_MAX: u32 = 3;

/// How often a request is made that the store has no time for; with the pauses of `retry.rs` about 15 s.
const THROTTLED_TRIES_MAX: u32 = 8;

/// How long the store may take to begin an answer, and for each piece of one.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(20);

/// How long the cloud may take to give credentials: three tries of that, and a server that holds none knows it. They are
/// seen to apart from the request: a metadata service's 404 must never be taken for the store's.
const CREDENTIALS_MAX: Duration = Duration::from_secs(8);

/// The slowest connection that is believed to be alive, in bytes a second: a request that sends so much may take so
/// long beyond [`SILENCE_MAX`].
const SLOWEST: u64 = 256 * 1024;

/// How long a request may take that sends so many bytes.
pub(super) fn limit_for(bytes: u64) -> Duration {
    SILENCE_MAX + Duration::from_secs(bytes / SLOWEST)
}

/// Holds requests back while the store is asked too much. One for each opened store.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<Option<Closed>>,
}

struct Closed {
    until: Instant,
    backoff: Backoff,
}

impl Gate {
    /// Waits until requests may be made again.
    async fn pass(&self) {
        while let Some(until) = self.closed_until() {
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn closed_until(&self) -> Option<Instant> {
        self.lock().as_ref().map(|closed| closed.until)
    }

    /// The store has too much to do: all wait, each time longer.
    fn close(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        let closed = state.get_or_insert_with(|| Closed {
            until: now,
            backoff: Backoff::new(),
        });
        // Requests that were under way together are told together, which counts once.
        if closed.until <= now {
            closed.until = now + closed.backoff.pause();
        }
    }

    /// The store answers again.
    fn open(&self) {
        self.lock().take();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Closed>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has credentials at hand. What goes wrong with that is told from what goes wrong with a store.
pub(super) async fn have(credentials: &Credentials) -> StoreResult<()> {
    let failed = |source| StoreError::Generic {
        store: CREDENTIALS,
        source,
    };
    match timeout(CREDENTIALS_MAX, credentials()).await {
        Ok(asked) => asked.map_err(|error| failed(error.into())),
        Err(_) => Err(failed(
            format!("no answer within {} s", CREDENTIALS_MAX.as_secs()).into(),
        )),
    }
}

/// Makes a request, again if need be, until it is answered or there is no use in it.
pub(super) async fn ask<T, F>(
    gate: &Gate,
    limit: Duration,
    request: impl Fn() -> F,
) -> Result<T, Failure>
where
    F: Future<Output = StoreResult<T>>,
{
    let mut backoff = Backoff::new();
    loop {
        gate.pass().await;
        let failure = match timeout(limit, request()).await {
            Ok(Ok(answer)) => {
                gate.open();
                return Ok(answer);
            }
            Ok(Err(error)) => Failure::of(&error),
            Err(_) => Failure::silence(limit.as_secs()),
        };
        let pause = backoff.pause();
        match failure.meaning {
            Meaning::Throttled if backoff.tries() < THROTTLED_TRIES_MAX => gate.close(),
            Meaning::Passing if backoff.tries() < TRIES_MAX => sleep(pause).await,
            _ => return Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn failing(status: u16) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: format!("status code: {status} X: y").into(),
        }
    }

    /// Asks for something that fails `failures` times with this status; how often it was asked for, and the end.
    fn asked(status: u16, failures: u32) -> (u32, Result<(), Failure>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let (gate, asked) = (Gate::default(), AtomicU32::new(0));
        let answer = runtime.block_on(ask(&gate, SILENCE_MAX, || {
            let before = asked.fetch_add(1, Ordering::SeqCst);
            async move {
                if before < failures {
                    Err(failing(status))
                } else {
                    Ok(())
                }
            }
        }));
        (asked.into_inner(), answer)
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_will_not_is_told_at_once() {
        for (status, failures, asked_for, is_answered) in [
            (500, 2, 3, true),
            (500, 9, TRIES_MAX, false),
            (403, 1, 1, false),
            (503, 4, 5, true),
        ] {
            let (count, answer) = asked(status, failures);
            assert_eq!(
                (count, answer.is_ok()),
                (asked_for, is_answered),
                "{status}"
            );
        }
    }

    #[test]
    fn a_store_that_has_too_much_to_do_holds_everybody_back() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let gate = Gate::default();
        gate.close();
        let closed_until = gate.closed_until().unwrap();
        let told_together = gate.closed_until();
        gate.close();
        assert_eq!(gate.closed_until(), told_together);
        let first = runtime.block_on(ask(&gate, SILENCE_MAX, || async { Ok(Instant::now()) }));
        assert!(first.unwrap() >= closed_until);
        assert_eq!(gate.closed_until(), None);
    }

    #[test]
    fn a_request_may_take_longer_the_more_it_sends() {
        assert_eq!(limit_for(0), SILENCE_MAX);
        assert_eq!(
            limit_for(16 * 1024 * 1024),
            SILENCE_MAX + Duration::from_secs(64)
        );
    }
}
