//! How long it takes to verify an archive of 100,000 objects, and how much memory: `cargo bench -p walden-audit`.
//!
//! The segments are of 1 MB and almost empty, as those of a server that switches every minute and has nothing to do, so what
//! is measured is what an object costs, not what its bytes cost. Another number of objects may be given as an argument.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::Instant;

use archive::{Archive, Cancel, DirStore, Options};
use audit::{Inventory, Report, Request};
use forge::{SEGMENT, Written};

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

fn make(place: &Path, objects: u64) {
    let mut previous = SEGMENT as u64 - 100;
    for number in 1..=objects {
        let mut wal = Written::behind(number, previous);
        for _ in 0..8 {
            wal.data(200);
        }
        wal.switch();
        previous = wal.previous;
        let (name, bytes) = wal.segments(1).remove(0);
        let compressed = zstd::encode_all(bytes.as_slice(), 1).unwrap();
        fs::write(place.join(format!("{name}.zst")), compressed).unwrap();
    }
}

fn verify(archive: &Archive, readers: usize) -> Report {
    let request = Request {
        readers,
        ..Request::default()
    };
    audit::verify(archive, &request, &|_| (), &Cancel::new()).unwrap()
}

fn main() {
    let given = std::env::args().skip(1).find_map(|it| it.parse().ok());
    let objects = given.unwrap_or(OBJECTS);
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), objects);
    let store = DirStore::open(dir.path()).unwrap();
    let archive = Archive::with_store(Box::new(store), Options::default());
    let before = peak_mb();

    let begun = Instant::now();
    let inventory = Inventory::take(&archive, &mut |_| ()).unwrap();
    let took = begun.elapsed().as_secs_f64();
    assert_eq!(inventory.total.objects, objects);
    println!(
        "{objects} objects listed in {took:.2} s, {:.1} MB of memory more",
        peak_mb() - before
    );
    for readers in [1, 0] {
        let begun = Instant::now();
        let report = verify(&archive, readers);
        let took = begun.elapsed().as_secs_f64();
        assert_eq!(report.segments, objects);
        // It is bound to no system, which is a note.
        assert_eq!(report.worst(), Some(audit::Severity::Note));
        println!(
            "verified by {} in {took:.2} s: {:.0} objects/s, {:.2} GB/s of WAL; peak memory {:.1} MB",
            match readers {
                0 => "as many readers as processors".to_owned(),
                some => format!("{some} reader"),
            },
            objects as f64 / took,
            report.bytes as f64 / took / 1e9,
            peak_mb()
        );
    }
}
