//! Promises about several backups: at the same time, and in one session.

use std::thread;

use anyhow::{Context, Result, ensure};
use lab::{Lab, Outcome, run};

use super::scene::Scene;
use crate::promise::{Evidence, Kind, Promise, hold};
use crate::subject::Subject;

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "two-backups-at-once",
        kind: Kind::Target,
        says: "of two base backups at the same time at least one succeeds, and what is kept is whole",
        source: "manual, \"Making a Base Backup\": several may run at the same time (15 to 19)",
        check: two_backups_at_once,
    },
    Promise {
        name: "two-backups-in-a-session",
        kind: Kind::Target,
        says: "one session takes base backups one after the other, also behind one that failed",
        source: "manual, \"Streaming Replication Protocol\", BASE_BACKUP (15 to 19)",
        check: two_backups_in_a_session,
    },
];

fn two_backups_at_once(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let scene = Scene::begin(subject, lab, "primary")?;
    let contents = scene.change()?;
    // Slow enough to be under way together.
    let commands = [scene.command(), scene.command()].map(|mut command| {
        command.arg("--max-rate=8M");
        command
    });
    let outcomes = thread::scope(|scope| {
        let taking = commands.map(|mut command| scope.spawn(move || run(&mut command)));
        taking.map(|thread| thread.join().ok().context("a thread panicked")?)
    });
    let outcomes = outcomes.into_iter().collect::<Result<Vec<Outcome>>>()?;
    let succeeded = outcomes
        .iter()
        .filter(|outcome| outcome.status.success())
        .count();
    hold(succeeded > 0, || {
        let said: Vec<&str> = outcomes
            .iter()
            .map(|outcome| outcome.stderr.trim())
            .collect();
        format!("both failed: {}", said.join("; "))
    })?;
    scene.must_have(&contents, "after two at the same time")?;
    scene.must_not_have_crashed()?;
    Ok(Evidence::Seen(format!(
        "{succeeded} of two succeeded, and what was kept last is whole"
    )))
}

fn two_backups_in_a_session(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let scene = Scene::begin(subject, lab, "primary")?;
    let contents = scene.change()?;
    let mut psql = scene.server.client("psql");
    psql.args([
        "-X",
        "-q",
        "-A",
        "-t",
        "-d",
        "dbname=postgres replication=true",
    ]);
    // The one in the middle fails after it has begun: the server takes along what lies in its data directory.
    let file = scene.server.data().join("unreadable");
    let file = file.display();
    for command in [
        scene.replication_command(),
        format!("\\! touch '{file}' && chmod 000 '{file}'"),
        scene.replication_command(),
        format!("\\! rm -f '{file}'"),
        scene.replication_command(),
    ] {
        psql.arg("-c").arg(command);
    }
    let outcome = run(&mut psql)?;
    let errors: Vec<&str> = outcome
        .stderr
        .lines()
        .filter(|line| line.contains("ERROR:"))
        .collect();
    ensure!(
        !errors.is_empty(),
        "the base backup in the middle did not fail: nothing was shown"
    );
    hold(
        errors.len() == 1 && !outcome.stderr.contains("connection"),
        || {
            format!(
                "the session's base backups failed: {}",
                outcome.stderr.trim()
            )
        },
    )?;
    scene.must_have(&contents, "after two in one session")?;
    scene.must_not_have_crashed()?;
    Ok(Evidence::Seen(format!(
        "one session: a base backup, one that the server gave up in the middle ({}), and another, which is whole",
        errors.first().copied().unwrap_or_default().trim()
    )))
}
