//! The archive is the server's own WAL directory, or lies within its data directory.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::Result;
use lab::{Cluster, Lab, Mark, Shutdown, scenario, wait_until};

use crate::common::{SMALL_MB, primary_with, write};
use crate::faces::plain;

/// A server whose WAL lies elsewhere, as `initdb -X` has it, and is to be archived to where it lies.
fn onto_itself(lab: &Lab) -> Result<Cluster<'_>> {
    let wal = lab.dir().join("wal");
    let archive = lab.archive("other")?;
    let settings = plain(lab, &archive)?
        .with("walden.archive", &wal.display().to_string())
        .with("min_wal_size", "2MB");
    let server = lab.cluster("server", SMALL_MB, settings)?;
    let pg_wal = server.data().join("pg_wal");
    fs::rename(&pg_wal, &wal)?;
    symlink(&wal, &pg_wal)?;
    server.start()?;
    server.create_ledger()?;
    Ok(server)
}

#[test]
fn archiving_into_the_servers_own_wal_directory_is_refused_and_nothing_is_lost() -> Result<()> {
    scenario(|lab| {
        let server = onto_itself(lab)?;
        let segments = server.write_segments(1..=4)?;
        server.wait_for_log(Mark::default(), &["WARNING", "pg_wal"])?;
        server.sql("checkpoint")?;
        write(&server, 5)?;
        server.sql("checkpoint")?;
        let wal = lab.dir().join("wal");
        for segment in &segments {
            assert!(wal.join(segment).is_file(), "{segment} is gone");
            assert!(
                server.ready()?.contains(segment),
                "{segment} is noted as archived"
            );
        }
        assert_eq!(server.archiver("archived_count")?, "0");
        assert!(!wal.join("walden.json").exists());

        // With an archive elsewhere all of it goes there.
        let archive = lab.dir().join("other");
        server.reload(|settings| settings.set("walden.archive", &archive.display().to_string()))?;
        server.switch_segment()?;
        server.wait_until_archived()?;
        for segment in &segments {
            assert!(archive.join(segment).is_file(), "{segment} is not archived");
        }
        server.stop(Shutdown::Fast)?;
        Ok(())
    })
}

#[test]
fn an_archive_within_the_data_directory_is_warned_about() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("other")?;
        let inside = lab.dir().join("primary/data/archive");
        let settings = plain(lab, &archive)?.with("walden.archive", &inside.display().to_string());
        let server = primary_with(lab, SMALL_MB, settings)?;
        fs::create_dir(&inside)?;
        lab.own(&inside)?;
        let segment = server.write_segments(1..=1)?;
        server.switch_segment()?;
        server.wait_until_archived()?;
        assert!(inside.join(&segment[0]).is_file());
        wait_until("a warning", || {
            let text = inside.display().to_string();
            let warned = server.logged(Mark::default(), &["WARNING", &text, "data directory"])?;
            Ok(!warned.is_empty())
        })
    })
}
