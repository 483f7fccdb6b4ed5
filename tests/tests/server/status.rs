//! What sessions are shown: `SHOW walden.status`, the views, and who may see them.

use std::fs;

use anyhow::{Context, Result, ensure};
use lab::{Cluster, DEADLINE, Mark, scenario, wait_for};
use rustix::process::Signal;
use serde_json::Value;

use crate::common::{
    SMALL_MB, primary, primary_with, recovery_settings, standby, wait_for_entries, write,
};

/// The document, as a superuser is shown it.
fn document(cluster: &Cluster) -> Result<Value> {
    let text = cluster.sql("show walden.status")?;
    serde_json::from_str(&text).with_context(|| format!("not a document: {text}"))
}

#[test]
fn the_document_says_what_was_archived_and_what_is_pending() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.wait_for_sql(
            "select current_setting('walden.status')::jsonb -> 'archiver' -> 'pending' ->> 'files'",
            "0",
        )?;
        let segments = primary.write_segments(1..=3)?;
        primary.archive_everything()?;
        let begun = ["LOG", "archiving to \"", "compression zstd, not encrypted"];
        primary.wait_for_log(Mark::default(), &begun)?;
        let shown = document(&primary)?;
        let archiver = &shown["archiver"];
        assert_eq!(archiver["live"], true, "{shown}");
        let archived = archiver["files"]["archived"].as_u64().context("a count")?;
        assert!(archived >= segments.len() as u64, "{shown}");
        assert_eq!(archiver["archive"], archive.text(), "{shown}");
        assert_eq!(archiver["compression"], "zstd", "{shown}");
        assert!(archiver["last_failure"].is_null(), "{shown}");
        let stored = archiver["requests"].as_array().context("requests")?;
        assert!(
            stored
                .iter()
                .any(|request| request["op"] == "put" && request["outcome"] == "ok"),
            "{shown}"
        );
        assert_eq!(primary.sql("show walden.version")?, shown["version"]);
        Ok(())
    })
}

#[test]
fn an_archive_that_is_away_shows_since_when_why_and_what_waits() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.create_walden_views(lab)?;
        primary.archive_everything()?;
        primary.wait_for_sql("select state from walden.archiver", "idle")?;
        let away = archive.path().with_extension("away");
        fs::rename(archive.path(), &away)?;
        let segments = primary.write_segments(1..=3)?;
        primary.wait_for_sql("select state from walden.archiver", "failing")?;
        primary.wait_for_sql("select pending_files >= 3 from walden.archiver", "t")?;
        let row = primary.sql(
            "select last_failure_cause, oldest_pending_file, oldest_pending_age >= interval '0', \
             failing_since <= now(), lag_bytes > 0 from walden.archiver",
        )?;
        primary.wait_for_sql(
            "select state || ' ' || (attempts > 1) || ' ' || (error is not null) || ' ' || (age > interval '0') \
             from walden.files order by file limit 1",
            "running true true true",
        )?;
        let first = segments.first().context("a segment")?;
        ensure!(
            row.starts_with("store|") && row.ends_with("|t|t|t"),
            "{row}"
        );
        ensure!(row.contains(first), "{row}: {first} is the oldest");
        fs::rename(&away, archive.path())?;
        primary.wait_until_archived()?;
        primary.wait_for_sql("select state from walden.archiver", "idle")?;
        primary.wait_for_sql(
            "select failing_since is null and pending_files = 0 and last_failure is not null from walden.archiver",
            "t",
        )
    })
}

/// How many files are pending where views are to answer at once.
const MANY: u32 = 20_000;

#[test]
fn twenty_thousand_pending_files_are_counted_and_the_views_answer_from_memory() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.create_walden_views(lab)?;
        primary.archive_everything()?;
        fs::rename(archive.path(), archive.path().with_extension("away"))?;
        let first = primary.write_segments(1..=1)?;
        let notes = primary.data().join("pg_wal/archive_status");
        for number in 0..MANY {
            let name = format!(
                "00000001{:08X}{:08X}.ready",
                16 + number / 256,
                number % 256
            );
            fs::write(notes.join(name), "")?;
        }
        let counted = format!(
            "select pending_files >= {MANY} and oldest_pending_age is not null from walden.archiver"
        );
        primary.wait_for_sql(&counted, "t")?;
        let waiting =
            "select count(*) from walden.files where state = 'waiting' and file < '00000002'";
        ensure!(primary.sql(waiting)?.parse::<u32>()? > 0, "{waiting}");
        assert_eq!(
            primary.sql("select oldest_pending_file from walden.archiver")?,
            first[0]
        );
        let plan = primary.sql("explain (analyze, timing off) select * from walden.archiver")?;
        let took = plan.lines().filter(|line| line.contains("Time:"));
        let took = took.collect::<Vec<_>>().join(", ");
        // For people: no test trusts a clock.
        eprintln!("a view with {MANY} files pending: {took}");
        Ok(())
    })
}

#[test]
fn only_members_of_pg_monitor_are_shown_it() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.create_walden_views(lab)?;
        primary.sql("create role nobody; create role watcher in role pg_monitor;")?;
        let as_role = |role: &str, query: &str| {
            primary.psql("postgres", &format!("set role {role}; {query}"))
        };
        for query in ["show walden.status", "select * from walden.archiver"] {
            let refused = as_role("nobody", query)?;
            ensure!(!refused.status.success(), "{query} was answered");
            let seen = as_role("watcher", query)?;
            ensure!(seen.status.success(), "{query}: {seen:?}");
        }
        let hidden = as_role(
            "nobody",
            "select count(*) from pg_settings where name = 'walden.status'",
        )?;
        ensure!(hidden.stdout.trim().ends_with('0'), "{hidden:?}");
        let version = as_role("nobody", "show walden.version")?;
        ensure!(version.status.success(), "{version:?}");
        Ok(())
    })
}

#[test]
fn a_standby_shows_what_it_restored_and_how_long_it_waited() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.create_walden_views(lab)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=8)?;
        primary.archive_everything()?;
        let standby = standby(lab, "standby", &backup, recovery_settings(lab, &archive)?)?;
        wait_for_entries(&standby, 8)?;
        standby.wait_for_sql(
            "select restored_ahead + restored_when_asked >= 8 from walden.recovery",
            "t",
        )?;
        standby.wait_for_sql("select absent > 0 from walden.recovery", "t")?;
        standby.wait_for_sql(
            "select count(*) > 0 from walden.requests where process = 'recovery' and op = 'get' and outcome = 'ok'",
            "t",
        )?;
        let row = standby.sql(
            "select in_recovery, library, could_not_tell, waited > interval '0', last_restored_file is not null \
             from walden.recovery",
        )?;
        assert_eq!(row, "t|walden|0|t|t");
        assert_eq!(
            standby.sql("select state from walden.archiver")?,
            "no archiver"
        );
        Ok(())
    })
}

#[test]
fn without_preloading_the_views_say_so() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let settings = lab
            .walden_settings(&archive)?
            .with("shared_preload_libraries", "");
        let primary = primary_with(lab, SMALL_MB, settings)?;
        primary.create_walden_views(lab)?;
        for view in ["archiver", "recovery"] {
            let state = primary.sql(&format!("select state from walden.{view}"))?;
            assert_eq!(state, "not preloaded", "{view}");
        }
        assert_eq!(primary.sql("select count(*) from walden.files")?, "0");
        Ok(())
    })
}

#[test]
fn an_archiver_that_was_killed_is_not_shown_as_live_and_the_next_one_is() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        write(&primary, 1)?;
        primary.archive_everything()?;
        let archiver = primary.wait_for_process("archiver")?;
        let before = document(&primary)?["archiver"]["pid"].clone();
        // A stop, so that the dead writer's section is looked at before another one is there.
        archiver.pause()?;
        primary.wait_for_sql(
            "select current_setting('walden.status')::jsonb -> 'archiver' ->> 'live'",
            "false",
        )?;
        archiver.signal(Signal::KILL)?;
        // The server restarts all its processes over it, and the region is what it was.
        wait_for("another archiver", DEADLINE, || {
            let Ok(shown) = document(&primary) else {
                return Ok(None);
            };
            let archiver = &shown["archiver"];
            let is_another = archiver["live"] == true && archiver["pid"] != before;
            Ok(is_another.then_some(()))
        })
    })
}
