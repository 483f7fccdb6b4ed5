//! Two servers archive into one place: a backup put back without `recovery.signal`, and a clone beside its original.
//! Whatever the second of them writes, nothing of it comes to stand behind what the first has archived.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lab::stores::Make;
use lab::{
    ArchiveDir, Cluster, Contents, Lab, Mark, Settings, Shutdown, run, scenario, wait_until,
};

use crate::common::{must_recover, recovery_of, wait_for_entries, write};
use crate::faces::{Case, plain, primary, segment_after, snapshot};
use crate::in_store::InStore;

/// A base backup that brings the WAL it needs, so that a server starts from it without an archive.
fn whole_backup(primary: &Cluster, lab: &Lab) -> Result<std::path::PathBuf> {
    let path = lab.dir().join("whole");
    let mut command = lab.server_command("pg_basebackup");
    command
        .arg("-h")
        .arg(primary.home())
        .args(["-U", "postgres", "-D"])
        .arg(&path);
    command.args(["-X", "fetch", "-c", "fast", "--no-sync"]);
    run(&mut command)?
        .success()
        .context("pg_basebackup failed")?;
    Ok(path)
}

/// Waits until a server has been refused its first file, and says so; it must have archived nothing.
fn must_be_refused(server: &Cluster, first: &str) -> Result<()> {
    wait_until("two counted failures", || {
        Ok(server.archive_failures()? >= 2)
    })?;
    assert_eq!(server.archiver("last_failed_wal")?, first);
    assert_eq!(server.archiver("archived_count")?, "0");
    server.wait_for_log(
        Mark::default(),
        &["WARNING", "could not archive file", first],
    )?;
    Ok(())
}

/// What a wrong server wrote must not be in the archive: that is as it was.
fn must_be_as_before(archive: &ArchiveDir, before: &[String]) -> Result<()> {
    let now = archive.files()?;
    ensure!(
        now == before,
        "the archive has changed: {before:?}, {now:?}"
    );
    Ok(())
}

#[test]
fn a_backup_put_back_without_its_signal_file_puts_nothing_behind_what_the_lost_server_archived()
-> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let lost = primary(lab, &archive)?;
        let backup = lost.base_backup("backup")?;
        let whole = whole_backup(&lost, lab)?;
        lost.write_segments(1..=4)?;
        lost.wait_until_archived()?;
        let contents = lost.contents()?;
        lost.stop(Shutdown::Immediate)?;
        let before = archive.files()?;

        let wrong = lab.restored("wrong", &whole, plain(lab, &archive)?)?;
        wrong.start()?;
        let segments = wrong.write_segments(101..=112)?;
        must_be_refused(&wrong, &segments[0])?;
        must_be_as_before(&archive, &before)?;
        wrong.stop(Shutdown::Immediate)?;
        must_be_as_before(&archive, &before)?;
        let case = Case::new(lab, &archive, backup);
        case.audit()?.is_clean()?;
        case.recovers(&[], &contents)?;
        Ok(())
    })
}

#[test]
fn what_a_wrong_server_wrote_behind_the_lost_one_s_is_seen_where_something_else_put_it()
-> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let lost = primary(lab, &archive)?;
        let backup = lost.base_backup("backup")?;
        let whole = whole_backup(&lost, lab)?;
        let segments = lost.write_segments(1..=4)?;
        lost.wait_until_archived()?;
        lost.stop(Shutdown::Immediate)?;

        // Its segments are filled otherwise: of equally long records nobody could tell.
        let elsewhere = lab.archive("elsewhere")?;
        let wrong = lab.restored("wrong", &whole, plain(lab, &elsewhere)?)?;
        wrong.start()?;
        for entry in 101..=112 {
            write(&wrong, entry)?;
            wrong.sql("select pg_logical_emit_message(false, 'x', repeat('x', 5000))")?;
            wrong.switch_segment()?;
        }
        wrong.wait_until_archived()?;
        wrong.stop(Shutdown::Immediate)?;
        for count in 1..=2 {
            let name = segment_after(&segments[3], count)?;
            lab.copy(&elsewhere.path().join(&name), &archive.path().join(&name))?;
        }

        let behind = segment_after(&segments[3], 1)?;
        let audit = Case::new(lab, &archive, backup).audit()?;
        audit.finds("error", "does-not-follow", &behind)?;
        audit.stops_at(1, &behind, &behind)
    })
}

/// A clone of a running server, at a segment's beginning, and four segments that the original archived after that.
struct Cloned<'lab> {
    original: Cluster<'lab>,
    clone: std::path::PathBuf,
    segments: Vec<String>,
    contents: Contents,
}

fn cloned<'lab>(lab: &'lab Lab, settings: Settings) -> Result<Cloned<'lab>> {
    let original = lab.primary("original", crate::common::SMALL_MB, settings)?;
    original.base_backup("backup")?;
    original.write_segments(1..=2)?;
    original.wait_until_archived()?;
    let clone = snapshot(lab, &original, "snapshot")?;
    let segments = original.write_segments(3..=6)?;
    original.wait_until_archived()?;
    let contents = original.contents()?;
    Ok(Cloned {
        original,
        clone,
        segments,
        contents,
    })
}

#[test]
fn a_clone_beside_its_original_puts_nothing_behind_what_that_has_archived() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let it = cloned(lab, plain(lab, &archive)?)?;
        let before = archive.files()?;
        let clone = lab.restored("clone", &it.clone, plain(lab, &archive)?)?;
        clone.start()?;
        clone.write_segments(103..=114)?;
        must_be_refused(&clone, &it.segments[0])?;
        must_be_as_before(&archive, &before)?;
        clone.stop(Shutdown::Immediate)?;

        original_goes_on(lab, &archive, &it)
    })
}

/// The original is not held up by what the clone tried, and what recovers is the original.
fn original_goes_on(lab: &Lab, archive: &ArchiveDir, it: &Cloned<'_>) -> Result<()> {
    write(&it.original, 7)?;
    it.original.archive_everything()?;
    assert_eq!(it.original.archive_failures()?, 0);
    let backup = it.original.home().join("backup");
    Case::new(lab, archive, backup).recovers(&[], &it.original.contents()?)?;
    Ok(())
}

#[test]
fn a_clone_that_had_an_archive_of_its_own_is_refused_behind_another_predecessor() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let it = cloned(lab, plain(lab, &archive)?)?;
        let before = archive.files()?;

        // The same entries: its records are as long as the original's.
        let elsewhere = lab.archive("elsewhere")?;
        let settings = plain(lab, &elsewhere)?.with("wal_keep_size", "64MB");
        let clone = lab.restored("clone", &it.clone, settings)?;
        clone.start()?;
        assert_eq!(clone.write_segments(3..=6)?, it.segments);
        clone.wait_until_archived()?;
        clone.sql("select pg_stat_reset_shared('archiver')")?;
        clone.reload(|settings| settings.set("walden.archive", &archive.text()))?;
        clone.wait_for_sql("show walden.archive", &archive.text())?;
        let behind = clone.write_segments(7..=10)?;
        assert_eq!(behind[0], segment_after(&it.segments[3], 1)?);
        must_be_refused(&clone, &behind[0])?;
        let log = clone.log(Mark::default())?;
        assert!(
            log.contains(&it.segments[3]),
            "the one before is not named:\n{log}"
        );
        must_be_as_before(&archive, &before)?;
        clone.stop(Shutdown::Immediate)?;

        original_goes_on(lab, &archive, &it)
    })
}

#[test]
fn in_a_store_a_clone_puts_nothing_behind_what_its_original_has_archived() -> Result<()> {
    scenario(|lab| {
        let archive = InStore::new(lab, Make::SeaweedFs)?;
        let it = cloned(lab, archive.archiving()?)?;
        let before = archive.files()?;
        let clone = lab.restored("clone", &it.clone, archive.archiving()?)?;
        clone.start()?;
        clone.write_segments(103..=114)?;
        must_be_refused(&clone, &it.segments[0])?;
        clone.stop(Shutdown::Immediate)?;
        let now = archive.files()?;
        ensure!(
            now == before,
            "the archive has changed: {before:?}, {now:?}"
        );

        it.original.stop(Shutdown::Immediate)?;
        let backup: &Path = &it.original.home().join("backup");
        let recovered = recovery_of(lab, backup, archive.recovering()?)?;
        must_recover(&recovered, &it.contents)?;
        wait_for_entries(&recovered, 6)
    })
}
