//! How long it takes to look at an archive of 100,000 objects, and how much memory: `cargo bench -p walden-audit`.
//!
//! The segments are of 1 MB and almost empty, as those of a server that switches every minute and has nothing to do, so what
//! is measured is what an object costs, not what its bytes cost. Another number of objects may be given as an argument.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use archive::{Archive, Cancel, DirStore, Options};
use audit::gather::Gathering;
use audit::index::{Entries, Index, Subject};
use audit::survey::Survey;
use audit::targets::report;
use audit::{Inventory, Report, Request};
use forge::{SEGMENT, Written};

const OBJECTS: u64 = 100_000;

/// What a piece of work took, and the highest resident memory meanwhile: all of it, and what it grew by.
fn measured<T>(what: &str, work: impl FnOnce() -> T) -> T {
    // The peak begins anew (proc(5), "clear_refs").
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak_mb();
    let begun = Instant::now();
    let done = work();
    let (took, peak) = (begun.elapsed().as_secs_f64(), peak_mb());
    println!(
        "{what}: {took:.2} s, peak memory {peak:.1} MB, {:.1} MB more than before",
        peak - before
    );
    done
}

/// The highest resident memory since it was last begun anew, in MB.
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
    let mut known = Entries::new();
    let mut index = Index::open(path, &subject, &mut |name, entry| {
        known.insert(name, entry);
    })
    .unwrap();
    let gathering = Gathering {
        archive,
        jobs: 0,
        listed: &|_| (),
        read: &|_, _| (),
        cancel: &Cancel::new(),
    };
    let gathered = gathering.update(known, Some(&mut index)).unwrap();
    index.end().unwrap();
    let survey = Survey::of(archive.place(), None, gathered.entries);
    assert_eq!(report(&survey).timelines.len(), 1);
    gathered.read
}

fn main() {
    let given = std::env::args().skip(1).find_map(|it| it.parse().ok());
    let objects = given.unwrap_or(OBJECTS);
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("archive");
    fs::create_dir(&place).unwrap();
    make(&place, objects);
    let store = DirStore::open(&place).unwrap();
    let archive = Archive::with_store(Box::new(store), Options::default());
    println!("{objects} objects");

    let inventory = measured("listed", || Inventory::take(&archive, &mut |_| ()).unwrap());
    assert_eq!(inventory.total.objects, objects);
    for (what, readers) in [
        ("verified by 1 reader", 1),
        ("verified by as many readers as processors", 0),
    ] {
        let report = measured(what, || verify(&archive, readers, None));
        assert_eq!(report.segments, objects);
        // It is bound to no system, which is a note.
        assert_eq!(report.worst(), Some(audit::Severity::Note));
    }
    let state = dir.path().join("state");
    for (what, segments) in [
        ("verified with --resume", objects),
        ("verified once more", 0),
    ] {
        let report = measured(what, || verify(&archive, 0, Some(&state)));
        assert_eq!(report.segments, segments);
    }
    println!("the index has {} bytes", state.metadata().unwrap().len());
    let read = measured("targets with that index", || targets(&archive, &state));
    assert_eq!(read, 0);
    let index = dir.path().join("index");
    let read = measured("targets without", || targets(&archive, &index));
    assert_eq!(read, objects);
}
