//! A history file in the middle is lost, and all WAL is there: recovery to the last timeline by number needs it only for a
//! copy of its own.

use std::fs;

use anyhow::{Context, Result};
use lab::{Shutdown, scenario};

use crate::common::write;
use crate::faces::{Case, plain, primary};

#[test]
fn a_lost_history_file_in_the_middle_stops_recovery_to_latest_and_not_to_a_number() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let first = primary(lab, &archive)?;
        let backup = first.base_backup("backup")?;
        first.write_segments(1..=2)?;
        first.wait_until_archived()?;
        first.stop(Shutdown::Immediate)?;
        let settings = plain(lab, &archive)?.with("walden.restore_library", "walden");
        let mut contents = None;
        for timeline in 2..=4 {
            let name = format!("timeline{timeline}");
            let next = lab.restored(&name, &backup, settings.clone())?;
            next.touch("recovery.signal")?;
            next.start()?;
            next.wait_until_promoted()?;
            write(&next, timeline + 1)?;
            next.archive_everything()?;
            contents = Some(next.contents()?);
            next.stop(Shutdown::Immediate)?;
        }
        let contents = contents.context("three timelines")?;
        let stored = archive.stored("00000003.history")?;
        let third = fs::read_to_string(&stored)?;
        fs::remove_file(&stored)?;

        let case = Case::new(lab, &archive, backup);
        case.refuses(&[], "00000003.history", &[])?;
        case.recovers(&[("recovery_target_timeline", "4")], &contents)?;

        // The other way out: the next one's file begins with it.
        let fourth = fs::read_to_string(archive.stored("00000004.history")?)?;
        let (rebuilt, _) = fourth
            .split_once("\n3\t")
            .context("timeline 4 left timeline 3")?;
        assert_eq!(rebuilt, third);
        fs::write(&stored, rebuilt)?;
        lab.own(&stored)?;
        case.recovers(&[], &contents)?;
        Ok(())
    })
}
