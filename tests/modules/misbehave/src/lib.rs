//! A module that misbehaves on request, as archive module and as recovery module.
//!
//! | `misbehave.mode` | what every job does |
//! |---|---|
//! | `ok` | copies files to and from `misbehave.directory` |
//! | `panic` | panics |
//! | `error` | calls a server function that raises ERROR |
//! | `failure` | returns a failure |
//! | `slow` | waits eight seconds on the latch, then does its job |
//! | `lie` | says that it did its job, and did nothing |
//!
//! It makes no promise of durability and is never to be used for WAL that matters.

use module::settings::{About, EnumSetting, StringSetting};
use module::{
    ArchiveCleanupModule, ArchiveModule, Archived, Failure, KeepFrom, Module, Process,
    RecoveryEndModule, RestoreModule, Restored, Task, Waited, WalFileName,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Ok,
    Panic,
    Error,
    Failure,
    Slow,
    Lie,
}

static MODE: EnumSetting<Mode> = EnumSetting::new(
    About::reload(c"misbehave.mode", c"Sets how to misbehave."),
    &[
        (c"ok", Mode::Ok),
        (c"panic", Mode::Panic),
        (c"error", Mode::Error),
        (c"failure", Mode::Failure),
        (c"slow", Mode::Slow),
        (c"lie", Mode::Lie),
    ],
);
static DIRECTORY: StringSetting = StringSetting::new(
    About::reload(c"misbehave.directory", c"Sets where files are kept."),
    c"",
);

/// How long `slow` takes.
const SLOW: Duration = Duration::from_secs(8);

/// Work in progress: a slow job outlives a wait that ended early, as a good module's does.
pub struct Misbehave {
    slow: Option<(String, Task<()>)>,
}

impl Module for Misbehave {
    fn startup(_: Process) -> Result<Self, Failure> {
        Ok(Self { slow: None })
    }
}

impl Misbehave {
    /// Misbehaves; true when the job shall be done after that.
    fn misbehave(&mut self, process: Process, job: &str) -> Result<bool, Failure> {
        match MODE.get(process) {
            Mode::Panic => panic!("asked to panic during {job}"),
            Mode::Error => {
                process.required_parameter(c"misbehave.no_such_parameter")?;
                Ok(true)
            }
            Mode::Failure => Err(Failure::new(format!("asked to fail during {job}"))),
            Mode::Slow => self.wait(process, job),
            Mode::Ok | Mode::Lie => Ok(true),
        }
    }

    fn wait(&mut self, process: Process, job: &str) -> Result<bool, Failure> {
        let mut task = match self.slow.take() {
            Some((going_on, task)) if going_on == job => task,
            _ => Task::start("misbehave", || std::thread::sleep(SLOW))?,
        };
        match task.wait(process, Instant::now() + 2 * SLOW)? {
            Waited::Done(()) => Ok(true),
            Waited::NotYet(_) => {
                self.slow = Some((job.to_owned(), task));
                Ok(false)
            }
        }
    }

    fn kept(process: Process, file: &WalFileName) -> PathBuf {
        Path::new(&DIRECTORY.get(process)).join(file.to_string())
    }
}

fn lies(process: Process) -> bool {
    MODE.get(process) == Mode::Lie
}

impl ArchiveModule for Misbehave {
    fn archive_file(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
    ) -> Result<Archived, Failure> {
        if !self.misbehave(process, &format!("archiving of {file}"))? {
            return Ok(Archived::NotYet);
        }
        if !lies(process) {
            std::fs::copy(path, Self::kept(process, file)).map_err(|error| {
                Failure::new(format!("could not copy file \"{file}\": {error}"))
            })?;
        }
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
        if !self.misbehave(process, &format!("restoring of {file}"))? {
            return Err(Failure::new(format!("could not wait for file \"{file}\"")));
        }
        if lies(process) {
            return Ok(Restored::Yes);
        }
        match std::fs::copy(Self::kept(process, file), path) {
            Ok(_) => Ok(Restored::Yes),
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
        self.misbehave(process, "archive cleanup").map(drop)
    }
}

impl RecoveryEndModule for Misbehave {
    fn recovery_end(&mut self, process: Process, _: &KeepFrom) -> Result<(), Failure> {
        self.misbehave(process, "the end of recovery").map(drop)
    }
}

module::export! {
    settings: [MODE, DIRECTORY],
    archive: Misbehave,
    recovery: Misbehave { restore, archive_cleanup, recovery_end },
}
