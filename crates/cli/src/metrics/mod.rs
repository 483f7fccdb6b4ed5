//! `walden metrics`: what a monitoring system asks, once on standard output or served over HTTP beside the server.
//!
//! Guarantees: a scrape asks the server once and the archive never; what the archive is worth is looked at in the background,
//! every five minutes; what is not known is absent. Left to others: the session (`living`), the archive (`archive_facts.rs`),
//! the text (`text.rs`), HTTP (`serve.rs`).

mod serve;
pub(crate) mod text;

use crate::archive_facts::Facts;
use crate::exit::Outcome;
use crate::flags::{self, Global};
use crate::living::Target;
use crate::living::observed::Observed;
use crate::living::psql::Psql;
use crate::say;
use crate::settings;
use archive::Error;
use status::{Cause, Requests};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use text::{Format, Kind, Page};

/// How often the archive is looked at.
const FACTS_EVERY: Duration = Duration::from_secs(300);

/// How long the archive may take to be looked at, in the background.
const FACTS_WAIT_MAX: Duration = Duration::from_secs(600);

/// And how long where the server's metrics wait for it.
const ONCE_WAIT_MAX: Duration = Duration::from_secs(30);

/// A session that has ended says so at once.
const RESTARTED_MAX: Duration = Duration::from_secs(1);

/// Prints or serves the metrics.
pub(crate) fn run(flags: &flags::Metrics, global: &Global) -> Outcome {
    let done = (|| {
        let target = Target::of(flags.dbname.as_deref(), global.pgdata.as_deref())?;
        let mut collector = Collector::new(target, global.clone());
        if let Some(address) = flags.listen {
            collector.look_at_archive_always();
            return serve::serve(address, collector);
        }
        collector.look_at_archive();
        Ok(say::output(&collector.page(Format::Prometheus)))
    })();
    done.unwrap_or_else(|error| {
        say::failure(&error);
        Outcome::Failed
    })
}

/// Asks the server, and remembers what the archive is worth.
pub(crate) struct Collector {
    target: Option<Target>,
    session: Option<Psql>,
    global: Global,
    facts: Arc<Mutex<Option<Facts>>>,
}

impl Collector {
    fn new(target: Option<Target>, global: Global) -> Collector {
        Collector {
            target,
            session: None,
            global,
            facts: Arc::default(),
        }
    }

    /// The metrics of this moment.
    pub(crate) fn page(&mut self, format: Format) -> String {
        let observed = self.observe().unwrap_or_else(|error| {
            say::failure(&error);
            self.session = None;
            None
        });
        let facts = lock(&self.facts);
        page(
            format,
            self.target.is_some(),
            observed.as_ref(),
            facts.as_ref(),
        )
    }

    /// What the server says; `None` if it does not run.
    fn observe(&mut self) -> Result<Option<Observed>, Error> {
        let Some(target) = &self.target else {
            return Ok(None);
        };
        let begun = Instant::now();
        if let Some(session) = &mut self.session {
            match Observed::ask(session) {
                Ok(observed) => return Ok(Some(observed)),
                // A server that hangs is not waited for twice.
                Err(error) if begun.elapsed() > RESTARTED_MAX => return Err(error),
                // It may have been restarted.
                Err(_) => self.session = None,
            }
        }
        let Some(mut session) = target.session()? else {
            return Ok(None);
        };
        let observed = Observed::ask(&mut session)?;
        self.session = Some(session);
        Ok(Some(observed))
    }

    /// Looks at the archive once, if one is named.
    fn look_at_archive(&self) {
        look_at_archive(&self.global, &self.facts, ONCE_WAIT_MAX);
    }

    /// Looks at it again and again, in a thread that ends with the process.
    fn look_at_archive_always(&self) {
        let (global, facts) = (self.global.clone(), Arc::clone(&self.facts));
        std::thread::spawn(move || {
            loop {
                look_at_archive(&global, &facts, FACTS_WAIT_MAX);
                std::thread::park_timeout(FACTS_EVERY);
            }
        });
    }
}

fn look_at_archive(global: &Global, facts: &Mutex<Option<Facts>>, wait_max: Duration) {
    let Ok(chosen) = settings::choose(global, None) else {
        return;
    };
    let read = Facts::of_place(chosen, wait_max);
    if let Err(error) = &read {
        say::failure(error);
    }
    *lock(facts) = read.ok();
}

fn lock(facts: &Mutex<Option<Facts>>) -> MutexGuard<'_, Option<Facts>> {
    facts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn page(
    format: Format,
    is_asked: bool,
    observed: Option<&Observed>,
    facts: Option<&Facts>,
) -> String {
    let mut page = Page::new(format);
    let document = observed.and_then(|it| it.status.as_ref());
    page.one(
        "walden_up",
        Kind::Gauge,
        "Whether the server answered and has Walden preloaded.",
        is_asked.then_some(u8::from(document.is_some())),
    );
    let version = env!("CARGO_PKG_VERSION");
    let library = document.map_or("", |document| document.version.as_str());
    let server = observed.map_or("", |it| it.version.as_str());
    let build = [
        ("version", version),
        ("library", library),
        ("postgresql", server),
    ];
    page.metric(
        "walden_build_info",
        Kind::Gauge,
        "Versions of this program, of the library that the server has loaded, and of the server.",
    )
    .sample(&build, 1);
    if let Some(observed) = observed {
        archiver(&mut page, observed);
        recovery(&mut page, observed);
        requests(&mut page, observed);
    }
    if let Some(facts) = facts {
        archive(&mut page, facts);
    }
    page.finish()
}

fn archiver(page: &mut Page, observed: &Observed) {
    if observed.archives_through_walden() {
        page.one(
            "walden_archiver_up",
            Kind::Gauge,
            "Whether the archiver runs and has said so within ten seconds.",
            Some(u8::from(observed.archiver().is_some())),
        );
    }
    let Some(shown) = observed.archiver() else {
        return;
    };
    page.one(
        "walden_archiver_hanging",
        Kind::Gauge,
        "Whether a call of an archive module has lasted longer than it may.",
        Some(u8::from(shown.hangs().is_some())),
    );
    let pending = observed.pending();
    page.one(
        "walden_archive_pending_files",
        Kind::Gauge,
        "Files that the server has to archive.",
        pending.map(|pending| pending.files),
    );
    page.one(
        "walden_archive_pending_bytes",
        Kind::Gauge,
        "Bytes of WAL in them.",
        pending.map(|pending| pending.bytes),
    );
    page.one(
        "walden_archive_oldest_pending_age_seconds",
        Kind::Gauge,
        "How long the file that is archived next has been ready; 0 if none is.",
        pending.and_then(|pending| match (&pending.oldest, pending.oldest_since) {
            (None, _) => Some(0.0),
            (Some(_), since) => since.map(|at| age(at, observed.now)),
        }),
    );
    let files = shown.files;
    let mut counter = page.metric(
        "walden_archive_files_total",
        Kind::Counter,
        "Files archived by this archiver process, and attempts that were refused or failed.",
    );
    for (result, count) in [
        ("archived", files.archived),
        ("duplicate", files.duplicate),
        ("refused", files.refused),
        ("failed", files.failed),
    ] {
        counter.sample(&[("result", result)], count);
    }
    let mut counter = page.metric(
        "walden_archive_bytes_total",
        Kind::Counter,
        "Bytes of archived files: as the server has them, as they are stored.",
    );
    counter.sample(&[("stage", "wal")], shown.bytes.wal);
    counter.sample(&[("stage", "stored")], shown.bytes.stored);
    outcome(page, observed, shown);
}

/// What came of the last attempts, and what a loss of the server would lose.
fn outcome(page: &mut Page, observed: &Observed, shown: &status::Archiver) {
    let last = shown.last_archived.as_ref().map(|last| last.at);
    page.one(
        "walden_archive_last_success_timestamp_seconds",
        Kind::Gauge,
        "When a file was archived last.",
        last.or(observed.last_archived_at),
    );
    let cause = shown.failing_since.and(shown.last_failure.as_ref());
    let mut failing = page.metric(
        "walden_archive_failing",
        Kind::Gauge,
        "Whether the last attempt to archive failed, by what has to be looked at.",
    );
    for of in Cause::ALL {
        let is_it = cause.is_some_and(|failure| failure.cause == of);
        failing.sample(&[("cause", of.word())], u8::from(is_it));
    }
    let is_away = cause.is_some_and(|it| matches!(it.cause, Cause::Store | Cause::Auth));
    let is_known = is_away || last.is_some();
    page.one(
        "walden_store_up",
        Kind::Gauge,
        "Whether the archive's store let the archiver do what it tried last.",
        is_known.then_some(u8::from(!is_away)),
    );
    page.one(
        "walden_archive_lag_bytes",
        Kind::Gauge,
        "Bytes of WAL that are flushed and not archived, those of the unfinished segment too.",
        observed.lag_bytes(),
    );
    page.one(
        "walden_archive_rpo_seconds",
        Kind::Gauge,
        "Age of the oldest commit that is not archived; 0 if there is none.",
        observed
            .unarchived()
            .filter(|unarchived| unarchived.commits_known)
            .map(|unarchived| {
                let oldest = unarchived.oldest_commit_at;
                oldest.map_or(0.0, |at| age(at, observed.now))
            }),
    );
}

fn recovery(page: &mut Page, observed: &Observed) {
    let Some(shown) = observed.recovery() else {
        return;
    };
    let restored = shown.restored;
    let mut counter = page.metric(
        "walden_restore_files_total",
        Kind::Counter,
        "Requests for files by this recovery worker: fetched ahead, fetched when asked, absent, could not tell.",
    );
    for (source, count) in [
        ("ahead", restored.ahead),
        ("asked", restored.asked),
        ("absent", restored.absent),
        ("unknown", restored.unknown),
    ] {
        counter.sample(&[("source", source)], count);
    }
    page.one(
        "walden_restore_wait_seconds_total",
        Kind::Counter,
        "How long recovery waited for these files.",
        Some(shown.waited),
    );
    page.one(
        "walden_restore_failing",
        Kind::Gauge,
        "Whether the last request for a file could not be answered.",
        Some(u8::from(observed.recovery_fails().is_some())),
    );
    page.one(
        "walden_restore_hanging",
        Kind::Gauge,
        "Whether a call of a recovery module has lasted longer than it may.",
        Some(u8::from(shown.hangs().is_some())),
    );
}

fn requests(page: &mut Page, observed: &Observed) {
    let archiver = observed.archiver().map(|shown| &shown.requests);
    let recovery = observed.recovery().map(|shown| &shown.requests);
    let of = [("archiver", archiver), ("recovery", recovery)];
    if of
        .iter()
        .all(|(_, requests)| requests.is_none_or(Vec::is_empty))
    {
        return;
    }
    let mut histogram = page.metric(
        "walden_store_request_duration_seconds",
        Kind::Histogram,
        "How long requests to the archive took, by operation and outcome.",
    );
    for (process, requests) in of {
        for Requests {
            op,
            outcome,
            latency,
        } in requests.into_iter().flatten()
        {
            let labels = [("process", process), ("op", op), ("outcome", outcome)];
            histogram.histogram(&labels, latency);
        }
    }
}

fn archive(page: &mut Page, facts: &Facts) {
    let mut holes = page.metric(
        "walden_archive_holes",
        Kind::Gauge,
        "Runs of segments that are missing in the archive.",
    );
    for (timeline, count) in &facts.holes {
        holes.sample(&[("timeline", &timeline.to_string())], count);
    }
    page.one(
        "walden_recoverable",
        Kind::Gauge,
        "Whether the last base backup that has left a backup history file reaches the end of the archived WAL.",
        facts.last_backup.as_ref().map(|_| u8::from(facts.last_reaches_end)),
    );
    page.one(
        "walden_recoverable_from_timestamp_seconds",
        Kind::Gauge,
        "End of the oldest base backup from which all WAL is there.",
        facts.recoverable_from,
    );
    page.one(
        "walden_recoverable_to_timestamp_seconds",
        Kind::Gauge,
        "Time of the last transaction that can be recovered.",
        facts.recoverable_to,
    );
    page.one(
        "walden_backup_last_success_timestamp_seconds",
        Kind::Gauge,
        "End of the last base backup that has left a backup history file in the archive.",
        facts.last_backup.as_ref().map(|backup| backup.at),
    );
    page.one(
        "walden_archive_checked_timestamp_seconds",
        Kind::Gauge,
        "When the archive was looked at for its holes and backups.",
        Some(facts.at),
    );
}

fn age(since: f64, now: f64) -> f64 {
    (now - since).max(0.0)
}
