//! How long it takes to look at an archive of 100,000 objects, and how much memory: `cargo bench -p walden-audit`.
//!
//! The segments are of 1 MB and almost empty, as those of a server that switches every minute and has nothing to do, so what
//! is measured is what an object costs, not what its bytes cost. Another number of objects may be given as an argument.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use archive::{Archive, Cancel, DirStore, Options};
use audit::gather::Gathering;
use audit::index::{Index, Subject};
use audit::survey::Survey;
use audit::targets::report;
use audit::{Inventory, Report, Request};
use fixtures::{SEGMENT, Written};

const OBJECTS: u64 = 100_000;

/// The highest resident memory so far, in MB.
fn peak_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kb: f64 = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap();
    kb / 1024.0
}

/// A segment that follows the record at `previous`, and where its own last record begins.
fn segment(number: u64, previous: u64) -> (String, Vec<u8>, u64) {
    let mut wal = Written::behind(number, previous);
    for _ in 0..8 {
        wal.data(200);
    }
    wal.switch();
    let (name, bytes) = wal.segments(1).remove(0);
    (name.to_string(), bytes, wal.previous)
}

/// Makes segments, on as many threads as there are processors: all end alike, so each knows what it follows.
fn make(place: &Path, objects: u64) {
    let before_all = SEGMENT as u64 - 100;
    let (_, _, last_of_first) = segment(1, before_all);
    let next = AtomicU64::new(1);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number > objects {
                return;
            }
            let previous = match number {
                1 => before_all,
                _ => last_of_first + (number - 2) * SEGMENT as u64,
            };
            let (name, bytes, _) = segment(number, previous);
            let compressed = zstd::encode_all(bytes.as_slice(), 1).unwrap();
            fs::write(place.join(name), compressed).unwrap();
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}

fn verify(archive: &Archive, readers: usize, state: Option<&Path>) -> Report {
    let request = Request {
        readers,
        state: state.map(Path::to_owned),
        ..Request::default()
    };
    audit::verify(archive, &request, &|_| (), &Cancel::new()).unwrap()
}

/// Gathers all facts, with an index, and tells what can be recovered.
fn targets(archive: &Archive, path: &Path) -> u64 {
    let subject = Subject {
        place: archive.place(),
        system: None,
    };
    let gathering = Gathering {
        archive,
        jobs: 0,
        listed: &|_| (),
        read: &|_, _| (),
        cancel: &Cancel::new(),
    };
    let mut gathered = gathering
        .update(|known| {
            let mut learn = |name, entry| known.learn(name, &entry);
            Some(Index::open(path, &subject, &mut learn).unwrap())
        })
        .unwrap();
    gathered.index.as_mut().unwrap().end().unwrap();
    let survey = Survey::of(archive.place(), None, gathered.entries);
    assert_eq!(report(&survey).timelines.len(), 1);
    gathered.read
}

type Work = fn(&Archive, &Path, u64);

/// What is measured, each in a process of its own, as the commands are: what one leaves behind is not the next one's.
const STEPS: [(&str, Work); 8] = [
    ("listed", |archive, _, objects| {
        let inventory = Inventory::take(archive, &mut |_| ()).unwrap();
        assert_eq!(inventory.total.objects, objects);
    }),
    ("targets, without an index", |archive, dir, objects| {
        assert_eq!(targets(archive, &dir.join("index")), objects);
    }),
    ("targets, with an index", |archive, dir, _| {
        assert_eq!(targets(archive, &dir.join("index")), 0);
    }),
    ("verified with that index", |archive, dir, _| {
        let report = verify(archive, 0, Some(&dir.join("index")));
        assert_eq!(report.segments, 0);
    }),
    ("verified by 1 reader", |archive, _, objects| {
        verify_all(archive, 1, None, objects);
    }),
    (
        "verified by as many readers as processors",
        |archive, _, objects| {
            verify_all(archive, 0, None, objects);
        },
    ),
    ("verified with --resume", |archive, dir, objects| {
        verify_all(archive, 0, Some(&dir.join("state")), objects);
    }),
    ("verified once more", |archive, dir, _| {
        let report = verify(archive, 0, Some(&dir.join("state")));
        assert_eq!(report.segments, 0);
    }),
];

fn verify_all(archive: &Archive, readers: usize, state: Option<&Path>, objects: u64) {
    let report = verify(archive, readers, state);
    assert_eq!(report.segments, objects);
    // It is bound to no system, which is a note.
    assert_eq!(report.worst(), Some(audit::Severity::Note));
}

/// One of the steps, on the archive that lies in a directory.
fn step(name: &str, dir: &Path, objects: u64) {
    let store = DirStore::open(&dir.join("archive")).unwrap();
    let archive = Archive::with_store(Box::new(store), Options::default());
    let (name, work) = STEPS.iter().find(|(it, _)| *it == name).unwrap();
    let begun = Instant::now();
    work(&archive, dir, objects);
    let (took, peak) = (begun.elapsed().as_secs_f64(), peak_mb());
    println!("{name}: {took:.2} s, peak memory {peak:.1} MB");
}

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if let [name, dir, objects] = given.as_slice() {
        return step(name, Path::new(dir), objects.parse().unwrap());
    }
    let objects = given.iter().find_map(|it| it.parse().ok());
    let objects: u64 = objects.unwrap_or(OBJECTS);
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("archive");
    fs::create_dir(&place).unwrap();
    make(&place, objects);
    println!("{objects} objects");
    let own = std::env::current_exe().unwrap();
    for (name, _) in STEPS {
        let mut child = Command::new(&own);
        child.arg(name).arg(dir.path()).arg(objects.to_string());
        assert!(child.status().unwrap().success(), "{name}");
    }
    let index = dir.path().join("index").metadata().unwrap();
    println!("the index has {} bytes", index.len());
}
