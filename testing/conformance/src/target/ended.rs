//! Promises about backups that do not come to their end: whoever ends them, and whenever.

use std::process::Child;

use anyhow::{Result, ensure};
use lab::Lab;
use rustix::process::Signal;

use super::scene::{MIDDLE_BYTES_MAX, Scene, in_time};
use crate::promise::{Evidence, Kind, Promise};
use crate::subject::Subject;

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "ended-session",
        kind: Kind::Target,
        says: "a base backup whose command is cancelled, whose session is ended or whose client is killed is not kept as one, \
               and the server goes on",
        source: "SendBaseBackup, basebackup.c; die, postgres.c: FATAL without cleanup (15 to 19)",
        check: ended_session,
    },
    Promise {
        name: "killed-server",
        kind: Kind::Target,
        says: "a base backup during which the server is killed is not kept as one, and the next one succeeds",
        source: "manual, \"Shutting Down the Server\": SIGKILL (15 to 19)",
        check: killed_server,
    },
];

/// Moments at which each way to end is tried.
const ROUNDS: u32 = 2;

fn ended_session(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let scene = Scene::begin(subject, lab, "primary")?;
    let mut random = fastrand::Rng::with_seed(subject.plan.seed);
    let mut ended = 0;
    for _ in 0..ROUNDS {
        for how in [
            "pg_cancel_backend",
            "pg_terminate_backend",
            "SIGKILL of the client",
        ] {
            let mut client = scene.begin_slowly(random.u64(0..MIDDLE_BYTES_MAX))?;
            end(&scene, &mut client, how)?;
            let when = format!("after {how}");
            scene.must_have_failed(client, &when)?;
            scene.wait_until_over()?;
            scene.must_have_none(&when)?;
            ended += 1;
        }
    }
    let contents = scene.change()?;
    scene.must_take("after those that were ended")?;
    scene.must_have(&contents, "after those that were ended")?;
    scene.must_not_have_crashed()?;
    Ok(Evidence::Seen(format!(
        "{ended} base backups ended in the middle (pg_cancel_backend, pg_terminate_backend, SIGKILL of the client): none kept, \
         then a whole one"
    )))
}

/// Ends a backup that is surely in the middle.
fn end(scene: &Scene, client: &mut Child, how: &str) -> Result<()> {
    in_time(client)?;
    // Stopped, it cannot come to its end before it is ended.
    let walsender = scene.walsender()?;
    walsender.pause()?;
    let ask = match how {
        "SIGKILL of the client" => {
            client.kill()?;
            "pid is not null".to_owned()
        }
        function => format!("{function}(pid)"),
    };
    let answer = scene
        .server
        .sql(&format!("select {ask} from pg_stat_progress_basebackup"))?;
    walsender.signal(Signal::CONT)?;
    ensure!(
        answer == "t",
        "the base backup was over before {how}: nothing was shown"
    );
    Ok(())
}

fn killed_server(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let scene = Scene::begin(subject, lab, "primary")?;
    let mut random = fastrand::Rng::with_seed(subject.plan.seed);
    for _ in 0..ROUNDS {
        let mut client = scene.begin_slowly(random.u64(0..MIDDLE_BYTES_MAX))?;
        in_time(&mut client)?;
        let walsender = scene.walsender()?;
        // Stopped, it answers the walsender's death with no new process, which would outlive it and hold up the next start.
        scene.postmaster()?.pause()?;
        // One that is only left alone tidies up when it ends.
        walsender.signal(Signal::KILL)?;
        scene.server.kill()?;
        scene.must_have_failed(client, "with the server killed")?;
        scene.must_have_none("with the server killed")?;
        scene.server.start()?;
    }
    let contents = scene.change()?;
    scene.must_take("after the server was killed")?;
    scene.must_have(&contents, "after the server was killed")?;
    Ok(Evidence::Seen(format!(
        "the server was killed in the middle of {ROUNDS} base backups: none kept, then a whole one"
    )))
}
