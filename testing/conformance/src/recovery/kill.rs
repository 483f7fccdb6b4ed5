//! Promises about the moment a file becomes visible: whole, also when the process that restores it is killed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{Cluster, Lab, Shutdown, wait_for};
use rustix::process::Signal;

use super::scene::{PATIENCE, last_words, lose, must_recover, recovery_of, worker};
use super::watch::{Seen, Watch};
use crate::promise::{Evidence, Kind, Promise, broken, hold};
use crate::stall::Stall;
use crate::subject::Subject;

/// The name under which the server asks for every segment (RestoreArchivedFile, xlogarchive.c, 15 to 18).
const ASKED_FOR: &str = "RECOVERYXLOG";

/// How often the worker is killed at a random moment.
const KILLS: u32 = 3;

/// The random moments lie within this time of the first restored segment.
const MOMENT_MICROS_MAX: u64 = 60_000;

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "whole-before-visible",
        kind: Kind::Recovery,
        says: "a restored file is complete before it has the name the server asked for",
        source: "RestoreArchivedFile, xlogarchive.c (15 to 18); recovery_module.h, restore_cb",
        check: whole_before_visible,
    },
    Promise {
        name: "killed-restore",
        kind: Kind::Recovery,
        says: "recovery whose worker is killed while it restores goes through once the server is started again",
        source: "recovery_module.h, restore_cb; HandleChildCrash, postmaster.c (15 to 18)",
        check: killed_restore,
    },
];

fn whole_before_visible(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let lost = lose(subject, lab, &archive, 6)?;
    let recovered = recovery_of(
        lab,
        "recovered",
        &lost.backup,
        subject.recovering(lab, &archive),
    )?;
    let watch = Watch::on(&recovered.data().join("pg_wal"), ASKED_FOR)?;
    must_recover(&recovered, &lost.contents)?;
    let mut seen = Seen::default();
    watch.look(&mut seen)?;
    ensure!(
        seen.appeared > 0,
        "no file was seen to appear as {ASKED_FOR}"
    );
    hold(seen.written == 0, || {
        format!(
            "pg_wal/{ASKED_FOR} was written to under that name {} times, where the server may look at any moment",
            seen.written
        )
    })?;
    Ok(Evidence::Seen(format!(
        "{} files appeared as pg_wal/{ASKED_FOR}, none was written to under that name",
        seen.appeared
    )))
}

fn killed_restore(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let mut random = fastrand::Rng::with_seed(subject.plan.seed);
    let archive = lab.archive("archive")?;
    let lost = lose(subject, lab, &archive, 8)?;
    // A killed worker takes the server with it, which would otherwise start anew by itself.
    let settings = subject
        .recovering(lab, &archive)
        .with("restart_after_crash", "off");
    let recovered = recovery_of(lab, "recovered", &lost.backup, settings)?;
    let mut moments = Vec::new();
    // First in the middle of a file for certain, where that can be arranged.
    let place = archive.stored(lost.segments.get(4).map_or("", String::as_str))?;
    if let Ok(stall) = Stall::on_open(&place) {
        start(&recovered)?;
        let worker = worker(&recovered)?;
        let held = stall.held_in(worker.pid)?;
        worker.signal(Signal::KILL)?;
        held.release()?;
        drop(stall);
        end_of(&recovered)?;
        moments.push("in the middle of a file".to_owned());
    }
    for _ in 0..KILLS {
        let moment = Duration::from_micros(random.u64(0..MOMENT_MICROS_MAX));
        if !kill_after(&recovered, moment)? {
            break;
        }
        moments.push(format!(
            "{:.1} ms after a first file",
            moment.as_secs_f64() * 1000.0
        ));
        visible_is_whole(&recovered)?;
    }
    if !recovered.data().join("recovery.signal").exists() {
        // Over before it could be killed; then its contents count.
        if !recovered.is_running()? {
            recovered.start()?;
        }
        let contents = recovered.contents()?;
        hold(contents == lost.contents, || {
            format!("after kills {} the tables differ", moments.join(", "))
        })?;
    } else {
        must_recover(&recovered, &lost.contents)?;
    }
    Ok(Evidence::Seen(format!(
        "worker killed {}: recovered with everything after that",
        moments.join(", ")
    )))
}

/// Starts recovery and waits for the first segment that it restores, or its end; answers with when that was.
fn start(recovered: &Cluster) -> Result<Instant> {
    let mark = recovered.mark()?;
    recovered.launch()?;
    let begun = wait_for("a first restored segment", PATIENCE, || {
        ensure!(recovered.is_running()?, "the server has ended");
        let restored = recovered.logged(mark, &["restored log file"])?;
        Ok((!restored.is_empty()).then(Instant::now))
    });
    begun.or_else(|error| {
        let said = last_words(recovered, mark)?;
        broken(format!("recovery does not go on: {error:#}; {said}"))
    })
}

/// Starts recovery and kills the worker some time after the first restored segment; false when recovery was
/// over before.
fn kill_after(recovered: &Cluster, moment: Duration) -> Result<bool> {
    let begun = start(recovered)?;
    wait_for("a random moment", PATIENCE, || {
        Ok((begun.elapsed() >= moment).then_some(()))
    })?;
    if !recovered.data().join("recovery.signal").exists() {
        return Ok(false);
    }
    worker(recovered)?.signal(Signal::KILL)?;
    end_of(recovered)?;
    Ok(recovered.data().join("recovery.signal").exists())
}

/// Waits until the server, which has lost its worker, has ended.
fn end_of(recovered: &Cluster) -> Result<()> {
    let ended = wait_for("the server to end with its worker", PATIENCE, || {
        Ok((!recovered.is_running()?).then_some(()))
    });
    match ended {
        Ok(()) => recovered.wait_for_end().map(drop),
        Err(_) => recovered.stop(Shutdown::Immediate).map(drop),
    }
}

/// Whatever the server would find under the name it asks for has to be a whole segment.
fn visible_is_whole(recovered: &Cluster) -> Result<()> {
    let path = recovered.data().join(Path::new("pg_wal").join(ASKED_FOR));
    let Ok(metadata) = path.metadata() else {
        return Ok(());
    };
    let whole = u64::from(super::scene::SMALL_MB) * 1024 * 1024;
    hold(metadata.len() == whole, || {
        format!(
            "the killed worker left pg_wal/{ASKED_FOR} with {} of {whole} bytes",
            metadata.len()
        )
    })?;
    Ok(())
}
