//! What a proxy does to requests.
//!
//! Guarantees that the same seed does the same to the n-th request of a method and path, however requests are
//! interleaved. Leaves carrying it out to the proxy.

use std::time::Duration;

/// One way for a request to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status, e.g. 500, 503, 429 or 403, and never reaches the store.
    Status(u16),
    /// The connection is reset, and the request never reaches the store.
    ResetBefore,
    /// The store has done what it was asked, and the connection is reset instead of the answer.
    ResetAfter,
    /// The answer's body ends in the middle, and the connection with it. An answer without a body is lost.
    Truncated,
    /// No answer until the proxy's behaviour is changed; then the request is treated as the new one says.
    Stall,
}

/// What a proxy does from now on. The default is nothing.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    latency: Duration,
    faults: Vec<Fault>,
    per_mille: u64,
    seed: u64,
    times_max: Option<u64>,
    method: String,
    path: String,
    refuses: bool,
}

impl Behaviour {
    /// Each request is forwarded this much later.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Behaviour {
        self.latency = latency;
        self
    }

    /// Every request has this fault.
    #[must_use]
    pub fn always(self, fault: Fault) -> Behaviour {
        self.sometimes(1000, 0, &[fault])
    }

    /// Of a thousand requests about this many fail, each with one of these faults. Which ones depends on the seed, on
    /// method and path, and on how often that path has been asked for.
    #[must_use]
    pub fn sometimes(mut self, per_mille: u64, seed: u64, faults: &[Fault]) -> Behaviour {
        (self.per_mille, self.seed) = (per_mille, seed);
        self.faults = faults.to_vec();
        self
    }

    /// After this many faults there are no more.
    #[must_use]
    pub fn at_most(mut self, times: u64) -> Behaviour {
        self.times_max = Some(times);
        self
    }

    /// Only requests of this method, unless it is empty, whose path and query contain this are treated so; the others
    /// pass.
    #[must_use]
    pub fn only(mut self, method: &str, path: &str) -> Behaviour {
        (self.method, self.path) = (method.to_owned(), path.to_owned());
        self
    }

    /// Connections are refused, and those there are have been reset.
    #[must_use]
    pub fn refuse(mut self) -> Behaviour {
        self.refuses = true;
        self
    }

    pub(super) fn refuses(&self) -> bool {
        self.refuses
    }

    pub(super) fn times_max(&self) -> Option<u64> {
        self.times_max
    }

    /// What becomes of the `count`th request of this method and path: how late, and how it fails.
    pub(super) fn fate(&self, method: &str, path: &str, count: u64) -> (Duration, Option<Fault>) {
        let is_meant = self.method.is_empty() || self.method == method;
        if !is_meant || !path.contains(&self.path) {
            return (Duration::ZERO, None);
        }
        // FNV-1a, so that neighbouring paths and counts begin at unrelated places.
        let bytes = method.bytes().chain(path.bytes());
        let start = bytes
            .chain(count.to_le_bytes())
            .fold(self.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let mut random = fastrand::Rng::with_seed(start);
        let fails = random.u64(0..1000) < self.per_mille;
        let fault = random.choice(self.faults.iter().copied());
        (self.latency, fault.filter(|_| fails))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_as_many_requests_fail_as_were_asked_for_and_the_same_ones_again() {
        let faults = [Fault::Status(500), Fault::ResetAfter];
        let behaviour = Behaviour::default().sometimes(100, 7, &faults);
        let play = |behaviour: &Behaviour| -> Vec<Option<Fault>> {
            let paths = (0..2000).map(|number| format!("/bucket/{number:08X}"));
            paths
                .map(|path| behaviour.fate("PUT", &path, 1).1)
                .collect()
        };
        let first = play(&behaviour);
        let failed = first.iter().flatten().count();
        assert!((120..280).contains(&failed), "{failed} of 2000");
        for fault in faults {
            let seen = first.iter().flatten().filter(|one| **one == fault).count();
            assert!(seen > failed / 4, "{fault:?} {seen} times of {failed}");
        }
        assert_eq!(play(&behaviour), first);
        assert_ne!(play(&behaviour.clone().sometimes(100, 8, &faults)), first);
        let again = (1..200).filter_map(|count| behaviour.fate("PUT", "/x", count).1);
        assert!(
            (5..50).contains(&again.count()),
            "an attempt's fate is the path's"
        );
    }

    #[test]
    fn what_is_not_meant_passes_at_once() {
        let late = Duration::from_millis(9);
        let behaviour = Behaviour::default()
            .latency(late)
            .always(Fault::Status(403))
            .only("PUT", "0001");
        let refused = (late, Some(Fault::Status(403)));
        assert_eq!(behaviour.fate("PUT", "/b/0001", 1), refused);
        assert_eq!(behaviour.fate("GET", "/b/0001", 1), (Duration::ZERO, None));
        assert_eq!(behaviour.fate("PUT", "/b/0002", 1), (Duration::ZERO, None));
    }
}
