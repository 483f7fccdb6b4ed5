//! Promises about power cuts: what is called archived is on stable storage.

use anyhow::{Context, Result};
use lab::{ArchiveDir, Cluster, Lab, Mark, Shutdown};
use rustix::process::Signal;

use super::bench::{archiver, drain, name_of, pause};
use super::trace::{Call, Trace};
use crate::promise::{Evidence, Kind, Promise, hold};
use crate::subject::Subject;

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "durable-when-archived",
        kind: Kind::Archive,
        says: "before a file is called archived, its bytes and its name are synced to stable storage",
        source: "manual, \"Archive Callback\" (15 to 18)",
        check: durable_when_archived,
    },
    Promise {
        name: "durable-when-found",
        kind: Kind::Archive,
        says: "before a file that the archive holds already is called archived, it is synced to stable storage",
        source: "manual, \"Setting Up WAL Archiving\" (16 to 18); basic_archive_file_internal, basic_archive.c (15)",
        check: durable_when_found,
    },
];

/// A server that syncs: modules may follow its parameter.
fn syncing<'lab>(subject: &Subject, lab: &'lab Lab, archive: &ArchiveDir) -> Result<Cluster<'lab>> {
    let settings = subject.archiving(lab, archive).with("fsync", "on");
    let primary = lab.primary("primary", 1, settings)?;
    Ok(primary)
}

fn durable_when_archived(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = syncing(subject, lab, &archive)?;
    // The archive's own beginnings are not looked at.
    primary.write_segments(1..=1)?;
    drain(
        &primary,
        Mark::default(),
        "the first segment was not archived",
    )?;
    let by = archiver(&primary)?;
    pause(&primary, &by)?;
    let segment = primary.write_segments(2..=2)?.concat();
    let trace = Trace::begin(lab, &by, "trace")?;
    by.signal(Signal::CONT)?;
    drain(&primary, Mark::default(), "the segment was not archived")?;
    let calls = trace.until_acknowledged(&segment)?;
    is_there(&archive, &segment)?;
    let place = archive.path();

    let written = calls.iter().rposition(|call| call.writes_below(place));
    let named = calls.iter().rposition(|call| call.names(place, &segment));
    let written = written
        .context("strace saw nothing written to the archive: it is filled some other way")?;
    let named = named.context("strace saw no call that gives the file its name")?;
    let synchronous = calls.iter().any(|call| call.opens_synchronously(place));
    let bytes = after(&calls, written, |call| call.syncs_below(place));
    hold(bytes.is_some() || synchronous, || {
        format!("{segment} was called archived without a sync of its bytes after they were written")
    })?;
    let name = after(&calls, named, |call| call.syncs(place));
    hold(name.is_some(), || {
        format!(
            "{segment} was called archived without a sync of the directory after the file got its name by \
             {}",
            calls.get(named).map_or("", |call| call.name.as_str())
        )
    })?;
    Ok(Evidence::Seen(format!(
        "traced with strace, a server with fsync = on: {} after the last write, {} of the directory after \
         {}, then the server's note that {segment} is archived",
        bytes.unwrap_or("O_SYNC or O_DSYNC"),
        name.unwrap_or_default(),
        calls.get(named).map_or("", |call| call.name.as_str())
    )))
}

fn durable_when_found(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = syncing(subject, lab, &archive)?;
    let segment = primary.write_segments(1..=1)?.concat();
    drain(&primary, Mark::default(), "the segment was not archived")?;
    is_there(&archive, &segment)?;
    // The process that archived it may have been killed before it was durable: a new archiver cannot know.
    primary.stop(Shutdown::Fast)?;
    primary.start()?;
    let by = archiver(&primary)?;
    pause(&primary, &by)?;
    let status = primary.data().join("pg_wal/archive_status");
    std::fs::rename(
        status.join(format!("{segment}.done")),
        status.join(format!("{segment}.ready")),
    )?;
    primary.write_segments(2..=2)?;
    let trace = Trace::begin(lab, &by, "trace")?;
    by.signal(Signal::CONT)?;
    drain(
        &primary,
        Mark::default(),
        "the same segment was not archived once more",
    )?;
    let calls = trace.until_acknowledged(&segment)?;
    let place = archive.path();
    hold(calls.iter().any(|call| call.syncs_below(place)), || {
        format!("{segment}, found in the archive, was called archived without a sync of its bytes")
    })?;
    hold(calls.iter().any(|call| call.syncs(place)), || {
        format!(
            "{segment}, found in the archive, was called archived without a sync of the directory"
        )
    })?;
    Ok(Evidence::Seen(format!(
        "traced with strace: \"{}\" and the directory were synced again by a new archiver before the server \
         noted that {segment} is archived",
        name_of(&archive.stored(&segment)?)
    )))
}

fn is_there(archive: &ArchiveDir, segment: &str) -> Result<()> {
    hold(archive.has(segment)?, || {
        format!("{segment} was called archived and is not in the archive")
    })
}

/// The name of the first such call after a place in the list.
fn after(calls: &[Call], place: usize, what: impl Fn(&Call) -> bool) -> Option<&str> {
    let rest = calls.get(place + 1..)?;
    rest.iter()
        .find(|call| what(call))
        .map(|call| call.name.as_str())
}
