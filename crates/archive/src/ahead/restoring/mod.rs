//! Restore-ahead: the segments behind the one that recovery asked for last are fetched before it asks for them.
//!
//! Guarantees:
//! * A file that was fetched ahead is one that was asked for: the same bytes, checked in the same way, given its name
//!   only when it is asked for. Until then it has none, so nothing goes stale under a name and a crash leaves nothing;
//!   where a file system cannot do that it has one that all readers skip, see [`remove_restore_leftovers`].
//! * Only a request is ever answered "absent", and only by asking the archive for it. A fetch ahead that failed, or
//!   did not find its file, is forgotten; timeline history files are never fetched ahead.
//! * What is under way is waited for, and what is not there is begun at once, before anything ahead; if it takes long,
//!   what is ahead stands still for it. An archive that
//!   hangs keeps a bounded number of threads, and no answer about another file.
//! * The window is kept full, slides with the requests, and is given up when requests end.
//!
//! The owner asks from one thread, waits as it likes for the notifier, and does nothing slow: files are fetched, checked
//! and decompressed by a pool. Left to others: what follows from a file's being stored or not ([`Rule`]), retries, and how
//! long an answer is waited for.

mod line;
mod pace;
mod state;
mod worker;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wal::{SegmentSize, SystemIdentifier, WalFileName};

use crate::ahead::jobs::JobId;
use crate::ahead::pool::{IDLE_MAX, Pool};
use crate::archive::{Archive, Place};
use crate::base::clock::Clock;
use crate::base::spawn::Spawn;
use crate::error::Error;
use crate::get::{Answer, Destination, RestoredFile, Rule, Ruled};
use crate::store::metered::Meter;

use state::{Around, State};
use worker::Tools;

/// The most segments that may be fetched ahead.
pub const PREFETCH_MAX: usize = 64;

/// How long a window is kept without a request. Its files have no names, but they take up disk space.
const KEPT_UNUSED_MAX: Duration = Duration::from_secs(60);

/// How many requests may be stuck in an archive that does not answer: each keeps a thread.
const STUCK_MAX: usize = 4;

/// The window takes at most this part of what is free where it lies: the server needs the rest for its own WAL.
const SPACE_PART: u64 = 4;

/// A request for a file.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// Name of the file.
    pub name: WalFileName,
    /// Where to put it. The path must not exist. A file appears there whole, and only while it is waited for.
    pub dest: PathBuf,
    /// Recovery asks, and goes on to the next segment. False if exactly this file is asked for.
    pub in_line: bool,
    /// From which archive. With another one than last time whatever was fetched ahead is dropped.
    pub place: Place,
    /// Whose WAL it must be.
    pub system: SystemIdentifier,
    /// How large the server's segments are.
    pub size: SegmentSize,
    /// What follows from its being stored, or not.
    pub rule: Arc<dyn Rule>,
    /// How many segments may be fetched ahead, at most [`PREFETCH_MAX`]; 0 for none.
    pub prefetch_max: usize,
    /// How many bytes all buffers may take, see [`Prefetch`]. One file at a time is always moved.
    pub memory_limit: u64,
}

/// What has been done ahead so far, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Number of segments fetched ahead.
    pub fetched: u64,
    /// Of those, how many were dropped because they were not asked for.
    pub unused: u64,
    /// How many segments the window is to hold at present.
    pub depth: usize,
}

/// The engine. Dropping it cancels what is under way.
pub struct Prefetch {
    pool: Arc<Pool<State>>,
    meter: Meter,
}

impl Prefetch {
    /// Nothing is fetched, and no thread started, before the first request. `notifier` is called whenever there may be an
    /// answer; it is called from other threads and must not wait for anything.
    pub fn new(spawn: Spawn, notifier: impl Fn() + Send + Sync + 'static) -> Prefetch {
        let meter = Meter::default();
        let counted = meter.clone();
        let open = move |place: &Place| {
            let (options, meter) = (place.options.clone(), counted.clone());
            Archive::open_counted(&place.location, options, spawn, meter)
        };
        let mut prefetch = Prefetch::with(spawn, notifier, open, Clock::system());
        prefetch.meter = meter;
        prefetch
    }

    /// Counts the requests to the archives that it opens.
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    fn with(
        spawn: Spawn,
        notifier: impl Fn() + Send + Sync + 'static,
        open: impl Fn(&Place) -> Result<Archive, Error> + Send + Sync + 'static,
        clock: Clock,
    ) -> Prefetch {
        let tools = Tools {
            notifier: Box::new(notifier),
            open: Box::new(open),
        };
        let state = State::new(clock);
        Prefetch {
            pool: Arc::new(Pool::new(state, tools, Some(spawn), IDLE_MAX)),
            meter: Meter::default(),
        }
    }

    /// Asks for a file. The answer is had from [`PendingRequest::answer`], perhaps at once.
    ///
    /// Fails if too many earlier requests are stuck in the archive, or no thread can be started.
    pub fn ask(&mut self, request: RestoreRequest) -> Result<PendingRequest<'_>, Error> {
        let mut state = self.pool.state();
        let segment = match &request.name {
            WalFileName::Segment(segment) if request.in_line => Some(*segment),
            _ => None,
        };
        let around = state.arrive(&request, segment.is_some())?;
        // Redo begins before the checkpoint, or the requests go backwards: then this file and nothing else.
        let forward = segment.is_some_and(|segment| state.asked_for(segment, &around));
        // Where what it holds decides, that has to be looked at where the archive is asked.
        let may_be_ahead = forward && !request.rule.examines();
        let job = may_be_ahead.then(|| state.take(&request.name)).flatten();
        drop(state);
        let mut request = PendingRequest {
            prefetch: self,
            request,
            around,
            job,
            forward,
        };
        match request.job {
            None => request.demand()?,
            Some(_) => request.look_ahead(),
        }
        Ok(request)
    }

    /// Drops whatever was fetched ahead, and what was learnt on the way: recovery has ended.
    pub fn forget(&mut self) {
        self.pool.state().forget();
    }

    /// What has been done ahead so far.
    pub fn tally(&self) -> Tally {
        self.pool.state().tally()
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.pool.close();
    }
}

impl std::fmt::Debug for Prefetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prefetch")
            .field("tally", &self.tally())
            .finish_non_exhaustive()
    }
}

/// A request that may not have been answered yet. Dropping it gives it up.
#[derive(Debug)]
pub struct PendingRequest<'a> {
    prefetch: &'a mut Prefetch,
    request: RestoreRequest,
    around: Around,
    /// What it waits for; `None` once it has been answered.
    job: Option<JobId>,
    /// Recovery goes on from here.
    forward: bool,
}

impl PendingRequest<'_> {
    /// The answer, as soon as there is one; once.
    pub fn answer(&mut self) -> Option<Result<Answer, Error>> {
        let (fetch, found) = self.prefetch.pool.state().jobs.take(self.job?)?;
        self.job = None;
        match found {
            Ok(Ruled::File(fetched)) => self.give(*fetched, !fetch.is_demanded()).transpose(),
            // What a fetch ahead met is no answer: the archive is asked anew.
            _ if !fetch.is_demanded() => self.demand().err().map(Err),
            Ok(Ruled::Absent(notices)) => Some(Ok(Answer::Absent(notices))),
            Err(error) => Some(Err(error)),
        }
    }

    /// It takes long: until there is an answer, what is fetched ahead stands still and leaves the whole way to this
    /// file, if it is on its way itself.
    pub fn hurry(&mut self) {
        self.prefetch.pool.state().hurry(true);
    }

    /// Whether the archive has been opened. Until then it may not be there at all, and need not be waited for as long
    /// as for a file on its way.
    pub fn is_connected(&self) -> bool {
        self.around.source.opened().is_some()
    }

    /// `None` if it has to be fetched anew.
    fn give(&mut self, mut fetched: RestoredFile, ahead: bool) -> Result<Option<Answer>, Error> {
        let (bytes, history) = (fetched.bytes, fetched.history.take());
        let dest = self.request.dest.clone();
        if let Err(error) = fetched.publish(&Destination::of(&dest)?) {
            if !ahead {
                return Err(error);
            }
            // What became of it meanwhile is no answer either.
            return self.demand().map(|()| None);
        }
        let mut state = self.prefetch.pool.state();
        if let Some(history) = history.filter(|_| self.request.in_line) {
            state.line.learn(history);
        }
        if self.forward {
            state.gave();
        }
        drop(state);
        if !ahead {
            self.look_ahead();
        }
        Ok(Some(Answer::Restored { bytes, ahead }))
    }

    /// Fetches it now.
    fn demand(&mut self) -> Result<(), Error> {
        let pool = &self.prefetch.pool;
        let mut state = pool.state();
        let job = state.demand(&self.request, &self.around).ok_or_else(|| {
            Error::unavailable(format!(
                "archive \"{}\" still has not answered {STUCK_MAX} earlier requests",
                self.request.place.location
            ))
        })?;
        self.job = Some(job);
        pool.call(&mut state)
            .map_err(|cause| Error::io("could not start a thread", cause))
    }

    /// Fills the window behind the segment that was asked for.
    fn look_ahead(&mut self) {
        let WalFileName::Segment(segment) = self.request.name else {
            return;
        };
        if !self.forward {
            return;
        }
        let free = free_bytes(&self.around.parent);
        let mut state = self.prefetch.pool.state();
        state.look_ahead(segment, &self.request, free);
        // Without a thread nothing is fetched ahead: the request for it is then the first to say so.
        drop(self.prefetch.pool.call(&mut state));
    }
}

impl Drop for PendingRequest<'_> {
    fn drop(&mut self) {
        self.prefetch.pool.state().give_up(self.job);
    }
}

/// What is free in the file system of this directory, in bytes; 0 if that cannot be told.
fn free_bytes(directory: &Path) -> u64 {
    rustix::fs::statvfs(directory)
        .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
        .unwrap_or(0)
}
