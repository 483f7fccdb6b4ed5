//! Where readers get their work, and bring what they have found.
//!
//! Guarantees that work stops when somebody asks for it, or the archive is gone; and that what was not read then is a finding.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use archive::Cancel;
use wal::{SegmentSummary, TimelineId};

use super::Told;
use super::joints::{Joined, Joints, Key, Lead, Sources};
use super::journal::Journal;
use super::object::Seen;
use super::piece::{Desk, Done, GONE_AFTER, Reader};
use super::plan::{Plan, Task};
use crate::finding::{Finding, Findings, Kind, Severity};

/// All that was read and found.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) findings: Findings,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    pub(crate) stopped: Option<String>,
}

/// The desk.
pub(crate) struct Office<'a> {
    tasks: Mutex<VecDeque<Task>>,
    sources: Sources,
    ledger: Mutex<Ledger>,
    cancel: &'a Cancel,
    told: &'a (dyn Fn(Told) + Sync),
    planned: u64,
    segments: AtomicU64,
    bytes: AtomicU64,
    records: AtomicU64,
    /// Objects in a row that the store did not deliver.
    out_of_reach: AtomicU32,
}

struct Ledger {
    joints: Joints,
    journal: Option<Journal>,
    findings: Findings,
}

impl<'a> Office<'a> {
    pub(crate) fn new(
        plan: Plan,
        journal: Option<Journal>,
        cancel: &'a Cancel,
        told: &'a (dyn Fn(Told) + Sync),
    ) -> Office<'a> {
        Office {
            ledger: Mutex::new(Ledger {
                joints: Joints::new(&plan.sources),
                journal,
                findings: Findings::default(),
            }),
            tasks: Mutex::new(plan.tasks.into()),
            sources: plan.sources,
            cancel,
            told,
            planned: plan.segments,
            segments: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            records: AtomicU64::new(0),
            out_of_reach: AtomicU32::new(0),
        }
    }

    /// Works until there is nothing left to do.
    pub(crate) fn work(&self, reader: &mut Reader<'_>) {
        while let Some(task) = self.next() {
            let done = match &task {
                Task::Segments {
                    timeline,
                    from,
                    again: true,
                    ..
                } => reader.again(*timeline, *from),
                Task::Segments {
                    timeline, from, to, ..
                } => reader.segments(*timeline, *from, *to),
                Task::Partial(name) => reader.partial(*name),
            };
            lock(&self.ledger).take(&task, done);
        }
    }

    /// The next task. A function, for a lock taken in the head of a loop is held until the end of its body.
    fn next(&self) -> Option<Task> {
        match self.is_over() {
            true => None,
            false => lock(&self.tasks).pop_front(),
        }
    }

    /// What came of it all.
    pub(crate) fn tally(self) -> Tally {
        let Ledger { mut findings, .. } = self
            .ledger
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let gone = self.out_of_reach.load(Ordering::Acquire) >= GONE_AFTER;
        let segments = self.segments.load(Ordering::Acquire);
        let why = match (self.cancel.is_cancelled(), gone) {
            (true, _) => Some("it was cancelled".to_owned()),
            (_, true) => Some(format!("{GONE_AFTER} objects in a row could not be read")),
            _ => None,
        };
        if let Some(why) = &why {
            let left = self.planned.saturating_sub(segments);
            let message = format!("{left} of {} segments were not read: {why}", self.planned);
            findings.add(Finding::new(
                Severity::CouldNotTell,
                Kind::NotRead,
                "",
                message,
            ));
        }
        Tally {
            findings,
            segments,
            bytes: self.bytes.load(Ordering::Acquire),
            records: self.records.load(Ordering::Acquire),
            stopped: why,
        }
    }

    fn joined(&self, work: impl FnOnce(&mut Joints, &mut Vec<Joined>)) {
        let mut ledger = lock(&self.ledger);
        let mut joined = Vec::new();
        work(&mut ledger.joints, &mut joined);
        for joined in joined {
            ledger.joined(joined);
        }
    }
}

impl Ledger {
    fn take(&mut self, task: &Task, done: Done) {
        let is_again = matches!(task, Task::Segments { again: true, .. });
        let written = match (task, &mut self.journal) {
            _ if is_again => Ok(()),
            (_, Some(journal)) if done.is_complete => match task {
                Task::Segments {
                    timeline, from, to, ..
                } => journal.segments(*timeline, *from..=*to, done.bytes, &done.findings),
                Task::Partial(name) => journal.partial(name, done.bytes, &done.findings),
            },
            _ => Ok(()),
        };
        self.noted(written);
        for finding in done.findings {
            // What is read again has been told, but for what cannot be read now.
            if !is_again || finding.kind == Kind::NotRead {
                self.findings.add(finding);
            }
        }
    }

    fn joined(&mut self, joined: Joined) {
        if let Some(journal) = self.journal.as_mut().filter(|_| joined.is_whole) {
            let written = journal.joined(joined.key, joined.finding.as_ref());
            self.noted(written);
        }
        if let Some(finding) = joined.finding {
            self.findings.add(finding);
        }
    }

    /// What cannot be written down has been verified all the same.
    fn noted(&mut self, written: Result<(), archive::Error>) {
        if let Err(why) = written {
            let finding = Finding::new(Severity::Warning, Kind::State, "", why.to_string());
            self.findings
                .add(finding.hint("An interrupted run will begin anew from there."));
            self.journal = None;
        }
    }
}

impl Desk for Office<'_> {
    fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || self.out_of_reach.load(Ordering::Acquire) >= GONE_AFTER
    }

    fn read(&self, seen: &Seen) {
        match seen.is_unavailable {
            true => {
                self.out_of_reach.fetch_add(1, Ordering::AcqRel);
            }
            // Once the archive counts as gone it stays so.
            false if !self.is_over() => self.out_of_reach.store(0, Ordering::Release),
            false => {}
        }
        let records = seen.summary.as_ref().map_or(0, |summary| summary.records);
        self.records.fetch_add(records, Ordering::AcqRel);
        self.bytes.fetch_add(seen.bytes, Ordering::AcqRel);
        let segments = self.segments.fetch_add(1, Ordering::AcqRel) + 1;
        (self.told)(Told::Read(segments, self.planned.max(segments)));
    }

    fn is_source(&self, source: (TimelineId, u64)) -> bool {
        self.sources.contains_key(&source)
    }

    fn left(&self, source: (TimelineId, u64), summary: Option<&SegmentSummary>) {
        self.joined(|joints, joined| joints.left(source, summary, joined));
    }

    fn right(&self, key: Key, lead: Lead) {
        self.joined(|joints, joined| joints.right(key, lead, joined));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
