//! Promises about several servers that archive to the same place.

use anyhow::Result;
use lab::{Cluster, Lab, wait_until};
use rustix::process::Signal;

use super::bench::{archiver, compare_with_recovered, copied, drain, pause};
use crate::promise::{Evidence, Kind, Promise, hold};
use crate::subject::Subject;

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[Promise {
    name: "two-servers-one-archive",
    kind: Kind::Archive,
    says: "a primary and its standby that archive the same files to the same place both go on",
    source: "manual, \"Continuous Archiving in Standby\" (15 to 18)",
    check: two_servers_one_archive,
}];

/// How a standby reaches its primary.
pub(crate) fn address(primary: &Cluster) -> String {
    format!("host={} user=postgres", primary.home().display())
}

fn two_servers_one_archive(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let settings = subject
        .archiving(lab, &archive)
        .with("archive_mode", "always")
        .with("wal_keep_size", "256MB");
    let origin = copied(lab, "primary", 1, settings.clone())?;
    let primary = &origin.primary;
    let settings = settings.with("primary_conninfo", &address(primary));
    let standby = lab.restored("standby", &origin.copy, settings)?;
    standby.touch("standby.signal")?;
    standby.start()?;

    let archivers = [archiver(primary)?, archiver(&standby)?];
    for (server, process) in [primary, &standby].into_iter().zip(&archivers) {
        pause(server, process)?;
    }
    let segments = primary.write_segments(1..=10)?;
    // The last one ends, for the standby, with the first bytes of the next.
    primary.write_segments(11..=11)?;
    wait_until("both servers to have the same files to archive", || {
        let (one, other) = (primary.ready()?, standby.ready()?);
        let both = |name: &String| one.contains(name) && other.contains(name);
        Ok(segments.iter().all(both))
    })?;
    let (mark, standbys) = (primary.mark()?, standby.mark()?);
    for process in &archivers {
        process.signal(Signal::CONT)?;
    }
    drain(primary, mark, "the primary's archiver does not get on")?;
    drain(&standby, standbys, "the standby's archiver does not get on")?;
    let failures = [primary.archive_failures()?, standby.archive_failures()?];
    for segment in &segments {
        hold(archive.has(segment)?, || {
            format!("both servers called {segment} archived, and it is not in the archive")
        })?;
    }
    drop(standby);
    let entries = compare_with_recovered(subject, lab, &origin, &archive)?;
    Ok(Evidence::Seen(format!(
        "{} segments, offered by both archivers at the same time, were acknowledged to both (failed attempts \
         on the way: primary {}, standby {}); a server with all {entries} entries was recovered",
        segments.len(),
        failures[0],
        failures[1]
    )))
}
