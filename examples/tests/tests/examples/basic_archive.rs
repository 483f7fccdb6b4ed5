//! The reference module, in both directions with other people's tools.

use std::fs;

use anyhow::{Context, Result, ensure};
use lab::{Cluster, Mark, Shutdown, scenario, seed, wait_until};
use rustix::process::Signal;
use walden_examples_tests::{
    Lost, archive_and_lose, archiving, primary, recover, recovering, recovery_of,
};

const LIBRARY: &str = "basic_archive_rs";
const PARAMETER: &str = "basic_archive_rs.archive_directory";

/// Makes the server offer a file that is archived already, as after a crash, and waits until it is done
/// again.
pub(crate) fn offered_again(server: &Cluster, name: &str) -> Result<()> {
    server.stop(Shutdown::Fast)?;
    let status = server.data().join("pg_wal/archive_status");
    ensure!(
        server.data().join("pg_wal").join(name).exists(),
        "{name} was recycled"
    );
    fs::rename(
        status.join(format!("{name}.done")),
        status.join(format!("{name}.ready")),
    )?;
    server.start()?;
    server.wait_until_archived()
}

#[test]
fn it_archives_and_cp_restores() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let lost = archive_and_lose(lab, archiving(lab, LIBRARY, PARAMETER, &archive)?)?;
        assert_eq!(archive.strangers()?, Vec::<String>::new());
        let cp = format!("cp {}/%f %p", archive.text());
        recover(lab, &lost, lab.settings().with("restore_command", &cp))?;
        Ok(())
    })
}

#[test]
fn contribs_basic_archive_archives_and_it_restores() -> Result<()> {
    scenario(|lab| {
        lab.require_library("basic_archive")
            .context("install PostgreSQL with contrib")?;
        let archive = lab.archive("archive")?;
        let contrib = archiving(
            lab,
            "basic_archive",
            "basic_archive.archive_directory",
            &archive,
        )?;
        let lost = archive_and_lose(lab, contrib)?;
        recover(lab, &lost, recovering(lab, LIBRARY, PARAMETER, &archive)?)?;
        Ok(())
    })
}

#[test]
fn one_library_does_all_four_jobs() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let lost = archive_and_lose(lab, archiving(lab, LIBRARY, PARAMETER, &archive)?)?;
        let settings = recovering(lab, LIBRARY, PARAMETER, &archive)?
            .with("archive_mode", "on")
            .with("archive_library", LIBRARY);
        let recovered = recover(lab, &lost, settings)?;
        recovered.archive_everything()?;
        assert!(archive.has("00000002.history")?);
        let ended = recovered.logged(Mark::default(), &["recovery from the archive has ended"])?;
        assert_eq!(ended.len(), 1, "{ended:?}");
        assert!(ended[0].backend.contains("walden"), "{ended:?}");
        Ok(())
    })
}

#[test]
fn the_same_file_succeeds_again_and_other_bytes_are_refused_and_untouched() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = primary(lab, archiving(lab, LIBRARY, PARAMETER, &archive)?)?;
        let name = server.archive_everything()?;
        let before = archive.snapshot()?;
        offered_again(&server, &name)?;
        assert_eq!(server.archive_failures()?, 0, "the same bytes were refused");
        assert_eq!(archive.snapshot()?.get(&name), before.get(&name));

        let stored = archive.stored(&name)?;
        let mut other = fs::read(&stored)?;
        if let Some(last) = other.last_mut() {
            *last ^= 1;
        }
        fs::write(&stored, &other)?;
        server.stop(Shutdown::Immediate)?;
        let status = server.data().join("pg_wal/archive_status");
        fs::rename(
            status.join(format!("{name}.done")),
            status.join(format!("{name}.ready")),
        )?;
        server.start()?;
        wait_until("a counted failure", || Ok(server.archive_failures()? > 0))?;
        assert_eq!(fs::read(&stored)?, other, "the archived file was touched");
        server.wait_for_log(
            Mark::default(),
            &[&name, "already exists with other contents"],
        )?;

        // A human has looked: the archiver goes on by itself.
        fs::remove_file(&stored)?;
        server.wait_until_archived()?;
        assert_eq!(archive.snapshot()?.get(&name), before.get(&name));
        assert_eq!(archive.strangers()?, Vec::<String>::new());
        Ok(())
    })
}

/// How often the archiver is killed.
const KILLS: u32 = 12;

#[test]
fn killed_at_random_moments_it_loses_nothing_and_leaves_nothing_behind() -> Result<()> {
    let seed = seed()?;
    let mut random = fastrand::Rng::with_seed(seed);
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = primary(lab, archiving(lab, LIBRARY, PARAMETER, &archive)?)?;
        let backup = server.base_backup("backup")?;
        let mut segments = Vec::new();
        for round in 0..KILLS {
            let first = round * 10;
            segments.extend(server.write_segments(first..=first + 4)?);
            // At one of the segments to come, whenever that is.
            let victim = segments.len() - random.usize(1..=5);
            wait_until("the archiver to get near", || {
                Ok(archive.has(&segments[victim])? || server.ready()?.len() <= 2)
            })?;
            server.wait_for_process("archiver")?.signal(Signal::KILL)?;
            // A postmaster waits before it starts another archiver; a new one does not.
            server.stop(Shutdown::Immediate)?;
            server.start()?;
        }
        server.sql("select pg_create_restore_point('goal')")?;
        let contents = server.contents()?;
        server.archive_everything()?;
        server.stop(Shutdown::Fast)?;
        for segment in &segments {
            assert!(archive.has(segment)?, "{segment} is missing");
        }
        assert_eq!(archive.strangers()?, Vec::<String>::new());
        let lost = Lost {
            backup,
            contents,
            segments,
        };
        recover(lab, &lost, recovering(lab, LIBRARY, PARAMETER, &archive)?)?;
        Ok(())
    })
    .with_context(|| format!("WALDEN_TEST_SEED={seed}"))
}

#[test]
fn a_restartpoint_removes_what_the_standby_no_longer_needs() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, archiving(lab, LIBRARY, PARAMETER, &archive)?)?;
        let backup = primary.base_backup("backup")?;
        let settings = recovering(lab, LIBRARY, PARAMETER, &archive)?;
        let standby = lab.restored("standby", &backup, settings)?;
        standby.touch("standby.signal")?;
        standby.start()?;
        let old = primary.write_segments(1..=5)?;
        primary.sql("checkpoint")?;
        let last = primary.archive_everything()?;
        standby.wait_for_sql("select count(*) from ledger", "5")?;
        wait_until("the first segment to be removed", || {
            standby.sql("checkpoint")?;
            Ok(!archive.has(&old[0])?)
        })?;
        assert!(archive.has(&last)?, "the newest segment was removed");
        Ok(())
    })
}

#[test]
fn an_archive_that_is_not_there_is_not_the_end_of_wal() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let lost = archive_and_lose(lab, archiving(lab, LIBRARY, PARAMETER, &archive)?)?;
        let elsewhere = archive.path().with_extension("elsewhere");
        fs::rename(archive.path(), &elsewhere)?;
        let recovered = recovery_of(lab, &lost, recovering(lab, LIBRARY, PARAMETER, &archive)?)?;
        let log = recovered.start_refused()?;
        assert!(log.contains("could not open archive directory"), "{log}");
        assert!(recovered.data().join("recovery.signal").exists());

        fs::rename(&elsewhere, archive.path())?;
        recovered.start()?;
        recovered.wait_until_promoted()?;
        assert_eq!(recovered.contents()?, lost.contents);
        Ok(())
    })
}

#[test]
fn a_directory_that_cannot_be_one_is_refused_by_the_server_with_the_reason() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let settings = archiving(lab, LIBRARY, PARAMETER, &archive)?;
        let server = primary(lab, settings.with("shared_preload_libraries", LIBRARY))?;
        let mark = server.mark()?;
        server.reload(|settings| settings.set(PARAMETER, "relative/path"))?;
        let refused = server.wait_for_log(mark, &[PARAMETER, "must be an absolute path"])?;
        assert!(refused.has(&["invalid value"]), "{refused:?}");
        assert_eq!(
            server.sql(&format!("show {PARAMETER}"))?,
            archive.text(),
            "the old value was not kept"
        );
        Ok(())
    })
}
