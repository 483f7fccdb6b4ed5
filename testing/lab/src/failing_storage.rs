//! Slow and failing storage under any program: opening a file in a directory takes long, or is refused.
//!
//! Guarantees that many can be late at once, each by its own delay, that the same seed refuses the same
//! opens, and that all processes go on when the trouble ends. Uses the permission events of fanotify(7), which
//! need CAP_SYS_ADMIN. Leaves reading, writing and removing alone: a file that is open is not disturbed. Who
//! makes the trouble is never held by it. Stalling one known process at one file is `stall.rs` of the
//! conformance suite.

use std::collections::HashMap;
use std::fs::{File, read_link};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags,
    Response,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// What happens to those who open a file. The default is sound storage: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    delay_min: Duration,
    delay_max: Duration,
    fail_per_mille: u64,
    seed: u64,
    stalled: bool,
    stalled_until: Option<Instant>,
}

impl Conditions {
    /// Each open is late by this much.
    #[must_use]
    pub fn delay(self, delay: Duration) -> Conditions {
        self.delay_between(delay, delay)
    }

    /// Each open is late by something between these, chosen by the seed.
    #[must_use]
    pub fn delay_between(mut self, min: Duration, max: Duration) -> Conditions {
        (self.delay_min, self.delay_max) = (min, max.max(min));
        self
    }

    /// Of a thousand opens about this many fail with EPERM, after their delay. Which ones depends on the
    /// seed, the file's name and how often that name has been opened; files without a name count as one.
    #[must_use]
    pub fn fail(mut self, per_mille: u64, seed: u64) -> Conditions {
        (self.fail_per_mille, self.seed) = (per_mille, seed);
        self
    }

    /// Every open waits until the conditions change.
    #[must_use]
    pub fn stall(mut self) -> Conditions {
        self.stalled = true;
        self
    }

    /// Every open waits until this much time has passed from now, whatever the conditions are meanwhile.
    #[must_use]
    pub fn stall_for(mut self, length: Duration) -> Conditions {
        self.stalled_until = Some(Instant::now() + length);
        self
    }

    /// Delay and failure of the `count`th open of a name.
    fn fate(&self, name: &str, count: u64) -> (Duration, bool) {
        // FNV-1a, so that neighbouring names and counts begin at unrelated places.
        let bytes = name.bytes().chain(count.to_le_bytes());
        let start = bytes.fold(self.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut random = fastrand::Rng::with_seed(start);
        let failed = random.u64(0..1000) < self.fail_per_mille;
        let spread = (self.delay_max - self.delay_min).mul_f64(random.f64());
        (self.delay_min + spread, failed)
    }
}

/// Slow or failing storage: one directory. Dropped, all processes go on.
pub struct FailingStorage {
    shared: Arc<Shared>,
    watcher: Option<JoinHandle<()>>,
}

struct Shared {
    now: Mutex<Now>,
    /// Wakes the watcher: the conditions have changed, or it is to end.
    wake: OwnedFd,
}

struct Now {
    conditions: Conditions,
    over: bool,
    refused: u64,
    seen: u64,
}

impl Shared {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // The counter of an eventfd cannot be full of ones.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl FailingStorage {
    /// Trouble with every file of a directory, and with the directory itself when it is opened to be listed.
    ///
    /// # Errors
    ///
    /// Without CAP_SYS_ADMIN, or when the directory cannot be watched.
    pub fn over(dir: &Path, conditions: Conditions) -> Result<FailingStorage> {
        FailingStorage::over_files(dir, |_| true, conditions)
    }

    /// Trouble with the files whose name `is_hit` accepts, e.g. only WAL files. A file that has no name
    /// (`O_TMPFILE`) is asked about as `#` and a number.
    ///
    /// # Errors
    ///
    /// As [`FailingStorage::over`].
    pub fn over_files(
        dir: &Path,
        is_hit: impl Fn(&str) -> bool + Send + 'static,
        conditions: Conditions,
    ) -> Result<FailingStorage> {
        let fanotify = Fanotify::init(
            InitFlags::FAN_CLASS_CONTENT
                | InitFlags::FAN_CLOEXEC
                | InitFlags::FAN_NONBLOCK
                | InitFlags::FAN_UNLIMITED_QUEUE,
            EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC,
        )
        .context("slow storage needs CAP_SYS_ADMIN: run this as root")?;
        let here =
            File::open(dir).with_context(|| format!("could not open \"{}\"", dir.display()))?;
        let what = MaskFlags::FAN_OPEN_PERM | MaskFlags::FAN_EVENT_ON_CHILD | MaskFlags::FAN_ONDIR;
        fanotify
            .mark(MarkFlags::FAN_MARK_ADD, what, here.as_fd(), Some("."))
            .with_context(|| format!("could not watch \"{}\"", dir.display()))?;
        let shared = Arc::new(Shared {
            now: Mutex::new(Now {
                conditions,
                over: false,
                refused: 0,
                seen: 0,
            }),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let mut watcher = Watcher {
            shared: Arc::clone(&shared),
            fanotify,
            is_hit: Box::new(is_hit),
            counts: HashMap::new(),
            waiting: Vec::new(),
        };
        let watcher = thread::Builder::new()
            .name("failing storage".to_owned())
            .spawn(move || watcher.run())
            .context("could not start a thread")?;
        Ok(FailingStorage {
            shared,
            watcher: Some(watcher),
        })
    }

    /// Changes the conditions. Those who are stalled go on at once, as the new ones say.
    pub fn set(&self, conditions: Conditions) {
        self.shared.now().conditions = conditions;
        self.shared.wake();
    }

    /// How many opens it has met so far, and how many of them it has refused.
    #[must_use]
    pub fn met(&self) -> (u64, u64) {
        let now = self.shared.now();
        (now.seen, now.refused)
    }
}

impl Drop for FailingStorage {
    fn drop(&mut self) {
        self.shared.now().over = true;
        self.shared.wake();
        if let Some(watcher) = self.watcher.take() {
            // A watcher that panicked has closed its descriptor, which lets all processes go on, too.
            let _ = watcher.join();
        }
    }
}

/// A process that opens a file, and when it is to be answered: never while `None`.
struct Waiting {
    event: FanotifyEvent,
    due: Option<Instant>,
    refuse: bool,
}

/// The thread that answers. When it ends, the kernel lets go all that still wait.
struct Watcher {
    shared: Arc<Shared>,
    fanotify: Fanotify,
    is_hit: Box<dyn Fn(&str) -> bool + Send>,
    counts: HashMap<String, u64>,
    waiting: Vec<Waiting>,
}

impl Watcher {
    fn run(&mut self) {
        while self.wait() {
            let conditions = {
                let now = self.shared.now();
                if now.over {
                    return;
                }
                now.conditions
            };
            self.let_stalled_go(conditions);
            // Nothing to read is as good as an error here: it is asked again at the next turn.
            for event in self.fanotify.read_events().unwrap_or_default() {
                self.take(event, conditions);
            }
            self.answer_due();
        }
    }

    /// Waits for an event, a change, or the next answer that is due.
    fn wait(&self) -> bool {
        let next = self.waiting.iter().filter_map(|one| one.due).min();
        let left = next.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut fds = [
            PollFd::new(&self.fanotify, PollFlags::IN),
            PollFd::new(&self.shared.wake, PollFlags::IN),
        ];
        let polled = poll(&mut fds, timeout.as_ref());
        let mut count = [0; 8];
        // Emptied, or there would be no next time to wait for.
        let _ = rustix::io::read(&self.shared.wake, &mut count);
        matches!(polled, Ok(_) | Err(rustix::io::Errno::INTR))
    }

    /// Decides what becomes of a process that opens a file.
    fn take(&mut self, event: FanotifyEvent, conditions: Conditions) {
        let own = u32::try_from(event.pid()) == Ok(std::process::id());
        let name = name_of(&event);
        if own || !(self.is_hit)(&name) {
            self.answer(&event, false);
            return;
        }
        let key = if name.starts_with('#') { "#" } else { &name };
        let count = self.counts.entry(key.to_owned()).or_default();
        *count += 1;
        let (delay, refuse) = conditions.fate(key, *count);
        {
            let mut now = self.shared.now();
            now.seen += 1;
            now.refused += u64::from(refuse);
        }
        let now = Instant::now();
        let begins = conditions.stalled_until.map_or(now, |until| until.max(now));
        let due = (!conditions.stalled).then_some(begins + delay);
        self.waiting.push(Waiting { event, due, refuse });
    }

    fn let_stalled_go(&mut self, conditions: Conditions) {
        if !conditions.stalled {
            for one in &mut self.waiting {
                one.due.get_or_insert_with(Instant::now);
            }
        }
    }

    fn answer_due(&mut self) {
        let now = Instant::now();
        let is_due = |one: &Waiting| one.due.is_some_and(|due| due <= now);
        let (due, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(is_due);
        self.waiting = waiting;
        let due: Vec<Waiting> = due;
        for one in due {
            self.answer(&one.event, one.refuse);
        }
    }

    fn answer(&self, event: &FanotifyEvent, refuse: bool) {
        let answer = if refuse {
            Response::FAN_DENY
        } else {
            Response::FAN_ALLOW
        };
        if let Some(fd) = event.fd() {
            // Fails when the one who waited was killed meanwhile.
            let _ = self
                .fanotify
                .write_response(FanotifyResponse::new(fd, answer));
        }
    }
}

/// The name of the file that is being opened, without its directory.
fn name_of(event: &FanotifyEvent) -> String {
    let fd = event.fd().map(|fd| fd.as_raw_fd());
    let path = fd.and_then(|fd| read_link(format!("/proc/self/fd/{fd}")).ok());
    let name = path.as_deref().and_then(Path::file_name);
    let name = name
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    // What the kernel appends to a file that has no name, or none any more.
    name.strip_suffix(" (deleted)")
        .map_or(name.clone(), str::to_owned)
}
