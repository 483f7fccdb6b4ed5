//! Whose turn it is: the state behind [`super::Archiving`], without threads and without touching an archive.
//!
//! Guarantees: the file that is asked for comes first and never waits for a neighbour; beside it at most one
//! file less than `jobs` is on its way; none becomes visible before those in front of it on its timeline but as `order.rs` says;
//! an answer about a file is given only while its name stands for what was archived. What is begun unasked and fails leaves no
//! answer, and slows the looking ahead down.
//!
//! This file is long because all that decides about a file stands in one place, what is shown of it too.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wal::WalFileName;

use super::order::{Order, Pace, is_before};
use super::ready::{Reading, Ready};
use super::{ArchivingNote, FlightStage, InFlight, Tools};
use crate::ahead::jobs::{self, JobId, JobState, Jobs};
use crate::ahead::pool::{Pool, Work};
use crate::base::clock::Clock;
use crate::cancel::Cancel;
use crate::error::Error;
use crate::format::workspace::Workspace;
use crate::pg_wal::source::Identity;
use crate::put::Put;
use crate::store::retry::Backoff;

/// How many files may be archived and not yet asked for: as many as the server itself looks ahead
/// (`NUM_FILES_PER_DIRECTORY_SCAN`, pgarch.c, 15 to 18). If the archiver dies they are looked at once more.
const UNASKED_MAX: usize = 64;

/// How many files that were asked for and hang may be left behind, each with its thread, before another is begun.
const STUCK_MAX: usize = 4;

/// How often the archived and not asked for are looked through when there are too many.
const PRUNE_EVERY: Duration = Duration::from_secs(1);

/// How many acknowledged names are remembered, so as not to be begun again from a list that was read before: the server
/// renames its note after the answer, and with several archive modules later than that.
const ACKNOWLEDGED_MAX: usize = 2 * UNASKED_MAX;

/// How many files are shown that are on their way.
const IN_FLIGHT_MAX: usize = 32;

/// How many names that failed for good are remembered, so as not to be begun again before they are asked for.
const REFUSED_MAX: usize = 1024;

/// What came of archiving a file: what was stored, and of which file.
type Archived = Result<(Put, Identity), Error>;

pub(crate) struct Queue {
    pub(super) clock: Clock,
    /// How many files may be moved at once.
    jobs_max: usize,
    /// Where the files are (`pg_wal`).
    folder: PathBuf,
    asked: Option<Asked>,
    jobs: Jobs<WalFileName, Archived>,
    ready: Ready,
    /// The server's list is being read.
    reading: bool,
    refused: HashSet<WalFileName>,
    order: Order,
    acknowledged: VecDeque<WalFileName>,
    pauses: Backoff,
    /// Nothing is begun unasked before.
    not_before: Option<Instant>,
    trouble_since: Option<Instant>,
    tried: Option<Tried>,
    pub(super) notes: VecDeque<ArchivingNote>,
    pruned: Option<Instant>,
}

/// What the server waits for.
struct Asked {
    name: WalFileName,
    path: PathBuf,
    deadline: Instant,
}

/// A file that is asked for and has failed.
struct Tried {
    name: WalFileName,
    since: Instant,
    attempts: u64,
    error: String,
}

/// A file for a thread to archive.
pub(crate) struct Job {
    id: JobId,
    pub(super) name: WalFileName,
    pub(super) path: PathBuf,
    /// For one that has not been asked for.
    pub(super) ready: Option<PathBuf>,
    pub(super) cancel: Cancel,
}

/// What became of a file.
pub(super) enum Outcome {
    /// It is archived or has failed: if it was waited for, as often as there was time for.
    Ended(Archived),
    /// It has failed once, and was not waited for.
    Unasked(Error),
    /// The server has been told of it meanwhile; or one in front of it has failed.
    NotReady,
}

/// What a worker does now.
pub(crate) enum Turn {
    /// Reads this folder, and says what it held.
    Read(PathBuf),
    Archive(Job),
}

impl Queue {
    /// Nothing is asked for yet. By this clock, what fails ahead is left alone for a while, and so is the server's list when
    /// it has been read.
    pub(super) fn new(stages_ahead: bool, clock: Clock) -> Queue {
        Queue {
            jobs_max: 1,
            folder: PathBuf::new(),
            asked: None,
            jobs: Jobs::new(clock.clone()),
            ready: Ready::new(clock.clone()),
            clock,
            reading: false,
            refused: HashSet::new(),
            order: Order::new(stages_ahead),
            acknowledged: VecDeque::new(),
            pauses: Backoff::new(),
            not_before: None,
            trouble_since: None,
            tried: None,
            notes: VecDeque::new(),
            pruned: None,
        }
    }

    /// The server asks for a file. The answer, if it has been archived unasked and is still the same file.
    pub(super) fn ask(
        &mut self,
        name: &WalFileName,
        path: &Path,
        deadline: Instant,
        jobs_max: usize,
    ) -> Option<Put> {
        self.jobs_max = jobs_max.max(1);
        self.folder = path.parent().map(Path::to_owned).unwrap_or_default();
        self.prune();
        self.asked = Some(Asked {
            name: *name,
            path: path.to_owned(),
            deadline,
        });
        self.refused.remove(name);
        // An old failure, or another file under the same name: from the start.
        let (put, identity) = self.take(name)?.ok()?;
        if Identity::at(path) != Some(identity) {
            return None;
        }
        self.asked = None;
        self.acknowledge(*name);
        Some(put)
    }

    /// The answer to a file that was asked for; given once.
    pub(super) fn answer(&mut self, name: &WalFileName) -> Option<Result<Put, Error>> {
        let archived = self.take(name)?;
        let asked = self.asked.take_if(|asked| asked.name == *name);
        let now = asked.and_then(|asked| Identity::at(&asked.path));
        Some(match archived {
            Ok((put, identity)) if now == Some(identity) => {
                self.acknowledge(*name);
                Ok(put)
            }
            Ok(_) => Err(Error::unavailable(format!(
                "\"{name}\" became another file while it was archived"
            ))),
            Err(error) => Err(self.with_what_got_through(name, error)),
        })
    }

    fn job(&self, name: &WalFileName) -> Option<&jobs::Job<WalFileName, Archived>> {
        self.jobs.iter().find(|job| job.work == *name)
    }

    fn take(&mut self, name: &WalFileName) -> Option<Archived> {
        let id = self.job(name)?.id;
        self.jobs.take(id).map(|(_, archived)| archived)
    }

    fn running(&self) -> impl Iterator<Item = &jobs::Job<WalFileName, Archived>> {
        self.jobs.iter().filter(|job| job.is_running())
    }

    /// What is on its way behind a file.
    fn running_behind(&self, name: &WalFileName) -> impl Iterator<Item = &Cancel> {
        let behind = self.running().filter(|job| is_before(name, &job.work));
        behind.map(|job| &job.cancel)
    }

    /// A refusal says which files behind it have been stored all the same: a person may have to move them away.
    fn with_what_got_through(&self, name: &WalFileName, error: Error) -> Error {
        let behind = self.jobs.iter().filter(|job| is_before(name, &job.work));
        let through =
            behind.filter(|job| matches!(job.result(), Some(Ok((Put::Stored { .. }, _)))));
        let mut through: Vec<_> = through.map(|job| format!("\"{}\"", job.work)).collect();
        if error.kind().may_work_later() || through.is_empty() {
            return error;
        }
        through.sort();
        let text = format!(
            "{error}; stored behind it meanwhile: {}",
            through.join(", ")
        );
        let again = Error::new(error.kind(), text);
        match error.hint() {
            Some(hint) => again.with_hint(hint),
            None => again,
        }
    }

    /// Whether a staged file may be given its name now. The one that is asked for always may: the server asks for none before it
    /// has been told of those in front of it.
    pub(super) fn may_publish(&self, name: &WalFileName) -> bool {
        let waits_for = |asked: &Asked| {
            is_before(&asked.name, name) && !self.job(&asked.name).is_some_and(is_stored)
        };
        !self.order.stages_ahead
            || self.deadline(name).is_some()
            || (!self.asked.as_ref().is_some_and(waits_for)
                && !self.running().any(|job| is_before(&job.work, name))
                && !self.is_behind_refused(name))
    }

    fn is_behind_refused(&self, name: &WalFileName) -> bool {
        self.refused.iter().any(|other| is_before(other, name))
    }

    /// Whether it is to be found out what is stored behind a file, once that is stored.
    pub(super) fn wants_look_behind(&self, name: &WalFileName) -> bool {
        self.order.pace(name) != Pace::Free
    }

    /// Notes whether later files are stored.
    pub(super) fn looked_behind(&mut self, name: &WalFileName, has_later: Option<bool>) {
        self.order.stored(name, has_later);
    }

    /// Whether the next ready name has to wait, and all behind it.
    fn next_has_to_wait(&self) -> bool {
        let has_to_wait = |name: &WalFileName| match self.order.pace(name) {
            Pace::Free => !self.order.stages_ahead && self.is_far_ahead(name),
            Pace::First => true,
            Pace::OneByOne => self
                .running()
                .any(|job| job.work.timeline() == name.timeline()),
        };
        self.ready.peek().is_some_and(has_to_wait)
    }

    /// Whether so many files are begun behind one that is still on its way that this one would be one too many, should that be
    /// refused.
    fn is_far_ahead(&self, name: &WalFileName) -> bool {
        let before = self.running().map(|job| &job.work);
        let first = before.filter(|other| is_before(other, name)).min();
        first.is_some_and(|first| {
            let behind = self.jobs.iter().filter(|job| is_before(first, &job.work));
            behind.count() + 1 >= self.jobs_max
        })
    }

    /// Until when this file is waited for; `None` if it is not.
    pub(super) fn deadline(&self, name: &WalFileName) -> Option<Instant> {
        let asked = self.asked.as_ref().filter(|asked| asked.name == *name)?;
        Some(asked.deadline)
    }

    /// What the server's list held.
    pub(super) fn ready_names(&mut self, reading: Reading) {
        self.reading = false;
        self.ready.fill(reading);
    }

    /// A try has failed and there will be another. True if the log should hear of it.
    pub(super) fn retrying(&mut self, name: &WalFileName, error: &Error) -> bool {
        self.has_failed(name, error);
        if self.trouble_since.is_some() {
            return false;
        }
        self.trouble_since = Some(self.clock.now());
        self.notes.push_back(ArchivingNote::Retrying {
            name: *name,
            cause: error.to_string(),
            hint: error.hint().map(str::to_owned),
            is_denied: error.is_denied(),
        });
        true
    }

    fn has_failed(&mut self, name: &WalFileName, error: &Error) {
        let tried = self.tried.take().filter(|tried| tried.name == *name);
        let mut tried = tried.unwrap_or_else(|| Tried {
            name: *name,
            since: self
                .job(name)
                .map_or_else(|| self.clock.now(), |job| job.since),
            attempts: 0,
            error: String::new(),
        });
        tried.attempts += 1;
        tried.error = error.to_string();
        self.tried = Some(tried);
    }

    /// What is on its way, and what waits to be asked for, in the order of names; the first ones.
    pub(super) fn in_flight(&self) -> Vec<InFlight> {
        let mut files: Vec<InFlight> = self.jobs.iter().map(|job| self.as_shown(job)).collect();
        files.sort_by_key(|file| file.name);
        files.truncate(IN_FLIGHT_MAX);
        files
    }

    fn as_shown(&self, job: &jobs::Job<WalFileName, Archived>) -> InFlight {
        let tried = self.tried.as_ref().filter(|tried| tried.name == job.work);
        let error = match job.result() {
            Some(Err(error)) => Some(error.to_string()),
            _ => tried.map(|tried| tried.error.clone()),
        };
        InFlight {
            name: job.work,
            stage: match job.result() {
                None => FlightStage::Running,
                Some(Ok(_)) => FlightStage::Stored,
                Some(Err(_)) => FlightStage::Failed,
            },
            attempts: tried.map_or(1, |tried| tried.attempts + 1),
            since: tried.map_or(job.since, |tried| tried.since),
            error,
        }
    }

    /// A file has been archived, or not.
    pub(super) fn ended(&mut self, job: &Job, outcome: Outcome) {
        let name = job.name;
        let asked_for = self.deadline(&name).is_some();
        let answer = match outcome {
            Outcome::Ended(Ok(stored)) => {
                self.tried.take_if(|tried| tried.name == name);
                self.pauses = self.pauses.afresh();
                self.not_before = None;
                // A neighbour's success says nothing about the file that is waited for.
                if asked_for && let Some(since) = self.trouble_since.take() {
                    let after = self.clock.since(since);
                    self.notes
                        .push_back(ArchivingNote::Recovered { name, after });
                }
                Some(Ok(stored))
            }
            Outcome::Ended(Err(error)) if asked_for => {
                self.has_failed(&name, &error);
                self.give_up_behind(&name, &error);
                // Once this is answered nobody asks for it for a while, and what is behind it must not take its chance. In a
                // directory, where names come in order, nor may it where the failure may pass.
                if self.order.stages_ahead || !error.kind().may_work_later() {
                    self.refuse(name);
                }
                Some(Err(error))
            }
            // Given up while it was not waited for. If it is by now, it is begun again.
            Outcome::NotReady => None,
            Outcome::Unasked(_) if asked_for => None,
            Outcome::Ended(Err(error)) | Outcome::Unasked(error) => {
                self.give_up_behind(&name, &error);
                if error.kind().may_work_later() {
                    self.not_before = Some(self.clock.now() + self.pauses.pause());
                } else {
                    self.refuse(name);
                }
                None
            }
        };
        self.jobs.end(job.id, answer);
    }

    /// Keeps a file, and what is behind it, from being begun ahead: it is begun again when it is asked for.
    fn refuse(&mut self, name: WalFileName) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.clear();
        }
        self.refused.insert(name);
    }

    /// Whether something is on its way behind a file that is refused, which has been asked to stop.
    pub(super) fn is_giving_up_behind(&self, name: &WalFileName) -> bool {
        self.running_behind(name).next().is_some()
    }

    /// A file has failed: what is on its way behind it is given up, but where files become visible in any order and this one may
    /// do so later.
    pub(super) fn give_up_behind(&mut self, name: &WalFileName, error: &Error) {
        if error.kind().may_work_later() && !self.order.stages_ahead {
            return;
        }
        self.running_behind(name).for_each(Cancel::cancel);
        self.order.refused(name);
        // They come again, and in order.
        self.ready.clear();
    }

    /// Whether the file that is asked for has failed, and is tried again.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.trouble_since.is_some()
    }

    pub(super) fn last_progress(&self, name: &WalFileName) -> Option<Instant> {
        let job = self.job(name).filter(|job| job.is_running())?;
        Some(job.cancel.last_alive())
    }

    /// Forgets what nobody will ask for: failures that nobody waited for, and files that somebody else has told
    /// the server of. Without that they would take the place of others for good.
    fn prune(&mut self) {
        let due = |at: Instant| self.clock.since(at) >= PRUNE_EVERY;
        if self.jobs.iter().count() < UNASKED_MAX || !self.pruned.is_none_or(due) {
            return;
        }
        self.pruned = Some(self.clock.now());
        let archive_status = self.folder.join("archive_status");
        self.jobs.give_up(|job| match job.result() {
            Some(Ok(_)) => !archive_status.join(format!("{}.ready", job.work)).exists(),
            Some(Err(_)) => true,
            None => false,
        });
    }

    fn acknowledge(&mut self, name: WalFileName) {
        if self.acknowledged.len() >= ACKNOWLEDGED_MAX {
            self.acknowledged.pop_front();
        }
        self.acknowledged.push_back(name);
    }

    fn begin(&mut self, name: WalFileName, path: PathBuf, ready: Option<PathBuf>) -> Turn {
        let (id, cancel) = self.jobs.add(name, JobState::Running);
        Turn::Archive(Job {
            id,
            name,
            path,
            ready,
            cancel,
        })
    }

    /// The file that is asked for, if nobody has begun it. It never waits for others, unless so many of them do not
    /// come back that the storage is beyond it, too.
    fn asked_for_waits(&self) -> Option<&Asked> {
        let asked = self.asked.as_ref()?;
        let is_stuck = self.others() >= self.jobs_max + STUCK_MAX;
        (self.job(&asked.name).is_none() && !is_stuck).then_some(asked)
    }

    fn may_look_ahead(&self) -> bool {
        let others = self.others();
        let unasked = self.jobs.iter().filter(|job| is_stored(job)).count();
        others + 1 < self.jobs_max
            && others + unasked < UNASKED_MAX
            && self.not_before.is_none_or(|at| self.clock.now() >= at)
    }

    /// How many files are on their way that the server does not wait for.
    fn others(&self) -> usize {
        let others = self
            .running()
            .filter(|job| self.deadline(&job.work).is_none());
        others.count()
    }
}

impl Work for Queue {
    const NAME: &'static str = "walden archive";
    type Tools = Tools;
    type Job = Turn;

    fn next_job(&mut self) -> Option<Turn> {
        if let Some(asked) = self.asked_for_waits() {
            let (name, path) = (asked.name, asked.path.clone());
            return Some(self.begin(name, path, None));
        }
        if !self.may_look_ahead() {
            return None;
        }
        let archive_status = self.folder.join("archive_status");
        while !self.next_has_to_wait()
            && let Some(name) = self.ready.next()
        {
            let known = self.job(&name).is_some() || self.acknowledged.contains(&name);
            if known || self.refused.contains(&name) || self.is_behind_refused(&name) {
                continue;
            }
            let ready = archive_status.join(format!("{name}.ready"));
            let path = self.folder.join(name.to_string());
            return Some(self.begin(name, path, Some(ready)));
        }
        if self.reading || !self.ready.wants_reading() {
            return None;
        }
        self.reading = true;
        Some(Turn::Read(archive_status))
    }

    /// One is always there for the file that is asked for, however many others hang.
    fn workers_max(&self) -> usize {
        let busy = self.others() + usize::from(self.reading);
        self.jobs_max.max(busy + 1)
    }

    fn run(pool: &Pool<Queue>, turn: Turn, workspace: &mut Workspace) {
        super::run(pool, turn, workspace);
    }

    fn close(&mut self) {
        self.jobs.give_up(|_| true);
    }
}

fn is_stored(job: &jobs::Job<WalFileName, Archived>) -> bool {
    matches!(job.result(), Some(Ok(_)))
}
