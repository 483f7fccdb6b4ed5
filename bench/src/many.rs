//! Goal 6: does the cost of a file grow with the number of files?
//!
//! Backlogs of 200, 2,000 and 20,000 segments of 1 MB. The segments are made up: a header that is right for their
//! names, and nothing behind it, so that what is measured is the cost of a file and not of its bytes. Each lies below
//! the place that the server writes at, and the server does not sync its own files (`fsync = off`; Walden syncs all
//! the same). Beside Walden: an archive command that does nothing, which shows what the server's own archiver costs as
//! the directory grows (it reads the whole of it for every 64 files, NUM_FILES_PER_DIRECTORY_SCAN, 15 to 18).

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use lab::{Lab, Shutdown};

use crate::backlog::{Backlog, go_on_at, settings};
use crate::contenders::{Contender, Served, Stage, Way};
use crate::drain::drain_once;
use crate::part::{Measured, Session, progress, step};
use crate::plan::{Part, Run};
use crate::results::{Row, number};

/// How many files a backlog has.
pub(crate) const COUNTS: [usize; 3] = [200, 2000, 20_000];
/// The name of the command that does nothing.
pub(crate) const NOTHING: &str = "archive_command = 'true'";

/// Backlogs above this count are measured less often, since each takes half a minute.
const COUNT_OFTEN_MAX: usize = 2000;
const RUNS_OF_MANY_MAX: usize = 3;

/// The smallest size of segments.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Segments that share the middle part of their names.
const SEGMENTS_PER_ID: u64 = (1 << 32) / SEGMENT_BYTES;
/// The first that is made up: after those that the server may have written.
const FIRST: u64 = SEGMENTS_PER_ID;
/// Where the server goes on, far behind the last of them.
const SERVER_AT: u64 = 16 * SEGMENTS_PER_ID;
/// The long page header, and where in it the page's own address is (`XLogPageHeaderData`, 15 to 18).
const HEADER_BYTES: usize = 40;
const ADDRESS_AT: u64 = 8;

/// Measures all counts.
///
/// # Errors
///
/// When a backlog is not archived.
pub(crate) fn measure(session: &Session, plan: &Run) -> Result<Measured> {
    let mut measured = Measured::default();
    measured.note("segment size", "1 MB, all zeros behind the header");
    measured.note("most runs of 20000 files", RUNS_OF_MANY_MAX);
    // A small run is to be small.
    let counts: Vec<usize> = COUNTS
        .into_iter()
        .filter(|count| *count <= plan.segments * 100)
        .collect();
    let most = counts.last().copied().unwrap_or(plan.segments);
    step(&format!("making {most} small segments"));
    let backlog = made_up(&session.lab, most)?;
    let stage = Stage::new(session, "many", &backlog.cluster);
    let mut walden = stage.walden(stage.jobs(), "zstd:1")?;
    stage.unsynced(&mut walden);
    let nothing = stage.nothing()?;
    let mut rows: Vec<Row> = Vec::new();
    for run in 1..=plan.runs {
        for count in &counts {
            if *count > COUNT_OFTEN_MAX && run > RUNS_OF_MANY_MAX {
                continue;
            }
            backlog.only(*count);
            for contender in [&walden, &nothing] {
                let case = format!("{count} files");
                let Way::Server(served) = &contender.way else {
                    bail!("\"{}\" is not served by a server", contender.name);
                };
                let took = one(session, &backlog, served, contender)?;
                let found = rows
                    .iter()
                    .position(|row| row.case == case && row.contender == contender.name);
                let at = found.unwrap_or_else(|| {
                    rows.push(Row::new(&case, contender.name, contender.codec));
                    rows.len() - 1
                });
                let row = rows.get_mut(at).context("a row")?;
                row.add("drain_s", took);
                let each = took * 1e3 / number(u64::try_from(*count)?);
                row.add("file_ms", each);
                let said = format!("{took:7.2} s  {each:.3} ms a file");
                progress(Part::Many, run, plan.runs, row, &said);
            }
        }
    }
    measured.rows = rows;
    fs::remove_dir_all(backlog.cluster.data())?;
    Ok(measured)
}

fn one(
    session: &Session,
    backlog: &Backlog<'_>,
    served: &Served,
    contender: &Contender,
) -> Result<f64> {
    let drained = drain_once(session, backlog, served)?;
    if contender.name != NOTHING {
        served.stored(backlog.segments())?;
    }
    served.clear()?;
    Ok(drained.seconds)
}

/// A stopped cluster with so many segments that never were.
fn made_up(lab: &Lab, count: usize) -> Result<Backlog<'_>> {
    let cluster = lab.cluster("many", 1, settings(lab))?;
    cluster.start()?;
    cluster.stop(Shutdown::Fast)?;
    let data = cluster.data();
    let wal = data.join("pg_wal");
    let header = header(&wal)?;
    go_on_at(lab, &data, &name(SERVER_AT))?;
    let mut segments = Vec::with_capacity(count);
    for number in FIRST..FIRST + u64::try_from(count)? {
        let name = name(number);
        let path = wal.join(&name);
        let mut file = File::create_new(&path)?;
        file.set_len(SEGMENT_BYTES)?;
        file.write_all(&header)?;
        file.seek(SeekFrom::Start(ADDRESS_AT))?;
        file.write_all(&(number * SEGMENT_BYTES).to_ne_bytes())?;
        lab.own(&path)?;
        segments.push(name);
    }
    Backlog::of_files(lab, "made up", cluster, segments)
}

/// The name of a segment of timeline 1.
fn name(number: u64) -> String {
    format!(
        "00000001{:08X}{:08X}",
        number / SEGMENTS_PER_ID,
        number % SEGMENTS_PER_ID
    )
}

/// The header of some segment that the server wrote.
fn header(wal: &Path) -> Result<[u8; HEADER_BYTES]> {
    for entry in fs::read_dir(wal)? {
        let path = entry?.path();
        let mut header = [0; HEADER_BYTES];
        if path.is_file() && File::open(&path)?.read_exact(&mut header).is_ok() {
            return Ok(header);
        }
    }
    bail!("no segment in \"{}\"", wal.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_on_from_one_part_to_the_next() {
        assert_eq!(name(SEGMENTS_PER_ID), "000000010000000100000000");
        assert_eq!(name(2 * SEGMENTS_PER_ID - 1), "000000010000000100000FFF");
    }
}
