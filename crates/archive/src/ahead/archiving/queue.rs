//! Whose turn it is: the state behind [`super::Archiving`], without threads and without touching an archive.
//!
//! Guarantees: the file that is asked for comes first and never waits for a neighbour; beside it at most one
//! file less than `jobs` is on its way; none becomes visible before those in front of it on its timeline but as `order.rs` says;
//! an answer about a file is given only while its name stands for what was archived. What is begun unasked and fails leaves no
//! answer, and slows the looking ahead down.
//!
//! The file is long because what may be begun, what may be seen and what may be said hang together.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wal::WalFileName;

use super::ArchivingNote;
use super::order::{Order, Pace, is_before};
use super::ready::{Reading, Ready};
use crate::cancel::Cancel;
use crate::error::Error;
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

/// How many names that failed for good are remembered, so as not to be begun again before they are asked for.
const REFUSED_MAX: usize = 1024;

pub(crate) struct Queue {
    jobs: usize,
    /// Where the files are (`pg_wal`), once one has been asked for.
    folder: Option<PathBuf>,
    asked: Option<Asked>,
    files: HashMap<WalFileName, Stage>,
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
    notes: VecDeque<ArchivingNote>,
    pruned: Option<Instant>,
    closed: bool,
}

/// What the server waits for.
struct Asked {
    name: WalFileName,
    path: PathBuf,
    deadline: Instant,
}

enum Stage {
    Running(Cancel),
    Stored(Put, Identity),
    Failed(Error),
}

/// A file for a thread to archive.
pub(crate) struct Job {
    pub(crate) name: WalFileName,
    pub(crate) path: PathBuf,
    /// For one that has not been asked for.
    pub(crate) ready: Option<PathBuf>,
    pub(crate) cancel: Cancel,
}

/// What became of a file.
pub(crate) enum Outcome {
    Archived(Put, Identity),
    /// It has failed, and if it was waited for, as often as there was time for.
    Failed(Error),
    /// It has failed once, and was not waited for.
    Unasked(Error),
    /// The server has been told of it meanwhile; or one in front of it has failed.
    NotReady,
}

/// What a worker shall do now.
pub(crate) enum Turn {
    Nothing,
    /// Read this folder, and say what it held.
    Read(PathBuf),
    Archive(Job),
}

impl Queue {
    pub(crate) fn new(stages_ahead: bool) -> Queue {
        Queue {
            order: Order::new(stages_ahead),
            jobs: 1,
            folder: None,
            asked: None,
            files: HashMap::new(),
            ready: Ready::new(),
            reading: false,
            refused: HashSet::new(),
            acknowledged: VecDeque::new(),
            pauses: Backoff::new(),
            not_before: None,
            trouble_since: None,
            notes: VecDeque::new(),
            pruned: None,
            closed: false,
        }
    }

    /// The same, for whom time does not pass.
    pub(crate) fn without_pauses(self) -> Queue {
        Queue {
            ready: Ready::without_pauses(),
            pauses: Backoff::at_most(Duration::ZERO),
            ..self
        }
    }

    /// The server asks for a file. The answer, if it has been archived unasked and is still the same file.
    pub(crate) fn ask(
        &mut self,
        name: &WalFileName,
        path: &Path,
        deadline: Instant,
        jobs: usize,
    ) -> Option<Put> {
        self.jobs = jobs.max(1);
        self.folder = path.parent().map(Path::to_owned);
        self.prune();
        self.asked = Some(Asked {
            name: *name,
            path: path.to_owned(),
            deadline,
        });
        if let Some(Stage::Running(_)) = self.files.get(name) {
            return None;
        }
        self.refused.remove(name);
        match self.files.remove(name) {
            Some(Stage::Stored(put, identity)) if Identity::at(path) == Some(identity) => {
                self.asked = None;
                self.acknowledge(*name);
                Some(put)
            }
            // An old failure, or another file under the same name: from the start.
            _ => None,
        }
    }

    /// The answer to a file that was asked for; given once.
    pub(crate) fn answer(&mut self, name: &WalFileName) -> Option<Result<Put, Error>> {
        if matches!(self.files.get(name), None | Some(Stage::Running(_))) {
            return None;
        }
        let asked = self.asked.take_if(|asked| asked.name == *name);
        let now = asked.and_then(|asked| Identity::at(&asked.path));
        match self.files.remove(name)? {
            Stage::Stored(put, identity) if now == Some(identity) => {
                self.acknowledge(*name);
                Some(Ok(put))
            }
            Stage::Stored(..) => Some(Err(Error::unavailable(format!(
                "\"{name}\" became another file while it was archived"
            )))),
            Stage::Failed(error) => Some(Err(self.with_what_got_through(name, error))),
            Stage::Running(_) => None,
        }
    }

    /// What is on its way behind a file.
    fn running_behind(&self, name: &WalFileName) -> impl Iterator<Item = &Cancel> {
        let files = self.files.iter();
        files.filter_map(|(other, stage)| match stage {
            Stage::Running(cancel) if is_before(name, other) => Some(cancel),
            _ => None,
        })
    }

    /// A refusal says which files behind it have been stored all the same: a person may have to move them away.
    fn with_what_got_through(&self, name: &WalFileName, error: Error) -> Error {
        if error.kind().may_work_later() {
            return error;
        }
        let files = self.files.iter();
        let mut through: Vec<_> = files
            .filter(|(other, stage)| {
                is_before(name, other) && matches!(stage, Stage::Stored(Put::Stored { .. }, _))
            })
            .map(|(other, _)| format!("\"{other}\""))
            .collect();
        if through.is_empty() {
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
    pub(crate) fn may_publish(&self, name: &WalFileName) -> bool {
        if !self.order.stages_ahead || self.deadline(name).is_some() {
            return true;
        }
        let is_stored =
            |name: &WalFileName| matches!(self.files.get(name), Some(Stage::Stored(..)));
        let asked = self.asked.iter().map(|asked| &asked.name);
        let mut running = self.files.iter().filter_map(|(other, stage)| match stage {
            Stage::Running(_) => Some(other),
            _ => None,
        });
        let asked_for_waits = asked
            .into_iter()
            .any(|asked| is_before(asked, name) && !is_stored(asked));
        let is_behind_refused = || self.refused.iter().any(|other| is_before(other, name));
        !asked_for_waits && !running.any(|other| is_before(other, name)) && !is_behind_refused()
    }

    /// Whether it is to be found out what is stored behind a file, once that is stored.
    pub(crate) fn wants_look_behind(&self, name: &WalFileName) -> bool {
        self.order.pace(name) != Pace::Free
    }

    /// Notes whether later files are stored.
    pub(crate) fn looked_behind(&mut self, name: &WalFileName, has_later: Option<bool>) {
        self.order.stored(name, has_later);
    }

    /// Whether the next ready name has to wait, and all behind it.
    fn next_has_to_wait(&self) -> bool {
        self.ready
            .peek()
            .is_some_and(|name| match self.order.pace(name) {
                Pace::Free => !self.order.stages_ahead && self.is_far_ahead(name),
                Pace::First => true,
                Pace::OneByOne => self.files.iter().any(|(other, stage)| {
                    other.timeline() == name.timeline() && matches!(stage, Stage::Running(_))
                }),
            })
    }

    /// Whether so many files are begun behind one that is still on its way that this one would be one too many, should that be
    /// refused.
    fn is_far_ahead(&self, name: &WalFileName) -> bool {
        let running = self.files.iter().filter_map(|(other, stage)| {
            let is_running = matches!(stage, Stage::Running(_)) && is_before(other, name);
            is_running.then_some(other)
        });
        running.min().is_some_and(|first| {
            let behind = self.files.keys().filter(|other| is_before(first, other));
            behind.count() + 1 >= self.jobs
        })
    }

    /// Until when this file is waited for; `None` if it is not.
    pub(crate) fn deadline(&self, name: &WalFileName) -> Option<Instant> {
        let asked = self.asked.as_ref().filter(|asked| asked.name == *name)?;
        Some(asked.deadline)
    }

    /// Takes the next thing to do.
    pub(crate) fn turn(&mut self) -> Turn {
        if self.closed {
            return Turn::Nothing;
        }
        if let Some(asked) = self.asked_for_waits() {
            let (name, path) = (asked.name, asked.path.clone());
            return Turn::Archive(self.begin(name, path, None));
        }
        if !self.may_look_ahead() {
            return Turn::Nothing;
        }
        let Some(folder) = self.folder.clone() else {
            return Turn::Nothing;
        };
        let archive_status = folder.join("archive_status");
        while !self.next_has_to_wait()
            && let Some(name) = self.ready.next()
        {
            let known = self.files.contains_key(&name) || self.acknowledged.contains(&name);
            let is_behind_refused = || self.refused.iter().any(|other| is_before(other, &name));
            if known || self.refused.contains(&name) || is_behind_refused() {
                continue;
            }
            let ready = archive_status.join(format!("{name}.ready"));
            let path = folder.join(name.to_string());
            return Turn::Archive(self.begin(name, path, Some(ready)));
        }
        if self.reading || !self.ready.wants_reading() {
            return Turn::Nothing;
        }
        self.reading = true;
        Turn::Read(archive_status)
    }

    /// How many workers are needed if [`Queue::turn`] may have something to do for one more; else `None`.
    pub(crate) fn workers_wanted(&self) -> Option<usize> {
        let (others, _) = self.counts();
        let waiting = self.asked_for_waits().is_some();
        let ahead = self.may_look_ahead()
            && !self.next_has_to_wait()
            && (!self.ready.is_empty() || (!self.reading && self.ready.wants_reading()));
        let asked_for_runs = usize::from(self.asked.is_some() && !waiting);
        let busy = others + asked_for_runs + usize::from(self.reading);
        (!self.closed && (waiting || ahead)).then_some(busy + 1)
    }

    /// What the server's list held.
    pub(crate) fn ready_names(&mut self, reading: Reading) {
        self.reading = false;
        self.ready.fill(reading);
    }

    /// A try has failed and there will be another. True if the log should hear of it.
    pub(crate) fn retrying(&mut self, name: &WalFileName, error: &Error) -> bool {
        if self.trouble_since.is_some() {
            return false;
        }
        self.trouble_since = Some(Instant::now());
        self.notes.push_back(ArchivingNote::Retrying {
            name: *name,
            cause: error.to_string(),
            hint: error.hint().map(str::to_owned),
        });
        true
    }

    /// A file has been archived, or not.
    pub(crate) fn ended(&mut self, name: WalFileName, outcome: Outcome) {
        let asked_for = self.deadline(&name).is_some();
        match outcome {
            Outcome::Archived(put, identity) => {
                self.pauses = self.pauses.afresh();
                self.not_before = None;
                // A neighbour's success says nothing about the file that is waited for.
                if asked_for && let Some(since) = self.trouble_since.take() {
                    let after = since.elapsed();
                    self.notes
                        .push_back(ArchivingNote::Recovered { name, after });
                }
                self.files.insert(name, Stage::Stored(put, identity));
            }
            Outcome::Failed(error) if asked_for => {
                self.give_up_behind(&name, &error);
                // Once this is answered nobody asks for it for a while, and what is behind it must not take its chance. In a
                // directory, where names come in order, nor may it where the failure may pass.
                if self.order.stages_ahead || !error.kind().may_work_later() {
                    self.refuse(name);
                }
                self.files.insert(name, Stage::Failed(error));
            }
            // Given up while it was not waited for. If it is by now, it is begun again.
            Outcome::NotReady => drop(self.files.remove(&name)),
            Outcome::Unasked(_) if asked_for => drop(self.files.remove(&name)),
            Outcome::Failed(error) | Outcome::Unasked(error) => {
                self.give_up_behind(&name, &error);
                self.files.remove(&name);
                if error.kind().may_work_later() {
                    self.not_before = Some(Instant::now() + self.pauses.pause());
                } else {
                    self.refuse(name);
                }
            }
        }
    }

    /// Keeps a file, and what is behind it, from being begun ahead: it is begun again when it is asked for.
    fn refuse(&mut self, name: WalFileName) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.clear();
        }
        self.refused.insert(name);
    }

    /// Whether something is on its way behind a file that is refused, which has been asked to stop.
    pub(crate) fn is_giving_up_behind(&self, name: &WalFileName) -> bool {
        self.running_behind(name).next().is_some()
    }

    /// A file has failed: what is on its way behind it is given up, but where files become visible in any order and this one may
    /// do so later.
    pub(crate) fn give_up_behind(&mut self, name: &WalFileName, error: &Error) {
        if error.kind().may_work_later() && !self.order.stages_ahead {
            return;
        }
        self.running_behind(name).for_each(Cancel::cancel);
        self.order.refused(name);
        // They come again, and in order.
        self.ready.clear();
    }

    /// Whether the file that is asked for has failed, and is tried again.
    pub(crate) fn is_in_trouble(&self) -> bool {
        self.trouble_since.is_some()
    }

    pub(crate) fn warn(&mut self, warning: String) {
        self.notes.push_back(ArchivingNote::Warning(warning));
    }

    pub(crate) fn take_note(&mut self) -> Option<ArchivingNote> {
        self.notes.pop_front()
    }

    pub(crate) fn last_progress(&self, name: &WalFileName) -> Option<Instant> {
        match self.files.get(name)? {
            Stage::Running(cancel) => Some(cancel.last_alive()),
            Stage::Stored(..) | Stage::Failed(_) => None,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Begins nothing more, and asks what is going on to stop.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        for stage in self.files.values() {
            if let Stage::Running(cancel) = stage {
                cancel.cancel();
            }
        }
    }

    /// Forgets what nobody will ask for: failures that nobody waited for, and files that somebody else has told
    /// the server of. Without that they would take the place of others for good.
    fn prune(&mut self) {
        let due = |at: Instant| at.elapsed() >= PRUNE_EVERY;
        if self.files.len() < UNASKED_MAX || !self.pruned.is_none_or(due) {
            return;
        }
        self.pruned = Some(Instant::now());
        let Some(folder) = &self.folder else {
            return;
        };
        let archive_status = folder.join("archive_status");
        self.files.retain(|name, stage| match stage {
            Stage::Running(_) => true,
            Stage::Stored(..) => archive_status.join(format!("{name}.ready")).exists(),
            Stage::Failed(_) => false,
        });
    }

    fn acknowledge(&mut self, name: WalFileName) {
        if self.acknowledged.len() >= ACKNOWLEDGED_MAX {
            self.acknowledged.pop_front();
        }
        self.acknowledged.push_back(name);
    }

    fn begin(&mut self, name: WalFileName, path: PathBuf, ready: Option<PathBuf>) -> Job {
        let cancel = Cancel::new();
        self.files.insert(name, Stage::Running(cancel.clone()));
        Job {
            name,
            path,
            ready,
            cancel,
        }
    }

    /// The file that is asked for, if nobody has begun it. It never waits for others, unless so many of them do not
    /// come back that the storage is beyond it, too.
    fn asked_for_waits(&self) -> Option<&Asked> {
        let (others, _) = self.counts();
        let asked = self.asked.as_ref()?;
        (!self.files.contains_key(&asked.name) && others < self.jobs + STUCK_MAX).then_some(asked)
    }

    fn may_look_ahead(&self) -> bool {
        let (others, unasked) = self.counts();
        others + 1 < self.jobs
            && others + unasked < UNASKED_MAX
            && self.not_before.is_none_or(|at| Instant::now() >= at)
    }

    /// How many files are on their way that the server does not wait for, and how many it has not asked for yet.
    fn counts(&self) -> (usize, usize) {
        let asked = self.asked.as_ref().map(|asked| asked.name);
        let (mut others, mut unasked) = (0, 0);
        for (name, stage) in &self.files {
            match stage {
                Stage::Running(_) if Some(*name) != asked => others += 1,
                Stage::Stored(..) => unasked += 1,
                Stage::Running(_) | Stage::Failed(_) => {}
            }
        }
        (others, unasked)
    }
}
