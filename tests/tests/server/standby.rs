//! A standby fed only by the archive: it follows, cleans up, is promoted.

use anyhow::Result;
use lab::{ArchiveDir, Lab, Settings, Shutdown, scenario, wait_until};

use crate::common::{SMALL_MB, primary, recovery_settings, standby, wait_for_entries, write};

fn standby_settings(lab: &Lab, archive: &ArchiveDir) -> Result<Settings> {
    Ok(recovery_settings(lab, archive)?
        .with("walden.archive_cleanup_library", "walden")
        .with("walden.recovery_end_library", "walden"))
}

#[test]
fn a_standby_fed_only_by_the_archive_follows_its_primary() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let standby = standby(lab, "standby", &backup, standby_settings(lab, &archive)?)?;
        for entry in 1..=5 {
            write(&primary, entry)?;
            primary.archive_everything()?;
            wait_for_entries(&standby, entry)?;
        }
        assert_eq!(standby.contents()?, primary.contents()?);
        Ok(())
    })
}

#[test]
fn a_restartpoint_removes_what_no_restart_needs_and_nothing_else() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let standby = standby(lab, "standby", &backup, standby_settings(lab, &archive)?)?;
        primary.write_segments(1..=5)?;
        primary.sql("checkpoint")?;
        write(&primary, 6)?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 6)?;
        let before = archive.files()?;
        let backup_history: Vec<_> = before
            .iter()
            .filter(|name| name.ends_with(".backup"))
            .collect();
        assert_eq!(backup_history.len(), 1, "{before:?}");

        let mark = standby.mark()?;
        standby.sql("checkpoint")?;
        let oldest_needed = standby.sql("select redo_wal_file from pg_control_checkpoint()")?;
        wait_until(
            "the archive to begin with the restartpoint's segment",
            || Ok(archive.segments()?.first() == Some(&oldest_needed)),
        )?;
        let expected: Vec<_> = before
            .iter()
            .filter(|name| name.contains('.') || name.as_str() >= oldest_needed.as_str())
            .cloned()
            .collect();
        assert_eq!(archive.files()?, expected);
        let first = before.iter().find(|name| !name.contains('.'));
        let removed = ["LOG", "removed", first.map_or("", String::as_str)];
        standby.wait_for_log(mark, &removed)?;

        // What is left is enough to go on with, and to start again with.
        standby.stop(Shutdown::Fast)?;
        standby.start()?;
        write(&primary, 7)?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 7)
    })
}

#[test]
fn promotion_archives_the_partial_segment_the_history_and_the_new_timeline() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let settings = standby_settings(lab, &archive)?.with("log_min_messages", "debug1");
        let standby = standby(lab, "standby", &backup, settings)?;
        primary.write_segments(1..=3)?;
        primary.wait_until_archived()?;
        wait_for_entries(&standby, 3)?;

        // The primary is lost in the middle of a segment, which somebody saves by hand: only so does a
        // standby without streaming end inside a segment.
        write(&primary, 4)?;
        let unfinished = primary.sql("select pg_walfile_name(pg_current_wal_lsn())")?;
        primary.stop(Shutdown::Immediate)?;
        let saved = primary.data().join("pg_wal").join(&unfinished);
        lab.copy(&saved, &standby.data().join("pg_wal").join(&unfinished))?;
        wait_for_entries(&standby, 4)?;

        let mark = standby.mark()?;
        standby.sql("select pg_promote()")?;
        standby.wait_until_promoted()?;
        standby.wait_for_log(mark, &["recovery has ended"])?;
        write(&standby, 5)?;
        let first_of_new = standby.archive_everything()?;
        assert!(first_of_new.starts_with("00000002"), "{first_of_new}");
        let files = archive.files()?;
        for name in [
            "00000002.history",
            &format!("{unfinished}.partial"),
            &first_of_new,
        ] {
            assert!(
                files.iter().any(|file| file == name),
                "{name} is not among {files:?}"
            );
        }
        assert!(!files.contains(&unfinished), "{files:?}");
        assert_eq!(standby.archive_failures()?, 0);
        Ok(())
    })
}

#[test]
fn a_second_standby_follows_across_the_promotion_of_the_first() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        // Without cleanup: it would remove what the other standby still needs.
        let settings = recovery_settings(lab, &archive)?;
        let first = standby(lab, "first", &backup, settings.clone())?;
        let second = standby(lab, "second", &backup, settings)?;
        primary.write_segments(1..=3)?;
        primary.wait_until_archived()?;
        primary.stop(Shutdown::Immediate)?;
        wait_for_entries(&first, 3)?;
        wait_for_entries(&second, 3)?;
        first.sql("select pg_promote()")?;
        first.wait_until_promoted()?;
        write(&first, 4)?;
        first.archive_everything()?;
        wait_for_entries(&second, 4)?;
        assert_eq!(second.sql("select pg_is_in_recovery()")?, "t");
        Ok(())
    })
}

#[test]
fn a_recovery_that_waits_at_its_target_removes_nothing_from_the_archive() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=5)?;
        primary.sql("checkpoint; select pg_create_restore_point('goal')")?;
        primary.archive_everything()?;
        primary.stop(Shutdown::Immediate)?;
        let before = archive.snapshot()?;
        let settings = standby_settings(lab, &archive)?
            .with("archive_mode", "off")
            .with("recovery_target_name", "goal")
            .with("recovery_target_action", "pause");
        let recovered = lab.restored("recovered", &backup, settings)?;
        recovered.touch("recovery.signal")?;
        recovered.start()?;
        recovered.wait_for_sql("select pg_get_wal_replay_pause_state()", "paused")?;
        for _ in 0..2 {
            recovered.sql("checkpoint")?;
        }
        let mark = lab::Mark::default();
        let told = ["LOG", "removes nothing during targeted recovery"];
        recovered.wait_for_log(mark, &told)?;
        assert_eq!(recovered.logged(mark, &told)?.len(), 1, "once");
        assert!(archive.snapshot()? == before, "the archive has changed");
        Ok(())
    })
}

#[test]
fn a_cluster_open_to_its_group_has_an_archive_open_to_its_directorys_group() -> Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    scenario(|lab| {
        for (name, data_mode, file_mode) in [("alone", 0o700, 0o600), ("group", 0o750, 0o640)] {
            let archive = lab.archive(name)?;
            let group = archive.path().metadata()?.gid();
            let settings = lab.walden_settings(&archive)?;
            let server = lab.cluster(&format!("{name}-server"), SMALL_MB, settings)?;
            let mode = std::fs::Permissions::from_mode(data_mode);
            std::fs::set_permissions(server.data(), mode)?;
            server.start()?;
            server.create_ledger()?;
            server.archive_everything()?;
            for file in std::fs::read_dir(archive.path())? {
                let file = file?;
                let found = file.metadata()?;
                assert_eq!(found.permissions().mode() & 0o777, file_mode, "{file:?}");
                assert_eq!(found.gid(), group, "{file:?}");
            }
        }
        Ok(())
    })
}
