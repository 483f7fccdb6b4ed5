//! Promises about all that a server hands over: every kind of file, every size of segment, in its order.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use lab::{ArchiveDir, Cluster, Lab, Shutdown};

use super::bench::{compare_with_recovered, copied, drain};
use crate::promise::{Evidence, Kind, Promise, hold};
use crate::subject::Subject;

/// The sizes of segments that are tried, in megabytes: the default and a larger one. All other promises use
/// the smallest.
const SIZES_MB: [u32; 2] = [16, 64];

/// The new timeline's history file.
const HISTORY: &str = "00000002.history";

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "timeline-history-first",
        kind: Kind::Archive,
        says: "after a promotion the new timeline's history file is archived before everything that waited",
        source: "ready_file_comparator, pgarch.c (15 to 18)",
        check: timeline_history_first,
    },
    Promise {
        name: "every-kind-of-file",
        kind: Kind::Archive,
        says: "segments, partial segments, timeline history files and backup history files are archived",
        source: "manual, \"Archive Callback\" (15 to 18); pgarch_readyXlog, pgarch.c (15 to 18)",
        check: every_kind_of_file,
    },
    Promise {
        name: "segment-sizes",
        kind: Kind::Archive,
        says: "segments of the default size and of others are archived and restored",
        source: "manual, \"initdb\", --wal-segsize (15 to 18)",
        check: segment_sizes,
    },
];

/// A server that was promoted with files of its old timeline waiting: they were not archived, and now this
/// module does.
fn promoted<'lab>(
    subject: &Subject,
    lab: &'lab Lab,
    archive: &ArchiveDir,
) -> Result<(Cluster<'lab>, Vec<String>)> {
    let configured = subject.archiving(lab, archive);
    let nobody = configured
        .clone()
        .without("archive_library")
        .with("archive_command", "false");
    let server = lab.primary("server", 1, nobody)?;
    server.sql("select pg_backup_start('test', true) \\; select pg_backup_stop(false)")?;
    let segments = server.write_segments(1..=3)?;
    // In the middle of a segment, which becomes a partial one.
    server.sql("insert into ledger values (4)")?;
    server.stop(Shutdown::Immediate)?;

    let socket = server.home().display().to_string();
    server.configure(|settings| *settings = configured.with("unix_socket_directories", &socket))?;
    server.touch("standby.signal")?;
    server.start()?;
    let waiting = server.ready()?;
    anyhow::ensure!(
        segments.iter().all(|name| waiting.contains(name)),
        "nothing waits to be archived"
    );
    let mark = server.mark()?;
    server.sql("select pg_promote()")?;
    server.wait_until_promoted()?;
    drain(
        &server,
        mark,
        "after a promotion the archiver does not get on",
    )?;
    Ok((server, waiting))
}

fn timeline_history_first(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let (server, waited) = promoted(subject, lab, &archive)?;
    let status = server.data().join("pg_wal/archive_status");
    // The server's note is the .ready file's new name, which sets this time.
    let noted = |name: &str| -> Result<(i64, i64)> {
        let meta = fs::metadata(status.join(format!("{name}.done")))
            .with_context(|| format!("there is no note that {name} is archived"))?;
        Ok((meta.ctime(), meta.ctime_nsec()))
    };
    let history = noted(HISTORY)?;
    for name in &waited {
        hold(noted(name)? >= history, || {
            format!("{name} was called archived before {HISTORY}")
        })?;
    }
    hold(archive.has(HISTORY)?, || {
        format!("{HISTORY} was called archived and is not in the archive")
    })?;
    Ok(Evidence::Seen(format!(
        "a server was promoted while {} files waited: {HISTORY} was noted as archived before them",
        waited.len()
    )))
}

fn every_kind_of_file(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let (server, waited) = promoted(subject, lab, &archive)?;
    let mut offered = waited;
    for entry in fs::read_dir(server.data().join("pg_wal/archive_status"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        offered.extend(name.strip_suffix(".done").map(str::to_owned));
    }
    offered.sort();
    offered.dedup();
    let mut kinds = Vec::new();
    for suffix in [".history", ".partial", ".backup"] {
        let name = offered.iter().find(|name| name.ends_with(suffix));
        kinds.push(
            name.with_context(|| format!("the server made no {suffix} file"))?
                .clone(),
        );
    }
    for name in &offered {
        hold(archive.has(name)?, || {
            format!("{name} was called archived and is not in the archive")
        })?;
        let stored = archive.stored(name)?;
        // Compressed, it is other bytes, and restoring shows what they are worth.
        let raw = stored
            .file_name()
            .is_some_and(|stored| stored.to_string_lossy() == *name);
        let original = server.data().join("pg_wal").join(name);
        if raw && original.exists() {
            hold(fs::read(&stored)? == fs::read(&original)?, || {
                format!("the archived {name} has other bytes than the server's")
            })?;
        }
    }
    Ok(Evidence::Seen(format!(
        "{} files of a promoted server are in the archive, {} among them",
        offered.len(),
        kinds.join(", ")
    )))
}

fn segment_sizes(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let mut seen = Vec::new();
    for megabytes in SIZES_MB {
        let archive = lab.archive(&format!("archive-{megabytes}"))?;
        let settings = subject.archiving(lab, &archive);
        let origin = copied(lab, &format!("server-{megabytes}"), megabytes, settings)?;
        let mark = origin.primary.mark()?;
        origin.primary.write_segments(1..=1)?;
        let otherwise = format!("segments of {megabytes} MB were not archived");
        drain(&origin.primary, mark, &otherwise)?;
        compare_with_recovered(subject, lab, &origin, &archive)?;
        seen.push(format!("{megabytes} MB"));
    }
    Ok(Evidence::Seen(format!(
        "{} (and 1 MB throughout): archived, and a server with equal contents recovered",
        seen.join(" and ")
    )))
}
