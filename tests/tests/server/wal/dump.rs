//! Record by record, Walden reads what `pg_waldump` reads.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;

use anyhow::{Context, Result, bail, ensure};
use lab::{Lab, scenario};
use wal::{Lsn, Meaning, Record, SegmentName, Timestamp};

use super::{segments, workload};

/// What both say of a record.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    manager: String,
    bytes: u32,
    /// Without its full-page images.
    own_bytes: u32,
    xid: u32,
    lsn: Lsn,
    previous: Lsn,
    blocks: u32,
    said: Option<String>,
}

fn ours(record: &Record<'_>) -> Result<Line> {
    let parts = record.parts(|_| ())?;
    Ok(Line {
        manager: record.header.manager.to_string(),
        bytes: record.header.bytes,
        own_bytes: record.header.bytes - parts.image_bytes,
        xid: record.header.xid,
        lsn: record.lsn,
        previous: record.header.previous,
        blocks: parts.blocks,
        said: said(record),
    })
}

/// `2026-11-22 14:25:43.910064 UTC`
fn shown(at: Timestamp) -> String {
    let time = at
        .to_system_time()
        .unwrap_or(std::time::SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_micros(time)
        .to_string()
        .replace('T', " ")
        .replace('Z', " UTC")
}

/// The same in `pg_waldump`'s words, for records whose meaning counts.
fn said(record: &Record<'_>) -> Option<String> {
    Some(match record.meaning() {
        Meaning::Commit { at, xid } => format!("commit {} {xid:?}", shown(at)),
        Meaning::Abort { at, xid } => format!("abort {} {xid:?}", shown(at)),
        Meaning::Prepare { at, xid } => format!("prepare {} {:?}", shown(at), Some(xid)),
        Meaning::RestorePoint { name, .. } => {
            format!("restore point {}", String::from_utf8_lossy(name))
        }
        Meaning::Checkpoint {
            redo,
            timelines,
            is_shutdown,
            ..
        } => {
            format!(
                "checkpoint {redo} {} {} {is_shutdown}",
                timelines.this, timelines.previous
            )
        }
        Meaning::EndOfRecovery { timelines, .. } => {
            format!("end of recovery {} {}", timelines.this, timelines.previous)
        }
        Meaning::OverwriteContrecord { overwritten } => format!("overwrite {overwritten}"),
        Meaning::Switch => "switch".to_owned(),
        Meaning::BackupEnd { start } => format!("backup end {start}"),
        Meaning::Other => return None,
    })
}

/// A line of `pg_waldump`: `rmgr: Heap len (rec/tot): 54/ 54, tx: 7, lsn: 0/1, prev 0/0, desc: …`.
fn theirs(line: &str) -> Result<Line> {
    let part = |from: &str, to: &str| -> Result<&str> {
        let (_, rest) = line
            .split_once(from)
            .with_context(|| format!("no {from:?} in {line:?}"))?;
        Ok(rest.split_once(to).map_or(rest, |(part, _)| part).trim())
    };
    let manager = part("rmgr: ", " ")?.to_owned();
    let description = part("desc: ", "\n")?;
    let xid = part("tx:", ",")?.parse()?;
    Ok(Line {
        own_bytes: part("(rec/tot):", "/")?.parse()?,
        bytes: part("(rec/tot):", ",")?
            .split('/')
            .nth(1)
            .context("no length")?
            .trim()
            .parse()?,
        xid,
        lsn: part("lsn: ", ",")?.parse()?,
        previous: part("prev ", ",")?.parse()?,
        blocks: u32::try_from(description.matches("blkref #").count())?,
        said: described(&manager, xid, description)?,
        manager,
    })
}

fn described(manager: &str, xid: u32, description: &str) -> Result<Option<String>> {
    let (kind, rest) = description.split_once(' ').unwrap_or((description, ""));
    // `COMMIT_PREPARED 734: 2026-… UTC; …`, `PREPARE gid p1: 2026-… UTC`
    let at = |rest: &str| {
        let end = rest.find(" UTC").map(|end| end + 4)?;
        rest.get(end.checked_sub(30)?..end).map(str::to_owned)
    };
    let prepared: Option<u32> = rest
        .split(':')
        .next()
        .and_then(|xid| xid.trim().parse().ok());
    let time = || at(rest).with_context(|| format!("no time in {description:?}"));
    Ok(Some(match (manager, kind) {
        ("Transaction", "COMMIT") => format!("commit {} {:?}", time()?, Some(xid)),
        ("Transaction", "ABORT") => format!("abort {} {:?}", time()?, Some(xid)),
        ("Transaction", "PREPARE") => format!("prepare {} {:?}", time()?, Some(xid)),
        ("Transaction", "COMMIT_PREPARED") => format!("commit {} {prepared:?}", time()?),
        ("Transaction", "ABORT_PREPARED") => format!("abort {} {prepared:?}", time()?),
        ("XLOG", "RESTORE_POINT") => format!("restore point {rest}"),
        ("XLOG", "SWITCH") => "switch".to_owned(),
        ("XLOG", "BACKUP_END") => format!("backup end {}", rest.parse::<Lsn>()?),
        ("XLOG", "CHECKPOINT_SHUTDOWN" | "CHECKPOINT_ONLINE") => {
            let mut fields = rest
                .split("; ")
                .map(|field| field.rsplit(' ').next().unwrap_or_default());
            let mut next = || fields.next().context("too few fields");
            let redo: Lsn = next()?.parse()?;
            format!(
                "checkpoint {redo} {} {} {}",
                next()?,
                next()?,
                kind == "CHECKPOINT_SHUTDOWN"
            )
        }
        ("XLOG", "END_OF_RECOVERY") => {
            let mut fields = rest
                .split("; ")
                .map(|field| field.rsplit(' ').next().unwrap_or_default());
            let mut next = || fields.next().context("too few fields");
            format!("end of recovery {} {}", next()?, next()?)
        }
        ("XLOG", "OVERWRITE_CONTRECORD") => {
            let lsn = rest.split([';', ' ']).nth(1).context("no place")?;
            format!("overwrite {}", lsn.parse::<Lsn>()?)
        }
        _ => return Ok(None),
    }))
}

/// Compares a timeline; returns how many records and bytes it has.
fn compare(lab: &Lab, dir: &Path, names: &[SegmentName]) -> Result<(u64, u64)> {
    let (first, last) = names.first().zip(names.last()).context("no segments")?;
    let mut command = lab.server_command("pg_waldump");
    command
        .arg("-p")
        .arg(dir)
        .args(["-t", &first.timeline().to_string()]);
    command.arg(first.to_string()).arg(last.to_string());
    command
        .env("TZ", "UTC")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("could not start pg_waldump")?;
    let stdout = BufReader::new(child.stdout.take().context("no output")?);
    // Both read at the same time: neither has to keep what it has read.
    let (sender, receiver) = mpsc::sync_channel(10_000);
    let reading = std::thread::spawn(move || {
        for line in stdout.lines() {
            let line = line?;
            if line.starts_with("rmgr: ") && sender.send(theirs(&line)?).is_err() {
                break;
            }
        }
        Ok::<(), anyhow::Error>(())
    });
    let mut records = 0_u64;
    let bytes = segments::read_all(dir, names, ours, |line| {
        let line = line?;
        let other = receiver
            .recv()
            .with_context(|| format!("pg_waldump has no record at {}", line.lsn))?;
        ensure!(
            line == other,
            "record {records}: Walden reads {line:?}, pg_waldump {other:?}"
        );
        records += 1;
        Ok(())
    })?;
    if let Ok(more) = receiver.recv() {
        bail!("Walden has read {records} records, pg_waldump one more: {more:?}");
    }
    reading
        .join()
        .map_err(|_| anyhow::anyhow!("the reading thread panicked"))??;
    let said = child.wait_with_output()?;
    ensure!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
    Ok((records, bytes))
}

#[test]
fn every_record_of_two_gigabytes_is_what_pg_waldump_says() -> Result<()> {
    scenario(|lab| {
        let dir = lab.directory("raw")?;
        let primary = lab.cluster("primary", 16, workload::settings(lab, &dir))?;
        primary.start()?;
        let backup = primary.base_backup("backup")?;
        workload::write(&primary, 25, 5_000, 500)?;
        primary.wait_until_archived()?;

        let settings = workload::settings(lab, &dir)
            .with("restore_command", &format!("cp {}/%f %p", dir.display()));
        let promoted = lab.restored("promoted", &backup, settings)?;
        promoted.touch("recovery.signal")?;
        promoted.start()?;
        promoted.wait_until_promoted()?;
        promoted.pgbench(&["-c", "4", "-t", "8000"])?;
        promoted.sql("vacuum full pgbench_accounts")?;
        promoted.archive_everything()?;

        let (mut records, mut bytes) = (0, 0);
        for timeline in [1, 2] {
            let names = segments::of_timeline(&dir, timeline)?;
            let found = compare(lab, &dir, &names)?;
            println!(
                "timeline {timeline}: {} records in {} segments agree",
                found.0,
                names.len()
            );
            records += found.0;
            bytes += found.1;
        }
        println!(
            "PostgreSQL {}: {records} records in {bytes} bytes agree",
            lab.installation().version()
        );
        ensure!(
            bytes >= 2_000_000_000,
            "only {bytes} bytes of WAL were compared"
        );
        Ok(())
    })
}
