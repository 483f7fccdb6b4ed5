//! `pg_rewind -c` with the `walden` command, and single-user mode: no worker runs there.

use std::fs;

use anyhow::Result;
use lab::{ArchiveDir, Lab, Settings, Shutdown, run, scenario};

use crate::common::{
    SHORT_RESTORE_TIMEOUT, SMALL_MB, must_recover, primary, primary_with, recovery_of,
    recovery_settings, recovery_to, standby, wait_for_entries, write,
};

#[test]
fn pg_rewind_fetches_what_the_old_primary_lacks_through_the_walden_command() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let old = primary(lab, &archive, SMALL_MB)?;
        let backup = old.base_backup("backup")?;
        let settings = recovery_settings(lab, &archive)?;
        let new = standby(lab, "new", &backup, settings.clone())?;
        write(&old, 1)?;
        old.sql("checkpoint")?;
        old.archive_everything()?;
        wait_for_entries(&new, 1)?;
        new.sql("select pg_promote()")?;
        new.wait_until_promoted()?;
        write(&new, 2)?;
        new.sql("checkpoint")?;
        new.archive_everything()?;

        // The old primary goes on alone for a while, archives it, and then forgets its WAL.
        let own: Vec<_> = (0..6)
            .map(|entry| {
                old.sql(&format!(
                    "insert into ledger(entry) values ({})",
                    1000 + entry
                ))?;
                old.archive_everything()
            })
            .collect::<Result<_>>()?;
        old.stop(Shutdown::Fast)?;
        for segment in &own[..4] {
            let path = old.data().join("pg_wal").join(segment);
            if path.exists() {
                fs::remove_file(path)?;
            }
        }

        old.configure(|settings| {
            settings.set("restore_command", "walden restore %f %p");
            settings.set("walden.restore_library", "walden");
        })?;
        new.stop(Shutdown::Fast)?;
        let rewind = |options: &[&str]| {
            let mut command = lab.server_command("pg_rewind");
            command.args(options).arg("--no-sync");
            command
                .arg("-D")
                .arg(old.data())
                .arg("--source-pgdata")
                .arg(new.data());
            run(&mut command)
        };
        let without = rewind(&["--dry-run"])?;
        assert!(
            !without.status.success(),
            "nothing had to be fetched: {without:?}"
        );
        let with = rewind(&["-c"])?;
        assert!(with.status.success(), "{with:?}");
        new.start()?;

        // The rewound server has the configuration of the new one, and follows it.
        old.configure(|settings| settings.remove("restore_command"))?;
        old.touch("standby.signal")?;
        old.start()?;
        write(&new, 3)?;
        new.archive_everything()?;
        wait_for_entries(&old, 3)?;
        assert_eq!(old.contents()?, new.contents()?);
        Ok(())
    })
}

#[test]
fn without_a_worker_the_command_tells_absent_from_could_not_tell() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = primary(lab, &archive, SMALL_MB)?;
        server.archive_everything()?;
        let name = "0000000100000000000000F0";
        let mut command = lab.server_command("walden");
        command
            .args(["restore", name])
            .arg(server.data().join("pg_wal").join(name));
        let outcome = run(&mut command)?;
        assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");

        server
            .configure(|settings| settings.set("walden.restore_timeout", SHORT_RESTORE_TIMEOUT))?;
        archive.set_mode(0o000)?;
        let mut command = lab.server_command("walden");
        command
            .args(["restore", name])
            .arg(server.data().join("pg_wal").join(name));
        let outcome = run(&mut command)?;
        archive.set_mode(0o755)?;
        assert!(
            outcome.status.code().is_some_and(|code| code > 125),
            "{outcome:?}"
        );
        Ok(())
    })
}

/// Since this major a server in single-user mode cannot recover from an archive.
const NO_RECOVERY_IN_SINGLE_USER_MODE: u32 = 17;

/// Recovers to the end in single-user mode, where there is neither a postmaster nor a worker.
///
/// Since 17 no server can: it restores the first file and ends with FATAL `sinval slot for backend 0 is
/// already in use by process N`, N being itself. That is the server's own doing: seen with 17.11 and 18.6,
/// `restore_command = 'cp ...'` and no library at all, which 15.20 and 16.15 recover with. The plain test
/// below keeps watch over it. What is asked of Walden there is that the file is restored, and that nothing
/// is lost: the same directory recovers under a postmaster.
fn recovers_in_single_user_mode(lab: &Lab, settings: Settings, archive: &ArchiveDir) -> Result<()> {
    // Uncompressed, so that cp can restore from it too.
    let archiving = lab
        .walden_settings(archive)?
        .with("walden.compression", "none");
    let primary = primary_with(lab, SMALL_MB, archiving)?;
    let backup = primary.base_backup("backup")?;
    primary.write_segments(1..=5)?;
    primary.sql("select pg_create_restore_point('goal')")?;
    let before = primary.contents()?;
    primary.sql("drop table ledger")?;
    primary.archive_everything()?;
    primary.stop(Shutdown::Immediate)?;

    let recovered = recovery_to(lab, &backup, settings, "goal")?;
    let outcome = run(lab
        .server_command("postgres")
        .arg("--single")
        .arg("-D")
        .arg(recovered.data())
        .arg("template1"))?;
    assert!(outcome.stderr.contains("restored log file"), "{outcome:?}");
    let signal_file = recovered.data().join("recovery.signal");
    if lab.installation().major() < NO_RECOVERY_IN_SINGLE_USER_MODE {
        assert!(outcome.status.success(), "{outcome:?}");
        assert!(!signal_file.exists());
    } else {
        assert!(!outcome.status.success(), "{outcome:?}");
        let fatal: Vec<&str> = outcome
            .stderr
            .lines()
            .filter(|line| line.contains("FATAL"))
            .collect();
        let own = "sinval slot for backend 0 is already in use";
        assert!(
            matches!(fatal[..], [only] if only.contains(own)),
            "{outcome:?}"
        );
        assert!(signal_file.exists());
    }

    must_recover(&recovered, &before)
}

#[test]
fn single_user_mode_recovers_with_recovery_signal_and_no_worker_where_the_server_can() -> Result<()>
{
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        recovers_in_single_user_mode(lab, recovery_settings(lab, &archive)?, &archive)
    })
}

#[test]
fn single_user_mode_recovers_with_cp_and_without_walden_on_the_same_servers() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let cp = format!("cp {}/%f %p", archive.text());
        let settings = lab.settings().with("restore_command", &cp);
        recovers_in_single_user_mode(lab, settings, &archive)
    })
}

#[test]
fn single_user_mode_with_somebody_elses_library_says_that_it_cannot() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=2)?;
        primary.archive_everything()?;
        let settings = lab
            .walden_settings(&archive)?
            .with("walden.restore_library", "other_library");
        let recovered = recovery_of(lab, &backup, settings)?;
        let mut single = lab.server_command("postgres");
        single
            .arg("--single")
            .arg("-D")
            .arg(recovered.data())
            .arg("template1");
        let outcome = run(&mut single)?;
        assert!(!outcome.status.success(), "{outcome:?}");
        assert!(outcome.stderr.contains("other_library"), "{outcome:?}");
        assert!(recovered.data().join("recovery.signal").exists());
        Ok(())
    })
}
