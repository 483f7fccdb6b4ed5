//! `walden targets` predicts, and recovery confirms: where a recovery ends, to the record.
//!
//! Each prediction is put to a server that recovers to that target and pauses there. What it then holds, what it says it has
//! replayed and what its log says must be what was predicted.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use lab::{ArchiveDir, Cluster, Lab, Mark, Settings, run, scenario, seed};
use serde_json::Value;

use crate::common::{SMALL_MB, primary_with};

/// How many random moments are put to servers.
const MOMENTS: usize = 20;

/// How many servers recover at a time.
const SERVERS: usize = 3;

/// The most bytes between the end of a record and the next: the header of a segment's first page.
const HEADER_BYTES: RangeInclusive<u64> = 0..=40;

/// A lost server's archive, and its base backup.
struct Scene<'lab> {
    lab: &'lab Lab,
    archive: ArchiveDir,
    backup: PathBuf,
    /// When transactions ended: in microseconds since 1970.
    times: RangeInclusive<i64>,
    /// The exact times of some commits, as the server prints them.
    commits: Vec<String>,
    /// Their transactions.
    xids: Vec<u32>,
}

/// What recovery is to stop at: for the command, and for the server.
#[derive(Clone, Debug)]
struct Goal {
    flags: Vec<String>,
    settings: Vec<(&'static str, String)>,
}

fn goal(flag: &str, parameter: &'static str, value: &str, inclusive: bool) -> Goal {
    let mut goal = Goal {
        flags: vec![flag.to_owned(), value.to_owned()],
        settings: vec![(parameter, value.to_owned())],
    };
    if !inclusive {
        goal.flags.push("--exclusive".to_owned());
        let off = ("recovery_target_inclusive", "off".to_owned());
        goal.settings.push(off);
    }
    goal
}

/// Several sessions that commit, roll back, prepare; two restore points of one name.
fn scene(lab: &Lab) -> Result<Scene<'_>> {
    let archive = lab.archive("archive")?;
    let settings = lab
        .walden_settings(&archive)?
        .with("track_commit_timestamp", "on")
        .with("max_prepared_transactions", "10");
    let primary = primary_with(lab, SMALL_MB, settings)?;
    primary.sql("create table entry(xid bigint primary key, filler text)")?;
    primary.sql("select pg_create_restore_point('goal')")?;
    let backup = primary.base_backup("backup")?;
    let script = lab.dir().join("script.sql");
    std::fs::write(
        &script,
        "\\set dice random(1, 10)\n\
         begin;\n\
         insert into entry values (pg_current_xact_id()::text::bigint, repeat('x', 500));\n\
         \\if :dice = 1\nrollback;\n\\elif :dice = 2\nprepare transaction 'p:client_id';\n\
         commit prepared 'p:client_id';\n\\else\ncommit;\n\\endif\n",
    )?;
    let script = script.display().to_string();
    let script = script.as_str();
    primary.sql("insert into entry values (2, 'the first one')")?;
    let micros = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
    let begun: i64 = primary.sql(micros)?.parse()?;
    for round in 0..3 {
        primary.pgbench(&[
            "-n",
            "-c",
            "4",
            "-t",
            "150",
            "-f",
            script,
            "-D",
            &format!("round={round}"),
        ])?;
        if round == 1 {
            primary.sql("select pg_create_restore_point('goal')")?;
        }
    }
    let ended: i64 = primary.sql(micros)?.parse()?;
    primary.sql("insert into entry values (1, 'the last one')")?;
    let rows = primary.sql(
        "select xmin, pg_xact_commit_timestamp(xmin) from entry where xid > 2 order by random() limit 40",
    )?;
    let (mut commits, mut xids) = (Vec::new(), Vec::new());
    for row in rows.lines() {
        let (xid, time) = row.split_once('|').context("two columns")?;
        xids.push(xid.parse()?);
        commits.push(time.to_owned());
    }
    primary.archive_everything()?;
    Ok(Scene {
        lab,
        archive,
        backup,
        times: begun..=ended,
        commits,
        xids,
    })
}

impl Scene<'_> {
    /// What the command says of the recovery from the base backup.
    fn predicted(&self, goal: &Goal) -> Result<Value> {
        let mut command = self.lab.command("walden");
        command
            .args(["targets", "--json", "-A"])
            .arg(self.archive.path());
        command
            .arg("--index")
            .arg(self.lab.dir().join("index.jsonl"));
        let said = run(command.args(&goal.flags))?.success()?;
        let document: Value = serde_json::from_str(&said)?;
        let answer = document.pointer("/target/timelines/0/backups/0");
        Ok(answer
            .with_context(|| format!("no answer in {said}"))?
            .clone())
    }

    /// A server about to recover there, and to stay there.
    fn recovering(&self, name: &str, goal: &Goal) -> Result<Cluster<'_>> {
        let restore = format!("walden restore -A {} \"%f\" \"%p\"", self.archive.text());
        let mut settings: Settings = self.lab.settings();
        settings.set("restore_command", &restore);
        settings.set("recovery_target_action", "pause");
        settings.set("max_prepared_transactions", "10");
        settings.set("track_commit_timestamp", "on");
        for (parameter, value) in &goal.settings {
            settings.set(parameter, value);
        }
        let cluster = self.lab.restored(name, &self.backup, settings)?;
        cluster.touch("recovery.signal")?;
        Ok(cluster)
    }

    /// Recovers, and compares what comes of it with what was predicted.
    fn confirm(&self, name: &str, goal: &Goal) -> Result<()> {
        let predicted = self.predicted(goal)?;
        let cluster = self.recovering(name, goal)?;
        match of(&predicted, "kind").as_str() {
            Some("stops") => confirm_stop(&cluster, goal, of(&predicted, "stop"))?,
            Some(kind) => {
                let fatal = match kind {
                    "too_early" => {
                        "requested recovery stop point is before consistent recovery point"
                    }
                    "not_reached" => "recovery ended before configured recovery target was reached",
                    kind => anyhow::bail!("{kind} was predicted"),
                };
                let log = cluster.start_refused()?;
                ensure!(
                    log.contains(fatal),
                    "{kind} was predicted, but the log says {log}"
                );
            }
            None => anyhow::bail!("no kind in {predicted}"),
        }
        let home = cluster.home().to_path_buf();
        drop(cluster);
        Ok(std::fs::remove_dir_all(home)?)
    }

    /// The same for many, several at a time.
    fn confirm_all(&self, goals: &[Goal]) -> Result<()> {
        let next = AtomicUsize::new(0);
        let failures = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..SERVERS {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(goal) = goals.get(number) else { break };
                        if let Err(error) = self.confirm(&format!("r{number}"), goal) {
                            let mut failures =
                                failures.lock().unwrap_or_else(PoisonError::into_inner);
                            failures.push(format!("{goal:?}: {error:#}"));
                        }
                    }
                });
            }
        });
        let failures = failures
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(failures.is_empty(), "{}", failures.join("\n"));
        Ok(())
    }
}

/// A field of the answer; null if it is not there.
fn of<'a>(answer: &'a Value, field: &str) -> &'a Value {
    answer.get(field).unwrap_or(&Value::Null)
}

fn lsn(text: &str) -> Result<u64> {
    Ok(text.parse::<wal::Lsn>()?.0)
}

fn confirm_stop(cluster: &Cluster<'_>, goal: &Goal, stop: &Value) -> Result<()> {
    cluster.start()?;
    cluster.wait_for_sql("select pg_get_wal_replay_pause_state()", "paused")?;
    let count = |xid: &Value| {
        cluster.sql(&format!(
            "select count(*) from entry where xmin = '{xid}'::xid"
        ))
    };
    let (last_commit, last, next) = (of(stop, "last_commit"), of(stop, "last"), of(stop, "next"));
    ensure!(
        last_commit.is_object() && last.is_object(),
        "nothing was predicted to be there"
    );
    let xid = of(last_commit, "xid");
    ensure!(
        count(xid)? == "1",
        "transaction {xid} was predicted to be the last one, and is not there"
    );
    let xid = of(next, "xid");
    ensure!(
        count(xid)? == "0",
        "transaction {xid} was predicted not to be there, and is"
    );
    // What the server has replayed last is what was predicted, and nothing behind it.
    let replayed = cluster.sql(
        "select to_char(pg_last_xact_replay_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    )?;
    // Of a record that it stops behind by its place, the server does not note the time (`recoveryStopsAfter`, 15 to 18).
    let is_noted =
        !goal.flags.contains(&"--lsn".to_owned()) || of(stop, "record_lsn") != of(last, "lsn");
    ensure!(
        !is_noted || *of(last, "at") == replayed.as_str(),
        "replayed up to {replayed}, not {}",
        of(last, "at")
    );
    let place = lsn(of(stop, "lsn").as_str().context("a place")?)?;
    let replayed = cluster.sql("select pg_last_wal_replay_lsn()")?;
    let behind = place.checked_sub(lsn(&replayed)?);
    ensure!(
        behind.is_some_and(|bytes| HEADER_BYTES.contains(&bytes)),
        "replayed up to {replayed}, not {}",
        of(stop, "lsn")
    );
    let log = cluster.log(Mark::default())?;
    ensure!(log.contains("recovery stopping"), "{log}");
    Ok(())
}

#[test]
fn a_recovery_to_a_random_moment_ends_with_the_commit_that_was_predicted() -> Result<()> {
    let seed = seed()?;
    println!("WALDEN_TEST_SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    scenario(|lab| {
        let scene = scene(lab)?;
        let mut goals = Vec::new();
        for number in 0..MOMENTS {
            // Every fourth is the very time of a commit, where "at" and "before" differ.
            let (time, inclusive) = match number % 4 {
                0 => (
                    scene.commits[dice.usize(..scene.commits.len())].clone(),
                    number % 8 == 0,
                ),
                _ => (moment(dice.i64(scene.times.clone())), true),
            };
            goals.push(goal("--near", "recovery_target_time", &time, inclusive));
        }
        scene
            .confirm_all(&goals)
            .with_context(|| format!("WALDEN_TEST_SEED={seed}"))
    })
}

#[test]
fn transactions_places_and_restore_points_end_where_it_was_predicted_and_so_do_failures()
-> Result<()> {
    let seed = seed()?;
    println!("WALDEN_TEST_SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    scenario(|lab| {
        let scene = scene(lab)?;
        let (begun, ended) = (*scene.times.start(), *scene.times.end());
        let mut goals = vec![
            goal("--name", "recovery_target_name", "goal", true),
            goal(
                "--near",
                "recovery_target_time",
                &moment(ended + 3_600_000_000),
                true,
            ),
            goal("--lsn", "recovery_target_lsn", "0/100028", true),
        ];
        for inclusive in [true, false] {
            let xid = scene.xids[dice.usize(..scene.xids.len())].to_string();
            goals.push(goal("--xid", "recovery_target_xid", &xid, inclusive));
            let time = moment(dice.i64(begun..ended));
            let near = scene.predicted(&goal("--near", "recovery_target_time", &time, true))?;
            let place = near["stop"]["lsn"].as_str().context("a place")?.to_owned();
            goals.push(goal("--lsn", "recovery_target_lsn", &place, inclusive));
            // Between two records.
            let place = wal::Lsn(lsn(&place)? + 8).to_string();
            goals.push(goal("--lsn", "recovery_target_lsn", &place, inclusive));
        }
        scene
            .confirm_all(&goals)
            .with_context(|| format!("WALDEN_TEST_SEED={seed}"))
    })
}

/// As the server and the command read it.
fn moment(micros: i64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_micros(micros.unsigned_abs());
    let seconds = archive::rfc3339(time);
    format!(
        "{}.{:06}+00",
        seconds.trim_end_matches('Z'),
        micros.rem_euclid(1_000_000)
    )
}
