//! The recovery worker's board.

use super::{Board, Going, InCall, note, note_if, put_up, requests, short};
use crate::settings::{self, Job};
use archive::Meter;
use module::{Failure, Process, WalFileName};
use status::region::Writer;
use status::{Cause, Named, Recovery, Task, now};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use wire::Answer;

static PLACE: Mutex<Option<RecoveryBoard>> = Mutex::new(None);

struct RecoveryBoard {
    shown: Recovery,
    asked_at: Option<Instant>,
    call: Option<Going>,
    meter: Option<Meter>,
    /// Lists are left out, because the document did not fit with them.
    is_short: bool,
    /// Walden's own module had the file ready before it was asked for.
    was_ahead: bool,
    /// What kind of cause the module's last failure had.
    cause: Option<Cause>,
}

impl Board for RecoveryBoard {
    type Shown = Recovery;
    const WRITER: Writer = Writer::Recovery;

    fn place() -> &'static Mutex<Option<Self>> {
        &PLACE
    }

    fn shown(&mut self) -> &Recovery {
        if let Some(meter) = self.meter.as_ref().filter(|_| !self.is_short) {
            self.shown.requests = requests(meter);
        }
        self.shown.call = self.call.as_ref().map(Going::shown);
        self.shown.written_at = now();
        &self.shown
    }

    fn shorten(&mut self) {
        self.is_short = true;
        self.shown.requests.clear();
    }
}

/// The worker has started.
pub(crate) fn started(process: Process) {
    put_up(RecoveryBoard {
        shown: Recovery {
            pid: std::process::id(),
            since: now(),
            live: true,
            library: Job::Restore.library(process).unwrap_or_default(),
            archive: settings::archive_text(process),
            ..Recovery::default()
        },
        asked_at: None,
        call: None,
        meter: None,
        is_short: false,
        was_ahead: false,
        cause: None,
    });
}

/// The settings were read again.
pub(crate) fn reloaded(process: Process) {
    let archive = settings::archive_text(process);
    note(|board: &mut RecoveryBoard| board.shown.archive = archive);
}

/// Walden's own module has begun; its requests to the archive are counted there.
pub(crate) fn begun(meter: Meter) {
    note(|board: &mut RecoveryBoard| board.meter = Some(meter));
}

/// A module is called, for at most so long if it is Walden's own. It is written by the board's thread, as for the archiver.
pub(crate) fn calling(
    module: &str,
    task: Task,
    file: Option<&WalFileName>,
    time_limit: Duration,
) -> InCall {
    let file = file.map(ToString::to_string);
    show(Some(Going::begun(module, task, file, time_limit)));
    InCall(|| show(None))
}

fn show(call: Option<Going>) {
    note_if(|board: &mut RecoveryBoard| {
        board.call = call;
        false
    });
}

/// A file is asked for.
pub(crate) fn asked(file: &WalFileName) {
    note(|board: &mut RecoveryBoard| {
        board.asked_at = Some(Instant::now());
        (board.was_ahead, board.cause) = (false, None);
        board.shown.asked = Some(Named {
            file: file.to_string(),
            at: now(),
        });
    });
}

/// Walden's own module restores the file that is asked for; `depth` segments are fetched ahead at a time.
pub(crate) fn from_archive(ahead: bool, depth: usize) {
    note(|board: &mut RecoveryBoard| {
        board.was_ahead = ahead;
        board.shown.prefetch_depth = depth;
    });
}

/// Walden's own module has failed for this reason.
pub(crate) fn because(error: &archive::Error) {
    let cause = super::cause(error);
    note(|board: &mut RecoveryBoard| board.cause = Some(cause));
}

/// A try has failed; it may be tried again.
pub(crate) fn in_trouble(file: &WalFileName, failure: &Failure) {
    note(|board: &mut RecoveryBoard| board.failed(file, failure));
}

/// The file that was asked for is answered.
pub(crate) fn answered(file: &WalFileName, answer: &Answer) {
    note(|board: &mut RecoveryBoard| {
        let waited = board.asked_at.take().map(|at| at.elapsed().as_secs_f64());
        board.shown.waited += waited.unwrap_or_default();
        board.shown.asked = None;
        let restored = &mut board.shown.restored;
        match answer {
            Answer::Done if board.was_ahead => restored.ahead += 1,
            Answer::Done => restored.asked += 1,
            Answer::Absent => restored.absent += 1,
            Answer::CouldNotTell(_) | Answer::Reported => restored.unknown += 1,
            // Not to a request for a file.
            Answer::Status(_) => {}
        }
        if *answer == Answer::Done {
            board.shown.last_restored = Some(Named {
                file: file.to_string(),
                at: now(),
            });
        }
        if matches!(answer, Answer::Done | Answer::Absent) {
            board.shown.failing_since = None;
        }
    });
}

impl RecoveryBoard {
    fn failed(&mut self, file: &WalFileName, failure: &Failure) {
        let at = now();
        self.shown.failing_since.get_or_insert(at);
        self.shown.last_failure = Some(status::Failure {
            file: Some(file.to_string()),
            cause: self.cause.unwrap_or(Cause::Module),
            message: short(&failure.message),
            hint: failure.hint.as_deref().map(short),
            at,
        });
    }
}
