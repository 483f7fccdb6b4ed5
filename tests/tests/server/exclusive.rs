//! A command and a library for the same recovery job exclude each other.

use anyhow::Result;
use lab::scenario;

use crate::common::{SMALL_MB, primary, recovery_settings, standby, wait_for_entries, write};

/// The server's commands, and the libraries that do the same jobs.
const PAIRS: [(&str, &str); 3] = [
    ("restore_command", "walden.restore_library"),
    ("archive_cleanup_command", "walden.archive_cleanup_library"),
    ("recovery_end_command", "walden.recovery_end_library"),
];

#[test]
fn a_server_with_a_command_and_a_library_for_one_job_refuses_to_start_naming_both() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        for (command, library) in PAIRS {
            let settings = lab
                .walden_settings(&archive)?
                .with(command, "true")
                .with(library, "walden");
            let server = lab.cluster(library, SMALL_MB, settings)?;
            let log = server.start_refused()?;
            let primary_text = format!("both \"{command}\" and \"{library}\" set");
            assert!(
                log.contains("FATAL") && log.contains(&primary_text),
                "{log}"
            );
            assert!(
                log.contains(&format!(
                    "Only one of \"{command}\", \"{library}\" may be set."
                )),
                "{log}"
            );
            // Either of them alone is fine.
            server.configure(|settings| settings.remove(command))?;
            server.start()?;
            server.stop(lab::Shutdown::Fast)?;
            server.configure(|settings| {
                settings.set(command, "true");
                settings.remove(library);
            })?;
            server.start()?;
        }
        Ok(())
    })
}

#[test]
fn a_command_that_appears_on_reload_is_warned_about_and_the_library_goes_on() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let mut settings = recovery_settings(lab, &archive)?;
        for (_, library) in PAIRS {
            settings.set(library, "walden");
        }
        let standby = standby(lab, "standby", &backup, settings)?;
        let commands: Vec<_> = PAIRS
            .iter()
            .map(|(command, _)| standby.sql(&format!("show {command}")))
            .collect();

        let mark = standby.mark()?;
        let trace = lab.dir().join("commands-that-ran");
        for (command, library) in PAIRS {
            let text = format!("echo {command} >> {}; false", trace.display());
            standby.reload(|settings| settings.set(command, &text))?;
            standby.wait_for_log(
                mark,
                &[
                    "WARNING",
                    &format!("both \"{command}\" and \"{library}\" set"),
                ],
            )?;
        }
        for ((command, _), before) in PAIRS.iter().zip(commands) {
            assert_eq!(standby.sql(&format!("show {command}"))?, before?);
        }
        for entry in 1..=3 {
            write(&primary, entry)?;
            primary.sql("checkpoint")?;
            primary.archive_everything()?;
            wait_for_entries(&standby, entry)?;
        }
        standby.sql("checkpoint")?;
        standby.sql("select pg_promote()")?;
        standby.wait_until_promoted()?;
        assert!(!trace.exists(), "ran: {}", std::fs::read_to_string(&trace)?);
        Ok(())
    })
}

#[test]
fn waldens_own_client_as_the_command_is_no_conflict() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        let settings = recovery_settings(lab, &archive)?
            .with("restore_command", "walden restore %f %p")
            .with("walden.archive_cleanup_library", "walden")
            .with("archive_cleanup_command", "walden archive-cleanup %r")
            .with("walden.recovery_end_library", "walden")
            .with("recovery_end_command", "walden recovery-end %r");
        let standby = standby(lab, "standby", &backup, settings)?;
        let mark = standby.mark()?;
        write(&primary, 1)?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 1)?;
        standby
            .reload(|settings| settings.set("restore_command", "walden restore \"%f\" \"%p\""))?;
        standby.wait_for_log(mark, &["reloading configuration files"])?;
        write(&primary, 2)?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 2)?;
        let conflicts = standby.logged(lab::Mark::default(), &["both"])?;
        assert!(conflicts.is_empty(), "{conflicts:?}");
        Ok(())
    })
}

#[test]
fn without_a_library_the_walden_command_alone_feeds_a_standby() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        // No preload, no worker: the command reads the configuration and does the job itself.
        let settings = lab
            .settings()
            .with("walden.archive", &archive.text())
            .with("restore_command", "walden restore %f %p %r")
            .with("archive_cleanup_command", "walden archive-cleanup %r");
        let standby = standby(lab, "standby", &backup, settings)?;
        write(&primary, 1)?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 1)
    })
}
