//! What is no longer what the server wrote is not archived, and is no end of WAL: `walden.verify = 'records'`, the default.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use lab::{ArchiveDir, Cluster, Contents, Lab, Settings, Shutdown, scenario};

use crate::common::{
    SHORT_RESTORE_TIMEOUT, SMALL_MB, check_not_promoted, must_recover, primary_with, recovery_of,
    recovery_settings, start_could_not_restore, write,
};

/// In the rest of a segment's first record.
const IN_FIRST_RECORD: usize = 70;
/// In the middle of a segment that holds nothing but a part of a long record.
const IN_LONG_RECORD: usize = 500_000;

fn flip(path: &Path, at: usize) -> Result<()> {
    let mut bytes = fs::read(path)?;
    *bytes.get_mut(at).context("the file is too short")? ^= 0x20;
    Ok(fs::write(path, bytes)?)
}

/// Six entries, each in a segment of its own, and a record that takes up three more; answers with the first nine segments.
fn write_all(primary: &Cluster) -> Result<Vec<String>> {
    let mut segments = primary.write_segments(1..=6)?;
    for _ in 0..3 {
        // At the very beginning of a segment the server would name the one before.
        primary.sql("select pg_logical_emit_message(false, 'short', 'x')")?;
        segments.push(primary.sql("select pg_walfile_name(pg_current_wal_insert_lsn())")?);
        primary.sql("select pg_logical_emit_message(false, 'long', repeat('x', 1040000))")?;
    }
    write(primary, 7)?;
    Ok(segments)
}

fn plain(lab: &Lab, archive: &ArchiveDir) -> Result<Settings> {
    Ok(lab
        .walden_settings(archive)?
        .with("walden.compression", "none"))
}

/// A primary with that WAL, which has not been told yet where to archive to.
fn unarchived<'lab>(lab: &'lab Lab, archive: &ArchiveDir) -> Result<(Cluster<'lab>, Vec<String>)> {
    let settings = plain(lab, archive)?
        .with("walden.archive", "")
        .with("wal_keep_size", "1GB");
    let primary = primary_with(lab, SMALL_MB, settings)?;
    let segments = write_all(&primary)?;
    primary.switch_segment()?;
    Ok((primary, segments))
}

/// Damages a segment in `pg_wal`: it must be refused with these words, and archived once it is right again.
fn refused(damage: impl FnOnce(&Path, &[String]) -> Result<usize>, words: &[&str]) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (primary, segments) = unarchived(lab, &archive)?;
        let pg_wal = primary.data().join("pg_wal");
        let copies = lab.directory("copies")?;
        lab.copy(&pg_wal, &copies.join("pg_wal"))?;
        let index = damage(&pg_wal, &segments)?;
        let name = segments.get(index).context("no such segment")?;
        let mark = primary.mark()?;
        primary.reload(|settings| settings.set("walden.archive", &archive.text()))?;
        let mut expected = vec!["could not archive file", name.as_str()];
        expected.extend_from_slice(words);
        primary.wait_for_log(mark, &expected)?;
        assert!(!archive.has(name)?);

        fs::copy(copies.join("pg_wal").join(name), pg_wal.join(name))?;
        primary.sql("select pg_switch_wal()")?;
        primary.wait_until_archived()?;
        for name in &segments {
            assert_eq!(lab.fetch(&archive, name)?, fs::read(pg_wal.join(name))?);
        }
        Ok(())
    })
}

#[test]
fn a_segment_with_a_rotten_record_is_not_archived_and_the_log_says_where_it_is() -> Result<()> {
    refused(
        |pg_wal, segments| flip(&pg_wal.join(&segments[3]), IN_FIRST_RECORD).map(|()| 3),
        &["is not valid: at 0/", "the record has checksum"],
    )
}

#[test]
fn a_segment_that_has_lost_its_end_is_not_archived() -> Result<()> {
    refused(
        |pg_wal, segments| {
            let path = pg_wal.join(&segments[6]);
            let mut bytes = fs::read(&path)?;
            bytes[100_000..].fill(0);
            fs::write(&path, bytes)?;
            Ok(6)
        },
        &["WAL ends at 0/"],
    )
}

/// Loses a primary and damages its archive: recovery must say so with these words instead of ending, and go through once all is
/// right again. Answers with nothing.
fn no_end(damage: impl FnOnce(&ArchiveDir, &[String]) -> Result<usize>, words: &str) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary_with(lab, SMALL_MB, plain(lab, &archive)?)?;
        let backup = primary.base_backup("backup")?;
        let segments = write_all(&primary)?;
        let before: Contents = primary.contents()?;
        primary.archive_everything()?;
        primary.stop(Shutdown::Immediate)?;
        drop(primary);

        let right = archive.snapshot()?;
        let index = damage(&archive, &segments)?;
        let settings =
            recovery_settings(lab, &archive)?.with("walden.restore_timeout", SHORT_RESTORE_TIMEOUT);
        let recovered = recovery_of(lab, &backup, settings)?;
        let name = segments.get(index).context("no such segment")?;
        let log = start_could_not_restore(&recovered, name)?;
        assert!(log.contains(words), "{log}");
        check_not_promoted(lab, &recovered, &archive)?;

        for (key, bytes) in right {
            fs::write(archive.path().join(key), bytes)?;
        }
        must_recover(&recovered, &before)
    })
}

#[test]
fn a_rotten_record_in_the_archive_is_not_the_end_of_wal() -> Result<()> {
    no_end(
        |archive, segments| flip(&archive.stored(&segments[3])?, IN_FIRST_RECORD).map(|()| 3),
        "the record has checksum",
    )
}

#[test]
fn a_rotten_part_of_a_record_over_several_segments_is_not_the_end_of_wal() -> Result<()> {
    no_end(
        |archive, segments| flip(&archive.stored(&segments[7])?, IN_LONG_RECORD).map(|()| 7),
        "the record has checksum",
    )
}

#[test]
fn zeros_to_the_end_of_a_segment_are_not_the_end_of_wal_while_there_is_a_next_one() -> Result<()> {
    no_end(
        |archive, segments| {
            let path = archive.stored(&segments[6])?;
            let mut bytes = fs::read(&path)?;
            bytes[100_000..].fill(0);
            fs::write(&path, bytes)?;
            Ok(6)
        },
        "WAL ends at 0/",
    )
}

#[test]
fn without_a_look_at_records_a_segment_is_archived_whatever_is_in_it() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (primary, segments) = unarchived(lab, &archive)?;
        let path = primary.data().join("pg_wal").join(&segments[3]);
        flip(&path, IN_FIRST_RECORD)?;
        primary.reload(|settings| {
            settings.set("walden.verify", "header");
            settings.set("walden.archive", &archive.text());
        })?;
        primary.wait_until_archived()?;
        assert_eq!(fs::read(archive.stored(&segments[3])?)?, fs::read(path)?);
        Ok(())
    })
}
