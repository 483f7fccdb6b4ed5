//! A segment is in the archive, in a form that Walden does not read: there it is all the same.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use lab::{Contents, Lab, Mark, Shutdown, run, scenario};

use crate::common::wait_for_entries;
use crate::faces::{Case, WAYS, primary};

struct Archived<'lab> {
    case: Case<'lab>,
    segments: Vec<String>,
    contents: Contents,
}

/// Six entries in a segment each; the primary is lost.
fn archived(lab: &Lab) -> Result<Archived<'_>> {
    let archive = lab.archive("archive")?;
    let primary = primary(lab, &archive)?;
    let backup = primary.base_backup("backup")?;
    let segments = primary.write_segments(1..=6)?;
    primary.wait_until_archived()?;
    let contents = primary.contents()?;
    primary.stop(Shutdown::Immediate)?;
    Ok(Archived {
        case: Case::new(lab, &archive, backup),
        segments,
        contents,
    })
}

impl Archived<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.case.archive.path().join(name)
    }

    /// Compresses a stored segment with a program that Walden knows nothing of.
    fn gzip(&self, segment: &str) -> Result<()> {
        self.filter(&["--no-name", segment])
    }

    fn gunzip(&self, segment: &str) -> Result<()> {
        self.filter(&["--decompress", segment])
    }

    fn filter(&self, arguments: &[&str]) -> Result<()> {
        let mut gzip = self.case.lab.server_command("gzip");
        run(gzip.args(arguments).current_dir(self.case.archive.path()))?.success()?;
        Ok(())
    }
}

#[test]
fn a_segment_stored_as_gz_in_the_middle_is_not_the_end_of_wal() -> Result<()> {
    scenario(|lab| {
        let it = archived(lab)?;
        it.gzip(&it.segments[3])?;
        let named = format!("{}.gz", it.segments[3]);
        it.case.refuses(&[], &it.segments[3], &[&named])?;
        let audit = it.case.audit()?;
        audit.finds("error", "unreadable", &named)?;
        audit.finds("error", "missing", &it.segments[3])?;
        audit.stops_at(1, &it.segments[3], &it.segments[3])?;
        it.gunzip(&it.segments[3])?;
        it.case.recovers(&[], &it.contents)?;
        Ok(())
    })
}

#[test]
fn the_last_segments_stored_as_gz_are_not_the_end_of_wal_and_a_standby_waits_for_them() -> Result<()>
{
    scenario(|lab| {
        let it = archived(lab)?;
        for segment in &it.segments[3..] {
            it.gzip(segment)?;
        }
        let named = format!("{}.gz", it.segments[3]);
        it.case.refuses(&[], &it.segments[3], &[&named])?;
        let audit = it.case.audit()?;
        audit.finds("error", "unreadable", &named)?;
        audit.stops_at(1, &it.segments[3], "")?;
        let standbys = WAYS
            .into_iter()
            .map(|way| it.case.standby(way, &[]))
            .collect::<Result<Vec<_>>>()?;
        for standby in &standbys {
            standby.wait_for_log(Mark::default(), &[&named])?;
            wait_for_entries(standby, 3)?;
        }
        for segment in &it.segments[3..] {
            it.gunzip(segment)?;
        }
        for standby in &standbys {
            wait_for_entries(standby, 6)?;
        }
        Ok(())
    })
}

#[test]
fn a_segment_with_a_suffix_in_capitals_is_not_the_end_of_wal() -> Result<()> {
    scenario(|lab| {
        let it = archived(lab)?;
        let last = &it.segments[5];
        let named = format!("{last}.ZST");
        fs::rename(it.path(last), it.path(&named))?;
        it.case.refuses(&[], last, &[&named])?;
        fs::rename(it.path(&named), it.path(last))?;
        it.case.recovers(&[], &it.contents)?;
        Ok(())
    })
}

#[test]
fn a_history_file_stored_as_gz_is_not_a_timeline_that_does_not_exist() -> Result<()> {
    scenario(|lab| {
        let it = archived(lab)?;
        let settings = crate::faces::plain(lab, &it.case.archive)?
            .with("walden.restore_library", "walden")
            .with("recovery_target_action", "promote");
        let second = lab.restored("second", &it.case.backup, settings)?;
        second.touch("recovery.signal")?;
        second.start()?;
        second.wait_until_promoted()?;
        second.write_segments(7..=8)?;
        second.wait_until_archived()?;
        let contents = second.contents()?;
        second.stop(Shutdown::Immediate)?;
        ensure!(it.case.archive.has("00000002.history")?);

        it.gzip("00000002.history")?;
        it.case
            .refuses(&[], "00000002.history", &["00000002.history.gz"])?;
        it.gunzip("00000002.history")?;
        it.case.recovers(&[], &contents)?;
        Ok(())
    })
}
