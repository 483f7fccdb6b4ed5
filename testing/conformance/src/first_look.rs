//! A look at the modules before they are judged: whether they are loaded and configured, and whether the archive
//! module keeps its files where the promises look for them.
//!
//! Guarantees that a module which the suite cannot judge is not called broken: the run ends at once, with the
//! reason. Leaves to the promises whether what is kept is right, or is kept at all.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::{ArchiveDir, Lab, Mark, run, wait_for};

use crate::archive::{complaint, tree};
use crate::subject::Subject;
use crate::{recovery, target};

/// How long a first segment may take, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much of the log of a server that does not start is shown.
const LINES: usize = 3;

/// Has each module do its work once.
pub(crate) fn look(subject: &Subject, lab: &Lab) -> Result<()> {
    look_at_archive_module(subject, lab)?;
    if subject.plan.recovery.is_some() {
        recovery::first_look(subject, lab)?;
    }
    if subject.plan.target.is_some() {
        target::first_look(subject, lab)?;
    }
    Ok(())
}

/// Has the module archive one segment.
fn look_at_archive_module(subject: &Subject, lab: &Lab) -> Result<()> {
    let Some(library) = &subject.plan.archive else {
        return Ok(());
    };
    let archive = lab.archive("archive")?;
    let primary = lab.cluster("first-look", 1, subject.archiving(lab, &archive))?;
    if let Err(error) = primary.start() {
        let log = primary.log(Mark::default())?;
        let said: Vec<&str> = log.lines().rev().take(LINES).collect();
        let said: Vec<&str> = said.into_iter().rev().collect();
        bail!(
            "no server starts with \"{}\" and the parameters given with --set: {error:#}; it logged: {}",
            library.name(),
            said.join("; ")
        );
    }
    primary.create_ledger()?;
    let segment = primary.write_segments(1..=1)?.concat();
    let archived = wait_for("the first segment to be archived", PATIENCE, || {
        Ok(primary.ready()?.is_empty().then_some(()))
    });
    if archived.is_err() {
        bail!(
            "\"{}\" archives nothing: are its parameters given with --set? {}",
            library.name(),
            complaint(&primary, Mark::default())
        );
    }
    if !archive.has(&segment)? {
        // None at all is for the promises to say.
        let found = tree(&archive)?;
        let Some(elsewhere) = found.keys().find(|name| name.contains(&segment)) else {
            return Ok(());
        };
        bail!(
            "cannot judge \"{}\": it keeps {segment} as \"{elsewhere}\", and the suite looks for a file of that \
             name in the archive's directory itself (.zst, .lz4, .gz, .bz2 or .xz may follow)",
            library.name()
        );
    }
    restorable(subject, lab, &archive, &segment)
}

/// What is not stored as it is needs more than the usual command to be restored.
fn restorable(subject: &Subject, lab: &Lab, archive: &ArchiveDir, segment: &str) -> Result<()> {
    let stored = archive.stored(segment)?;
    if subject.plan.recovery.is_some() || stored.ends_with(segment) {
        return Ok(());
    }
    let command = subject
        .restore_command(archive)
        .replace("%f", segment)
        .replace("%p", "restored");
    let place = lab.directory("place")?;
    let mut shell = lab.server_command("sh");
    shell.arg("-c").arg(&command).current_dir(&place);
    let outcome = run(&mut shell).context("could not run the restore command")?;
    ensure!(
        outcome.status.success(),
        "the archive holds {segment} as \"{}\", which \"{command}\" does not restore: say with \
         --restore-command what does, or give --recovery-library",
        stored.display()
    );
    Ok(())
}
