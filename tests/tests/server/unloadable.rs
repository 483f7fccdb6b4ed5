//! Recovery libraries that cannot be used: missing, for another major, no recovery module, without a callback.

use anyhow::{Result, bail};
use lab::{Cluster, Lab, Mark, Settings, scenario};

use crate::c_module::CModule;
use crate::common::{
    SHORT_RESTORE_TIMEOUT, SMALL_MB, check_not_promoted, primary, primary_with, recovery_of,
    standby, wait_for_entries, write,
};

/// Both jobs, so that a message for each of them would be noticed.
const PARAMETERS: [&str; 2] = ["walden.restore_library", "walden.archive_cleanup_library"];

/// Settings of a server that recovers through this library.
fn recovering(lab: &Lab, library: &str) -> Result<Settings> {
    lab.require_library("walden")?;
    let mut settings = lab
        .settings()
        .with("shared_preload_libraries", "walden")
        .with("walden.restore_timeout", SHORT_RESTORE_TIMEOUT);
    for parameter in PARAMETERS {
        settings.set(parameter, library);
    }
    Ok(settings)
}

/// The one message about the library: from the worker, with library, parameters, `words` and a hint, before
/// the first answer to a request; and no other.
fn is_named_once(server: &Cluster, library: &str, words: &[&str]) -> Result<()> {
    let mark = Mark::default();
    let mut all = vec!["WARNING", "HINT"];
    all.extend(words);
    server.wait_for_log(mark, &all)?;
    let said = server.logged(mark, &["WARNING", library])?;
    let [only] = said.as_slice() else {
        bail!("not said once: {said:?}");
    };
    all.push(PARAMETERS[0]);
    assert!(only.has(&all), "{only:?}");
    assert!(only.backend.contains("recovery worker"), "{only:?}");
    Ok(())
}

/// A targeted recovery through this library stops with the server's FATAL, which what is wrong stands beside;
/// nothing is promoted, and all of it is said once.
fn stops_recovery(
    library: &str,
    words: &[&str],
    build: impl FnOnce(&Lab) -> Result<Option<CModule>>,
) -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=2)?;
        primary.wait_until_archived()?;
        let settings = recovering(lab, library)?;
        let settings = match build(lab)? {
            Some(module) => module.found_with(settings),
            None => settings,
        };
        let recovered = recovery_of(lab, &backup, settings)?;
        let log = recovered.start_refused()?;
        is_named_once(&recovered, library, words)?;
        let lines: Vec<&str> = log.lines().collect();
        let fatal = lines
            .iter()
            .position(|line| line.contains("FATAL") && line.contains("could not restore file"));
        let client = lines
            .iter()
            .position(|line| line.starts_with("walden: ") && line.contains(library));
        assert!(client.is_some() && client < fatal, "{log}");
        assert!(recovered.data().join("recovery.signal").exists());
        assert!(
            check_not_promoted(lab, &recovered, &archive).is_ok() || !log.contains("redo starts")
        );
        Ok(())
    })
}

#[test]
fn a_library_that_is_missing_is_named_once_at_the_start() -> Result<()> {
    let words = ["could not access file \"no_such_library\"", PARAMETERS[1]];
    stops_recovery("no_such_library", &words, |_| Ok(None))
}

#[test]
fn a_library_that_is_no_module_at_all_is_named_with_the_missing_symbol() -> Result<()> {
    let words = ["_PG_recovery_module_init", PARAMETERS[1]];
    stops_recovery("plpgsql", &words, |_| Ok(None))
}

#[test]
fn a_library_whose_init_function_gives_nothing_is_named() -> Result<()> {
    stops_recovery(
        "nothing",
        &["returned no callbacks", PARAMETERS[1]],
        |lab| {
            let major = lab.installation().major();
            CModule::build_as(lab, "nothing", major, &["NO_CALLBACKS"]).map(Some)
        },
    )
}

#[test]
fn a_library_without_the_callback_for_its_job_is_named() -> Result<()> {
    stops_recovery("jobless", &["has no callback for", PARAMETERS[1]], |lab| {
        let major = lab.installation().major();
        CModule::build_as(lab, "jobless", major, &["NO_JOBS"]).map(Some)
    })
}

#[test]
fn a_library_for_another_major_is_named_with_both_versions() -> Result<()> {
    stops_recovery(
        "other",
        &["incompatible library", "mismatch", PARAMETERS[1]],
        |lab| {
            let major = match lab.installation().major() {
                15 => 16,
                major => major - 1,
            };
            CModule::build_as(lab, "other", major, &[]).map(Some)
        },
    )
}

#[test]
fn a_callback_that_is_missing_for_one_job_leaves_the_other_job_alone() -> Result<()> {
    scenario(|lab| {
        let module = CModule::build(lab, "restores")?;
        let copy = format!("cp %p {}/%f", module.archive.text());
        let settings = lab
            .settings()
            .with("archive_mode", "on")
            .with("archive_command", &copy);
        let primary = primary_with(lab, SMALL_MB, settings)?;
        let backup = primary.base_backup("backup")?;
        let settings = module.found_with(recovering(lab, "restores")?);
        let standby = standby(lab, "standby", &backup, settings)?;
        for entry in 1..=3 {
            write(&primary, entry)?;
            primary.sql("checkpoint")?;
            primary.switch_segment()?;
            wait_for_entries(&standby, entry)?;
            standby.sql("checkpoint")?;
        }
        let mark = Mark::default();
        let said = standby.logged(mark, &["WARNING", "has no callback for", PARAMETERS[1]])?;
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(!said[0].has(&[PARAMETERS[0]]), "{said:?}");
        Ok(())
    })
}

#[test]
fn a_standby_goes_on_without_its_library_and_says_so_once() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let socket = primary.home().display().to_string();
        let settings = recovering(lab, "no_such_library")?
            .with("primary_conninfo", &format!("host={socket} user=postgres"));
        let standby = standby(lab, "standby", &backup, settings)?;
        write(&primary, 1)?;
        wait_for_entries(&standby, 1)?;
        is_named_once(&standby, "no_such_library", &[PARAMETERS[1]])
    })
}
