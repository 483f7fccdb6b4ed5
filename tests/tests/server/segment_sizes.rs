//! Other segment sizes than the default, and two servers on one archive.

use anyhow::{Context, Result, ensure};
use lab::{Cluster, Lab, Mark, Shutdown, run, scenario, wait_until};
use serde_json::Value;
use wal::{SegmentName, SegmentSize};

use crate::common::{
    SMALL_MB, must_recover, primary, recovery_settings, recovery_to, standby, wait_for_entries,
    write,
};

/// The whole cycle with one segment size.
fn cycle(mb: u32, entries: u32) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, mb)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=entries)?;
        primary.pgbench(&["-i", "-q", "-s", "1"])?;
        let before = primary.contents()?;
        primary.sql("select pg_create_restore_point('goal'); drop table ledger;")?;
        let last = primary.archive_everything()?;
        assert_eq!(primary.archive_failures()?, 0);
        assert_eq!(
            lab.fetch(&archive, &last)?.len(),
            usize::try_from(mb)? * 1024 * 1024
        );
        primary.stop(Shutdown::Immediate)?;
        let recovered = recovery_to(lab, &backup, recovery_settings(lab, &archive)?, "goal")?;
        must_recover(&recovered, &before)
    })
}

#[test]
fn segments_of_1_mb_are_archived_and_restored() -> Result<()> {
    cycle(1, 6)
}

#[test]
fn segments_of_64_mb_are_archived_and_restored() -> Result<()> {
    cycle(64, 3)
}

#[test]
fn a_standby_with_archive_mode_always_shares_the_archive_of_its_primary() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        // Streaming, so that the standby often offers a segment before or while the primary does.
        let conninfo = format!("host={} user=postgres", primary.home().display());
        let settings = recovery_settings(lab, &archive)?
            .with("archive_mode", "always")
            .with("primary_conninfo", &conninfo);
        let standby = standby(lab, "standby", &backup, settings)?;
        primary.wait_for_sql("select count(*) from pg_stat_replication", "1")?;
        let segments = primary.write_segments(1..=12)?;
        primary.wait_until_archived()?;
        wait_for_entries(&standby, 12)?;
        wait_until("the standby to archive the last segment too", || {
            Ok(standby.archiver("last_archived_wal")? >= segments[11])
        })?;
        standby.wait_until_archived()?;
        assert_eq!(primary.archive_failures()?, 0);
        assert_eq!(standby.archive_failures()?, 0);
        for segment in &segments {
            let copies = archive
                .segments()?
                .iter()
                .filter(|name| *name == segment)
                .count();
            assert_eq!(copies, 1, "{segment} in {:?}", archive.keys()?);
        }

        // Promoted, it goes on in the same archive, which now holds both timelines.
        primary.stop(Shutdown::Fast)?;
        standby.sql("select pg_promote()")?;
        standby.wait_until_promoted()?;
        write(&standby, 13)?;
        standby.archive_everything()?;
        assert_eq!(standby.archive_failures()?, 0);
        assert!(archive.has("00000002.history")?);
        assert_eq!(archive.strangers()?, Vec::<String>::new());
        Ok(())
    })
}

/// Gives a stopped server another segment size, as a person would.
fn resize(lab: &Lab, server: &Cluster, mb: u32) -> Result<()> {
    let mut command = lab.server_command("pg_resetwal");
    command
        .arg(format!("--wal-segsize={mb}"))
        .arg("-D")
        .arg(server.data());
    run(&mut command)?.success().map(drop)
}

/// What a command says of the archive, as JSON.
fn say(lab: &Lab, archive: &lab::ArchiveDir, arguments: &[&str]) -> Result<Value> {
    let mut command = lab.command("walden");
    command
        .args(arguments)
        .arg("--json")
        .arg("-A")
        .arg(archive.path());
    Ok(serde_json::from_str(&run(&mut command)?.success()?)?)
}

/// Segments of one size that were written behind a base backup, and its name.
struct Part {
    mb: u32,
    segments: Vec<String>,
    backup: std::path::PathBuf,
}

fn part(server: &Cluster, mb: u32, entry: u32) -> Result<Part> {
    let backup = server.base_backup(&format!("backup{entry}"))?;
    let segments = server.write_segments(entry..=entry + 1)?;
    server.sql(&format!("select pg_create_restore_point('goal{entry}')"))?;
    server.archive_everything()?;
    Ok(Part {
        mb,
        segments,
        backup,
    })
}

#[test]
fn an_archive_with_segments_of_two_sizes_by_turns_is_read_by_the_size_of_each() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = primary(lab, &archive, 4)?;
        let mut parts = vec![part(&server, 4, 1)?];
        let first = server.contents()?;
        server.stop(Shutdown::Fast)?;

        // Walden does not archive there any more.
        resize(lab, &server, 1)?;
        let before = archive.files()?;
        server.start()?;
        write(&server, 3)?;
        server.switch_segment()?;
        server.wait_for_log(Mark::default(), &["WARNING", "of 4MB", "of 1MB"])?;
        ensure!(archive.files()? == before, "{:?}", archive.files()?);

        // Somebody has it go on without Walden.
        server.stop(Shutdown::Fast)?;
        let copy = format!("test ! -f {0}/%f && cp %p {0}/%f", archive.text());
        server.configure(|settings| {
            settings.set("archive_library", "");
            settings.set("archive_command", &copy);
        })?;
        server.start()?;
        parts.push(part(&server, 1, 4)?);
        server.stop(Shutdown::Fast)?;
        resize(lab, &server, 4)?;
        server.start()?;
        parts.push(part(&server, 4, 6)?);
        server.stop(Shutdown::Immediate)?;

        let verified = say(lab, &archive, &["verify"])?;
        let kinds = verified["kinds"].as_object().context("kinds")?;
        ensure!(
            verified["outcome"] == "clean" && verified["warnings"] == 0 && kinds["other-size"] == 2,
            "{verified}"
        );
        let stored = archive.segments()?;
        ensure!(verified["segments"] == stored.len(), "{verified}");

        let listed = say(lab, &archive, &["list"])?;
        let ranges = listed["timelines"]["1"]["ranges"]
            .as_array()
            .context("ranges")?;
        ensure!(ranges.len() == 3, "{listed}");
        let index = lab.dir().join("index").display().to_string();
        let targets = say(lab, &archive, &["targets", "--index", &index])?;
        let backups = targets["backups"].as_array().context("backups")?;
        ensure!(backups.len() == 3, "{targets}");
        for ((part, range), backup) in parts.iter().zip(ranges).zip(backups) {
            must_be_told(part, range, backup)
                .with_context(|| format!("{range}, {backup} of {}", part.segments.join(", ")))?;
        }

        // As it says. The server reads ahead of what it replays (recovery_prefetch), to where WAL goes on in another size.
        let settings = recovery_settings(lab, &archive)?.with("walden.missing_segment", "end");
        let recovered = recovery_to(lab, &parts[0].backup, settings, "goal1")?;
        must_recover(&recovered, &first)
    })
}

/// A range of the list is where its segments are, and its base backup reaches the end of them.
fn must_be_told(part: &Part, range: &Value, backup: &Value) -> Result<()> {
    let size = SegmentSize::new(u64::from(part.mb) * 1024 * 1024)?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
    let start = |name: &str| name.parse::<SegmentName>()?.start(size).context("a place");
    let first = text(&range["first_segment"])?;
    ensure!(text(&range["first_lsn"])? == start(&first)?.to_string());
    let last = text(&range["last_segment"])?;
    let end = wal::Lsn(start(&last)?.0 + size.bytes()).to_string();
    ensure!(text(&range["end_lsn"])? == end);
    ensure!(
        part.segments
            .iter()
            .all(|it| (&first..=&last).contains(&it))
    );
    let until = backup.pointer("/reaches/0/until_lsn").context("no reach")?;
    ensure!(text(until)? == end, "it reaches {until}");
    Ok(())
}
