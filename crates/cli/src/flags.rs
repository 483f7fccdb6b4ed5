//! The command line, declared once: parsing, help and usage errors all come from here.
//!
//! Guarantees: what leaves this file is typed; a usage error is worded like every other error.
//! Left to others: the exit status of a usage error (`exit.rs`), and where settings come from that no
//! flag gives (`settings.rs`).

use crate::exit::Outcome;
use crate::say;
use archive::{Compression, Location, MissingSegment};
use audit::Edge;
use backup::{Id, InvalidId};
use clap::error::{ContextKind, ErrorKind};
use clap::{Args, Parser, Subcommand};
use std::error::Error;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use wal::{KeepFrom, Lsn, TimelineId, Timestamp, WalFileName};

/// The longest `--timeout`: the maximum of `walden.restore_timeout`.
const TIMEOUT_SECONDS_MAX: u64 = 3600;

const EXIT_STATUS: &str = "Exit status of restore: 0 restored, 1 absent from the archive, 200 could \
     not tell (on a standby: 1), 201 usage error, 202 internal error. Other commands: 0 done, 1 \
     failed, 2 usage error, 3 internal error, 4 could not tell (verify).";

/// Archives PostgreSQL's WAL and brings it back.
#[derive(Debug, Parser)]
#[command(name = "walden", version, after_help = EXIT_STATUS, disable_help_subcommand = true)]
#[command(max_term_width = 100)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) job: Job,
}

/// Flags of every command. Those with a value are also known to `exit.rs`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Where the archive is: a directory, or a file:, s3:, gs: or az: URL [default: PGDATA's configuration, else
    /// WALDEN_ARCHIVE, else the configuration of the data directory that the file lies in]
    #[arg(short = 'A', long, global = true, value_name = "URL")]
    pub(crate) archive: Option<Location>,

    /// Take settings from this data directory's configuration, and the system identifier to check
    /// against from its control file
    #[arg(short = 'D', long, global = true, value_name = "PGDATA")]
    pub(crate) pgdata: Option<PathBuf>,

    /// How to compress new segments: none, zstd, zstd:LEVEL, lz4 [default: PGDATA's configuration,
    /// else zstd]
    #[arg(long, global = true, value_name = "METHOD")]
    pub(crate) compression: Option<Compression>,

    /// Encrypt new files for these age public keys, comma separated [default: PGDATA's configuration,
    /// else not encrypted]
    // Checked where the parameter is: a usage error would repeat what may be a secret key.
    #[arg(long, global = true, value_name = "KEYS")]
    pub(crate) recipients: Option<String>,

    /// The file with the age identities that encrypted files are read with [default: PGDATA's
    /// configuration, else none]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) identity_file: Option<PathBuf>,

    /// Print what was done
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    Archive(Archive),
    Restore(Restore),
    ArchiveCleanup(ArchiveCleanup),
    RecoveryEnd(RecoveryEnd),
    List(List),
    Backups(Backups),
    Verify(Verify),
    Check(Check),
    Targets(Targets),
    Map(Map),
    Status(Status),
    Metrics(Metrics),
}

/// Store a WAL file in the archive, durably, never over another
#[derive(Debug, Args)]
pub(crate) struct Archive {
    /// The file's path; or, in or with a data directory, the bare name of a file in its pg_wal
    #[arg(value_name = "FILE|PATH")]
    pub(crate) file: PathBuf,
}

/// Bring one WAL file from the archive
///
/// As a server's setting: restore_command = 'walden restore -D . "%f" "%p"'. Retries while the archive
/// cannot be reached, except on a standby, whose server does so itself.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The WAL file's name (%f)
    pub(crate) name: WalFileName,

    /// Destination path (%p)
    pub(crate) dest: PathBuf,

    /// The file holding the last restartpoint's start (%r); accepted because the server offers it, and
    /// not used
    #[arg(value_name = "LAST_RESTARTPOINT")]
    pub(crate) last_restartpoint: Option<String>,

    /// What to do if a segment is missing although later WAL is stored: error (could not tell) or end
    /// (absent) [default: PGDATA's walden.missing_segment, else error]
    #[arg(long, value_name = "error|end")]
    pub(crate) missing_segment: Option<MissingSegment>,

    /// How long to retry while the archive cannot be reached [default: PGDATA's
    /// walden.restore_timeout, else 60]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) client: Client,
}

/// Remove the segments that recovery no longer needs
///
/// As a server's setting: archive_cleanup_command = 'walden archive-cleanup -D . "%r"'. Removes what
/// pg_archivecleanup would, never a timeline history file, and nothing during targeted recovery. Run by a person it
/// also keeps what base backups need, by their backup history files, and refuses an OLDEST_KEPT that is later than
/// everything stored.
#[derive(Debug, Args)]
pub(crate) struct ArchiveCleanup {
    /// The oldest file to keep (%r); 24 zeros keep everything
    #[arg(value_name = "OLDEST_KEPT")]
    pub(crate) oldest_kept: KeepFrom,

    /// Also remove what base backups need whose backup history files are in the archive
    #[arg(long)]
    pub(crate) force: bool,

    /// Remove nothing: print what would be removed, one name a line
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) client: Client,
}

/// Finish a recovery: remove files that dead writers left behind
#[derive(Debug, Args)]
pub(crate) struct RecoveryEnd {
    /// The file holding the last restartpoint's start (%r); accepted because the server offers it, and
    /// not used
    #[arg(value_name = "LAST_RESTARTPOINT")]
    pub(crate) last_restartpoint: Option<String>,

    #[command(flatten)]
    pub(crate) client: Client,
}

/// List the archive's WAL files
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Read the first and last segment of each range for their times, and what backups are called
    #[arg(long)]
    pub(crate) wal: bool,

    /// Show in which form each file is stored, by its first bytes; always shown for a directory, a request for each file in an
    /// object store
    #[arg(long)]
    pub(crate) form: bool,

    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// List the base backups in the archive, and what state each is in
///
/// A backup is complete once it is committed and all WAL that makes it consistent is in this archive; until then it waits.
#[derive(Debug, Args)]
pub(crate) struct Backups {
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which backups are meant.
#[derive(Debug, Clone)]
pub(crate) enum BackupChoice {
    /// All that are in the archive.
    All,
    /// The one of this name.
    One(Id),
}

/// Verify that all WAL in the archive can be replayed: every record, every joint, nothing missing
///
/// Exit status: 0 no errors (there may be notes and warnings), 1 errors, 4 could not tell. Needs the identity file where
/// files are encrypted.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Begin with this segment, or the one that holds this LSN, on every timeline; it has to be there
    #[arg(long, value_name = "NAME|LSN", value_parser = edge)]
    pub(crate) from: Option<Edge>,

    /// End with this segment, or the one that holds this LSN; it has to be there
    #[arg(long, value_name = "NAME|LSN", value_parser = edge)]
    pub(crate) to: Option<Edge>,

    /// Only what a recovery along this timeline reads: its segments, and those of its ancestors up to
    /// where each was left
    #[arg(long, value_name = "NUMBER", value_parser = timeline)]
    pub(crate) timeline: Option<TimelineId>,

    /// Instead of WAL, the base backups, or this one: every part decodes, every file is as the manifest has it, no page is
    /// corrupt, and the WAL that makes it consistent is there
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "", value_parser = backup_choice)]
    #[arg(conflicts_with_all = ["from", "to", "timeline", "resume"])]
    pub(crate) backups: Option<BackupChoice>,

    /// How many segments, or parts of a backup, to read at a time [default: as many as there are processors]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: Option<u16>,

    /// Note in this file what has been read, and leave out what it says has been read
    #[arg(long, value_name = "FILE")]
    pub(crate) resume: Option<PathBuf>,

    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show what the archive can be recovered to: times, restore points, transactions
///
/// Without a target: the times of each timeline, how far each base backup reaches, and the restore points. With one: the
/// last transaction that a recovery to it brings back, the first one that it does not, and from which base backups it gets
/// there. What was read is kept in an index, which makes the next call fast and can be removed at any time.
#[derive(Debug, Args)]
pub(crate) struct Targets {
    /// A time: "2026-11-21 10:00", in UTC or with an offset such as +02
    #[arg(long, value_name = "TIME", value_parser = timestamp, group = "target")]
    pub(crate) near: Option<Timestamp>,

    /// A transaction id
    #[arg(long, value_name = "XID", group = "target")]
    pub(crate) xid: Option<u32>,

    /// An LSN
    #[arg(long, value_name = "LSN", group = "target")]
    pub(crate) lsn: Option<Lsn>,

    /// Name of a restore point
    #[arg(long, value_name = "NAME", group = "target")]
    pub(crate) name: Option<String>,

    /// As with recovery_target_inclusive = off: without what is named
    #[arg(long, requires = "target", conflicts_with = "name")]
    pub(crate) exclusive: bool,

    #[command(flatten)]
    pub(crate) survey: Survey,

    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// Draw what the archive can be recovered to, as a page or in blocks
///
/// Timelines as lanes, where each left the one before it, base backups, restore points, holes, and how much WAL was written
/// when.
#[derive(Debug, Args)]
pub(crate) struct Map {
    /// Write one HTML page, which needs nothing else, instead of drawing with blocks
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) survey: Survey,
}

/// How the WAL of an archive is read.
#[derive(Debug, Args)]
pub(crate) struct Survey {
    /// Where to keep what was read, never in the archive [default: below walden/index in XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "FILE")]
    pub(crate) index: Option<PathBuf>,

    /// How many files to read at a time [default: as many as there are processors, at most 8]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: Option<u16>,
}

/// Check the archive, and with -D the server and its settings, and name a cure for each fault
///
/// Exit status: 0 everything passed (there may be warnings), 1 something failed, 4 something could not be looked at.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Look at the server of this connection string, with a role in pg_monitor
    #[arg(short = 'd', long, value_name = "CONNINFO")]
    pub(crate) dbname: Option<String>,

    /// Have the server switch to a new segment, and wait until the old one is archived
    #[arg(long, conflicts_with = "files_only")]
    pub(crate) switch: bool,

    /// Look at the archive and at the server's files, and not at the server, which need not run
    #[arg(long, conflicts_with = "dbname")]
    pub(crate) files_only: bool,

    /// Print a line for Nagios and its kin, and exit with 0 (passed), 1 (warning), 2 (failed) or 3 (unknown)
    #[arg(long, conflicts_with = "json")]
    pub(crate) nagios: bool,

    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show what archiving, the archive and recovery are doing, on one screen
///
/// Asks the server that runs (-D or -d) and the archive. With the server down it shows what its files and the archive say.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Ask the server of this connection string, with a role in pg_monitor
    #[arg(short = 'd', long, value_name = "CONNINFO")]
    pub(crate) dbname: Option<String>,

    /// Show it again every two seconds, until it is interrupted
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) watch: bool,

    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// Print metrics for a monitoring system, or serve them
///
/// Prometheus' text format, or OpenMetrics where it is asked for. Asks the server (-D or -d) with one connection; looks at the
/// archive every five minutes, never on a scrape.
#[derive(Debug, Args)]
pub(crate) struct Metrics {
    /// Ask the server of this connection string, with a role in pg_monitor
    #[arg(short = 'd', long, value_name = "CONNINFO")]
    pub(crate) dbname: Option<String>,

    /// Serve GET /metrics there until it is ended; "9187" is that port of the loopback address
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = address)]
    pub(crate) listen: Option<SocketAddr>,
}

/// How the library, walden.so, calls its own client. Not for people.
#[derive(Debug, Args)]
pub(crate) struct Client {
    /// Ask the recovery worker, which has loaded this library
    #[arg(long, hide = true, value_name = "NAME")]
    pub(crate) library: Option<String>,

    /// There is no worker, the server being in single-user mode
    #[arg(long, hide = true, requires = "library")]
    pub(crate) single_user: bool,
}

impl Client {
    /// The job is to be done by this process.
    pub(crate) const NONE: Client = Client {
        library: None,
        single_user: false,
    };
}

impl Global {
    /// Everything from this data directory's configuration.
    pub(crate) fn of_data_directory(dir: &str) -> Global {
        Global {
            archive: None,
            pgdata: Some(dir.into()),
            compression: None,
            recipients: None,
            identity_file: None,
            verbose: false,
        }
    }
}

impl Flags {
    /// Reads the arguments that follow the program's name.
    pub(crate) fn read(args: &[OsString]) -> Result<Flags, clap::Error> {
        let program = OsString::from("walden");
        Flags::try_parse_from(std::iter::once(&program).chain(args))
    }
}

/// Prints help, the version or a usage error.
pub(crate) fn explain(error: &clap::Error) -> Outcome {
    let cause = error
        .source()
        .and_then(|it| it.downcast_ref::<archive::Error>());
    if let Some(cause) = cause {
        // In its own words, and without the value, which may hold a secret that does not belong there.
        let flag = error.get(ContextKind::InvalidArg);
        let flag = flag.map(ToString::to_string).unwrap_or_default();
        say::error(
            &format!("invalid value for \"{flag}\": {cause}"),
            cause.hint(),
        );
        return Outcome::Usage;
    }
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => say::output(&text),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            say::error("no command given", Some("Try \"walden --help\"."));
            Outcome::Usage
        }
        _ => {
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            say::error(text.trim_end(), None);
            Outcome::Usage
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if seconds <= TIMEOUT_SECONDS_MAX => Ok(Duration::from_secs(seconds)),
        _ => Err(format!(
            "not a number of seconds from 0 to {TIMEOUT_SECONDS_MAX}"
        )),
    }
}

fn edge(text: &str) -> Result<Edge, String> {
    let place = text.parse().map(Edge::Place);
    let segment = text.parse().map(Edge::Segment);
    place
        .or(segment)
        .map_err(|_| "neither a segment's name nor an LSN such as 0/3000000".to_owned())
}

fn backup_choice(text: &str) -> Result<BackupChoice, InvalidId> {
    match text {
        "" => Ok(BackupChoice::All),
        id => id.parse().map(BackupChoice::One),
    }
}

fn timeline(text: &str) -> Result<TimelineId, String> {
    let number = text.parse().ok().and_then(TimelineId::new);
    number.ok_or_else(|| "not a number from 1".to_owned())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let port = text
        .parse()
        .map(|port: u16| (Ipv4Addr::LOCALHOST, port).into());
    port.or_else(|_| text.parse())
        .map_err(|_| "neither a port nor an address with a port, such as 127.0.0.1:9187".to_owned())
}

fn timestamp(text: &str) -> Result<Timestamp, audit::timestamp::InvalidTimestamp> {
    audit::timestamp::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_declared_flags_are_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn the_librarys_flag_is_known_but_not_shown() {
        let mut command = Flags::command();
        let restore = command.find_subcommand_mut("restore").unwrap();
        assert!(!restore.render_long_help().to_string().contains("--library"));
    }
}
