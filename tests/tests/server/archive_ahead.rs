//! Archiving ahead: the next files are on their way while the server waits for this one, and nothing else changes.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use lab::{
    ArchiveDir, Cluster, Conditions, FailingStorage, Lab, Mark, Shutdown, scenario, wait_until,
};
use rustix::process::Signal;

use crate::common::{SMALL_MB, primary_with};

/// Segments of a backlog: more than the look ahead of any test here.
const SEGMENTS: u32 = 24;

/// How many jobs a backlog is archived with where what is archived ahead counts.
const JOBS: usize = 4;

/// What the log says, at DEBUG1, of a file that was archived before the server asked for it.
const AHEAD: &[&str] = &["archived file", " ahead; acknowledged in"];

/// A primary with this many segments ready, which it may archive once told where.
fn backlog<'lab>(
    lab: &'lab Lab,
    archive: &ArchiveDir,
    jobs: &str,
) -> Result<(Cluster<'lab>, Vec<String>)> {
    let settings = lab
        .walden_settings(archive)?
        .with("walden.archive", "")
        .with("walden.archive_jobs", jobs)
        .with("wal_keep_size", "1GB")
        .with("log_min_messages", "debug1");
    let primary = primary_with(lab, SMALL_MB, settings)?;
    let segments = primary.write_segments(1..=SEGMENTS)?;
    Ok((primary, segments))
}

fn archive_to(primary: &Cluster, archive: &ArchiveDir) -> Result<()> {
    let place = archive.text();
    primary.reload(|settings| settings.set("walden.archive", &place))
}

/// Every segment is there once, with the bytes that the server has.
fn check_archived(
    lab: &Lab,
    primary: &Cluster,
    archive: &ArchiveDir,
    segments: &[String],
) -> Result<()> {
    for name in segments {
        let stored = lab.fetch(archive, name)?;
        assert_eq!(stored, fs::read(primary.data().join("pg_wal").join(name))?);
    }
    let mut stored = archive.segments()?;
    stored.retain(|name| segments.contains(name));
    assert_eq!(stored, segments);
    assert_eq!(archive.strangers()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_backlog_is_archived_with_several_jobs_and_every_segment_is_acknowledged_once() -> Result<()> {
    scenario(|lab| {
        // Another module holds the server at the first file; who is quicker would else decide what is there before it asks.
        lab.require_library("basic_archive")?;
        let (archive, other) = (lab.archive("archive")?, lab.archive("other")?);
        let (primary, segments) = backlog(lab, &archive, &JOBS.to_string())?;
        let storage = FailingStorage::over(other.path(), Conditions::default().stall())?;
        primary.reload(|settings| {
            settings.set("walden.archive_libraries", "walden, basic_archive");
            settings.set("basic_archive.archive_directory", &other.text());
            settings.set("walden.archive", &archive.text());
        })?;
        wait_until("files behind the one that the server is held at", || {
            let acknowledged = primary.archiver("archived_count")?.parse::<usize>()?;
            Ok(archive.segments()?.len() >= acknowledged + JOBS)
        })?;
        storage.set(Conditions::default());
        primary.wait_until_archived()?;
        check_archived(lab, &primary, &archive, &segments)?;
        let ahead = primary.logged(Mark::default(), AHEAD)?.len();
        assert!(ahead >= JOBS - 1, "{ahead} files were archived ahead");
        assert_eq!(primary.archive_failures()?, 0);
        let acknowledged = primary.archiver("archived_count")?.parse::<usize>()?;
        assert_eq!(acknowledged, archive.files()?.len());
        Ok(())
    })
}

#[test]
fn with_one_job_every_file_is_begun_when_the_server_asks_for_it() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (primary, segments) = backlog(lab, &archive, "1")?;
        archive_to(&primary, &archive)?;
        primary.wait_until_archived()?;
        check_archived(lab, &primary, &archive, &segments)?;
        assert_eq!(primary.logged(Mark::default(), AHEAD)?.len(), 0);
        Ok(())
    })
}

#[test]
fn nothing_behind_a_damaged_segment_is_archived_until_it_is_right_again() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (primary, segments) = backlog(lab, &archive, "4")?;
        let damaged = primary.data().join("pg_wal").join(&segments[5]);
        let right = fs::read(&damaged)?;
        fs::write(&damaged, vec![0; right.len()])?;
        archive_to(&primary, &archive)?;
        wait_until("two counted failures", || {
            Ok(primary.archive_failures()? >= 2)
        })?;
        assert_eq!(primary.archiver("last_failed_wal")?, segments[5]);
        let first_ready = primary.ready()?.into_iter().next();
        assert_eq!(first_ready.as_ref(), Some(&segments[5]));
        for name in &segments[5..] {
            assert!(!archive.has(name)?, "{name} is archived");
        }
        fs::write(&damaged, right)?;
        primary.sql("select pg_switch_wal()")?;
        primary.wait_until_archived()?;
        check_archived(lab, &primary, &archive, &segments)
    })
}

#[test]
fn what_is_on_its_way_survives_a_reload() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (primary, segments) = backlog(lab, &archive, "4")?;
        let slow = Conditions::default().delay(Duration::from_millis(400));
        let storage = FailingStorage::over(archive.path(), slow)?;
        archive_to(&primary, &archive)?;
        let archiver = primary.wait_for_process("archiver")?;
        for (stored, jobs) in [(1, "2"), (3, "8"), (5, "1"), (7, "4")] {
            wait_until("some more to be archived", || {
                Ok(archive.segments()?.len() >= stored)
            })?;
            primary.reload(|settings| settings.set("walden.archive_jobs", jobs))?;
        }
        storage.set(Conditions::default());
        primary.wait_until_archived()?;
        check_archived(lab, &primary, &archive, &segments)?;
        assert!(archiver.is_alive());
        // Nothing was begun a second time: it would have been found there already.
        let again = primary.logged(Mark::default(), &["is in the archive already"])?;
        assert_eq!(again.len(), 0, "{again:?}");
        Ok(())
    })
}

#[test]
fn trouble_is_told_once_retried_inside_and_told_once_when_it_is_over() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (primary, segments) = backlog(lab, &archive, "4")?;
        primary.reload(|settings| settings.set("walden.archive_timeout", "60s"))?;
        archive_to(&primary, &archive)?;
        primary.wait_until_archived()?;
        let storage = FailingStorage::over(archive.path(), Conditions::default().fail(1000, 1))?;
        let mark = primary.mark()?;
        let more = primary.write_segments(SEGMENTS + 1..=SEGMENTS + 6)?;
        primary.wait_for_log(mark, &["could not archive file", " yet: "])?;
        wait_until("several tries", || Ok(storage.met().1 >= 8))?;
        storage.set(Conditions::default());
        primary.wait_until_archived()?;
        check_archived(lab, &primary, &archive, &[segments, more].concat())?;
        let told = |words| Ok::<_, anyhow::Error>(primary.logged(mark, words)?.len());
        assert_eq!(told(&["could not archive file"])?, 1);
        assert_eq!(told(&["archived file", "in which no file could be"])?, 1);
        assert_eq!(primary.archive_failures()?, 0);
        Ok(())
    })
}

#[test]
fn a_stop_does_not_wait_for_an_archive_that_fails() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (primary, segments) = backlog(lab, &archive, "4")?;
        primary.reload(|settings| settings.set("walden.archive_timeout", "10min"))?;
        archive_to(&primary, &archive)?;
        primary.wait_until_archived()?;
        let storage = FailingStorage::over(archive.path(), Conditions::default().fail(1000, 1))?;
        let mark = primary.mark()?;
        let more = primary.write_segments(SEGMENTS + 1..=SEGMENTS + 2)?;
        primary.wait_for_log(mark, &["could not archive file", " yet: "])?;
        primary.stop(Shutdown::Fast)?;
        let told = primary.logged(mark, &["could not archive file", "before the server stops"])?;
        assert!(!told.is_empty());
        drop(storage);
        primary.start()?;
        primary.wait_until_archived()?;
        check_archived(lab, &primary, &archive, &[segments, more].concat())
    })
}

#[test]
fn an_archiver_killed_with_files_ahead_loses_and_doubles_none() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (primary, segments) = backlog(lab, &archive, "16")?;
        let slow = Conditions::default().delay(Duration::from_millis(50));
        let storage = FailingStorage::over(archive.path(), slow)?;
        archive_to(&primary, &archive)?;
        wait_until("some to be archived", || Ok(archive.segments()?.len() >= 5))?;
        let ready = primary.ready()?.len();
        primary.wait_for_process("archiver")?.signal(Signal::KILL)?;
        assert!(ready > 1, "the backlog was over before the kill");
        drop(storage);
        primary.wait_until_archived()?;
        check_archived(lab, &primary, &archive, &segments)
    })
}
