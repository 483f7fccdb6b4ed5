//! The recovery module in C, built by its own Makefile against the server's headers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::{ArchiveDir, Lab, Mark, Settings, Shutdown, run, scenario, wait_until};
use walden_examples_tests::{
    Lost, archive_and_lose, archiving, examples, primary, recover, recovering, recovery_of,
};

const PARAMETER: &str = "c_recovery.archive_directory";

fn include_dir() -> Result<PathBuf> {
    let root = examples()?.parent().context("no parent folder")?;
    Ok(root.join("crates/abi/include"))
}

/// Builds the module. A server without its headers fails here: a test that looked at nothing must not pass.
fn built(lab: &Lab) -> Result<PathBuf> {
    let headers = lab.installation().pg_config("--includedir-server")?;
    ensure!(
        headers.join("postgres.h").exists(),
        "no server headers in \"{}\": install postgresql-server-dev",
        headers.display()
    );
    let folder = lab.directory("c_recovery")?;
    for file in ["c_recovery.c", "Makefile"] {
        fs::copy(examples()?.join("c_recovery").join(file), folder.join(file))?;
    }
    let mut make = Command::new("make");
    make.arg("-C").arg(&folder);
    make.arg(format!(
        "PG_CONFIG={}",
        lab.installation().pg_bin_dir().join("pg_config").display()
    ));
    make.arg(format!("WALDEN_INCLUDEDIR={}", include_dir()?.display()));
    // The flags of the server's own build are those of its compiler, which may be another one.
    make.arg("CFLAGS=-O2 -Wall -Wextra -Wno-unused-parameter -Werror");
    // Inside `make test` these would be another make's.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    run(&mut make)?.success().context("make failed")?;
    Ok(folder)
}

fn c_settings(lab: &Lab, folder: &Path, archive: &ArchiveDir) -> Result<Settings> {
    let settings = recovering(lab, "c_recovery", PARAMETER, archive)?;
    let path = settings.get("dynamic_library_path").unwrap_or_default();
    let path = format!("{}:{path}", folder.display());
    Ok(settings.with("dynamic_library_path", &path))
}

fn lost(lab: &Lab, archive: &ArchiveDir) -> Result<Lost> {
    let parameter = "basic_archive_rs.archive_directory";
    archive_and_lose(lab, archiving(lab, "basic_archive_rs", parameter, archive)?)
}

#[test]
fn it_restores_is_told_of_the_end_and_keeps_its_state_from_startup_to_shutdown() -> Result<()> {
    scenario(|lab| {
        let folder = built(lab)?;
        let archive = lab.archive("archive")?;
        let lost = lost(lab, &archive)?;
        let recovered = recover(lab, &lost, c_settings(lab, &folder, &archive)?)?;
        let ended = recovered.logged(Mark::default(), &["c_recovery: recovery has ended"])?;
        assert_eq!(ended.len(), 1, "{ended:?}");
        assert!(!ended[0].has(&[" 0 files restored"]), "{ended:?}");
        recovered.stop(Shutdown::Fast)?;
        let down = recovered.logged(Mark::default(), &["c_recovery: shutting down"])?;
        assert_eq!(down.len(), 1, "{down:?}");
        assert!(!down[0].has(&[" 0 files restored"]), "{down:?}");
        Ok(())
    })
}

#[test]
fn its_error_is_could_not_tell_and_not_the_end_of_wal() -> Result<()> {
    scenario(|lab| {
        let folder = built(lab)?;
        let archive = lab.archive("archive")?;
        let lost = lost(lab, &archive)?;
        let settings = c_settings(lab, &folder, &archive)?.with(PARAMETER, "/nowhere");
        let recovered = recovery_of(lab, &lost, settings)?;
        let log = recovered.start_refused()?;
        assert!(
            log.contains("could not stat archive directory \"/nowhere\""),
            "{log}"
        );
        // Absent would end the recovery, and the server too, because it has not reached its target.
        let fatal = recovered.logged(Mark::default(), &["FATAL", "could not restore file"])?;
        assert_eq!(fatal.len(), 1, "{log}");
        assert!(!log.contains("recovery ended before"), "{log}");
        assert!(recovered.data().join("recovery.signal").exists());

        recovered.configure(|settings| settings.set(PARAMETER, &archive.text()))?;
        recovered.start()?;
        recovered.wait_until_promoted()?;
        assert_eq!(recovered.contents()?, lost.contents);
        Ok(())
    })
}

#[test]
fn it_cleans_the_archive_up_at_a_restartpoint() -> Result<()> {
    scenario(|lab| {
        let folder = built(lab)?;
        let archive = lab.archive("archive")?;
        let parameter = "basic_archive_rs.archive_directory";
        let primary = primary(
            lab,
            archiving(lab, "basic_archive_rs", parameter, &archive)?,
        )?;
        let backup = primary.base_backup("backup")?;
        let standby = lab.restored("standby", &backup, c_settings(lab, &folder, &archive)?)?;
        standby.touch("standby.signal")?;
        standby.start()?;
        let old = primary.write_segments(1..=5)?;
        primary.sql("checkpoint")?;
        let last = primary.archive_everything()?;
        standby.wait_for_sql("select count(*) from ledger", "5")?;
        wait_until("the first segment to be removed", || {
            standby.sql("checkpoint")?;
            Ok(!archive.has(&old[0])?)
        })?;
        assert!(archive.has(&last)?, "the newest segment was removed");
        Ok(())
    })
}

#[test]
fn the_header_compiles_alone_as_c99_and_as_cplusplus() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = "#include \"walden/recovery_module.h\"\n#include \"walden/recovery_module.h\"\n\
                  const RecoveryModuleCallbacks *_PG_recovery_module_init(void) { return 0; }\n";
    for (compiler, file, standard) in [
        ("cc", "header.c", "-std=c99"),
        ("c++", "header.cc", "-std=c++11"),
    ] {
        let path = folder.path().join(file);
        fs::write(&path, source)?;
        let mut compile = Command::new(compiler);
        compile.args([
            standard,
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-fsyntax-only",
        ]);
        compile.arg("-I").arg(include_dir()?).arg(&path);
        run(&mut compile)?.success().context(standard)?;
    }
    Ok(())
}
