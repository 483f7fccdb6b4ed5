//! A cluster that the archive does not belong to.

use std::fs;

use anyhow::Result;
use lab::{run, scenario, wait_until};

use crate::common::{
    SMALL_MB, primary, recovery_of, recovery_settings, standby, start_could_not_restore,
};

const SYSTEM_IDENTIFIER: &str = "select system_identifier from pg_control_system()";

#[test]
fn a_foreign_cluster_is_refused_before_it_writes_anything() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.write_segments(1..=3)?;
        primary.wait_until_archived()?;
        let owner = primary.sql(SYSTEM_IDENTIFIER)?;
        primary.stop(lab::Shutdown::Fast)?;
        let before = archive.snapshot()?;
        let binding = fs::read_to_string(archive.path().join("walden.json"))?;
        assert!(binding.contains(&owner), "{binding}");

        let stranger = lab.foreign_cluster("stranger", SMALL_MB, lab.walden_settings(&archive)?)?;
        stranger.start()?;
        let mark = stranger.mark()?;
        let own = stranger.sql(SYSTEM_IDENTIFIER)?;
        assert_ne!(own, owner);
        // Beyond the names of the owner, so that nothing but the binding is in the way.
        for _ in 0..8 {
            stranger.sql("create table t(i int); drop table t; select pg_switch_wal()")?;
        }
        wait_until(
            "a counted failure",
            || Ok(stranger.archive_failures()? >= 1),
        )?;
        stranger.wait_for_log(mark, &["WARNING", &own, &owner])?;
        assert_eq!(stranger.archiver("archived_count")?, "0");
        assert_eq!(archive.snapshot()?, before);
        Ok(())
    })
}

#[test]
fn an_empty_archive_belongs_to_the_first_that_archives() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.archive_everything()?;
        let owner = primary.sql(SYSTEM_IDENTIFIER)?;
        let check = run(lab
            .command("walden")
            .args(["check", "-A"])
            .arg(archive.path()))?;
        assert!(check.status.success(), "{check:?}");
        assert!(fs::read_to_string(archive.path().join("walden.json"))?.contains(&owner));
        Ok(())
    })
}

#[test]
fn a_foreign_cluster_is_not_fed_from_the_archive() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.write_segments(1..=4)?;
        primary.wait_until_archived()?;

        let elsewhere = lab.archive("elsewhere")?;
        let stranger =
            lab.foreign_cluster("stranger", SMALL_MB, lab.walden_settings(&elsewhere)?)?;
        stranger.start()?;
        let backup = stranger.base_backup("backup")?;
        let settings = recovery_settings(lab, &archive)?.with("walden.restore_timeout", "2s");
        let recovered = recovery_of(lab, &backup, settings)?;
        let log = start_could_not_restore(&recovered, "")?;
        assert!(log.contains(&primary.sql(SYSTEM_IDENTIFIER)?), "{log}");
        Ok(())
    })
}

#[test]
fn a_foreign_standby_removes_nothing_from_the_archive() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let owner = primary(lab, &archive, SMALL_MB)?;
        owner.write_segments(1..=4)?;
        owner.archive_everything()?;
        let before = archive.snapshot()?;

        // A standby of another cluster streams, so its restartpoints go on although it restores nothing.
        let settings = lab
            .settings()
            .with("wal_level", "replica")
            // It archives nothing, and a standby that is late finds its WAL nowhere else.
            .with("wal_keep_size", "64MB");
        let stranger = lab.foreign_cluster("stranger", SMALL_MB, settings)?;
        stranger.start()?;
        let backup = stranger.base_backup("stranger-backup")?;
        let socket = stranger.home().display().to_string();
        let settings = recovery_settings(lab, &archive)?
            .with("walden.archive_cleanup_library", "walden")
            .with("primary_conninfo", &format!("host={socket} user=postgres"));
        let standby = standby(lab, "standby", &backup, settings)?;
        stranger.sql("create table t(i int); insert into t values (1); checkpoint")?;
        stranger.sql("select pg_switch_wal(); insert into t values (2); checkpoint")?;
        standby.wait_for_sql("select count(*) from t", "2")?;
        let mark = standby.mark()?;
        standby.sql("checkpoint")?;
        standby.wait_for_log(
            mark,
            &["WARNING", "could not clean up the archive", "belongs to"],
        )?;
        assert_eq!(archive.snapshot()?, before);
        Ok(())
    })
}
