//! A small archive in memory: two timelines, made-up WAL, stored as it is.

use std::fs::File;
use std::ops::ControlFlow;

use archive::{Archive, Cancel, MemoryStore, Options, Store};
use fixtures::{SEGMENT, SYSTEM, Written};
use wal::SegmentName;

use super::super::{Report, Request, verify};
use crate::finding::{Finding, Kind, Severity};

/// An archive of segments 5 and 6 of timeline 1, of 7 to 12 of timeline 2, which begins in 7; of what timeline 1 had of 7
/// as a partial segment, and of the binding. The record at the end of 8 goes on to the beginning of 11.
pub(super) struct Scene {
    pub(super) store: MemoryStore,
    /// Where timeline 2 begins.
    pub(super) switchpoint: u64,
    /// All segments by name.
    pub(super) segments: Vec<(SegmentName, Vec<u8>)>,
}

/// The name of a segment.
pub(super) fn name(timeline: u32, number: u64) -> String {
    format!("{timeline:08X}00000000{number:08X}")
}

/// The text of a timeline history file of timeline 2.
pub(super) fn history(switchpoint: u64) -> String {
    format!("1\t0/{switchpoint:X}\tno recovery target specified\n")
}

impl Scene {
    pub(super) fn new() -> Scene {
        let mut wal = Written::new();
        wal.fill(2 * SEGMENT + 300_000);
        let (first, switchpoint) = (wal.clone(), wal.lsn().0);
        wal.promote(2);
        wal.fill(4 * SEGMENT - 100_000);
        wal.data(2 * SEGMENT + 300_000);
        wal.fill(7 * SEGMENT + 500_000);
        wal.switch();
        let mut segments = first.segments(1);
        let scene = Scene {
            store: MemoryStore::new(),
            switchpoint,
            segments: Vec::new(),
        };
        if let Some((partial, bytes)) = segments.pop() {
            scene.store.overwrite(&format!("{partial}.partial"), &bytes);
        }
        segments.extend(wal.segments(2).into_iter().skip(2));
        for (name, bytes) in &segments {
            scene.store.overwrite(&name.to_string(), bytes);
        }
        scene
            .store
            .overwrite("00000002.history", history(switchpoint).as_bytes());
        let binding =
            format!(r#"{{"format":1,"system_identifier":"{SYSTEM}","created":"2026-11-22"}}"#);
        scene.store.overwrite("walden.json", binding.as_bytes());
        Scene { segments, ..scene }
    }

    pub(super) fn bytes(&self, object: &str) -> Vec<u8> {
        let found = self
            .segments
            .iter()
            .find(|(name, _)| name.to_string() == object);
        found.unwrap().1.clone()
    }

    pub(super) fn remove(&self, key: &str) {
        assert!(self.store.remove(key).unwrap(), "{key}");
    }

    /// Changes the bytes of a segment.
    pub(super) fn change(&self, object: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes(object);
        change(&mut bytes);
        self.store.overwrite(object, &bytes);
    }

    pub(super) fn archive(&self) -> Archive {
        Archive::with_store(Box::new(self.store.clone()), Options::default())
    }

    /// The same archive as a directory.
    pub(super) fn directory(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = Vec::new();
        let listed = self.store.list("", archive::Detail::Keys, &mut |entry| {
            keys.push(entry.key);
            ControlFlow::Continue(())
        });
        listed.unwrap();
        for key in keys {
            let mut file = File::create(dir.path().join(&key)).unwrap();
            let mut object = self.store.open(&key).unwrap().unwrap();
            std::io::copy(&mut object.reader, &mut file).unwrap();
        }
        dir
    }

    pub(super) fn verify_with(&self, request: &Request) -> Report {
        verify(&self.archive(), request, &|_| (), &Cancel::new()).unwrap()
    }

    pub(super) fn verify(&self) -> Report {
        self.verify_with(&Request {
            readers: 2,
            ..Request::default()
        })
    }
}

/// All findings that are not notes, as kind and object.
pub(super) fn found(report: &Report) -> Vec<(Kind, String)> {
    let findings = report.findings.listed().iter();
    findings
        .filter(|finding| finding.severity > Severity::Note)
        .map(|finding| (finding.kind, finding.object.clone()))
        .collect()
}

/// The finding of this kind about this object.
#[track_caller]
pub(super) fn one<'r>(report: &'r Report, kind: Kind, object: &str) -> &'r Finding {
    let mut findings = report.findings.listed().iter();
    let found = findings.find(|finding| finding.kind == kind && finding.object == object);
    found.unwrap_or_else(|| panic!("no {kind} of {object}: {:#?}", report.findings.listed()))
}
