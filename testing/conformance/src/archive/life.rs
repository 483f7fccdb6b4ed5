//! Promises about a module's life: configured, changed, shut down.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use lab::{Lab, Mark, Shutdown, wait_for, wait_until};
use rustix::process::Signal;

use super::bench::{COMPLAINT, archiver, complaint, drain, idle_archiver, pause};
use crate::promise::{Evidence, Kind, Promise, hold, must};
use crate::subject::Subject;

/// How long a module may take to notice that it is configured: a reload wakes the archiver at once.
const STARTS_WITHIN: Duration = Duration::from_secs(45);

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "configured-later",
        kind: Kind::Archive,
        says: "a module that is not configured yet keeps the server waiting, and starts by itself once it is",
        source: "manual, \"Check Callback\" (15 to 18)",
        check: configured_later,
    },
    Promise {
        name: "library-changed",
        kind: Kind::Archive,
        says: "archive_library changed on reload, and changed back, loses nothing and restarts the archiver alone",
        source: "manual, \"archive_library\" (15 to 18)",
        check: library_changed,
    },
    Promise {
        name: "fast-shutdown-drains",
        kind: Kind::Archive,
        says: "a fast shutdown archives everything that waits, the last segment included",
        source: "manual, \"Shutting Down the Server\" (15 to 18); pgarch_MainLoop, pgarch.c (15 to 18)",
        check: fast_shutdown_drains,
    },
];

fn configured_later(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let places: Vec<&str> = subject.places().collect();
    if places.is_empty() {
        return Ok(Evidence::DoesNotApply(
            "no parameter given says where the archive is".to_owned(),
        ));
    }
    let archive = lab.archive("archive")?;
    if at_restart_only(subject, lab, &archive)? {
        return Ok(Evidence::DoesNotApply(format!(
            "{} cannot be changed without a restart of the server",
            places.join(", ")
        )));
    }
    let configured = subject.archiving(lab, &archive);
    let bare = places
        .iter()
        .fold(configured.clone(), |settings, name| settings.without(name));
    let primary = lab.primary("primary", 1, bare)?;
    let segments = primary.write_segments(1..=3)?;
    // The server says that nothing is configured, or the module that it failed.
    wait_until("the archiver to find out", || {
        Ok(complaint(&primary, Mark::default()).starts_with(COMPLAINT)
            || primary.ready()?.is_empty())
    })?;
    let words = complaint(&primary, Mark::default());
    let ready = primary.ready()?;
    let lost: Vec<_> = segments
        .iter()
        .filter(|name| !ready.contains(name))
        .collect();
    hold(lost.is_empty(), || {
        format!(
            "without {} set, {lost:?} were called archived",
            places.join(", ")
        )
    })?;
    primary.reload(|settings| *settings = with_socket(configured, &primary))?;
    let archived = wait_for("no .ready file left", STARTS_WITHIN, || {
        Ok(primary.ready()?.is_empty().then_some(()))
    });
    must(
        archived,
        "after the parameters were set and the configuration reloaded, not everything was archived",
    )?;
    for segment in &segments {
        hold(archive.has(segment)?, || {
            format!("{segment} is not in the archive")
        })?;
    }
    Ok(Evidence::Seen(format!(
        "without {} {} segments waited ({words}); set and reloaded, all were archived",
        places.join(", "),
        segments.len()
    )))
}

/// Whether a parameter that says where the archive is cannot be set in a running server.
fn at_restart_only(subject: &Subject, lab: &Lab, archive: &lab::ArchiveDir) -> Result<bool> {
    let server = lab.cluster("asked", 1, subject.archiving(lab, archive))?;
    server.start()?;
    let fixed = server.sql("select name from pg_settings where context = 'postmaster'")?;
    server.stop(Shutdown::Immediate)?;
    let mut places = subject.places();
    Ok(places.any(|place| fixed.lines().any(|name| name == place)))
}

/// Whole settings in place of a cluster's own, which has its socket's directory from the harness.
fn with_socket(settings: lab::Settings, cluster: &lab::Cluster) -> lab::Settings {
    settings.with(
        "unix_socket_directories",
        &cluster.home().display().to_string(),
    )
}

fn library_changed(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let (archive, other) = (lab.archive("archive")?, lab.archive("other")?);
    let primary = subject.primary(lab, &archive, 1)?;
    let mark = primary.mark()?;
    let checkpointer = primary.wait_for_process("checkpointer")?;
    let first = primary.write_segments(1..=2)?;
    drain(&primary, mark, "the first segments were not archived")?;
    let library = primary
        .settings()
        .get("archive_library")
        .unwrap_or_default()
        .to_owned();

    let one = archiver(&primary)?;
    primary.reload(|settings| {
        settings.remove("archive_library");
        settings.set("archive_command", &format!("cp %p {}/%f", other.text()));
    })?;
    let second = primary.write_segments(3..=4)?;
    must(ended(&primary, one.pid), "the archiver was not restarted")?;
    drain(
        &primary,
        mark,
        "after the change to archive_command nothing was archived",
    )?;

    let two = archiver(&primary)?;
    primary.reload(|settings| {
        settings.remove("archive_command");
        settings.set("archive_library", &library);
    })?;
    let third = primary.write_segments(5..=6)?;
    must(ended(&primary, two.pid), "the archiver was not restarted")?;
    drain(
        &primary,
        mark,
        "after the change back to the library nothing was archived",
    )?;

    for (segments, place) in [(&first, &archive), (&second, &other), (&third, &archive)] {
        for segment in segments {
            hold(archive.has(segment)? || other.has(segment)?, || {
                format!(
                    "{segment} is in neither archive ({} was its turn)",
                    place.text()
                )
            })?;
        }
    }
    hold(checkpointer.is_alive(), || {
        let crash = primary
            .logged(mark, &["was terminated by"])
            .unwrap_or_default();
        let text = crash.first().map_or("", |entry| entry.text.as_str());
        format!("the server restarted all its processes: {text}")
    })?;
    Ok(Evidence::Seen(format!(
        "archive_library '{library}', then archive_command, then '{library}' again: two new archivers, all {} \
         segments in one of the two archives",
        first.len() + second.len() + third.len()
    )))
}

/// Waits until this archiver has ended. Each look is a connection, which wakes the postmaster: it starts
/// another archiver ten seconds after the last one started, at the earliest (`PgArchCanRestart`).
fn ended(primary: &lab::Cluster, pid: u32) -> Result<()> {
    wait_until("the archiver to end, and another to come", || {
        primary.sql("select 1")?;
        let now = primary.processes("archiver")?;
        Ok(now.iter().any(|process| process.pid != pid))
    })
}

fn fast_shutdown_drains(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = subject.primary(lab, &archive, 1)?;
    let by = idle_archiver(&primary)?;
    pause(&primary, &by)?;
    let segments = primary.write_segments(1..=10)?;
    // What the shutdown itself has to send on.
    primary.sql("insert into ledger values (11)")?;
    let mark = primary.mark()?;
    let took = thread::scope(|scope| {
        let stop = scope.spawn(|| primary.stop(Shutdown::Fast));
        let asked = primary.wait_for_log(mark, &["received fast shutdown request"]);
        by.signal(Signal::CONT)?;
        asked?;
        match stop.join() {
            Ok(took) => must(took, "the server did not shut down"),
            Err(_) => anyhow::bail!("the stop panicked"),
        }
    })?;
    let left = primary.ready()?;
    hold(left.is_empty(), || {
        let words = complaint(&primary, mark);
        format!("the server shut down and left {left:?} unarchived; {words}")
    })?;
    for segment in &segments {
        hold(archive.has(segment)?, || {
            format!("{segment} was called archived and is not in the archive")
        })?;
    }
    let files = archive.segments()?.len();
    Ok(Evidence::Seen(format!(
        "{} segments waited when the server was told to stop: {:.1} s later it was down, and all of them and \
         the one that it ended last, {files} in all, were archived",
        segments.len(),
        took.as_secs_f64()
    )))
}
