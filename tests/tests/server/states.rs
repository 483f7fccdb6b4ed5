//! The book's table of states (`docs/src/states.md`), cell by cell, on servers that are brought into each of them.
//!
//! The table is the test's data: a row without a state here fails, and so does a state without a row. Of the views each code
//! span is a condition; of the commands it is what has to be printed on one line, in which `…` stands for anything; behind "no"
//! it is what must not be. What has to become so is waited for.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use lab::stores::Make;
use lab::{
    ArchiveDir, Cluster, Conditions, DEADLINE, FailingStorage, Lab, Settings, Shutdown, SmallDisk,
    run, scenario, wait_for,
};
use rustix::process::Signal;

use crate::c_module::CModule;
use crate::common::{SMALL_MB, primary_with, write};
use crate::in_store::InStore;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/states.md");

/// `walden.archive_timeout` where something hangs, of which it decides when that is said. Elsewhere a slow disk must not fail.
const ARCHIVE_TIMEOUT: &str = "3s";

/// How late each file is that the archiver of a busy server begins in the archive, so that a backlog lasts while it is looked at.
const SLOW: Duration = Duration::from_secs(5);

/// How many segments that backlog has.
const BACKLOG: u32 = 40;

const _: () = assert!(
    BACKLOG as u64 * SLOW.as_secs() > DEADLINE.as_secs(),
    "it is gone before it is looked at"
);

/// How old the archive of an idle server is.
const LONG: Duration = Duration::from_secs(30 * 86_400);

/// A row of the table.
struct Row {
    title: String,
    views: Vec<Span>,
    commands: [(&'static str, Vec<Span>); 3],
    /// The exit status of `walden check`.
    check_status: i32,
}

/// What must be there, or must not.
struct Span {
    text: String,
    must_be: bool,
}

impl Row {
    fn all() -> Result<Vec<Row>> {
        let page = fs::read_to_string(PAGE).context(PAGE)?;
        let rows = page.lines().filter(|line| line.starts_with("| "));
        // The first one has the headings.
        rows.skip(1).map(Row::of).collect()
    }

    fn of(line: &str) -> Result<Row> {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [title, views, status, metrics, check] = cells.as_slice() else {
            bail!("{} cells in: {line}", cells.len());
        };
        let code = check.strip_prefix("status ").and_then(|rest| rest.get(..1));
        let commands = [
            ("status", spans(status)),
            ("metrics", spans(metrics)),
            ("check", spans(check)),
        ];
        for (command, spans) in &commands {
            ensure!(!spans.is_empty(), "nothing of {command} in: {line}");
        }
        Ok(Row {
            title: (*title).to_owned(),
            views: spans(views),
            commands,
            check_status: code.context("no exit status")?.parse()?,
        })
    }

    /// What is not so of the views.
    fn wrong_in_views(&self, server: &Cluster) -> Result<String> {
        let mut wrong = String::new();
        for Span { text, .. } in &self.views {
            let query = format!("select ({text}) is true from walden.archiver");
            // A killed archiver takes the sessions with it.
            if server.psql("postgres", &query)?.stdout.trim() != "t" {
                writeln!(wrong, "not so: {text}")?;
            }
        }
        if !wrong.is_empty() {
            let row = server.psql("postgres", "select to_json(a) from walden.archiver a")?;
            writeln!(wrong, "{}{}", row.stdout, row.stderr)?;
        }
        Ok(wrong)
    }

    /// What is wrong with the answers of the commands, which are asked at the same time: a hanging store keeps each for long.
    fn wrong_in_commands(&self, lab: &Lab, data: &Path) -> Result<String> {
        let ask = |command: &str| run(lab.command("walden").arg("-D").arg(data).arg(command));
        thread::scope(|scope| {
            let asked = self
                .commands
                .each_ref()
                .map(|(command, spans)| (*command, spans, scope.spawn(move || ask(command))));
            let mut wrong = String::new();
            for (command, spans, answer) in asked {
                let Ok(answer) = answer.join() else {
                    bail!("walden {command} could not be run");
                };
                let answer = answer?;
                let mut missing: Vec<String> = spans
                    .iter()
                    .filter(|span| is_said(&answer.stdout, &span.text) != span.must_be)
                    .map(|span| span.text.clone())
                    .collect();
                if command == "check" && answer.status.code() != Some(self.check_status) {
                    missing.push(format!(
                        "status {}, it was {}",
                        self.check_status, answer.status
                    ));
                }
                if !missing.is_empty() {
                    let said = [answer.stdout, answer.stderr].concat();
                    writeln!(wrong, "walden {command}: {missing:?} in:\n{said}")?;
                }
            }
            Ok(wrong)
        })
    }

    /// Waits until a server is as the table has it.
    fn must_hold(&self, lab: &Lab, server: &Cluster) -> Result<()> {
        let data = server.data();
        let (mut wrong, mut said) = (String::new(), String::new());
        let held = wait_for(&self.title, DEADLINE, || {
            if !self.views.is_empty() {
                wrong = self.wrong_in_views(server)?;
            }
            if wrong.is_empty() {
                wrong = self.wrong_in_commands(lab, &data)?;
                said.clone_from(&wrong);
            }
            Ok(wrong.is_empty().then_some(()))
        });
        // The views may have become wrong again while the commands were.
        held.with_context(|| format!("{wrong}\n{said}"))
    }
}

/// The code spans of a cell; those behind "no" must not be.
fn spans(cell: &str) -> Vec<Span> {
    let parts: Vec<&str> = cell.split('`').collect();
    let pairs = parts.chunks_exact(2);
    pairs
        .filter_map(|pair| match pair {
            [before, text] => Some(Span {
                text: (*text).to_owned(),
                must_be: !before.ends_with("no "),
            }),
            _ => None,
        })
        .collect()
}

/// Whether a line says it: its parts between the `…`, in this order. With " > " a sample has to be above that.
fn is_said(answer: &str, span: &str) -> bool {
    answer.lines().any(|line| {
        if line.starts_with('#') {
            return false;
        }
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((name, bound)) = span.split_once(" > ") {
            let value = line
                .strip_prefix(name)
                .and_then(|rest| rest.trim().parse().ok());
            return value
                .zip(bound.parse::<f64>().ok())
                .is_some_and(|(value, bound): (f64, f64)| value > bound);
        }
        // A sample's line ends with its value.
        if span.starts_with("walden_") && span.contains(' ') {
            return line == span;
        }
        let mut rest = line.as_str();
        span.split('…')
            .all(|part| match rest.split_once(part.trim()) {
                Some((_, behind)) => {
                    rest = behind;
                    true
                }
                None => false,
            })
    })
}

/// A server that archives with these settings, with a base backup, everything archived, and the views.
fn server<'lab>(lab: &'lab Lab, settings: Settings) -> Result<Cluster<'lab>> {
    let server = primary_with(lab, SMALL_MB, settings)?;
    server.create_walden_views(lab)?;
    server.base_backup("backup")?;
    write(&server, 1)?;
    server.archive_everything()?;
    Ok(server)
}

/// The same with an archive in a directory.
fn server_at<'lab>(lab: &'lab Lab, archive: &ArchiveDir) -> Result<Cluster<'lab>> {
    server(lab, lab.walden_settings(archive)?)
}

/// Has a server archive another segment, if it can.
fn finish_a_segment(server: &Cluster) -> Result<()> {
    write(server, 2)?;
    server.switch_segment()?;
    Ok(())
}

/// The archive's directory, out of reach.
fn take_away(archive: &ArchiveDir) -> Result<()> {
    Ok(fs::rename(
        archive.path(),
        archive.path().with_extension("away"),
    )?)
}

fn idle(row: &Row) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = server_at(lab, &archive)?;
        server.stop(Shutdown::Fast)?;
        for name in archive.keys()? {
            let file = fs::File::options()
                .write(true)
                .open(archive.path().join(name))?;
            file.set_modified(SystemTime::now() - LONG)?;
        }
        server.start()?;
        row.must_hold(lab, &server)
    })
}

fn busy(row: &Row) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let settings = lab
            .walden_settings(&archive)?
            .with("walden.archive_jobs", "1");
        let server = server(lab, settings)?;
        // Files without a name are what it writes.
        let is_begun = |name: &str| name.starts_with('#');
        let slow = Conditions::default().delay(SLOW);
        let storage = FailingStorage::over_files(archive.path(), is_begun, slow)?;
        server.write_segments(2..=BACKLOG)?;
        row.must_hold(lab, &server)?;
        storage.set(Conditions::default());
        Ok(())
    })
}

fn away_before_the_start(row: &Row) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = server_at(lab, &archive)?;
        server.stop(Shutdown::Fast)?;
        take_away(&archive)?;
        server.start()?;
        finish_a_segment(&server)?;
        row.must_hold(lab, &server)
    })
}

fn away_later(row: &Row) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = server_at(lab, &archive)?;
        take_away(&archive)?;
        finish_a_segment(&server)?;
        row.must_hold(lab, &server)
    })
}

fn store_hangs(row: &Row) -> Result<()> {
    scenario(|lab| {
        let archive = InStore::new(lab, Make::GcsFake)?;
        let settings = archive.archiving()?;
        let server = server(
            lab,
            settings.with("walden.archive_timeout", ARCHIVE_TIMEOUT),
        )?;
        archive.store.pause()?;
        finish_a_segment(&server)?;
        let held = row.must_hold(lab, &server);
        archive.store.resume()?;
        held
    })
}

fn wrong_credentials(row: &Row) -> Result<()> {
    scenario(|lab| {
        let archive = InStore::new(lab, Make::SeaweedFs)?;
        let server = server(lab, archive.archiving()?)?;
        let file: PathBuf = archive.store.credentials_file()?;
        let right = fs::read_to_string(&file)?;
        let wrong: String = right.lines().map(|line| format!("{line}x\n")).collect();
        fs::write(&file, wrong)?;
        finish_a_segment(&server)?;
        row.must_hold(lab, &server)
    })
}

fn full_disk(row: &Row) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let disk = SmallDisk::over(lab, archive.path(), 8)?;
        let server = server_at(lab, &archive)?;
        disk.fill()?;
        finish_a_segment(&server)?;
        row.must_hold(lab, &server)
    })
}

fn refused(row: &Row) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = server_at(lab, &archive)?;
        let segments = archive.segments()?;
        let last = segments.last().context("a segment")?;
        write(&server, 2)?;
        // Under the name that this server finishes next.
        let next = server.sql("select pg_walfile_name(pg_current_wal_lsn())")?;
        ensure!(!segments.contains(&next), "{next} is archived");
        let taken = archive.path().join(next);
        fs::copy(archive.stored(last)?, &taken)?;
        lab.own(&taken)?;
        server.switch_segment()?;
        row.must_hold(lab, &server)
    })
}

/// A server with three modules, the first of which misbehaves; then what has to hold.
fn first_of_three(row: &Row, mode: &str) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("walden")?;
        let first = CModule::build(lab, "first")?;
        let last = CModule::build(lab, "last")?;
        let settings = lab.walden_settings(&archive)?;
        let settings = settings
            .with("walden.archive_libraries", "walden, first, last")
            .with("walden.archive_timeout", ARCHIVE_TIMEOUT);
        let server = server(lab, last.found_with(first.found_with(settings)))?;
        first.misbehave(mode)?;
        finish_a_segment(&server)?;
        let held = row.must_hold(lab, &server);
        first.behave()?;
        held
    })
}

fn stopped_archiver(row: &Row) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = server_at(lab, &archive)?;
        let archiver = server.wait_for_process("archiver")?;
        archiver.pause()?;
        let held = row.must_hold(lab, &server);
        archiver.signal(Signal::KILL)?;
        held
    })
}

fn killed_archiver(row: &Row) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = server_at(lab, &archive)?;
        server.wait_for_process("archiver")?.signal(Signal::KILL)?;
        row.must_hold(lab, &server)
    })
}

fn server_down(row: &Row) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = server_at(lab, &archive)?;
        take_away(&archive)?;
        finish_a_segment(&server)?;
        server.stop(Shutdown::Immediate)?;
        fs::rename(archive.path().with_extension("away"), archive.path())?;
        row.must_hold(lab, &server)
    })
}

/// Brings a server into a state, and has it looked at.
type State = fn(&Row) -> Result<()>;

/// The states by their rows, in lanes that are gone through at the same time: they wait far more than they compute.
const LANES: [&[(&str, State)]; 4] = [
    &[
        (
            "the store hangs: it takes connections and answers nothing",
            store_hangs,
        ),
        ("the server is down", server_down),
        ("one of three modules fails", |row| {
            first_of_three(row, "false")
        }),
    ],
    &[
        ("healthy, and idle since its start", idle),
        (
            "the store is away since before the server's start",
            away_before_the_start,
        ),
        ("the archiver is stopped, or dead", stopped_archiver),
    ],
    &[
        ("healthy and busy", busy),
        ("the store went away later", away_later),
        ("a file is refused", refused),
        (
            "the archiver was killed, and the server has started another one",
            killed_archiver,
        ),
    ],
    &[
        ("one of three modules hangs", |row| {
            first_of_three(row, "hang")
        }),
        ("the credentials are wrong", wrong_credentials),
        ("the archive's disk is full", full_disk),
    ],
];

#[test]
fn each_state_looks_as_the_table_of_the_book_says() -> Result<()> {
    let rows = Row::all()?;
    let titles: BTreeSet<&str> = rows.iter().map(|row| row.title.as_str()).collect();
    let states: BTreeSet<&str> = LANES
        .iter()
        .flat_map(|lane| lane.iter().map(|(title, _)| *title))
        .collect();
    assert_eq!(titles, states, "left: the book, right: the test");
    let rows = &rows;
    let failed: Vec<String> = thread::scope(|scope| {
        let lanes = LANES.map(|lane| {
            scope.spawn(move || {
                let mut failed = Vec::new();
                for (title, state) in lane {
                    let row = rows.iter().find(|row| row.title == *title);
                    if let Err(error) = row.context("a row").and_then(state) {
                        failed.push(format!("{title}: {error:#}"));
                    }
                }
                failed
            })
        });
        let ended = lanes.map(|lane| {
            lane.join()
                .unwrap_or_else(|_| vec!["a lane panicked, as is told above".to_owned()])
        });
        ended.into_iter().flatten().collect()
    });
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

#[test]
fn a_word_of_the_table_is_found_only_where_it_is_said() {
    let answer = "# HELP walden_x y\nwalden_x 0\nwalden_y{a=\"b\"} 2.5\npassed   3 files, 1 B, to be archived\n";
    for said in [
        "walden_x 0",
        "walden_y{a=\"b\"} > 2",
        "passed 3 files, … to be archived",
        "walden_x",
    ] {
        assert!(is_said(answer, said), "{said}");
    }
    for unsaid in [
        "walden_x 1",
        "walden_x > 0",
        "walden_y{a=\"b\"} 2",
        "to be archived … passed",
        "HELP",
    ] {
        assert!(!is_said(answer, unsaid), "{unsaid}");
    }
}
