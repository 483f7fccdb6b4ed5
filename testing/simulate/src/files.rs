//! A server's `pg_wal`: files and their archive status, in memory, and below a real directory for those who look there.
//!
//! Guarantees that the directory is what memory has, once [`Files::settle`] was called, and gone with the last one that uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::SEGMENT;
use crate::timelines::segment_name;

/// What the server notes of a file in `archive_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ready,
    Done,
}

#[derive(Debug, Default)]
pub struct Files {
    files: BTreeMap<String, Arc<Vec<u8>>>,
    status: BTreeMap<String, Status>,
    changed: BTreeSet<String>,
    directory: Option<Directory>,
}

/// A copy has no directory yet.
impl Clone for Files {
    fn clone(&self) -> Files {
        Files {
            files: self.files.clone(),
            status: self.status.clone(),
            changed: self.files.keys().cloned().collect(),
            directory: None,
        }
    }
}

impl Files {
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Vec<u8>>> {
        self.files.get(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.files.keys()
    }

    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    pub fn set(&mut self, name: &str, contents: Arc<Vec<u8>>) {
        self.changed.insert(name.to_owned());
        self.files.insert(name.to_owned(), contents);
    }

    pub fn remove(&mut self, name: &str) -> Option<Arc<Vec<u8>>> {
        self.changed.insert(name.to_owned());
        self.files.remove(name)
    }

    #[must_use]
    pub fn status(&self, name: &str) -> Option<Status> {
        self.status.get(name).copied()
    }

    pub fn note(&mut self, name: &str, status: Option<Status>) {
        match status {
            Some(status) => self.status.insert(name.to_owned(), status),
            None => self.status.remove(name),
        };
    }

    pub fn statuses(&self) -> impl Iterator<Item = (&String, Status)> {
        self.status.iter().map(|(name, status)| (name, *status))
    }

    /// Writes a piece of WAL; a file that is not there yet is made of zeros.
    pub fn write(&mut self, timeline: u32, place: u64, bytes: &[u8]) {
        let name = segment_name(timeline, place / SEGMENT);
        let file = self.files.entry(name.clone());
        let file = Arc::make_mut(file.or_insert_with(|| Arc::new(vec![0; SEGMENT as usize])));
        let offset = (place % SEGMENT) as usize;
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.changed.insert(name);
    }

    /// Writes `archive_status`, as far as it says what is to be archived.
    pub fn settle_notes(&mut self) {
        let ready = self.status.iter();
        let ready = ready.filter(|(_, status)| **status == Status::Ready);
        let ready: BTreeSet<String> = ready.map(|(name, _)| name.clone()).collect();
        let directory = self.directory.get_or_insert_with(Directory::new);
        let folder = directory.path.join("pg_wal/archive_status");
        for name in ready.symmetric_difference(&directory.ready) {
            let note = folder.join(format!("{name}.ready"));
            if ready.contains(name) {
                std::fs::write(&note, "").expect("write")
            } else {
                drop(std::fs::remove_file(&note))
            }
        }
        directory.ready = ready;
    }

    /// The data directory that this is `pg_wal` of, with everything in it.
    pub fn settle(&mut self) -> &Path {
        let directory = self.directory.get_or_insert_with(Directory::new);
        for name in std::mem::take(&mut self.changed) {
            let path = directory.path.join("pg_wal").join(&name);
            match self.files.get(&name) {
                Some(contents) => std::fs::write(&path, contents.as_slice()).expect("write"),
                None => drop(std::fs::remove_file(&path)),
            }
        }
        &directory.path
    }
}

/// A data directory in memory.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// Whose notes say that they are to be archived.
    ready: BTreeSet<String>,
}

static DIRECTORIES: AtomicU64 = AtomicU64::new(0);

impl Directory {
    fn new() -> Directory {
        let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() {
            shm.to_owned()
        } else {
            std::env::temp_dir()
        };
        let path = parent.join(format!("walden-simulate-{}-{number}", std::process::id()));
        std::fs::create_dir_all(path.join("pg_wal/archive_status")).expect("create a directory");
        let ready = BTreeSet::new();
        Directory { path, ready }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.path));
    }
}
