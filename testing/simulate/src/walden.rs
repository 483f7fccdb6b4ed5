//! Walden under the simulation: its archive and its judge, as the recovery worker and the archiver have them.
//!
//! Guarantees the product's own crates, unchanged, by a clock of the simulation: between two requests passes no time, or a
//! moment, or so much that nothing is believed any more that was seen before. Several files are archived at once, by the engine
//! that archives ahead, in one thread.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use archive::{
    Answer as Answered, Archive, Archiving, ArchivingLimits, Cancel, Clock, Compression,
    MissingSegment, Options,
};
use fastrand::Rng;
use recovery::{Asker, Control, Judge, Phase, TargetTimeline};
use wal::{KeepFrom, SegmentSize, SystemIdentifier, TimelineId, WalFileName};

use crate::life::{Server, Signal};
use crate::restores::{Module, Offer, Refusal, Settings, Shelf};
use crate::startup::{Answer, Ask, Goal};
use crate::{SEGMENT, SYSTEM};

/// Longer than anything is believed or left alone. So much passes before each request of a standby, for which evidence is looked
/// for once a minute: what has come up since then the oracle knows, and the standby need not.
const FORGOTTEN: Duration = Duration::from_secs(100);

/// What may pass between two other requests: nothing; what a server needs from one file to the next; a pause between two tries.
const PASSES: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_secs(5),
    FORGOTTEN,
];

/// What a process of a server has of Walden.
#[derive(Default)]
pub struct Walden {
    clock: Clock,
    archive: Option<Arc<Archive>>,
    judge: Judge,
    settings: Settings,
    archiving: Option<Arc<Archiving>>,
    workers: Arc<Workers>,
}

/// Who archives several files at once: a turn is begun in the middle of another one's request, and ends before that goes on. So
/// all are taken in one thread, in an order that a seed gives.
#[derive(Default)]
struct Workers {
    at: Mutex<Weak<Archiving>>,
    rng: Mutex<Rng>,
    /// How many turns have begun and not ended.
    busy: AtomicUsize,
    /// How many may have.
    most: AtomicUsize,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workers {
    /// Takes a turn, if anything is to be done.
    fn take(&self) -> bool {
        let Some(archiving) = locked(&self.at).upgrade() else {
            return false;
        };
        self.busy.fetch_add(1, Ordering::Relaxed);
        let was_busy = archiving.take_turn();
        self.busy.fetch_sub(1, Ordering::Relaxed);
        was_busy
    }

    /// A turn makes a request: another one may be taken meanwhile.
    fn meanwhile(&self) {
        let busy = self.busy.load(Ordering::Relaxed);
        let is_free = (1..self.most.load(Ordering::Relaxed)).contains(&busy);
        if is_free && locked(&self.rng).bool() {
            self.take();
        }
    }
}

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap_or(TimelineId::FIRST)
}

impl Walden {
    fn time_passes(&self) {
        let passed = locked(&self.workers.rng).choice(PASSES);
        self.clock.pass(passed.unwrap_or_default());
    }

    fn opened(&mut self, shelf: &Shelf) -> Arc<Archive> {
        let workers = Arc::clone(&self.workers);
        let archive = self.archive.get_or_insert_with(|| {
            let options = Options {
                compression: Compression::None,
                ..Options::default()
            };
            let store = shelf.seen(Arc::new(move || workers.meanwhile()));
            Arc::new(Archive::with_store(store, options))
        });
        Arc::clone(archive)
    }

    /// As the archive module does it: the file that is asked for, and others with it.
    fn archive_ahead(
        &mut self,
        shelf: &Shelf,
        name: &WalFileName,
        path: &Path,
    ) -> Result<(), Refusal> {
        let (archive, clock) = (self.opened(shelf), self.clock.clone());
        let archiving = self.archiving.get_or_insert_with(|| {
            Arc::new(Archiving::without_workers(
                archive,
                SystemIdentifier(SYSTEM),
                clock,
            ))
        });
        let archiving = Arc::clone(archiving);
        *locked(&self.workers.at) = Arc::downgrade(&archiving);
        // Files of a directory are given their names in order: what has been staged would wait for ever.
        let most = if shelf.is_far { self.settings.jobs } else { 1 };
        self.workers.most.store(most, Ordering::Relaxed);
        let limits = ArchivingLimits {
            jobs: self.settings.jobs,
            memory: u64::MAX,
        };
        let asked = archiving.ask(name, path, self.clock.now(), limits);
        let answer = match asked.map_err(|error| refusal(&error))? {
            Some(put) => Ok(put),
            None => loop {
                if let Some(answer) = archiving.poll(name) {
                    break answer;
                }
                if !self.workers.take() {
                    return Err(Refusal::for_good("nobody archives it"));
                }
            },
        };
        let more = locked(&self.workers.rng).usize(..=self.settings.jobs);
        for _ in 1..more {
            self.time_passes();
            self.workers.take();
        }
        answer.map(drop).map_err(|error| refusal(&error))
    }
}

/// The server as Walden sees it.
fn seen(server: &mut Server, goal: Goal) -> recovery::Server {
    let control = Control {
        checkpoint_timeline: timeline(server.control.timeline),
        min_recovery_timeline: TimelineId::new(server.control.min_timeline),
        segment_size: SegmentSize::new(SEGMENT).ok(),
    };
    recovery::Server {
        phase: match server.signal {
            Signal::None => Phase::Ending,
            Signal::Recovery => Phase::Targeted,
            Signal::Standby => Phase::Standby,
        },
        target: match goal {
            Goal::Latest => TargetTimeline::Latest,
            Goal::Current => TargetTimeline::Current,
            Goal::Number(number) => TargetTimeline::Number(timeline(number)),
        },
        control: Some(control),
        system: Some(SystemIdentifier(SYSTEM)),
        size: SegmentSize::new(SEGMENT).ok(),
        missing_segment: MissingSegment::Error,
        data_directory: server.files.settle().to_owned(),
    }
}

fn message(error: &archive::Error) -> String {
    error.to_string()
}

fn refusal(error: &archive::Error) -> Refusal {
    Refusal {
        why: message(error),
        may_pass: error.kind().may_work_later(),
    }
}

/// Asks, and answers what the host answers to an error.
fn ask(
    archive: &Archive,
    question: &recovery::Question,
    dest: &Path,
) -> Result<Answered, archive::Error> {
    let system = Some(SystemIdentifier(SYSTEM));
    match recovery::restore(archive, question, dest, system, &Cancel::new()) {
        Err(error) => question.failed(error).map(Answered::Absent),
        answered => answered,
    }
}

impl Module for Walden {
    fn begin(&mut self, settings: Settings) {
        self.settings = settings;
        self.archiving = None;
        self.archive = None;
        *locked(&self.workers.rng) = Rng::with_seed(settings.seed);
        self.clock = Clock::given();
        self.judge = Judge::by_clock(self.clock.clone());
    }

    fn restore(&mut self, shelf: &Shelf, server: &mut Server, ask_for: &Ask) -> Answer {
        if server.signal == Signal::Standby {
            self.clock.pass(FORGOTTEN);
        } else {
            self.time_passes();
        }
        let Ok(name) = ask_for.name.parse::<WalFileName>() else {
            return Answer::Absent;
        };
        let own = match name {
            WalFileName::TimelineHistory(_) => "RECOVERYHISTORY",
            _ => "RECOVERYXLOG",
        };
        let seen = seen(server, ask_for.goal);
        let dest = seen.pg_wal().join(own);
        drop(std::fs::remove_file(&dest));
        let archive = self.opened(shelf);
        let question = self.judge.ask(name, Asker::Recovery(seen));
        match ask(&archive, &question, &dest) {
            Ok(Answered::Restored { .. }) => match std::fs::read(&dest) {
                Ok(contents) => Answer::Restored(contents),
                Err(why) => Answer::Unsure(format!("restored, and is not there: {why}")),
            },
            Ok(Answered::Absent(_)) => Answer::Absent,
            Err(error) => Answer::Unsure(message(&error)),
        }
    }

    fn archive(
        &mut self,
        shelf: &Shelf,
        server: &mut Server,
        offer: &Offer,
    ) -> Result<(), Refusal> {
        self.time_passes();
        let name = offer.name.as_str();
        let parsed = name
            .parse::<WalFileName>()
            .map_err(|error| Refusal::for_good(error.to_string()))?;
        let path = server.files.settle().join("pg_wal").join(name);
        if self.settings.jobs > 0 {
            server.files.settle_notes();
            return self.archive_ahead(shelf, &parsed, &path);
        }
        let archive = self.opened(shelf);
        let system = Some(SystemIdentifier(SYSTEM));
        let put = archive.put_new(&parsed, &path, system, &Cancel::new());
        put.map(drop).map_err(|error| refusal(&error))
    }

    fn clean_up(&mut self, shelf: &Shelf, server: &mut Server, keep: &str) {
        // What the command does with %r: nothing in targeted recovery.
        if server.signal == Signal::Recovery {
            return;
        }
        let Ok(keep) = keep.parse::<KeepFrom>() else {
            return;
        };
        let archive = self.opened(shelf);
        drop(archive.clean_up(&keep, Some(SystemIdentifier(SYSTEM)), &Cancel::new()));
    }
}
