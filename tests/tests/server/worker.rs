//! The recovery worker's own life: told to end, busy with something slow.

use std::process::Stdio;

use anyhow::Result;
use lab::{Lost, Mark, Shutdown, run, scenario, wait_until};
use rustix::process::Signal;

use crate::common::{
    SMALL_MB, primary, recovery_settings, recovery_to, restored_since, standby, start_and_hold,
    wait_for_entries, write,
};

#[test]
fn a_worker_that_is_told_to_end_is_started_again() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let standby = standby(lab, "standby", &backup, recovery_settings(lab, &archive)?)?;
        write(&primary, 1)?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 1)?;
        let worker = standby.wait_for_process("recovery worker")?;
        worker.signal(Signal::TERM)?;
        wait_until("another worker", || {
            let workers = standby.processes("recovery worker")?;
            Ok(workers.iter().any(|other| other.pid != worker.pid))
        })?;
        write(&primary, 2)?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 2)?;
        let fatal = standby.logged(Mark::default(), &["FATAL"])?;
        assert!(fatal.is_empty(), "{fatal:?}");
        Ok(())
    })
}

#[test]
fn ending_the_worker_while_it_retries_does_not_stop_targeted_recovery() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let Lost {
            backup,
            contents: before,
            segments,
        } = primary.lose(20)?;
        let recovered = recovery_to(lab, &backup, recovery_settings(lab, &archive)?, "goal")?;
        let startup = start_and_hold(&recovered, 3)?;
        let away = lab.dir().join("unmounted");
        std::fs::rename(archive.path(), &away)?;
        startup.signal(Signal::CONT)?;
        recovered.wait_for_log(Mark::default(), &["WARNING", "could not restore file"])?;
        assert!(restored_since(&recovered, Mark::default())?.len() < segments.len());
        let worker = recovered.wait_for_process("recovery worker")?;
        worker.signal(Signal::TERM)?;
        wait_until("the worker to be gone", || Ok(!worker.is_alive()))?;
        std::fs::rename(&away, archive.path())?;
        recovered.wait_until_promoted()?;
        assert_eq!(recovered.contents()?, before);
        Ok(())
    })
}

#[test]
fn a_slow_archive_cleanup_does_not_make_a_restore_fail() -> Result<()> {
    scenario(|lab| {
        lab.require_library("misbehave")?;
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=5)?;
        primary.sql("checkpoint; select pg_create_restore_point('goal')")?;
        let before = primary.contents()?;
        primary.archive_everything()?;
        primary.stop(Shutdown::Immediate)?;
        // The cleanup takes eight seconds, a request may take six.
        let settings = recovery_settings(lab, &archive)?
            .with("walden.restore_timeout", "1s")
            .with("walden.archive_cleanup_library", "misbehave")
            .with("misbehave.mode", "slow");
        // As a standby: during targeted recovery nothing is cleaned up.
        let settings = settings
            .with("recovery_target_name", "goal")
            .with("recovery_target_action", "pause");
        let recovered = standby(lab, "recovered", &backup, settings)?;
        recovered.wait_for_sql("select pg_get_wal_replay_pause_state()", "paused")?;
        let mut checkpoint = recovered
            .client("psql")
            .args(["-Xc", "checkpoint", "postgres"])
            .stdout(Stdio::null())
            .spawn()?;
        recovered.wait_for_process("archive-cleanup")?;
        recovered.sql("select pg_wal_replay_resume()")?;
        recovered.wait_until_promoted()?;
        assert_eq!(recovered.contents()?, before);
        checkpoint.wait()?;
        Ok(())
    })
}

#[test]
fn a_worker_without_the_directory_of_its_socket_names_it() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = lab.cluster("server", SMALL_MB, recovery_settings(lab, &archive)?)?;
        std::fs::remove_dir_all(server.data().join("pg_stat_tmp"))?;
        server.start()?;
        let words = ["directory \"pg_stat_tmp\" is missing", "HINT"];
        server.wait_for_log(Mark::default(), &words)?;
        Ok(())
    })
}

#[test]
fn a_configuration_directory_of_its_own_works_for_the_wired_and_the_documented_command()
-> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let lost = primary.lose(3)?;
        for (name, by_library) in [("wired", true), ("documented", false)] {
            let mut settings = recovery_settings(lab, &archive)?.with("archive_mode", "off");
            if !by_library {
                settings.remove("walden.restore_library");
                settings.set("restore_command", "walden restore -D . \"%f\" \"%p\"");
            }
            let recovered = lab.restored(name, &lost.backup, settings)?;
            recovered.touch("recovery.signal")?;
            recovered.move_configuration()?;
            recovered.start()?;
            recovered.wait_until_promoted()?;
            assert_eq!(recovered.contents()?, lost.contents, "{name}");
            if by_library {
                // What the server runs where there is no worker: the client reads the configuration itself.
                let show = recovered.sql("show restore_command")?;
                let dest = recovered.data().join("pg_wal/RECOVERYXLOG");
                let command = show
                    .replace("%f", &lost.segments[0])
                    .replace("%p", "pg_wal/RECOVERYXLOG")
                    .replace("%r", "000000000000000000000000");
                recovered.stop(Shutdown::Fast)?;
                let mut shell = lab.server_command("sh");
                shell.args(["-c", &command]).current_dir(recovered.data());
                run(&mut shell)?.success()?;
                assert!(dest.is_file());
            }
        }
        Ok(())
    })
}
