//! Upload-ahead: the files that the server will hand over next are on their way while it still asks for this one.
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
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wal::{SystemIdentifier, WalFileName};

use crate::ahead::memory;
use crate::ahead::pool::{Pool, Workers};
use crate::archive::Archive;
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

/// Files on their way into one archive. Dropping it gives up what has not been acknowledged.
pub struct Archiving {
    engine: Arc<Engine>,
    /// None if its owner takes the turns.
    pool: Option<Pool>,
}

struct Engine {
    archive: Arc<Archive>,
    system: SystemIdentifier,
    ring: Box<dyn Fn() + Send + Sync>,
    queue: Mutex<Queue>,
    /// Told whenever a staged file may have come to its turn.
    turns: Condvar,
}

/// How long an answer "refused" waits for what is on its way behind it and has been cancelled: a request that has been made is
/// over by then, or hangs.
const CANCELLED_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long a staged file waits for its turn before it looks again: it is told, so this is for nothing but a fault of ours.
const TURN_LOOK: Duration = Duration::from_secs(1);

impl Archiving {
    /// Nothing is going on yet. `ring` is called, from another thread, whenever [`Archiving::poll`] or
    /// [`Archiving::note`] may have something new.
    pub fn new(
        archive: Arc<Archive>,
        system: SystemIdentifier,
        spawn: Spawn,
        ring: impl Fn() + Send + Sync + 'static,
    ) -> Archiving {
        let queue = Queue::new(archive.store.stages_ahead());
        let engine = Arc::new(Engine::new(archive, system, Box::new(ring), queue));
        let worker = Arc::clone(&engine);
        let pool = Pool::new("walden archive", spawn, move |workers, workspace| {
            worker.work(Some(workers), workspace)
        });
        Archiving {
            engine,
            pool: Some(pool),
        }
    }

    /// The same without threads, for simulations, where time does not pass: each turn is taken by [`Archiving::take_turn`].
    pub fn without_workers(archive: Arc<Archive>, system: SystemIdentifier) -> Archiving {
        let queue = Queue::new(archive.store.stages_ahead()).without_pauses();
        Archiving {
            engine: Arc::new(Engine::new(archive, system, Box::new(|| ()), queue)),
            pool: None,
        }
    }

    /// Takes one turn, to its end; false if there is nothing to do. A store may take another one in the middle of it, as
    /// another thread would, but not where staged files wait for those in front of them ([`crate::Store::stages_ahead`]).
    pub fn take_turn(&self) -> bool {
        self.engine.work(None, &mut Workspace::default())
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
        let store = &self.engine.archive.store;
        // What a segment is compressed to is not known; more than itself it hardly is.
        let staged = store.staged_bytes(path.metadata().map_or(0, |file| file.len()));
        let each = memory::archiving_bytes(self.engine.archive.options.compression) + staged;
        let jobs = memory::jobs_within(limits.memory, each, limits.jobs);
        let (answer, workers) = {
            let mut queue = self.engine.queue();
            let answer = queue.ask(name, path, deadline, jobs);
            (answer, queue.workers_wanted())
        };
        self.engine.turns.notify_all();
        if let Some(workers) = workers
            && let Some(pool) = &self.pool
            && let Err(cause) = pool.call(workers)
            && answer.is_none()
        {
            let what = format!("could not start a thread to archive \"{name}\"");
            return Err(Error::io(what, cause));
        }
        Ok(answer)
    }

    /// The answer to what was asked for last, once it is there.
    pub fn poll(&self, name: &WalFileName) -> Option<Result<Put, Error>> {
        self.engine.queue().answer(name)
    }

    /// What the log should be told, once each.
    pub fn note(&self) -> Option<ArchivingNote> {
        self.engine.queue().take_note()
    }

    /// Whether the file that is asked for has failed and is tried again.
    pub fn is_in_trouble(&self) -> bool {
        self.engine.queue().is_in_trouble()
    }

    /// When a chunk of this file was moved last; `None` if it is not on its way.
    pub fn last_progress(&self, name: &WalFileName) -> Option<Instant> {
        self.engine.queue().last_progress(name)
    }
}

impl Drop for Archiving {
    fn drop(&mut self) {
        self.engine.queue().close();
        self.engine.turns.notify_all();
    }
}

impl Engine {
    fn new(
        archive: Arc<Archive>,
        system: SystemIdentifier,
        ring: Box<dyn Fn() + Send + Sync>,
        queue: Queue,
    ) -> Engine {
        Engine {
            archive,
            system,
            ring,
            queue: Mutex::new(queue),
            turns: Condvar::new(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One turn of one worker.
    fn work(&self, workers: Option<&Workers<'_>>, workspace: &mut Workspace) -> bool {
        let (turn, wanted) = {
            let mut queue = self.queue();
            (queue.turn(), queue.workers_wanted())
        };
        if let (Some(workers), Some(wanted)) = (workers, wanted) {
            workers.call(wanted);
        }
        match turn {
            Turn::Nothing => false,
            Turn::Read(archive_status) => {
                // Not under the lock: the folder may be large, or its disk slow.
                let reading = Reading::of(&archive_status);
                self.queue().ready_names(reading);
                true
            }
            Turn::Archive(job) => {
                let outcome = self.archive(&job, workspace);
                if let Outcome::Failed(error) = &outcome {
                    self.give_up_behind(&job.name, error);
                }
                {
                    let mut queue = self.queue();
                    for warning in self.archive.take_warnings() {
                        queue.warn(warning);
                    }
                    queue.ended(job.name, outcome);
                }
                self.turns.notify_all();
                (self.ring)();
                true
            }
        }
    }

    /// Gives up what is on its way behind a file that is refused, so that the answer can say what got through.
    fn give_up_behind(&self, name: &WalFileName, error: &Error) {
        if error.kind().may_work_later() {
            return;
        }
        let mut queue = self.queue();
        queue.give_up_behind(name, error);
        self.turns.notify_all();
        let until = Instant::now() + CANCELLED_WAIT_MAX;
        while queue.is_giving_up_behind(name)
            && let Some(left) = until.checked_duration_since(Instant::now())
        {
            (queue, _) = self
                .turns
                .wait_timeout(queue, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until a staged file may be given its name, or is cancelled.
    fn wait_for_turn(&self, job: &Job) -> Result<(), Error> {
        let mut queue = self.queue();
        loop {
            if job.cancel.is_cancelled() {
                return job.cancel.check(&format!("archiving of \"{}\"", job.name));
            }
            if queue.may_publish(&job.name) {
                return Ok(());
            }
            (queue, _) = self
                .turns
                .wait_timeout(queue, TURN_LOOK)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Looks what is stored behind a file that has been archived, where that decides how the next ones may go.
    fn look_behind(&self, name: &WalFileName, put: Put) {
        let wants = self.queue().wants_look_behind(name);
        if wants && matches!(put, Put::Stored { .. }) {
            // What cannot be seen is not known: the next one goes alone, too.
            let has_later = put::has_later(&self.archive, name).ok();
            self.queue().looked_behind(name, has_later);
        }
    }

    /// Archives a file, trying again as long as it is waited for.
    fn archive(&self, job: &Job, workspace: &mut Workspace) -> Outcome {
        let mut backoff = Backoff::new();
        loop {
            let asked_for = self.queue().deadline(&job.name).is_some();
            let ready = job.ready.as_deref().filter(|_| !asked_for);
            // The list that the name is from may be old by now.
            if ready.is_some_and(|ready| !ready.exists()) {
                return Outcome::NotReady;
            }
            let offered = Offered {
                name: &job.name,
                path: &job.path,
                ready,
                system: Some(self.system),
                turn: Some(&|| self.wait_for_turn(job)),
            };
            let once = || -> Result<_, Error> {
                let archived = put::put_new(&self.archive, &offered, &job.cancel, workspace)?;
                self.look_behind(&job.name, archived.0);
                Ok(archived)
            };
            let error = match catch_unwind(AssertUnwindSafe(once)) {
                Ok(Ok((put, identity))) => return Outcome::Archived(put, identity),
                Ok(Err(error)) => error,
                Err(payload) => {
                    *workspace = Workspace::default();
                    return Outcome::Failed(panicked(&job.name, payload.as_ref()));
                }
            };
            if error.mark() == Some(Mark::NotReady) {
                return Outcome::NotReady;
            }
            if error.kind() == ErrorKind::Cancelled && !self.queue().is_closed() {
                // Given up for one in front of it, and perhaps asked for by now: then it is begun again.
                return Outcome::NotReady;
            }
            if error.kind() != ErrorKind::Unavailable {
                return Outcome::Failed(error);
            }
            let Some(deadline) = self.queue().deadline(&job.name) else {
                return Outcome::Unasked(error);
            };
            let pause = backoff.pause();
            if Instant::now() + pause >= deadline {
                return Outcome::Failed(error);
            }
            if self.queue().retrying(&job.name, &error) {
                (self.ring)();
            }
            if job.cancel.wait(pause) {
                return Outcome::Failed(error);
            }
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
