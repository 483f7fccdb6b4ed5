//! Promotion while the archive cannot be reached: the server must neither stop nor be held up, and says what it
//! could not know.

use std::time::{Duration, Instant};

use anyhow::Result;
use lab::{ArchiveDir, Cluster, Lab, Mark, Shutdown, scenario};

use crate::common::{SMALL_MB, primary, recovery_settings, standby, wait_for_entries, write};

/// How long a promotion may take: far less than the time for which "could not tell" is retried elsewhere.
const PROMPTLY: Duration = Duration::from_secs(30);

/// A standby that has replayed everything, without its primary and without its archive, which has been moved
/// away as if its file system were not mounted.
fn orphan<'lab>(lab: &'lab Lab, archive: &ArchiveDir) -> Result<Cluster<'lab>> {
    let primary = primary(lab, archive, SMALL_MB)?;
    let backup = primary.base_backup("backup")?;
    let standby = standby(lab, "standby", &backup, recovery_settings(lab, archive)?)?;
    primary.write_segments(1..=3)?;
    primary.wait_until_archived()?;
    wait_for_entries(&standby, 3)?;
    primary.stop(Shutdown::Immediate)?;
    let mark = standby.mark()?;
    std::fs::rename(archive.path(), lab.dir().join("unmounted"))?;
    standby.wait_for_log(mark, &["WARNING", "could not restore file"])?;
    Ok(standby)
}

#[test]
fn a_standby_promoted_during_an_outage_lives_on_a_timeline_of_its_own() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let standby = orphan(lab, &archive)?;
        let begun = Instant::now();
        standby.sql("select pg_promote(wait => false)")?;
        standby.wait_until_promoted()?;
        assert!(
            begun.elapsed() < PROMPTLY,
            "promotion took {:?}",
            begun.elapsed()
        );
        write(&standby, 4)?;
        let timeline = "select timeline_id from pg_control_checkpoint()";
        standby.sql("checkpoint")?;
        assert_eq!(standby.sql(timeline)?, "2");

        // And after a restart it is still there, not back on the old one.
        standby.stop(Shutdown::Immediate)?;
        standby.start()?;
        assert_eq!(standby.sql("select pg_is_in_recovery()")?, "f");
        write(&standby, 5)?;
        let segment = standby.sql("select pg_walfile_name(pg_current_wal_lsn())")?;
        assert!(segment.starts_with("00000002"), "{segment}");

        // When the archive is back everything that waited goes there.
        std::fs::rename(lab.dir().join("unmounted"), archive.path())?;
        standby.archive_everything()?;
        assert!(archive.has("00000002.history")?);
        Ok(())
    })
}

#[test]
fn a_promotion_during_an_outage_is_warned_about() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let standby = orphan(lab, &archive)?;
        let mark = standby.mark()?;
        standby.sql("select pg_promote(wait => false)")?;
        standby.wait_until_promoted()?;
        standby.wait_for_log(mark, &["WARNING", "archived WAL may have been left behind"])?;
        standby.wait_for_log(mark, &["WARNING", "timeline may have the number"])?;
        Ok(())
    })
}

#[test]
fn a_promotion_with_the_archive_at_hand_is_not_warned_about() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let settings = recovery_settings(lab, &archive)?
            .with("walden.recovery_end_library", "walden")
            .with("log_min_messages", "debug1");
        let standby = standby(lab, "standby", &backup, settings)?;
        primary.write_segments(1..=2)?;
        primary.wait_until_archived()?;
        wait_for_entries(&standby, 2)?;
        primary.stop(Shutdown::Immediate)?;
        standby.sql("select pg_promote(wait => false)")?;
        standby.wait_until_promoted()?;
        standby.wait_for_log(Mark::default(), &["recovery has ended"])?;
        let warnings = standby.logged(Mark::default(), &["WARNING"])?;
        assert!(warnings.is_empty(), "{warnings:?}");
        Ok(())
    })
}
