//! Promises about a module's answers: "archived" is true, and a failure is a failure and no more.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use lab::{ArchiveDir, Cluster, Lab, Mark, wait_until};
use rustix::process::Signal;

use super::bench::{Watch, archiver, complaint, drain, pause, place_of, plant, stored_bytes};
use crate::promise::{Evidence, Kind, Promise, broken, hold, must};
use crate::subject::Subject;

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "archived-is-there",
        kind: Kind::Archive,
        says: "when a file is called archived, it is in the archive, as it will stay",
        source: "manual, \"Archive Callback\" (15 to 18)",
        check: archived_is_there,
    },
    Promise {
        name: "failure-is-retried",
        kind: Kind::Archive,
        says: "while the archive cannot be reached nothing is called archived, and afterwards everything is \
               archived without help",
        source: "manual, \"Archive Callback\" (15 to 18)",
        check: failure_is_retried,
    },
    Promise {
        name: "failure-ends-nothing",
        kind: Kind::Archive,
        says: "a failure to archive ends neither the archiver nor any other process",
        source: "pgarch_archiveXlog, pgarch.c (17, 18: an ERROR is caught there; 15, 16: it would end the \
                 archiver, and basic_archive.c catches it itself)",
        check: failure_is_contained,
    },
];

/// The ways in which the archive goes away here.
const OUTAGES: [Outage; 3] = [
    Outage {
        words: "its permissions are taken away",
        begin: |archive, _| archive.set_mode(0o000),
        end: |archive, _| archive.set_mode(0o700),
    },
    Outage {
        words: "the directory is not there",
        begin: |archive, _| Ok(fs::rename(archive.path(), aside(archive))?),
        end: |archive, _| Ok(fs::rename(aside(archive), archive.path())?),
    },
    Outage {
        words: "a file is in its place",
        begin: |archive, lab| {
            fs::rename(archive.path(), aside(archive))?;
            fs::write(archive.path(), "")?;
            fs::set_permissions(archive.path(), Permissions::from_mode(0o600))?;
            lab.own(archive.path())
        },
        end: |archive, _| {
            fs::remove_file(archive.path())?;
            Ok(fs::rename(aside(archive), archive.path())?)
        },
    },
];

struct Outage {
    words: &'static str,
    begin: fn(&ArchiveDir, &Lab) -> Result<()>,
    end: fn(&ArchiveDir, &Lab) -> Result<()>,
}

fn aside(archive: &ArchiveDir) -> std::path::PathBuf {
    archive.path().with_extension("aside")
}

fn archived_is_there(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = subject.primary(lab, &archive, 1)?;
    let status = primary.data().join("pg_wal/archive_status");
    let mark = primary.mark()?;
    let mut held = Vec::new();
    for entry in 1..=8 {
        let segment = primary.write_segments(entry..=entry)?.concat();
        let done = status.join(format!("{segment}.done"));
        let acknowledged = wait_until("the segment to be called archived", || Ok(done.exists()));
        must(acknowledged, &complaint(&primary, mark))?;
        let Some(bytes) = stored_bytes(&archive, &segment)? else {
            return broken(format!(
                "{segment} was called archived (\"{segment}.done\" was there), and the archive had no such file"
            ));
        };
        held.push((segment, bytes));
    }
    drain(&primary, mark, "the segments were not archived")?;
    for (segment, bytes) in &held {
        hold(
            stored_bytes(&archive, segment)?.as_ref() == Some(bytes),
            || {
                format!(
                    "{segment} had {} bytes when it was called archived, and others later",
                    bytes.len()
                )
            },
        )?;
    }
    Ok(Evidence::Seen(format!(
        "{} segments were looked for in the archive as soon as the server had noted each as archived: all \
         were there, and did not change any more",
        held.len()
    )))
}

/// One archive that goes away and comes back. The server must have a reason to look again at once, else
/// it pauses for up to a minute after three failures: each new segment is one.
fn failure_is_retried(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = subject.primary(lab, &archive, 1)?;
    let mark = primary.mark()?;
    primary.write_segments(1..=1)?;
    drain(&primary, mark, "the first segment was not archived")?;
    let mut tried = Vec::new();
    for (entry, outage) in (1_u32..).zip(&OUTAGES) {
        let watch = Watch::begin(&primary)?;
        (outage.begin)(&archive, lab)?;
        let during = primary.write_segments(entry * 10..=entry * 10 + 1)?;
        watch.wait()?;
        let ready = primary.ready()?;
        let lost: Vec<_> = during.iter().filter(|name| !ready.contains(name)).collect();
        hold(lost.is_empty(), || {
            format!("while {}, {lost:?} were called archived", outage.words)
        })?;
        (outage.end)(&archive, lab)?;
        let after = all_archived_again(&primary, entry * 10 + 2, outage)?;
        for segment in during.iter().chain(&after) {
            hold(archive.has(segment)?, || {
                format!("{segment} was called archived and is not in the archive")
            })?;
        }
        let counted = watch.failures()?;
        tried.push(format!("{} (failures counted: {counted})", outage.words));
    }
    Ok(Evidence::Seen(format!(
        "{}: each time the segments waited, and were archived once the archive was back",
        tried.join("; ")
    )))
}

/// The archive is back: everything has to be archived. The third of three attempts may still have met the
/// outage, so the archiver may give up once.
fn all_archived_again(primary: &Cluster, entry: u32, outage: &Outage) -> Result<Vec<String>> {
    let mark = primary.mark()?;
    let mut written = primary.write_segments(entry..=entry)?;
    let otherwise = format!(
        "{}, and came back; not everything was archived",
        outage.words
    );
    if drain(primary, mark, &otherwise).is_err() {
        let mark = primary.mark()?;
        written.extend(primary.write_segments(entry + 1..=entry + 1)?);
        drain(primary, mark, &otherwise)?;
    }
    Ok(written)
}

fn failure_is_contained(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = subject.primary(lab, &archive, 1)?;
    let first = primary.write_segments(1..=1)?.concat();
    drain(
        &primary,
        Mark::default(),
        "the first segment was not archived",
    )?;
    let mark = primary.mark()?;
    let by = archiver(&primary)?;
    let checkpointer = primary.wait_for_process("checkpointer")?;

    archive.set_mode(0o000)?;
    let watch = Watch::begin(&primary)?;
    let segment = primary.write_segments(2..=2)?.concat();
    watch.wait()?;
    hold(by.is_alive(), || {
        format!(
            "the archive could not be reached, and the archiver ended; {}",
            watch.complaint()
        )
    })?;
    // While it looks away, so that the next attempt meets it.
    pause(&primary, &by)?;
    archive.set_mode(0o700)?;
    plant(lab, &place_of(&archive, &first, &segment)?)?;
    let again = Watch::begin(&primary)?;
    by.signal(Signal::CONT)?;
    primary.write_segments(3..=3)?;
    again.wait()?;
    let bad = ["FATAL", "PANIC", "terminated by signal"];
    for word in bad {
        let said = primary.logged(mark, &[word])?;
        hold(said.is_empty(), || {
            let text = said.first().map_or("", |entry| entry.text.as_str());
            format!(
                "after a failure the server logged: {}",
                text.replace('\n', " ")
            )
        })?;
    }
    hold(by.is_alive(), || {
        "after a failure the archiver was another process".to_owned()
    })?;
    hold(checkpointer.is_alive(), || {
        "the server restarted its processes".to_owned()
    })?;
    let failures = watch.failures()?;
    Ok(Evidence::Seen(format!(
        "an archive that cannot be reached, then another's file under the name (failures counted: {failures}); \
         archiver and checkpointer are the same processes as before, no FATAL, no PANIC"
    )))
}
