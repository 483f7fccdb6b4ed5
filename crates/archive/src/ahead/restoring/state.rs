//! What restore-ahead knows at a moment: the window, the demands that go before it, and how far to look.
//!
//! Guarantees: a demand is next before anything ahead; no more workers look ahead than allowed, those counted that
//! nobody waits for any more; what belongs to another archive is never used. No threads, no I/O. Left to others: all
//! of that.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wal::{SegmentName, SegmentSize, SystemIdentifier, WalFileName};

use crate::ahead::memory;
use crate::archive::continuity::Continuity;
use crate::archive::{Archive, Place};
use crate::cancel::Cancel;
use crate::error::Error;
use crate::get::{self, Fetched, Rule, Ruled};

use super::line::Line;
use super::pace::Pace;
use super::window::{Ended, FetchId, Window};
use super::{PREFETCH_MAX, SPACE_PART, STUCK_MAX, Tally, Wanted};

/// How long what was not there is not looked for ahead again: at the end of what is archived, every step would. When
/// recovery comes to it, it is asked for whatever was seen.
const MISSED_REST: Duration = Duration::from_secs(1);

/// Number of a demand, unique in this process.
pub(super) type DemandId = u64;

/// Counts the archives that files came from.
type Turn = u64;

/// What a fetch needs to know beside the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Around {
    pub(super) place: Place,
    pub(super) parent: PathBuf,
    pub(super) system: SystemIdentifier,
    pub(super) size: SegmentSize,
}

impl Around {
    pub(super) fn of(wanted: &Wanted) -> Result<Around, Error> {
        Ok(Around {
            place: wanted.place.clone(),
            parent: get::Destination::of(&wanted.dest)?.parent.to_owned(),
            system: wanted.system,
            size: wanted.size,
        })
    }
}

/// The state. One lock is around all of it, and held for moments only.
pub(super) struct State {
    pub(super) window: Window<Fetched>,
    pub(super) line: Line,
    pub(super) pace: Pace,
    /// Where files come from and go to; counted, so that nothing of an earlier one is used.
    around: Option<Around>,
    turn: Turn,
    archive: Option<(Turn, Arc<Archive>)>,
    /// What is known of the segments that came from it: that outlives a failure, after which it is opened again.
    pub(super) continuity: Arc<Continuity>,
    last: Option<SegmentName>,
    /// What was looked for ahead last and was not there, and when.
    missed: Option<(SegmentName, Instant)>,
    /// When recovery asked last.
    pub(super) used: Instant,
    demands: VecDeque<Demand>,
    demand_count: DemandId,
    /// Fetches ahead that have a worker, including those that are no longer wanted.
    under_way: usize,
    workers_ahead: usize,
    depth: usize,
    /// Recovery has waited for long: nothing but its file is moved.
    hurried: bool,
    fetched: u64,
    /// What the last fetch took in buffers.
    bytes_each: u64,
    /// A thread sees to it that an unused window is given up.
    pub(super) has_keeper: bool,
    pub(super) closed: bool,
}

struct Demand {
    id: DemandId,
    stage: DemandStage,
}

enum DemandStage {
    InTurn(Box<Job>),
    UnderWay(Cancel),
    Ended(Result<Ruled, Error>),
    /// No request waits any more, and the worker has not come back.
    GivenUp,
}

/// Work for one worker.
pub(super) struct Job {
    pub(super) name: WalFileName,
    pub(super) around: Around,
    pub(super) turn: Turn,
    pub(super) cancel: Cancel,
    pub(super) why: Why,
}

/// For whom a file is fetched.
#[derive(Clone)]
pub(super) enum Why {
    Ahead(FetchId),
    Demanded(DemandId, Arc<dyn Rule>),
}

/// What a fetch has cost.
pub(super) struct Cost {
    pub(super) took: Duration,
    /// Size of the buffers in bytes.
    pub(super) bytes: u64,
}

impl State {
    pub(super) fn new() -> State {
        State {
            window: Window::default(),
            line: Line::default(),
            pace: Pace::default(),
            around: None,
            turn: 0,
            archive: None,
            continuity: Arc::default(),
            last: None,
            missed: None,
            used: Instant::now(),
            demands: VecDeque::new(),
            demand_count: 0,
            under_way: 0,
            workers_ahead: 0,
            depth: 0,
            hurried: false,
            fetched: 0,
            bytes_each: memory::restoring_bytes(),
            has_keeper: false,
            closed: false,
        }
    }

    /// A request comes with these. Whatever belongs to another archive goes; whatever lies elsewhere, if recovery
    /// goes on from here.
    pub(super) fn arrive_at(&mut self, around: &Around, in_line: bool) {
        let known = self.around.as_ref();
        let same_place = known.is_some_and(|known| known.place == around.place);
        if !same_place {
            self.turn += 1;
            self.archive = None;
            self.continuity = Arc::default();
            self.missed = None;
        }
        if !same_place || (in_line && known != Some(around)) {
            self.window.clear();
            self.around = Some(around.clone());
        }
    }

    /// Recovery asks for this segment; true if that is a step forward, or none.
    pub(super) fn asked_for(
        &mut self,
        segment: SegmentName,
        size: SegmentSize,
        now: Instant,
    ) -> bool {
        self.used = now;
        if self.last.is_none()
            && let Some(around) = &self.around
        {
            self.line.learn_from(&around.parent);
        }
        let next = self.last.and_then(|last| last.next(size));
        if next.is_some_and(|next| next.position() == segment.position()) {
            self.pace.asked_for_next(now);
        } else {
            self.pace.asked_for_another();
        }
        let before = self.last.replace(segment);
        before.is_none_or(|before| before.position() <= segment.position())
    }

    /// A file is to be fetched before anything else; `None` if too many have been given up without an end.
    pub(super) fn demand(
        &mut self,
        name: WalFileName,
        around: &Around,
        rule: Arc<dyn Rule>,
    ) -> Option<DemandId> {
        if self.stuck() >= STUCK_MAX {
            return None;
        }
        self.demand_count += 1;
        let id = self.demand_count;
        let job = Job {
            name,
            around: around.clone(),
            turn: self.turn,
            cancel: Cancel::new(),
            why: Why::Demanded(id, rule),
        };
        let stage = DemandStage::InTurn(Box::new(job));
        self.demands.push_back(Demand { id, stage });
        Some(id)
    }

    /// The outcome of a demand, once there is one.
    pub(super) fn demanded(&mut self, id: DemandId) -> Option<Result<Ruled, Error>> {
        let at = self.demands.iter().position(|demand| demand.id == id)?;
        let demand = self.demands.remove(at)?;
        match demand.stage {
            DemandStage::Ended(found) => Some(found),
            _ => {
                self.demands.insert(at, demand);
                None
            }
        }
    }

    /// No request waits for this demand any more.
    pub(super) fn give_up(&mut self, id: DemandId) {
        let Some(at) = self.demands.iter().position(|demand| demand.id == id) else {
            return;
        };
        let Some(mut demand) = self.demands.remove(at) else {
            return;
        };
        demand.cancel();
        if matches!(demand.stage, DemandStage::UnderWay(_)) {
            demand.stage = DemandStage::GivenUp;
            self.demands.push_back(demand);
        }
    }

    /// How many demands were given up without an end so far.
    pub(super) fn stuck(&self) -> usize {
        let given_up = |demand: &&Demand| matches!(demand.stage, DemandStage::GivenUp);
        self.demands.iter().filter(given_up).count()
    }

    /// Slides the window behind this segment, as far as all bounds let it: what was asked for, what memory allows, and
    /// what is free on disk.
    pub(super) fn look_ahead(&mut self, behind: SegmentName, wanted: &Wanted, free_bytes: u64) {
        let size = wanted.size.bytes();
        let held = size.saturating_mul(self.window.ready() as u64);
        let fitting = free_bytes.saturating_add(held) / SPACE_PART / size;
        let fitting = usize::try_from(fitting).unwrap_or(usize::MAX);
        let most = wanted.prefetch_max.min(PREFETCH_MAX).min(fitting);
        // One more at a time: a slow archive may be slow because of what is fetched ahead.
        let depth = self.pace.depth().min(self.depth.max(1) + 1).min(most);
        // The store's share is known once it is open.
        let archive = self.archive.as_ref();
        let on_the_way = archive.map_or(0, |(_, archive)| archive.store.opened_bytes());
        let each = self.bytes_each + on_the_way;
        // One file more is being moved whenever recovery asks for one that is not there.
        let jobs = memory::jobs_within(wanted.memory_limit, each, depth + 1);
        self.workers_ahead = jobs.saturating_sub(1 + self.stuck());
        self.depth = if self.workers_ahead == 0 { 0 } else { depth };
        let missed = self.missed.filter(|(_, at)| at.elapsed() < MISSED_REST);
        let line = self.line.after(behind, wanted.size).take(most);
        let line = line.take_while(|name| missed.is_none_or(|(missed, _)| missed != *name));
        let line: Vec<SegmentName> = line.collect();
        self.window.slide_to(&line, self.depth);
    }

    /// How many workers could begin something ahead now.
    pub(super) fn workers_wanted(&self) -> usize {
        self.window
            .in_turn()
            .min(self.workers_ahead.saturating_sub(self.under_way))
    }

    /// Recovery has waited for long, or no longer waits: what is fetched ahead stands still meanwhile.
    pub(super) fn hurry(&mut self, hurried: bool) {
        if self.hurried != hurried {
            self.hurried = hurried;
            self.window.hold_others(hurried);
        }
    }

    /// How many workers there may be: those ahead, those stuck, and one for the request that is made now.
    pub(super) fn workers_max(&self) -> usize {
        self.workers_ahead.max(self.under_way) + self.stuck() + 1
    }

    /// True if there is a window and nobody to give it up; that somebody is expected to be there from now on.
    pub(super) fn needs_keeper(&mut self) -> bool {
        if self.has_keeper || self.window.is_empty() {
            return false;
        }
        self.has_keeper = true;
        true
    }

    /// There is no keeper after all.
    pub(super) fn without_keeper(&mut self) {
        self.has_keeper = false;
        self.window.clear();
    }

    pub(super) fn forget(&mut self) {
        self.window.clear();
        self.line = Line::default();
        self.pace = Pace::default();
        self.last = None;
    }

    pub(super) fn tally(&self) -> Tally {
        Tally {
            fetched: self.fetched,
            unused: self.window.unused(),
            depth: self.depth,
        }
    }

    /// How many fetches ahead have a worker.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// How many demands no worker has taken yet.
    #[cfg(test)]
    pub(super) fn demands_in_turn(&self) -> usize {
        let in_turn = |demand: &&Demand| matches!(demand.stage, DemandStage::InTurn(_));
        self.demands.iter().filter(in_turn).count()
    }

    /// The archive of this turn, if it is open.
    pub(super) fn archive(&self, turn: Turn) -> Option<Arc<Archive>> {
        let (opened, archive) = self.archive.as_ref()?;
        (*opened == turn).then(|| Arc::clone(archive))
    }

    /// Whether the archive that files come from is open.
    pub(super) fn is_connected(&self) -> bool {
        self.archive.is_some()
    }

    /// The archive of this turn has been opened.
    pub(super) fn opened(&mut self, turn: Turn, archive: &Arc<Archive>) {
        if self.turn == turn {
            self.archive = Some((turn, Arc::clone(archive)));
        }
    }

    /// Nothing is wanted any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.window.clear();
        for demand in self.demands.drain(..) {
            demand.cancel();
        }
    }

    /// The next thing to do.
    pub(super) fn next_job(&mut self) -> Option<Box<Job>> {
        if self.closed {
            return None;
        }
        for demand in &mut self.demands {
            if let DemandStage::InTurn(job) = &demand.stage {
                let under_way = DemandStage::UnderWay(job.cancel.clone());
                if let DemandStage::InTurn(job) = std::mem::replace(&mut demand.stage, under_way) {
                    return Some(job);
                }
            }
        }
        if self.hurried || self.under_way >= self.workers_ahead {
            return None;
        }
        let around = self.around.clone()?;
        let (id, segment, cancel) = self.window.begin()?;
        self.under_way += 1;
        Some(Box::new(Job {
            name: WalFileName::Segment(segment),
            around,
            turn: self.turn,
            cancel,
            why: Why::Ahead(id),
        }))
    }

    /// This is not there: of several, the first one counts.
    fn miss(&mut self, name: &WalFileName) {
        let now = Instant::now();
        let WalFileName::Segment(name) = *name else {
            return;
        };
        let rests = self.missed.filter(|(_, at)| at.elapsed() < MISSED_REST);
        if rests.is_none_or(|(missed, _)| name.position() < missed.position()) {
            self.missed = Some((name, now));
        }
    }

    /// A job has ended; true if a request waits for it.
    pub(super) fn ended(&mut self, job: &Job, found: Result<Ruled, Error>, cost: &Cost) -> bool {
        if matches!(found, Ok(Ruled::File(_))) && matches!(job.name, WalFileName::Segment(_)) {
            self.pace.fetched(cost.took);
            self.bytes_each = cost.bytes.max(memory::restoring_bytes());
        }
        match job.why {
            Why::Ahead(id) => {
                self.under_way -= 1;
                let ended = match found {
                    Ok(Ruled::File(fetched)) => {
                        self.fetched += 1;
                        Ended::Fetched(*fetched)
                    }
                    Ok(_) => {
                        self.miss(&job.name);
                        Ended::NotFound
                    }
                    Err(_) => Ended::Failed,
                };
                self.window.end(id, ended)
            }
            Why::Demanded(id, _) => {
                let failed = matches!(&found, Err(error) if error.kind().may_work_later())
                    && !job.cancel.is_cancelled();
                if failed && self.turn == job.turn {
                    // What was wrong may be the open archive itself: a stale handle, another mount.
                    self.archive = None;
                }
                let Some(at) = self.demands.iter().position(|demand| demand.id == id) else {
                    return false;
                };
                if let Some(demand) = self.demands.get_mut(at)
                    && !matches!(demand.stage, DemandStage::GivenUp)
                {
                    demand.stage = DemandStage::Ended(found);
                    return true;
                }
                self.demands.remove(at);
                false
            }
        }
    }
}

impl Demand {
    fn cancel(&self) {
        match &self.stage {
            DemandStage::InTurn(job) => job.cancel.cancel(),
            DemandStage::UnderWay(cancel) => cancel.cancel(),
            DemandStage::Ended(_) | DemandStage::GivenUp => {}
        }
    }
}
