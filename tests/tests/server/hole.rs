//! A segment is missing from the middle of the archive.

use std::path::PathBuf;

use anyhow::Result;
use lab::{ArchiveDir, Lab, Mark, Settings, Shutdown, scenario};

use crate::common::{
    SHORT_RESTORE_TIMEOUT, SMALL_MB, check_not_promoted, primary, recovery_of, recovery_settings,
    recovery_to, start_could_not_restore, wait_for_entries,
};

/// Settings with which a refusal does not take a minute: a hole is looked at again until the timeout.
fn settings(lab: &Lab, archive: &ArchiveDir) -> Result<Settings> {
    Ok(recovery_settings(lab, archive)?.with("walden.restore_timeout", SHORT_RESTORE_TIMEOUT))
}

/// Archives nine segments with one entry each, loses the primary and the fifth segment; answers with
/// the base backup and the names of the nine.
fn archive_with_a_hole(lab: &Lab, archive: &ArchiveDir) -> Result<(PathBuf, Vec<String>)> {
    let primary = primary(lab, archive, SMALL_MB)?;
    let backup = primary.base_backup("backup")?;
    let segments = primary.write_segments(1..=9)?;
    primary.sql("select pg_create_restore_point('goal')")?;
    primary.archive_everything()?;
    primary.stop(Shutdown::Immediate)?;
    let fifth = segments
        .get(4)
        .map(|name| archive.stored(name))
        .transpose()?
        .unwrap_or_default();
    std::fs::remove_file(fifth)?;
    Ok((backup, segments))
}

#[test]
fn recovery_refuses_a_hole_naming_the_missing_segment_and_those_after_it() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (backup, segments) = archive_with_a_hole(lab, &archive)?;
        let recovered = recovery_of(lab, &backup, settings(lab, &archive)?)?;
        let log = start_could_not_restore(&recovered, &segments[4])?;
        for segment in &segments[4..] {
            assert!(log.contains(segment), "{segment} is not named:\n{log}");
        }
        check_not_promoted(lab, &recovered, &archive)
    })
}

#[test]
fn recovery_to_a_restore_point_beyond_a_hole_refuses_too() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (backup, segments) = archive_with_a_hole(lab, &archive)?;
        let recovered = recovery_to(lab, &backup, settings(lab, &archive)?, "goal")?;
        start_could_not_restore(&recovered, &segments[4])?;
        check_not_promoted(lab, &recovered, &archive)
    })
}

#[test]
fn with_missing_segment_end_recovery_ends_at_a_hole_with_a_warning() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (backup, segments) = archive_with_a_hole(lab, &archive)?;
        let settings = settings(lab, &archive)?.with("walden.missing_segment", "end");
        let recovered = recovery_of(lab, &backup, settings)?;
        recovered.start()?;
        recovered.wait_until_promoted()?;
        wait_for_entries(&recovered, 4)?;
        let warnings = recovered.logged(Mark::default(), &["WARNING", &segments[4]])?;
        assert!(!warnings.is_empty(), "{}", recovered.log(Mark::default())?);
        Ok(())
    })
}

#[test]
fn a_standby_waits_at_a_hole_and_goes_on_when_it_is_filled() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let segments = primary.write_segments(1..=9)?;
        primary.wait_until_archived()?;
        let (stored, aside) = (archive.stored(&segments[4])?, lab.dir().join("aside"));
        std::fs::rename(&stored, &aside)?;
        let standby = crate::common::standby(lab, "standby", &backup, settings(lab, &archive)?)?;
        wait_for_entries(&standby, 4)?;
        standby.wait_for_log(Mark::default(), &[&segments[4], &segments[5]])?;
        std::fs::rename(&aside, &stored)?;
        wait_for_entries(&standby, 9)
    })
}
