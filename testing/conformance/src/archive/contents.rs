//! Promises about what is in the archive: all of it, never replaced.

use anyhow::Result;
use lab::{Lab, Shutdown};

use super::bench::{Watch, compare_with_recovered, complaint, copied, drain};
use crate::promise::{Evidence, Kind, Promise, hold};
use crate::subject::Subject;

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "restores-the-same-server",
        kind: Kind::Archive,
        says: "from what is archived a server with the same contents is recovered",
        source: "manual, \"Continuous Archiving and Point-in-Time Recovery (PITR)\" (15 to 18)",
        check: restores_the_same_server,
    },
    Promise {
        name: "same-bytes-succeed",
        kind: Kind::Archive,
        says: "a file that the archive holds already, with the same bytes, is archived again with success",
        source: "manual, \"Setting Up WAL Archiving\" (16 to 18); basic_archive_file_internal, basic_archive.c (15)",
        check: same_bytes_succeed,
    },
    Promise {
        name: "different-bytes-refused",
        kind: Kind::Archive,
        says: "a file that the archive holds with other bytes is not called archived, and nothing is touched",
        source: "manual, \"Setting Up WAL Archiving\" (15 to 18)",
        check: different_bytes_refused,
    },
];

fn restores_the_same_server(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let origin = copied(lab, "primary", 1, subject.archiving(lab, &archive))?;
    let mark = origin.primary.mark()?;
    let segments = origin.primary.write_segments(1..=6)?;
    drain(&origin.primary, mark, "the segments were not archived")?;
    let entries = compare_with_recovered(subject, lab, &origin, &archive)?;
    Ok(Evidence::Seen(format!(
        "{} segments were archived; a server that had none of them was recovered to all {entries} entries, \
         with equal contents",
        segments.len()
    )))
}

fn same_bytes_succeed(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = subject.primary(lab, &archive, 1)?;
    let mark = primary.mark()?;
    let segments = primary.write_segments(1..=2)?;
    drain(&primary, mark, "the segments were not archived at all")?;
    for segment in &segments {
        hold(archive.has(segment)?, || {
            format!("{segment} was called archived and is not in the archive")
        })?;
    }
    let before = archive.snapshot()?;
    // A fresh archiver, so that nothing is answered from memory.
    primary.stop(Shutdown::Fast)?;
    let status = primary.data().join("pg_wal/archive_status");
    for segment in &segments {
        std::fs::rename(
            status.join(format!("{segment}.done")),
            status.join(format!("{segment}.ready")),
        )?;
    }
    let mark = primary.mark()?;
    primary.start()?;
    primary.write_segments(3..=3)?;
    drain(&primary, mark, "the same files were not archived once more")?;
    let failures = primary.archive_failures()?;
    hold(failures == 0, || {
        let words = complaint(&primary, mark);
        format!("{failures} attempts at files that were there already failed; {words}")
    })?;
    let after = archive.snapshot()?;
    for (name, bytes) in &before {
        hold(after.get(name) == Some(bytes), || {
            format!("\"{name}\" has changed")
        })?;
    }
    Ok(Evidence::Seen(format!(
        "{} segments were offered again by a restarted server: 0 failed attempts, all {} files of the \
         archive keep their bytes",
        segments.len(),
        before.len()
    )))
}

fn different_bytes_refused(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let first = copied(lab, "first", 1, subject.archiving(lab, &archive))?;
    let mark = first.primary.mark()?;
    let names = first.primary.write_segments(1..=2)?;
    drain(
        &first.primary,
        mark,
        "the segments were not archived at all",
    )?;
    first.primary.stop(Shutdown::Immediate)?;
    let before = archive.snapshot()?;

    // The same server once more, from before it wrote them: same names, other bytes.
    let second = lab.restored("second", &first.copy, subject.archiving(lab, &archive))?;
    second.start()?;
    let watch = Watch::begin(&second)?;
    let others = second.write_segments(11..=12)?;
    let name = others.first().cloned().unwrap_or_default();
    anyhow::ensure!(
        names.first() == Some(&name),
        "the second server's segments have names of their own"
    );
    watch.wait()?;
    let acknowledged: Vec<&String> = {
        let ready = second.ready()?;
        others.iter().filter(|name| !ready.contains(name)).collect()
    };
    hold(acknowledged.is_empty(), || {
        format!(
            "the archive held {acknowledged:?} of another server, and they were called archived"
        )
    })?;
    let after = archive.snapshot()?;
    for (name, bytes) in &before {
        hold(after.get(name) == Some(bytes), || {
            format!("\"{name}\" was archived with other bytes, and has been changed")
        })?;
    }
    let words = watch.complaint();
    second.stop(Shutdown::Immediate)?;
    Ok(Evidence::Seen(format!(
        "a second server with other bytes under the name \"{name}\" could not archive it, and the archive \
         is as before; {words}"
    )))
}
