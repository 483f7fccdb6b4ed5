//! The module with a background worker of its own.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use lab::{ArchiveDir, Cluster, DEADLINE, Lab, Mark, Settings, Shutdown, scenario, wait_until};
use rustix::process::Signal;
use walden_examples_tests::{archiving, primary};

const PARAMETER: &str = "heartbeat.archive_directory";

fn settings(lab: &Lab, archive: &ArchiveDir) -> Result<Settings> {
    Ok(archiving(lab, "heartbeat", PARAMETER, archive)?
        .with("shared_preload_libraries", "heartbeat")
        .with("heartbeat.interval", "1s"))
}

fn state_file(server: &Cluster) -> PathBuf {
    server.data().join("pg_stat_tmp/heartbeat")
}

/// What the state file says now; nothing when there is none.
fn state(server: &Cluster) -> String {
    fs::read_to_string(state_file(server)).unwrap_or_default()
}

#[test]
fn the_worker_reports_what_is_archived_and_what_waits() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = primary(lab, settings(lab, &archive)?)?;
        let segments = server.write_segments(1..=3)?;
        server.wait_until_archived()?;
        let last = format!("last {}\n", segments[2]);
        wait_until("the last segment in the state file", || {
            Ok(state(&server).contains(&last))
        })?;
        assert!(state(&server).contains("waiting 0\n"));

        archive.set_mode(0o000)?;
        server.reload(|settings| settings.set("heartbeat.backlog_limit", "1MB"))?;
        server.write_segments(4..=6)?;
        server.wait_for_log(Mark::default(), &["WARNING", "bytes of WAL are waiting"])?;
        archive.set_mode(0o755)?;
        server.wait_until_archived()
    })
}

#[test]
fn a_reload_takes_effect_at_once_and_a_shutdown_takes_the_state_away() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let settings = settings(lab, &archive)?.with("heartbeat.interval", "1h");
        let server = primary(lab, settings)?;
        wait_until("a first state", || {
            Ok(state(&server).starts_with("beats 1\n"))
        })?;
        server.reload(|settings| settings.set("heartbeat.state_format", "json"))?;
        wait_until("a state in the new format", || {
            Ok(state(&server).starts_with("{\"beats\": 2,"))
        })?;
        let moved = server.data().join("pg_stat_tmp/elsewhere");
        server.reload(|settings| settings.set("heartbeat.state_file", "pg_stat_tmp/elsewhere"))?;
        wait_until("the state in another file", || {
            Ok(moved.exists() && !state_file(&server).exists())
        })?;
        server.stop(Shutdown::Fast)?;
        assert!(!moved.exists(), "the state of a server that is gone");
        Ok(())
    })
}

#[test]
fn a_worker_that_is_ended_comes_back_and_a_server_shutdown_does_not_wait_for_it() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = primary(lab, settings(lab, &archive)?)?;
        let ended = server.wait_for_process(": heartbeat")?;
        ended.signal(Signal::TERM)?;
        wait_until("another worker", || {
            let workers = server.processes(": heartbeat")?;
            Ok(workers.iter().any(|worker| worker.pid != ended.pid))
        })?;
        wait_until("a state", || Ok(!state(&server).is_empty()))?;
        let took = server.stop(Shutdown::Fast)?;
        assert!(took < DEADLINE / 4, "the shutdown took {took:?}");
        Ok(())
    })
}

#[test]
fn its_parameters_are_the_servers_and_beats_go_to_the_log_when_asked() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = primary(lab, settings(lab, &archive)?)?;
        assert_eq!(server.sql("show heartbeat.interval")?, "1s");
        assert_eq!(server.sql("show heartbeat.backlog_limit")?, "1GB");
        server.reload(|settings| settings.set("heartbeat.log_beats", "yes"))?;
        server.wait_for_log(Mark::default(), &["LOG", "heartbeat: ", "files archived"])?;
        Ok(())
    })
}
