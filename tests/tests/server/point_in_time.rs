//! Point-in-time recovery with nothing set but the preload, the archive, the library and the target.

use anyhow::Result;
use lab::{Mark, Shutdown, run, scenario};

use crate::common::{
    SMALL_MB, must_recover, primary, primary_with, recovery_of, recovery_settings, recovery_to,
    restored_since, wait_for_entries, write,
};

#[test]
fn recovery_to_a_named_restore_point_gives_back_the_recorded_tables() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, 16)?;
        primary.pgbench(&["-i", "-q", "-s", "1"])?;
        let backup = primary.base_backup("backup")?;
        primary.pgbench(&["-n", "-t", "200"])?;
        let before = primary.contents()?;
        primary.sql("select pg_create_restore_point('before the mistake')")?;
        primary.sql("drop table pgbench_accounts; delete from pgbench_tellers;")?;
        primary.archive_everything()?;
        assert_eq!(primary.archive_failures()?, 0);
        primary.stop(Shutdown::Immediate)?;
        std::fs::remove_dir_all(primary.data())?;

        let settings = recovery_settings(lab, &archive)?;
        let recovered = recovery_to(lab, &backup, settings, "before the mistake")?;
        must_recover(&recovered, &before)
    })
}

#[test]
fn recovery_to_a_time_gives_back_the_tables_of_that_time() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=4)?;
        let before = primary.contents()?;
        let time = primary.sql("select clock_timestamp()")?;
        write(&primary, 5)?;
        primary.sql("delete from ledger where entry < 3")?;
        primary.archive_everything()?;
        primary.stop(Shutdown::Immediate)?;

        let settings = recovery_settings(lab, &archive)?
            .with("recovery_target_time", &time)
            .with("recovery_target_action", "promote");
        let recovered = recovery_of(lab, &backup, settings)?;
        must_recover(&recovered, &before)
    })
}

#[test]
fn recovery_without_a_target_ends_with_the_last_archived_entry() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let segments = primary.write_segments(1..=6)?;
        primary.wait_until_archived()?;
        let before = primary.contents()?;
        primary.stop(Shutdown::Immediate)?;

        let recovered = recovery_of(lab, &backup, recovery_settings(lab, &archive)?)?;
        must_recover(&recovered, &before)?;
        let restored = restored_since(&recovered, Mark::default())?;
        for segment in &segments {
            assert!(
                restored.contains(segment),
                "{segment} is not among {restored:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn restore_library_alone_sets_the_restore_command_and_show_tells_it() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let settings = recovery_settings(lab, &archive)?
            .with("walden.archive_cleanup_library", "walden")
            .with("walden.recovery_end_library", "walden");
        let server = primary_with(lab, SMALL_MB, settings)?;
        let show = server.sql(
            "select name, source, setting from pg_settings where name in \
             ('restore_command', 'archive_cleanup_command', 'recovery_end_command') order by name",
        )?;
        for (line, (name, job)) in show.lines().zip([
            ("archive_cleanup_command", "archive-cleanup"),
            ("recovery_end_command", "recovery-end"),
            ("restore_command", "restore"),
        ]) {
            assert!(line.starts_with(&format!("{name}|override|")), "{show}");
            assert!(line.contains("walden") && line.contains(job), "{show}");
        }
        assert_eq!(show.lines().count(), 3, "{show}");
        Ok(())
    })
}

#[test]
fn a_second_recovery_follows_the_timeline_that_the_first_began() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=3)?;
        primary.sql("select pg_create_restore_point('three')")?;
        // Segments of the first timeline that lie beyond the place where the second leaves it.
        primary.sql("update ledger set entry = entry + 1000")?;
        for entry in 11..15 {
            write(&primary, entry)?;
            primary.switch_segment()?;
        }
        primary.wait_until_archived()?;
        primary.stop(Shutdown::Immediate)?;

        let settings = recovery_settings(lab, &archive)?;
        let first = recovery_to(lab, &backup, settings.clone(), "three")?;
        first.start()?;
        first.wait_until_promoted()?;
        wait_for_entries(&first, 3)?;
        for entry in 4..=6 {
            write(&first, entry)?;
            first.switch_segment()?;
        }
        first.wait_until_archived()?;
        let before = first.contents()?;
        assert!(archive.has("00000002.history")?);
        first.stop(Shutdown::Immediate)?;

        let second = lab.restored("second", &backup, settings)?;
        second.touch("recovery.signal")?;
        must_recover(&second, &before)?;
        assert_eq!(
            second.sql("select timeline_id from pg_control_checkpoint()")?,
            "3"
        );
        Ok(())
    })
}

#[test]
fn one_archive_may_hold_every_compression_and_restores_all_of_it() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let cases: [(_, &[u8]); 4] = [
            ("none", b""),
            ("zstd", b"\x28\xb5\x2f\xfd"),
            ("zstd:19", b"\x28\xb5\x2f\xfd"),
            ("lz4", b"\x04\x22\x4d\x18"),
        ];
        for (entry, (compression, begins)) in (1..).zip(cases) {
            primary.reload(|settings| settings.set("walden.compression", compression))?;
            primary.wait_for_sql("show walden.compression", compression)?;
            write(&primary, entry)?;
            let segment = primary.archive_everything()?;
            let stored = std::fs::read(archive.path().join(&segment))?;
            assert!(stored.starts_with(begins), "{compression}: {segment}");
        }
        let before = primary.contents()?;
        primary.stop(Shutdown::Immediate)?;

        let recovered = recovery_of(lab, &backup, recovery_settings(lab, &archive)?)?;
        must_recover(&recovered, &before)
    })
}

#[test]
fn an_archive_written_by_basic_archive_restores_as_it_stands() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let settings = lab
            .settings()
            .with("archive_mode", "on")
            .with("archive_library", "basic_archive")
            .with("basic_archive.archive_directory", &archive.text());
        let primary = primary_with(lab, SMALL_MB, settings)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=5)?;
        primary.wait_until_archived()?;
        let before = primary.contents()?;
        primary.stop(Shutdown::Immediate)?;

        let recovered = recovery_of(lab, &backup, recovery_settings(lab, &archive)?)?;
        must_recover(&recovered, &before)
    })
}

#[test]
fn an_uncompressed_archive_restores_with_cp_on_a_server_without_walden() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let settings = lab
            .walden_settings(&archive)?
            .with("walden.compression", "none");
        let primary = primary_with(lab, SMALL_MB, settings)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=5)?;
        primary.wait_until_archived()?;
        let before = primary.contents()?;
        primary.stop(Shutdown::Immediate)?;

        let cp = format!("cp {}/%f %p", archive.text());
        let settings = lab.settings().with("restore_command", &cp);
        let recovered = recovery_of(lab, &backup, settings)?;
        must_recover(&recovered, &before)
    })
}

#[test]
fn the_command_lists_what_the_server_archived() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let segments = primary.write_segments(1..=3)?;
        primary.wait_until_archived()?;
        let listed = run(lab
            .command("walden")
            .args(["list", "-A"])
            .arg(archive.path()))?
        .success()?;
        for segment in &segments {
            assert!(listed.contains(segment), "{segment} is not in {listed}");
        }
        let by_server = run(lab
            .command("walden")
            .args(["list", "-D"])
            .arg(primary.data()))?
        .success()?;
        assert_eq!(by_server, listed);
        Ok(())
    })
}
