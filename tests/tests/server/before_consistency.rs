//! A server that lets no session in yet: `walden status` and `walden check` ask its recovery worker.

use std::fs;

use anyhow::{Result, ensure};
use lab::{scenario, wait_until};
use serde_json::Value;

use crate::common::{SMALL_MB, primary, recovery_of, recovery_settings};
use crate::monitoring::{check, walden};

#[test]
fn before_consistency_the_recovery_worker_says_what_recovery_waits_for() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=3)?;
        primary.archive_everything()?;
        let away = archive.path().with_extension("away");
        fs::rename(archive.path(), &away)?;
        let settings = recovery_settings(lab, &archive)?.with("walden.restore_timeout", "10min");
        let recovery = recovery_of(lab, &backup, settings)?;
        recovery.launch()?;

        // It is asked for a file, and the archive is away.
        let words = [
            "running, lets no session in, recovering",
            "waits for \"0000",
            "COULD NOT TELL for",
        ];
        wait_until("the screen to say what recovery waits for", || {
            let text = walden(lab, &recovery, &["status"])?;
            Ok(words.iter().all(|words| text.contains(words)))
        })?;
        let shown: Value = serde_json::from_str(&walden(lab, &recovery, &["status", "--json"])?)?;
        assert_eq!(shown["server"]["state"], "closed", "{shown}");
        let worker = &shown["status"]["recovery"];
        assert_eq!(worker["live"], true, "{shown}");
        ensure!(worker["asked"]["file"].is_string(), "{shown}");
        assert_eq!(worker["last_failure"]["cause"], "store", "{shown}");
        let (code, text) = check(lab, &recovery, &[])?;
        assert_eq!(code, Some(1), "{text}");
        for words in [
            "warning  server runs, is in recovery, and lets no session in",
            "FAILED   recovery has not been told of its files for",
            "\"pg_wal\" has",
        ] {
            ensure!(text.contains(words), "no {words:?} in:\n{text}");
        }

        fs::rename(&away, archive.path())?;
        recovery.wait_until_promoted()?;
        wait_until("the screen of a primary", || {
            Ok(walden(lab, &recovery, &["status"])?.contains("primary, timeline 2"))
        })
    })
}

#[test]
fn a_standby_that_lets_nobody_in_says_what_its_archiver_does() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=3)?;
        primary.archive_everything()?;
        let settings = recovery_settings(lab, &archive)?
            .with("archive_mode", "always")
            .with("hot_standby", "off");
        let standby = lab.restored("standby", &backup, settings)?;
        standby.touch("standby.signal")?;
        standby.launch()?;
        let words = [
            "warning  server runs, is a standby, and lets no session in",
            "passed   archiving does not fail",
            "to be archived",
            "unknown  whether a switched segment is archived",
        ];
        wait_until("the check to say what the archiver does", || {
            let (_, text) = check(lab, &standby, &["--switch"])?;
            Ok(words.iter().all(|words| text.contains(words)))
        })
    })
}
