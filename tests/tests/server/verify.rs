//! `walden verify` over the archive of a real server with three timelines: whole it is clean; damaged in each of many ways
//! the damage is named, and recovery from it never ends as if it had succeeded with other contents.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use lab::{
    ArchiveDir, Cluster, Contents, DEADLINE, Lab, Settings, Shutdown, run, scenario, wait_for,
};

use crate::common::{
    SHORT_RESTORE_TIMEOUT, SMALL_MB, primary, recovery_of, recovery_settings, recovery_to, write,
};
use crate::sealed::Key;

const MEBIBYTE: usize = 1024 * 1024;

/// How many bytes a segment has beside its entry: several pages of them.
const BESIDE: usize = 100_000;

/// A sound archive, and what it is good for.
struct Sound<'lab> {
    lab: &'lab Lab,
    archive: ArchiveDir,
    backup: PathBuf,
    /// A segment of timeline 1 that recovery needs.
    first: String,
    /// Segments of timeline 2, which was left for timeline 3 behind them: the first one, and the one behind it.
    second: [String; 2],
    /// Two more in the middle of it, one behind the other.
    middle: [String; 2],
    contents: Contents,
    /// An archive of another branch: its timeline 2 left timeline 1 at the same place and went on by itself.
    branch: ArchiveDir,
}

/// Promotes a recovery, and has it write a segment for each entry, with this many bytes beside it.
fn go_on(cluster: &Cluster, entries: RangeInclusive<u32>, beside: usize) -> Result<Vec<String>> {
    cluster.start()?;
    cluster.wait_until_promoted()?;
    let mut segments = Vec::new();
    for entry in entries {
        write(cluster, entry)?;
        let message = format!("select pg_logical_emit_message(false, 'x', repeat('x', {beside}))");
        cluster.sql(&message)?;
        segments.push(cluster.sql("select pg_walfile_name(pg_switch_wal())")?);
    }
    cluster.wait_until_archived()?;
    Ok(segments)
}

impl<'lab> Sound<'lab> {
    fn new(lab: &'lab Lab) -> Result<Sound<'lab>> {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let first = primary.write_segments(1..=4)?;
        primary.sql("select pg_create_restore_point('fork')")?;
        // The first timeline goes on by itself behind the place where the others leave it.
        primary.sql("update ledger set entry = entry + 1000")?;
        for entry in 11..14 {
            write(&primary, entry)?;
            primary.switch_segment()?;
        }
        primary.wait_until_archived()?;
        primary.stop(Shutdown::Immediate)?;
        let branch = lab.archive("branch")?;
        copy_of(lab, &archive, &branch)?;

        let settings = recovery_settings(lab, &archive)?;
        let fork = recovery_to(lab, &backup, settings.clone(), "fork")?;
        let second = go_on(&fork, 21..=26, BESIDE)?;
        fork.stop(Shutdown::Fast)?;

        let again = lab.restored("again", &backup, settings)?;
        again.touch("recovery.signal")?;
        go_on(&again, 31..=33, BESIDE)?;
        let contents = again.contents()?;
        again.stop(Shutdown::Fast)?;

        let other = recovery_settings(lab, &branch)?
            .with("recovery_target_name", "fork")
            .with("recovery_target_action", "promote");
        let other = lab.restored("other", &backup, other)?;
        other.touch("recovery.signal")?;
        go_on(&other, 61..=66, 2 * BESIDE)?;
        other.stop(Shutdown::Fast)?;
        let [one, two, _, middle, after, ..] = second.as_slice() else {
            bail!("six segments were written: {second:?}");
        };
        Ok(Sound {
            lab,
            archive,
            backup,
            first: first.get(1).context("four segments were written")?.clone(),
            second: [one.clone(), two.clone()],
            middle: [middle.clone(), after.clone()],
            contents,
            branch,
        })
    }
}

fn copy_of(lab: &Lab, from: &ArchiveDir, to: &ArchiveDir) -> Result<()> {
    for key in from.keys()? {
        lab.copy(&from.path().join(&key), &to.path().join(&key))?;
    }
    Ok(())
}

/// A copy of the sound archive, to be damaged.
struct Damaged<'a> {
    sound: &'a Sound<'a>,
    archive: ArchiveDir,
}

impl Damaged<'_> {
    fn path(&self, key: &str) -> PathBuf {
        self.archive.path().join(key)
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        fs::write(self.path(key), bytes)?;
        self.sound.lab.own(&self.path(key))
    }

    /// Puts contents in the place of a stored segment, uncompressed.
    fn replace(&self, segment: &str, bytes: &[u8]) -> Result<()> {
        fs::remove_file(self.archive.stored(segment)?)?;
        self.put(segment, bytes)
    }

    /// Changes the contents of a segment, and stores them uncompressed.
    fn change(&self, segment: &str, change: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> Result<()> {
        let mut bytes = self.sound.lab.fetch(&self.sound.archive, segment)?;
        change(&mut bytes).context("too short")?;
        self.replace(segment, &bytes)
    }

    /// Changes an object as it is stored; answers with its key.
    fn change_stored(
        &self,
        segment: &str,
        change: impl FnOnce(&mut Vec<u8>) -> Option<()>,
    ) -> Result<String> {
        let path = self.archive.stored(segment)?;
        let mut bytes = fs::read(&path)?;
        change(&mut bytes).context("too short")?;
        fs::write(&path, bytes)?;
        key_of(&path)
    }
}

fn key_of(path: &Path) -> Result<String> {
    let key = path.file_name().context("no name")?;
    Ok(key.to_string_lossy().into_owned())
}

/// What a damage is to be called, and of which object.
type Named = (&'static str, String);

/// Damages a copy.
type Damage = fn(&Damaged<'_>) -> Result<Named>;

const DAMAGES: [(&str, Damage); 20] = [
    ("missing segment", |it| {
        let [middle, _] = &it.sound.middle;
        fs::remove_file(it.archive.stored(middle)?)?;
        Ok(("missing", middle.clone()))
    }),
    ("truncated object", |it| {
        let key = it.change_stored(&it.sound.middle[0], |bytes| {
            bytes.truncate(bytes.len() / 2);
            Some(())
        })?;
        Ok(("damaged", key))
    }),
    ("truncated uncompressed object", |it| {
        it.change(&it.sound.middle[0], |bytes| {
            bytes.truncate(MEBIBYTE / 2);
            Some(())
        })?;
        Ok(("damaged", it.sound.middle[0].clone()))
    }),
    ("swapped names", |it| {
        let (one, other) = (
            it.archive.stored(&it.sound.middle[0])?,
            it.archive.stored(&it.sound.middle[1])?,
        );
        let aside = it.path("aside");
        fs::rename(&one, &aside)?;
        fs::rename(&other, &one)?;
        fs::rename(&aside, &other)?;
        Ok(("misnamed", key_of(&one)?))
    }),
    ("foreign system identifier", |it| {
        it.change(&it.sound.middle[0], |bytes| flip(bytes, 24))?;
        Ok(("other-system", it.sound.middle[0].clone()))
    }),
    ("segment of another size", |it| {
        // One that a segment of twice the size can begin with.
        let [one, other] = &it.sound.middle;
        let is_even = |name: &String| name.ends_with(['0', '2', '4', '6', '8', 'A', 'C', 'E']);
        let name = if is_even(one) { one } else { other };
        it.change(name, |bytes| {
            let twice = u32::try_from(2 * MEBIBYTE).ok()?;
            bytes.get_mut(32..36)?.copy_from_slice(&twice.to_ne_bytes());
            bytes.resize(2 * MEBIBYTE, 0);
            Some(())
        })?;
        Ok(("other-size", name.clone()))
    }),
    ("divergent branch", |it| {
        let [middle, _] = &it.sound.middle;
        let bytes = it.sound.lab.fetch(&it.sound.branch, middle)?;
        it.replace(middle, &bytes)?;
        Ok(("does-not-follow", middle.clone()))
    }),
    (
        "segment of the timeline before under this one's name",
        |it| {
            let [_, second] = &it.sound.second;
            let first = on_timeline(1, second);
            let bytes = it.sound.lab.fetch(&it.sound.archive, &first)?;
            it.replace(second, &bytes)?;
            Ok(("other-timeline", second.clone()))
        },
    ),
    ("overlapping timelines", |it| {
        let first = &it.sound.first;
        let second = on_timeline(2, first);
        it.put(&second, &it.sound.lab.fetch(&it.sound.archive, first)?)?;
        Ok(("before-timeline", second))
    }),
    ("lost timeline history file", |it| {
        fs::remove_file(it.path("00000002.history"))?;
        Ok(("missing-history", "00000002.history".to_owned()))
    }),
    ("lost timeline history file of the last timeline", |it| {
        fs::remove_file(it.path("00000003.history"))?;
        Ok(("missing-history", "00000003.history".to_owned()))
    }),
    ("timeline history file with a later switchpoint", |it| {
        move_switchpoint(it, 2 * MEBIBYTE as i64)?;
        Ok(("before-timeline", it.sound.second[0].clone()))
    }),
    ("timeline history file with an earlier switchpoint", |it| {
        move_switchpoint(it, -(MEBIBYTE as i64))?;
        Ok(("contradiction", "00000003.history".to_owned()))
    }),
    ("empty file", |it| {
        let key = it.change_stored(&it.sound.middle[0], |bytes| {
            bytes.clear();
            Some(())
        })?;
        Ok(("damaged", key))
    }),
    ("suffix of old", |it| {
        let stored = it.archive.stored(&it.sound.middle[0])?;
        let key = format!("{}.zst", it.sound.middle[0]);
        fs::rename(stored, it.path(&key))?;
        Ok(("unreadable", key))
    }),
    ("packed by something else", |it| {
        let key = it.change_stored(&it.sound.middle[0], |bytes| {
            bytes.splice(.., *b"\x1f\x8b\x08\x00 whatever");
            Some(())
        })?;
        Ok(("unreadable", key))
    }),
    ("suffix that nobody reads", |it| {
        let stored = it.archive.stored(&it.sound.middle[0])?;
        let key = format!("{}.gz", it.sound.middle[0]);
        fs::rename(stored, it.path(&key))?;
        Ok(("unreadable", key))
    }),
    ("rotten bit", |it| {
        // In what is written, however little that is.
        it.change(&it.sound.middle[0], |bytes| flip(bytes, 60))?;
        Ok(("damaged", it.sound.middle[0].clone()))
    }),
    ("rotten bit under compression", |it| {
        let key = it.change_stored(&it.sound.middle[0], |bytes| {
            let middle = bytes.len() / 2;
            flip(bytes, middle)
        })?;
        Ok(("damaged", key))
    }),
    ("hole of zeros", |it| {
        it.change(&it.sound.middle[0], |bytes| {
            bytes.get_mut(8192..)?.fill(0);
            Some(())
        })?;
        Ok(("ends-early", it.sound.middle[0].clone()))
    }),
];

fn flip(bytes: &mut [u8], at: usize) -> Option<()> {
    *bytes.get_mut(at)? ^= 0x10;
    Some(())
}

/// The name of the same segment on another timeline.
fn on_timeline(timeline: u32, segment: &str) -> String {
    let (_, place) = segment.split_at(8);
    format!("{timeline:08X}{place}")
}

fn move_switchpoint(it: &Damaged<'_>, by: i64) -> Result<()> {
    let path = it.path("00000002.history");
    let text = fs::read_to_string(&path)?;
    let place = text.split_whitespace().nth(1).context("no switchpoint")?;
    let low = place.split('/').nth(1).context("no LSN")?;
    let moved = i64::from_str_radix(low, 16)? + by;
    fs::write(&path, text.replace(place, &format!("0/{moved:X}")))?;
    Ok(())
}

/// What `walden verify` says: its exit status and its report.
fn verify(lab: &Lab, archive: &ArchiveDir, flags: &[String]) -> Result<(i32, String)> {
    let mut command = lab.command("walden");
    command.args(["verify", "--json", "-A"]).arg(archive.path());
    let outcome = run(command.args(flags))?;
    let status = outcome.status.code().context("ended by a signal")?;
    Ok((status, outcome.stdout))
}

fn names(report: &str, (kind, object): &Named) -> bool {
    report.contains(&format!(
        "\"kind\": \"{kind}\",\n      \"object\": \"{object}\""
    ))
}

/// Recovers from a damaged archive, with the library and with the command.
fn must_not_end_elsewhere(it: &Damaged<'_>, name: &str) -> Result<()> {
    let lab = it.sound.lab;
    let short = SHORT_RESTORE_TIMEOUT;
    let settings = recovery_settings(lab, &it.archive)?.with("walden.restore_timeout", short);
    recovers_the_same_or_not(it, name, settings)?;
    let command = format!("walden restore -A {} \"%f\" \"%p\"", it.archive.text());
    let settings = lab.settings().with("restore_command", &command);
    recovers_the_same_or_not(it, &format!("{name}c"), settings).context("walden restore")
}

/// The server must refuse, or come to exactly what the sound archive gives.
fn recovers_the_same_or_not(it: &Damaged<'_>, name: &str, settings: Settings) -> Result<()> {
    let lab = it.sound.lab;
    let server = lab.restored(name, &it.sound.backup, settings)?;
    server.touch("recovery.signal")?;
    server.launch()?;
    let promoted = wait_for("recovery to end", DEADLINE, || {
        if !server.is_running()? {
            return Ok(Some(false));
        }
        if !server.takes_connections()? {
            return Ok(None);
        }
        let outcome = server.psql("postgres", "select pg_is_in_recovery()")?;
        Ok((outcome.stdout.trim() == "f").then_some(true))
    })?;
    if promoted {
        if server.contents()? != it.sound.contents {
            let log = server.log(lab::Mark::default())?;
            bail!("recovery ended elsewhere, as if it had succeeded: {log}");
        }
        server.stop(Shutdown::Immediate)?;
    } else {
        let log = server.log(lab::Mark::default())?;
        ensure!(log.contains("FATAL"), "{log}");
        ensure!(
            server.data().join("recovery.signal").exists(),
            "recovery.signal is gone"
        );
    }
    Ok(())
}

#[test]
fn every_kind_of_damage_is_named_and_never_replayed() -> Result<()> {
    scenario(|lab| {
        let sound = Sound::new(lab)?;
        let (status, report) = verify(lab, &sound.archive, &[])?;
        ensure!(status == 0, "the sound archive is not: {report}");
        let mut failed = Vec::new();
        for (number, (what, damage)) in DAMAGES.iter().enumerate() {
            let archive = lab.archive(&format!("damaged{number}"))?;
            copy_of(lab, &sound.archive, &archive)?;
            let it = Damaged {
                sound: &sound,
                archive,
            };
            let named = damage(&it).with_context(|| format!("could not do: {what}"))?;
            let (status, report) = verify(lab, &it.archive, &[])?;
            if status != 1 || !names(&report, &named) {
                failed.push(format!("{what}: status {status}, no {named:?} in {report}"));
            }
            if let Err(why) = must_not_end_elsewhere(&it, &format!("recovered{number}")) {
                failed.push(format!("{what}: {why:#}"));
            }
        }
        if failed.is_empty() {
            Ok(())
        } else {
            bail!("{}", failed.join("\n"))
        }
    })
}

#[test]
fn what_is_encrypted_is_verified_with_the_key_and_unknown_without() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let key = Key::new(lab, "key")?;
        let settings = lab
            .walden_settings(&archive)?
            .with("walden.recipients", &key.public);
        let primary = crate::common::primary_with(lab, SMALL_MB, settings)?;
        let backup = primary.base_backup("backup")?;
        let segments = primary.write_segments(1..=5)?;
        primary.wait_until_archived()?;
        primary.stop(Shutdown::Immediate)?;
        let flags = ["--identity-file".to_owned(), key.text()];
        let (status, report) = verify(lab, &archive, &flags)?;
        ensure!(status == 0, "{status}: {report}");
        let (status, report) = verify(lab, &archive, &[])?;
        ensure!(status == 4, "{status}: {report}");

        // Everywhere in the object: header, key, and contents.
        let path = archive.stored(&segments[2])?;
        let whole = fs::read(&path)?;
        // Small ones are half header.
        for at in [3, 60, whole.len() - 40, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, bytes)?;
            let (status, report) = verify(lab, &archive, &flags)?;
            ensure!(
                status != 0 && report.contains(&key_of(&path)?),
                "byte {at}: {status}: {report}"
            );
            ensure!(status == 1 || at < 100, "byte {at}: {status}: {report}");
        }
        let settings = recovery_settings(lab, &archive)?
            .with("walden.identity_file", &key.text())
            .with("walden.restore_timeout", SHORT_RESTORE_TIMEOUT);
        let recovered = recovery_of(lab, &backup, settings)?;
        crate::common::start_could_not_restore(&recovered, &segments[2])?;
        Ok(())
    })
}
