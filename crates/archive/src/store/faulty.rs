//! A store that fails on purpose, around any other, from a seed that replays it.
//!
//! Its faults, each drawn with the same probability at each chance:
//! * stage: fails;
//! * write: fails in the middle of an object; prepare: fails;
//! * publish: fails before anything happened; or publishes and then fails, so that the answer is lost;
//! * open: fails, whether the object is there or not;
//! * read: fails midway; or ends early, as if the object were shorter; or is interrupted; or is short
//!   (legal);
//! * settle: fails before, or after the work;
//! * list: fails at once, or midway;
//! * remove: fails before, or after the work;
//! * remove_leftovers: fails.
//!
//! One that repeats has none of these: what it creates it creates twice, as a store does whose first answer was lost, and tells
//! what came of the second time.
//!
//! Guarantees: it never invents an answer. It does not corrupt bytes, lose objects or answer "absent" for an
//! object that is there: a store that does these breaks its promises, and no archive could hold over it.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fastrand::Rng;

use crate::base::digest::ContentsDigest;
use crate::error::Error;
use crate::store::waist::{Detail, Entry, Glance, Noted, Object, Published, Staged, Store, Trial};

/// How often, and from which seed. Clones share one sequence of faults and one switch.
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

struct Shared {
    random: Mutex<Rng>,
    per_mille: u64,
    on: AtomicBool,
    injected: AtomicU64,
}

impl Faults {
    /// Faults that come with a probability of `per_mille` in a thousand at every chance.
    pub fn seeded(seed: u64, per_mille: u64) -> Faults {
        Faults {
            shared: Arc::new(Shared {
                random: Mutex::new(Rng::with_seed(seed)),
                per_mille,
                on: AtomicBool::new(true),
                injected: AtomicU64::new(0),
            }),
        }
    }

    /// No more faults from here on.
    pub fn stop(&self) {
        self.shared.on.store(false, Ordering::Release);
    }

    /// How many faults there have been.
    pub fn injected(&self) -> u64 {
        self.shared.injected.load(Ordering::Acquire)
    }

    /// Draws: is there a fault now?
    fn strike(&self) -> bool {
        let struck =
            self.shared.on.load(Ordering::Acquire) && self.below(1000) < self.shared.per_mille;
        if struck {
            self.shared.injected.fetch_add(1, Ordering::AcqRel);
        }
        struck
    }

    fn below(&self, limit: u64) -> u64 {
        let mut random = self
            .shared
            .random
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        random.u64(..limit.max(1))
    }

    /// An error if there is a fault now.
    fn fail(&self, what: &str) -> Result<(), Error> {
        if self.strike() {
            return Err(Error::unavailable(format!("injected fault: {what}")));
        }
        Ok(())
    }
}

/// Any store, with faults.
pub struct FaultyStore {
    inner: Box<dyn Store>,
    faults: Faults,
    /// Whether each creation is told as the repetition of one whose answer was lost.
    repeats: bool,
}

impl FaultyStore {
    /// Wraps a store.
    pub fn new(inner: Box<dyn Store>, faults: Faults) -> FaultyStore {
        FaultyStore {
            inner,
            faults,
            repeats: false,
        }
    }

    /// Wraps a store so that every creation is told as [`Published::Exists`], though by nobody else.
    pub fn repeating(inner: Box<dyn Store>) -> FaultyStore {
        FaultyStore {
            inner,
            faults: Faults::seeded(0, 0),
            repeats: true,
        }
    }

    fn with_faults(&self, object: Object) -> Object {
        let fault = if self.faults.strike() {
            let at = self.faults.below(object.bytes);
            if self.faults.below(2) == 0 {
                ReadFault::Error { at }
            } else {
                ReadFault::End { at }
            }
        } else {
            ReadFault::Never
        };
        let reader = FaultyReader {
            inner: object.reader,
            fault,
            faults: self.faults.clone(),
        };
        Object {
            reader: Box::new(reader),
            ..object
        }
    }
}

impl Store for FaultyStore {
    fn stage(&self, key: &str) -> Result<Box<dyn Staged>, Error> {
        self.faults.fail("could not stage")?;
        let inner = self.inner.stage(key)?;
        Ok(Box::new(FaultyStaged {
            inner,
            faults: self.faults.clone(),
            repeats: self.repeats,
        }))
    }

    fn open(&self, key: &str) -> Result<Option<Object>, Error> {
        self.faults.fail("could not open")?;
        let opened = self.inner.open(key)?;
        Ok(opened.map(|object| self.with_faults(object)))
    }

    fn glance(&self, key: &str) -> Result<Glance, Error> {
        self.faults.fail("could not look")?;
        Ok(match self.inner.glance(key)? {
            Glance::Object(object) => Glance::Object(self.with_faults(object)),
            other => other,
        })
    }

    fn keeps_notes(&self) -> bool {
        self.inner.keeps_notes()
    }

    fn noted(&self, key: &str) -> Result<Noted, Error> {
        self.faults.fail("could not look")?;
        self.inner.noted(key)
    }

    fn settle(&self, key: &str) -> Result<(), Error> {
        self.faults.fail("could not settle")?;
        self.inner.settle(key)?;
        self.faults.fail("settled, but the answer was lost")
    }

    fn list_after(
        &self,
        prefix: &str,
        start_after: &str,
        detail: Detail,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.faults.fail("could not list")?;
        let mut fault = Ok(());
        let mut visit = |entry| {
            fault = self.faults.fail("listing broke off");
            match fault {
                Ok(()) => visit(entry),
                Err(_) => ControlFlow::Break(()),
            }
        };
        self.inner
            .list_after(prefix, start_after, detail, &mut visit)?;
        fault
    }

    fn stages_ahead(&self) -> bool {
        self.inner.stages_ahead()
    }

    fn lists_in_order(&self) -> bool {
        self.inner.lists_in_order()
    }

    fn remove(&self, key: &str) -> Result<bool, Error> {
        self.faults.fail("could not remove")?;
        let removed = self.inner.remove(key)?;
        self.faults.fail("removed, but the answer was lost")?;
        Ok(removed)
    }

    fn remove_leftovers(&self) -> Result<u64, Error> {
        self.faults.fail("could not remove leftovers")?;
        self.inner.remove_leftovers()
    }

    fn staged_bytes(&self, bytes: u64) -> u64 {
        self.inner.staged_bytes(bytes)
    }

    fn opened_bytes(&self) -> u64 {
        self.inner.opened_bytes()
    }

    fn prove_creation(&self, trial: Trial<'_>) -> Result<(), Error> {
        self.faults.fail("could not try")?;
        self.inner.prove_creation(trial)
    }

    fn may_be_unmounted(&self) -> bool {
        self.inner.may_be_unmounted()
    }

    fn place(&self) -> String {
        format!("{} with faults", self.inner.place())
    }
}

struct FaultyStaged {
    inner: Box<dyn Staged>,
    faults: Faults,
    repeats: bool,
}

impl Write for FaultyStaged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.faults.strike() {
            // Part of it arrives first.
            let part = bytes.get(..bytes.len() / 2).unwrap_or_default();
            self.inner.write_all(part)?;
            return Err(io::Error::other("injected fault: could not write"));
        }
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Staged for FaultyStaged {
    fn prepare(&mut self) -> Result<(), Error> {
        self.faults.fail("could not prepare")?;
        self.inner.prepare()
    }

    fn note(&mut self, digest: ContentsDigest) {
        self.inner.note(digest);
    }

    fn publish(self: Box<Self>) -> Result<Published, Error> {
        self.faults.fail("could not publish")?;
        let published = self.inner.publish()?;
        self.faults.fail("published, but the answer was lost")?;
        Ok(if self.repeats {
            Published::Exists
        } else {
            published
        })
    }
}

enum ReadFault {
    Never,
    Error { at: u64 },
    End { at: u64 },
}

struct FaultyReader {
    inner: Box<dyn Read + Send>,
    fault: ReadFault,
    faults: Faults,
}

impl Read for FaultyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.faults.strike() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let asked = buffer.len() as u64;
        let allowed = match self.fault {
            ReadFault::Never if self.faults.strike() => asked.min(1),
            ReadFault::Never => asked,
            ReadFault::Error { at: 0 } => {
                return Err(io::Error::other("injected fault: could not read"));
            }
            ReadFault::End { at: 0 } => return Ok(0),
            ReadFault::Error { at } | ReadFault::End { at } => asked.min(at),
        };
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
        let read = self
            .inner
            .read(buffer.get_mut(..allowed).unwrap_or_default())?;
        if let ReadFault::Error { at } | ReadFault::End { at } = &mut self.fault {
            *at -= read as u64;
        }
        Ok(read)
    }
}
