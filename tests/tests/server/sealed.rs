//! Encrypted archives: a server that archives holds no key to read them, one that recovers does, and a key that is wrong
//! or missing is never the end of WAL.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lab::{ArchiveDir, Cluster, Lab, Mark, Settings, Shutdown, run, scenario, wait_until};
use rustix::process::Signal;

use crate::common::{
    SHORT_RESTORE_TIMEOUT, SMALL_MB, check_not_promoted, crash_before_the_notes, must_recover,
    primary_with, recovery_of, recovery_settings, recovery_to, standby, start_and_hold,
    wait_for_entries, write,
};

/// A secret key in a file that the servers' user alone can read, and its public key.
pub(crate) struct Key {
    file: PathBuf,
    pub(crate) public: String,
}

impl Key {
    /// As `age-keygen` makes it.
    pub(crate) fn new(lab: &Lab, name: &str) -> Result<Key> {
        let file = lab.dir().join(name);
        let cure = "scripts/prerequisites installs age";
        run(lab.command("age-keygen").arg("-o").arg(&file))
            .context(cure)?
            .success()?;
        let public = run(lab.command("age-keygen").arg("-y").arg(&file))?.success()?;
        lab.own(&file)?;
        Ok(Key {
            file,
            public: public.trim().to_owned(),
        })
    }

    /// Its file, as text for a setting.
    pub(crate) fn text(&self) -> String {
        self.file.display().to_string()
    }

    fn secret(&self) -> Result<String> {
        let text = fs::read_to_string(&self.file)?;
        let line = text
            .lines()
            .find(|line| line.starts_with("AGE-SECRET-KEY-"));
        Ok(line.context("no secret key")?.to_owned())
    }
}

/// A primary that encrypts for these keys, and holds none.
fn primary<'lab>(lab: &'lab Lab, archive: &ArchiveDir, keys: &[&Key]) -> Result<Cluster<'lab>> {
    let publics: Vec<&str> = keys.iter().map(|key| key.public.as_str()).collect();
    let settings = lab
        .walden_settings(archive)?
        .with("walden.recipients", &publics.join(", "))
        .with("wal_keep_size", "64MB");
    primary_with(lab, SMALL_MB, settings)
}

/// Settings of a server that recovers with this key, and encrypts for it afterwards.
fn opening(lab: &Lab, archive: &ArchiveDir, key: &Key) -> Result<Settings> {
    Ok(recovery_settings(lab, archive)?
        .with("walden.recipients", &key.public)
        .with("walden.identity_file", &key.text())
        .with("walden.restore_timeout", SHORT_RESTORE_TIMEOUT)
        .with("log_min_messages", "debug1"))
}

fn must_be_encrypted(archive: &ArchiveDir, marker: &str) -> Result<()> {
    for (key, bytes) in archive.snapshot()? {
        ensure!(
            key.starts_with("walden.") || bytes.starts_with(b"age-encryption.org/v1\n"),
            "{key} is not encrypted"
        );
        let seen = bytes
            .windows(marker.len())
            .any(|part| part == marker.as_bytes());
        ensure!(!seen, "{key} shows what was written");
    }
    Ok(())
}

#[test]
fn a_server_that_cannot_read_its_archive_knows_its_own_files_again_after_a_crash() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let key = Key::new(lab, "key")?;
        let primary = primary(lab, &archive, &[&key])?;
        // Uncompressed, so that what was written would be seen.
        primary.reload(|settings| settings.set("walden.compression", "none"))?;
        primary.wait_for_sql("show walden.compression", "none")?;
        let marker = "a marker that nobody without a key may see";
        primary.sql(&format!("create table seen as select '{marker}' as text"))?;
        let segments = primary.write_segments(1..=3)?;
        primary.wait_until_archived()?;
        must_be_encrypted(&archive, marker)?;
        assert_eq!(primary.sql("show walden.recipients")?, key.public);
        crash_before_the_notes(&primary, &archive, &segments)?;

        // The command finds the same secret in the control file; without it nobody can tell.
        let copy = lab.dir().join(&segments[0]);
        lab.copy(&primary.data().join("pg_wal").join(&segments[0]), &copy)?;
        let archiving = |data: Option<PathBuf>| {
            let mut command = lab.command("walden");
            command.args(["archive", "--verbose", "--recipients", &key.public, "-A"]);
            command.arg(archive.path()).arg(&copy);
            run(command.args(data.iter().flat_map(|data| [Path::new("-D"), data])))
        };
        let said = archiving(Some(primary.data()))?;
        ensure!(said.stderr.contains("already"), "{said:?}");
        let said = archiving(None)?;
        ensure!(
            !said.status.success() && said.stderr.contains("the cluster's secret"),
            "{said:?}"
        );
        Ok(())
    })
}

#[test]
fn another_file_of_the_same_name_is_refused_by_a_server_that_cannot_read_the_stored_one()
-> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let key = Key::new(lab, "key")?;
        let primary = primary(lab, &archive, &[&key])?;
        write(&primary, 1)?;
        primary.archive_everything()?;

        // Another server of the same cluster has archived its own file of the next name. It differs behind the switch.
        let there = archive.path().display().to_string();
        let nowhere = lab.dir().join("unmounted").display().to_string();
        primary.reload(|settings| settings.set("walden.archive", &nowhere))?;
        primary.wait_for_sql("show walden.archive", &nowhere)?;
        write(&primary, 2)?;
        let name = primary.switch_segment()?;
        let other = lab.dir().join(&name);
        let mut contents = fs::read(primary.data().join("pg_wal").join(&name))?;
        contents
            .last_mut()
            .context("an empty segment")?
            .clone_from(&1);
        fs::write(&other, contents)?;
        let mut command = lab.command("walden");
        command.args(["archive", "--recipients", &key.public, "-A", &there, "-D"]);
        run(command.arg(primary.data()).arg(&other))?.success()?;
        lab.own(&archive.stored(&name)?)?;
        let stored = fs::read(archive.stored(&name)?)?;

        let mark = primary.mark()?;
        primary.reload(|settings| settings.set("walden.archive", &there))?;
        wait_until("a counted failure", || Ok(primary.archive_failures()? >= 1))?;
        primary.wait_for_log(
            mark,
            &["WARNING", &name, "already exists with different contents"],
        )?;
        assert_eq!(
            fs::read(archive.stored(&name)?)?,
            stored,
            "the archived file was touched"
        );
        Ok(())
    })
}

#[test]
fn point_in_time_recovery_and_a_standby_read_an_encrypted_archive_ahead() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (key, second) = (Key::new(lab, "key")?, Key::new(lab, "second")?);
        let primary = primary(lab, &archive, &[&key, &second])?;
        let backup = primary.base_backup("backup")?;
        // Either recipient's identity will do.
        let standby = standby(lab, "standby", &backup, opening(lab, &archive, &second)?)?;
        primary.write_segments(1..=20)?;
        let before = primary.contents()?;
        primary.sql("select pg_create_restore_point('goal')")?;
        write(&primary, 21)?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 21)?;
        standby.stop(Shutdown::Fast)?;
        primary.stop(Shutdown::Immediate)?;

        let settings = opening(lab, &archive, &key)?;
        let recovered = recovery_to(lab, &backup, settings, "goal")?;
        must_recover(&recovered, &before)?;
        let ahead = recovered.logged(Mark::default(), &["restored file", "(fetched ahead)"])?;
        ensure!(
            ahead.len() >= 10,
            "{} segments were fetched ahead",
            ahead.len()
        );
        // The new timeline's history file is encrypted too, and read by who recovers next.
        write(&recovered, 22)?;
        recovered.archive_everything()?;
        ensure!(
            std::fs::read(archive.path().join("00000002.history"))?.starts_with(b"age-encryption"),
            "{:?}",
            archive.keys()?
        );
        let before = recovered.contents()?;
        recovered.stop(Shutdown::Immediate)?;
        let next = lab.restored("next", &backup, opening(lab, &archive, &key)?)?;
        next.touch("recovery.signal")?;
        must_recover(&next, &before)
    })
}

/// A recovery whose identity file is changed so in the middle ends without a promotion, and goes through to its end
/// once the file is put right.
fn recovery_with_trouble(trouble: fn(&Lab, &Key) -> Result<()>, said: &[&str]) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let key = Key::new(lab, "key")?;
        let primary = primary(lab, &archive, &[&key])?;
        // Enough segments that recovery is still under way when the file is changed.
        let lost = primary.lose(40)?;
        let right = fs::read(&key.file)?;
        // Without a target the server itself would take any end of WAL for a good one, and promote.
        let recovered = recovery_of(lab, &lost.backup, opening(lab, &archive, &key)?)?;
        let startup = start_and_hold(&recovered, 3)?;
        trouble(lab, &key)?;
        let mark = recovered.mark()?;
        startup.signal(Signal::CONT)?;
        recovered.wait_for_end()?;
        let log = recovered.log(mark)?;
        let fatal = recovered.logged(mark, &["FATAL", "could not restore file"])?;
        ensure!(!fatal.is_empty(), "{log}");
        let words = [&[key.public.as_str()], said].concat();
        ensure!(!recovered.logged(mark, &words)?.is_empty(), "{log}");
        let hints = recovered.logged(mark, &["HINT", "walden.identity_file"])?;
        ensure!(!hints.is_empty(), "{log}");
        ensure!(
            !log.contains("AGE-SECRET-KEY-1"),
            "the log shows a secret key: {log}"
        );
        check_not_promoted(lab, &recovered, &archive)?;

        fs::write(&key.file, right)?;
        lab.own(&key.file)?;
        must_recover(&recovered, &lost.contents)
    })
}

#[test]
fn a_wrong_identity_is_not_the_end_of_wal_and_the_log_says_whose_it_is() -> Result<()> {
    let wrong = |lab: &Lab, key: &Key| {
        let other = Key::new(lab, "other")?;
        fs::write(&key.file, fs::read(&other.file)?)?;
        Ok(())
    };
    recovery_with_trouble(wrong, &["is encrypted for", "identity file", "is for age1"])
}

#[test]
fn an_identity_file_that_is_missing_is_not_the_end_of_wal() -> Result<()> {
    let missing = |_: &Lab, key: &Key| Ok(fs::remove_file(&key.file)?);
    recovery_with_trouble(
        missing,
        &["could not read identity file", "No such file or directory"],
    )
}

#[test]
fn a_standby_with_a_wrong_identity_waits_and_goes_on_when_the_file_is_put_right() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (key, wrong) = (Key::new(lab, "key")?, Key::new(lab, "wrong")?);
        let right = fs::read(&key.file)?;
        fs::write(&key.file, fs::read(&wrong.file)?)?;
        let primary = primary(lab, &archive, &[&key])?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=5)?;
        primary.wait_until_archived()?;
        let standby = lab.restored("standby", &backup, opening(lab, &archive, &key)?)?;
        standby.touch("standby.signal")?;
        standby.launch()?;
        let said = [
            "is encrypted for",
            key.public.as_str(),
            "is for",
            wrong.public.as_str(),
        ];
        standby.wait_for_log(Mark::default(), &said)?;
        ensure!(
            !standby.data().join("pg_wal/00000002.history").exists(),
            "the standby was promoted"
        );

        fs::write(&key.file, right)?;
        wait_until("the standby to take connections", || {
            standby.takes_connections()
        })?;
        wait_for_entries(&standby, 5)?;
        assert_eq!(standby.sql("select pg_is_in_recovery()")?, "t");
        Ok(())
    })
}

#[test]
fn a_server_started_with_a_mistyped_recipient_archives_nothing_rather_than_in_the_clear()
-> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let key = Key::new(lab, "key")?;
        let typo = key.public.replacen("age1", "age2", 1);
        let settings = lab
            .walden_settings(&archive)?
            .with("walden.recipients", &typo);
        let primary = primary_with(lab, SMALL_MB, settings)?;
        let mark = primary.mark()?;
        primary.write_segments(1..=2)?;
        primary.wait_for_log(mark, &["WARNING", "nothing is archived unencrypted"])?;
        assert_eq!(archive.keys()?, Vec::<String>::new());
        primary.reload(|settings| settings.set("walden.recipients", &key.public))?;
        primary.wait_until_archived()?;
        must_be_encrypted(&archive, "no such marker")
    })
}

#[test]
fn a_secret_key_given_as_a_recipient_is_refused_and_shown_nowhere() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let key = Key::new(lab, "key")?;
        let secret = key.secret()?;
        let primary = primary(lab, &archive, &[&key])?;
        for parameter in ["walden.recipients", "walden.identity_file"] {
            let before = primary.sql(&format!("show {parameter}"))?;
            let mark = primary.mark()?;
            primary.reload(|settings| settings.set(parameter, &secret))?;
            let refused = format!("invalid value for parameter \"{parameter}\"");
            primary.wait_for_log(mark, &[&refused])?;
            primary.wait_for_log(mark, &["a secret key was given"])?;
            primary.reload(|settings| settings.set(parameter, &before))?;
            assert_eq!(primary.sql(&format!("show {parameter}"))?, before);
        }
        let log = primary.log(Mark::default())?;
        ensure!(
            !log.contains(&secret[20..40]),
            "the log shows the secret key: {log}"
        );
        Ok(())
    })
}
