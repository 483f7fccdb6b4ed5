//! Promises about standbys: they follow, live through outages, and are promoted when they are told to.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{ArchiveDir, Cluster, Lab, Mark, wait_for};

use super::scene::{
    PATIENCE, SMALL_MB, answers, last_words, must_show, primary, standby, wait_until_asked_in_vain,
    worker,
};
use crate::promise::{Evidence, Kind, Promise, broken, hold, must};
use crate::subject::Subject;

/// How long a promotion may take while the archive is away, on a loaded machine.
const PROMPTLY: Duration = Duration::from_secs(10);

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "standby-follows",
        kind: Kind::Recovery,
        says: "a standby without streaming shows what is archived after it had asked for it in vain",
        source: "WaitForWALToBecomeAvailable, xlogrecovery.c (15 to 18)",
        check: standby_follows,
    },
    Promise {
        name: "standby-lives-through-outage",
        kind: Kind::Recovery,
        says: "a standby stays up and a standby while the archive is away, and goes on by itself afterwards",
        source: "RestoreArchivedFile, xlogarchive.c (15 to 18); recovery_module.h, restore_cb",
        check: standby_lives_through_outage,
    },
    Promise {
        name: "promotion-during-outage",
        kind: Kind::Recovery,
        says: "a standby is promoted while the archive is away, without being held up",
        source: "WaitForWALToBecomeAvailable and FinishWalRecovery, xlogrecovery.c (15 to 18)",
        check: promotion_during_outage,
    },
];

/// A primary with three archived entries and a standby that shows them and has asked for more.
fn pair<'lab>(
    subject: &Subject,
    lab: &'lab Lab,
    archive: &ArchiveDir,
) -> Result<(Cluster<'lab>, Cluster<'lab>)> {
    let primary = primary(subject, lab, archive, "primary", SMALL_MB)?;
    let backup = primary.base_backup("backup")?;
    primary.write_segments(1..=3)?;
    primary.wait_until_archived()?;
    let standby = standby(subject, lab, archive, &backup)?;
    must_show(&standby, 3)?;
    // The segment of a place at a boundary is the one before it.
    let next = primary.sql("select pg_walfile_name(pg_current_wal_insert_lsn() + 1)")?;
    wait_for("the standby to ask for the next segment", PATIENCE, || {
        let asked = standby.logged(Mark::default(), &["could not restore file", &next])?;
        Ok((!asked.is_empty()).then_some(()))
    })?;
    Ok((primary, standby))
}

fn standby_follows(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let (primary, standby) = pair(subject, lab, &archive)?;
    let segments = primary.write_segments(4..=6)?;
    primary.wait_until_archived()?;
    must_show(&standby, 6)?;
    let state = standby.sql("select pg_is_in_recovery(), count(*) from pg_stat_wal_receiver")?;
    hold(state == "t|0", || {
        format!("in recovery and streaming: {state}")
    })?;
    Ok(Evidence::Seen(format!(
        "showed 3 entries, asked for \"{}\" in vain, and showed 6 once it was archived",
        segments.first().context("no segment was written")?
    )))
}

fn standby_lives_through_outage(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let (primary, standby) = pair(subject, lab, &archive)?;
    let before = (
        standby.wait_for_process("startup")?.pid,
        worker(&standby)?.pid,
    );
    let mark = standby.mark()?;
    archive.set_mode(0o000)?;
    let asked = wait_until_asked_in_vain(&standby, mark, 3);
    archive.set_mode(0o755)?;
    if let Err(error) = asked {
        return broken(format!("{error:#}; {}", last_words(&standby, mark)?));
    }
    hold(standby.is_running()?, || {
        "the standby ended with the archive away".to_owned()
    })?;
    let after = (
        standby.wait_for_process("startup")?.pid,
        worker(&standby)?.pid,
    );
    hold(before == after, || {
        format!(
            "startup process and worker were processes {before:?}, and are {after:?} after the outage"
        )
    })?;
    primary.write_segments(4..=5)?;
    primary.wait_until_archived()?;
    must_show(&standby, 5)?;
    hold(standby.sql("select pg_is_in_recovery()")? == "t", || {
        "the standby was promoted by the outage".to_owned()
    })?;
    Ok(Evidence::Seen(format!(
        "asked three times and more with the archive away; startup process {} and worker {} lived on, and the \
         standby followed afterwards",
        after.0, after.1
    )))
}

fn promotion_during_outage(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let (_primary, standby) = pair(subject, lab, &archive)?;
    let mark = standby.mark()?;
    archive.set_mode(0o000)?;
    let promoted = promote(&standby, mark);
    archive.set_mode(0o755)?;
    let took = promoted?;
    hold(took < PROMPTLY, || {
        format!("the promotion took {} s", took.as_secs())
    })?;
    must(
        standby.sql("insert into ledger values (4)"),
        "it does not take writes",
    )?;
    Ok(Evidence::Seen(format!(
        "promoted after {:.1} s, and takes writes",
        took.as_secs_f64()
    )))
}

/// Promotes a standby that notices the outage; answers with how long that took.
fn promote(standby: &Cluster, mark: Mark) -> Result<Duration> {
    // The first may have been asked before the archive was gone.
    wait_until_asked_in_vain(standby, mark, 2)?;
    let begun = Instant::now();
    must(
        standby.sql("select pg_promote(wait => false)"),
        "the standby cannot be told to promote itself",
    )?;
    must_be_promoted(standby, mark)?;
    Ok(begun.elapsed())
}

/// Waits until a promotion has ended.
pub(super) fn must_be_promoted(standby: &Cluster, mark: Mark) -> Result<()> {
    let promoted = wait_for("the promotion", 2 * PATIENCE, || {
        anyhow::ensure!(standby.is_running()?, "the server has ended");
        answers(standby, "select pg_is_in_recovery()", "f")
    });
    if let Err(error) = promoted {
        return broken(format!("{error:#}; {}", last_words(standby, mark)?));
    }
    Ok(())
}
