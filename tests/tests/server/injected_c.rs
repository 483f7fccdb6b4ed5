//! ERROR raised by C at every callback of a recovery module, plainly and with a file open, memory allocated and a
//! lock of the server held.
//!
//! The modules in `tests/modules/misbehave/c` are compiled here against the server's own headers; where those are
//! missing the tests fail and say so. What is right stands in `injected_recovery.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::{Lab, Settings, run, scenario};

use crate::injected_recovery::{
    Pair, at_archive_cleanup, at_load, at_recovery_end, at_restore, at_shutdown,
};
use crate::witness::Culprit;

/// The module in C.
pub(crate) const C: Culprit = Culprit {
    library: "misbehave_c",
    ways: &[
        ("error", "asked to raise ERROR during"),
        ("late", "asked to raise a late ERROR during"),
    ],
};

/// Compiles a module of `tests/modules/misbehave/c` for the server under test, and answers with the settings of a
/// plain server that finds it.
pub(crate) fn compiled(lab: &Lab, name: &str) -> Result<Settings> {
    let headers = lab.installation().pg_config("--includedir-server")?;
    ensure!(
        headers.join("postgres.h").exists(),
        "no server headers in \"{}\": install postgresql-server-dev for this server",
        headers.display()
    );
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = tests.parent().context("no parent folder")?;
    let folder: PathBuf = lab.dir().join("compiled");
    fs::create_dir_all(&folder)?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O2", "-D_GNU_SOURCE"]);
    cc.args([
        "-Wall",
        "-Wextra",
        "-Wno-unused-parameter",
        "-Wno-sign-compare",
        "-Werror",
    ]);
    cc.arg("-isystem").arg(headers);
    cc.arg("-I").arg(root.join("crates/abi/include"));
    cc.arg("-o").arg(folder.join(format!("{name}.so")));
    cc.arg(tests.join(format!("modules/misbehave/c/{name}.c")));
    run(&mut cc)?.success().context("cc failed")?;
    let settings = lab.settings();
    let path = settings.get("dynamic_library_path").unwrap_or_default();
    let path = format!("{}:{path}", folder.display());
    Ok(settings.with("dynamic_library_path", &path))
}

fn pair(lab: &Lab) -> Result<Pair<'_>> {
    Pair::new(lab, &C, compiled(lab, C.library)?)
}

#[test]
fn an_error_of_c_in_restore_is_could_not_tell_and_the_worker_lives() -> Result<()> {
    scenario(|lab| at_restore(&mut pair(lab)?, &C))
}

#[test]
fn an_error_of_c_in_archive_cleanup_is_a_warning_and_the_worker_lives() -> Result<()> {
    scenario(|lab| at_archive_cleanup(&mut pair(lab)?, &C))
}

#[test]
fn an_error_of_c_in_recovery_end_is_a_warning_and_the_standby_is_promoted() -> Result<()> {
    scenario(|lab| at_recovery_end(lab, &C, &compiled(lab, C.library)?))
}

#[test]
fn an_error_of_c_at_shutdown_is_fatal_to_a_worker_that_ends_and_the_next_one_restores() -> Result<()>
{
    scenario(|lab| at_shutdown(&mut pair(lab)?, &C))
}

#[test]
fn an_error_of_c_while_loading_names_the_library_and_the_worker_loads_it_later() -> Result<()> {
    scenario(|lab| at_load(&mut pair(lab)?, &C, "load"))
}

#[test]
fn an_error_of_c_at_startup_names_the_library_and_the_worker_starts_it_later() -> Result<()> {
    scenario(|lab| at_load(&mut pair(lab)?, &C, "startup"))
}
