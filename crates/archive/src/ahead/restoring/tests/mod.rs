//! The engine over stores in memory, with recovery played by the test: `window.rs` asks for what is there and what is
//! not, `trouble.rs` has the archive fail, hang and be slow; `state.rs` has the state alone.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;

mod state;
mod trouble;
mod window;

use super::state::FetchJob;
use super::*;
use crate::ahead::memory;
use crate::base::clock::Clock;
use crate::base::spawn::spawn_plainly;
use crate::cancel::Cancel;
use crate::options::Options;
use crate::suite::fixtures;
use crate::{
    AsStored, Compression, Detail, Entry, ErrorKind, Faults, FaultyStore, Glance, MemoryStore,
    Object, Staged, Store,
};
use std::io::{self, Read};
use std::sync::{Condvar, Mutex, mpsc};
use std::time::Instant;
use tempfile::TempDir;
use wal::{SegmentName, TimelineId};

const OURS: SystemIdentifier = SystemIdentifier(7);

/// Nothing here takes long; a test that waits so long has hung.
const PATIENCE: Duration = Duration::from_secs(60);

fn segment(number: u64) -> SegmentName {
    on_timeline(1, number)
}

fn on_timeline(timeline: u32, number: u64) -> SegmentName {
    let timeline = TimelineId::new(timeline).unwrap();
    SegmentName::new(timeline, wal::SegmentNumber(number), SegmentSize::SMALLEST)
}

fn contents(name: &SegmentName) -> Vec<u8> {
    fixtures::segment(
        name,
        SegmentSize::SMALLEST,
        OURS,
        u64::from(name.position().1),
    )
}

/// A store that counts how often each object is opened, and holds whoever opens one that is to be held.
#[derive(Clone)]
struct Watched {
    inner: Arc<dyn Store>,
    seen: Arc<Mutex<Seen>>,
    released: Arc<Condvar>,
}

#[derive(Default)]
struct Seen {
    opened: BTreeMap<String, u64>,
    lists: u64,
    held: Vec<String>,
    waiting: usize,
    /// What is read of these panics.
    poisoned: Vec<String>,
    /// Every object takes this long to open.
    delay: Duration,
    /// And so much memory while it is open.
    opened_bytes: u64,
}

impl Watched {
    fn new(inner: impl Store + 'static) -> Watched {
        Watched {
            inner: Arc::new(inner),
            seen: Arc::default(),
            released: Arc::default(),
        }
    }

    /// How often a file was opened, under whatever suffix it has.
    fn opened(&self, name: &SegmentName) -> u64 {
        let name = name.to_string();
        let seen = self.seen.lock().unwrap();
        let opened = seen.opened.iter();
        opened
            .filter(|(key, _)| key.starts_with(&name))
            .map(|(_, count)| count)
            .sum()
    }

    fn lists(&self) -> u64 {
        self.seen.lock().unwrap().lists
    }

    fn hold(&self, name: &SegmentName) {
        self.seen.lock().unwrap().held.push(name.to_string());
    }

    fn release(&self) {
        self.seen.lock().unwrap().held.clear();
        self.released.notify_all();
    }

    fn waiting(&self) -> usize {
        self.seen.lock().unwrap().waiting
    }
}

impl Store for Watched {
    fn stage(&self, key: &str) -> Result<Box<dyn Staged>, Error> {
        self.inner.stage(key)
    }

    fn open(&self, key: &str) -> Result<Option<Object>, Error> {
        let mut seen = self.seen.lock().unwrap();
        if seen.held.iter().any(|held| key.starts_with(held.as_str())) {
            seen.waiting += 1;
            seen = self
                .released
                .wait_while(seen, |seen| {
                    seen.held.iter().any(|held| key.starts_with(held.as_str()))
                })
                .unwrap();
            seen.waiting -= 1;
        }
        let poisoned = seen.poisoned.iter().any(|name| key.starts_with(name));
        let delay = seen.delay;
        drop(seen);
        let object = self.inner.open(key)?;
        if object.is_some() {
            // This is what is slow here; nothing waits for it to be over.
            Cancel::new().wait(delay);
        }
        if object.is_some() {
            *self
                .seen
                .lock()
                .unwrap()
                .opened
                .entry(key.to_owned())
                .or_default() += 1;
        }
        Ok(object.map(|object| {
            if poisoned {
                Object {
                    reader: Box::new(Poison),
                    ..object
                }
            } else {
                object
            }
        }))
    }

    fn glance(&self, key: &str) -> Result<Glance, Error> {
        self.inner.glance(key)
    }

    fn settle(&self, key: &str) -> Result<(), Error> {
        self.inner.settle(key)
    }

    fn list_after(
        &self,
        prefix: &str,
        start_after: &str,
        detail: Detail,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.seen.lock().unwrap().lists += 1;
        self.inner.list_after(prefix, start_after, detail, visit)
    }

    fn remove(&self, key: &str) -> Result<bool, Error> {
        self.inner.remove(key)
    }

    fn remove_leftovers(&self) -> Result<u64, Error> {
        self.inner.remove_leftovers()
    }

    fn opened_bytes(&self) -> u64 {
        self.seen.lock().unwrap().opened_bytes
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

struct Poison;

impl Read for Poison {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("planted")
    }
}

/// A recovery: an engine over a store, and a directory to restore into.
struct Recovery {
    store: Watched,
    memory: MemoryStore,
    clock: Clock,
    prefetch: Prefetch,
    notified: mpsc::Receiver<()>,
    folder: TempDir,
    /// What every request has in common.
    request: RestoreRequest,
    requests: Cell<u64>,
}

impl Recovery {
    fn new(prefetch_max: usize) -> Recovery {
        let memory = MemoryStore::new();
        Recovery::over(memory.clone(), Watched::new(memory), prefetch_max)
    }

    fn over(memory: MemoryStore, store: Watched, prefetch_max: usize) -> Recovery {
        let clock = Clock::given();
        let folder = tempfile::tempdir().unwrap();
        let (notify, notified) = mpsc::channel();
        let theirs = store.clone();
        let prefetch = Prefetch::with(
            spawn_plainly,
            move || {
                let _ = notify.send(());
            },
            move |place: &Place| {
                Ok(Archive::with_store(
                    Box::new(theirs.clone()),
                    place.options.clone(),
                ))
            },
            clock.clone(),
        );
        let request = RestoreRequest {
            name: WalFileName::Segment(segment(1)),
            dest: folder.path().join("RECOVERYXLOG"),
            in_line: true,
            place: Place {
                location: "/archive".parse().unwrap(),
                options: Options::default(),
            },
            system: OURS,
            size: SegmentSize::SMALLEST,
            rule: Arc::new(AsStored),
            prefetch_max,
            memory_limit: 128 << 20,
        };
        Recovery {
            clock,
            store,
            memory,
            prefetch,
            notified,
            folder,
            request,
            requests: Cell::new(0),
        }
    }

    /// Puts these segments of timeline 1 into the archive.
    fn holding(self, numbers: impl IntoIterator<Item = u64>) -> Recovery {
        for number in numbers {
            self.put(&segment(number));
        }
        self
    }

    fn put(&self, name: &SegmentName) {
        self.memory.overwrite(&name.to_string(), &contents(name));
    }

    fn try_ask(&mut self, request: RestoreRequest) -> Result<Answer, Error> {
        answered(&mut self.prefetch.ask(request)?, &self.notified)
    }

    fn ask(&mut self, name: SegmentName) -> Result<Answer, Error> {
        self.try_ask(self.requesting(name))
    }

    /// A request for this segment, to a path that is free.
    fn requesting(&self, name: SegmentName) -> RestoreRequest {
        self.requests.set(self.requests.get() + 1);
        let dest = format!("{}.RECOVERYXLOG", self.requests.get());
        RestoreRequest {
            name: WalFileName::Segment(name),
            dest: self.folder.path().join(dest),
            ..self.request.clone()
        }
    }

    /// What the last request has brought.
    fn brought(&self) -> Vec<u8> {
        let dest = format!("{}.RECOVERYXLOG", self.requests.get());
        fs::read(self.folder.path().join(dest)).unwrap()
    }

    /// Asks for a segment that is there, and checks it; true if it was fetched ahead.
    fn restore(&mut self, name: SegmentName) -> bool {
        match self.ask(name).unwrap() {
            Answer::Restored { bytes, ahead } => {
                assert_eq!(bytes, SegmentSize::SMALLEST.bytes());
                assert!(self.brought() == contents(&name), "{name}");
                ahead
            }
            other => panic!("{name}: {other:?}"),
        }
    }

    fn until(&self, what: &str, met: impl Fn(&State) -> bool) {
        let begun = Instant::now();
        while !met(&self.prefetch.pool.state()) {
            assert!(begun.elapsed() < PATIENCE, "{what}");
            std::thread::yield_now();
        }
    }

    /// Waits until nothing is under way.
    fn settle(&self) {
        self.until("fetches ahead go on and on", |state| {
            let may_begin = |job: &FetchJob| job.is_in_turn() && state.workers_ahead > 0;
            state.under_way() == 0 && !state.window().any(may_begin)
        });
    }

    /// As [`Recovery::restore`], with time for what is fetched ahead before it.
    fn restore_later(&mut self, name: SegmentName) -> bool {
        self.settle();
        self.restore(name)
    }

    fn files(&self) -> usize {
        fs::read_dir(self.folder.path()).unwrap().count()
    }
}

/// Waits for the answer, as an owner does.
fn answered(
    pending: &mut PendingRequest<'_>,
    notified: &mpsc::Receiver<()>,
) -> Result<Answer, Error> {
    loop {
        if let Some(answer) = pending.answer() {
            return answer;
        }
        notified.recv_timeout(PATIENCE).expect("no answer came");
    }
}

/// Waits until a worker has every demand.
fn until_begun(pool: &Pool<State>) {
    let begun = Instant::now();
    let in_turn = |job: &FetchJob| job.is_in_turn() && job.work.is_demanded();
    while pool.state().jobs.iter().any(in_turn) {
        assert!(begun.elapsed() < PATIENCE, "a demand is left alone");
        std::thread::yield_now();
    }
}
