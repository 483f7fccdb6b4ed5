//! The archiver's board.

use super::{Board, Finding, Going, InCall, cause, lock, note, note_if, put_up, requests, short};
use crate::settings;
use archive::{ArchivingView, FlightStage, Meter, OldestCommit, Pending, Place, Put};
use module::{Failure, Process, SegmentSize, WalFileName};
use status::region::Writer;
use status::{Archiver, Cause, InFlight, Named, Recent, Stage, Task, Unarchived, now};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use wal::Timestamp;

/// Where the server notes what is to be archived; the archiver's working directory is the data directory.
const PG_WAL: &str = "pg_wal";
pub(crate) const ARCHIVE_STATUS: &str = "pg_wal/archive_status";

/// What part of the time counting, and looking for the oldest commit, may take: one in so many.
const COUNTING_SHARE: u32 = 20;

/// But this long a pause at the most, so that what was counted stays fresh.
const COUNTING_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How far back "recent" looks, in steps of ten seconds.
const RECENT_STEPS: usize = 30;
const RECENT_STEP: Duration = Duration::from_secs(10);

/// How many backup history files are remembered.
const BACKUPS_MAX: usize = 10;

static PLACE: Mutex<Option<ArchiverBoard>> = Mutex::new(None);

struct ArchiverBoard {
    shown: Archiver,
    call: Option<Going>,
    begun: Instant,
    segment_size: SegmentSize,
    meter: Option<Meter>,
    view: Option<ArchivingView>,
    not_before: Option<Instant>,
    oldest: OldestCommit,
    commits_not_before: Option<Instant>,
    /// Lists are left out, because the document did not fit with them.
    is_short: bool,
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

    fn acknowledged(&mut self, file: &WalFileName) {
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
        if let Some((files, _)) = self.recent.back_mut() {
            *files += 1;
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
        if let Some(view) = self.view.as_ref().filter(|_| !self.is_short) {
            self.shown.in_flight = view.in_flight().into_iter().map(as_shown).collect();
        }
        self.shown.call = self.call.as_ref().map(Going::shown);
        self.shown.written_at = now();
        &self.shown
    }

    fn shorten(&mut self) {
        self.is_short = true;
        self.shown.in_flight.clear();
    }

    fn look() -> Option<Finding<Self>> {
        let (not_before, commits_not_before) = lock::<Self>()
            .as_ref()
            .map(|board| (board.not_before, board.commits_not_before))?;
        let is_due = |at: Option<Instant>| at.is_none_or(|at| Instant::now() >= at);
        if !is_due(not_before) {
            return None;
        }
        // What cannot be counted is not known; the time of the last count tells.
        let pending = Pending::count(Path::new(ARCHIVE_STATUS)).ok()?;
        let counting = (pending.took * COUNTING_SHARE).min(COUNTING_PAUSE_MAX);
        let looked = is_due(commits_not_before).then(|| look_for_commits(&pending));
        Some(Box::new(move |board| {
            board.not_before = Some(Instant::now() + counting);
            if let Some((oldest, unarchived, took)) = looked {
                board.oldest = oldest;
                board.commits_not_before = Some(Instant::now() + took * COUNTING_SHARE);
                board.shown.unarchived = Some(unarchived);
            }
            board.shown.pending = Some(status::Pending {
                files: pending.files,
                bytes: pending.bytes(board.segment_size),
                oldest: pending.oldest.map(|name| name.to_string()),
                oldest_since: pending.oldest_since.map(status::unix),
                first: pending.first.iter().map(ToString::to_string).collect(),
                counted_at: now(),
            });
        }))
    }
}

/// Looks for the first segment and the oldest commit that are not archived; with how long that took.
fn look_for_commits(pending: &Pending) -> (OldestCommit, Unarchived, Duration) {
    let begun = Instant::now();
    let (mut oldest, size) = lock::<ArchiverBoard>()
        .as_mut()
        .map(|board| (std::mem::take(&mut board.oldest), board.segment_size))
        .unwrap_or_default();
    let found = oldest.look(Path::new(PG_WAL), pending, size);
    let commit = found.oldest_commit.flatten();
    let unarchived = Unarchived {
        first_segment: found.first.map(|name| name.to_string()),
        commits_known: found.oldest_commit.is_some(),
        oldest_commit_at: commit.and_then(Timestamp::to_system_time).map(status::unix),
        looked_at: now(),
    };
    (oldest, unarchived, begun.elapsed())
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
    let place = settings::archive(process).ok();
    let options = place.as_ref().map(|place| &place.options);
    put_up(ArchiverBoard {
        shown: Archiver {
            pid: std::process::id(),
            since: now(),
            live: true,
            archive: settings::archive_text(process),
            // Files may be long in coming; what is wrong with the settings is said when one comes.
            compression: options
                .map(|options| options.compression.to_string())
                .unwrap_or_default(),
            recipients: options.map(|options| options.recipients.len()),
            jobs: settings::archiving_limits(process).jobs,
            libraries: settings::archive_libraries(process),
            ..Archiver::default()
        },
        call: None,
        begun: Instant::now(),
        segment_size: process.segment_size(),
        meter: None,
        view: None,
        not_before: None,
        oldest: OldestCommit::default(),
        commits_not_before: None,
        is_short: false,
        recent: VecDeque::from([(0, 0)]),
        step: 0,
    });
}

/// A module is called: to archive the file, or `None` to be loaded and asked whether it is configured. It is written by the
/// board's thread, within a second: most calls are over by then.
pub(crate) fn calling(process: Process, module: &str, file: Option<&WalFileName>) -> InCall {
    let task = file.map_or(Task::Configure, |_| Task::Archive);
    let time_limit = settings::archive_timeout(process);
    let going = Going::begun(module, task, file.map(ToString::to_string), time_limit);
    show(Some(going));
    InCall(|| show(None))
}

fn show(call: Option<Going>) {
    note_if(|board: &mut ArchiverBoard| {
        board.call = call;
        false
    });
}

/// The settings that files are archived by from now on.
pub(crate) fn configured(process: Process, place: &Place) {
    let (archive, jobs) = (
        settings::archive_text(process),
        settings::archiving_limits(process).jobs,
    );
    let compression = place.options.compression.to_string();
    let recipients = Some(place.options.recipients.len());
    note_if(|board: &mut ArchiverBoard| {
        let shown = &mut board.shown;
        // Asked before each file, and hardly ever news.
        if (&shown.archive, &shown.compression) == (&archive, &compression)
            && (shown.jobs, shown.recipients) == (jobs, recipients)
        {
            return false;
        }
        (shown.archive, shown.compression) = (archive, compression);
        (shown.jobs, shown.recipients) = (jobs, recipients);
        true
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
pub(crate) fn archived(put: Put) {
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
        board.advance();
        if let Some((_, bytes)) = board.recent.back_mut() {
            *bytes += wal_bytes;
        }
    });
}

/// The server is told that a file is archived: every module has it.
pub(crate) fn acknowledged(file: &WalFileName) {
    note(|board: &mut ArchiverBoard| board.acknowledged(file));
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
