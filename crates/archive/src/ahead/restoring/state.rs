//! What restore-ahead knows at a moment: the jobs, and how far to look ahead. Those that are fetched ahead and have not been
//! asked for are the window.
//!
//! Guarantees: a demand is next before anything ahead, and then comes what recovery will ask for first; no more workers look
//! ahead than allowed, those counted that nobody waits for any more; what is dropped while it is under way is cancelled; what
//! belongs to another archive is never used. No threads, no I/O. Left to others: all of that.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wal::{SegmentName, SegmentSize, SystemIdentifier, WalFileName};

use crate::ahead::jobs::{self, JobId, JobState, Jobs};
use crate::ahead::memory;
use crate::ahead::pool::{Pool, Work};
use crate::archive::continuity::Continuity;
use crate::archive::{Archive, Place};
use crate::base::clock::Clock;
use crate::cancel::Cancel;
use crate::error::Error;
use crate::format::workspace::Workspace;
use crate::get::{Destination, Rule, Ruled};

use super::line::Line;
use super::pace::Pace;
use super::worker::{self, Tools};
use super::{KEPT_UNUSED_MAX, PREFETCH_MAX, RestoreRequest, SPACE_PART, STUCK_MAX, Tally};

/// How long what was not there is not looked for ahead again: at the end of what is archived, every step would. When
/// recovery comes to it, it is asked for whatever was seen.
const MISSED_REST: Duration = Duration::from_secs(1);

/// An archive that files come from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) place: Place,
    opened: Mutex<Option<Arc<Archive>>>,
    /// What is known of the segments that came from it: that outlives a failure, after which it is opened again.
    continuity: Arc<Continuity>,
}

impl Source {
    fn new(place: &Place) -> Source {
        Source {
            place: place.clone(),
            opened: Mutex::default(),
            continuity: Arc::default(),
        }
    }

    /// The archive, if it is open.
    pub(super) fn opened(&self) -> Option<Arc<Archive>> {
        self.lock().clone()
    }

    /// The archive; opened by `open` if it is not.
    pub(super) fn open(
        &self,
        open: &dyn Fn(&Place) -> Result<Archive, Error>,
    ) -> Result<Arc<Archive>, Error> {
        if let Some(archive) = self.opened() {
            return Ok(archive);
        }
        let archive = open(&self.place)?.remembering(Arc::clone(&self.continuity));
        Ok(Arc::clone(self.lock().insert(Arc::new(archive))))
    }

    /// The next one is opened anew.
    fn close(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Archive>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a fetch needs to know beside the name.
#[derive(Debug, Clone)]
pub(super) struct Around {
    pub(super) source: Arc<Source>,
    pub(super) parent: PathBuf,
    pub(super) system: SystemIdentifier,
    size: SegmentSize,
}

/// What is fetched, and for whom.
#[derive(Clone)]
pub(super) struct Fetch {
    pub(super) name: WalFileName,
    pub(super) around: Around,
    pub(super) why: Why,
}

#[derive(Clone)]
pub(super) enum Why {
    /// Recovery will ask for it.
    Ahead,
    /// It was fetched ahead, or is, and recovery asks for it now.
    Awaited,
    /// Recovery asks for it, and it was not fetched ahead.
    Demanded(Arc<dyn Rule>),
}

impl Fetch {
    pub(super) fn is_demanded(&self) -> bool {
        matches!(self.why, Why::Demanded(_))
    }

    fn is_ahead(&self) -> bool {
        matches!(self.why, Why::Ahead)
    }

    fn position(&self) -> Option<(u32, u32)> {
        self.name.segment().map(SegmentName::position)
    }
}

pub(super) type FetchJob = jobs::Job<Fetch, Result<Ruled, Error>>;

/// Work for one worker.
pub(crate) struct Job {
    pub(super) id: JobId,
    pub(super) fetch: Fetch,
    pub(super) cancel: Cancel,
}

/// What a fetch has cost.
pub(super) struct Cost {
    pub(super) took: Duration,
    /// Size of the buffers in bytes.
    pub(super) bytes: u64,
}

/// The state.
pub(crate) struct State {
    clock: Clock,
    pub(super) jobs: Jobs<Fetch, Result<Ruled, Error>>,
    pub(super) line: Line,
    pub(super) pace: Pace,
    /// Where files come from and go to.
    around: Option<Around>,
    last: Option<SegmentName>,
    /// What was looked for ahead last and was not there, and when.
    missed: Option<(SegmentName, Instant)>,
    /// When recovery asked last.
    used: Instant,
    pub(super) workers_ahead: usize,
    /// Recovery has waited for long: nothing but its file is moved.
    hurried: bool,
    /// What the last fetch took in buffers.
    bytes_each: u64,
    tally: Tally,
}

impl State {
    pub(super) fn new(clock: Clock) -> State {
        State {
            jobs: Jobs::new(clock.clone()),
            line: Line::default(),
            pace: Pace::default(),
            around: None,
            last: None,
            missed: None,
            used: clock.now(),
            clock,
            workers_ahead: 0,
            hurried: false,
            bytes_each: memory::restoring_bytes(),
            tally: Tally::default(),
        }
    }

    /// A request comes. Whatever belongs to another archive goes; whatever lies elsewhere, if recovery goes on from here.
    pub(super) fn arrive(
        &mut self,
        request: &RestoreRequest,
        in_line: bool,
    ) -> Result<Around, Error> {
        let parent = Destination::of(&request.dest)?.parent.to_owned();
        let known = self.around.as_ref();
        let known = known.filter(|known| known.source.place == request.place);
        let source = known.map(|known| Arc::clone(&known.source));
        let around = Around {
            source: source.unwrap_or_else(|| Arc::new(Source::new(&request.place))),
            parent,
            system: request.system,
            size: request.size,
        };
        let lies_elsewhere = |known: &Around| {
            (&known.parent, known.system, known.size)
                != (&around.parent, around.system, around.size)
        };
        if known.is_none_or(|known| in_line && lies_elsewhere(known)) {
            self.missed = None;
            self.drop_ahead(|_| true);
            self.around = Some(around.clone());
        }
        Ok(around)
    }

    /// Recovery asks for this segment, and for nothing before it; true if that is a step forward, or none.
    pub(super) fn asked_for(&mut self, segment: SegmentName, around: &Around) -> bool {
        let now = self.clock.now();
        self.used = now;
        if self.last.is_none() {
            self.line.learn_from(&around.parent);
        }
        let next = self.last.and_then(|last| last.next(around.size));
        if next.is_some_and(|next| next.position() == segment.position()) {
            self.pace.asked_for_next(now);
        } else {
            self.pace.asked_for_another();
        }
        let before = self.last.replace(segment);
        let forward = before.is_none_or(|before| before.position() <= segment.position());
        if forward {
            self.drop_ahead(|job| job.work.position() < Some(segment.position()));
        }
        forward
    }

    /// Recovery was given the segment that it asked for.
    pub(super) fn gave(&mut self) {
        self.pace.gave(self.clock.now());
    }

    /// The window's job for this file, which leaves the window; `None` if no worker has taken it.
    pub(super) fn take(&mut self, name: &WalFileName) -> Option<JobId> {
        // Asked for now, so it is no longer its turn only.
        self.drop_ahead(|job| job.work.name == *name && job.is_in_turn());
        let in_window = |job: &FetchJob| !job.is_given_up() && job.work.is_ahead();
        let found = |job: &FetchJob| in_window(job) && job.work.name == *name;
        let job = self.jobs.find_mut(found)?;
        job.work.why = Why::Awaited;
        Some(job.id)
    }

    /// A file is to be fetched before anything else; `None` if too many have been given up without an end.
    pub(super) fn demand(&mut self, request: &RestoreRequest, around: &Around) -> Option<JobId> {
        let fetch = Fetch {
            name: request.name,
            around: around.clone(),
            why: Why::Demanded(Arc::clone(&request.rule)),
        };
        (self.stuck() < STUCK_MAX).then(|| self.jobs.add(fetch, JobState::InTurn).0)
    }

    /// No request waits any more: neither for this job, nor for long.
    pub(super) fn give_up(&mut self, id: Option<JobId>) {
        self.hurry(false);
        self.jobs.give_up(|job| Some(job.id) == id);
    }

    /// How many demands were given up without an end so far.
    pub(super) fn stuck(&self) -> usize {
        let stuck = |job: &&FetchJob| job.is_given_up() && job.work.is_demanded();
        self.jobs.iter().filter(stuck).count()
    }

    /// How many fetches ahead have a worker, including those that are no longer wanted.
    pub(super) fn under_way(&self) -> usize {
        let has_worker = |job: &&FetchJob| job.is_running() || job.is_given_up();
        let ahead = self.jobs.iter().filter(|job| !job.work.is_demanded());
        ahead.filter(has_worker).count()
    }

    /// What was fetched ahead, is, or will be, and has not been asked for.
    pub(super) fn window(&self) -> impl Iterator<Item = &FetchJob> {
        let jobs = self.jobs.iter();
        jobs.filter(|job| job.work.is_ahead() && !job.is_given_up())
    }

    fn drop_ahead(&mut self, which: impl Fn(&FetchJob) -> bool) {
        let dropped = self.jobs.give_up(|job| job.work.is_ahead() && which(job));
        self.tally.unused += dropped as u64;
    }

    /// Slides the window behind this segment, as far as all bounds let it: what was asked for, what memory allows, and
    /// what is free on disk.
    pub(super) fn look_ahead(
        &mut self,
        behind: SegmentName,
        request: &RestoreRequest,
        free_bytes: u64,
    ) {
        let size = request.size.bytes();
        let ready = self.window().filter(|job| job.result().is_some()).count();
        let held = size.saturating_mul(ready as u64);
        let fitting = free_bytes.saturating_add(held) / SPACE_PART / size;
        let fitting = usize::try_from(fitting).unwrap_or(usize::MAX);
        let most = request.prefetch_max.min(PREFETCH_MAX).min(fitting);
        // One more at a time: a slow archive may be slow because of what is fetched ahead.
        let depth = self.pace.depth().min(self.tally.depth.max(1) + 1).min(most);
        // The store's share is known once it is open.
        let archive = self
            .around
            .as_ref()
            .and_then(|around| around.source.opened());
        let on_the_way = archive.map_or(0, |archive| archive.store.opened_bytes());
        let each = self.bytes_each + on_the_way;
        // One file more is being moved whenever recovery asks for one that is not there.
        let jobs = memory::jobs_within(request.memory_limit, each, depth + 1);
        self.workers_ahead = jobs.saturating_sub(1 + self.stuck());
        self.tally.depth = if self.workers_ahead == 0 { 0 } else { depth };
        let missed = self
            .missed
            .filter(|(_, at)| self.clock.since(*at) < MISSED_REST);
        let line = self.line.after(behind, request.size).take(most);
        let line = line.take_while(|name| missed.is_none_or(|(missed, _)| missed != *name));
        let line: Vec<SegmentName> = line.collect();
        self.slide_to(&line, self.tally.depth);
    }

    /// From now on the window is the first `depth` of these. What has been begun of the others stays too, for its turn
    /// will come; whatever else there is goes.
    pub(super) fn slide_to(&mut self, line: &[SegmentName], depth: usize) {
        let Some(around) = self.around.clone() else {
            return;
        };
        let line = line.iter().map(|name| WalFileName::Segment(*name));
        let line: Vec<WalFileName> = line.collect();
        let (wanted, _) = line.split_at(depth.min(line.len()));
        self.drop_ahead(|job| {
            let kept = if job.is_in_turn() { wanted } else { &line };
            !kept.contains(&job.work.name)
        });
        for name in wanted {
            if !self.window().any(|job| job.work.name == *name) {
                let fetch = Fetch {
                    name: *name,
                    around: around.clone(),
                    why: Why::Ahead,
                };
                self.jobs.add(fetch, JobState::InTurn);
            }
        }
    }

    /// Recovery has waited for long, or no longer waits: what is fetched ahead stands still meanwhile.
    pub(super) fn hurry(&mut self, hurried: bool) {
        if self.hurried != hurried {
            self.hurried = hurried;
            self.window().for_each(|job| job.cancel.hold(hurried));
        }
    }

    /// Recovery has ended.
    pub(super) fn forget(&mut self) {
        self.drop_ahead(|_| true);
        self.line = Line::default();
        self.pace = Pace::default();
        self.last = None;
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// This is not there: of several, the first one counts.
    fn miss(&mut self, name: &WalFileName) {
        let WalFileName::Segment(name) = *name else {
            return;
        };
        let rests = self
            .missed
            .filter(|(_, at)| self.clock.since(*at) < MISSED_REST);
        if rests.is_none_or(|(missed, _)| name.position() < missed.position()) {
            self.missed = Some((name, self.clock.now()));
        }
    }

    /// A job has ended; true if a request waits for it.
    pub(super) fn ended(&mut self, job: &Job, found: Result<Ruled, Error>, cost: &Cost) -> bool {
        let Fetch { name, around, .. } = &job.fetch;
        let (ahead, is_file) = (
            !job.fetch.is_demanded(),
            matches!(found, Ok(Ruled::File(_))),
        );
        if is_file && matches!(name, WalFileName::Segment(_)) {
            self.pace.fetched(cost.took);
            self.bytes_each = cost.bytes.max(memory::restoring_bytes());
        }
        let known = self
            .jobs
            .find_mut(|known| known.id == job.id && !known.is_given_up());
        let in_window = known.as_ref().is_some_and(|known| known.work.is_ahead());
        let awaited = known.is_some() && !in_window;
        match &found {
            Ok(Ruled::File(_)) => self.tally.fetched += u64::from(ahead),
            Ok(Ruled::Absent(_)) if ahead => {
                self.miss(name);
                if in_window {
                    // Probably the end of what is archived: what is not under way yet is not begun.
                    let place = job.fetch.position();
                    self.drop_ahead(|other| other.is_in_turn() && other.work.position() > place);
                }
            }
            // What was wrong may be the open archive itself: a stale handle, another mount.
            Err(error) if !ahead && error.kind().may_work_later() && !job.cancel.is_cancelled() => {
                around.source.close();
            }
            _ => {}
        }
        // Of what is ahead there is no answer but the file, and no request that waits has to know why.
        let late = self.jobs.end(job.id, (is_file || awaited).then_some(found));
        self.tally.unused += u64::from(ahead && late.is_some());
        awaited
    }
}

impl Work for State {
    const NAME: &'static str = "walden restore";
    type Tools = Tools;
    type Job = Job;

    fn next_job(&mut self) -> Option<Job> {
        let ahead = !self.hurried && self.under_way() < self.workers_ahead;
        let job = self.jobs.begin(|fetch| {
            let may_begin = ahead || fetch.is_demanded();
            may_begin.then(|| (!fetch.is_demanded(), fetch.position()))
        })?;
        Some(Job {
            id: job.id,
            fetch: job.work.clone(),
            cancel: job.cancel.clone(),
        })
    }

    /// Those ahead, those stuck, and one for the request that is made now.
    fn workers_max(&self) -> usize {
        self.workers_ahead.max(self.under_way()) + self.stuck() + 1
    }

    fn run(pool: &Pool<State>, job: Job, workspace: &mut Workspace) {
        worker::run(pool, &job, workspace);
    }

    /// A window that is not used is given up.
    fn rest(&mut self) -> bool {
        let is_unused = self.clock.since(self.used) >= KEPT_UNUSED_MAX;
        if is_unused {
            self.drop_ahead(|_| true);
            // What is begun after such a pause is at another pace.
            self.pace = Pace::default();
        }
        is_unused || self.window().next().is_none()
    }

    fn close(&mut self) {
        self.jobs.give_up(|_| true);
    }
}
