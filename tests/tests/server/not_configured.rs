//! `archive_library = 'walden'` without a usable `walden.archive`.
//!
//! The server's warning says `archive_mode enabled` in 15 and 16, `"archive_mode" enabled` since 17.  Since 17
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

#[test]
fn a_directory_that_does_not_exist_is_named() -> Result<()> {
    let wrong = "/nonexistent/walden/archive";
    starts_once_the_setting_is_right(Some(wrong), wrong, &[], |_| ())
}

#[test]
fn a_relative_path_is_named_without_the_preload_too() -> Result<()> {
    starts_once_the_setting_is_right(
        Some("relative/archive"),
        NOT_SET,
        &["relative/archive"],
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
