//! Promises about slow storage: nothing waits for it but the backup.
//!
//! Slow is a walsender whose writes to files take a tenth of a second each, by strace(1). So one large file of the server takes
//! minutes, during which the server itself does not look for interrupts.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::{ArchiveDir, Lab, Outcome, Process, Shutdown, run_for, wait_for};

use super::scene::{PATIENCE, Scene, in_time};
use crate::promise::{Evidence, Kind, Promise, hold, must};
use crate::subject::Subject;

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[Promise {
    name: "slow-storage-holds-nothing-up",
    kind: Kind::Target,
    says: "while the storage is slow in the middle of a large file, neither DROP DATABASE nor a fast shutdown waits for the base \
           backup, which is not kept as one",
    source: "sendDir, basebackup.c: interrupts are served once for each file; manual, \"Shutting Down the Server\" (15 to 19)",
    check: slow_storage_holds_nothing_up,
}];

/// The calls that fill files.
const CALLS: &str = "write,pwrite64,writev,pwritev,pwritev2";

/// How late each of them is, microseconds.
const DELAY: &str = "delay_enter=100000";

/// What waits for nothing takes less, on a loaded machine; the file takes a minute and more.
const BRIEFLY: Duration = Duration::from_secs(10);

/// A process whose writes are slow, until this is dropped.
struct Slowed(Child);

impl Slowed {
    /// Answers once a write below this directory has been late; the server writes to files of its own, too.
    fn begin(lab: &Lab, walsender: &Process, place: &ArchiveDir) -> Result<Self> {
        let seen = lab.dir().join("slowed");
        let below = format!("<{}/", place.text());
        let mut strace = lab.command("strace");
        strace.args(["-f", "-q", "-y", "-e", &format!("trace={CALLS}")]);
        strace.args(["-e", &format!("inject={CALLS}:{DELAY}"), "-p"]);
        strace.arg(walsender.pid.to_string()).arg("-o").arg(&seen);
        let strace = strace.stderr(Stdio::null()).spawn();
        let mut slowed = Self(
            strace.context("storage is made slow with strace, which is not on PATH: install it")?,
        );
        wait_for("a late write to a file", PATIENCE, || {
            if let Some(status) = slowed.0.try_wait()? {
                bail!("strace ended with {status}");
            }
            let late = fs::read_to_string(&seen).unwrap_or_default();
            let mut late = late.lines().filter(|line| line.contains("(DELAYED)"));
            Ok(late.any(|line| line.contains(&below)).then_some(()))
        })?;
        Ok(slowed)
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        // Killed, it lets go of what it traces.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn slow_storage_holds_nothing_up(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let scene = Scene::begin(subject, lab, "primary")?;
    // The last database, and its file is larger than all else.
    scene.server.sql("create database short_lived")?;
    scene
        .server
        .sql("insert into bulk select n, filling from bulk, generate_series(1, 3); checkpoint")?;
    let mut client = scene.begin_slowly(0)?;
    let slowed = Slowed::begin(lab, &scene.walsender()?, &scene.archive)?;
    let asked = Instant::now();
    let mut drop_database = scene.server.client("psql");
    drop_database.args(["-X", "-d", "postgres", "-c", "drop database short_lived"]);
    let dropped = run_for(&mut drop_database, BRIEFLY).and_then(Outcome::success);
    must(dropped, "DROP DATABASE waited for the base backup")?;
    let dropped = asked.elapsed();
    in_time(&mut client)?;
    let stopped = must(
        scene.server.stop(Shutdown::Fast),
        "a fast shutdown waited for the base backup",
    )?;
    drop(slowed);
    hold(stopped < BRIEFLY, || {
        format!("a fast shutdown took {} s", stopped.as_secs())
    })?;
    scene.must_have_failed(client, "with the server shut down")?;
    scene.must_have_none("after a fast shutdown in the middle")?;
    scene.server.start()?;
    let contents = scene.change()?;
    scene.must_take("with the storage quick again")?;
    scene.must_have(&contents, "with the storage quick again")?;
    scene.must_not_have_crashed()?;
    Ok(Evidence::Seen(format!(
        "each write of the walsender a tenth of a second late: DROP DATABASE took {} ms, a fast shutdown {} ms",
        dropped.as_millis(),
        stopped.as_millis()
    )))
}
