//! Recovery modules in C that hang without heeding interrupts, and one that crashes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{Cluster, Lab, Lost, Mark, Settings, Shutdown, scenario, wait_until};
use rustix::process::Signal;

use crate::c_module::CModule;
use crate::common::{
    SMALL_MB, must_recover, primary_with, recovery_to, standby, start_could_not_restore,
    wait_for_entries, write,
};
use crate::monitoring::{check, walden};

/// `walden.restore_timeout` of these tests.
const TIMEOUT: Duration = Duration::from_secs(3);
/// What a promotion costs by itself, on a loaded machine; far below what would be lost over a hang.
const PROMOTION_MAX: Duration = Duration::from_secs(5);

/// A server that archives into the directory that the module restores from.
fn archiving<'lab>(lab: &'lab Lab, module: &CModule) -> Result<Cluster<'lab>> {
    let settings = lab.settings().with("archive_mode", "on").with(
        "archive_command",
        &format!("cp %p {}/%f", module.archive.text()),
    );
    primary_with(lab, SMALL_MB, settings)
}

/// A server that recovers through the module.
fn recovering(lab: &Lab, module: &CModule) -> Result<Settings> {
    lab.require_library("walden")?;
    let timeout = format!("{}s", TIMEOUT.as_secs());
    Ok(module.found_with(
        lab.settings()
            .with("shared_preload_libraries", "walden")
            .with("walden.restore_library", "plain")
            .with("walden.restore_timeout", &timeout),
    ))
}

#[test]
fn a_promotion_waits_for_a_hanging_module_no_longer_than_the_restore_timeout() -> Result<()> {
    scenario(|lab| {
        let module = CModule::build(lab, "plain")?;
        let primary = archiving(lab, &module)?;
        let backup = primary.base_backup("backup")?;
        let standby = standby(lab, "standby", &backup, recovering(lab, &module)?)?;
        write(&primary, 1)?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 1)?;
        let worker = standby.wait_for_process("recovery worker")?;

        let mark = standby.mark()?;
        module.misbehave("hang")?;
        wait_until("the module to hang", || {
            Ok(module.said(&standby.log(mark)?).contains(&"hangs"))
        })?;
        let begun = Instant::now();
        standby.sql("select pg_promote(wait => false)")?;
        standby.wait_until_promoted()?;
        let took = begun.elapsed();
        assert!(took < TIMEOUT + PROMOTION_MAX, "promotion took {took:?}");
        standby.wait_for_log(mark, &["has not answered within"])?;
        write(&standby, 2)?;

        // The same worker is there, and goes on when its module does.
        module.behave()?;
        wait_until("the module to go on", || {
            Ok(module.said(&standby.log(mark)?).contains(&"goes on"))
        })?;
        assert_eq!(standby.wait_for_process("recovery worker")?.pid, worker.pid);
        standby.stop(Shutdown::Fast)?;
        Ok(())
    })
}

#[test]
fn a_promotion_waits_for_a_module_that_hangs_as_it_begins_no_longer_than_the_restore_timeout()
-> Result<()> {
    scenario(|lab| {
        let module = CModule::build(lab, "plain")?;
        let primary = archiving(lab, &module)?;
        let backup = primary.base_backup("backup")?;
        let standby = standby(lab, "standby", &backup, recovering(lab, &module)?)?;
        write(&primary, 1)?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 1)?;
        let worker = standby.wait_for_process("recovery worker")?;
        let mark = standby.mark()?;
        module.misbehave("start")?;
        worker.signal(Signal::TERM)?;
        wait_until("the next worker's module to hang", || {
            Ok(module.said(&standby.log(mark)?).contains(&"hangs"))
        })?;
        let begun = Instant::now();
        standby.sql("select pg_promote(wait => false)")?;
        standby.wait_until_promoted()?;
        let took = begun.elapsed();
        assert!(took < TIMEOUT + PROMOTION_MAX, "promotion took {took:?}");
        standby.wait_for_log(mark, &["are still being loaded"])?;
        module.behave()?;
        standby.stop(Shutdown::Fast)?;
        Ok(())
    })
}

#[test]
fn a_module_that_is_interrupted_by_the_end_of_the_server_is_told_of_it_and_so_are_the_others()
-> Result<()> {
    scenario(|lab| {
        let (waits, other) = (CModule::build(lab, "plain")?, CModule::build(lab, "other")?);
        let primary = archiving(lab, &waits)?;
        let backup = primary.base_backup("backup")?;
        let settings = other.found_with(recovering(lab, &waits)?);
        let settings = settings.with("walden.recovery_end_library", "other");
        let standby = standby(lab, "standby", &backup, settings)?;
        let mark = standby.mark()?;
        waits.misbehave("wait")?;
        wait_until("the module to wait", || {
            Ok(waits.said(&standby.log(mark)?).contains(&"hangs"))
        })?;
        standby.stop(Shutdown::Fast)?;
        let log = standby.log(mark)?;
        for module in [&waits, &other] {
            let ends = |line: &&&str| **line == "ends recovery";
            assert_eq!(module.said(&log).iter().filter(ends).count(), 1, "{log}");
        }
        Ok(())
    })
}

/// The view, the screen, the metrics and the check say that the module has not come back.
fn must_be_shown_to_hang(lab: &Lab, standby: &Cluster) -> Result<()> {
    let row =
        "select state, called_module, called_for, called_file is not null from walden.recovery";
    standby.wait_for_sql(row, "hanging|plain|restore|t")?;
    let said = "recovery module \"plain\" has not come back for ";
    let text = walden(lab, standby, &["status"])?;
    ensure!(text.contains(&format!("HANGING: {said}")), "{text}");
    let page = walden(lab, standby, &["metrics"])?;
    ensure!(page.contains("walden_restore_hanging 1\n"), "{page}");
    let (code, text) = check(lab, standby, &[])?;
    assert_eq!(code, Some(1), "{text}");
    ensure!(text.contains(&format!("FAILED   {said}")), "{text}");
    Ok(())
}

#[test]
fn a_standby_goes_on_once_its_hanging_module_does() -> Result<()> {
    scenario(|lab| {
        let module = CModule::build(lab, "plain")?;
        let primary = archiving(lab, &module)?;
        primary.create_walden_views(lab)?;
        let backup = primary.base_backup("backup")?;
        let standby = standby(lab, "standby", &backup, recovering(lab, &module)?)?;
        let mark = standby.mark()?;
        module.misbehave("hang")?;
        write(&primary, 1)?;
        primary.archive_everything()?;
        standby.wait_for_log(mark, &["has not answered within"])?;
        must_be_shown_to_hang(lab, &standby)?;
        module.behave()?;
        wait_for_entries(&standby, 1)?;
        let row = "select state <> 'hanging' and called_module is null from walden.recovery";
        standby.wait_for_sql(row, "t")?;
        let leftovers = std::fs::read_dir(standby.data().join("pg_wal"))?
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("pgsql_tmp"))
            .count();
        assert_eq!(leftovers, 0, "the late module left a file behind");
        Ok(())
    })
}

#[test]
fn targeted_recovery_with_a_hanging_module_stops_in_time_and_completes_later() -> Result<()> {
    scenario(|lab| {
        let module = CModule::build(lab, "plain")?;
        let primary = archiving(lab, &module)?;
        let Lost {
            backup,
            contents: before,
            ..
        } = primary.lose(4)?;

        let recovered = recovery_to(lab, &backup, recovering(lab, &module)?, "goal")?;
        module.misbehave("hang")?;
        let begun = Instant::now();
        recovered.launch()?;
        let mark = Mark::default();
        recovered.wait_for_log(mark, &["FATAL", "could not restore file"])?;
        let took = begun.elapsed();
        assert!(took < TIMEOUT + PROMOTION_MAX, "it stopped after {took:?}");
        // The server's end waits for the worker, as for any process that heeds no interrupts.
        module.behave()?;
        recovered.wait_for_end()?;
        assert!(recovered.data().join("recovery.signal").exists());
        let recovered_log = recovered.log(mark)?;
        assert!(
            recovered_log.contains("has not answered within"),
            "{recovered_log}"
        );

        must_recover(&recovered, &before)
    })
}

#[test]
fn a_module_that_crashes_takes_no_data_with_it() -> Result<()> {
    scenario(|lab| {
        let module = CModule::build(lab, "plain")?;
        let primary = archiving(lab, &module)?;
        let Lost {
            backup,
            contents: before,
            ..
        } = primary.lose(4)?;

        let settings = recovering(lab, &module)?.with("restart_after_crash", "off");
        let recovered = recovery_to(lab, &backup, settings, "goal")?;
        module.misbehave("crash")?;
        recovered.launch()?;
        recovered.wait_for_end()?;
        let log = recovered.log(Mark::default())?;
        assert!(log.contains("terminated by signal 11"), "{log}");
        assert!(recovered.data().join("recovery.signal").exists(), "{log}");
        assert!(!recovered.data().join("pg_wal/00000002.history").exists());

        module.behave()?;
        must_recover(&recovered, &before)
    })
}

#[test]
fn recovery_with_a_module_that_raises_an_error_from_c_stops_with_its_words() -> Result<()> {
    scenario(|lab| {
        let module = CModule::build(lab, "plain")?;
        let primary = archiving(lab, &module)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=2)?;
        primary.sql("select pg_create_restore_point('goal')")?;
        primary.archive_everything()?;
        primary.stop(Shutdown::Immediate)?;
        let recovered = recovery_to(lab, &backup, recovering(lab, &module)?, "goal")?;
        module.misbehave("error")?;
        let log = start_could_not_restore(&recovered, "")?;
        assert!(log.contains("plain was asked to raise an error"), "{log}");
        assert!(recovered.data().join("recovery.signal").exists());
        Ok(())
    })
}
