//! `archive_library = 'walden'` without a usable `walden.archive`, which is "not configured"; and with one that cannot be
//! opened, which is not.
//!
//! The server's warning says `archive_mode enabled` in 15 and 16, `"archive_mode" enabled` since 17. Since 17
//! it also prints the module's reason as its DETAIL (`arch_module_check_errdetail_string`, pgarch.c); before
//! that the module warns of it itself, and the server's warning has no DETAIL.

use anyhow::Result;
use lab::{Settings, scenario};

use crate::common::{SMALL_MB, primary_with, write};

/// Since this major the server prints why a module is not configured.
const SERVER_GIVES_THE_REASON: u32 = 17;

/// What the module says when it has no archive, also after it refused the setting's value.
const NOT_SET: &str = "\"walden.archive\" is not set";

/// Starts with a `walden.archive` that does not work, looks for the server's warning with `reason` where
/// this major puts it and for warnings with each of `words`, then sets the right one and expects archiving
/// to begin by itself.
fn starts_once_the_setting_is_right(
    wrong: Option<&str>,
    reason: &str,
    words: &[&str],
    change: impl FnOnce(&mut Settings),
) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let mut settings = lab.walden_settings(&archive)?.without("walden.archive");
        if let Some(wrong) = wrong {
            settings.set("walden.archive", wrong);
        }
        change(&mut settings);
        let server = primary_with(lab, SMALL_MB, settings)?;
        let mark = lab::Mark::default();
        write(&server, 1)?;
        let segment = server.switch_segment()?;
        let not_configured = ["WARNING", "archive_mode", "yet archiving is not configured"];
        let told = server.wait_for_log(mark, &not_configured)?.text;
        if lab.installation().major() >= SERVER_GIVES_THE_REASON {
            let quoted = "\"archive_mode\" enabled, yet archiving is not configured";
            assert!(told.contains(quoted), "{told}");
            let detail = told.split_once("DETAIL:").map(|(_, detail)| detail);
            assert!(detail.is_some_and(|text| text.contains(reason)), "{told}");
        } else {
            let bare = "archive_mode enabled, yet archiving is not configured";
            assert!(told.contains(bare) && !told.contains("DETAIL:"), "{told}");
            server.wait_for_log(mark, &["WARNING", reason])?;
        }
        for word in words {
            server.wait_for_log(mark, &["WARNING", word])?;
        }
        assert_eq!(server.archiver("archived_count, failed_count")?, "0|0");
        assert_eq!(archive.keys()?, Vec::<String>::new());

        server.reload(|settings| settings.set("walden.archive", &archive.text()))?;
        archive.wait_for(&segment)?;
        server.wait_until_archived()?;
        assert_eq!(server.archive_failures()?, 0);
        Ok(())
    })
}

#[test]
fn an_empty_archive_setting_is_reported_and_archiving_starts_once_it_is_set() -> Result<()> {
    starts_once_the_setting_is_right(Some(""), NOT_SET, &[], |_| ())
}

#[test]
fn a_missing_archive_setting_is_reported_without_the_preload_too() -> Result<()> {
    starts_once_the_setting_is_right(None, NOT_SET, &[], |settings| {
        settings.remove("shared_preload_libraries");
    })
}

/// Starts a server whose archive cannot be opened, then cures that: meanwhile failures are counted, the reason is in the
/// log, and nobody speaks of settings; afterwards everything is archived, and the log says that it works again.
fn counts_failures_until_the_archive_is_there(standby: bool) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let away = lab.dir().join("unmounted");
        let mut settings = lab
            .walden_settings(&archive)?
            .with("walden.archive_timeout", "2s");
        let primary;
        let server = if standby {
            primary = primary_with(lab, SMALL_MB, settings.clone())?;
            let backup = primary.base_backup("backup")?;
            primary.write_segments(1..=2)?;
            primary.wait_until_archived()?;
            primary.stop(lab::Shutdown::Fast)?;
            settings.set("archive_mode", "always");
            settings.set("walden.restore_library", "walden");
            let standby = lab.restored("standby", &backup, settings)?;
            standby.touch("standby.signal")?;
            // What a standby archives itself is in its own pg_wal.
            let segments = archive.segments()?;
            for segment in &segments {
                let fetched = lab.fetch(&archive, segment)?;
                let to = standby.data().join("pg_wal").join(segment);
                std::fs::write(&to, fetched)?;
                lab.own(&to)?;
            }
            let last = segments.last().map(String::as_str).unwrap_or_default();
            standby.touch(&format!("pg_wal/archive_status/{last}.ready"))?;
            standby
        } else {
            lab.cluster("primary", SMALL_MB, settings)?
        };
        std::fs::rename(archive.path(), &away)?;
        server.start()?;
        if !standby {
            server.create_ledger()?;
            server.switch_segment()?;
        }
        server.wait_for_sql("select failed_count > 0 from pg_stat_archiver", "t")?;
        let mark = lab::Mark::default();
        let reason = ["WARNING", "could not archive file", &archive.text()];
        server.wait_for_log(mark, &reason)?;
        if standby {
            server.wait_for_log(mark, &["WARNING", "could not restore file"])?;
        }
        let unset = server.logged(mark, &["not configured"])?;
        assert!(unset.is_empty(), "{unset:?}");

        std::fs::rename(&away, archive.path())?;
        server.reload(|_| ())?;
        server.wait_until_archived()?;
        server.wait_for_log(mark, &["LOG", "archived file", "in which no file could be"])?;
        if standby {
            server.wait_for_log(mark, &["LOG", "the archive answers again"])?;
        }
        Ok(())
    })
}

#[test]
fn an_archive_that_is_not_mounted_yet_is_a_failure_that_is_counted_and_its_end_is_told()
-> Result<()> {
    counts_failures_until_the_archive_is_there(false)
}

#[test]
fn on_a_standby_too_an_archive_that_is_not_there_is_counted_and_its_return_is_told() -> Result<()> {
    counts_failures_until_the_archive_is_there(true)
}

#[test]
fn a_store_that_is_down_at_the_start_is_a_failure_that_is_counted() -> Result<()> {
    scenario(|lab| {
        // Nobody listens on port 1.
        let down = "s3://bucket/wal?endpoint=http://127.0.0.1:1&region=us-east-1&path_style=true";
        let settings = lab
            .walden_settings_at(down)?
            .with("walden.archive_timeout", "3s");
        let server = primary_with(lab, SMALL_MB, settings)?;
        write(&server, 1)?;
        server.switch_segment()?;
        server.wait_for_sql("select failed_count > 0 from pg_stat_archiver", "t")?;
        let mark = lab::Mark::default();
        server.wait_for_log(mark, &["WARNING", "could not archive file", "s3://bucket"])?;
        let unset = server.logged(mark, &["not configured"])?;
        assert!(unset.is_empty(), "{unset:?}");
        Ok(())
    })
}

#[test]
fn a_relative_path_is_named_without_the_preload_too() -> Result<()> {
    starts_once_the_setting_is_right(
        Some("relative/archive"),
        NOT_SET,
        // What is refused is not repeated: it may hold a secret.
        &[
            "invalid value for parameter \"walden.archive\"",
            "not an absolute path",
        ],
        |settings| {
            settings.remove("shared_preload_libraries");
        },
    )
}

#[test]
fn an_unknown_scheme_in_the_archive_setting_is_named() -> Result<()> {
    starts_once_the_setting_is_right(Some("ftp://host/archive"), NOT_SET, &["ftp"], |settings| {
        settings.remove("shared_preload_libraries");
    })
}
