//! Base backups in the archive: what a server sends, written through the library, is what stock programs unpack and what a
//! server starts from; what is wrong with it is named. The page rule says what the server's own programs say.
//!
//! This file is long because it plays the server's part by itself. That is done by files: `pg_basebackup -Ft` has written them,
//! and they are sent as a server would.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use archive::{Archive, Cancel, Compression, DirStore, MemoryStore, Options};
use backup::{
    Begin, Committed, End, PART_BYTES_MIN, PageRule, PageState, Request, Target, Writing,
};
use fastrand::Rng;
use lab::{ArchiveDir, Cluster, Lab, Shutdown, run, scenario};
use wal::{Lsn, SegmentSize, TimelineId};

use crate::common::{SMALL_MB, primary, recovery_of, recovery_settings, write};

const PAGE_BYTES: u32 = 8192;

/// Pages of a file of a relation, as servers are built.
const SEGMENT_PAGES: u32 = 131_072;

/// A backup as `pg_basebackup -Ft` has written it.
struct Sent(PathBuf);

impl Sent {
    /// Takes one, without WAL, though the server may find pages corrupt.
    fn take(cluster: &Cluster<'_>, lab: &Lab, name: &str) -> Result<(Sent, bool)> {
        let path = cluster.home().join(name);
        let mut command = lab.server_command("pg_basebackup");
        command.arg("-h").arg(cluster.home());
        command.args([
            "-U",
            "postgres",
            "-Ft",
            "-X",
            "none",
            "-c",
            "fast",
            "--no-sync",
            "--no-clean",
        ]);
        let taken = run(command.arg("-D").arg(&path))?;
        Ok((Sent(path), taken.status.success()))
    }

    /// A file of `base.tar`.
    fn file(&self, name: &str) -> Result<String> {
        let mut command = std::process::Command::new("tar");
        run(command.arg("-xOf").arg(self.0.join("base.tar")).arg(name))?.success()
    }

    fn start(&self) -> Result<Lsn> {
        let label = self.file("backup_label")?;
        let line = label
            .lines()
            .find_map(|line| line.strip_prefix("START WAL LOCATION: "));
        let word = line.and_then(|line| line.split(' ').next());
        Ok(word.context("no start")?.parse()?)
    }

    /// Its manifest, which has another name where the server has failed the backup at its end.
    fn manifest(&self) -> Result<Vec<u8>> {
        let named = fs::read(self.0.join("backup_manifest"));
        Ok(named.or_else(|_| fs::read(self.0.join("backup_manifest.tmp")))?)
    }

    /// Where the manifest says that its WAL ends.
    fn stop(&self) -> Result<Lsn> {
        let text = self.manifest()?;
        let manifest: serde_json::Value = serde_json::from_slice(&text)?;
        let end = manifest.pointer("/WAL-Ranges/0/End-LSN");
        let end = end.and_then(serde_json::Value::as_str);
        Ok(end.context("no end")?.parse()?)
    }

    /// Sends it as a server does, in pieces of 32 kB, tablespaces first.
    fn send(
        &self,
        lab: &Lab,
        archive: &Arc<Archive>,
        segment_size: SegmentSize,
    ) -> Result<Committed> {
        let start_lsn = self.start()?;
        let binding = archive.binding()?.context("no binding")?;
        let major = lab.installation().major();
        let mut writing = Writing::begin(
            Arc::clone(archive),
            Begin {
                system: binding.system,
                segment_size,
                major,
                start_lsn,
                timeline: TimelineId::FIRST,
                label: "made".to_owned(),
                started: SystemTime::now(),
                pages: Some(rule(major, start_lsn)),
                part_bytes_max: 4 * PART_BYTES_MIN,
            },
        )?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            names.push(
                entry?
                    .file_name()
                    .into_string()
                    .ok()
                    .context("an odd name")?,
            );
        }
        names.retain(|name| name.ends_with(".tar"));
        names.sort();
        for name in &names {
            writing.begin_tar(name)?;
            send(&mut writing, &fs::read(self.0.join(name))?)?;
            writing.end_tar()?;
        }
        for piece in self.manifest()?.chunks(32_768) {
            writing.manifest(piece)?;
        }
        writing.end_manifest()?;
        Ok(writing.commit(&End {
            stop_lsn: self.stop()?,
            timeline: TimelineId::FIRST,
            history: None,
            stopped: SystemTime::now(),
        })?)
    }
}

fn send(writing: &mut Writing, tar: &[u8]) -> Result<()> {
    for piece in tar.chunks(32_768) {
        writing.contents(piece)?;
    }
    Ok(())
}

fn rule(major: u32, start_lsn: Lsn) -> PageRule {
    PageRule {
        major,
        start_lsn,
        page_bytes: PAGE_BYTES,
        segment_pages: SEGMENT_PAGES,
    }
}

fn opened(archive: &ArchiveDir) -> Result<Arc<Archive>> {
    let options = Options {
        compression: Compression::Zstd(1),
        ..Options::default()
    };
    let store = Box::new(DirStore::open(archive.path())?);
    Ok(Arc::new(Archive::with_store(store, options)))
}

/// What `walden` says of the archive, and its exit status.
fn walden(lab: &Lab, archive: &ArchiveDir, arguments: &[&str]) -> Result<(String, Option<i32>)> {
    let said = run(lab
        .command("walden")
        .args(arguments)
        .arg("-A")
        .arg(archive.path()))?;
    Ok((said.stdout + &said.stderr, said.status.code()))
}

/// A field of the only backup that `walden backups --json` shows.
fn shown(lab: &Lab, archive: &ArchiveDir, field: &str) -> Result<serde_json::Value> {
    let (said, status) = walden(lab, archive, &["backups", "--json"])?;
    ensure!(status == Some(0), "{said}");
    let document: serde_json::Value = serde_json::from_str(&said)?;
    ensure!(document.pointer("/backups/1").is_none(), "{said}");
    let found = document.pointer(&format!("/backups/0/{field}"));
    Ok(found.cloned().unwrap_or_default())
}

/// Unpacks the parts of a tar file with stock programs.
fn unpack(folder: &Path, stem: &str, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    let mut parts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?
            .file_name()
            .into_string()
            .ok()
            .context("an odd name")?;
        if name.starts_with(stem) {
            parts.push(folder.join(name));
        }
    }
    parts.sort();
    ensure!(!parts.is_empty(), "there are no parts of {stem}");
    let mut zstd = std::process::Command::new("zstd")
        .arg("-dc")
        .args(&parts)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut tar = std::process::Command::new("tar");
    tar.args(["xi", "-C"])
        .arg(into)
        .stdin(zstd.stdout.take().context("no pipe")?);
    ensure!(
        tar.status()?.success() && zstd.wait()?.success(),
        "tar or zstd failed"
    );
    Ok(())
}

/// Unpacks the parts through stock programs, the tablespace elsewhere, and has a server start from them.
fn starts_from_unpacked(
    lab: &Lab,
    archive: &ArchiveDir,
    primary: &Cluster<'_>,
    backup: &Committed,
) -> Result<()> {
    let folder = archive.path().join("base").join(backup.id.to_string());
    let data = lab.directory("unpacked")?;
    unpack(&folder, "base.", &data)?;
    let oid = backup
        .tablespaces
        .first()
        .context("no tablespace")?
        .oid
        .to_string();
    let moved = lab.directory("moved")?;
    unpack(&folder, &format!("{oid}."), &moved)?;
    fs::write(
        data.join("tablespace_map"),
        format!("{oid} {}\n", moved.display()),
    )?;
    run(lab
        .command("chown")
        .args(["-R", "--reference"])
        .arg(primary.data())
        .arg(&data)
        .arg(&moved))?
    .success()?;
    run(lab.command("chmod").args(["-R", "go-rwx"]).arg(&data))?.success()?;
    starts(lab, archive, &data)
}

/// Has a server start from a restored data directory, with everything in it.
fn starts(lab: &Lab, archive: &ArchiveDir, data: &Path) -> Result<()> {
    let restored = recovery_of(lab, data, recovery_settings(lab, archive)?)?;
    restored.start()?;
    restored.wait_until_promoted()?;
    assert_eq!(restored.sql("select i from there")?, "7");
    assert_eq!(restored.sql("select count(*) from large")?, "20000");
    Ok(())
}

/// A running primary with a table in a tablespace elsewhere, and a large one.
fn with_tablespace<'lab>(lab: &'lab Lab, archive: &ArchiveDir) -> Result<Cluster<'lab>> {
    let primary = primary(lab, archive, SMALL_MB)?;
    let elsewhere = lab.directory("tablespace")?.display().to_string();
    primary.sql(&format!(
        "create tablespace elsewhere location '{elsewhere}'"
    ))?;
    primary.sql("create table there(i int) tablespace elsewhere; insert into there values (7)")?;
    primary
        .sql("create table large as select i, repeat('x', 500) from generate_series(1, 20000) i")?;
    Ok(primary)
}

#[test]
fn pg_verifybackup_accepts_what_the_library_restores_and_a_server_starts_from_it() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = with_tablespace(lab, &archive)?;
        let (sent, is_success) = Sent::take(&primary, lab, "sent")?;
        ensure!(is_success, "pg_basebackup failed");
        let opened = opened(&archive)?;
        let backup = sent.send(lab, &opened, SegmentSize::SMALLEST)?;
        primary.archive_everything()?;
        primary.stop(Shutdown::Fast)?;
        let oid = backup.tablespaces.first().context("no tablespace")?.oid;
        let home = lab.directory("library")?;
        let target = Target {
            directory: home.join("data"),
            tablespaces: [(oid, home.join("moved"))].into(),
        };
        let request = Request {
            archive: &opened,
            readers: 2,
            told: &|_| (),
            cancel: &Cancel::new(),
        };
        let verified = backup::restore(&backup, &target, &request)?;
        assert!(verified.files > 900, "{verified:?}");

        let link = target.directory.join("pg_tblspc").join(oid.to_string());
        symlink(home.join("moved"), &link)?;
        let mut verify = lab.server_command("pg_verifybackup");
        verify.args(["-n", "-i", "tablespace_map", "-m"]);
        verify
            .arg(sent.0.join("backup_manifest"))
            .arg(&target.directory);
        let said = run(&mut verify)?.success()?;
        assert!(said.contains("successfully verified"), "{said}");
        fs::remove_file(&link)?;
        starts(lab, &archive, &target.directory)
    })
}

#[test]
fn a_servers_backup_is_listed_verified_and_unpacked_to_a_server_that_starts() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = with_tablespace(lab, &archive)?;
        write(&primary, 1)?;
        let (sent, is_success) = Sent::take(&primary, lab, "sent")?;
        ensure!(is_success, "pg_basebackup failed");
        let opened = opened(&archive)?;
        let backup = sent.send(lab, &opened, SegmentSize::SMALLEST)?;
        assert_eq!(
            (backup.pages.state, backup.tablespaces.len()),
            (PageState::Ok, 1)
        );
        assert!(backup.pages.checked > 1000, "{:?}", backup.pages);
        assert!(backup.parts.len() > 3, "{:?}", backup.parts);
        primary.archive_everything()?;

        // WAL is listed as before, and the backup beside it.
        let (listed, _) = walden(lab, &archive, &["list"])?;
        assert!(!listed.contains("base"), "{listed}");
        let (text, status) = walden(lab, &archive, &["backups"])?;
        assert_eq!(status, Some(0), "{text}");
        assert!(
            text.contains(&backup.id.to_string()) && text.contains("1 complete"),
            "{text}"
        );
        assert_eq!(shown(lab, &archive, "state")?, "complete");
        assert_eq!(
            shown(lab, &archive, "start_lsn")?,
            backup.start_lsn.to_string()
        );
        let (said, status) = walden(lab, &archive, &["verify", "--backups"])?;
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains("no errors"), "{said}");
        let id = backup.id.to_string();
        let (said, status) = walden(lab, &archive, &["verify", "--backups", &id])?;
        assert_eq!(status, Some(0), "{said}");
        let (said, status) = walden(lab, &archive, &["verify"])?;
        assert_eq!(status, Some(0), "{said}");

        primary.stop(Shutdown::Fast)?;
        starts_from_unpacked(lab, &archive, &primary, &backup)?;
        Ok(())
    })
}

#[test]
fn a_backup_waits_for_its_wal_and_damage_is_named() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        write(&primary, 1)?;
        let (sent, _) = Sent::take(&primary, lab, "sent")?;
        let opened = opened(&archive)?;
        let backup = sent.send(lab, &opened, SegmentSize::SMALLEST)?;
        primary.archive_everything()?;
        primary.stop(Shutdown::Fast)?;
        let id = backup.id.to_string();
        assert_eq!(shown(lab, &archive, "state")?, "complete");

        let segment =
            wal::SegmentName::holding(TimelineId::FIRST, backup.start_lsn, SegmentSize::SMALLEST);
        let (there, away) = (
            archive.path().join(segment.to_string()),
            lab.directory("away")?.join("x"),
        );
        fs::rename(&there, &away)?;
        assert_eq!(shown(lab, &archive, "state")?, "waiting");
        assert_eq!(
            shown(lab, &archive, "missing_segment")?,
            segment.to_string()
        );
        let (said, status) = walden(lab, &archive, &["verify", "--backups"])?;
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(&segment.to_string()), "{said}");
        fs::rename(&away, &there)?;

        let part = archive.path().join("base").join(&id).join("base.00001.tar");
        let sound = fs::read(&part)?;
        let mut flipped = sound.clone();
        flipped[sound.len() / 2] ^= 1;
        fs::write(&part, &flipped)?;
        let (said, status) = walden(lab, &archive, &["verify", "--backups", &id])?;
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("base.00001.tar"), "{said}");
        fs::write(&part, &sound[..sound.len() - 1])?;
        assert_eq!(shown(lab, &archive, "state")?, "damaged");
        fs::remove_file(&part)?;
        let (said, status) = walden(lab, &archive, &["verify", "--backups", &id])?;
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("is missing"), "{said}");
        fs::write(&part, &sound)?;
        assert_eq!(shown(lab, &archive, "state")?, "complete");

        // Without its commit it is none.
        fs::remove_file(archive.path().join("base").join(&id).join("backup.json"))?;
        assert_eq!(shown(lab, &archive, "state")?, "running");
        let (said, status) = walden(lab, &archive, &["verify", "--backups", &id])?;
        assert_eq!(status, Some(4), "{said}");
        assert!(said.contains("is not committed"), "{said}");
        let (said, status) = walden(lab, &archive, &["verify", "--backups", "x"])?;
        assert_eq!(status, Some(2), "{said}");
        Ok(())
    })
}

#[test]
fn without_an_archive_or_a_committed_backup_nothing_is_called_sound() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        for arguments in [&["backups"][..], &["verify", "--backups"]] {
            let (said, status) = walden(lab, &archive, arguments)?;
            let expected = if arguments.len() == 1 { 1 } else { 4 };
            assert_eq!(status, Some(expected), "{said}");
            assert!(said.contains("is empty and belongs to no system"), "{said}");
        }
        let system = wal::SystemIdentifier(7);
        opened(&archive)?.bind(system, SegmentSize::SMALLEST)?;
        let (said, status) = walden(lab, &archive, &["backups"])?;
        assert_eq!(status, Some(0), "{said}");
        let (said, status) = walden(lab, &archive, &["verify", "--backups"])?;
        assert_eq!(status, Some(4), "{said}");
        assert!(said.contains("nothing was verified"), "{said}");
        let (said, status) = walden(lab, &archive, &["verify", "--backups", "--json"])?;
        assert_eq!(status, Some(4), "{said}");
        assert!(said.contains("\"could-not-tell\""), "{said}");
        Ok(())
    })
}

/// Flips a bit of a random page of a file, behind its header.
fn spoil(path: &Path, random: &mut Rng) -> Result<()> {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let pages = file.metadata()?.len() / u64::from(PAGE_BYTES);
    let at = random.u64(..pages) * u64::from(PAGE_BYTES) + random.u64(100..u64::from(PAGE_BYTES));
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    byte[0] ^= 1 << random.u8(..8);
    file.seek(SeekFrom::Start(at))?;
    Ok(file.write_all(&byte)?)
}

#[test]
fn a_corrupt_page_is_marked_where_the_server_fails_the_backup() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.sql(
            "create table large as select i, repeat('x', 500) from generate_series(1, 2000) i",
        )?;
        primary.sql("checkpoint")?;
        let path = primary.sql("select pg_relation_filepath('large')")?;
        primary.stop(Shutdown::Fast)?;
        spoil(&primary.data().join(&path), &mut Rng::with_seed(1))?;
        primary.start()?;
        let (sent, is_success) = Sent::take(&primary, lab, "sent")?;
        assert!(
            !is_success,
            "the server takes a corrupt page for a sound one"
        );
        let opened = opened(&archive)?;
        let backup = sent.send(lab, &opened, SegmentSize::SMALLEST)?;
        assert_eq!(
            (backup.pages.state, backup.pages.corrupt),
            (PageState::Corrupt, 1)
        );
        assert_eq!(backup.pages.files.join(" "), path);
        primary.archive_everything()?;
        assert_eq!(shown(lab, &archive, "state")?, "corrupt_pages");
        let (said, status) = walden(lab, &archive, &["verify", "--backups"])?;
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(&path), "{said}");
        Ok(())
    })
}

/// How many pages are corrupt by the library's rule, of a data directory that no server runs on.
fn corrupt_pages(lab: &Lab, data: &Path) -> Result<(u64, u64)> {
    let archive = Archive::with_store(Box::new(MemoryStore::new()), Options::default());
    let major = lab.installation().major();
    let mut writing = Writing::begin(
        Arc::new(archive),
        Begin {
            system: wal::SystemIdentifier(7),
            segment_size: SegmentSize::SMALLEST,
            major,
            start_lsn: Lsn(u64::MAX),
            timeline: TimelineId::FIRST,
            label: String::new(),
            started: SystemTime::now(),
            pages: Some(rule(major, Lsn(u64::MAX))),
            part_bytes_max: PART_BYTES_MIN,
        },
    )?;
    let mut tar = std::process::Command::new("tar");
    tar.args(["-c", "--format=ustar", "-C"]).arg(data);
    let tar = tar.args(["base", "global"]).output()?;
    ensure!(tar.status.success(), "{tar:?}");
    writing.begin_tar("base.tar")?;
    send(&mut writing, &tar.stdout)?;
    writing.end_tar()?;
    let report = writing.pages();
    Ok((report.checked, report.corrupt))
}

#[test]
fn the_page_rule_counts_what_pg_checksums_counts() -> Result<()> {
    scenario(|lab| {
        let cluster = lab.primary("primary", SMALL_MB, lab.settings())?;
        cluster.sql(
            "create table large as select i, repeat('x', 500) from generate_series(1, 5000) i",
        )?;
        cluster.sql("create index on large(i); vacuum large; checkpoint")?;
        let path = cluster.sql("select pg_relation_filepath('large')")?;
        cluster.stop(Shutdown::Fast)?;
        let counted = |what: &str| -> Result<u64> {
            let mut command = lab.server_command("pg_checksums");
            let said = run(command.arg("--check").arg("-D").arg(cluster.data()))?.stdout;
            let line = said.lines().find_map(|line| line.strip_prefix(what));
            let number = line
                .with_context(|| said.clone())?
                .trim_start_matches(':')
                .trim();
            Ok(number.parse()?)
        };
        let mut random = Rng::with_seed(2);
        for round in 0..6 {
            let bad = counted("Bad checksums")?;
            let (checked, corrupt) = corrupt_pages(lab, &cluster.data())?;
            assert_eq!(corrupt, bad, "round {round}");
            assert!(
                checked > 1000 && checked <= counted("Blocks scanned")?,
                "{checked}"
            );
            spoil(&cluster.data().join(&path), &mut random)?;
        }
        assert!(counted("Bad checksums")? > 3, "the pages were not spoiled");
        Ok(())
    })
}
