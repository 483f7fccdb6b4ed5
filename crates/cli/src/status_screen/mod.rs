//! `walden status`: what archiving, the archive and recovery are doing, on one screen.
//!
//! Guarantees: what could not be looked at is said to be unknown, and the rest is shown; nothing is changed. With the server down
//! its files are looked at. Left to others: asking the server (`living`), looking at the archive (`archive_facts.rs`).

mod text;

use crate::archive_facts::Facts;
use crate::exit::Outcome;
use crate::flags::{self, Global};
use crate::living::observed::Observed;
use crate::living::{Closed, Target};
use crate::progress::{Progress, Where};
use crate::say;
use crate::settings;
use archive::{Error, Pending};
use rustix::fs::statvfs;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
pub(crate) use text::{hanging, lasting};
use wal::SegmentSize;

/// How often `--watch` shows it.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// How often `--watch` looks at the archive, in times that it shows.
const WATCH_ARCHIVE_EVERY: u64 = 15;

/// How long the archive may take: a person waits.
const ARCHIVE_WAIT_MAX: Duration = Duration::from_secs(30);

/// To the top of a terminal, and away with what is there.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows it.
pub(crate) fn run(flags: &flags::Status, global: &Global) -> Outcome {
    let mut archive = None;
    let mut round = 0;
    loop {
        if round % WATCH_ARCHIVE_EVERY == 0 {
            archive = look_at_archive(global);
        }
        let screen = match Screen::read(flags, global, archive.clone()) {
            Ok(screen) => screen,
            Err(error) => {
                say::failure(&error);
                return Outcome::Failed;
            }
        };
        if flags.json {
            return say::json(&screen);
        }
        if !flags.watch {
            return say::output(&screen.text());
        }
        let shown = say::output(&format!("{CLEAR}{}", screen.text()));
        if shown != Outcome::Done {
            return shown;
        }
        round += 1;
        std::thread::park_timeout(WATCH_EVERY);
    }
}

/// What was found. Times are Unix times in seconds.
#[derive(Debug, Default, Serialize)]
struct Screen {
    at: f64,
    server: Server,
    /// What the server has to archive, by its files; where it does not run or has not said so itself.
    pending: Option<status::Pending>,
    /// All WAL before it is archived.
    archived_through: Option<String>,
    lag_bytes: Option<u64>,
    /// Free bytes where `pg_wal` lies, and when they are used up if WAL piles up as it does.
    wal_disk_free_bytes: Option<u64>,
    wal_disk_full_in: Option<f64>,
    /// Walden's document.
    status: Option<status::Status>,
    archive: Option<Facts>,
    /// What could not be looked at, in words.
    unknown: Vec<String>,
}

/// The server.
#[derive(Debug, Default, Serialize)]
struct Server {
    /// `running`, `closed` (it runs and lets no session in), `down` or `unknown`.
    state: &'static str,
    version: Option<String>,
    /// `primary`, `standby` or `recovering`.
    role: Option<&'static str>,
    timeline: Option<u32>,
    started: Option<f64>,
    flushed: Option<String>,
    received: Option<String>,
    replayed: Option<String>,
    replayed_at: Option<f64>,
    archive_mode: Option<String>,
    archive_library: Option<String>,
    data_directory: Option<PathBuf>,
    #[serde(skip)]
    archives_through_walden: bool,
}

/// What the archive is worth, or why that is not known; nothing if none is named.
type Looked = Option<Result<Facts, String>>;

fn look_at_archive(global: &Global) -> Looked {
    let chosen = match settings::choose(global, settings::current_data_dir()) {
        Ok(chosen) => chosen,
        Err(error) if global.archive.is_none() && global.pgdata.is_none() => {
            return Some(Err(format!(
                "{error}; name it with -A, or the server with -D"
            )));
        }
        Err(error) => return Some(Err(error.to_string())),
    };
    let progress = Progress::start("looking at the archive", Where::OnTerminal);
    let read = Facts::of_place(chosen, ARCHIVE_WAIT_MAX);
    drop(progress);
    Some(read.map_err(|error| error.to_string()))
}

impl Screen {
    fn read(flags: &flags::Status, global: &Global, archive: Looked) -> Result<Screen, Error> {
        let target = Target::of(flags.dbname.as_deref(), global.pgdata.as_deref())?;
        let target = target.or_else(|| settings::current_data_dir().map(Target::Directory));
        let mut screen = Screen {
            at: status::now(),
            ..Screen::default()
        };
        screen.server.state = "unknown";
        match &target {
            Some(target) => screen.look_at_server(target),
            None => screen
                .unknown
                .push("the server: name it with -D or -d".to_owned()),
        }
        match archive {
            Some(Ok(facts)) => screen.archive = Some(facts),
            Some(Err(why)) => screen.unknown.push(format!("the archive: {why}")),
            None => {}
        }
        if let Some(directory) = screen.server.data_directory.clone() {
            screen.look_at_disk(&directory.join("pg_wal"));
        }
        Ok(screen)
    }

    fn look_at_server(&mut self, target: &Target) {
        if let Target::Directory(directory) = target {
            self.server.data_directory = Some(directory.clone());
        }
        let asked = target
            .session()
            .and_then(|mut session| session.as_mut().map(Observed::ask).transpose());
        match asked {
            Ok(Some(observed)) => self.take(observed),
            Ok(None) => self.server.state = "down",
            Err(error) => self.look_past_sessions(target, &error),
        }
        if self.pending.is_none()
            && let Some(directory) = &self.server.data_directory
        {
            let status = directory.join("pg_wal/archive_status");
            let size = recovery::Control::read(directory).and_then(|it| it.segment_size);
            match Pending::count(&status) {
                Ok(pending) => self.pending = Some(of_files(&pending, size)),
                Err(cause) => self.unknown.push(format!(
                    "what is to be archived: could not read directory \"{}\": {cause}",
                    status.display()
                )),
            }
        }
    }

    /// Where there is no session, for this reason, the recovery worker may say what it does.
    fn look_past_sessions(&mut self, target: &Target, error: &Error) {
        match target.closed() {
            Some(Ok(closed)) => return self.take_closed(closed),
            Some(Err(why)) => self.unknown.push(format!("what recovery does: {why}")),
            None => {}
        }
        let mut what = "the server".to_owned();
        if let Some(running) = target.running() {
            self.server.state = "running";
            let _ = write!(
                what,
                ", which is \"{}\" by its postmaster.pid",
                running.state
            );
        }
        self.unknown.push(format!("{what}: {error}"));
    }

    fn take_closed(&mut self, closed: Closed) {
        self.server.state = "closed";
        self.server.role = Some(if closed.is_standby {
            "standby"
        } else {
            "recovering"
        });
        self.status = Some(closed.document);
    }

    fn take(&mut self, observed: Observed) {
        let is_standby = observed
            .data_directory
            .as_deref()
            .is_some_and(|directory| Path::new(directory).join("standby.signal").exists());
        self.server = Server {
            state: "running",
            role: Some(match (observed.in_recovery, is_standby) {
                (false, _) => "primary",
                (true, true) => "standby",
                (true, false) => "recovering",
            }),
            timeline: observed.timeline(),
            started: Some(observed.started),
            flushed: observed.flushed().map(|lsn| lsn.to_string()),
            received: observed.received().map(|lsn| lsn.to_string()),
            replayed: observed.replayed().map(|lsn| lsn.to_string()),
            replayed_at: observed.replayed_at,
            archive_mode: Some(observed.archive_mode.clone()),
            archive_library: observed.archive_library.clone(),
            archives_through_walden: observed.archives_through_walden(),
            data_directory: observed
                .data_directory
                .as_deref()
                .map(PathBuf::from)
                .filter(|directory| directory.is_dir())
                .or(self.server.data_directory.take()),
            version: Some(observed.version.clone()),
        };
        self.pending = observed.pending().cloned();
        self.archived_through = observed.archived_through().map(|lsn| lsn.to_string());
        self.lag_bytes = observed.lag_bytes();
        if observed.status.is_none() {
            self.unknown.push(
                "what the archiver does: \"walden\" is not in shared_preload_libraries".to_owned(),
            );
        }
        self.status = observed.status;
    }

    /// The free space, and how long it lasts if WAL piles up as fast as since the oldest pending file is ready.
    fn look_at_disk(&mut self, pg_wal: &Path) {
        let Ok(space) = statvfs(pg_wal) else {
            return;
        };
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        self.wal_disk_free_bytes = Some(free);
        let Some(pending) = &self.pending else {
            return;
        };
        let since = pending.oldest_since.map(|since| self.at - since);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let rate = since.map(|seconds| pending.bytes as f64 / seconds.max(1.0));
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        if let Some(rate) = rate.filter(|rate| *rate >= 1.0) {
            self.wal_disk_full_in = Some(free as f64 / rate);
        }
    }
}

/// What files tell where no server does.
fn of_files(pending: &Pending, size: Option<SegmentSize>) -> status::Pending {
    status::Pending {
        files: pending.files,
        bytes: pending.bytes(size.unwrap_or(SegmentSize::DEFAULT)),
        oldest: pending.oldest.map(|name| name.to_string()),
        oldest_since: pending.oldest_since.map(status::unix),
        first: pending.first.iter().map(ToString::to_string).collect(),
        counted_at: status::now(),
    }
}
