//! What archive modules promise by PostgreSQL's manual, and what recovery modules promise by the proposal that Walden
//! carries out: one test for each promise, here or elsewhere.
//!
//! | promise of an archive module | shown by |
//! |---|---|
//! | its init function makes it one | [`without_its_init_function_a_library_is_no_archive_module`]; hosted: `several.rs` |
//! | every callback but one is optional | [`a_c_module_with_nothing_but_its_archive_callback_archives`] |
//! | `private_data` is kept | [`the_state_of_an_archive_module_is_kept_from_startup_to_shutdown`] |
//! | check configured is asked until it says yes | `not_configured.rs`, `injected.rs` |
//! | false keeps the file, which is tried again | [`false_keeps_the_file_and_it_is_tried_again`] |
//! | shutdown is called | [`shutdown_is_called_when_the_library_changes_and_when_the_server_ends`] |
//! | it has parameters of its own | `examples/tests`: `settings.rs` |
//! | it has background workers of its own | `examples/tests`: `heartbeat.rs`; `injected.rs` |
//!
//! | promise of a recovery module | shown by |
//! |---|---|
//! | three parameters | [`three_parameters_name_three_libraries_for_three_jobs`] |
//! | no change at run time | [`a_recovery_library_does_not_change_at_run_time`] |
//! | its init function makes it one | `unloadable.rs` |
//! | every callback but one is optional | [`a_c_module_with_nothing_but_its_restore_callback_restores`] |
//! | its state is kept | [`the_state_of_a_recovery_module_is_kept_from_startup_to_shutdown`] |
//! | library and command exclude each other | `exclusive.rs`, at start and on reload |
//! | single-user mode | `other_tools.rs` |
//! | one library for both jobs | `examples/tests`: `basic_archive.rs`, `one_library_does_all_four_jobs` |

use std::fs;

use anyhow::{Context, Result, ensure};
use lab::{Cluster, Lab, Mark, Settings, Shutdown, scenario, wait_until};

use crate::common::{
    SMALL_MB, must_recover, primary_with, recovery_of, standby, wait_for_entries, write,
};
use crate::injected::write_and_wait_for_next;
use crate::injected_c::compiled;
use crate::injected_recovery::Pair;
use crate::witness::RUST;

/// A primary that archives with the module of the kit, which behaves.
fn archiving(lab: &Lab) -> Result<Cluster<'_>> {
    crate::injected_recovery::archiving(lab)
}

/// What the module says that it did since its startup, each time it was shut down: archived, restored, cleanups, ends.
fn shutdowns(cluster: &Cluster) -> Result<Vec<[u64; 4]>> {
    let said = cluster.logged(Mark::default(), &["misbehave: shutting down after"])?;
    said.iter()
        .map(|entry| {
            let numbers: Vec<u64> = entry
                .text
                .split([' ', ','])
                .filter_map(|word| word.parse().ok())
                .collect();
            numbers.as_slice().try_into().context("not four numbers")
        })
        .collect()
}

#[test]
fn without_its_init_function_a_library_is_no_archive_module() -> Result<()> {
    scenario(|lab| {
        lab.require_library("every_setting")?;
        let settings = lab
            .settings()
            .with("archive_mode", "on")
            .with("archive_library", "every_setting");
        let server = primary_with(lab, SMALL_MB, settings)?;
        server.wait_for_log(
            Mark::default(),
            &["FATAL", "have to define the symbol _PG_archive_module_init"],
        )?;
        assert_eq!(server.sql("select 1")?, "1");
        Ok(())
    })
}

/// Settings of a server that archives with the C module of the fewest callbacks.
fn only_needed(lab: &Lab, directory: &str) -> Result<Settings> {
    Ok(compiled(lab, "only_needed")?
        .with("archive_mode", "on")
        .with("archive_library", "only_needed")
        .with("only_needed.directory", directory))
}

#[test]
fn a_c_module_with_nothing_but_its_archive_callback_archives() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary_with(lab, SMALL_MB, only_needed(lab, &archive.text())?)?;
        let segments = primary.write_segments(1..=3)?;
        primary.wait_until_archived()?;
        for segment in &segments {
            assert!(archive.has(segment)?, "{segment} was not archived");
        }
        assert_eq!(primary.archive_failures()?, 0);
        primary.stop(Shutdown::Fast)?;
        Ok(())
    })
}

#[test]
fn a_c_module_with_nothing_but_its_restore_callback_restores() -> Result<()> {
    scenario(|lab| {
        lab.require_library("walden")?;
        let archive = lab.archive("archive")?;
        let settings = only_needed(lab, &archive.text())?;
        let primary = primary_with(lab, SMALL_MB, settings.clone())?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=3)?;
        let before = primary.contents()?;
        primary.archive_everything()?;
        primary.stop(Shutdown::Immediate)?;
        let settings = settings
            .without("archive_mode")
            .without("archive_library")
            .with("shared_preload_libraries", "walden")
            .with("walden.restore_library", "only_needed");
        let recovered = recovery_of(lab, &backup, settings)?;
        must_recover(&recovered, &before)?;
        recovered.stop(Shutdown::Fast)?;
        Ok(())
    })
}

#[test]
fn the_state_of_an_archive_module_is_kept_from_startup_to_shutdown() -> Result<()> {
    scenario(|lab| {
        let primary = archiving(lab)?;
        primary.write_segments(1..=4)?;
        primary.stop(Shutdown::Fast)?;
        let archived: u64 = fs::read_dir(lab.dir().join("archive"))?
            .count()
            .try_into()?;
        assert!(archived >= 4, "{archived}");
        assert_eq!(shutdowns(&primary)?, [[archived, 0, 0, 0]]);
        Ok(())
    })
}

#[test]
fn the_state_of_a_recovery_module_is_kept_from_startup_to_shutdown() -> Result<()> {
    scenario(|lab| {
        let pair = Pair::new(lab, &RUST, lab.settings())?;
        let segments = write_segments_from(&pair.primary, 2..=5)?;
        pair.primary.wait_until_archived()?;
        wait_for_entries(&pair.standby, 5)?;
        pair.standby.sql("select pg_promote()")?;
        pair.standby.wait_until_promoted()?;
        pair.standby.stop(Shutdown::Fast)?;
        let found = pair
            .standby
            .logged(Mark::default(), &["restored log file"])?;
        let restored: u64 = found.len().try_into()?;
        ensure!(found.len() > segments.len(), "restored only {restored}");
        let [[archived, told, _, ends]] = shutdowns(&pair.standby)?[..] else {
            anyhow::bail!("{:?}", shutdowns(&pair.standby)?);
        };
        assert_eq!((archived, ends), (0, 1));
        // The server does not log the timeline history files that it is given, and here there are none.
        assert_eq!(told, restored);
        Ok(())
    })
}

/// Entries of these numbers, each in a segment of its own.
fn write_segments_from(
    cluster: &Cluster,
    entries: std::ops::RangeInclusive<u32>,
) -> Result<Vec<String>> {
    entries
        .map(|entry| {
            write(cluster, entry)?;
            cluster.switch_segment()
        })
        .collect()
}

#[test]
fn false_keeps_the_file_and_it_is_tried_again() -> Result<()> {
    scenario(|lab| {
        let primary = archiving(lab)?;
        let archiver = primary.wait_for_process("archiver")?;
        RUST.at(&primary, "archive_file", "no")?;
        let (mark, archived) = (primary.mark()?, primary.archiver("archived_count")?);
        write(&primary, 1)?;
        let segment = primary.switch_segment()?;
        primary.wait_for_log(mark, &["WARNING", &segment, "failed too many times"])?;
        assert!(primary.archive_failures()? >= 3);
        assert_eq!(primary.archiver("archived_count")?, archived);
        assert!(primary.ready()?.contains(&segment));
        assert!(primary.data().join("pg_wal").join(&segment).exists());
        RUST.behaves(&primary)?;
        primary.archive_everything()?;
        assert!(lab.dir().join("archive").join(&segment).exists());
        assert_eq!(primary.wait_for_process("archiver")?.pid, archiver.pid);
        Ok(())
    })
}

#[test]
fn shutdown_is_called_when_the_library_changes_and_when_the_server_ends() -> Result<()> {
    scenario(|lab| {
        let primary = archiving(lab)?;
        primary.archive_everything()?;
        let path = lab.installation().library_dir().join("misbehave.so");
        primary.reload(|settings| {
            settings.set("archive_library", &path.display().to_string());
        })?;
        wait_until("the first shutdown", || Ok(shutdowns(&primary)?.len() == 1))?;
        write_and_wait_for_next(&primary)?;
        assert_eq!(shutdowns(&primary)?.len(), 1);
        primary.stop(Shutdown::Fast)?;
        let both = shutdowns(&primary)?;
        assert_eq!(both.len(), 2, "{both:?}");
        assert!(both.iter().all(|[archived, ..]| *archived > 0), "{both:?}");
        Ok(())
    })
}

#[test]
fn three_parameters_name_three_libraries_for_three_jobs() -> Result<()> {
    scenario(|lab| {
        lab.require_library("basic_archive_rs")?;
        let archive = lab.archive("archive")?;
        let primary = primary_with(lab, SMALL_MB, lab.walden_settings(&archive)?)?;
        let backup = primary.base_backup("backup")?;
        let elsewhere = lab.archive("elsewhere")?.text();
        let settings = lab
            .walden_settings(&archive)?
            .without("archive_mode")
            .with("walden.restore_library", "walden")
            .with("walden.archive_cleanup_library", "misbehave")
            .with("walden.recovery_end_library", "basic_archive_rs")
            .with("misbehave.directory", &elsewhere)
            .with("basic_archive_rs.archive_directory", &elsewhere);
        let standby = standby(lab, "standby", &backup, settings)?;
        write(&primary, 1)?;
        primary.sql("checkpoint")?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 1)?;
        standby.sql("checkpoint")?;
        standby.sql("select pg_promote()")?;
        standby.wait_until_promoted()?;
        let ended = standby.logged(Mark::default(), &["recovery from the archive has ended"])?;
        assert_eq!(ended.len(), 1, "{ended:?}");
        standby.stop(Shutdown::Fast)?;
        let told = shutdowns(&standby)?;
        assert!(
            matches!(told[..], [[0, 0, cleanups, 0]] if cleanups > 0),
            "{told:?}"
        );
        let warnings = standby.logged(Mark::default(), &["WARNING"])?;
        assert!(warnings.is_empty(), "{warnings:?}");
        Ok(())
    })
}

#[test]
fn a_recovery_library_does_not_change_at_run_time() -> Result<()> {
    scenario(|lab| {
        let pair = Pair::new(lab, &RUST, lab.settings())?;
        let worker = pair.standby.wait_for_process("walden recovery worker")?;
        for job in ["restore", "archive_cleanup", "recovery_end"] {
            let parameter = format!("walden.{job}_library");
            let mark = pair.standby.mark()?;
            let alter = format!("alter system set {parameter} = 'other'; select pg_reload_conf()");
            pair.standby.sql(&alter)?;
            pair.standby.wait_for_log(
                mark,
                &[
                    &parameter,
                    "cannot be changed without restarting the server",
                ],
            )?;
            assert_eq!(pair.standby.sql(&format!("show {parameter}"))?, "misbehave");
        }
        write(&pair.primary, 2)?;
        pair.primary.archive_everything()?;
        wait_for_entries(&pair.standby, 2)?;
        assert!(worker.is_alive(), "the worker was restarted");
        Ok(())
    })
}
