//! What sessions are shown: `walden.status`, one JSON document, and `walden.version`.
//!
//! The archiver and the recovery worker each keep a board of what happens ([`archiver`], [`recovery`]) and write it into a
//! region that all processes share: at each change, and each second by a thread of theirs, which also counts what is still to
//! be archived. A session that shows `walden.status` reads the region and nothing else: no file, no lock, no server call.
//! Guarantees: a document is made of whole sections; a section whose writer is dead or stopped is not shown as live.
//! Needs the library preloaded; elsewhere there is no region, and nothing is kept.

pub(crate) mod archiver;
pub(crate) mod recovery;

use archive::{LATENCY_BOUNDS_MS, Meter};
use module::settings::{About, Readers, Show, ShownSetting};
use module::{Failure, Loading, SharedWords, spawn_with_signals_blocked};
use rustix::process::{Pid, test_kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;
use status::region::{Section, WORDS, Writer};
use status::{Call, FRESH_FOR_S, Histogram, Requests, Status, Task, now};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

/// How often a board is written though nothing has changed.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// What a call of a module may take beyond its time limit, by which Walden's own comes back: what it says of the file then, and a
/// machine that is busy.
const CALL_GRACE: Duration = Duration::from_secs(5);

/// The longest message that is shown, in characters.
const MESSAGE_CHARS_MAX: usize = 1000;

static REGION: SharedWords<WORDS> = SharedWords::new();

/// `walden.status`.
pub(crate) static STATUS: ShownSetting = ShownSetting::new::<Document>(
    About::reload(
        c"walden.status",
        c"Shows what archiving and recovery are doing, as JSON.",
    ),
    Readers::Monitors,
);

/// `walden.version`.
pub(crate) static VERSION: ShownSetting = ShownSetting::new::<Version>(
    About::reload(
        c"walden.version",
        c"Shows the version of the library that is loaded.",
    ),
    Readers::All,
);

struct Version;

impl Show for Version {
    fn show() -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }
}

struct Document;

impl Show for Document {
    fn show() -> String {
        document()
    }
}

/// The document, for whoever asks: it is made of the region alone, on any thread of any process of the server's.
pub(crate) fn document() -> String {
    // Without the region the view says "not preloaded".
    let Some(region) = REGION.get() else {
        return "null".to_owned();
    };
    let at = now();
    let mut archiver: Option<status::Archiver> =
        Section::of(region, Writer::Archiver).and_then(read);
    if let Some(archiver) = &mut archiver {
        archiver.live = is_live(archiver.pid, archiver.written_at, at);
    }
    let mut recovery: Option<status::Recovery> =
        Section::of(region, Writer::Recovery).and_then(read);
    if let Some(recovery) = &mut recovery {
        recovery.live = is_live(recovery.pid, recovery.written_at, at);
    }
    let document = Status {
        version: Version::show(),
        at,
        archiver,
        recovery,
    };
    serde_json::to_string(&document).unwrap_or_else(|_| "null".to_owned())
}

fn read<T: DeserializeOwned>(section: Section<'_>) -> Option<T> {
    let written = section.read()?;
    serde_json::from_slice(&written.bytes).ok()
}

/// Whether the writer has written lately and its process is there. Another process may have its number by now; that one
/// writes nothing here.
fn is_live(pid: u32, written_at: f64, at: f64) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    (at - written_at).abs() < FRESH_FOR_S && pid.is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// Makes the region, in the postmaster.
pub(crate) fn create(loading: Loading) -> Result<(), Failure> {
    REGION.create(loading)
}

/// What a look has found out, to be put on the board.
type Finding<B> = Box<dyn FnOnce(&mut B)>;

/// What a process shows of itself.
trait Board: Send + 'static {
    type Shown: Serialize;
    const WRITER: Writer;
    /// The place of the process's own.
    fn place() -> &'static Mutex<Option<Self>>
    where
        Self: Sized;
    /// What is to be written, with what changes by itself brought up to date.
    fn shown(&mut self) -> &Self::Shown;
    /// Makes it smaller, because it does not fit.
    fn shorten(&mut self);
    /// Looks at what changes by itself, on the board's thread and outside its lock.
    fn look() -> Option<Finding<Self>>
    where
        Self: Sized,
    {
        None
    }
}

fn lock<B: Board>() -> MutexGuard<'static, Option<B>> {
    B::place().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts up the process's board, and starts the thread that writes it. Does nothing without a region.
fn put_up<B: Board>(board: B) {
    if REGION.get().is_none() {
        return;
    }
    *lock::<B>() = Some(board);
    note::<B>(|_| ());
    // Without the thread the board is written when something happens; readers see how old it is.
    drop(spawn_with_signals_blocked("walden status", || {
        loop {
            let look = B::look();
            note::<B>(|board| {
                if let Some(look) = look {
                    look(board);
                }
            });
            park_timeout(WRITE_EVERY);
        }
    }));
}

/// Changes the board and writes it; does nothing where none was put up.
fn note<B: Board>(change: impl FnOnce(&mut B)) {
    note_if::<B>(|board| {
        change(board);
        true
    });
}

/// The same, where there may be nothing to change: false.
fn note_if<B: Board>(change: impl FnOnce(&mut B) -> bool) {
    let mut place = lock::<B>();
    let (Some(board), Some(region)) = (place.as_mut(), REGION.get()) else {
        return;
    };
    if !change(board) {
        return;
    }
    let Some(section) = Section::of(region, B::WRITER) else {
        return;
    };
    let pid = std::process::id();
    let fits = |board: &mut B| {
        serde_json::to_vec(board.shown()).is_ok_and(|bytes| section.write(pid, &bytes))
    };
    if !fits(board) {
        board.shorten();
        fits(board);
    }
}

/// A call of a module that goes on.
struct Going {
    call: Call,
    begun: Instant,
}

impl Going {
    /// One that begins now. `time_limit`: by when Walden's own module comes back.
    fn begun(module: &str, task: Task, file: Option<String>, time_limit: Duration) -> Going {
        let call = Call {
            module: module.to_owned(),
            task,
            file,
            lasts: 0.0,
            may_last: time_limit.saturating_add(CALL_GRACE).as_secs_f64(),
        };
        Going {
            call,
            begun: Instant::now(),
        }
    }

    fn shown(&self) -> Call {
        Call {
            lasts: self.begun.elapsed().as_secs_f64(),
            ..self.call.clone()
        }
    }
}

/// Ends the call that is shown when dropped, however the call ends.
#[must_use]
pub(crate) struct InCall(fn());

impl Drop for InCall {
    fn drop(&mut self) {
        self.0();
    }
}

/// A message as it is shown.
fn short(message: &str) -> String {
    message.chars().take(MESSAGE_CHARS_MAX).collect()
}

fn requests(meter: &Meter) -> Vec<Requests> {
    let counted = meter.counted().into_iter();
    counted
        .map(|((op, end), latency)| Requests {
            op: op.word().to_owned(),
            outcome: end.word().to_owned(),
            latency: Histogram {
                buckets: LATENCY_BOUNDS_MS.into_iter().zip(latency.buckets).collect(),
                count: latency.count,
                seconds: latency.total.as_secs_f64(),
            },
        })
        .collect()
}

fn cause(error: &archive::Error) -> status::Cause {
    match error.kind() {
        archive::ErrorKind::Conflict | archive::ErrorKind::Foreign => status::Cause::Refused,
        archive::ErrorKind::Damaged => status::Cause::Damaged,
        archive::ErrorKind::Unusable => status::Cause::Config,
        _ if error.is_denied() => status::Cause::Auth,
        _ => status::Cause::Store,
    }
}
