//! What Walden must reach, each goal beside what was measured.
//!
//! Guarantees that a goal is called reached only by figures of the same run, and missed or not measured otherwise.
//! Leaves to the page what bounds a figure that is missed.

use crate::contenders::{
    BASIC_ARCHIVE, CP, LIMIT_EACH, PGBACKREST, PGBACKREST_ASYNC, WALDEN_4, WALRUS_DAEMON,
};
use crate::fetchers::{FLOOR, LIMIT, WALDEN};
use crate::many::COUNTS;
use crate::memory::LIMIT_MB;
use crate::recovery::case;
use crate::results::{Results, Row};
use crate::s3_drain::{self, ROUND_TRIPS_MS};

/// How much a file may cost more among 20,000 than among 2,000 to still count as the same, beyond what the server's own
/// archiver costs more.
const SAME_RATE: f64 = 1.2;

/// One goal.
struct Goal {
    what: &'static str,
    /// What was measured, and whether that is enough; `None` when it was not.
    found: Option<(String, bool)>,
}

/// The table of goals; `part` finds a part's newest results.
pub(crate) fn table<'r>(part: impl Fn(&str) -> Option<&'r Results>) -> String {
    let drain = part("drain");
    let recovery = part("recovery");
    let goals = [
        Goal {
            what: "draining uncompressed: at least 0.90 of write and fsync",
            found: drain.and_then(of_the_limit),
        },
        Goal {
            what: "draining uncompressed: ahead of `basic_archive` and every peer",
            found: drain.and_then(ahead_of_all),
        },
        Goal {
            what: "draining with zstd:1: at least 2.4 times pgBackRest async",
            found: drain.and_then(twice_pgbackrest),
        },
        Goal {
            what: "acknowledging a file that is durable already: under 50 µs",
            found: part("acknowledge").and_then(acknowledged),
        },
        Goal {
            what: "recovery: within 5 % of `exec mv` from a synced folder beside `pg_wal`",
            found: recovery.and_then(|results| beside_floor(results, 0, 5.0)),
        },
        Goal {
            what: "first file against S3: ahead of pgBackRest and WAL-RUS at 0, 10 and 50 ms",
            found: part("s3-drain").and_then(first_file),
        },
        Goal {
            what: "recovery with 50 ms a fetch: within 10 %",
            found: recovery.and_then(|results| recovered(results, 50, 10.0)),
        },
        Goal {
            what: "a prefetch hit: under 5 ms of the startup process",
            found: part("wait").and_then(waited),
        },
        Goal {
            what: "memory at 8 jobs: under `walden.memory_limit` (128 MB)",
            found: part("memory").map(grown),
        },
        Goal {
            what: "200, 2,000 and 20,000 files: the same cost a file",
            found: part("many").and_then(same_rate),
        },
    ];
    let mut text = "| goal | measured | |\n|---|---|---|\n".to_owned();
    for goal in goals {
        let (found, verdict) = match goal.found {
            Some((found, true)) => (found, "reached"),
            Some((found, false)) => (found, "**not reached**"),
            None => ("–".to_owned(), "not measured yet"),
        };
        text.push_str(&format!("| {} | {found} | {verdict} |\n", goal.what));
    }
    text
}

/// The median time of a contender on pgbench's WAL.
fn drain_s(results: &Results, contender: &str, codec: &str) -> Option<f64> {
    results.row("pgbench", contender, codec)?.median("drain_s")
}

fn of_the_limit(results: &Results) -> Option<(String, bool)> {
    let limit = drain_s(results, LIMIT_EACH, "none")?;
    let ratio = limit / drain_s(results, WALDEN_4, "none")?;
    Some((format!("{ratio:.2}"), ratio >= 0.9))
}

fn ahead_of_all(results: &Results) -> Option<(String, bool)> {
    let own = drain_s(results, WALDEN_4, "none")?;
    let others = [
        BASIC_ARCHIVE,
        CP,
        PGBACKREST,
        PGBACKREST_ASYNC,
        WALRUS_DAEMON,
    ];
    let (best, name) = others
        .into_iter()
        .filter_map(|name| Some((drain_s(results, name, "none")?, name)))
        .min_by(|one, other| one.0.total_cmp(&other.0))?;
    let ratio = best / own;
    Some((
        format!("{ratio:.2} times the next best, {name}"),
        ratio > 1.0,
    ))
}

fn twice_pgbackrest(results: &Results) -> Option<(String, bool)> {
    let ratio =
        drain_s(results, PGBACKREST_ASYNC, "zstd:1")? / drain_s(results, WALDEN_4, "zstd:1")?;
    Some((format!("{ratio:.2} times"), ratio >= 2.4))
}

fn acknowledged(results: &Results) -> Option<(String, bool)> {
    let worst = results
        .rows
        .iter()
        .filter_map(|row| row.median("answer_median_us"))
        .reduce(f64::max)?;
    Some((format!("{worst:.0} µs"), worst < 50.0))
}

fn recovered(results: &Results, late_ms: u64, percent_max: f64) -> Option<(String, bool)> {
    let case = case(late_ms);
    let limit = results.row(&case, LIMIT, "none")?.median("redo_s")?;
    let own = results.row(&case, WALDEN, "none")?.median("redo_s")?;
    let percent = |seconds: f64| (seconds / limit - 1.0) * 100.0;
    let shown = |seconds| format!("{:+.1} %", percent(seconds));
    let found = shown(own) + &beside_mv(results, &case, "redo_s", shown);
    Some((found, percent(own) <= percent_max))
}

/// Recovery beside the least that any restore_command takes.
fn beside_floor(results: &Results, late_ms: u64, percent_max: f64) -> Option<(String, bool)> {
    let case = case(late_ms);
    let floor = results.row(&case, FLOOR, "none")?.median("redo_s")?;
    let own = results.row(&case, WALDEN, "none")?.median("redo_s")?;
    let percent = (own / floor - 1.0) * 100.0;
    Some((format!("{percent:+.1} %"), percent <= percent_max))
}

/// The first file after an archiver's start, beside both peers, at each distance of the store.
fn first_file(results: &Results) -> Option<(String, bool)> {
    let mut found = Vec::new();
    let mut is_ahead = true;
    for round_trip_ms in ROUND_TRIPS_MS {
        let case = s3_drain::case(round_trip_ms);
        let first = |name: &str| results.row(&case, name, "zstd:1")?.median("first_s");
        let own = first(WALDEN_4)?;
        let peers = [PGBACKREST_ASYNC, WALRUS_DAEMON].map(first);
        let best = peers.into_iter().flatten().reduce(f64::min)?;
        is_ahead &= own < best;
        found.push(format!(
            "{round_trip_ms} ms: {own:.2} s, the best peer {best:.2} s"
        ));
    }
    Some((found.join("; "), is_ahead))
}

/// The same figure of the cheapest command, where it was measured.
fn beside_mv(results: &Results, case: &str, figure: &str, shown: impl Fn(f64) -> String) -> String {
    let floor = results.row(case, FLOOR, "none");
    let floor = floor.and_then(|row| row.median(figure));
    floor.map_or_else(String::new, |floor| {
        format!("; a bare `mv`: {}", shown(floor))
    })
}

fn waited(results: &Results) -> Option<(String, bool)> {
    let row = results.row("", WALDEN, "none")?;
    let (ahead, all) = (row.median("ahead_mean_ms")?, row.median("wait_mean_ms")?);
    let found = format!("{ahead:.1} ms (with those that were not there yet: {all:.1} ms)");
    let found = found + &beside_mv(results, "", "wait_mean_ms", |ms| format!("{ms:.1} ms"));
    Some((found, ahead < 5.0))
}

fn grown(results: &Results) -> (String, bool) {
    let grown = |row: &Row| row.max("grown_kb").unwrap_or(f64::MAX);
    let most = results.rows.iter().map(grown).fold(0.0, f64::max) / 1024.0;
    (format!("{most:.1} MB at most"), most <= f64::from(LIMIT_MB))
}

fn same_rate(results: &Results) -> Option<(String, bool)> {
    let file_ms = |name: &str, count: usize| {
        let case = format!("{count} files");
        let of = |row: &&Row| row.case == case && row.contender.starts_with(name);
        results.rows.iter().find(of)?.median("file_ms")
    };
    let [_, some, most] = COUNTS;
    let own = |count| file_ms("Walden", count);
    let server = |count| file_ms("archive_command", count);
    let growth = own(most)? - own(some)?;
    let servers_growth = (server(most)? - server(some)?).max(0.0);
    let ratio = (own(some)? + growth - servers_growth) / own(some)?;
    let found = format!(
        "{:.3} ms, {:.3} ms of 20,000; {ratio:.2} times without the server's own growth",
        own(some)?,
        own(most)?
    );
    Some((found, ratio <= SAME_RATE))
}
