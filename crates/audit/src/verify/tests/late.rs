//! Archives that change while they are looked at.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};

use archive::{Archive, Cancel, Detail, Entry, Error, MemoryStore, Object, Options, Staged, Store};

use super::readers;
use super::scene::{Scene, found, name};
use crate::verify::verify;

/// A store whose first listing does not see some objects: they came while it went on.
struct Late {
    inner: MemoryStore,
    late: Vec<String>,
    listings: AtomicU32,
}

impl Store for Late {
    fn stage(&self, key: &str) -> Result<Box<dyn Staged>, Error> {
        self.inner.stage(key)
    }

    fn open(&self, key: &str) -> Result<Option<Object>, Error> {
        self.inner.open(key)
    }

    fn settle(&self, key: &str) -> Result<(), Error> {
        self.inner.settle(key)
    }

    fn list(
        &self,
        prefix: &str,
        detail: Detail,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let is_first = prefix.is_empty() && self.listings.fetch_add(1, Ordering::AcqRel) == 0;
        self.inner.list(prefix, detail, &mut |entry| match is_first
            && self.late.contains(&entry.key)
        {
            true => ControlFlow::Continue(()),
            false => visit(entry),
        })
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

#[test]
fn what_came_while_the_archive_was_listed_is_not_missing() {
    let scene = Scene::new();
    let history = "00000002.history".to_owned();
    let lates = [
        vec![name(2, 10)],
        vec![history.clone()],
        // That this one is missing shows only once the timeline history file is there.
        vec![history, name(1, 6)],
    ];
    for late in lates {
        let store = Late {
            inner: scene.store.clone(),
            late: late.clone(),
            listings: AtomicU32::new(0),
        };
        let archive = Archive::with_store(Box::new(store), Options::default());
        let report = verify(&archive, &readers(2), &|_| (), &Cancel::new()).unwrap();
        assert_eq!(found(&report), [], "{late:?}");
        assert_eq!(report.segments, scene.segments.len() as u64 + 1);
    }
    // Nothing is waited for where all is there.
    let store = Late {
        inner: scene.store.clone(),
        late: Vec::new(),
        listings: AtomicU32::new(0),
    };
    let archive = Archive::with_store(Box::new(store), Options::default());
    assert!(verify(&archive, &readers(2), &|_| (), &Cancel::new()).is_ok());
}
