//! Promises about the three answers: there, absent, and could not tell.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lab::{Cluster, Lab, Mark, Shutdown, wait_for};

use super::scene::{
    Answer, Asker, PATIENCE, SMALL_MB, last_words, lose, must_recover, primary, recovery_of, worker,
};
use crate::promise::{Evidence, Kind, Promise, broken, hold};
use crate::subject::Subject;

/// Only root can reach it.
const AWAY: u32 = 0o000;

/// The permissions of an archive that works.
const BACK: u32 = 0o755;

/// How often a module has to fail in a row.
const FAILURES: usize = 5;

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "absent-ends-recovery",
        kind: Kind::Recovery,
        says: "a file that the archive does not hold is absent, and recovery without a target ends there",
        source: "recovery_module.h, restore_cb; RestoreArchivedFile, xlogarchive.c (15 to 18)",
        check: absent_ends_recovery,
    },
    Promise {
        name: "outage-is-not-absence",
        kind: Kind::Recovery,
        says: "a file that cannot be looked at is not called absent: recovery stops, and goes on once it can be",
        source: "recovery_module.h, restore_cb; RestoreArchivedFile, xlogarchive.c (15 to 18)",
        check: outage_is_not_absence,
    },
    Promise {
        name: "failure-is-contained",
        kind: Kind::Recovery,
        says: "a failure ends one request: not the process, not the server, not the requests after it",
        source: "recovery_module.h, introduction; HandleChildCrash, postmaster.c (15 to 18)",
        check: failure_is_contained,
    },
];

fn absent_ends_recovery(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let lost = lose(subject, lab, &archive, 3)?;
    let beyond = "0000000100000000000000F0";
    ensure!(!archive.has(beyond)?, "the archive holds \"{beyond}\"");
    let asker = Asker::of(subject, lab, &archive)?;
    asker.must_be_absent(beyond, "beyond the end")?;
    asker.must_be_absent("00000002.history", "before any promotion")?;
    asker.server.stop(Shutdown::Fast)?;

    let settings = subject.recovering(lab, &archive);
    let recovered = recovery_of(lab, "recovered", &lost.backup, settings)?;
    must_recover(&recovered, &lost.contents)?;
    Ok(Evidence::Seen(format!(
        "\"{beyond}\": exit status 1; recovery without a target ended after \"{}\" with everything",
        lost.segments.last().map_or("", String::as_str)
    )))
}

fn outage_is_not_absence(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let lost = lose(subject, lab, &archive, 6)?;
    let unreadable = lost.segments.get(3).context("too few segments")?;

    let asker = Asker::of(subject, lab, &archive)?;
    archive.set_mode(AWAY)?;
    let mark = asker.server.mark()?;
    let answers = [unreadable, "00000002.history"].map(|file| asker.ask(file));
    archive.set_mode(BACK)?;
    for (answer, file) in answers.into_iter().zip([unreadable, "00000002.history"]) {
        let answer = answer?;
        hold(matches!(answer, Answer::CouldNotTell(_)), || {
            format!("with the archive away (mode 000), \"{file}\" was answered with {answer}")
        })?;
    }
    let said = last_words(&asker.server, mark)?;
    asker.server.stop(Shutdown::Fast)?;

    let place = archive.stored(unreadable)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(AWAY))?;
    let recovered = recovery_of(
        lab,
        "recovered",
        &lost.backup,
        subject.recovering(lab, &archive),
    )?;
    let log = must_stop(&recovered, unreadable)?;
    ensure!(
        log.contains("FATAL"),
        "the server ended without a FATAL: {log}"
    );
    fs::set_permissions(&place, fs::Permissions::from_mode(0o644))?;
    must_recover(&recovered, &lost.contents)?;
    Ok(Evidence::Seen(format!(
        "archive of mode 000: could not tell ({said}); \"{unreadable}\" of mode 000: FATAL, recovery.signal kept, \
         no second timeline; readable again: recovered with everything"
    )))
}

/// Starts a recovery, which must stop over a file and stay a recovery. Answers with its log.
fn must_stop(recovered: &Cluster, unreadable: &str) -> Result<String> {
    recovered.launch()?;
    let signal = recovered.data().join("recovery.signal");
    let ended = wait_for("recovery to stop", PATIENCE, || {
        let promoted = !signal.exists();
        Ok((promoted || !recovered.is_running()?).then_some(promoted))
    });
    let (what, log) = (
        "with mode 000 in the archive",
        recovered.log(Mark::default())?,
    );
    let second = Path::new("pg_wal/00000002.history");
    match ended {
        Ok(false) if !recovered.data().join(second).exists() => {
            recovered.wait_for_end()?;
            Ok(log)
        }
        Ok(_) => broken(format!(
            "\"{unreadable}\" {what} was taken for the end of WAL: the server was promoted before it"
        )),
        Err(error) => broken(format!("\"{unreadable}\" {what}: {error:#}")),
    }
}

fn failure_is_contained(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = primary(subject, lab, &archive, "primary", SMALL_MB)?;
    let segments = primary.write_segments(1..=2)?;
    primary.wait_until_archived()?;
    let segment = segments.first().context("no segment was written")?;
    let asker = Asker::of(subject, lab, &archive)?;
    let before = worker(&asker.server)?;
    archive.set_mode(AWAY)?;
    let answers: Result<Vec<Answer>> = (0..FAILURES).map(|_| asker.ask(segment)).collect();
    archive.set_mode(BACK)?;
    let answers = answers?;
    for words in [
        ["terminated by signal"],
        ["PANIC"],
        ["FATAL"],
        ["exited with exit code"],
    ] {
        let said = asker.server.logged(Mark::default(), &words)?;
        if let Some(entry) = said.iter().find(|entry| !entry.text.starts_with("DEBUG")) {
            return broken(format!("with the archive away: {}", entry.text));
        }
    }
    let after = worker(&asker.server)?;
    hold(before.pid == after.pid, || {
        format!(
            "the worker is process {} instead of {}",
            after.pid, before.pid
        )
    })?;
    let bytes = fs::read(primary.data().join("pg_wal").join(segment))?;
    asker.must_restore(segment, &bytes, "after the outage")?;
    Ok(Evidence::Seen(format!(
        "{} requests failed ({}); worker still process {}, nothing was terminated; then restored",
        answers.len(),
        answers.first().map(ToString::to_string).unwrap_or_default(),
        after.pid
    )))
}
