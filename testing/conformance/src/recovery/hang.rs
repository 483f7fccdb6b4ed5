//! Promises about an archive that does not answer: the module waits in it, and nothing else has to.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::Lab;
use rustix::process::Signal;

use super::scene::{Answer, Asker, SMALL_MB, must_show, primary, standby, worker};
use super::standby::must_be_promoted;
use crate::promise::{Evidence, Kind, Promise, broken, hold, must};
use crate::stall::Stall;
use crate::subject::Subject;

/// `walden.restore_timeout` of the suite's servers, what the host gives a module beyond it, and some seconds
/// for a loaded machine.
const BOUND: Duration = Duration::from_secs(2 + 5 + 5);

/// A promotion asks for a few files more, each of which may wait.
const PROMOTION_BOUND: Duration = Duration::from_secs(30);

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "hang-is-bounded",
        kind: Kind::Recovery,
        says: "a request for a file that cannot be opened for long ends as could-not-tell, and the next ones are \
               answered once it can",
        source: "recovery_module.h, restore_cb; PreRestoreCommand, startup.c (15 to 18)",
        check: hang_is_bounded,
    },
    Promise {
        name: "promotion-while-hanging",
        kind: Kind::Recovery,
        says: "a standby is promoted although the module still waits for a file",
        source: "PreRestoreCommand, startup.c; WaitForWALToBecomeAvailable, xlogrecovery.c (15 to 18)",
        check: promotion_while_hanging,
    },
];

fn hang_is_bounded(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = primary(subject, lab, &archive, "primary", SMALL_MB)?;
    let segment = primary.write_segments(1..=1)?.concat();
    primary.wait_until_archived()?;
    let bytes = std::fs::read(primary.data().join("pg_wal").join(&segment))?;
    let asker = Asker::of(subject, lab, &archive)?;
    let worker = worker(&asker.server)?;
    let stall = Stall::on_open(&archive.stored(&segment)?)?;
    let begun = Instant::now();
    let (answer, held) = thread::scope(|scope| {
        let asking = scope.spawn(|| (asker.ask(&segment), begun.elapsed()));
        let held = stall.held_in(worker.pid);
        (asking.join(), held)
    });
    let (answer, took) = answer.ok().context("the thread that asked panicked")?;
    let (answer, held) = (answer?, held?);
    let what = format!("\"{segment}\" could not be opened for {} s", took.as_secs());
    if !matches!(answer, Answer::CouldNotTell(_)) {
        return broken(format!("{what}: {answer}"));
    }
    hold(took < BOUND, || {
        format!("{what}, and so long the request waited")
    })?;
    held.release()?;
    drop(stall);
    asker.must_restore(&segment, &bytes, "once it could be opened again")?;
    Ok(Evidence::Seen(format!(
        "opening \"{segment}\" hung: {answer} after {:.1} s; then restored",
        took.as_secs_f64()
    )))
}

fn promotion_while_hanging(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = primary(subject, lab, &archive, "primary", SMALL_MB)?;
    let backup = primary.base_backup("backup")?;
    primary.write_segments(1..=2)?;
    primary.wait_until_archived()?;
    let standby = standby(subject, lab, &archive, &backup)?;
    must_show(&standby, 2)?;
    // Held back so that it does not fetch the next segment before that can hang.
    let startup = standby.wait_for_process("startup")?;
    startup.pause()?;
    let segment = primary.write_segments(3..=3)?.concat();
    primary.wait_until_archived()?;
    let stall = Stall::on_open(&archive.stored(&segment)?)?;
    let mark = standby.mark()?;
    startup.signal(Signal::CONT)?;
    let held = match stall.held_in(worker(&standby)?.pid) {
        Ok(held) => held,
        Err(error) => {
            let asked = standby.logged(mark, &["could not restore file", &segment])?;
            hold(asked.is_empty(), || {
                format!("\"{segment}\" was archived, and not restored: the module never opened it")
            })?;
            return Err(error);
        }
    };
    let (mark, begun) = (standby.mark()?, Instant::now());
    must(
        standby.sql("select pg_promote(wait => false)"),
        "the standby cannot be told to promote itself",
    )?;
    must_be_promoted(&standby, mark)?;
    let took = begun.elapsed();
    hold(took < PROMOTION_BOUND, || {
        format!(
            "with \"{segment}\" held, the promotion took {} s",
            took.as_secs()
        )
    })?;
    held.release()?;
    must(
        standby.sql("insert into ledger values (4)"),
        "it does not take writes",
    )?;
    Ok(Evidence::Seen(format!(
        "opening \"{segment}\" hung: promoted after {:.1} s",
        took.as_secs_f64()
    )))
}
