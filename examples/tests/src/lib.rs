//! What the tests of the examples share: a primary with a ledger, a backup, a recovery from an archive.
//!
//! Servers and directories come from the harness; see there for where they are looked for. Leaves to the
//! tests which module does which job.

use std::path::Path;

use anyhow::{Context, Result, ensure};
pub use lab::Lost;
use lab::{ArchiveDir, Cluster, Lab, Settings, Shutdown};

/// The smallest segment size: makes many segments quick.
pub const SEGMENT_MB: u32 = 1;

/// How long "could not tell" is retried where a test wants to see it reported.
const RESTORE_TIMEOUT: &str = "2s";

/// Settings of a server that archives with `library`, which finds its directory in `parameter`.
///
/// # Errors
/// When the library is not built.
pub fn archiving(
    lab: &Lab,
    library: &str,
    parameter: &str,
    archive: &ArchiveDir,
) -> Result<Settings> {
    lab.require_library(library)?;
    Ok(lab
        .settings()
        .with("archive_mode", "on")
        .with("archive_library", library)
        .with(parameter, &archive.text()))
}

/// Settings of a server that recovers with `library` in all three jobs, hosted by Walden.
///
/// # Errors
/// When Walden is not built.
pub fn recovering(
    lab: &Lab,
    library: &str,
    parameter: &str,
    archive: &ArchiveDir,
) -> Result<Settings> {
    lab.require_library("walden")?;
    Ok(lab
        .settings()
        .with("shared_preload_libraries", "walden")
        .with("walden.restore_library", library)
        .with("walden.archive_cleanup_library", library)
        .with("walden.recovery_end_library", library)
        .with("walden.restore_timeout", RESTORE_TIMEOUT)
        .with(parameter, &archive.text()))
}

/// A running primary with an empty ledger.
///
/// # Errors
/// When it does not start.
pub fn primary(lab: &Lab, settings: Settings) -> Result<Cluster<'_>> {
    // Enough for a test that has a file archived once more.
    let settings = settings.with("wal_keep_size", "32MB");
    lab.primary("primary", SEGMENT_MB, settings)
}

/// Runs a primary with these settings, has it archive six segments, and loses it.
///
/// # Errors
/// When one of the steps fails.
pub fn archive_and_lose(lab: &Lab, settings: Settings) -> Result<Lost> {
    let primary = primary(lab, settings)?;
    let backup = primary.base_backup("backup")?;
    let segments = primary.write_segments(1..=6)?;
    primary.sql(&format!(
        "select pg_create_restore_point('{}')",
        Lost::RESTORE_POINT
    ))?;
    let contents = primary.contents()?;
    primary.sql("drop table ledger")?;
    primary.archive_everything()?;
    ensure!(
        primary.archive_failures()? == 0,
        "archiving failed meanwhile"
    );
    primary.stop(Shutdown::Immediate)?;
    Ok(Lost {
        backup,
        contents,
        segments,
    })
}

/// A server about to recover what was lost up to the restore point, not started.
///
/// # Errors
/// When its files cannot be made.
pub fn recovery_of<'lab>(lab: &'lab Lab, lost: &Lost, settings: Settings) -> Result<Cluster<'lab>> {
    let settings = settings
        .with("recovery_target_name", Lost::RESTORE_POINT)
        .with("recovery_target_action", "promote");
    let cluster = lab.restored("recovered", &lost.backup, settings)?;
    cluster.touch("recovery.signal")?;
    Ok(cluster)
}

/// Recovers what was lost, and fails unless it is what the primary had.
///
/// # Errors
/// When the recovery does not complete or the contents differ.
pub fn recover<'lab>(lab: &'lab Lab, lost: &Lost, settings: Settings) -> Result<Cluster<'lab>> {
    let recovered = recovery_of(lab, lost, settings)?;
    recovered.start()?;
    recovered.wait_until_promoted()?;
    ensure!(
        recovered.contents()? == lost.contents,
        "other contents were recovered"
    );
    Ok(recovered)
}

/// The folder of the examples.
///
/// # Errors
/// Never, unless this package has been moved.
pub fn examples() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("no parent folder")
}
