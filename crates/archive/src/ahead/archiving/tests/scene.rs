//! A server's part, as simple as the server's own loop, and stores that are slow, watched, or refuse.

use super::super::*;
use crate::base::spawn::spawn_plainly;
use crate::suite::fixtures;
use crate::{Compression, Detail, Entry, Glance, MemoryStore, Object, Options, Staged, Store};
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use tempfile::TempDir;
use wal::{SegmentName, SegmentSize};

pub(super) const SYSTEM: SystemIdentifier = SystemIdentifier(7);
pub(super) const LONG: Duration = Duration::from_secs(60);

/// A server's `pg_wal`, and an engine at work on it.
pub(super) struct Scene {
    pub(super) wal: TempDir,
    pub(super) store: MemoryStore,
    pub(super) notifier: Arc<(Mutex<u64>, Condvar)>,
    pub(super) archiving: Archiving,
    pub(super) jobs: usize,
    pub(super) clock: Clock,
}

impl Scene {
    pub(super) fn new(jobs: usize) -> Scene {
        Scene::over(jobs, |store| Box::new(store))
    }

    /// Over a store where a file is staged and then given its name, as in a directory.
    pub(super) fn over(jobs: usize, wrap: impl FnOnce(MemoryStore) -> Box<dyn Store>) -> Scene {
        Scene::at(MemoryStore::new(), Clock::system(), jobs, wrap)
    }

    /// Over one where files are sent, as to an object store.
    pub(super) fn far(jobs: usize, wrap: impl FnOnce(MemoryStore) -> Box<dyn Store>) -> Scene {
        Scene::at(MemoryStore::remote(), Clock::system(), jobs, wrap)
    }

    pub(super) fn at(
        store: MemoryStore,
        clock: Clock,
        jobs: usize,
        wrap: impl FnOnce(MemoryStore) -> Box<dyn Store>,
    ) -> Scene {
        let wal = tempfile::tempdir().unwrap();
        fs::create_dir(wal.path().join("archive_status")).unwrap();
        let options = Options {
            compression: Compression::Zstd(1),
            ..Options::default()
        };
        let archive = Arc::new(Archive::with_store(wrap(store.clone()), options));
        let notifier = Arc::new((Mutex::new(0), Condvar::new()));
        let notified = Arc::clone(&notifier);
        let notify = move || {
            *notified.0.lock().unwrap() += 1;
            notified.1.notify_all();
        };
        let archiving = Archiving::by_clock(archive, SYSTEM, spawn_plainly, clock.clone(), notify);
        Scene {
            wal,
            store,
            notifier,
            archiving,
            jobs,
            clock,
        }
    }

    pub(super) fn path(&self, name: &WalFileName) -> PathBuf {
        self.wal.path().join(name.to_string())
    }

    pub(super) fn ready(&self, name: &WalFileName) -> PathBuf {
        self.wal
            .path()
            .join("archive_status")
            .join(format!("{name}.ready"))
    }

    pub(super) fn write(&self, name: &WalFileName, variant: u64) {
        let segment = name.segment().unwrap();
        fs::write(
            self.path(name),
            fixtures::segment(segment, megabyte(), SYSTEM, variant),
        )
        .unwrap();
    }

    /// Segments from 1 to `count`, all ready.
    pub(super) fn backlog(&self, count: u64) -> Vec<WalFileName> {
        let names: Vec<_> = (1..=count).map(segment).collect();
        for (variant, name) in (1..).zip(&names) {
            self.write(name, variant);
            fs::write(self.ready(name), "").unwrap();
        }
        names
    }

    pub(super) fn ask(&self, name: &WalFileName, deadline: Instant) -> Option<Put> {
        let limits = ArchivingLimits {
            jobs: self.jobs,
            memory: 1 << 30,
        };
        self.archiving
            .ask(name, &self.path(name), deadline, limits)
            .unwrap()
    }

    /// What the archiver does with one file: asks, waits, and on success tells the server.
    pub(super) fn archive(&self, name: &WalFileName, wait_max: Duration) -> Result<Put, Error> {
        let deadline = self.clock.now() + wait_max;
        if let Some(put) = self.ask(name, deadline) {
            fs::remove_file(self.ready(name)).unwrap();
            return Ok(put);
        }
        let mut notified = self.notifier.0.lock().unwrap();
        loop {
            if let Some(outcome) = self.archiving.poll(name) {
                if outcome.is_ok() {
                    let _ = fs::remove_file(self.ready(name));
                }
                return outcome;
            }
            let (again, waited) = self.notifier.1.wait_timeout(notified, LONG).unwrap();
            assert!(!waited.timed_out(), "no answer about {name}");
            notified = again;
        }
    }

    pub(super) fn until_stored(&self, name: &WalFileName) {
        let begun = Instant::now();
        let key = name.to_string();
        while self.store.open(&key).unwrap().is_none() {
            assert!(begun.elapsed() < LONG, "{name} is never archived");
            std::thread::yield_now();
        }
    }

    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut visit = |entry: Entry| {
            keys.push(entry.key);
            ControlFlow::Continue(())
        };
        self.store.list("", Detail::Keys, &mut visit).unwrap();
        keys.retain(|key| key != crate::BINDING_KEY);
        keys.sort();
        keys
    }
}

pub(super) fn megabyte() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

pub(super) fn segment(number: u64) -> WalFileName {
    let name = format!("0000000100000000{number:08X}");
    WalFileName::Segment(name.parse::<SegmentName>().unwrap())
}

/// A store that calls hooks before an object is begun, or looked for, and refuses those of one name.
pub(super) struct Hooked {
    pub(super) inner: MemoryStore,
    pub(super) on_stage: Box<dyn Fn(&str) + Send + Sync>,
    pub(super) on_open: Box<dyn Fn(&str) + Send + Sync>,
    pub(super) refused: Option<WalFileName>,
}

impl Hooked {
    pub(super) fn new(inner: MemoryStore) -> Hooked {
        Hooked {
            inner,
            on_stage: Box::new(|_| ()),
            on_open: Box::new(|_| ()),
            refused: None,
        }
    }
}

pub(super) fn hooked(
    inner: MemoryStore,
    on_stage: impl Fn(&str) + Send + Sync + 'static,
) -> Box<dyn Store> {
    let on_stage = Box::new(on_stage);
    Box::new(Hooked {
        on_stage,
        ..Hooked::new(inner)
    })
}

impl Store for Hooked {
    fn stage(&self, key: &str) -> Result<Box<dyn Staged>, Error> {
        (self.on_stage)(key);
        if self
            .refused
            .is_some_and(|name| key.starts_with(&name.to_string()))
        {
            return Err(Error::unavailable("refused"));
        }
        self.inner.stage(key)
    }

    fn open(&self, key: &str) -> Result<Option<Object>, Error> {
        (self.on_open)(key);
        self.inner.open(key)
    }

    fn glance(&self, key: &str) -> Result<Glance, Error> {
        (self.on_open)(key);
        self.inner.glance(key)
    }

    fn stages_ahead(&self) -> bool {
        self.inner.stages_ahead()
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
        self.inner.list_after(prefix, start_after, detail, visit)
    }

    fn remove(&self, key: &str) -> Result<bool, Error> {
        self.inner.remove(key)
    }

    fn remove_leftovers(&self) -> Result<u64, Error> {
        self.inner.remove_leftovers()
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

/// A gate that the objects of one name wait at.
#[derive(Clone, Default)]
pub(super) struct Gate {
    pub(super) open: Arc<(Mutex<bool>, Condvar)>,
    pub(super) visitors: Arc<AtomicUsize>,
}

impl Gate {
    pub(super) fn pass(&self) {
        self.visitors.fetch_add(1, Ordering::SeqCst);
        let open = self.open.0.lock().unwrap();
        drop(
            self.open
                .1
                .wait_timeout_while(open, LONG, |open| !*open)
                .unwrap(),
        );
    }

    pub(super) fn until_visited(&self) {
        let begun = Instant::now();
        while self.visitors.load(Ordering::SeqCst) == 0 {
            assert!(begun.elapsed() < LONG, "nobody comes to the gate");
            std::thread::yield_now();
        }
    }

    pub(super) fn open(&self) {
        *self.open.0.lock().unwrap() = true;
        self.open.1.notify_all();
    }
}

pub(super) fn held_at(
    name: WalFileName,
    gate: &Gate,
) -> impl FnOnce(MemoryStore) -> Box<dyn Store> + use<> {
    let gate = gate.clone();
    move |inner| {
        hooked(inner, move |key: &str| {
            if key.starts_with(&name.to_string()) {
                gate.pass();
            }
        })
    }
}
