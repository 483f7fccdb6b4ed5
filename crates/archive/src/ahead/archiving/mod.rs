//! Archiving ahead: the files that the server will hand over next are on their way while it still asks for this one.
//!
//! Guarantees:
//! * the file that is asked for is begun at once, whatever else is going on, and its answer is its own: a
//!   neighbour's failure, stall or panic is no failure of it;
//! * none becomes visible before those in front of it on its timeline, but as `order.rs` says; a refusal cancels what is on its
//!   way behind it, and says what got through;
//! * at most `jobs` files are moved at once; with one job nothing is begun that has not been asked for;
//! * a file is begun unasked only while the server's own note says that it is to be archived, which is looked at again
//!   after it was read (`put/mod.rs`); `archive_status` is never written;
//! * a file is acknowledged only if its name still stands for the very file that was archived;
//! * trouble that may end by itself is retried with the policy of `retry.rs`, for the asked-for file until its
//!   deadline; a cancellation ends a pause at once;
//! * what is going on outlives a wait that ended early: asking again joins it.
//!
//! Left to others: waiting for the notifier, deadlines, what is logged, and what "archived" means (`put/mod.rs`).

mod order;
mod queue;
mod ready;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use wal::{SystemIdentifier, WalFileName};

use crate::ahead::memory;
use crate::ahead::pool::{IDLE_MAX, Pool};
use crate::archive::Archive;
use crate::base::clock::Clock;
use crate::base::spawn::Spawn;
use crate::error::{Error, ErrorKind, Mark};
use crate::format::workspace::Workspace;
use crate::put::{self, Offered, Put};
use crate::store::retry::Backoff;
use queue::{Job, Outcome, Queue, Turn};
use ready::Reading;

/// How much may be going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchivingLimits {
    /// Files moved at once (`walden.archive_jobs`), at least 1.
    pub jobs: usize,
    /// Bytes of buffers in all (`walden.memory_limit`); one file is moved even if it needs more.
    pub memory: u64,
}

/// Something that the log should tell once, not at every try.
#[derive(Debug, PartialEq, Eq)]
pub enum ArchivingNote {
    /// The file that is asked for could not be archived for now; it is tried again until its deadline.
    Retrying {
        /// Name of the file.
        name: WalFileName,
        /// What the first try failed with.
        cause: String,
        /// Advice, if there is any.
        hint: Option<String>,
        /// Whether the store does not let us in: [`Error::is_denied`].
        is_denied: bool,
    },
    /// After that, a file has been archived.
    Recovered {
        /// Name of the file.
        name: WalFileName,
        /// For how long none could be.
        after: Duration,
    },
    /// Something that readers of the log should know of a file that has been archived all the same.
    Warning(String),
}

/// A file on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// Name of the file.
    pub name: WalFileName,
    /// What becomes of it at present.
    pub stage: FlightStage,
    /// How many attempts have been made, this one included.
    pub attempts: u64,
    /// Since when the first of them.
    pub since: Instant,
    /// What the last one failed with.
    pub error: Option<String>,
}

/// What becomes of a file on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlightStage {
    /// It is being moved, or is tried again in a moment.
    Running,
    /// It is stored, and has not been asked for.
    Stored,
    /// It has failed, and the answer has not been taken.
    Failed,
}

/// Looks at what an [`Archiving`] does, from anywhere, as long as there is one.
#[derive(Clone)]
pub struct ArchivingView(Weak<Pool<Queue>>);

impl ArchivingView {
    /// Files on their way, in the order of their names; the first 32.
    pub fn in_flight(&self) -> Vec<InFlight> {
        let pool = self.0.upgrade();
        pool.map(|pool| pool.state().in_flight())
            .unwrap_or_default()
    }
}

/// Files on their way into one archive. Dropping it gives up what has not been acknowledged.
pub struct Archiving {
    pool: Arc<Pool<Queue>>,
}

/// What archiving takes beside the queue.
pub(crate) struct Tools {
    archive: Arc<Archive>,
    system: SystemIdentifier,
    notifier: Box<dyn Fn() + Send + Sync>,
}

/// How long an answer "refused" waits for what is on its way behind it and has been cancelled: a request that has been made is
/// over by then, or hangs.
const CANCELLED_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long a staged file waits for its turn before it looks again: it is told, so this is for nothing but a fault of ours.
const TURN_LOOK: Duration = Duration::from_secs(1);

impl Archiving {
    /// Nothing is going on yet. `notifier` is called, from another thread, whenever [`Archiving::poll`] or
    /// [`Archiving::note`] may have something new.
    pub fn new(
        archive: Arc<Archive>,
        system: SystemIdentifier,
        spawn: Spawn,
        notifier: impl Fn() + Send + Sync + 'static,
    ) -> Archiving {
        Archiving::by_clock(archive, system, spawn, Clock::system(), notifier)
    }

    /// The same by another clock.
    fn by_clock(
        archive: Arc<Archive>,
        system: SystemIdentifier,
        spawn: Spawn,
        clock: Clock,
        notifier: impl Fn() + Send + Sync + 'static,
    ) -> Archiving {
        let queue = Queue::new(archive.store.stages_ahead(), clock);
        let tools = Tools {
            archive,
            system,
            notifier: Box::new(notifier),
        };
        Archiving {
            pool: Arc::new(Pool::new(queue, tools, Some(spawn), IDLE_MAX)),
        }
    }

    /// The same without threads, for simulations: each turn is taken by [`Archiving::take_turn`], and the time is given.
    pub fn without_workers(
        archive: Arc<Archive>,
        system: SystemIdentifier,
        clock: Clock,
    ) -> Archiving {
        let queue = Queue::new(archive.store.stages_ahead(), clock);
        let tools = Tools {
            archive,
            system,
            notifier: Box::new(|| ()),
        };
        Archiving {
            pool: Arc::new(Pool::new(queue, tools, None, IDLE_MAX)),
        }
    }

    /// For looking at what it does.
    pub fn view(&self) -> ArchivingView {
        ArchivingView(Arc::downgrade(&self.pool))
    }

    /// Takes one turn, to its end; false if there is nothing to do. A store may take another one in the middle of it, as
    /// another thread would, but not where staged files wait for those in front of them ([`crate::Store::stages_ahead`]).
    pub fn take_turn(&self) -> bool {
        self.pool.turn(&mut Workspace::default())
    }

    /// Asks for a file, until `deadline`, and lets the next ready ones be begun. Returns at once: with the answer if
    /// the file has been archived unasked; else [`Archiving::poll`] will have it.
    ///
    /// `path` is the file, in a folder that has the server's `archive_status` in it (`pg_wal`).
    ///
    /// Fails if there is no thread and none can be started.
    pub fn ask(
        &self,
        name: &WalFileName,
        path: &Path,
        deadline: Instant,
        limits: ArchivingLimits,
    ) -> Result<Option<Put>, Error> {
        let archive = &self.pool.tools.archive;
        // What a segment is compressed to is not known; more than itself it hardly is.
        let bytes = path.metadata().map_or(0, |file| file.len());
        let each = memory::archiving_bytes(archive.options.compression)
            + archive.store.staged_bytes(bytes);
        let jobs = memory::jobs_within(limits.memory, each, limits.jobs);
        let mut queue = self.pool.state();
        let answer = queue.ask(name, path, deadline, jobs);
        self.pool.changed();
        match self.pool.call(&mut queue) {
            Err(cause) if answer.is_none() => {
                let what = format!("could not start a thread to archive \"{name}\"");
                Err(Error::io(what, cause))
            }
            _ => Ok(answer),
        }
    }

    /// The answer to what was asked for last, once it is there.
    pub fn poll(&self, name: &WalFileName) -> Option<Result<Put, Error>> {
        self.pool.state().answer(name)
    }

    /// What the log should be told, once each.
    pub fn note(&self) -> Option<ArchivingNote> {
        self.pool.state().notes.pop_front()
    }

    /// Whether the file that is asked for has failed and is tried again.
    pub fn is_in_trouble(&self) -> bool {
        self.pool.state().is_in_trouble()
    }

    /// When a chunk of this file was moved last; `None` if it is not on its way.
    pub fn last_progress(&self, name: &WalFileName) -> Option<Instant> {
        self.pool.state().last_progress(name)
    }
}

impl Drop for Archiving {
    fn drop(&mut self) {
        self.pool.close();
    }
}

/// Takes a turn, on a worker.
fn run(pool: &Pool<Queue>, turn: Turn, workspace: &mut Workspace) {
    let job = match turn {
        Turn::Read(archive_status) => {
            // Not under the lock: the folder may be large, or its disk slow.
            let reading = Reading::of(&archive_status);
            return pool.state().ready_names(reading);
        }
        Turn::Archive(job) => job,
    };
    let outcome = archive(pool, &job, workspace);
    let mut queue = pool.state();
    if let Outcome::Ended(Err(error)) = &outcome
        && !error.kind().may_work_later()
    {
        // So that the answer can say what got through.
        queue.give_up_behind(&job.name, error);
        pool.changed();
        queue = pool.wait_while(queue, CANCELLED_WAIT_MAX, |queue| {
            queue.is_giving_up_behind(&job.name)
        });
    }
    let warnings = pool.tools.archive.take_warnings().into_iter();
    queue.notes.extend(warnings.map(ArchivingNote::Warning));
    queue.ended(&job, outcome);
    drop(queue);
    pool.changed();
    (pool.tools.notifier)();
}

/// Waits until a staged file may be given its name, or is cancelled.
fn wait_for_turn(pool: &Pool<Queue>, job: &Job) -> Result<(), Error> {
    let waits = |queue: &Queue| !job.cancel.is_cancelled() && !queue.may_publish(&job.name);
    let mut queue = pool.state();
    while waits(&queue) {
        queue = pool.wait_while(queue, TURN_LOOK, waits);
    }
    drop(queue);
    job.cancel.check(&format!("archiving of \"{}\"", job.name))
}

/// Looks what is stored behind a file that has been archived, where that decides how the next ones may go.
fn look_behind(pool: &Pool<Queue>, name: &WalFileName, put: Put) {
    let wants = pool.state().wants_look_behind(name);
    if wants && matches!(put, Put::Stored { .. }) {
        // What cannot be seen is not known: the next one goes alone, too.
        let has_later = put::has_later(&pool.tools.archive, name).ok();
        pool.state().looked_behind(name, has_later);
    }
}

/// Archives a file, trying again as long as it is waited for.
fn archive(pool: &Pool<Queue>, job: &Job, workspace: &mut Workspace) -> Outcome {
    let mut backoff = Backoff::new();
    loop {
        let asked_for = pool.state().deadline(&job.name).is_some();
        let ready = job.ready.as_deref().filter(|_| !asked_for);
        // The list that the name is from may be old by now.
        if ready.is_some_and(|ready| !ready.exists()) {
            return Outcome::NotReady;
        }
        let offered = Offered {
            name: &job.name,
            path: &job.path,
            ready,
            system: Some(pool.tools.system),
            has_primary: put::is_standby(&job.path),
            turn: Some(&|| wait_for_turn(pool, job)),
        };
        let once = || -> Result<_, Error> {
            let archived = put::put_new(&pool.tools.archive, &offered, &job.cancel, workspace)?;
            look_behind(pool, &job.name, archived.0);
            Ok(archived)
        };
        let error = match catch_unwind(AssertUnwindSafe(once)) {
            Ok(Ok(archived)) => return Outcome::Ended(Ok(archived)),
            Ok(Err(error)) => error,
            Err(payload) => {
                *workspace = Workspace::default();
                return Outcome::Ended(Err(panicked(&job.name, payload.as_ref())));
            }
        };
        let mut queue = pool.state();
        if error.mark() == Some(Mark::NotReady)
            // Given up for one in front of it, and perhaps asked for by now: then it is begun again.
            || (error.kind() == ErrorKind::Cancelled && !queue.closed)
        {
            return Outcome::NotReady;
        }
        if error.kind() != ErrorKind::Unavailable {
            return Outcome::Ended(Err(error));
        }
        let Some(deadline) = queue.deadline(&job.name) else {
            return Outcome::Unasked(error);
        };
        let pause = backoff.pause();
        if queue.clock.now() + pause >= deadline {
            return Outcome::Ended(Err(error));
        }
        let (clock, tell) = (queue.clock.clone(), queue.retrying(&job.name, &error));
        drop(queue);
        if tell {
            (pool.tools.notifier)();
        }
        if clock.wait(&job.cancel, pause) {
            return Outcome::Ended(Err(error));
        }
    }
}

fn panicked(name: &WalFileName, payload: &(dyn Any + Send)) -> Error {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no message");
    Error::unavailable(format!("panic while archiving \"{name}\": {text}"))
        .with_hint("This is a bug in Walden; the server goes on.")
}

#[cfg(test)]
mod tests;
