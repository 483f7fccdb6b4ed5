//! A server replays segments that it has to fetch from an object store, near and far.
//!
//! Measured as in `recovery.rs`: from "redo starts at" to "redo done at" in the server's log, in fresh copies of one data
//! directory, and only if all end at the same place in WAL. Every contender reads what it has archived itself, in one
//! bucket, through the relay of `delay.rs`. Requests are those that the store has counted, those before redo starts among
//! them.

use anyhow::{Result, ensure};

use crate::backlog::Backlog;
use crate::bucket::Bucket;
use crate::contenders::{Contender, Served, Stage, Way};
use crate::drain::drain_once;
use crate::fetchers::{
    Extent, Fetch, Fetcher, LIMIT, PGBACKREST_GET, PGBACKREST_GET_ASYNC, WALDEN, WALRUS_FETCH,
};
use crate::part::{Measured, Session, Shared, progress, step};
use crate::peers::NOT_HERE;
use crate::plan::{Part, Run};
use crate::recovery::replay;
use crate::results::{Row, number};
use crate::s3_drain::{ROUND_TRIPS_MS, RUNS_MAX, case};

/// The most segments: who fetches one after the other from far away takes half a second for each.
const SEGMENTS_MAX: usize = 60;

/// How the archives are compressed: as they would be in a store.
const CODEC: &str = "zstd:1";

/// Measures all round trips.
///
/// # Errors
///
/// When a recovery does not get to its end.
pub(crate) fn measure(session: &Session, shared: &Shared<'_>, plan: &Run) -> Result<Measured> {
    let mut measured = Measured::default();
    let backlog = shared.of_pgbench()?;
    let runs = plan.runs.min(RUNS_MAX);
    backlog.only(plan.segments_up_to(SEGMENTS_MAX));
    measured.note("segments", backlog.segments().len());
    measured.note("most runs", RUNS_MAX);
    step("starting an object store");
    let bucket = Bucket::open(&session.lab, "recovery")?;
    let fetchers = fetchers(session, backlog, &bucket)?;
    for round_trip_ms in ROUND_TRIPS_MS {
        bucket.put_away(round_trip_ms);
        let case = case(round_trip_ms);
        let takes_part = |fetcher: &&Fetcher| plan.wants(fetcher.name);
        let mut field: Vec<(&Fetcher, Row)> = fetchers
            .iter()
            .filter(takes_part)
            .map(|fetcher| (fetcher, row(fetcher, &case)))
            .collect();
        let mut end = None;
        for run in 1..=runs {
            for (fetcher, row) in &mut field {
                if row.missing.is_some() {
                    continue;
                }
                let before = bucket.requests()?;
                let redo = replay(session, backlog, fetcher, backlog.segments(), &[])?;
                ensure!(
                    *end.get_or_insert(redo.end.clone()) == redo.end,
                    "{} ended at {}, others at {end:?}",
                    fetcher.name,
                    redo.end
                );
                let requests = bucket.requests()?.saturating_sub(before);
                row.add("redo_s", redo.seconds);
                row.add("requests", number(requests));
                let speed = number(backlog.bytes()) / 1e6 / redo.seconds;
                let said = format!("{:7.2} s  {speed:5.0} MB/s", redo.seconds);
                progress(Part::S3Recovery, run, runs, row, &said);
            }
        }
        measured.rows.extend(field.into_iter().map(|(_, row)| row));
    }
    backlog.only(usize::MAX);
    Ok(measured)
}

fn row(fetcher: &Fetcher, case: &str) -> Row {
    match fetcher.way {
        Fetch::Missing(why) => Row::missing(case, fetcher.name, fetcher.codec, why),
        _ => Row::new(case, fetcher.name, fetcher.codec),
    }
}

/// All who fetch, each with an archive of the backlog in the bucket, and the limit.
fn fetchers(session: &Session, backlog: &Backlog<'_>, bucket: &Bucket<'_>) -> Result<Vec<Fetcher>> {
    let stage = Stage {
        bucket: Some(bucket),
        ..Stage::new(session, "s3-fetch", &backlog.cluster)
    };
    let of = |name, codec, way| Fetcher {
        name,
        codec,
        extent: Extent::Late,
        way,
    };
    let fill = |contender| filled(session, backlog, contender);
    let walden = fill(stage.walden(stage.jobs(), CODEC)?)?.and_then(|served| {
        let mut settings = served.active.into_iter();
        let (_, location) = settings.find(|(name, _)| name == "walden.archive")?;
        Some(Fetch::WaldenAt(location))
    });
    let repository = fill(stage.pgbackrest(true, CODEC)?)?.and_then(|served| served.repository);
    let walrus = fill(stage.walrus(CODEC)?)?.and_then(|served| Some(served.daemon?.0));
    let get = |asynchronous| {
        let repository = repository.clone();
        repository.map(|repository| Fetch::PgBackRest(repository, asynchronous))
    };
    let ways = [
        (WALDEN, walden),
        (PGBACKREST_GET_ASYNC, get(true)),
        (PGBACKREST_GET, get(false)),
        (WALRUS_FETCH, walrus.map(|herd| Fetch::Walrus(herd, None))),
    ];
    let mut found = vec![of(LIMIT, "none", Fetch::Local)];
    for (name, way) in ways {
        found.push(of(name, CODEC, way.unwrap_or(Fetch::Missing(NOT_HERE))));
    }
    Ok(found)
}

/// Has a contender archive the backlog; `None` when it is not here. That all of it is there is seen when it is fetched.
fn filled(
    session: &Session,
    backlog: &Backlog<'_>,
    contender: Contender,
) -> Result<Option<Served>> {
    let Way::Server(served) = contender.way else {
        return Ok(None);
    };
    step(&format!("making an archive: {}, {CODEC}", contender.name));
    drain_once(session, backlog, &served)?;
    Ok(Some(*served))
}
