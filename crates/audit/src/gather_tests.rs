//! What is learnt of an archive is the same with an index as without, whatever has come and gone meanwhile.

use std::path::Path;

use archive::{MemoryStore, Options, Store};
use fixtures::{SEGMENT, Written};

use super::*;
use crate::facts::{Follower, Noted};
use crate::index::Subject;
use crate::survey::Survey;
use crate::verify::{Request, verify};

fn name(timeline: u32, number: u64) -> String {
    format!("{timeline:08X}00000000{number:08X}")
}

/// A commit so long that it goes on over the ends of segments.
fn long_commit(wal: &mut Written, bytes: usize) {
    let mut main = 800_000_000_000_000_i64.to_ne_bytes().to_vec();
    main.resize(bytes, 0);
    let mut rest = vec![254];
    rest.extend_from_slice(&u32::try_from(bytes).unwrap().to_ne_bytes());
    rest.extend_from_slice(&main);
    wal.record(1, 0, &rest);
}

/// Segments 5 to 8; the commit at the end of 5 goes on through 6 to the beginning of 7.
fn wal() -> Written {
    let mut wal = Written::new();
    wal.fill(SEGMENT - 100_000);
    long_commit(&mut wal, SEGMENT + 300_000);
    wal.fill(3 * SEGMENT + 500_000);
    wal.switch();
    wal
}

fn stored(wal: &Written, timeline: u32) -> MemoryStore {
    let store = MemoryStore::new();
    for (name, bytes) in wal.segments(timeline) {
        store.overwrite(&name.to_string(), &bytes);
    }
    store
}

fn read(store: &MemoryStore, known: &Entries) -> (Entries, u64) {
    let archive = archive(store);
    let gathering = Gathering {
        archive: &archive,
        jobs: 2,
        listed: &|_| (),
        read: &|_, _| (),
        cancel: &Cancel::new(),
    };
    let gathered = gathering
        .update(|entries| known_in(entries, known))
        .unwrap();
    (gathered.entries, gathered.read)
}

/// What was known before, without an index.
fn known_in(entries: &mut Entries, known: &Entries) -> Option<Index> {
    for (name, entry) in known.all() {
        entries.learn(name, &entry);
    }
    None
}

/// Reads what is there with what is known, which must be what is learnt without.
#[track_caller]
fn update(store: &MemoryStore, known: &Entries) -> Entries {
    let (index, _) = read(store, known);
    assert_eq!(index, read(store, &Entries::default()).0);
    assert_eq!(read(store, &index).1, 0, "files were read again");
    index
}

fn facts(index: &Entries, name: &str) -> Box<SegmentFacts> {
    match index.get(&name.parse().unwrap()).unwrap() {
        What::Segment(facts) => facts,
        other => panic!("{other:?}"),
    }
}

/// How many transactions the records that begin in a segment commit, that over its end among them, on the line where that are
/// most.
fn commits(index: &Entries, name: &str) -> u64 {
    let survey = Survey::of("made".to_owned(), None, index.clone());
    let lines: Vec<_> = survey
        .timelines()
        .into_iter()
        .map(|it| survey.line(it))
        .collect();
    let runs = lines.iter().flat_map(|line| &line.runs);
    let all = runs.flat_map(|run| (0..run.count()).filter_map(|at| run.facts(at)));
    let own = all.filter(|facts| facts.name.to_string() == name);
    own.map(|facts| facts.ends.commits).max().unwrap()
}

#[test]
fn what_was_learnt_of_a_segment_that_is_gone_is_forgotten() {
    let store = stored(&wal(), 1);
    let index = update(&store, &Entries::default());
    assert_eq!(commits(&index, &name(1, 5)), 1);
    // Where the record ends.
    assert!(store.remove(&name(1, 7)).unwrap());
    let index = update(&store, &index);
    assert_eq!(commits(&index, &name(1, 5)), 0);
    assert!(store.remove(&name(1, 6)).unwrap());
    let index = update(&store, &index);
    assert_eq!(facts(&index, &name(1, 5)).following, []);
}

#[test]
fn a_record_over_several_segments_is_known_once_the_last_of_them_has_come() {
    let all = stored(&wal(), 1);
    let store = MemoryStore::new();
    let mut index = Entries::default();
    for (name, bytes) in wal().segments(1) {
        store.overwrite(&name.to_string(), &bytes);
        index = update(&store, &index);
    }
    assert_eq!(commits(&index, &name(1, 5)), 1);
    assert_eq!(index, read(&all, &Entries::default()).0);
}

#[test]
fn a_segment_that_cannot_be_read_is_looked_for_on_the_timeline_that_left_there() {
    let mut wal = Written::new();
    wal.fill(SEGMENT - 100_000);
    long_commit(&mut wal, 300_000);
    wal.fill(SEGMENT + 600_000);
    let first = wal.clone();
    wal.promote(2);
    wal.fill(2 * SEGMENT + 500_000);
    wal.switch();
    let store = stored(&first, 1);
    for (name, bytes) in wal.segments(2).into_iter().skip(1) {
        store.overwrite(&name.to_string(), &bytes);
    }
    store.overwrite(&name(1, 6), &[1; SEGMENT]);
    let index = update(&store, &Entries::default());
    let sixth = index.get(&name(1, 6).parse().unwrap());
    assert!(matches!(sixth, Some(What::Unreadable(_))));
    let following = &facts(&index, &name(1, 5)).following;
    let over = following[0].over.as_ref().unwrap();
    assert!(matches!(over.noted.as_deref(), Some(Noted::Transaction(end)) if end.is_commit));
    let joined = |it: &Follower| (it.file.to_string(), it.problem.is_none());
    let following: Vec<_> = following.iter().map(joined).collect();
    assert_eq!(following, [(name(2, 6), true)]);
}

fn archive(store: &MemoryStore) -> Archive {
    Archive::with_store(Box::new(store.clone()), Options::default())
}

/// Reads what an index does not say, until so many files have been read.
fn with_index(store: &MemoryStore, path: &Path, stop_after: u64) -> Result<Gathered, Error> {
    let (archive, cancel) = (archive(store), Cancel::new());
    let subject = Subject {
        place: archive.place(),
        system: None,
    };
    let open = |known: &mut Entries| {
        let opened = Index::open(path, &subject, &mut |name, entry| known.learn(name, &entry));
        Some(opened.unwrap())
    };
    let gathering = Gathering {
        archive: &archive,
        jobs: 1,
        listed: &|_| (),
        read: &|count, _| {
            if count == stop_after {
                cancel.cancel();
            }
        },
        cancel: &cancel,
    };
    let mut gathered = gathering.update(open)?;
    gathered.index.as_mut().unwrap().end().unwrap();
    Ok(gathered)
}

#[test]
fn what_was_interrupted_is_not_read_again() {
    let store = stored(&wal(), 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let cancelled = with_index(&store, &path, 3).unwrap_err();
    assert_eq!(cancelled.kind(), ErrorKind::Cancelled);
    let gathered = with_index(&store, &path, u64::MAX).unwrap();
    // The last one, and the one that it follows.
    assert_eq!(gathered.read, 2);
    assert_eq!(gathered.entries, read(&store, &Entries::default()).0);
    assert_eq!(with_index(&store, &path, u64::MAX).unwrap().read, 0);
}

#[test]
fn what_an_audit_has_read_is_not_read_again_nor_the_other_way_round() {
    let store = stored(&wal(), 1);
    let dir = tempfile::tempdir().unwrap();
    let verified = |path: &Path| {
        let request = Request {
            state: Some(path.to_owned()),
            ..Request::default()
        };
        verify(&archive(&store), &request, &|_| (), &Cancel::new()).unwrap()
    };
    let path = dir.path().join("of an audit");
    assert_eq!(verified(&path).segments, 4);
    let gathered = with_index(&store, &path, u64::MAX).unwrap();
    assert_eq!(gathered.read, 0);
    assert_eq!(gathered.entries, read(&store, &Entries::default()).0);
    let path = dir.path().join("of a gathering");
    assert_eq!(with_index(&store, &path, u64::MAX).unwrap().read, 4);
    let report = verified(&path);
    assert_eq!((report.segments, report.read_before), (0, 4));
}

/// A store that fails with every object, and counts how often.
struct Failing {
    inner: MemoryStore,
    kind: ErrorKind,
    opened: std::sync::Arc<AtomicU64>,
}

impl Store for Failing {
    fn stage(&self, key: &str) -> Result<Box<dyn archive::Staged>, Error> {
        self.inner.stage(key)
    }

    fn open(&self, key: &str) -> Result<Option<archive::Object>, Error> {
        self.opened.fetch_add(1, Ordering::AcqRel);
        Err(Error::new(self.kind, format!("no \"{key}\" for you")))
    }

    fn settle(&self, key: &str) -> Result<(), Error> {
        self.inner.settle(key)
    }

    fn list_after(
        &self,
        prefix: &str,
        start_after: &str,
        detail: archive::Detail,
        visit: &mut dyn FnMut(archive::Entry) -> std::ops::ControlFlow<()>,
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

#[test]
fn what_keeps_one_object_from_being_read_and_is_not_its_own_fault_ends_all_of_it() {
    let inner = stored(&wal(), 1);
    let known = read(&inner, &Entries::default()).0;
    let segment = name(1, 5);
    for number in 0..50 {
        let key = format!("{segment}.{number:08X}.backup");
        inner.overwrite(&key, b"START WAL LOCATION");
    }
    // Once for the small files, once for the segments alone.
    for has_backups in [true, false] {
        if !has_backups {
            for number in 0..50 {
                assert!(
                    inner
                        .remove(&format!("{segment}.{number:08X}.backup"))
                        .unwrap()
                );
            }
            put_again(&inner);
        }
        let opened = std::sync::Arc::new(AtomicU64::new(0));
        let store = Failing {
            inner: inner.clone(),
            kind: ErrorKind::Unusable,
            opened: opened.clone(),
        };
        let archive = Archive::with_store(Box::new(store), Options::default());
        let gathering = Gathering {
            archive: &archive,
            jobs: 1,
            listed: &|_| (),
            read: &|_, _| (),
            cancel: &Cancel::new(),
        };
        let failed = gathering
            .update(|entries| known_in(entries, &known))
            .unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Unusable);
        assert_eq!(opened.load(Ordering::Acquire), 1, "{has_backups}");
    }
}

/// Stores all segments but the last anew.
fn put_again(store: &MemoryStore) {
    let mut segments = wal().segments(1);
    segments.pop();
    for (name, bytes) in segments {
        store.overwrite(&name.to_string(), &bytes);
    }
}
