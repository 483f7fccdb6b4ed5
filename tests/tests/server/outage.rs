//! "Could not tell" is never the end of WAL: the archive becomes unreadable in the middle of recovery.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use lab::{ArchiveDir, Cluster, Contents, Lab, Lost, Settings, scenario, wait_until};
use rustix::process::Signal;

use crate::common::{
    SHORT_RESTORE_TIMEOUT, SMALL_MB, check_not_promoted, must_recover, primary, recovery_settings,
    recovery_to, restored_since, standby, start_and_hold, start_could_not_restore,
    wait_for_entries, write,
};

/// Enough segments that recovery is still under way when it is looked at.
const SEGMENTS: u32 = 40;

/// The permissions of an archive that works.
const READABLE: u32 = 0o755;

/// Archives [`SEGMENTS`] entries and the restore point `goal`, loses the primary, and answers with a
/// server about to recover, what its tables must become, and the segments.
fn lost_primary<'lab>(
    lab: &'lab Lab,
    archive: &ArchiveDir,
) -> Result<(Cluster<'lab>, Contents, Vec<String>)> {
    let primary = primary(lab, archive, SMALL_MB)?;
    let Lost {
        backup,
        contents: before,
        segments,
    } = primary.lose(SEGMENTS)?;
    let settings =
        recovery_settings(lab, archive)?.with("walden.restore_timeout", SHORT_RESTORE_TIMEOUT);
    Ok((
        recovery_to(lab, &backup, settings, "goal")?,
        before,
        segments,
    ))
}

/// Without a target the server itself would take any end of WAL for a good one, and promote.
fn without_target(settings: &mut Settings) {
    settings.remove("recovery_target_name");
}

/// The archive becomes unreadable when a few segments are restored.
fn outage_in_the_middle(change: impl FnOnce(&mut Settings)) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (recovered, before, segments) = lost_primary(lab, &archive)?;
        recovered.configure(change)?;
        let startup = start_and_hold(&recovered, 3)?;
        archive.set_mode(0o000)?;
        let mark = recovered.mark()?;
        startup.signal(Signal::CONT)?;
        recovered.wait_for_end()?;
        archive.set_mode(READABLE)?;

        let restored = restored_since(&recovered, lab::Mark::default())?;
        assert!(
            restored.len() < segments.len(),
            "recovery was over before the outage began"
        );
        let fatal = recovered.logged(mark, &["FATAL", "could not restore file"])?;
        assert!(!fatal.is_empty(), "{}", recovered.log(mark)?);
        check_not_promoted(lab, &recovered, &archive)?;

        must_recover(&recovered, &before)
    })
}

#[test]
fn targeted_recovery_stops_with_fatal_when_the_archive_becomes_unreadable() -> Result<()> {
    outage_in_the_middle(|_| ())
}

#[test]
fn recovery_without_a_target_stops_with_fatal_when_the_archive_becomes_unreadable() -> Result<()> {
    outage_in_the_middle(without_target)
}

#[test]
fn one_unreadable_segment_is_not_the_end_of_wal_either() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (recovered, before, segments) = lost_primary(lab, &archive)?;
        recovered.configure(without_target)?;
        let stored = archive.stored(&segments[4])?;
        fs::set_permissions(&stored, fs::Permissions::from_mode(0o000))?;
        start_could_not_restore(&recovered, &segments[4])?;
        check_not_promoted(lab, &recovered, &archive)?;

        fs::set_permissions(&stored, fs::Permissions::from_mode(0o644))?;
        must_recover(&recovered, &before)
    })
}

#[test]
fn a_damaged_segment_is_not_the_end_of_wal() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (recovered, before, segments) = lost_primary(lab, &archive)?;
        recovered.configure(without_target)?;
        let stored = archive.stored(&segments[4])?;
        let whole = fs::read(&stored)?;
        fs::write(&stored, &whole[..whole.len() / 2])?;
        start_could_not_restore(&recovered, &segments[4])?;
        check_not_promoted(lab, &recovered, &archive)?;

        fs::write(&stored, &whole)?;
        must_recover(&recovered, &before)
    })
}

#[test]
fn a_missing_archive_directory_is_not_the_end_of_wal() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (recovered, before, _) = lost_primary(lab, &archive)?;
        recovered.configure(without_target)?;
        let away = lab.dir().join("unmounted");
        fs::rename(archive.path(), &away)?;
        let log = start_could_not_restore(&recovered, "")?;
        assert!(log.contains(&archive.text()), "{log}");
        fs::rename(&away, archive.path())?;
        must_recover(&recovered, &before)
    })
}

#[test]
fn a_standby_stays_up_through_an_outage_and_goes_on_by_itself() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let settings =
            recovery_settings(lab, &archive)?.with("walden.restore_timeout", SHORT_RESTORE_TIMEOUT);
        let standby = standby(lab, "standby", &backup, settings)?;
        write(&primary, 1)?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 1)?;

        let mark = standby.mark()?;
        archive.set_mode(0o000)?;
        write(&primary, 2)?;
        primary.switch_segment()?;
        wait_until("the primary to count failures", || {
            Ok(primary.archive_failures()? >= 1)
        })?;
        wait_until("the standby to say twice that it could not tell", || {
            Ok(standby.logged(mark, &["could not"])?.len() >= 2)
        })?;
        assert_eq!(standby.sql("select count(*) from ledger")?, "1");
        archive.set_mode(READABLE)?;

        // A new segment wakes the archiver, which may pause for a minute after three failures.
        write(&primary, 3)?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 3)?;
        standby.wait_for_log(mark, &["LOG", "the archive answers again"])?;
        assert!(standby.is_running()?);
        assert_eq!(standby.sql("select pg_is_in_recovery()")?, "t");
        let fatal = standby.logged(lab::Mark::default(), &["FATAL"])?;
        assert!(fatal.is_empty(), "{fatal:?}");
        Ok(())
    })
}
