//! Segments are fetched before recovery asks for them: recovery is quick, and nothing else is different.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{
    ArchiveDir, Cluster, Conditions, FailingStorage, Lab, Lost, Mark, Process, Settings, Shutdown,
    run, scenario, seed, wait_until, wal_file,
};
use rustix::process::Signal;

use crate::common::{
    SMALL_MB, must_recover, primary, recovery_of, recovery_settings, recovery_to, standby,
    start_and_hold, wait_for_entries, write,
};

/// Settings of a server that recovers through Walden and says how.
fn telling(lab: &Lab, archive: &ArchiveDir) -> Result<Settings> {
    Ok(recovery_settings(lab, archive)?.with("log_min_messages", "debug1"))
}

/// The files that were restored so: `fetched ahead` or `on demand`.
fn restored(cluster: &Cluster, since: Mark, how: &str) -> Result<Vec<String>> {
    let words = ["restored file", &format!("({how})")];
    let entries = cluster.logged(since, &words)?;
    Ok(entries
        .iter()
        .filter_map(|entry| entry.text.split('"').nth(1).map(str::to_owned))
        .collect())
}

/// How many segments were fetched ahead, by the last restored file's own account.
fn fetched_ahead(cluster: &Cluster) -> Result<u64> {
    let entries = cluster.logged(Mark::default(), &["restored file", "Fetched ahead so far"])?;
    let last = entries.last().context("no file was restored")?;
    let (_, rest) = last
        .text
        .split_once("Fetched ahead so far: ")
        .context("no tally")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

/// Files without a name that this process has open in `pg_wal`.
fn unnamed_files(process: &Process) -> usize {
    let Ok(open) = fs::read_dir(format!("/proc/{}/fd", process.pid)) else {
        return 0;
    };
    open.flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|target| {
            let target = target.to_string_lossy();
            target.contains("/pg_wal/") && target.ends_with("(deleted)")
        })
        .count()
}

/// Names in `pg_wal` that no server gives.
fn leftovers(cluster: &Cluster) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(cluster.data().join("pg_wal"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("pgsql_tmp") {
            names.push(name);
        }
    }
    Ok(names)
}

#[test]
fn a_recovery_of_many_segments_finds_most_of_them_fetched() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let Lost {
            backup,
            contents: before,
            segments,
        } = primary.lose(45)?;
        let recovered = recovery_to(lab, &backup, telling(lab, &archive)?, "goal")?;
        must_recover(&recovered, &before)?;
        let ahead = restored(&recovered, Mark::default(), "fetched ahead")?;
        let hits = segments.iter().filter(|name| ahead.contains(name)).count();
        ensure!(
            hits >= 40,
            "{hits} of {} were fetched ahead: {ahead:?}",
            segments.len()
        );
        // Nothing is fetched twice, and little for nothing: recovery stops at its goal.
        let fetched = fetched_ahead(&recovered)?;
        ensure!(
            fetched <= ahead.len() as u64 + 10,
            "{fetched} were fetched for {ahead:?}"
        );
        assert_eq!(leftovers(&recovered)?, Vec::<String>::new());
        Ok(())
    })
}

#[test]
fn with_restore_prefetch_0_each_segment_is_fetched_when_it_is_asked_for() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let lost = primary.lose(6)?;
        let settings = telling(lab, &archive)?.with("walden.restore_prefetch", "0");
        let recovered = recovery_to(lab, &lost.backup, settings, "goal")?;
        must_recover(&recovered, &lost.contents)?;
        assert_eq!(fetched_ahead(&recovered)?, 0);
        let on_demand = restored(&recovered, Mark::default(), "on demand")?;
        for segment in &lost.segments {
            ensure!(on_demand.contains(segment), "{segment}: {on_demand:?}");
        }
        Ok(())
    })
}

#[test]
fn a_slow_archive_is_looked_ahead_in_as_far_as_allowed() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let lost = primary.lose(60)?;
        let recovered = recovery_to(lab, &lost.backup, telling(lab, &archive)?, "goal")?;
        let late = Duration::from_millis(200);
        let conditions = Conditions::default().delay(late);
        let storage = FailingStorage::over_files(archive.path(), is_segment, conditions)?;
        let begun = Instant::now();
        must_recover(&recovered, &lost.contents)?;
        let took = begun.elapsed();
        drop(storage);
        let deepest = recovered.logged(Mark::default(), &["restored file", "8 at a time"])?;
        ensure!(!deepest.is_empty(), "it never looked ahead by 8");
        // One after the other, the segments alone take 12 s.
        ensure!(took < late * 40, "recovery took {took:?}");
        Ok(())
    })
}

#[test]
fn a_failing_archive_loses_nothing_that_was_to_be_fetched_ahead() -> Result<()> {
    let seed = seed()?;
    println!("WALDEN_TEST_SEED={seed}");
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let lost = primary.lose(45)?;
        let recovered = recovery_to(lab, &lost.backup, telling(lab, &archive)?, "goal")?;
        let conditions = Conditions::default().fail(300, seed);
        let storage = FailingStorage::over_files(archive.path(), is_segment, conditions)?;
        must_recover(&recovered, &lost.contents)?;
        let (met, refused) = storage.met();
        ensure!(refused > 0, "nothing failed of {met}");
        Ok(())
    })
}

fn is_segment(name: &str) -> bool {
    // Complete segments, however they are compressed.
    wal_file(name).len() == 24
}

#[test]
fn looking_ahead_follows_the_history_from_one_timeline_to_the_next() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=8)?;
        primary.sql("select pg_create_restore_point('fork')")?;
        // The old timeline goes on behind the fork: these are the wrong segments.
        primary.sql("update ledger set entry = entry + 1000")?;
        primary.write_segments(11..=18)?;
        primary.wait_until_archived()?;
        primary.stop(Shutdown::Immediate)?;

        let first = recovery_to(lab, &backup, recovery_settings(lab, &archive)?, "fork")?;
        first.start()?;
        first.wait_until_promoted()?;
        let segments = first.write_segments(21..=32)?;
        first.wait_until_archived()?;
        let before = first.contents()?;
        first.stop(Shutdown::Immediate)?;

        let second = lab.restored("second", &backup, telling(lab, &archive)?)?;
        second.touch("recovery.signal")?;
        must_recover(&second, &before)?;
        let ahead = restored(&second, Mark::default(), "fetched ahead")?;
        // The first one of the new timeline holds the switch; the last one may be met before it is foreseen.
        for segment in &segments[..segments.len() - 1] {
            ensure!(segment.starts_with("00000002"), "{segment}");
            ensure!(ahead.contains(segment), "{segment} is not among {ahead:?}");
        }
        Ok(())
    })
}

#[test]
fn a_standby_at_the_end_of_its_archive_gets_what_comes_and_nothing_stale() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let settings = telling(lab, &archive)?.with("wal_retrieve_retry_interval", "100ms");
        let standby = standby(lab, "standby", &backup, settings)?;
        for round in 0..4_u32 {
            // It asks in vain before each round, so whatever it could remember of that would be wrong.
            let mark = standby.mark()?;
            standby.wait_for_log(mark, &["waiting for WAL to become available"])?;
            primary.write_segments(1 + 10 * round..=10 * (round + 1))?;
            primary.wait_until_archived()?;
            wait_for_entries(&standby, 10 * (round + 1))?;
        }
        assert_eq!(standby.contents()?, primary.contents()?);
        ensure!(fetched_ahead(&standby)? > 0, "nothing was fetched ahead");
        Ok(())
    })
}

#[test]
fn a_standby_that_streams_fetches_nothing_and_comes_back_to_the_archive() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=5)?;
        primary.wait_until_archived()?;
        let settings = telling(lab, &archive)?
            .with("wal_retrieve_retry_interval", "100ms")
            .with(
                "primary_conninfo",
                &format!("host={} user=postgres", primary.home().display()),
            );
        let standby = standby(lab, "standby", &backup, settings)?;
        wait_for_entries(&standby, 5)?;
        let mut last = "0".to_owned();
        for round in 1..=3_u32 {
            // The one that was broken may still be listed.
            let streaming =
                format!("pg_stat_replication where pid <> {last} and state = 'streaming'");
            primary.wait_for_sql(&format!("select count(*) from {streaming}"), "1")?;
            last = primary.sql(&format!("select pid from {streaming}"))?;
            let mark = standby.mark()?;
            primary.write_segments(1 + 20 * round..=20 * round + 20)?;
            primary.wait_until_archived()?;
            wait_for_entries(&standby, 5 + 20 * round)?;
            let restored = standby.logged(mark, &["restored file"])?.len();
            assert_eq!(restored, 0, "files were restored while WAL was streamed");
            // The stream breaks; the archive has nothing that the standby lacks.
            standby
                .wait_for_process("walreceiver")?
                .signal(Signal::TERM)?;
            standby.wait_for_log(mark, &["terminating walreceiver process"])?;
        }
        let restored = [
            restored(&standby, Mark::default(), "on demand")?,
            restored(&standby, Mark::default(), "fetched ahead")?,
        ]
        .concat();
        let fetched = fetched_ahead(&standby)?;
        // Of 65 segments: what there was before streaming began, and at each switch the one in hand and a look behind.
        ensure!(
            fetched + restored.len() as u64 <= 30,
            "{fetched} were fetched ahead, and restored were {restored:?}"
        );
        Ok(())
    })
}

#[test]
fn somebody_who_fetches_backwards_gets_exactly_these_files() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let segments = primary.write_segments(1..=12)?;
        primary.wait_until_archived()?;
        let standby = standby(lab, "standby", &backup, telling(lab, &archive)?)?;
        wait_for_entries(&standby, 12)?;

        let (mark, before) = (standby.mark()?, fetched_ahead(&standby)?);
        for segment in segments.iter().rev() {
            // As pg_rewind runs it: under the final name, a directory further on.
            let dest = format!("pg_wal/rewound-{segment}");
            let mut walden = lab.server_command("walden");
            walden
                .current_dir(standby.data())
                .args(["restore", "--library", "walden", segment, &dest])
                .arg("000000000000000000000000");
            run(&mut walden)?.success()?;
            let theirs = fs::read(standby.data().join(&dest))?;
            let ours = lab.fetch(&archive, segment)?;
            assert!(theirs == ours, "{segment} is not what is archived");
        }
        let on_demand = restored(&standby, mark, "on demand")?;
        for segment in &segments {
            let count = on_demand.iter().filter(|name| *name == segment).count();
            ensure!(count >= 1, "{segment} is not among {on_demand:?}");
        }
        assert_eq!(fetched_ahead(&standby)?, before);
        Ok(())
    })
}

/// Starts a recovery and stops it when the worker holds `count` files that nobody has asked for yet.
fn hold_with_files_ahead(recovered: &Cluster, count: usize) -> Result<(Process, Process)> {
    let startup = start_and_hold(recovered, 10)?;
    let worker = recovered.wait_for_process("recovery worker")?;
    wait_until("segments to be fetched ahead", || {
        Ok(unnamed_files(&worker) >= count)
    })?;
    Ok((startup, worker))
}

#[test]
fn a_worker_that_is_killed_leaves_no_files_behind() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let lost = primary.lose(45)?;
        let recovered = recovery_to(lab, &lost.backup, telling(lab, &archive)?, "goal")?;
        let (startup, worker) = hold_with_files_ahead(&recovered, 1)?;
        worker.signal(Signal::KILL)?;
        wait_until("the worker to be gone", || Ok(!worker.is_alive()))?;
        assert_eq!(leftovers(&recovered)?, Vec::<String>::new());
        startup.signal(Signal::CONT)?;
        recovered.wait_until_promoted()?;
        assert_eq!(recovered.contents()?, lost.contents);
        assert_eq!(leftovers(&recovered)?, Vec::<String>::new());
        Ok(())
    })
}

#[test]
fn segments_that_are_cleaned_up_after_they_were_fetched_do_no_harm() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let lost = primary.lose(45)?;
        let recovered = recovery_to(lab, &lost.backup, telling(lab, &archive)?, "goal")?;
        let (startup, _) = hold_with_files_ahead(&recovered, 2)?;
        // What replay has behind it, and what it has not asked for yet but the worker holds.
        let replayed = crate::common::restored_since(&recovered, Mark::default())?;
        let newest = replayed
            .iter()
            .filter(|name| lost.segments.contains(name))
            .max()
            .context("nothing was restored")?;
        let next = lost.segments.iter().find(|name| *name > newest);
        let aside = lab.directory("aside")?;
        for segment in lost.segments.iter().filter(|name| *name <= newest) {
            set_aside(&archive, segment, &aside)?;
        }
        let next = next.context("nothing is left to replay")?;
        set_aside(&archive, next, &aside)?;
        startup.signal(Signal::CONT)?;
        recovered.wait_until_promoted()?;
        assert_eq!(recovered.contents()?, lost.contents);
        Ok(())
    })
}

fn set_aside(archive: &ArchiveDir, segment: &str, aside: &Path) -> Result<()> {
    let stored = archive.stored(segment)?;
    let name = stored.file_name().context("no name")?;
    fs::rename(&stored, aside.join(name))?;
    Ok(())
}

#[test]
fn a_timeline_that_appears_while_a_standby_waits_is_followed() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let settings = telling(lab, &archive)?.with("wal_retrieve_retry_interval", "100ms");
        let follower = standby(lab, "follower", &backup, settings)?;
        primary.write_segments(1..=6)?;
        primary.wait_until_archived()?;
        primary.stop(Shutdown::Immediate)?;
        wait_for_entries(&follower, 6)?;

        let successor = recovery_of(lab, &backup, recovery_settings(lab, &archive)?)?;
        successor.start()?;
        successor.wait_until_promoted()?;
        write(&successor, 7)?;
        successor.write_segments(8..=20)?;
        successor.wait_until_archived()?;
        wait_for_entries(&follower, 20)?;
        assert_eq!(follower.contents()?, successor.contents()?);
        Ok(())
    })
}
