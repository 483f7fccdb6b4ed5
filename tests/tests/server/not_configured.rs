//! `archive_library = 'walden'` without a usable `walden.archive`.

use anyhow::Result;
use lab::{Settings, scenario};

use crate::common::{SMALL_MB, primary_with, write};

/// Starts with a `walden.archive` that does not work, looks for the server's warning with all of
/// `words` in its detail, then sets the right one and expects archiving to begin by itself.
fn starts_once_the_setting_is_right(
    wrong: Option<&str>,
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
        server.wait_for_log(
            mark,
            &[
                "WARNING",
                "archive_mode enabled, yet archiving is not configured",
            ],
        )?;
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
    starts_once_the_setting_is_right(Some(""), &["\"walden.archive\" is not set"], |_| ())
}

#[test]
fn a_missing_archive_setting_is_reported_without_the_preload_too() -> Result<()> {
    starts_once_the_setting_is_right(None, &["\"walden.archive\" is not set"], |settings| {
        settings.remove("shared_preload_libraries");
    })
}

#[test]
fn a_directory_that_does_not_exist_is_named() -> Result<()> {
    let wrong = "/nonexistent/walden/archive";
    starts_once_the_setting_is_right(Some(wrong), &[wrong], |_| ())
}

#[test]
fn a_relative_path_is_named_without_the_preload_too() -> Result<()> {
    starts_once_the_setting_is_right(
        Some("relative/archive"),
        &["relative/archive"],
        |settings| {
            settings.remove("shared_preload_libraries");
        },
    )
}

#[test]
fn an_unknown_scheme_in_the_archive_setting_is_named() -> Result<()> {
    starts_once_the_setting_is_right(Some("ftp://host/archive"), &["ftp"], |settings| {
        settings.remove("shared_preload_libraries");
    })
}
