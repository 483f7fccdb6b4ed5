//! Runs the parts, one after the other, and keeps what they share: the lab, the peers, the backlogs.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result};
use lab::{Lab, Shutdown};

use crate::backlog::Backlog;
use crate::fetchers::{self, Fetcher};
use crate::machine::{self, Machine};
use crate::peers::Peers;
use crate::plan::{Part, Run};
use crate::results::{Results, Row};
use crate::{
    acknowledge, drain, many, memory, profile, records, recovery, s3_drain, s3_recovery, stages,
    steady, tables, usage, wait_cost,
};

/// What the parts share.
pub(crate) struct Session {
    /// Where everything lies.
    pub(crate) lab: Lab,
    /// Who of the peers is here.
    pub(crate) peers: Peers,
    /// Walden's parameters that this build has.
    pub(crate) parameters: BTreeSet<String>,
    machine: Machine,
}

/// Backlogs that several parts use, made when the first one asks.
pub(crate) struct Shared<'lab> {
    session: &'lab Session,
    segments: usize,
    of_pgbench: OnceCell<Backlog<'lab>>,
    fetchers: OnceCell<Vec<Fetcher>>,
}

impl<'lab> Shared<'lab> {
    /// The backlog of pgbench's WAL.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub(crate) fn of_pgbench(&self) -> Result<&Backlog<'lab>> {
        if let Some(backlog) = self.of_pgbench.get() {
            return Ok(backlog);
        }
        step(&format!(
            "making {} segments of pgbench's WAL",
            self.segments
        ));
        let backlog = Backlog::of_pgbench(&self.session.lab, self.segments)?;
        Ok(self.of_pgbench.get_or_init(|| backlog))
    }

    /// All who take part in recovery, with an archive of [`Shared::of_pgbench`].
    ///
    /// # Errors
    ///
    /// When an archive cannot be made.
    pub(crate) fn fetchers(&self) -> Result<&Vec<Fetcher>> {
        if let Some(fetchers) = self.fetchers.get() {
            return Ok(fetchers);
        }
        let fetchers = fetchers::all(self.session, self.of_pgbench()?)?;
        Ok(self.fetchers.get_or_init(|| fetchers))
    }
}

/// Runs what the plan asks for; writes raw results and prints tables after each part.
///
/// # Errors
///
/// When a part cannot be measured; the results of those before are written by then.
pub(crate) fn run_all(plan: &Run) -> Result<()> {
    usage::adopt()?;
    let begun = Instant::now();
    let session = begin(plan)?;
    println!("{}\n", session.machine.sentence());
    let shared = Shared {
        session: &session,
        segments: plan.segments,
        of_pgbench: OnceCell::new(),
        fetchers: OnceCell::new(),
    };
    for part in Part::ALL {
        if !plan.only.is_empty() && !plan.only.contains(&part) {
            continue;
        }
        let at = machine::now()?;
        let part_begun = Instant::now();
        let measured = measure(part, &session, &shared, plan)
            .with_context(|| format!("could not measure \"{}\"", part.name()))?;
        let mut setup = measured.setup;
        setup.insert("runs".to_owned(), plan.runs.to_string());
        setup.insert(
            "took".to_owned(),
            format!("{:.0} s", part_begun.elapsed().as_secs_f64()),
        );
        let results = Results {
            part: part.name().to_owned(),
            begun: at,
            machine: session.machine.clone(),
            setup,
            rows: measured.rows,
        };
        let path = results.write(plan.results())?;
        println!("\n{}", tables::of_part(&results));
        println!("raw results: {}\n", path.display());
    }
    step(&format!(
        "all of it took {:.0} s",
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn begin(plan: &Run) -> Result<Session> {
    step("looking at the machine");
    let lab = Lab::new()?;
    let peers = Peers::find(&lab, &plan.peers)?;
    let machine = Machine::describe(&lab, &peers)?;
    let parameters = parameters(&lab)?;
    Ok(Session {
        lab,
        peers,
        parameters,
        machine,
    })
}

/// The names of Walden's parameters that this build defines, asked of a server that has loaded it.
fn parameters(lab: &Lab) -> Result<BTreeSet<String>> {
    lab.require_library("walden")?;
    let settings = lab.settings().with("shared_preload_libraries", "walden");
    let cluster = lab.cluster("ask", 1, settings)?;
    cluster.start()?;
    let names = cluster.sql("select name from pg_settings where name like 'walden.%'")?;
    cluster.stop(Shutdown::Immediate)?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// What a part answers with.
#[derive(Default)]
pub(crate) struct Measured {
    /// Counts, sizes, settings.
    pub(crate) setup: BTreeMap<String, String>,
    /// A row for each contender in each case.
    pub(crate) rows: Vec<Row>,
}

impl Measured {
    /// Notes something that was fixed.
    pub(crate) fn note(&mut self, what: &str, value: impl ToString) {
        self.setup.insert(what.to_owned(), value.to_string());
    }
}

fn measure(part: Part, session: &Session, shared: &Shared<'_>, plan: &Run) -> Result<Measured> {
    match part {
        Part::Drain => drain::measure(session, shared, plan),
        Part::Steady => steady::measure(session, plan),
        Part::Acknowledge => acknowledge::measure(session, shared, plan),
        Part::Recovery => recovery::measure(session, shared, plan),
        Part::Wait => wait_cost::measure(session, shared, plan),
        Part::Stages => stages::measure(session, shared, plan),
        Part::Profile => profile::measure(session, shared),
        Part::Records => records::measure(session, shared, plan),
        Part::Memory => memory::measure(session, plan),
        Part::Many => many::measure(session, plan),
        Part::S3Drain => s3_drain::measure(session, shared, plan),
        Part::S3Recovery => s3_recovery::measure(session, shared, plan),
    }
}

/// Seconds since the first step.
fn since_start() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Tells what happens next.
pub(crate) fn step(what: &str) {
    eprintln!("bench: {:6.1} s  {what}", since_start());
}

/// Tells what one measurement came to.
pub(crate) fn progress(part: Part, run: usize, runs: usize, row: &Row, said: &str) {
    let who = format!("{} [{}]", row.title(), row.case);
    let at = since_start();
    eprintln!(
        "bench: {at:4.0} s  {:<11} {run}/{runs} {who:<52} {said}",
        part.name()
    );
}
