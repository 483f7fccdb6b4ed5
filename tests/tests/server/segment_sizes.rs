//! Other segment sizes than the default, and two servers on one archive.

use anyhow::Result;
use lab::{Shutdown, scenario, wait_until};

use crate::common::{
    SMALL_MB, must_recover, primary, recovery_settings, recovery_to, standby, wait_for_entries,
    write,
};

/// The whole cycle with one segment size.
fn cycle(mb: u32, entries: u32) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, mb)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=entries)?;
        primary.pgbench(&["-i", "-q", "-s", "1"])?;
        let before = primary.contents()?;
        primary.sql("select pg_create_restore_point('goal'); drop table ledger;")?;
        let last = primary.archive_everything()?;
        assert_eq!(primary.archive_failures()?, 0);
        assert_eq!(
            lab.fetch(&archive, &last)?.len(),
            usize::try_from(mb)? * 1024 * 1024
        );
        primary.stop(Shutdown::Immediate)?;
        let recovered = recovery_to(lab, &backup, recovery_settings(lab, &archive)?, "goal")?;
        must_recover(&recovered, &before)
    })
}

#[test]
fn segments_of_1_mb_are_archived_and_restored() -> Result<()> {
    cycle(1, 6)
}

#[test]
fn segments_of_64_mb_are_archived_and_restored() -> Result<()> {
    cycle(64, 3)
}

#[test]
fn a_standby_with_archive_mode_always_shares_the_archive_of_its_primary() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        // Streaming, so that the standby often offers a segment before or while the primary does.
        let conninfo = format!("host={} user=postgres", primary.home().display());
        let settings = recovery_settings(lab, &archive)?
            .with("archive_mode", "always")
            .with("primary_conninfo", &conninfo);
        let standby = standby(lab, "standby", &backup, settings)?;
        primary.wait_for_sql("select count(*) from pg_stat_replication", "1")?;
        let segments = primary.write_segments(1..=12)?;
        primary.wait_until_archived()?;
        wait_for_entries(&standby, 12)?;
        wait_until("the standby to archive the last segment too", || {
            Ok(standby.archiver("last_archived_wal")? >= segments[11])
        })?;
        standby.wait_until_archived()?;
        assert_eq!(primary.archive_failures()?, 0);
        assert_eq!(standby.archive_failures()?, 0);
        for segment in &segments {
            let copies = archive
                .segments()?
                .iter()
                .filter(|name| *name == segment)
                .count();
            assert_eq!(copies, 1, "{segment} in {:?}", archive.keys()?);
        }

        // Promoted, it goes on in the same archive, which now holds both timelines.
        primary.stop(Shutdown::Fast)?;
        standby.sql("select pg_promote()")?;
        standby.wait_until_promoted()?;
        write(&standby, 13)?;
        standby.archive_everything()?;
        assert_eq!(standby.archive_failures()?, 0);
        assert!(archive.has("00000002.history")?);
        assert_eq!(archive.strangers()?, Vec::<String>::new());
        Ok(())
    })
}
