//! A store that counts what is asked of it, around any other.
//!
//! Counts requests by operation and outcome, with how long they took to be answered: reading a body that has begun to come
//! is not in it, sending one is. Changes no answer.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::base::digest::ContentsDigest;
use crate::error::Error;
use crate::store::waist::{Detail, Entry, Glance, Noted, Object, Published, Staged, Store, Trial};

/// Upper bounds of the classes of [`Latency`], in milliseconds.
pub const LATENCY_BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 20_000];

/// How long requests took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many took at most as long as each of [`LATENCY_BOUNDS_MS`], those of lower bounds left out.
    pub buckets: [u64; LATENCY_BOUNDS_MS.len()],
    /// How many there were, those above all bounds too.
    pub count: u64,
    /// How long all of them took together.
    pub total: Duration,
}

impl Latency {
    fn add(&mut self, took: Duration) {
        let bounds = LATENCY_BOUNDS_MS.iter().zip(&mut self.buckets);
        let mut bounds = bounds.map(|(ms, bucket)| (Duration::from_millis(*ms), bucket));
        if let Some((_, bucket)) = bounds.find(|(bound, _)| took <= *bound) {
            *bucket += 1;
        }
        self.count += 1;
        self.total += took;
    }
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// To store an object under a new key.
    Put,
    /// To open one.
    Get,
    /// To look what is noted with one.
    Look,
    /// To list keys.
    List,
    /// To make one durable that is there.
    Sync,
    /// To remove one.
    Remove,
}

impl Op {
    /// The word for it, in documents and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Op::Put => "put",
            Op::Get => "get",
            Op::Look => "look",
            Op::List => "list",
            Op::Sync => "sync",
            Op::Remove => "remove",
        }
    }
}

/// How it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestEnd {
    /// Done.
    Ok,
    /// There is no such object.
    Absent,
    /// There is such an object already.
    Exists,
    /// It failed, or was not answered.
    Failed,
}

impl RequestEnd {
    /// The word for it, in documents and metrics.
    pub fn word(self) -> &'static str {
        match self {
            RequestEnd::Ok => "ok",
            RequestEnd::Absent => "absent",
            RequestEnd::Exists => "exists",
            RequestEnd::Failed => "failed",
        }
    }
}

/// Requests by operation and end. Clones share what they count.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    counted: Arc<Mutex<BTreeMap<(Op, RequestEnd), Latency>>>,
}

impl Meter {
    /// What has been counted so far.
    pub fn counted(&self) -> BTreeMap<(Op, RequestEnd), Latency> {
        self.counted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn add(&self, op: Op, end: RequestEnd, took: Duration) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.entry((op, end)).or_default().add(took);
    }

    /// Makes a request, and counts it by what it ends with.
    fn count<T>(
        &self,
        op: Op,
        request: impl FnOnce() -> Result<T, Error>,
        end: impl FnOnce(&T) -> RequestEnd,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let answer = request();
        let end = answer.as_ref().map_or(RequestEnd::Failed, end);
        self.add(op, end, begun.elapsed());
        answer
    }
}

/// The store itself.
pub(crate) struct MeteredStore {
    inner: Box<dyn Store>,
    meter: Meter,
}

impl MeteredStore {
    pub(crate) fn new(inner: Box<dyn Store>, meter: Meter) -> MeteredStore {
        MeteredStore { inner, meter }
    }
}

fn ok<T>(_: &T) -> RequestEnd {
    RequestEnd::Ok
}

fn if_there(there: bool) -> RequestEnd {
    if there {
        RequestEnd::Ok
    } else {
        RequestEnd::Absent
    }
}

impl Store for MeteredStore {
    fn stage(&self, key: &str) -> Result<Box<dyn Staged>, Error> {
        let begun = Instant::now();
        match self.inner.stage(key) {
            Ok(inner) => Ok(Box::new(MeteredStaged {
                inner,
                meter: self.meter.clone(),
            })),
            Err(error) => {
                self.meter.add(Op::Put, RequestEnd::Failed, begun.elapsed());
                Err(error)
            }
        }
    }

    fn open(&self, key: &str) -> Result<Option<Object>, Error> {
        let open = || self.inner.open(key);
        self.meter
            .count(Op::Get, open, |found| if_there(found.is_some()))
    }

    fn glance(&self, key: &str) -> Result<Glance, Error> {
        // Where it is a look at all it costs next to nothing, so it is no request.
        self.inner.glance(key)
    }

    fn keeps_notes(&self) -> bool {
        self.inner.keeps_notes()
    }

    fn noted(&self, key: &str) -> Result<Noted, Error> {
        let look = || self.inner.noted(key);
        self.meter
            .count(Op::Look, look, |noted| if_there(*noted != Noted::Absent))
    }

    fn settle(&self, key: &str) -> Result<(), Error> {
        self.meter.count(Op::Sync, || self.inner.settle(key), ok)
    }

    fn list_after(
        &self,
        prefix: &str,
        start_after: &str,
        detail: Detail,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let list = || self.inner.list_after(prefix, start_after, detail, visit);
        self.meter.count(Op::List, list, ok)
    }

    fn lists_in_order(&self) -> bool {
        self.inner.lists_in_order()
    }

    fn skipped(&self) -> u64 {
        self.inner.skipped()
    }

    fn remove(&self, key: &str) -> Result<bool, Error> {
        let remove = || self.inner.remove(key);
        self.meter.count(Op::Remove, remove, |was| if_there(*was))
    }

    fn remove_leftovers(&self) -> Result<u64, Error> {
        self.inner.remove_leftovers()
    }

    fn stages_ahead(&self) -> bool {
        self.inner.stages_ahead()
    }

    fn staged_bytes(&self, bytes: u64) -> u64 {
        self.inner.staged_bytes(bytes)
    }

    fn opened_bytes(&self) -> u64 {
        self.inner.opened_bytes()
    }

    fn prove_creation(&self, trial: Trial<'_>) -> Result<(), Error> {
        self.inner.prove_creation(trial)
    }

    fn may_be_unmounted(&self) -> bool {
        self.inner.may_be_unmounted()
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

struct MeteredStaged {
    inner: Box<dyn Staged>,
    meter: Meter,
}

impl Write for MeteredStaged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Staged for MeteredStaged {
    fn prepare(&mut self) -> Result<(), Error> {
        self.inner.prepare()
    }

    fn note(&mut self, digest: ContentsDigest) {
        self.inner.note(digest);
    }

    fn publish(self: Box<Self>) -> Result<Published, Error> {
        let MeteredStaged { inner, meter } = *self;
        meter.count(
            Op::Put,
            || inner.publish(),
            |published| match published {
                Published::Created => RequestEnd::Ok,
                Published::Exists => RequestEnd::Exists,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty::{Faults, FaultyStore};
    use crate::store::memory::MemoryStore;

    fn put(store: &dyn Store, key: &str) -> Result<Published, Error> {
        let mut staged = store.stage(key)?;
        staged.write_all(b"x").unwrap();
        staged.publish()
    }

    #[test]
    fn each_request_is_counted_by_what_it_ended_with() {
        let meter = Meter::default();
        let store = MeteredStore::new(Box::new(MemoryStore::new()), meter.clone());
        assert_eq!(put(&store, "a").unwrap(), Published::Created);
        assert_eq!(put(&store, "a").unwrap(), Published::Exists);
        assert!(store.open("a").unwrap().is_some());
        assert!(store.open("b").unwrap().is_none());
        store
            .list("", Detail::Keys, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        store.settle("a").unwrap();
        assert!(store.remove("a").unwrap());
        assert!(!store.remove("a").unwrap());
        let counted: Vec<_> = meter.counted().into_iter().collect();
        let seen: Vec<_> = counted.iter().map(|(key, it)| (*key, it.count)).collect();
        use RequestEnd::{Absent, Exists, Ok};
        let wanted = [
            ((Op::Put, Ok), 1),
            ((Op::Put, Exists), 1),
            ((Op::Get, Ok), 1),
            ((Op::Get, Absent), 1),
            ((Op::List, Ok), 1),
            ((Op::Sync, Ok), 1),
            ((Op::Remove, Ok), 1),
            ((Op::Remove, Absent), 1),
        ];
        assert_eq!(seen, wanted);
    }

    #[test]
    fn a_request_that_fails_is_counted_as_failed() {
        let meter = Meter::default();
        let faults = Faults::seeded(1, 1000);
        let faulty = FaultyStore::new(Box::new(MemoryStore::new()), faults);
        let store = MeteredStore::new(Box::new(faulty), meter.clone());
        assert!(store.open("a").is_err());
        assert!(put(&store, "a").is_err());
        let counted = meter.counted();
        for op in [Op::Get, Op::Put] {
            assert_eq!(counted[&(op, RequestEnd::Failed)].count, 1, "{op:?}");
        }
    }

    #[test]
    fn a_duration_is_in_the_first_class_that_bounds_it() {
        let mut latency = Latency::default();
        for us in [0, 1_000, 1_001, 3_000, 20_000_000, 20_000_001] {
            latency.add(Duration::from_micros(us));
        }
        assert_eq!(latency.buckets, [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(latency.count, 6);
    }
}
