//! Reading segments: each once, by several readers at a time, in the order of their names.
//!
//! Guarantees that every segment which is to be read is handed on once, with its facts where they are wanted, with what is
//! wrong with it, and with how the ones that follow it fit. It is handed on once it has been compared with its neighbors that are
//! read, too, the one before it and those behind; what still waits when the scan ends, with what is known by then. Memory is that
//! of the readers and of segments that wait for a neighbor, whatever the size of the archive. Which segments are read is decided
//! in `wanted`, what follows from them by the callers.

mod beginning;
mod boundaries;
mod order;
mod pool;
mod reader;
pub(crate) mod small;
mod wanted;

pub(crate) use boundaries::Scanned;
pub(crate) use order::Order;
pub use pool::READERS_MAX;
pub(crate) use reader::{Expected, Reader};
pub(crate) use wanted::{Known, Outline, Plan, plan};

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use archive::Error;

use crate::inventory::Listing;
use boundaries::Boundaries;
use pool::{lock, readers, side_by_side};
use reader::Seen;

/// How many objects one after the other may be out of reach before the archive counts as gone.
pub(crate) const GONE_AFTER: u32 = 16;

/// Segments to read, and how.
pub(crate) struct Scan<'a> {
    /// What is known before anything is read.
    pub(crate) expected: &'a Expected<'a>,
    /// Which segment follows which.
    pub(crate) order: &'a Order<'a>,
    /// How many segments are read at a time; 0 for as many as there are processors.
    pub(crate) readers: usize,
    /// Where facts are wanted, how each file is stored.
    pub(crate) stamps: Option<&'a Listing>,
    /// After how many objects in a row that could not be had it ends; with 1, whatever kept them from being had.
    pub(crate) gone_after: u32,
    /// Told how many segments have been read.
    pub(crate) told: &'a (dyn Fn(u64) + Sync),
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How many segments have been read.
    pub(crate) segments: u64,
    /// How many bytes of WAL are in them.
    pub(crate) bytes: u64,
    /// How many records end in them and were checked.
    pub(crate) records: u64,
    /// Whether the archive was out of reach in the end.
    pub(crate) is_gone: bool,
    /// The first reason why an object could not be had.
    pub(crate) failure: Option<Error>,
}

/// Where the segments go.
pub(crate) type Sink<'s> = &'s mut (dyn FnMut(Scanned) + Send);

struct Work<'a> {
    scan: &'a Scan<'a>,
    plan: &'a Plan<'a>,
    next: AtomicUsize,
    ledger: Mutex<Ledger<'a>>,
    segments: AtomicU64,
    bytes: AtomicU64,
    records: AtomicU64,
    /// Objects in a row that the store did not deliver.
    out_of_reach: AtomicU32,
}

struct Ledger<'a> {
    boundaries: Boundaries<'a>,
    sink: Sink<'a>,
    failure: Option<Error>,
}

impl Scan<'_> {
    /// Reads what is planned.
    pub(crate) fn run(&self, plan: &Plan<'_>, sink: Sink<'_>) -> Tally {
        let work = Work {
            scan: self,
            plan,
            next: AtomicUsize::new(0),
            ledger: Mutex::new(Ledger {
                boundaries: Boundaries::new(self.order, plan, self.stamps),
                sink,
                failure: None,
            }),
            segments: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            records: AtomicU64::new(0),
            out_of_reach: AtomicU32::new(0),
        };
        let to_read = usize::try_from(plan.to_read()).unwrap_or(usize::MAX);
        let readers = readers(self.readers).min(to_read);
        side_by_side(readers, &|| {
            let mut reader = Reader::new(self.expected, self.stamps.is_some());
            while !work.is_over() && work.one(&mut reader).is_continue() {}
        });
        work.end()
    }
}

impl Work<'_> {
    /// Whether work is to stop.
    fn is_over(&self) -> bool {
        let gone = self.out_of_reach.load(Ordering::Acquire) >= self.scan.gone_after;
        gone || self.scan.expected.cancel.is_cancelled()
    }

    /// Reads the next segment; breaks if there is none.
    fn one(&self, reader: &mut Reader<'_>) -> ControlFlow<()> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        if at >= self.plan.files() {
            return ControlFlow::Break(());
        }
        let to_read = self.plan.at(at);
        let Some((to_read, name)) = to_read
            .as_ref()
            .and_then(|it| Some((it, it.file.segment()?)))
        else {
            return ControlFlow::Continue(());
        };
        let seen = reader.segment(*name, &to_read.file);
        self.count(&seen);
        self.take(to_read, seen);
        let segments = self.segments.fetch_add(1, Ordering::AcqRel) + 1;
        (self.scan.told)(segments);
        ControlFlow::Continue(())
    }

    fn count(&self, seen: &Seen) {
        let ends_all = self.scan.gone_after == 1 && seen.error.is_some();
        if seen.is_unavailable || ends_all {
            self.out_of_reach.fetch_add(1, Ordering::AcqRel);
        } else if !self.is_over() {
            // Once the archive counts as gone it stays so.
            self.out_of_reach.store(0, Ordering::Release);
        }
        let records = seen.summary.as_ref().map_or(0, |summary| summary.records);
        self.records.fetch_add(records, Ordering::AcqRel);
        self.bytes.fetch_add(seen.bytes, Ordering::AcqRel);
    }

    fn take(&self, to_read: &wanted::ToRead, mut seen: Seen) {
        let stamp = self.scan.stamps.and_then(|all| all.get(&to_read.file));
        match (&seen.summary, &mut seen.facts, stamp) {
            (Some(summary), Some(facts), Some(stamp)) => {
                facts.finish(summary.end(), stamp);
                facts.goes_through = boundaries::goes_through(summary);
                let (order, size) = (self.scan.order, summary.header.segment_size);
                facts.switchpoint = order.begins_in(&summary.name, size);
            }
            _ => seen.facts = None,
        }
        let Ledger {
            boundaries,
            sink,
            failure,
        } = &mut *lock(&self.ledger);
        if failure.is_none() {
            *failure = seen.error.take();
        }
        let scanned = Scanned::of(to_read, &mut seen);
        boundaries.take(scanned, seen.summary, sink);
    }

    fn end(self) -> Tally {
        let is_gone = self.out_of_reach.load(Ordering::Acquire) >= self.scan.gone_after;
        let ledger = self.ledger.into_inner();
        let Ledger {
            boundaries,
            sink,
            failure,
        } = ledger.unwrap_or_else(PoisonError::into_inner);
        boundaries.flush(sink);
        Tally {
            segments: self.segments.into_inner(),
            bytes: self.bytes.into_inner(),
            records: self.records.into_inner(),
            is_gone,
            failure,
        }
    }
}
