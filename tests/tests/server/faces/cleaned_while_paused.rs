//! A recovery to a point in time, paused at its target, with the cleanup that a standby has.

use anyhow::Result;
use lab::{Shutdown, scenario};

use crate::faces::{Case, WAYS, Way, primary};

#[test]
fn cleanup_in_a_recovery_to_a_target_removes_nothing_from_the_archive() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=4)?;
        primary.sql("checkpoint")?;
        primary.write_segments(5..=6)?;
        primary.sql("select pg_create_restore_point('goal')")?;
        primary.write_segments(7..=8)?;
        primary.wait_until_archived()?;
        let contents = primary.contents()?;
        primary.stop(Shutdown::Immediate)?;
        let before = archive.files()?;

        let case = Case::new(lab, &archive, backup);
        for way in WAYS {
            let cleanup = match way {
                Way::Library => ("walden.archive_cleanup_library", "walden"),
                Way::Command => ("archive_cleanup_command", "walden archive-cleanup %r"),
            };
            let more = [cleanup, ("recovery_target_name", "goal")];
            let paused = case.recovery(way, &more)?;
            paused.start()?;
            paused.wait_for_sql("select pg_get_wal_replay_pause_state()", "paused")?;
            let redo = "select redo_wal_file from pg_control_checkpoint()";
            let began = paused.sql(redo)?;
            paused.sql("checkpoint")?;
            assert_ne!(paused.sql(redo)?, began, "there was no restartpoint");
            paused.stop(Shutdown::Fast)?;
            assert_eq!(archive.files()?, before, "{way:?}");
        }
        // It is all still there for another try.
        case.recovers(&[], &contents)?;
        Ok(())
    })
}
