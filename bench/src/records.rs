//! What reading every record costs.
//!
//! Measured twice. *Reading*: one thread goes through the backlog's segments, which are in the kernel's cache, in pieces of
//! 256 kB: it computes one CRC-32C over each piece (the limit: nothing that looks at all bytes is faster), or reads the
//! records as the engine does; the peer is `pg_waldump --stats`, a process of its own. *Archiving*: the backlog is drained with
//! `walden.verify` at `header` and at `records`, taking turns, as in `drain.rs`; before each pair once more, which is not
//! counted.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use crc_fast::{CrcAlgorithm, Digest};
use lab::run_for;
use wal::{SegmentReader, SegmentSummary, WalFileName};

use crate::contenders::{Contender, Stage, Way, pairs};
use crate::drain::drain_once;
use crate::part::{Measured, Session, Shared, progress};
use crate::plan::{Part, Run};
use crate::results::{Row, number};

/// How much is read at once, as by the engine.
const PIECE_BYTES: usize = 256 * 1024;
/// How long `pg_waldump` may take.
const PEER_MAX: std::time::Duration = std::time::Duration::from_secs(600);

/// The names of the cases.
pub(crate) const READING: &str = "reading";
/// Archiving a segment with and without reading its records.
pub(crate) const ARCHIVING: &str = "archiving";

/// Measures both.
///
/// # Errors
///
/// When a segment is not valid WAL, or is not archived.
pub(crate) fn measure(session: &Session, shared: &Shared<'_>, plan: &Run) -> Result<Measured> {
    let mut measured = Measured::default();
    let backlog = shared.of_pgbench()?;
    measured.note("segments", plan.segments);
    let paths = backlog.paths();
    let bytes = number(backlog.bytes());
    let mut rows =
        ["limit: CRC-32C", "Walden", "pg_waldump --stats"].map(|name| Row::new(READING, name, ""));
    for number in 1..=plan.runs {
        for row in &mut rows {
            let begun = Instant::now();
            match row.contender.as_str() {
                "Walden" => read_records(&paths)?,
                "pg_waldump --stats" => dump(session, &paths)?,
                _ => read_crc(&paths)?,
            }
            let seconds = begun.elapsed().as_secs_f64();
            row.add("read_s", seconds);
            row.add("bytes", bytes);
            let said = format!("{seconds:7.2} s  {:5.2} GB/s", bytes / 1e9 / seconds);
            progress(Part::Records, number, plan.runs, row, &said);
        }
    }
    measured.rows.extend(rows);

    let mut field = Vec::new();
    for (jobs, codec) in [(4, "none"), (4, "zstd:1"), (1, "none"), (1, "zstd:1")] {
        for verify in ["header", "records"] {
            let stage = Stage::new(session, verify, &backlog.cluster);
            let contender = verifying(stage.walden(jobs, codec)?, verify);
            let title = format!("{}, verify = {verify}", contender.name);
            field.push((contender, Row::new(ARCHIVING, &title, codec)));
        }
    }
    for number in 1..=plan.runs {
        for (index, (contender, row)) in field.iter_mut().enumerate() {
            let Way::Server(served) = &contender.way else {
                continue;
            };
            // The first one to write as much pays for memory that the next one finds.
            if index % 2 == 0 {
                drain_once(session, backlog, served)?;
                served.clear()?;
            }
            let drained = drain_once(session, backlog, served)?;
            served.stored(backlog.segments())?;
            served.clear()?;
            row.add("drain_s", drained.seconds);
            row.add("cpu_s", drained.cpu_seconds);
            let said = format!("{:7.2} s", drained.seconds);
            progress(Part::Records, number, plan.runs, row, &said);
        }
    }
    measured.rows.extend(field.into_iter().map(|(_, row)| row));
    Ok(measured)
}

/// The same contender with this check.
fn verifying(mut contender: Contender, verify: &str) -> Contender {
    if let Way::Server(served) = &mut contender.way {
        served
            .active
            .extend(pairs(&[("walden.verify", verify.to_owned())]));
    }
    contender
}

/// Shows each piece of each file.
fn each_piece(
    path: &PathBuf,
    piece: &mut [u8],
    mut show: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut file = File::open(path)?;
    loop {
        let bytes = file.read(piece)?;
        if bytes == 0 {
            return Ok(());
        }
        show(piece.get(..bytes).unwrap_or_default())?;
    }
}

fn read_crc(paths: &[PathBuf]) -> Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut all = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for path in paths {
        each_piece(path, &mut piece, |bytes| {
            all.update(bytes);
            Ok(())
        })?;
    }
    // So that it is computed.
    ensure!(all.finalize() != 1, "a checksum of 1");
    Ok(())
}

fn read_records(paths: &[PathBuf]) -> Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut before: Option<SegmentSummary> = None;
    for path in paths {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .context("no name")?;
        let name: WalFileName = name.parse()?;
        let mut reader = SegmentReader::new(*name.segment().context("no segment")?);
        each_piece(path, &mut piece, |bytes| Ok(reader.feed(bytes, |_| ())?))?;
        let mut summary = reader.finish()?;
        if let Some(before) = &before {
            before.join(&mut summary, |_| ())?;
        }
        before = Some(summary);
    }
    Ok(())
}

fn dump(session: &Session, paths: &[PathBuf]) -> Result<()> {
    let (first, last) = paths.first().zip(paths.last()).context("no segments")?;
    let mut command = session.lab.server_command("pg_waldump");
    command.args(["--stats=record", "--quiet"]).arg(first);
    command.arg(last.file_name().context("no name")?);
    let said = run_for(&mut command, PEER_MAX)?;
    // The last segment may end in the middle of a record, which it then says.
    ensure!(
        said.stdout.contains("Total") || said.status.success(),
        "pg_waldump failed: {}",
        said.stderr
    );
    Ok(())
}
