//! The memory store: the model of what a store must do, and the quickest one to test with.
//!
//! Guarantees what [`Store`] asks, but for durability, which memory has none of. Clones share their
//! objects, like several processes on one directory. Its clock ticks once an object, and when it is told to, so that
//! tests see the same times always.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::base::digest::ContentsDigest;
use crate::error::Error;
use crate::store::waist::{self, Detail, Entry, Glance, Noted, Object, Published, Staged, Store};

/// A store whose objects are in memory.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
    /// A look costs as much as anything else, as in an object store.
    is_far: bool,
}

#[derive(Default)]
struct Shared {
    objects: BTreeMap<String, Kept>,
    ticks: u64,
}

#[derive(Clone)]
struct Kept {
    bytes: Arc<[u8]>,
    modified: SystemTime,
    digest: Option<ContentsDigest>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// An empty store that is as far away as an object store.
    pub fn remote() -> MemoryStore {
        MemoryStore {
            is_far: true,
            ..MemoryStore::default()
        }
    }

    /// Puts an object there as somebody without manners would: `cp`, an editor, a bad disk. For tests.
    pub fn overwrite(&self, key: &str, bytes: &[u8]) {
        self.lock().insert(key, bytes, None);
    }

    /// Lets time pass by the store's clock. For tests.
    pub fn pass(&self, time: Duration) {
        self.lock().ticks += time.as_secs();
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // No code panics while it holds the lock with a half-made change, so the contents are sound.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn insert(&mut self, key: &str, bytes: &[u8], digest: Option<ContentsDigest>) {
        self.ticks += 1;
        let kept = Kept {
            bytes: bytes.into(),
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(self.ticks),
            digest,
        };
        self.objects.insert(key.to_owned(), kept);
    }
}

impl Store for MemoryStore {
    fn stage(&self, key: &str) -> Result<Box<dyn Staged>, Error> {
        waist::check_key(key)?;
        Ok(Box::new(MemoryStaged {
            store: self.clone(),
            key: key.to_owned(),
            bytes: Vec::new(),
            digest: None,
        }))
    }

    fn open(&self, key: &str) -> Result<Option<Object>, Error> {
        waist::check_key(key)?;
        let kept = self.lock().objects.get(key).cloned();
        Ok(kept.map(|kept| Object {
            bytes: kept.bytes.len() as u64,
            modified: kept.modified,
            reader: Box::new(SharedReader(Cursor::new(kept.bytes))),
            file: None,
        }))
    }

    fn glance(&self, key: &str) -> Result<Glance, Error> {
        if self.is_far {
            return Ok(Glance::NotLooked);
        }
        Ok(self.open(key)?.map_or(Glance::Absent, Glance::Object))
    }

    fn keeps_notes(&self) -> bool {
        self.is_far
    }

    fn noted(&self, key: &str) -> Result<Noted, Error> {
        let kept = self.lock().objects.get(key).map(|kept| kept.digest);
        Ok(match kept {
            None => Noted::Absent,
            Some(None) => Noted::Nothing,
            Some(Some(digest)) => Noted::Digest(digest),
        })
    }

    fn settle(&self, key: &str) -> Result<(), Error> {
        waist::check_key(key)?;
        if self.lock().objects.contains_key(key) {
            Ok(())
        } else {
            Err(Error::unavailable(format!("object \"{key}\" is not there")))
        }
    }

    fn list_after(
        &self,
        prefix: &str,
        start_after: &str,
        detail: Detail,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let lock = self.lock();
        let behind = (Bound::Excluded(start_after), Bound::Unbounded);
        let objects = lock.objects.range::<str, _>(behind);
        for (key, kept) in objects.filter(|(key, _)| waist::is_listed(prefix, key)) {
            let (bytes, modified) = match detail {
                Detail::Keys => (0, SystemTime::UNIX_EPOCH),
                Detail::Full => (kept.bytes.len() as u64, kept.modified),
            };
            let key = key.clone();
            let entry = Entry {
                key,
                bytes,
                modified,
            };
            if visit(entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn stages_ahead(&self) -> bool {
        !self.is_far
    }

    fn lists_in_order(&self) -> bool {
        true
    }

    fn remove(&self, key: &str) -> Result<bool, Error> {
        waist::check_key(key)?;
        Ok(self.lock().objects.remove(key).is_some())
    }

    fn remove_leftovers(&self) -> Result<u64, Error> {
        Ok(0)
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}

struct MemoryStaged {
    store: MemoryStore,
    key: String,
    bytes: Vec<u8>,
    digest: Option<ContentsDigest>,
}

impl Write for MemoryStaged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Staged for MemoryStaged {
    fn note(&mut self, digest: ContentsDigest) {
        self.digest = Some(digest);
    }

    fn publish(self: Box<Self>) -> Result<Published, Error> {
        let MemoryStaged {
            store,
            key,
            bytes,
            digest,
        } = *self;
        let mut shared = store.lock();
        if shared.objects.contains_key(&key) {
            return Ok(Published::Exists);
        }
        shared.insert(&key, &bytes, digest);
        Ok(Published::Created)
    }
}

struct SharedReader(Cursor<Arc<[u8]>>);

impl Read for SharedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}
