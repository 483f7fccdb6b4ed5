//! `make demo`: a server is loaded, loses a table to a mistake, is destroyed, and comes back through
//! Walden's recovery module as it was at a named restore point.
//!
//! It guarantees that it fails (status 1) when the recovered tables are not those that were recorded,
//! and that nothing outside its own temporary directory is touched. On a terminal the step under way
//! is shown; elsewhere each step is one line when it is done.

#![allow(
    clippy::print_stdout,
    reason = "telling the story is what this program is for"
)]

use std::fs;
use std::io::{IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{ArchiveDir, Contents, Lab, Mark, Shutdown};

/// pgbench's scale: 100 000 accounts and some 15 MB each.
const SCALE: u32 = 5;
/// The server's default segment size.
const SEGMENT_MB: u32 = 16;
/// The name of the place to come back to.
const RESTORE_POINT: &str = "before_the_mistake";

fn main() -> ExitCode {
    match tell() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("\nThe recovered tables are NOT those that were recorded.");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("\nThe demonstration failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The whole story; answers whether the recovered tables are those that were recorded.
fn tell() -> Result<bool> {
    let mut story = Story::begin();
    let lab = Lab::new()?;
    let archive = lab.archive("archive")?;
    println!(
        "A server archives through walden.so, is lost, and comes back. PostgreSQL and the archive"
    );
    println!("live below {} and vanish with it.\n", lab.dir().display());
    let lost = live_and_be_lost(&mut story, &lab, &archive)?;
    let (after, restored) = come_back(&mut story, &lab, &archive, &lost.backup)?;

    let same = compare(&lost.before, &after);
    println!();
    row("files archived", &archive.files()?.len().to_string());
    row("files restored", &restored.to_string());
    row("WAL into the archive", &megabytes(lost.archived_bytes));
    let stored = stored_bytes(archive.path())?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "a ratio for people, to one decimal"
    )]
    let ratio = lost.archived_bytes as f64 / stored.max(1) as f64;
    row(
        "bytes in the archive",
        &format!("{} ({ratio:.1} times smaller)", megabytes(stored)),
    );
    row("all of it took", &seconds(story.begun.elapsed()));
    if same {
        println!("\nEvery table is back, byte for byte, as it was at \"{RESTORE_POINT}\".");
    }
    Ok(same)
}

/// What is left of a server that was destroyed.
struct Lost {
    /// Its base backup.
    backup: PathBuf,
    /// What its tables held at the restore point.
    before: Contents,
    /// What the files it archived measured before they were archived.
    archived_bytes: u64,
}

/// A server's life, from the load to its end.
fn live_and_be_lost(story: &mut Story, lab: &Lab, archive: &ArchiveDir) -> Result<Lost> {
    let primary = lab.cluster("primary", SEGMENT_MB, lab.walden_settings(archive)?)?;
    story.step("start a server with archive_library = 'walden'", || {
        primary.start()
    })?;
    story.step(&format!("load pgbench tables at scale {SCALE}"), || {
        primary.pgbench(&["-i", "-q", "-s", &SCALE.to_string()])
    })?;
    let backup = story.step("take a base backup, without any WAL", || {
        primary.base_backup("backup")
    })?;
    story.step("go on working: 4000 transactions", || {
        primary.pgbench(&["-n", "-c", "4", "-t", "1000"])
    })?;
    let before = story.step("record every table, and name a restore point", || {
        let before = primary.contents()?;
        primary.sql(&format!(
            "select pg_create_restore_point('{RESTORE_POINT}')"
        ))?;
        Ok(before)
    })?;
    story.step("make a mistake: DROP TABLE pgbench_accounts", || {
        primary.sql("drop table pgbench_accounts; delete from pgbench_tellers;")
    })?;
    let archived_bytes = story.step("wait until all WAL is archived", || {
        primary.archive_everything()?;
        archived_bytes(archive)
    })?;
    story.step(
        "destroy the server: no shutdown, rm -rf of its data",
        || {
            primary.stop(Shutdown::Immediate)?;
            Ok(fs::remove_dir_all(primary.data())?)
        },
    )?;
    Ok(Lost {
        backup,
        before,
        archived_bytes,
    })
}

/// Recovery from the base backup and the archive; answers with the tables and the number of files that
/// were restored.
fn come_back(
    story: &mut Story,
    lab: &Lab,
    archive: &ArchiveDir,
    backup: &Path,
) -> Result<(Contents, usize)> {
    let settings = lab
        .walden_settings(archive)?
        .with("walden.restore_library", "walden")
        .with("recovery_target_name", RESTORE_POINT)
        .with("recovery_target_action", "promote");
    let recovered = lab.restored("recovered", backup, settings)?;
    story.step(
        "recover to the restore point through walden.restore_library",
        || {
            recovered.touch("recovery.signal")?;
            recovered.start()?;
            recovered.wait_until_promoted()
        },
    )?;
    let after = story.step("read every table again", || recovered.contents())?;
    let restored = recovered
        .logged(Mark::default(), &["restored log file"])?
        .len();
    ensure!(restored > 0, "nothing was restored from the archive");
    recovered.stop(Shutdown::Fast)?;
    Ok((after, restored))
}

/// Prints both sides of every table; answers whether they are equal.
fn compare(before: &Contents, after: &Contents) -> bool {
    println!(
        "\n  {:<26} {:>21}   {:>21}",
        "", "at the restore point", "recovered"
    );
    println!(
        "  {:<26} {:>8} {:>12}   {:>8} {:>12}",
        "table", "rows", "checksum", "rows", "checksum"
    );
    for (name, was) in before {
        let (rows, checksum, verdict) = match after.get(name) {
            Some(is) if is == was => (is.rows.to_string(), start(&is.checksum), "same"),
            Some(is) => (is.rows.to_string(), start(&is.checksum), "DIFFERENT"),
            None => ("-".to_owned(), "-", "MISSING"),
        };
        let was_checksum = start(&was.checksum);
        println!(
            "  {name:<26} {:>8} {was_checksum}   {rows:>8} {checksum:>12}  {verdict}",
            was.rows
        );
    }
    before == after
}

fn start(checksum: &str) -> &str {
    checksum.get(..12).unwrap_or(checksum)
}

fn row(what: &str, value: &str) {
    println!("  {what:<26} {value}");
}

/// What the archived files measured before they were archived.
fn archived_bytes(archive: &ArchiveDir) -> Result<u64> {
    // Segments always have their full size; the rest is stored as it is.
    let mut bytes = u64::try_from(archive.segments()?.len())? * u64::from(SEGMENT_MB) * 1024 * 1024;
    for name in archive.files()?.iter().filter(|name| name.contains('.')) {
        bytes += fs::metadata(archive.stored(name)?)?.len();
    }
    Ok(bytes)
}

fn stored_bytes(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

fn megabytes(bytes: u64) -> String {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a size for people, to one decimal"
    )]
    let megabytes = bytes as f64 / 1024.0 / 1024.0;
    format!("{megabytes:.1} MB")
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// The steps told so far.
struct Story {
    begun: Instant,
    steps: u32,
    terminal: bool,
}

impl Story {
    fn begin() -> Story {
        Story {
            begun: Instant::now(),
            steps: 0,
            terminal: stdout().is_terminal(),
        }
    }

    /// Does one step and prints it with the time it took.
    fn step<T>(&mut self, what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        self.steps += 1;
        let number = self.steps;
        if self.terminal {
            print!("  {number:>2}  {what} ...");
            stdout().flush()?;
        }
        let begun = Instant::now();
        let outcome = act();
        // Back to the start of the line, which is then written over.
        let again = if self.terminal { "\r\x1b[K" } else { "" };
        let verdict = if outcome.is_ok() {
            seconds(begun.elapsed())
        } else {
            "FAILED".to_owned()
        };
        println!("{again}  {number:>2}  {what:<64} {verdict:>7}");
        outcome
    }
}
