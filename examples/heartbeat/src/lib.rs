//! An archive module with a background worker of its own, which reports how archiving goes.
//!
//! The archiver archives into a directory. The worker, a process of its own, looks every
//! `heartbeat.interval` at what the archive holds and at what waits in `pg_wal/archive_status`, writes that
//! to a state file, and warns when more WAL waits than `heartbeat.backlog_limit` allows. The two share no
//! memory: what the worker says comes from looking, so it is true also when the archiver is stuck.
//!
//! The parameters are of every kind that the kit knows. A background worker can only be registered while the
//! server starts, so the library has to be in `shared_preload_libraries`; without that it archives and
//! reports nothing.

mod keep;
mod state;

use module::settings::{
    About, BoolSetting, DurationSetting, EnumSetting, MemoryUnit, SizeSetting, StringSetting,
    TimeUnit,
};
use module::{
    ArchiveModule, Archived, Failure, Level, Loading, Module, OrFail, Process, Registration,
    Report, WalFileName, Woken,
};
use state::{Format, State};
use std::path::Path;
use std::time::{Duration, Instant};

static ARCHIVE_DIRECTORY: StringSetting = StringSetting::new(
    About::reload(
        c"heartbeat.archive_directory",
        c"Sets the directory that WAL files are archived to.",
    ),
    c"",
);

/// Below `pg_stat_tmp`, whose contents are in no base backup.
static STATE_FILE: StringSetting = StringSetting::new(
    About::reload(
        c"heartbeat.state_file",
        c"Sets the file that the state of archiving is written to.",
    )
    .long(c"A relative path is taken from the data directory."),
    c"pg_stat_tmp/heartbeat",
);

static STATE_FORMAT: EnumSetting<Format> = EnumSetting::new(
    About::reload(
        c"heartbeat.state_format",
        c"Sets the format of the state file.",
    ),
    &[(c"text", Format::Text), (c"json", Format::Json)],
);

static INTERVAL: DurationSetting = DurationSetting::new(
    About::reload(
        c"heartbeat.interval",
        c"Sets the time between two looks at archiving.",
    ),
    10,
    1..=3600,
    TimeUnit::Seconds,
);

static BACKLOG_LIMIT: SizeSetting = SizeSetting::new(
    About::reload(
        c"heartbeat.backlog_limit",
        c"Sets how much WAL may wait to be archived without a warning.",
    ),
    1024,
    0..=i32::MAX,
    MemoryUnit::Megabytes,
);

static LOG_BEATS: BoolSetting = BoolSetting::new(
    About::reload(
        c"heartbeat.log_beats",
        c"Writes each look at archiving to the server's log too.",
    ),
    false,
);

/// The archive module: it has no state, all its work is in [`keep`].
struct Heartbeat;

impl Module for Heartbeat {
    fn startup(_: Process) -> Result<Self, Failure> {
        Ok(Heartbeat)
    }
}

impl ArchiveModule for Heartbeat {
    fn check_configured(&mut self, process: Process) -> Result<(), Failure> {
        if ARCHIVE_DIRECTORY.get(process).is_empty() {
            return Err(Failure::new("\"heartbeat.archive_directory\" is not set"));
        }
        Ok(())
    }

    fn archive_file(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
    ) -> Result<Archived, Failure> {
        let directory = ARCHIVE_DIRECTORY.get(process);
        keep::keep(path, Path::new(&directory), &file.to_string()).or_fail(format_args!(
            "could not keep file \"{file}\" in \"{directory}\""
        ))?;
        Ok(Archived::Durably)
    }
}

/// Runs in whichever process loads the library, after the parameters have been defined.
fn on_load(loading: Loading) -> Result<(), Failure> {
    if !loading.preloading() || loading.single_user() {
        return Ok(());
    }
    loading.reserve_prefix(c"heartbeat")?;
    loading.register_worker(Registration {
        name: c"heartbeat",
        library: c"heartbeat",
        function: c"heartbeat_worker",
        restart_after: Duration::from_secs(5),
    })
}

/// The worker, from the server's start to its end.
fn work(process: Process) -> Result<(), Failure> {
    let mut beats = 0;
    let mut written = String::new();
    loop {
        beats += 1;
        beat(process, beats, &mut written)?;
        match process.idle(Some(Instant::now() + INTERVAL.get(process)))? {
            Woken::Deadline | Woken::Event => {}
            // The new values count from the next beat, which comes at once.
            Woken::Reload => process.reload_configuration()?,
            Woken::Shutdown | Woken::PostmasterGone => {
                // A state that is no longer renewed must not be taken for the present one.
                state::remove(Path::new(&written)).or_fail("could not remove the state file")?;
                return Ok(());
            }
        }
    }
}

/// One look, one report.
fn beat(process: Process, beats: u64, written: &mut String) -> Result<(), Failure> {
    let directory = ARCHIVE_DIRECTORY.get(process);
    let state = State::look(Path::new(&directory), process.segment_size(), beats)?;
    let file = STATE_FILE.get(process);
    if *written != file {
        // The file's name has changed on a reload: the old one is not renewed any more.
        state::remove(Path::new(written.as_str())).or_fail("could not remove the state file")?;
        written.clone_from(&file);
    }
    state
        .write(Path::new(&file), STATE_FORMAT.get(process))
        .or_fail(format_args!("could not write state file \"{file}\""))?;
    let limit = BACKLOG_LIMIT.get(process);
    if state.waiting_bytes() > limit {
        let waiting = state.waiting_bytes();
        process.report(&Report::of(
            Level::Warning,
            Failure::new(format!(
                "{waiting} bytes of WAL are waiting to be archived, {limit} are allowed"
            ))
            .hint("See pg_stat_archiver for the last failure, and \"heartbeat.backlog_limit\"."),
        ));
    }
    if LOG_BEATS.get(process) {
        process.report(&Report::new(Level::Log, format!("heartbeat: {state}")));
    }
    Ok(())
}

module::export! {
    settings: [ARCHIVE_DIRECTORY, STATE_FILE, STATE_FORMAT, INTERVAL, BACKLOG_LIMIT, LOG_BEATS],
    load: on_load,
    archive: Heartbeat,
    worker: heartbeat_worker => work,
}
