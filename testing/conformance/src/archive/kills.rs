//! Promises about sudden ends: SIGKILL at any moment loses nothing and leaves nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{
    ArchiveDir, Cluster, DEADLINE, Lab, Mark, Process, Shutdown, wait_for, wait_until, wal_file,
};
use rustix::process::Signal;

use super::bench::{
    Watch, archiver, compare_with_recovered, copied, drain, name_of, pause, stall_at,
    stall_at_next, tree,
};
use crate::promise::{Evidence, Kind, Promise, hold};
use crate::subject::Subject;

/// How often something is killed.
const KILLS: u32 = 12;

/// How long after the archiver got work it may be killed: a few files of a quick module.
const MOMENT_MAX: Duration = Duration::from_millis(20);

/// At how many steps with a file it may be killed: it is opened, then read at once, or 64 kB at a time.
const STEPS: [u32; 2] = [3, 18];

/// The size of the segments here.
const SEGMENT_BYTES: u64 = 1024 * 1024;

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "whole-after-kills",
        kind: Kind::Archive,
        says: "killed at random moments, archiver or server, everything is archived whole in the end",
        source: "manual, \"Setting Up WAL Archiving\" (15 to 18); pgarch_archiveDone, pgarch.c (15 to 18)",
        check: whole_after_kills,
    },
    Promise {
        name: "nothing-left-behind",
        kind: Kind::Archive,
        says: "a killed attempt leaves nothing in the archive that the next ones do not clear away",
        source: "manual, \"basic_archive\", Notes (15 to 18): what an example may leave to its administrator",
        check: nothing_left_behind,
    },
];

fn whole_after_kills(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let seed = subject.plan.seed;
    let mut random = fastrand::Rng::with_seed(seed);
    let archive = lab.archive("archive")?;
    // Everything stays in pg_wal, to be compared with what is in the archive.
    let settings = subject
        .archiving(lab, &archive)
        .with("wal_keep_size", "1GB");
    let origin = copied(lab, "primary", 1, settings)?;
    let server = &origin.primary;
    let mut in_mid_file = 0;
    for kill in 1..=KILLS {
        let by = archiver(server)?;
        pause(server, &by)?;
        server.sql(&format!(
            "insert into ledger select g from generate_series({kill}000001, {kill}030000) g;
             select pg_switch_wal()"
        ))?;
        in_mid_file += u32::from(match random.u32(0..4) {
            0 | 1 => {
                let steps = random.choice(STEPS).unwrap_or(1);
                let at_work = kill_at_a_step(server, &by, random.u32(0..steps))?;
                // A fresh postmaster starts an archiver at once; this one would wait ten seconds.
                server.stop(Shutdown::Immediate)?;
                at_work
            }
            2 => {
                let at_work = wait_for_a_moment(server, &by, random.f64())?;
                by.signal(Signal::KILL)?;
                server.stop(Shutdown::Immediate)?;
                at_work
            }
            _ => {
                let at_work = wait_for_a_moment(server, &by, random.f64())?;
                server.kill()?;
                at_work
            }
        });
        forget_last_note(server)?;
        server.start()?;
    }
    // Everything that is said from now on is about what the kills left.
    let mark = server.mark()?;
    server.write_segments(1..=1)?;
    let otherwise = format!("after {KILLS} kills (seed {seed}) the archiver does not get on");
    drain(server, mark, &otherwise)?;
    let compared = compare_with_originals(server, &archive)?;
    let entries = compare_with_recovered(subject, lab, &origin, &archive)?;
    Ok(Evidence::Seen(format!(
        "{KILLS} kills (seed {seed}; {in_mid_file} while a file was being archived): {compared}; a server \
         with all {entries} entries was recovered"
    )))
}

/// Lets the archiver go on for a part of [`MOMENT_MAX`]. Answers whether it is at work then.
fn wait_for_a_moment(server: &Cluster, by: &Process, part: f64) -> Result<bool> {
    let (begun, moment) = (Instant::now(), MOMENT_MAX.mul_f64(part));
    by.signal(Signal::CONT)?;
    wait_for("a random moment", DEADLINE, || {
        Ok((begun.elapsed() >= moment).then_some(()))
    })?;
    Ok(!server.processes("archiver archiving")?.is_empty())
}

/// Lets the archiver go on, and kills it at one of its steps with the file that waits first: when it opens
/// it, or at a later read. Answers whether it came that far.
fn kill_at_a_step(server: &Cluster, by: &Process, step: u32) -> Result<bool> {
    let watch = Watch::begin(server)?;
    let first = server.ready()?.first().cloned();
    let first = first.context("nothing waits to be archived")?;
    let Ok(stall) = stall_at(server, &first, true) else {
        // Who may not hold it has to do with a moment.
        let part = f64::from(step) / f64::from(STEPS[1]);
        let at_work = wait_for_a_moment(server, by, part)?;
        by.signal(Signal::KILL)?;
        return Ok(at_work);
    };
    by.signal(Signal::CONT)?;
    let over = || Ok(watch.answered()? || !server.ready()?.contains(&first));
    for _ in 0..step {
        match stall.next(by.pid, over)? {
            Some(held) => held.release()?,
            None => break,
        }
    }
    let held = stall.next(by.pid, over)?;
    by.signal(Signal::KILL)?;
    Ok(held.is_some())
}

/// What a server that is killed after the module's answer, and before it has noted it, leaves on its disk:
/// the file is offered again.
fn forget_last_note(server: &Cluster) -> Result<()> {
    let status = server.data().join("pg_wal/archive_status");
    let mut done = Vec::new();
    for entry in fs::read_dir(&status)? {
        let name = name_of(&entry?.path());
        done.extend(name.strip_suffix(".done").map(str::to_owned));
    }
    done.sort();
    let Some(last) = done.last() else {
        return Ok(());
    };
    fs::rename(
        status.join(format!("{last}.done")),
        status.join(format!("{last}.ready")),
    )?;
    Ok(())
}

/// Every segment that the server still has must be in the archive; where it is stored as it is, with the
/// same bytes.
fn compare_with_originals(server: &Cluster, archive: &ArchiveDir) -> Result<String> {
    let (mut there, mut equal) = (0, 0);
    let status = server.data().join("pg_wal/archive_status");
    for entry in fs::read_dir(server.data().join("pg_wal"))? {
        let path = entry?.path();
        let name = name_of(&path);
        if !status.join(format!("{name}.done")).exists() {
            continue;
        }
        hold(archive.has(&name)?, || {
            format!("{name} was called archived and is not in the archive")
        })?;
        there += 1;
        let stored = archive.stored(&name)?;
        if name_of(&stored) == name {
            hold(fs::read(&stored)? == fs::read(&path)?, || {
                format!("the archived {name} differs from the server's")
            })?;
            equal += 1;
        }
    }
    Ok(format!(
        "all {there} files are in the archive, {equal} of them as they are, with equal bytes"
    ))
}

fn nothing_left_behind(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = subject.primary(lab, &archive, 1)?;
    primary.write_segments(1..=1)?;
    drain(
        &primary,
        Mark::default(),
        "the first segment was not archived",
    )?;
    let ours = strangers(&archive)?;
    let mut killed = Vec::new();
    for (entry, (words, reads, size)) in (2_u32..).zip([
        ("when it opened the segment", false, 0),
        ("when it began to read it", true, 0),
        ("when it had read all of it", true, SEGMENT_BYTES),
    ]) {
        let by = archiver(&primary)?;
        let watch = Watch::begin(&primary)?;
        let (segment, stall) = stall_at_next(&primary, &by, entry, true)?;
        while let Some(held) = stall.next(by.pid, || watch.answered())? {
            if held.reads() == reads && (size == 0 || held.has_read(size)) {
                by.signal(Signal::KILL)?;
                held.release()?;
                wait_until("the archiver to be gone", || Ok(!by.is_alive()))?;
                killed.push(words);
                break;
            }
            held.release()?;
        }
        drop(stall);
        // A fresh postmaster starts an archiver at once.
        primary.stop(Shutdown::Immediate)?;
        primary.start()?;
        let mark = primary.mark()?;
        primary.write_segments(entry * 10..=entry * 10)?;
        drain(
            &primary,
            mark,
            &format!("killed with {segment}, it did not get on"),
        )?;
    }
    anyhow::ensure!(
        !killed.is_empty(),
        "the archiver was not seen to open a segment: a module that leaves its files to another process \
         cannot be killed at it"
    );
    let left: Vec<_> = strangers(&archive)?.difference(&ours).cloned().collect();
    hold(left.is_empty(), || {
        let times = killed.len();
        format!(
            "the archiver was killed {times} times ({}); after the server's next start, with everything \
             archived, the archive still held {left:?}",
            killed.join(", ")
        )
    })?;
    Ok(Evidence::Seen(format!(
        "the archiver was killed {}; after each next start and some archiving, the archive held WAL files and \
         nothing else that was not there before",
        killed.join(", ")
    )))
}

/// What is in the archive and is no WAL file.
fn strangers(archive: &ArchiveDir) -> Result<BTreeSet<String>> {
    let known = archive.files()?;
    let is_known = |name: &String| known.iter().any(|wal| wal_file(name) == wal);
    Ok(tree(archive)?
        .into_keys()
        .filter(|name| !is_known(name))
        .collect())
}
