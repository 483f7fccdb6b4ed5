//! Reading what an archive holds: what is new since the last time, in parallel.
//!
//! Guarantees that each segment is read once, that a record over a segment's end is among the facts of the segment it
//! begins in, and that memory is bounded but for the facts. What cannot be decoded is noted as such; an archive that cannot be
//! asked is an error, never an archive that holds less.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use archive::{Archive, Cancel, Error, ErrorKind, Found, Reading, Stored};
use wal::{SegmentName, SegmentReader, SegmentSummary, TimelineId, WalFileName};

use crate::backup_history::BACKUP_HISTORY_BYTES_MAX;
use crate::facts::{End, Following, Notes, SegmentFacts};
use crate::index::{Entry, Index, What, nanos};

/// How many segments one thread reads in a row. Where a row ends, one segment more has to be read.
const ROW_MAX: usize = 32;
const ROW_MIN: usize = 4;

/// The most bytes of a timeline history file that are read: a thousand timelines with a reason each.
const HISTORY_BYTES_MAX: u64 = 256 * 1024;

/// How an archive is read.
pub struct Gathering<'a> {
    /// The archive.
    pub archive: &'a Archive,
    /// How many threads read.
    pub jobs: usize,
    /// Told how many files have been listed.
    pub listed: &'a (dyn Fn(u64) + Sync),
    /// Told how many files of how many have been read.
    pub read: &'a (dyn Fn(u64, u64) + Sync),
    /// Stops it.
    pub cancel: &'a Cancel,
}

impl Gathering<'_> {
    /// Brings an index up to date; tells how many files had to be read.
    ///
    /// # Errors
    /// When the archive cannot be listed or read, or an identity is missing.
    pub fn update(&self, known: &Index) -> Result<(Index, u64), Error> {
        let files = self.list()?;
        let mut index = Index::default();
        for (name, stored) in &files {
            let name = name.to_string();
            if let Some(entry) = known.fresh(&name, &stored.key, stored.bytes, stored.modified) {
                index.entries.insert(name, entry.clone());
            }
        }
        let wanted = wanted(&files, &index);
        let segments: Vec<SegmentName> = wanted
            .iter()
            .filter_map(|name| match name {
                WalFileName::Segment(name) => Some(*name),
                _ => None,
            })
            .collect();
        let others: Vec<WalFileName> = wanted
            .into_iter()
            .filter(|name| !matches!(name, WalFileName::Segment(_)))
            .collect();
        let total = (segments.len() + others.len()) as u64;
        let row = segments.len().div_ceil(self.jobs.max(1) * 4);
        let mut tasks: Vec<Task> = Vec::new();
        tasks.extend(others.chunks(ROW_MIN).map(Task::Texts));
        let rows = segments.chunks(row.clamp(ROW_MIN, ROW_MAX));
        tasks.extend(rows.map(Task::Row));
        let work = Work {
            gathering: self,
            files: &files,
            timelines: files.keys().map(WalFileName::timeline).collect(),
            total,
            entries: Mutex::new(index.entries),
            read: AtomicUsize::new(0),
            failure: Mutex::default(),
        };
        work.all(&tasks)?;
        let entries = work.entries.into_inner();
        let entries = entries.unwrap_or_else(PoisonError::into_inner);
        Ok((Index { entries }, total))
    }

    /// The files by name. Of one that is stored more than once the first is taken; partial segments are not, because no
    /// recovery asks for them.
    fn list(&self) -> Result<BTreeMap<WalFileName, Stored>, Error> {
        let mut files: BTreeMap<WalFileName, Stored> = BTreeMap::new();
        let mut count = 0;
        self.archive.each(&mut |found| {
            if let Found::File(stored) = found
                && !matches!(stored.name, WalFileName::Partial(_))
            {
                let other = files.get(&stored.name);
                if other.is_none_or(|other| stored.key < other.key) {
                    files.insert(stored.name, stored);
                }
                count += 1;
                (self.listed)(count);
            }
            ControlFlow::Continue(())
        })?;
        Ok(files)
    }
}

/// What has to be read: what is not known, and segments of which it is no longer true what was learnt of the one behind.
fn wanted(files: &BTreeMap<WalFileName, Stored>, index: &Index) -> BTreeSet<WalFileName> {
    let timelines: BTreeSet<TimelineId> = files.keys().map(WalFileName::timeline).collect();
    let facts_of = |name: &WalFileName| match &index.entries.get(&name.to_string())?.what {
        What::Segment(facts) => Some(facts),
        _ => None,
    };
    let is_new = |name: &WalFileName| !index.entries.contains_key(&name.to_string());
    let is_stale = |facts: &SegmentFacts, wanted: &BTreeSet<WalFileName>| {
        let Some(next) = facts.size().and_then(|size| facts.name.next(size)) else {
            return false;
        };
        let mut follows = false;
        for next in successors(next, &timelines).map(WalFileName::Segment) {
            if !files.contains_key(&next) {
                continue;
            }
            let behind =
                facts_of(&next).filter(|next| next.first_timeline == facts.name.timeline());
            follows |= behind.is_some();
            // A record that goes on through all of the next one ends behind that.
            let goes_through = behind.is_some_and(|next| next.first.is_none());
            if is_new(&next) || (goes_through && wanted.contains(&next)) {
                return true;
            }
        }
        // It has come, or it is gone.
        follows != facts.following.is_known()
    };
    let mut wanted = BTreeSet::new();
    // What is behind a segment has a later name.
    for name in files.keys().rev() {
        let is_wanted = match facts_of(name) {
            Some(facts) => !matches!(facts.end, End::Ended(_)) && is_stale(facts, &wanted),
            None => is_new(name),
        };
        if is_wanted {
            wanted.insert(*name);
        }
    }
    wanted
}

/// The names that the segment in this place can have, the likeliest first.
fn successors(
    next: SegmentName,
    timelines: &BTreeSet<TimelineId>,
) -> impl Iterator<Item = SegmentName> + '_ {
    timelines
        .range(next.timeline()..)
        .map(move |timeline| next.with_timeline(*timeline))
}

enum Task<'a> {
    /// Small files.
    Texts(&'a [WalFileName]),
    /// Segments, in order.
    Row(&'a [SegmentName]),
}

struct Work<'a> {
    gathering: &'a Gathering<'a>,
    files: &'a BTreeMap<WalFileName, Stored>,
    timelines: BTreeSet<TimelineId>,
    total: u64,
    entries: Mutex<BTreeMap<String, Entry>>,
    read: AtomicUsize,
    failure: Mutex<Option<Error>>,
}

/// A segment that was read: its facts and how it fits to others.
type Segment = (SegmentFacts, SegmentSummary);

/// Segments that wait for what is behind them.
struct Chain {
    /// The last one, and before it those whose last record goes on through it; and whether they are this row's.
    pending: Vec<(SegmentFacts, bool)>,
    /// Of the last one.
    summary: SegmentSummary,
}

impl Chain {
    fn of((facts, summary): Segment, is_ours: bool) -> Chain {
        Chain {
            pending: vec![(facts, is_ours)],
            summary,
        }
    }

    /// Whether a record goes on through all of the last segment.
    fn goes_through(&self) -> bool {
        let last = self.pending.last();
        self.summary.first.is_none() && last.is_some_and(|(facts, _)| facts.end == End::Full)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Work<'_> {
    fn all(&self, tasks: &[Task<'_>]) -> Result<(), Error> {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.gathering.jobs.clamp(1, tasks.len().max(1)) {
                scope.spawn(|| {
                    let mut reading = self.gathering.archive.reading();
                    while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let done = match task {
                            Task::Texts(names) => self.texts(&mut reading, names),
                            Task::Row(names) => self.row(&mut reading, names),
                        };
                        if let Err(failure) = done {
                            lock(&self.failure).get_or_insert(failure);
                        }
                        if lock(&self.failure).is_some() {
                            return;
                        }
                    }
                });
            }
        });
        match lock(&self.failure).take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn put(&self, name: WalFileName, what: What) {
        let Some(stored) = self.files.get(&name) else {
            return;
        };
        let entry = Entry {
            key: stored.key.clone(),
            bytes: stored.bytes,
            modified: nanos(stored.modified),
            what,
        };
        lock(&self.entries).insert(name.to_string(), entry);
        let read = self.read.fetch_add(1, Ordering::Relaxed) as u64 + 1;
        (self.gathering.read)(read, self.total);
    }

    fn texts(&self, reading: &mut Reading<'_>, names: &[WalFileName]) -> Result<(), Error> {
        for name in names {
            let Some(stored) = self.files.get(name) else {
                continue;
            };
            let bytes_max = match name {
                WalFileName::BackupHistory { .. } => BACKUP_HISTORY_BYTES_MAX,
                _ => HISTORY_BYTES_MAX,
            };
            let mut bytes = Vec::new();
            let read = reading.read(&stored.key, self.gathering.cancel, &mut |piece| {
                bytes.extend_from_slice(piece);
                match bytes.len() as u64 > bytes_max {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            match read {
                Ok(Some(_)) if bytes.len() as u64 > bytes_max => {
                    self.put(
                        *name,
                        What::Unreadable(format!("it has more than {bytes_max} bytes")),
                    );
                }
                Ok(Some(_)) => {
                    self.put(
                        *name,
                        What::Text(String::from_utf8_lossy(&bytes).into_owned()),
                    );
                }
                Ok(None) => {}
                Err(unreadable) if is_unreadable(&unreadable) => {
                    self.put(*name, What::Unreadable(unreadable.to_string()));
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Reads segments in order, and what follows the last one.
    fn row(&self, reading: &mut Reading<'_>, names: &[SegmentName]) -> Result<(), Error> {
        let mut chain: Option<Chain> = None;
        for name in names {
            let segment = self.segment(reading, name, true)?;
            if let Some(before) = chain.take() {
                if self.successor(&before.summary) != Some(*name) {
                    self.finish(reading, before)?;
                } else if let Some(segment) = segment {
                    chain = Some(self.join(before, segment, true));
                    continue;
                } else {
                    // Another timeline may have it, too.
                    self.finish(reading, before)?;
                }
            }
            chain = segment.map(|segment| Chain::of(segment, true));
        }
        match chain {
            Some(chain) => self.finish(reading, chain),
            None => Ok(()),
        }
    }

    /// Reads on behind a row until the last record that begins in it has ended.
    fn finish(&self, reading: &mut Reading<'_>, mut chain: Chain) -> Result<(), Error> {
        while let Some(next) = self.behind(reading, &chain.summary)? {
            chain = self.join(chain, next, false);
            let waits = chain.pending.iter().any(|(_, is_ours)| *is_ours);
            if !waits || !chain.goes_through() {
                break;
            }
        }
        self.emit(chain);
        Ok(())
    }

    fn emit(&self, chain: Chain) {
        for (facts, is_ours) in chain.pending {
            if is_ours {
                self.put(
                    WalFileName::Segment(facts.name),
                    What::Segment(Box::new(facts)),
                );
            }
        }
    }

    /// Puts a segment behind those that wait for it.
    fn join(&self, mut chain: Chain, (facts, mut summary): Segment, is_ours: bool) -> Chain {
        if !chain.summary.precedes(&summary) {
            self.emit(chain);
            return Chain::of((facts, summary), is_ours);
        }
        let pending = &mut chain.pending;
        let joined = chain.summary.join(&mut summary, |record| {
            let begins_in = pending
                .iter_mut()
                .find(|(facts, _)| facts.start <= record.lsn && record.lsn < facts.behind());
            if let Some((facts, _)) = begins_in {
                facts.record_over_end(record);
            }
        });
        if let Some((last, _)) = chain.pending.last_mut() {
            last.following = match joined {
                Ok(()) => Following::Joined,
                Err(damage) => Following::Broken(damage.to_string()),
            };
        }
        let mut next = Chain::of((facts, summary), is_ours);
        if next.goes_through() {
            chain.pending.append(&mut next.pending);
            next.pending = chain.pending;
        } else {
            self.emit(chain);
        }
        next
    }

    /// The segment behind this one, if it is in the archive.
    fn successor(&self, summary: &SegmentSummary) -> Option<SegmentName> {
        self.successors(summary).next()
    }

    /// The same of every timeline that has one.
    fn successors(&self, summary: &SegmentSummary) -> impl Iterator<Item = SegmentName> + '_ {
        let next = summary.name.next(summary.header.segment_size);
        next.into_iter()
            .flat_map(|next| successors(next, &self.timelines))
            .filter(|name| self.files.contains_key(&WalFileName::Segment(*name)))
    }

    /// The first one behind this segment that can be read and is of its timeline.
    fn behind(
        &self,
        reading: &mut Reading<'_>,
        summary: &SegmentSummary,
    ) -> Result<Option<Segment>, Error> {
        for name in self.successors(summary) {
            let segment = self.segment(reading, &name, false)?;
            if let Some(segment) = segment.filter(|(_, next)| summary.precedes(next)) {
                return Ok(Some(segment));
            }
        }
        Ok(None)
    }

    /// Reads a segment; `None` if it is gone or cannot be read, which is noted if it is ours.
    fn segment(
        &self,
        reading: &mut Reading<'_>,
        name: &SegmentName,
        is_ours: bool,
    ) -> Result<Option<Segment>, Error> {
        let file = WalFileName::Segment(*name);
        let Some(stored) = self.files.get(&file) else {
            return Ok(None);
        };
        let mut notes = Notes::default();
        let mut reader = SegmentReader::new(*name);
        let read = reading.read(&stored.key, self.gathering.cancel, &mut |piece| {
            // What is wrong is said once more at the end.
            match reader.feed(piece, |record| notes.record(record)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        let why = match read {
            Ok(Some(_)) => match reader.finish() {
                Ok(summary) => return Ok(Some((notes.of_segment(&summary, stored), summary))),
                Err(why) => why.to_string(),
            },
            // Cleaned up meanwhile.
            Ok(None) => return Ok(None),
            Err(unreadable) if is_unreadable(&unreadable) => unreadable.to_string(),
            Err(failure) => return Err(failure),
        };
        if is_ours {
            self.put(file, What::Unreadable(why));
        }
        Ok(None)
    }
}

/// Whether a file is at fault, and not whoever reads it.
fn is_unreadable(error: &Error) -> bool {
    error.kind() == ErrorKind::Damaged || error.is_no_file()
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
