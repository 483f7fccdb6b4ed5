//! Promises about slow storage: while a module waits for it, the server goes on.
//!
//! Slow is: the archiver, or a thread of it, is held when it opens the segment, for as long as it takes.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{ArchiveDir, Cluster, Lab, Process, wait_for, wait_until};
use rustix::process::Signal;

use super::bench::{archiver, copied, idle_archiver, pause, stall_at, stall_at_next};
use crate::promise::{Evidence, Kind, Promise, broken, must};
use crate::stall::Stall;
use crate::subject::Subject;

/// What does not wait takes a fraction of a second; what waits, waits until it is let go.
const LIMIT: Duration = Duration::from_secs(40);

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "slow-storage-drop-database",
        kind: Kind::Archive,
        says: "while the module waits for storage, DROP DATABASE does not wait for it",
        source: "WaitForProcSignalBarrier, procsignal.c (15 to 18): every process has to take part",
        check: drop_database,
    },
    Promise {
        name: "slow-storage-reload",
        kind: Kind::Archive,
        says: "while the module waits for storage, a changed archive_library takes effect on reload",
        source: "manual, \"archive_library\" (15 to 18): the archiver is restarted when it changes",
        check: reload,
    },
    Promise {
        name: "slow-storage-promotion",
        kind: Kind::Archive,
        says: "while the module waits for storage on a standby, it replays DROP DATABASE and is promoted",
        source: "WaitForProcSignalBarrier, procsignal.c (15 to 18); dbase_redo, dbcommands.c (15 to 18)",
        check: promotion,
    },
];

/// Does something in a thread of its own while the module is held, and says at which step it is. Answers with
/// the seconds that took, or with the step that it had come to at [`LIMIT`]; either way the module is let go.
fn while_held(
    stall: Stall,
    by: &Process,
    done: impl FnOnce(&Steps) -> Result<()> + Send,
) -> Result<Result<f64, &'static str>> {
    let steps = Steps(Mutex::new("its beginning"));
    let steps = &steps;
    thread::scope(move |scope| {
        let held = stall.held_in(by.pid)?;
        let begun = Instant::now();
        let work = scope.spawn(|| done(steps));
        let mut let_go = Ok(());
        let waited = wait_for("what must not wait", LIMIT, || {
            // The startup process of a standby may come to replay the very segment that the archiver is held at.
            let_go = held.let_others_go();
            Ok((let_go.is_err() || work.is_finished()).then_some(()))
        });
        let (took, step) = (begun.elapsed().as_secs_f64(), steps.last());
        held.release()?;
        drop(stall);
        let_go?;
        match work.join() {
            Ok(result) => result?,
            Err(_) => anyhow::bail!("what must not wait panicked"),
        }
        Ok(waited.map(|()| took).map_err(|_| step))
    })
}

/// Where a piece of work is.
struct Steps(Mutex<&'static str>);

impl Steps {
    fn at(&self, step: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    fn last(&self) -> &'static str {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drop_database(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = subject.primary(lab, &archive, 1)?;
    primary.sql("create database gone")?;
    let by = idle_archiver(&primary)?;
    let (segment, stall) = stall_at_next(&primary, &by, 1, false)?;
    let took = while_held(stall, &by, |_| primary.sql("drop database gone").map(drop))?;
    let Ok(took) = took else {
        return broken(format!(
            "DROP DATABASE waited for {} s, as long as the archiver was held at {segment}",
            LIMIT.as_secs()
        ));
    };
    // A reason to look again, should the archiver have put it off for a minute.
    primary.write_segments(2..=2)?;
    must(
        primary.wait_until_archived(),
        "afterwards the segment was not archived",
    )?;
    Ok(Evidence::Seen(format!(
        "the module was held when it opened {segment}: DROP DATABASE took {took:.1} s, and the segment was \
         archived afterwards"
    )))
}

fn reload(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = subject.primary(lab, &archive, 1)?;
    let by = idle_archiver(&primary)?;
    let (segment, stall) = stall_at_next(&primary, &by, 1, false)?;
    let took = while_held(stall, &by, |_| {
        primary.reload(|settings| {
            settings.remove("archive_library");
            settings.set("archive_command", "true");
        })?;
        wait_until("the archiver to end", || Ok(!by.is_alive()))
    })?;
    let Ok(took) = took else {
        return broken(format!(
            "archive_library was changed and the server told: the archiver that was held at {segment} had \
             not noticed after {} s",
            LIMIT.as_secs()
        ));
    };
    Ok(Evidence::Seen(format!(
        "the module was held when it opened {segment}: archive_library was changed, and its archiver had \
         made room for another {took:.1} s after the reload"
    )))
}

/// A standby that archives whatever it receives, and is held with the first segment, while a database is
/// dropped on the primary.
fn promotion(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = copied(
        lab,
        "primary",
        1,
        lab.settings().with("wal_keep_size", "256MB"),
    )?;
    let standby = standby_of(subject, lab, &primary.copy, &primary.primary, &archive)?;
    let primary = primary.primary;
    primary.sql("create database gone")?;
    let by = archiver(&standby)?;
    pause(&standby, &by)?;
    // Not one that it may be at work on already.
    let segments = primary.write_segments(1..=2)?;
    let segment = segments.first().context("no segment was written")?.clone();
    wait_until("the standby to have the segment to archive", || {
        Ok(standby.ready()?.contains(&segment))
    })?;
    let stall = stall_at(&standby, &segment, false)?;
    by.signal(Signal::CONT)?;

    let took = while_held(stall, &by, |steps| {
        steps.at("DROP DATABASE on its primary");
        primary.sql("drop database gone")?;
        let end = primary.sql("select pg_current_wal_lsn()")?;
        steps.at("the replay of DROP DATABASE");
        let replayed = format!("select pg_last_wal_replay_lsn() >= '{end}'");
        standby.wait_for_sql(&replayed, "t")?;
        steps.at("the promotion");
        standby.sql("select pg_promote()")?;
        steps.at("writing");
        standby.sql("insert into ledger values (100)").map(drop)
    })?;
    let took = match took {
        Ok(took) => took,
        Err(step) => {
            return broken(format!(
                "a standby (archive_mode = always) whose archiver was held at {segment} was not promoted \
                 within {} s: it had come to {step}",
                LIMIT.as_secs()
            ));
        }
    };
    Ok(Evidence::Seen(format!(
        "the archiver of a standby (archive_mode = always) was held when it opened {segment}: DROP DATABASE \
         replayed, promoted, written to within {took:.1} s"
    )))
}

fn standby_of<'lab>(
    subject: &Subject,
    lab: &'lab Lab,
    copy: &std::path::Path,
    primary: &Cluster,
    archive: &ArchiveDir,
) -> Result<Cluster<'lab>> {
    let settings = subject
        .archiving(lab, archive)
        .with("archive_mode", "always")
        .with("primary_conninfo", &super::together::address(primary));
    let standby = lab.restored("standby", copy, settings)?;
    standby.touch("standby.signal")?;
    standby.start()?;
    Ok(standby)
}
