//! The command line, and what a run is to do.
//!
//! Guarantees that a name of a part that does not exist is refused before anything is measured.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The fewest runs and segments of a measurement that is worth keeping.
const RUNS: usize = 5;
const SEGMENTS: usize = 200;

/// Measures Walden beside its peers
#[derive(Debug, Parser)]
#[command(name = "walden-bench", disable_help_subcommand = true)]
pub(crate) struct Plan {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The two things this program does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure, and write raw results and tables
    Run(Run),
    /// Render the newest raw results into the page
    Page(Page),
}

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The parts to run, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_enum)]
    pub(crate) only: Vec<Part>,

    /// How often each figure is measured; the tables show medians
    #[arg(long, default_value_t = RUNS)]
    pub(crate) runs: usize,

    /// How many segments a backlog has, and a recovery replays
    #[arg(long, default_value_t = SEGMENTS)]
    pub(crate) segments: usize,

    /// How long each turn of the steady load lasts, in seconds
    #[arg(long, default_value_t = 6)]
    pub(crate) steady_seconds: u64,

    /// Measure only contenders whose name holds one of these, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub(crate) contenders: Vec<String>,

    /// In the part "drain", compare this build with another one's library alone, both preloaded: the path of its libwalden.so
    #[arg(long)]
    pub(crate) against: Option<PathBuf>,

    /// Where raw results go [default: bench/results for whole measurements, target/bench for tries: fewer
    /// runs or segments than usual, or other contenders]
    #[arg(long)]
    results: Option<PathBuf>,

    /// Where scripts/peers put programs that are not on PATH
    #[arg(long, default_value = ".cache/peers/bin")]
    pub(crate) peers: PathBuf,
}

impl Run {
    /// Whether a contender of this name takes part.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.contenders.is_empty() || self.contenders.iter().any(|part| name.contains(part))
    }

    /// Where raw results go: a try must not end up on the page.
    pub(crate) fn results(&self) -> &Path {
        let is_all = self.contenders.is_empty() && self.against.is_none();
        let is_whole = self.runs >= RUNS && self.segments >= SEGMENTS && is_all;
        match &self.results {
            Some(dir) => dir,
            None if is_whole => Path::new("bench/results"),
            None => Path::new("target/bench"),
        }
    }

    /// A part's own number of segments: fewer than asked for where each takes long.
    pub(crate) fn segments_up_to(&self, most: usize) -> usize {
        self.segments.min(most)
    }
}

/// What to render.
#[derive(Debug, Args)]
pub(crate) struct Page {
    /// Where raw results are
    #[arg(long, default_value = "bench/results")]
    pub(crate) results: PathBuf,

    /// The page whose marked places are filled in
    #[arg(long, default_value = "docs/performance.md")]
    pub(crate) page: PathBuf,
}

/// The parts of the bench, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// A backlog of segments is archived as fast as it goes
    Drain,
    /// Archiving under a steady load
    Steady,
    /// The answer about a file that is durable already
    Acknowledge,
    /// Replaying segments from an archive
    Recovery,
    /// What the startup process waits for one segment
    Wait,
    /// Where the time goes, a segment
    Stages,
    /// Which functions the archiver spends its time in
    Profile,
    /// What reading every record costs
    Records,
    /// Memory of archiver and recovery worker
    Memory,
    /// Ten and a hundred times as many files
    Many,
    /// A backlog is archived into an object store, near and far
    #[value(name = "s3-drain")]
    S3Drain,
    /// Replaying segments from an object store, near and far
    #[value(name = "s3-recovery")]
    S3Recovery,
}

impl Part {
    /// All of them.
    pub(crate) const ALL: [Part; 12] = [
        Part::Drain,
        Part::Steady,
        Part::Acknowledge,
        Part::Recovery,
        Part::Wait,
        Part::Stages,
        Part::Profile,
        Part::Records,
        Part::Memory,
        Part::Many,
        Part::S3Drain,
        Part::S3Recovery,
    ];

    /// Its name, as in `--only` and in the names of raw results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Part::Drain => "drain",
            Part::Steady => "steady",
            Part::Acknowledge => "acknowledge",
            Part::Recovery => "recovery",
            Part::Wait => "wait",
            Part::Stages => "stages",
            Part::Profile => "profile",
            Part::Records => "records",
            Part::Memory => "memory",
            Part::Many => "many",
            Part::S3Drain => "s3-drain",
            Part::S3Recovery => "s3-recovery",
        }
    }
}
