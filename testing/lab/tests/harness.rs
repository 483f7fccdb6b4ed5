//! The harness itself, proved on plain PostgreSQL without Walden: what fails here is no fault of Walden.

use anyhow::Result;
use lab::{ArchiveDir, Lab, Settings, Shutdown, scenario, wait_until};
use rustix::process::Signal;

fn copying_settings(lab: &Lab, archive: &ArchiveDir) -> Settings {
    let dir = archive.text();
    lab.settings()
        .with("archive_mode", "on")
        .with("archive_command", &format!("cp %p {dir}/%f"))
        .with("restore_command", &format!("cp {dir}/%f %p"))
}

#[test]
fn a_plain_server_recovers_to_a_restore_point_from_a_copied_archive() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = lab.cluster("primary", 1, copying_settings(lab, &archive))?;
        primary.start()?;
        primary.pgbench(&["-i", "-s", "1", "-q"])?;
        let backup = primary.base_backup("backup")?;
        primary.pgbench(&["-t", "50", "-n"])?;
        let before = primary.contents()?;
        primary.sql("select pg_create_restore_point('here'); drop table pgbench_accounts;")?;
        primary.archive_everything()?;
        primary.stop(Shutdown::Immediate)?;

        let settings = copying_settings(lab, &archive)
            .with("recovery_target_name", "here")
            .with("recovery_target_action", "promote");
        let recovered = lab.restored("recovered", &backup, settings)?;
        recovered.touch("recovery.signal")?;
        recovered.start()?;
        recovered.wait_until_promoted()?;
        assert_eq!(recovered.contents()?, before);
        assert_eq!(before.len(), 4, "all four tables of pgbench");
        Ok(())
    })
}

#[test]
fn a_plain_standby_follows_a_copied_archive() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = lab.cluster("primary", 1, copying_settings(lab, &archive))?;
        primary.start()?;
        let backup = primary.base_backup("backup")?;
        let standby = lab.restored("standby", &backup, copying_settings(lab, &archive))?;
        standby.touch("standby.signal")?;
        standby.start()?;
        primary.sql("create table t(i int); insert into t values (7);")?;
        primary.archive_everything()?;
        standby.wait_for_sql("select i from t", "7")?;
        Ok(())
    })
}

#[test]
fn a_killed_server_leaves_no_process_and_starts_again() -> Result<()> {
    scenario(|lab| {
        let server = lab.cluster("server", 16, lab.settings())?;
        server.start()?;
        server.sql("create table t(i int)")?;
        server.kill()?;
        server.start()?;
        let mark = server.mark()?;
        server
            .wait_for_process("checkpointer")?
            .signal(Signal::KILL)?;
        server.wait_for_log(mark, &["checkpointer", "terminated by signal 9"])?;
        server.wait_for_sql("select count(*) from t", "0")?;
        let took = server.stop(Shutdown::Fast)?;
        assert!(took.as_secs() < 30, "took {took:?}");
        assert!(!server.is_running()?);
        Ok(())
    })
}

#[test]
fn a_foreign_cluster_has_another_system_identifier() -> Result<()> {
    scenario(|lab| {
        let query = "select system_identifier from pg_control_system()";
        let one = lab.cluster("one", 1, lab.settings())?;
        let same = lab.cluster("same", 1, lab.settings())?;
        let other = lab.foreign_cluster("other", 1, lab.settings())?;
        for server in [&one, &same, &other] {
            server.start()?;
        }
        assert_eq!(one.sql(query)?, same.sql(query)?);
        assert_ne!(one.sql(query)?, other.sql(query)?);
        Ok(())
    })
}

#[test]
fn a_refused_setting_ends_the_start_with_its_message() -> Result<()> {
    scenario(|lab| {
        let server = lab.cluster("server", 1, lab.settings().with("max_connections", "many"))?;
        let log = server.start_refused()?;
        assert!(log.contains("max_connections"), "{log}");
        server.configure(|settings| settings.set("max_connections", "11"))?;
        server.start()?;
        server.reload(|settings| settings.set("work_mem", "5MB"))?;
        wait_until("the reloaded setting", || {
            Ok(server.sql("show work_mem")? == "5MB")
        })
    })
}
