//! Archives that change while they are looked at, and between one audit and the next; and readers that wait for each other.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use archive::{Archive, Cancel, Detail, Entry, Error, MemoryStore, Object, Options, Staged, Store};

use super::readers;
use super::scene::{Scene, found, name};
use crate::finding::Kind;
use crate::verify::{Request, Told, verify};

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

    fn list_after(
        &self,
        prefix: &str,
        start_after: &str,
        detail: Detail,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let is_first = prefix.is_empty() && self.listings.fetch_add(1, Ordering::AcqRel) == 0;
        self.inner
            .list_after(prefix, start_after, detail, &mut |entry| match is_first
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

#[test]
fn what_was_brought_back_is_not_told_by_the_next_audit() {
    let scene = Scene::new();
    let dir = tempfile::tempdir().unwrap();
    let request = Request {
        state: Some(dir.path().join("state")),
        ..readers(2)
    };
    scene.change(&name(2, 7), |bytes| bytes[800_000] ^= 1);
    // Told where it is joined with its neighbours.
    scene.change(&name(2, 9), |bytes| bytes[500_000] ^= 1);
    let partial = format!("{}.partial", name(1, 7));
    let mut of_partial = Vec::new();
    let read = scene
        .archive()
        .reading()
        .read(&partial, &Cancel::new(), &mut |piece| {
            of_partial.extend_from_slice(piece);
            ControlFlow::Continue(())
        });
    assert!(read.unwrap().is_some());
    scene.store.overwrite(&partial, b"rubbish");
    for _ in 0..2 {
        let report = scene.verify_with(&request);
        let kinds: Vec<Kind> = found(&report).iter().map(|(kind, _)| *kind).collect();
        let expected = [Kind::Damaged, Kind::Damaged, Kind::DoesNotFollow];
        assert_eq!(kinds, expected, "{:#?}", report.findings.listed());
        assert_eq!(report.findings.count(crate::Severity::Error), 3);
    }
    scene.change(&name(2, 7), |_| ());
    scene.change(&name(2, 9), |_| ());
    scene.store.overwrite(&partial, &of_partial);
    assert_eq!(found(&scene.verify_with(&request)), []);
    let last = scene.verify_with(&request);
    assert_eq!((found(&last), last.segments), (vec![], 0));
}

#[test]
fn a_state_with_absurd_numbers_costs_no_more_than_reading_again() {
    let scene = Scene::new();
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let request = Request {
        state: Some(state.clone()),
        ..readers(1)
    };
    scene.verify_with(&request);
    let head = std::fs::read_to_string(&state).unwrap();
    let head = head.lines().next().unwrap();
    // It was cut off when it had only just been begun.
    for bytes in [0, 1, head.len() - 1, head.len()] {
        std::fs::write(&state, &head[..bytes]).unwrap();
        let report = scene.verify_with(&request);
        assert_eq!(report.segments, scene.segments.len() as u64 + 1, "{bytes}");
        assert_eq!(scene.verify_with(&request).segments, 0, "{bytes}");
    }
    let most = u64::MAX;
    let line = format!(
        r#"{{"segments":{{"timeline":4,"first":0,"last":{most},"bytes":{most},"findings":[]}}}}"#
    );
    std::fs::write(&state, format!("{head}\n{line}\n{line}\n\0\0\0\n")).unwrap();
    let report = scene.verify_with(&request);
    assert_eq!(found(&report), []);
    assert_eq!(report.segments, scene.segments.len() as u64 + 1);
}

#[test]
fn several_readers_read_at_the_same_time() {
    let scene = Scene::new();
    let (seen, bell) = (Mutex::new(HashSet::new()), Condvar::new());
    let late = AtomicU32::new(0);
    // Each reader waits, in the middle of its work, for another one to be in the middle of its own.
    let told = |told: Told| {
        if let Told::Read(..) = told {
            let mut readers = seen.lock().unwrap();
            readers.insert(thread::current().id());
            bell.notify_all();
            let is_alone = |readers: &mut HashSet<_>| readers.len() < 2;
            let deadline = Duration::from_secs(20);
            let (readers, waited) = bell
                .wait_timeout_while(readers, deadline, is_alone)
                .unwrap();
            drop(readers);
            late.fetch_add(u32::from(waited.timed_out()), Ordering::AcqRel);
        }
    };
    let report = verify(&scene.archive(), &readers(2), &told, &Cancel::new()).unwrap();
    assert_eq!(found(&report), []);
    assert_eq!(late.load(Ordering::Acquire), 0);
}
