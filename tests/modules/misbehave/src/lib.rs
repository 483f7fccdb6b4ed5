//! A module that misbehaves on request, as archive module, as recovery module and as background worker.
//!
//! | `misbehave.mode` | what happens at the place chosen |
//! |---|---|
//! | `ok` | nothing bad: it copies files to and from `misbehave.directory` |
//! | `panic` | panics |
//! | `payload` | panics with something that is no text, and large |
//! | `error` | calls a server function that raises ERROR |
//! | `failure` | returns a failure |
//! | `slow` | waits eight seconds on the latch, then does its job |
//! | `lie` | says that it did its job, and did nothing |
//! | `no` | says no: not archived yet, not in the archive |
//! | `leak` | forgets some memory, and returns a failure |
//!
//! The place is `misbehave.at`: by default `jobs`, the four things that modules are for, or one of the names in
//! [`At`]. `misbehave.checked` has a check hook that does what its value says: `panic`, `payload`, `refuse`.
//! Preloaded, the library has a background worker too.
//!
//! At its shutdown the module says what it did since its startup. It makes no promise of durability and is never
//! to be used for WAL that matters.

use module::settings::{About, Check, EnumSetting, StringSetting};
use module::{
    ArchiveCleanupModule, ArchiveModule, Archived, Failure, KeepFrom, Level, Loading, Module,
    Process, RecoveryEndModule, Registration, Report, RestoreModule, Restored, Task, Waited,
    WalFileName, Woken,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Ok,
    Panic,
    Payload,
    Error,
    Failure,
    Slow,
    Lie,
    No,
    Leak,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Jobs,
    Load,
    Startup,
    CheckConfigured,
    ArchiveFile,
    Restore,
    ArchiveCleanup,
    RecoveryEnd,
    Shutdown,
    Worker,
}

static MODE: EnumSetting<Mode> = EnumSetting::new(
    About::reload(c"misbehave.mode", c"Sets how to misbehave."),
    &[
        (c"ok", Mode::Ok),
        (c"panic", Mode::Panic),
        (c"payload", Mode::Payload),
        (c"error", Mode::Error),
        (c"failure", Mode::Failure),
        (c"slow", Mode::Slow),
        (c"lie", Mode::Lie),
        (c"no", Mode::No),
        (c"leak", Mode::Leak),
    ],
);
static AT: EnumSetting<At> = EnumSetting::new(
    About::reload(c"misbehave.at", c"Sets where to misbehave."),
    &[
        (c"jobs", At::Jobs),
        (c"load", At::Load),
        (c"startup", At::Startup),
        (c"check_configured", At::CheckConfigured),
        (c"archive_file", At::ArchiveFile),
        (c"restore", At::Restore),
        (c"archive_cleanup", At::ArchiveCleanup),
        (c"recovery_end", At::RecoveryEnd),
        (c"shutdown", At::Shutdown),
        (c"worker", At::Worker),
    ],
);
static DIRECTORY: StringSetting = StringSetting::new(
    About::reload(c"misbehave.directory", c"Sets where files are kept."),
    c"",
);
static CHECKED: StringSetting = StringSetting::checked::<Checked>(
    About::reload(c"misbehave.checked", c"Sets what its check does."),
    c"",
);

/// How long `slow` takes.
const SLOW: Duration = Duration::from_secs(8);

/// What `leak` forgets: little, so that whoever looks for leaks has to look closely.
const LEAK_BYTES: usize = 256;

/// What `payload` panics with: large enough to be missed.
const PAYLOAD_BYTES: usize = 10 * 1024;

struct Checked;

impl Check for Checked {
    fn check(value: &str) -> Result<(), String> {
        match value {
            "panic" => panic!("asked to panic in a check"),
            "payload" => std::panic::panic_any(vec![1_u8; PAYLOAD_BYTES]),
            "refuse" => Err("It was asked to refuse.".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Whether `place` is where to misbehave.
fn chosen(process: Process, place: At) -> bool {
    let at = AT.get(process);
    let job = matches!(
        place,
        At::ArchiveFile | At::Restore | At::ArchiveCleanup | At::RecoveryEnd
    );
    at == place || (at == At::Jobs && job)
}

/// How to misbehave at this place.
fn mode(process: Process, place: At) -> Mode {
    if chosen(process, place) {
        MODE.get(process)
    } else {
        Mode::Ok
    }
}

/// Misbehaves at once, if that is what is asked for.
fn inject(process: Process, place: At, doing: &str) -> Result<(), Failure> {
    match mode(process, place) {
        Mode::Panic => panic!("asked to panic during {doing}"),
        Mode::Payload => std::panic::panic_any(vec![1_u8; PAYLOAD_BYTES]),
        Mode::Error => {
            process.required_parameter(c"misbehave.no_such_parameter")?;
            Ok(())
        }
        Mode::Failure => Err(Failure::new(format!("asked to fail during {doing}"))),
        Mode::Leak => {
            // Looked at, or the compiler would see that nobody wants it and not allocate at all.
            std::hint::black_box(Box::leak(vec![1_u8; LEAK_BYTES].into_boxed_slice()));
            Err(Failure::new(format!("asked to leak during {doing}")))
        }
        Mode::Ok | Mode::Slow | Mode::Lie | Mode::No => Ok(()),
    }
}

/// Work in progress, since a slow job outlives a wait that ended early, as a good module's does; and what was done.
#[derive(Default)]
pub struct Misbehave {
    slow: Option<(String, Task<()>)>,
    archived: u64,
    restored: u64,
    cleanups: u64,
    ends: u64,
}

impl Module for Misbehave {
    fn startup(process: Process) -> Result<Self, Failure> {
        inject(process, At::Startup, "startup")?;
        Ok(Self::default())
    }

    fn shutdown(self, process: Process) {
        let Self {
            archived,
            restored,
            cleanups,
            ends,
            ..
        } = self;
        process.report(&Report::new(
            Level::Log,
            format!(
                "misbehave: shutting down after {archived} archived, {restored} restored, {cleanups} cleanups, \
                 {ends} ends"
            ),
        ));
        if let Err(failure) = inject(process, At::Shutdown, "shutdown") {
            process.report(&Report::of(Level::Warning, failure));
        }
    }
}

impl Misbehave {
    /// Misbehaves; true when the job shall be done after that.
    fn misbehave(&mut self, process: Process, place: At, doing: &str) -> Result<bool, Failure> {
        inject(process, place, doing)?;
        if mode(process, place) == Mode::Slow {
            return self.wait(process, doing);
        }
        Ok(true)
    }

    fn wait(&mut self, process: Process, doing: &str) -> Result<bool, Failure> {
        let mut task = match self.slow.take() {
            Some((going_on, task)) if going_on == doing => task,
            _ => Task::start("misbehave", || std::thread::sleep(SLOW))?,
        };
        match task.wait(process, Instant::now() + 2 * SLOW)? {
            Waited::Done(()) => Ok(true),
            Waited::NotYet(_) => {
                self.slow = Some((doing.to_owned(), task));
                Ok(false)
            }
        }
    }

    fn kept(process: Process, file: &WalFileName) -> PathBuf {
        Path::new(&DIRECTORY.get(process)).join(file.to_string())
    }
}

impl ArchiveModule for Misbehave {
    fn check_configured(&mut self, process: Process) -> Result<(), Failure> {
        inject(process, At::CheckConfigured, "the check")
    }

    fn archive_file(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
    ) -> Result<Archived, Failure> {
        if !self.misbehave(process, At::ArchiveFile, &format!("archiving of {file}"))? {
            return Ok(Archived::NotYet);
        }
        match mode(process, At::ArchiveFile) {
            Mode::Lie => return Ok(Archived::Durably),
            Mode::No => return Ok(Archived::NotYet),
            _ => {}
        }
        // Renamed into place: a standby looks for the file meanwhile.
        let (kept, staged) = (
            Self::kept(process, file),
            Self::kept(process, file).with_extension("staged"),
        );
        std::fs::copy(path, &staged)
            .and_then(|_| std::fs::rename(staged, kept))
            .map_err(|error| Failure::new(format!("could not copy file \"{file}\": {error}")))?;
        self.archived += 1;
        Ok(Archived::Durably)
    }
}

impl RestoreModule for Misbehave {
    fn restore(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
        _: &KeepFrom,
    ) -> Result<Restored, Failure> {
        if !self.misbehave(process, At::Restore, &format!("restoring of {file}"))? {
            return Err(Failure::new(format!("could not wait for file \"{file}\"")));
        }
        match mode(process, At::Restore) {
            Mode::Lie => return Ok(Restored::Yes),
            Mode::No => return Ok(Restored::NotInArchive),
            _ => {}
        }
        match std::fs::copy(Self::kept(process, file), path) {
            Ok(_) => {
                self.restored += 1;
                Ok(Restored::Yes)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Restored::NotInArchive)
            }
            Err(error) => Err(Failure::new(format!(
                "could not copy file \"{file}\": {error}"
            ))),
        }
    }
}

impl ArchiveCleanupModule for Misbehave {
    fn archive_cleanup(&mut self, process: Process, _: &KeepFrom) -> Result<(), Failure> {
        self.misbehave(process, At::ArchiveCleanup, "archive cleanup")?;
        self.cleanups += 1;
        Ok(())
    }
}

impl RecoveryEndModule for Misbehave {
    fn recovery_end(&mut self, process: Process, _: &KeepFrom) -> Result<(), Failure> {
        self.misbehave(process, At::RecoveryEnd, "the end of recovery")?;
        self.ends += 1;
        Ok(())
    }
}

fn on_load(loading: Loading) -> Result<(), Failure> {
    inject(*loading, At::Load, "loading")?;
    if !loading.preloading() || loading.single_user() {
        return Ok(());
    }
    loading.register_worker(Registration {
        name: c"misbehave worker",
        library: c"misbehave",
        function: c"misbehave_worker",
        restart_after: Duration::from_secs(1),
    })
}

fn work(process: Process) -> Result<(), Failure> {
    loop {
        inject(process, At::Worker, "its own work")?;
        match process.idle(None)? {
            Woken::Reload => process.reload_configuration()?,
            Woken::Shutdown | Woken::PostmasterGone => return Ok(()),
            Woken::Event | Woken::Deadline => {}
        }
    }
}

module::export! {
    settings: [MODE, AT, DIRECTORY, CHECKED],
    load: on_load,
    archive: Misbehave,
    recovery: Misbehave { restore, archive_cleanup, recovery_end },
    worker: misbehave_worker => work,
}
