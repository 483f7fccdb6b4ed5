//! Modules that panic, raise ERROR, or are slow: the test module `misbehave`, written with the kit.
//!
//! Its `misbehave.mode` is `ok`, `panic`, `error`, `slow` (eight seconds a file), `failure` and more, at every job
//! alike; its `misbehave.directory` where it archives to and restores from; both may change on reload. One place at a
//! time is `injected.rs`.

use std::time::{Duration, Instant};

use anyhow::Result;
use lab::{ArchiveDir, Cluster, Lab, Lost, Mark, Settings, Shutdown, scenario, wait_until};
use rustix::process::Signal;

use crate::common::{
    SHORT_RESTORE_TIMEOUT, SMALL_MB, check_not_promoted, must_recover, primary_with, recovery_of,
    recovery_to, standby, start_and_hold, start_could_not_restore, wait_for_entries, write,
};

/// What a slow module takes for one file.
const SLOW: Duration = Duration::from_secs(8);

/// "Within about a second", with some room for a loaded machine; far from [`SLOW`].
const ABOUT_A_SECOND: Duration = Duration::from_millis(2500);

/// A server that archives with the misbehaving module.
fn settings(lab: &Lab, archive: &ArchiveDir, mode: &str) -> Result<Settings> {
    lab.require_library("misbehave")?;
    Ok(lab
        .settings()
        .with("archive_mode", "on")
        .with("archive_library", "misbehave")
        .with("misbehave.directory", &archive.text())
        .with("misbehave.mode", mode))
}

/// A server that recovers with the misbehaving module.
fn recovering(lab: &Lab, archive: &ArchiveDir, mode: &str) -> Result<Settings> {
    Ok(settings(lab, archive, mode)?
        .with("shared_preload_libraries", "walden")
        .with("walden.restore_library", "misbehave")
        .with("walden.restore_timeout", SHORT_RESTORE_TIMEOUT))
}

/// The module fails in the given way; the archiver must survive, count, and go on afterwards.
fn survives(mode: &str) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary_with(lab, SMALL_MB, settings(lab, &archive, mode)?)?;
        let archiver = primary.wait_for_process("archiver")?;
        write(&primary, 1)?;
        primary.switch_segment()?;
        wait_until("two counted failures", || {
            Ok(primary.archive_failures()? >= 2)
        })?;
        assert_eq!(primary.archiver("archived_count")?, "0");
        assert_eq!(
            primary.wait_for_process("archiver")?.pid,
            archiver.pid,
            "the archiver died"
        );
        for words in [["terminated by signal"], ["PANIC"], ["FATAL"]] {
            let bad = primary.logged(Mark::default(), &words)?;
            assert!(bad.is_empty(), "{bad:?}");
        }

        primary.reload(|settings| settings.set("misbehave.mode", "ok"))?;
        write(&primary, 2)?;
        primary.archive_everything()?;
        assert_eq!(
            primary.wait_for_process("archiver")?.pid,
            archiver.pid,
            "the archiver died"
        );
        Ok(())
    })
}

#[test]
fn a_module_that_panics_is_not_archived_and_the_archiver_lives() -> Result<()> {
    survives("panic")
}

#[test]
fn a_module_that_raises_error_is_not_archived_and_the_archiver_lives() -> Result<()> {
    survives("error")
}

#[test]
fn a_module_that_returns_an_error_is_not_archived_and_the_archiver_lives() -> Result<()> {
    survives("failure")
}

#[test]
fn a_slow_module_does_not_hold_up_drop_database() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary_with(lab, SMALL_MB, settings(lab, &archive, "slow")?)?;
        primary.sql("create database doomed")?;
        write(&primary, 1)?;
        primary.switch_segment()?;
        primary.wait_for_process("archiver archiving")?;
        let begun = Instant::now();
        primary.sql("drop database doomed")?;
        let took = begun.elapsed();
        assert!(took < ABOUT_A_SECOND, "DROP DATABASE took {took:?}");
        assert_eq!(
            primary.processes("archiver archiving")?.len(),
            1,
            "the file was no longer under way"
        );
        Ok(())
    })
}

#[test]
fn a_slow_module_does_not_hold_up_a_reload() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary_with(lab, SMALL_MB, settings(lab, &archive, "slow")?)?;
        write(&primary, 1)?;
        primary.switch_segment()?;
        primary.wait_for_process("archiver archiving")?;
        let begun = Instant::now();
        primary.reload(|settings| settings.set("misbehave.mode", "ok"))?;
        // The wait for the slow file ends, the server tries it again after a second, and it is quick.
        wait_until("the file to be archived", || {
            Ok(primary.archiver("archived_count")? != "0")
        })?;
        let took = begun.elapsed();
        assert!(
            took < ABOUT_A_SECOND + Duration::from_secs(1),
            "the reload took effect after {took:?}"
        );
        Ok(())
    })
}

#[test]
fn fast_shutdown_drains_the_backlog_of_a_slow_module() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary_with(lab, SMALL_MB, settings(lab, &archive, "slow")?)?;
        let segments = primary.write_segments(1..=2)?;
        primary.wait_for_process("archiver archiving")?;
        let took = primary.stop(Shutdown::Fast)?;
        assert_eq!(
            primary.ready()?,
            Vec::<String>::new(),
            "not everything was archived"
        );
        for segment in &segments {
            assert!(
                archive.has(segment)?,
                "{segment} is not in {:?}",
                archive.keys()?
            );
        }
        assert!(took < SLOW * 6, "fast shutdown took {took:?}");
        Ok(())
    })
}

#[test]
fn immediate_shutdown_in_the_middle_of_a_slow_file_leaves_nothing_broken() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary_with(lab, SMALL_MB, settings(lab, &archive, "slow")?)?;
        let segments = primary.write_segments(1..=2)?;
        primary.wait_for_process("archiver archiving")?;
        let took = primary.stop(Shutdown::Immediate)?;
        assert!(took < ABOUT_A_SECOND, "immediate shutdown took {took:?}");

        primary.configure(|settings| settings.set("misbehave.mode", "ok"))?;
        primary.start()?;
        wait_for_entries(&primary, 2)?;
        primary.wait_until_archived()?;
        for segment in &segments {
            assert!(
                archive.has(segment)?,
                "{segment} is not in {:?}",
                archive.keys()?
            );
        }
        Ok(())
    })
}

/// Recovery with a restore module that fails in the given way: FATAL, nothing promoted, and the same
/// recovery completes with a module that works.
fn recovery_refuses(mode: &str) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary_with(lab, SMALL_MB, settings(lab, &archive, "ok")?)?;
        let Lost {
            backup,
            contents: before,
            ..
        } = primary.lose(4)?;

        let recovered = recovery_to(lab, &backup, recovering(lab, &archive, mode)?, "goal")?;
        let log = start_could_not_restore(&recovered, "")?;
        assert!(!log.contains("was terminated by signal"), "{log}");
        // The server may be before "in archive recovery": its very first request was not answered.
        assert!(recovered.data().join("recovery.signal").exists());
        assert!(!archive.has("00000002.history")?);

        recovered.configure(|settings| settings.set("misbehave.mode", "ok"))?;
        must_recover(&recovered, &before)
    })
}

#[test]
fn recovery_with_a_module_that_panics_stops_with_fatal_and_promotes_nothing() -> Result<()> {
    recovery_refuses("panic")
}

#[test]
fn recovery_with_a_module_that_raises_error_stops_with_fatal_and_promotes_nothing() -> Result<()> {
    recovery_refuses("error")
}

#[test]
fn recovery_with_a_module_that_panics_without_a_text_stops_with_fatal_and_promotes_nothing()
-> Result<()> {
    recovery_refuses("payload")
}

#[test]
fn recovery_with_a_module_that_returns_an_error_stops_with_fatal_and_promotes_nothing() -> Result<()>
{
    recovery_refuses("failure")
}

#[test]
fn a_standby_outlives_a_restore_module_that_panics_and_one_that_raises_error() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary_with(lab, SMALL_MB, settings(lab, &archive, "ok")?)?;
        let backup = primary.base_backup("backup")?;
        let standby = standby(lab, "standby", &backup, recovering(lab, &archive, "ok")?)?;
        write(&primary, 1)?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 1)?;
        let worker = standby.wait_for_process("recovery worker")?;
        for (entry, mode, words) in [
            (2, "panic", "asked to panic"),
            (3, "error", "no_such_parameter"),
        ] {
            let mark = standby.mark()?;
            standby.reload(|settings| settings.set("misbehave.mode", mode))?;
            write(&primary, entry)?;
            primary.archive_everything()?;
            standby.wait_for_log(mark, &["WARNING", words])?;
            assert_eq!(
                standby.sql("select count(*) from ledger")?,
                (entry - 1).to_string()
            );
            standby.reload(|settings| settings.set("misbehave.mode", "ok"))?;
            wait_for_entries(&standby, entry)?;
        }
        assert_eq!(
            standby.wait_for_process("recovery worker")?.pid,
            worker.pid,
            "the worker died"
        );
        Ok(())
    })
}

#[test]
fn a_standby_stops_at_once_although_its_restore_module_is_slow() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary_with(lab, SMALL_MB, settings(lab, &archive, "ok")?)?;
        let backup = primary.base_backup("backup")?;
        let standby = standby(lab, "standby", &backup, recovering(lab, &archive, "ok")?)?;
        write(&primary, 1)?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 1)?;
        standby.reload(|settings| settings.set("misbehave.mode", "slow"))?;
        write(&primary, 2)?;
        primary.archive_everything()?;
        standby.wait_for_process("restore")?;
        let took = standby.stop(Shutdown::Fast)?;
        assert!(took < ABOUT_A_SECOND, "fast shutdown took {took:?}");
        standby.configure(|settings| settings.set("misbehave.mode", "ok"))?;
        standby.start()?;
        wait_for_entries(&standby, 2)
    })
}

#[test]
fn recovery_through_somebody_elses_module_completes() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary_with(lab, SMALL_MB, settings(lab, &archive, "ok")?)?;
        let Lost {
            backup,
            contents: before,
            ..
        } = primary.lose(4)?;
        let recovered = recovery_to(lab, &backup, recovering(lab, &archive, "ok")?, "goal")?;
        must_recover(&recovered, &before)?;
        assert!(check_not_promoted(lab, &recovered, &archive).is_err());
        Ok(())
    })
}

/// In this major a postmaster outlives the startup process that fails after a crash.
const POSTMASTER_STAYS: u32 = 18;

/// Waits until recovery has stopped because the startup process failed after a crash, and the server with it.
///
/// Up to 17, and in 19 again, the postmaster then ends, "due to startup process failure". That of 18 stays without a
/// startup process, takes no connection, and does not even heed a fast shutdown. Walden has no part in it: it was
/// seen with 18.6 without any library, when the checkpointer was killed in the middle of a recovery and a
/// `restore_command` of the shell then exited with 200; 15.20, 16.15 and 17.11 end there, and so does 19rc1.
fn stops_after_crash(lab: &Lab, recovered: &Cluster) -> Result<()> {
    recovered.wait_for_log(Mark::default(), &["reinitializing"])?;
    let words = ["FATAL", "could not restore file", "exit code 200"];
    let fatal = recovered.wait_for_log(Mark::default(), &words)?;
    assert_eq!(fatal.backend, "startup");
    if lab.installation().major() != POSTMASTER_STAYS {
        recovered.wait_for_end()?;
        return Ok(());
    }
    wait_until("the startup process to be gone", || {
        Ok(recovered.processes("startup")?.is_empty())
    })?;
    assert!(
        recovered.is_running()?,
        "the postmaster ended as those of other majors do"
    );
    let answer = recovered.psql("postgres", "select 1")?;
    assert!(
        !answer.status.success() && answer.stderr.contains("in recovery mode"),
        "{answer:?}"
    );
    recovered.stop(Shutdown::Immediate)?;
    Ok(())
}

#[test]
fn recovery_completes_after_a_restart_when_the_worker_of_another_module_is_killed() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary_with(lab, SMALL_MB, settings(lab, &archive, "ok")?)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=40)?;
        let before = primary.contents()?;
        primary.archive_everything()?;
        primary.stop(Shutdown::Immediate)?;

        let recovered = recovery_of(lab, &backup, recovering(lab, &archive, "ok")?)?;
        let startup = start_and_hold(&recovered, 1)?;
        recovered
            .wait_for_process("recovery worker")?
            .signal(Signal::KILL)?;
        startup.signal(Signal::CONT)?;
        // After a crash the server starts no worker before redo, which waits for the worker: only a
        // module that its client can do without, Walden's own, gets over that.
        stops_after_crash(lab, &recovered)?;
        assert!(recovered.data().join("recovery.signal").exists());
        assert!(!archive.has("00000002.history")?);

        must_recover(&recovered, &before)
    })
}

#[test]
fn a_library_that_is_not_there_stops_recovery_and_is_named() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary_with(lab, SMALL_MB, lab.walden_settings(&archive)?)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=2)?;
        primary.wait_until_archived()?;
        let settings = lab
            .walden_settings(&archive)?
            .with("walden.restore_library", "no_such_library")
            .with("walden.restore_timeout", SHORT_RESTORE_TIMEOUT);
        let recovered = recovery_of(lab, &backup, settings)?;
        let log = recovered.start_refused()?;
        assert!(
            log.contains("FATAL") && log.contains("no_such_library"),
            "{log}"
        );
        assert!(recovered.data().join("recovery.signal").exists());
        Ok(())
    })
}
