//! The archiver's board.

use super::{Board, Finding, cause, lock, note, note_if, put_up, requests, short};
use crate::settings;
use archive::{ArchivingView, FlightStage, Meter, OldestCommit, Pending, Place, Put};
use module::{Failure, Process, SegmentSize, WalFileName};
use status::region::Writer;
use status::{Archiver, Cause, InFlight, Named, Recent, Stage, Unarchived, now};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use wal::Timestamp;

/// Where the server notes what is to be archived; the archiver's working directory is the data directory.
const PG_WAL: &str = "pg_wal";
const ARCHIVE_STATUS: &str = "pg_wal/archive_status";

/// What part of the time counting, and looking for the oldest commit, may take: one in so many.
const COUNTING_SHARE: u32 = 20;

/// How far back "recent" looks, in steps of ten seconds.
const RECENT_STEPS: usize = 30;
const RECENT_STEP: Duration = Duration::from_secs(10);

/// How many backup history files are remembered.
const BACKUPS_MAX: usize = 10;

static PLACE: Mutex<Option<ArchiverBoard>> = Mutex::new(None);

struct ArchiverBoard {
    shown: Archiver,
    begun: Instant,
    segment_size: SegmentSize,
    meter: Option<Meter>,
    view: Option<ArchivingView>,
    not_before: Option<Instant>,
    oldest: OldestCommit,
    /// Files and bytes of each of the last steps, the newest last, and which step that is.
    recent: VecDeque<(u64, u64)>,
    step: u64,
}

impl ArchiverBoard {
    /// Moves the window of "recent" to the present.
    fn advance(&mut self) {
        let step = self.begun.elapsed().as_secs() / RECENT_STEP.as_secs();
        let passed = usize::try_from(step - self.step).unwrap_or(RECENT_STEPS);
        self.step = step;
        for _ in 0..passed.min(RECENT_STEPS) {
            self.recent.push_back((0, 0));
        }
        while self.recent.len() > RECENT_STEPS {
            self.recent.pop_front();
        }
    }

    fn archived(&mut self, file: &WalFileName, wal_bytes: u64) {
        let at = now();
        let named = Named {
            file: file.to_string(),
            at,
        };
        if matches!(file, WalFileName::BackupHistory { .. }) {
            self.shown.backups.push(named.clone());
            let surplus = self.shown.backups.len().saturating_sub(BACKUPS_MAX);
            self.shown.backups.drain(..surplus);
        }
        self.shown.last_archived = Some(named);
        self.shown.failing_since = None;
        self.advance();
        if let Some((files, bytes)) = self.recent.back_mut() {
            *files += 1;
            *bytes += wal_bytes;
        }
    }

    fn failed(&mut self, file: Option<&WalFileName>, cause: Cause, failure: &Failure) {
        let at = now();
        self.shown.failing_since.get_or_insert(at);
        self.shown.last_failure = Some(status::Failure {
            file: file.map(ToString::to_string),
            cause,
            message: short(&failure.message),
            hint: failure.hint.as_deref().map(short),
            at,
        });
    }
}

impl Board for ArchiverBoard {
    type Shown = Archiver;
    const WRITER: Writer = Writer::Archiver;

    fn place() -> &'static Mutex<Option<Self>> {
        &PLACE
    }

    fn shown(&mut self) -> &Archiver {
        self.advance();
        let (files, bytes) = self.recent.iter().fold((0, 0), |(files, bytes), step| {
            (files + step.0, bytes + step.1)
        });
        let window = RECENT_STEP.as_secs_f64() * self.recent.len() as f64;
        self.shown.recent = Recent {
            seconds: self.begun.elapsed().as_secs_f64().min(window),
            files,
            bytes,
        };
        if let Some(meter) = &self.meter {
            self.shown.requests = requests(meter);
        }
        if let Some(view) = &self.view {
            self.shown.in_flight = view.in_flight().into_iter().map(as_shown).collect();
        }
        self.shown.written_at = now();
        &self.shown
    }

    fn shorten(&mut self) {
        self.shown.in_flight.clear();
        self.shown.backups.clear();
    }

    fn look() -> Option<Finding<Self>> {
        let not_before = lock::<Self>().as_ref().and_then(|board| board.not_before);
        if not_before.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        let begun = Instant::now();
        // What cannot be counted is not known; the time of the last count tells.
        let pending = Pending::count(Path::new(ARCHIVE_STATUS)).ok()?;
        let (mut oldest, size) = lock::<Self>()
            .as_mut()
            .map(|board| (std::mem::take(&mut board.oldest), board.segment_size))?;
        let commit = oldest.look(Path::new(PG_WAL), &pending, size);
        let took = begun.elapsed();
        Some(Box::new(move |board| {
            board.oldest = oldest;
            board.not_before = Some(Instant::now() + took * COUNTING_SHARE);
            board.shown.unarchived = commit.map(|at| Unarchived {
                oldest_commit_at: at.and_then(Timestamp::to_system_time).map(status::unix),
                looked_at: now(),
            });
            board.shown.pending = Some(status::Pending {
                files: pending.files,
                bytes: pending.bytes(board.segment_size),
                oldest: pending.oldest.map(|name| name.to_string()),
                oldest_since: pending.oldest_since.map(status::unix),
                counted_at: now(),
            });
        }))
    }
}

fn as_shown(file: archive::InFlight) -> InFlight {
    InFlight {
        file: file.name.to_string(),
        state: match file.stage {
            FlightStage::Running => Stage::Running,
            FlightStage::Stored => Stage::Stored,
            FlightStage::Failed => Stage::Failed,
        },
        attempts: file.attempts,
        age: file.since.elapsed().as_secs_f64(),
        error: file.error.as_deref().map(short),
    }
}

/// The archiver has loaded the library.
pub(crate) fn loaded(process: Process) {
    put_up(ArchiverBoard {
        shown: Archiver {
            pid: std::process::id(),
            since: now(),
            live: true,
            archive: settings::archive_text(process),
            jobs: settings::archiving_limits(process).jobs,
            libraries: settings::archive_libraries(process),
            ..Archiver::default()
        },
        begun: Instant::now(),
        segment_size: process.segment_size(),
        meter: None,
        view: None,
        not_before: None,
        oldest: OldestCommit::default(),
        recent: VecDeque::from([(0, 0)]),
        step: 0,
    });
}

/// The settings that files are archived by from now on.
pub(crate) fn configured(process: Process, place: &Place) {
    let (archive, jobs) = (
        settings::archive_text(process),
        settings::archiving_limits(process).jobs,
    );
    let (compression, recipients) = (&place.options.compression, &place.options.recipients);
    note_if(|board: &mut ArchiverBoard| {
        let changed = Archiver {
            archive,
            jobs,
            compression: compression.to_string(),
            recipients: recipients.len(),
            ..board.shown.clone()
        };
        let is_news = changed != board.shown;
        board.shown = changed;
        is_news
    });
}

/// Nothing is archived, because of a setting.
pub(crate) fn not_configured(failure: &Failure) {
    note(|board: &mut ArchiverBoard| board.failed(None, Cause::Config, failure));
}

/// The archive was opened; its requests are counted from now on.
pub(crate) fn opened(meter: Meter, view: ArchivingView) {
    note(|board: &mut ArchiverBoard| {
        (board.meter, board.view) = (Some(meter), Some(view));
    });
}

/// Walden's own module has archived a file.
pub(crate) fn archived(file: &WalFileName, put: Put) {
    note(|board: &mut ArchiverBoard| {
        let wal_bytes = match put {
            Put::Stored {
                bytes_in,
                bytes_out,
            } => {
                board.shown.files.archived += 1;
                board.shown.bytes.wal += bytes_in;
                board.shown.bytes.stored += bytes_out;
                bytes_in
            }
            Put::AlreadyStored => {
                board.shown.files.duplicate += 1;
                0
            }
            Put::AsPartial => {
                board.shown.files.archived += 1;
                0
            }
        };
        board.archived(file, wal_bytes);
    });
}

/// An attempt of Walden's own module has failed, for a known reason, and the server counts it.
pub(crate) fn failed(file: &WalFileName, error: &archive::Error, failure: &Failure) {
    let cause = cause(error);
    note(|board: &mut ArchiverBoard| {
        if cause == Cause::Refused {
            board.shown.files.refused += 1;
        } else {
            board.shown.files.failed += 1;
        }
        board.failed(Some(file), cause, failure);
    });
}

/// An attempt had no answer in time.
pub(crate) fn unanswered(file: &WalFileName, failure: &Failure) {
    note(|board: &mut ArchiverBoard| {
        board.shown.files.failed += 1;
        board.failed(Some(file), Cause::Store, failure);
    });
}

/// A first try has failed; it is tried again, and nothing is counted yet.
pub(crate) fn in_trouble(file: &WalFileName, is_denied: bool, failure: &Failure) {
    let cause = if is_denied { Cause::Auth } else { Cause::Store };
    note(|board: &mut ArchiverBoard| board.failed(Some(file), cause, failure));
}

/// Another module of several has not taken a file.
pub(crate) fn not_taken(file: &WalFileName, failure: &Failure) {
    note(|board: &mut ArchiverBoard| board.failed(Some(file), Cause::Module, failure));
}
