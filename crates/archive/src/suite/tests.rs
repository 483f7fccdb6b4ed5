//! The suite over every store of this crate, and over stores made to be caught by it.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tempfile::{TempDir, tempdir};

use super::*;
use crate::store::dir::durable::{Disk, Staging};
use crate::{
    Detail, DirStore, Entry, Faults, FaultyStore, MemoryStore, Object, Published, Staged, Store,
};

struct Directories {
    root: TempDir,
    number: u64,
    open: fn(&Path) -> Result<DirStore, Error>,
}

impl Directories {
    fn new(open: fn(&Path) -> Result<DirStore, Error>) -> Directories {
        Directories {
            root: tempdir().unwrap(),
            number: 0,
            open,
        }
    }

    fn path(&self) -> PathBuf {
        self.root.path().join(self.number.to_string())
    }
}

impl Subject for Directories {
    fn reset(&mut self) -> Result<(), Error> {
        self.number += 1;
        fs::create_dir(self.path()).map_err(|cause| Error::io("could not create directory", cause))
    }

    fn open(&self) -> Result<Box<dyn Store>, Error> {
        Ok(Box::new((self.open)(&self.path())?))
    }
}

#[derive(Default)]
struct Memories {
    store: MemoryStore,
    are_far: bool,
}

impl Subject for Memories {
    fn reset(&mut self) -> Result<(), Error> {
        self.store = if self.are_far {
            MemoryStore::remote()
        } else {
            MemoryStore::new()
        };
        Ok(())
    }

    fn open(&self) -> Result<Box<dyn Store>, Error> {
        Ok(Box::new(self.store.clone()))
    }
}

fn report(subject: &mut dyn Subject) -> Report {
    report_with(subject, seed_from_environment())
}

fn report_with(subject: &mut dyn Subject, seed: u64) -> Report {
    let _calm = crate::store::dir::forks::none();
    let scratch = tempdir().unwrap();
    let report = run(subject, scratch.path(), seed);
    println!("{report}");
    report
}

#[test]
fn a_directory_keeps_every_promise() {
    assert!(report(&mut Directories::new(DirStore::open)).all_kept());
}

#[test]
fn a_directory_with_named_staged_files_keeps_every_promise() {
    assert!(report(&mut Directories::new(DirStore::open_with_named_staging)).all_kept());
}

fn with_staging(path: &Path, staging: Staging) -> Result<DirStore, Error> {
    DirStore::with_disk(
        path,
        Disk {
            staging,
            ..Disk::default()
        },
    )
}

#[test]
fn a_directory_whose_unnamed_files_cannot_be_linked_keeps_every_promise() {
    let open = |path: &Path| with_staging(path, Staging::UnnamedUnlinkable);
    assert!(report(&mut Directories::new(open)).all_kept());
}

#[test]
fn a_directory_without_hard_links_keeps_every_promise() {
    let open = |path: &Path| with_staging(path, Staging::NamedUnlinkable);
    assert!(report(&mut Directories::new(open)).all_kept());
}

#[test]
fn memory_keeps_every_promise() {
    assert!(report(&mut Memories::default()).all_kept());
}

#[test]
fn a_store_that_is_far_away_keeps_every_promise() {
    let mut memories = Memories {
        are_far: true,
        ..Memories::default()
    };
    assert!(report(&mut memories).all_kept());
}

#[test]
fn the_same_seed_finds_the_same() {
    let scratch = [tempdir().unwrap(), tempdir().unwrap()];
    let random = |scratch: &TempDir| {
        let report = run(&mut Memories::default(), scratch.path(), 42);
        report
            .checked
            .into_iter()
            .filter(|checked| checked.promise.contains("faults"))
            .collect::<Vec<_>>()
    };
    assert_eq!(random(&scratch[0]), random(&scratch[1]));
}

/// How a planted store breaks its promises.
#[derive(Clone, Copy, PartialEq)]
enum Sin {
    /// Publishing overwrites an object that is there.
    Overwrites,
    /// What could not be looked for is absent.
    CallsErrorsAbsent,
    /// An object is there as soon as it is staged.
    ShowsTooEarly,
    /// Every fifth object is acknowledged and forgotten.
    Forgets,
}

#[derive(Clone)]
struct Sinner {
    sin: Sin,
    memory: MemoryStore,
    published: Arc<Mutex<u64>>,
}

impl Subject for Sinner {
    fn reset(&mut self) -> Result<(), Error> {
        self.memory = MemoryStore::new();
        Ok(())
    }

    fn open(&self) -> Result<Box<dyn Store>, Error> {
        Ok(Box::new(SinfulStore {
            sinner: self.clone(),
            inner: Box::new(self.memory.clone()),
        }))
    }

    fn open_faulty(&self, faults: &Faults) -> Result<Box<dyn Store>, Error> {
        let inner = Box::new(FaultyStore::new(
            Box::new(self.memory.clone()),
            faults.clone(),
        ));
        Ok(Box::new(SinfulStore {
            sinner: self.clone(),
            inner,
        }))
    }
}

struct SinfulStore {
    sinner: Sinner,
    inner: Box<dyn Store>,
}

impl Store for SinfulStore {
    fn stage(&self, key: &str) -> Result<Box<dyn Staged>, Error> {
        let inner = self.inner.stage(key)?;
        if self.sinner.sin == Sin::ShowsTooEarly {
            self.sinner.memory.overwrite(key, b"half");
        }
        Ok(Box::new(SinfulStaged {
            sinner: self.sinner.clone(),
            inner,
            key: key.to_owned(),
        }))
    }

    fn open(&self, key: &str) -> Result<Option<Object>, Error> {
        match self.inner.open(key) {
            Err(_) if self.sinner.sin == Sin::CallsErrorsAbsent => Ok(None),
            answer => answer,
        }
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

struct SinfulStaged {
    sinner: Sinner,
    inner: Box<dyn Staged>,
    key: String,
}

impl std::io::Write for SinfulStaged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl Staged for SinfulStaged {
    fn publish(self: Box<Self>) -> Result<Published, Error> {
        let memory = &self.sinner.memory;
        if matches!(self.sinner.sin, Sin::Overwrites | Sin::ShowsTooEarly) {
            memory.remove(&self.key)?;
        }
        let published = self.inner.publish()?;
        let mut count = self.sinner.published.lock().unwrap();
        *count += 1;
        if self.sinner.sin == Sin::Forgets && count.is_multiple_of(5) {
            memory.remove(&self.key)?;
        }
        Ok(published)
    }
}

/// Fixed seeds: whether random operations meet a planted fault is a matter of chance, and a test of the suite
/// must not be. Genuine stores are tried with a new seed each time.
const SEEDS: [u64; 3] = [1, 2, 3];

fn broken_by(sin: Sin) -> Vec<&'static str> {
    let broken = SEEDS.into_iter().flat_map(|seed| {
        let mut sinner = Sinner {
            sin,
            memory: MemoryStore::new(),
            published: Arc::default(),
        };
        report_with(&mut sinner, seed).broken()
    });
    broken.collect()
}

#[test]
fn a_store_that_overwrites_is_caught() {
    let broken = broken_by(Sin::Overwrites);
    assert!(broken.contains(&"creating never overwrites"), "{broken:?}");
}

#[test]
fn a_store_that_calls_errors_absent_is_caught_by_random_operations() {
    let broken = broken_by(Sin::CallsErrorsAbsent);
    assert!(
        broken
            .iter()
            .any(|promise| promise.starts_with("with many faults")),
        "{broken:?}"
    );
}

#[test]
fn a_store_that_shows_objects_too_early_is_caught() {
    let broken = broken_by(Sin::ShowsTooEarly);
    assert!(
        broken.contains(&"an object is invisible until it is published"),
        "{broken:?}"
    );
}

#[test]
fn a_store_that_forgets_what_it_acknowledged_is_caught_by_random_operations() {
    let broken = broken_by(Sin::Forgets);
    assert!(
        broken
            .iter()
            .any(|promise| promise.starts_with("with rare faults")),
        "{broken:?}"
    );
}
