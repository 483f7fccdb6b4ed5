//! `kill -9` of the archiver in mid-file, of the recovery worker in mid-request, of the client.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{ArchiveDir, Cluster, DEADLINE, Lab, Lost, Process, Shutdown, scenario, seed, wait_for};
use rustix::process::Signal;

use crate::common::{
    SMALL_MB, must_recover, primary, primary_with, recovery_of, recovery_settings, recovery_to,
    standby, start_and_hold, wait_for_entries, write,
};

/// How often the archiver is killed: enough that some kills hit the middle of a file.
const KILLS: u32 = 12;

/// Waits until the archiver works on a file, then a random moment more, and kills it.
///
/// Answers whether it was still on that file. One that was through with everything before it was looked for is left alone.
fn kill_archiver_in_mid_file(server: &Cluster, random: &mut fastrand::Rng) -> Result<bool> {
    let archiver = wait_for("the archiver to archive", DEADLINE, || {
        let archiver = server.processes("archiver archiving")?.into_iter().next();
        let is_through = archiver.is_none() && server.ready()?.is_empty();
        Ok((archiver.is_some() || is_through).then_some(archiver))
    })?;
    let Some(archiver) = archiver else {
        return Ok(false);
    };
    let moment = Duration::from_micros(random.u64(0..60_000));
    let begun = Instant::now();
    wait_for("a random moment", DEADLINE, || {
        Ok((begun.elapsed() >= moment).then_some(()))
    })?;
    let same_file = server
        .processes(&archiver.title)?
        .iter()
        .any(|process| process.pid == archiver.pid);
    archiver.signal(Signal::KILL)?;
    Ok(same_file)
}

/// Fails unless every segment that the server still has is in the archive with the same bytes.
fn check_archive_is_whole(lab: &Lab, server: &Cluster, archive: &ArchiveDir) -> Result<()> {
    let mut compared = 0;
    for name in archive.segments()? {
        let fetched = lab.fetch(archive, &name)?;
        let original = server.data().join("pg_wal").join(&name);
        let original = fs::read(&original).with_context(|| format!("\"{name}\" was to be kept"))?;
        ensure!(
            fetched == original,
            "the archived \"{name}\" differs from the server's"
        );
        compared += 1;
    }
    ensure!(compared > 0, "there was nothing to compare");
    Ok(())
}

#[test]
fn killing_the_archiver_in_mid_file_loses_nothing_and_leaves_nothing_half_written() -> Result<()> {
    let seed = seed()?;
    println!("WALDEN_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        // Everything stays in pg_wal, to be compared with what is in the archive.
        let settings = lab.walden_settings(&archive)?.with("wal_keep_size", "2GB");
        let primary = primary_with(lab, 16, settings)?;
        let backup = primary.base_backup("backup")?;
        let mut in_mid_file = 0;
        for kill in 1..=KILLS {
            write(&primary, kill)?;
            primary.sql(
                "create table bulk as select md5(i::text) from generate_series(1, 100000) i; \
                 drop table bulk; select pg_switch_wal();",
            )?;
            in_mid_file += u32::from(kill_archiver_in_mid_file(&primary, &mut random)?);
            // What is visible now is whole, although the archiver died on it.
            for name in archive.segments()? {
                let bytes = lab.fetch(&archive, &name)?.len();
                ensure!(bytes == 16 * 1024 * 1024, "\"{name}\" has {bytes} bytes");
            }
            // A fresh postmaster starts an archiver at once; the old one would wait ten seconds.
            primary.stop(Shutdown::Immediate)?;
            primary.start()?;
        }
        println!("{in_mid_file} of {KILLS} kills hit the file that was being archived");
        ensure!(in_mid_file > 0, "no kill hit the middle of a file");
        primary.archive_everything()?;
        assert_eq!(
            archive.strangers()?,
            Vec::<String>::new(),
            "staged files were left behind"
        );
        check_archive_is_whole(lab, &primary, &archive)?;
        let before = primary.contents()?;
        primary.stop(Shutdown::Immediate)?;

        let recovered = recovery_of(lab, &backup, recovery_settings(lab, &archive)?)?;
        must_recover(&recovered, &before)
    })
}

#[test]
fn the_server_gets_over_a_killed_archiver_by_itself() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        write(&primary, 1)?;
        primary.archive_everything()?;
        let mark = primary.mark()?;
        primary.wait_for_process("archiver")?.signal(Signal::KILL)?;
        primary.wait_for_log(mark, &["archiver", "terminated by signal 9"])?;
        primary.wait_for_sql("select count(*) from ledger", "1")?;
        write(&primary, 2)?;
        let segment = primary.archive_everything()?;
        assert_eq!(lab.fetch(&archive, &segment)?.len(), 1024 * 1024);
        Ok(())
    })
}

/// Waits for a request to be under way that the stopped worker does not answer: a client of it runs.
fn wait_for_client(server: &Cluster) -> Result<Process> {
    wait_for("a client that waits for its answer", DEADLINE, || {
        let clients = server.processes("restore")?;
        // The shell that runs the command, if it is still there, has the command line in its own.
        Ok(clients
            .into_iter()
            .find(|process| !process.title.starts_with("sh ")))
    })
}

#[test]
fn a_standby_goes_on_by_itself_when_the_worker_is_killed_in_mid_request() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let standby = standby(lab, "standby", &backup, recovery_settings(lab, &archive)?)?;
        for entry in 1..=3 {
            let worker = standby.wait_for_process("recovery worker")?;
            worker.pause()?;
            wait_for_client(&standby)?;
            worker.signal(Signal::KILL)?;
            write(&primary, entry)?;
            primary.archive_everything()?;
            wait_for_entries(&standby, entry)?;
        }
        assert_eq!(standby.sql("select pg_is_in_recovery()")?, "t");
        assert_eq!(standby.contents()?, primary.contents()?);
        Ok(())
    })
}

#[test]
fn recovery_completes_when_the_worker_is_killed_in_mid_request() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let Lost {
            backup,
            contents: before,
            ..
        } = primary.lose(40)?;

        let recovered = recovery_to(lab, &backup, recovery_settings(lab, &archive)?, "goal")?;
        let startup = start_and_hold(&recovered, 3)?;
        let worker = recovered.wait_for_process("recovery worker")?;
        worker.pause()?;
        startup.signal(Signal::CONT)?;
        wait_for_client(&recovered)?;
        worker.signal(Signal::KILL)?;
        recovered.wait_until_promoted()?;
        assert_eq!(recovered.contents()?, before);
        Ok(())
    })
}

#[test]
fn recovery_completes_after_a_restart_when_the_client_is_killed() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let Lost {
            backup,
            contents: before,
            ..
        } = primary.lose(40)?;

        let recovered = recovery_to(lab, &backup, recovery_settings(lab, &archive)?, "goal")?;
        let startup = start_and_hold(&recovered, 3)?;
        let worker = recovered.wait_for_process("recovery worker")?;
        worker.pause()?;
        startup.signal(Signal::CONT)?;
        wait_for_client(&recovered)?.signal(Signal::KILL)?;
        // The startup process takes a killed command for a reason to give up: FATAL, nothing promoted.
        worker.signal(Signal::CONT)?;
        recovered.wait_for_end()?;
        assert!(recovered.data().join("recovery.signal").exists());

        must_recover(&recovered, &before)
    })
}

#[test]
fn a_killed_server_leaves_no_half_restored_file_and_recovery_completes() -> Result<()> {
    let seed = seed()?;
    println!("WALDEN_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=40)?;
        let before = primary.contents()?;
        primary.archive_everything()?;
        primary.stop(Shutdown::Immediate)?;

        let recovered = recovery_of(lab, &backup, recovery_settings(lab, &archive)?)?;
        for _ in 0..5 {
            start_and_hold(&recovered, 1)?.signal(Signal::CONT)?;
            let (begun, moment) = (Instant::now(), Duration::from_micros(random.u64(0..50_000)));
            wait_for("a random moment", DEADLINE, || {
                Ok((begun.elapsed() >= moment).then_some(()))
            })?;
            recovered.kill()?;
        }
        must_recover(&recovered, &before)
    })
}
