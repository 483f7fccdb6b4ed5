//! Promises about what is kept: a backup that succeeded is whole, and one that failed is none.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use lab::{Lab, Outcome, run};

use super::scene::Scene;
use crate::promise::{Evidence, Kind, Promise, hold};
use crate::subject::Subject;

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "backup-is-whole",
        kind: Kind::Target,
        says: "a base backup that succeeded matches its manifest, and a server that is started from it has the tables",
        source: "manual, pg_basebackup, --target; pg_verifybackup (15 to 19)",
        check: backup_is_whole,
    },
    Promise {
        name: "failed-backup-is-none",
        kind: Kind::Target,
        says: "a base backup that the server gives up in the middle is not kept as one, an earlier one stays, and the next \
               succeeds",
        source: "basebackup_sink.h, cleanup (15 to 19)",
        check: failed_backup_is_none,
    },
    Promise {
        name: "wrong-checksum-is-no-backup",
        kind: Kind::Target,
        says: "a base backup in which the server found a page with a wrong checksum is not kept as a sound one",
        source: "perform_base_backup, basebackup.c: ERROR behind end_backup (15 to 19)",
        check: wrong_checksum_is_no_backup,
    },
    Promise {
        name: "storage-away-is-failure",
        kind: Kind::Target,
        says: "while the storage is away base backups fail and nothing else does, and the next one succeeds by itself",
        source: "manual, pg_basebackup, --target (15 to 19)",
        check: storage_away_is_failure,
    },
    Promise {
        name: "refused-role",
        kind: Kind::Target,
        says: "a role that may not use the target is refused before the checkpoint, whatever it may otherwise",
        source: "BaseBackupAddTarget, basebackup_target.h: check_detail (15 to 19)",
        check: refused_role,
    },
];

fn backup_is_whole(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let scene = Scene::begin(subject, lab, "primary")?;
    let contents = scene.change()?;
    scene.must_take("on a quiet server")?;
    scene.must_have(&contents, "after success")?;
    let contents = scene.change()?;
    scene.must_take("once more")?;
    scene.must_have(&contents, "after a second success")?;
    scene.must_not_have_crashed()?;
    Ok(Evidence::Seen(format!(
        "two base backups, each unpacked and started: {} tables equal to the primary's",
        contents.len()
    )))
}

fn failed_backup_is_none(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let scene = Scene::begin(subject, lab, "primary")?;
    // The server takes along whatever lies in its data directory.
    let file = scene.server.data().join("unreadable");
    let fail = |when: &str| -> Result<()> {
        fs::write(&file, "")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000))?;
        let outcome = scene.take();
        fs::remove_file(&file)?;
        let outcome = outcome?;
        hold(!outcome.status.success(), || {
            format!("{when}, the client was told of success although a file could not be read")
        })
    };
    fail("without an earlier backup")?;
    scene.must_have_none("after a base backup in which a file could not be read")?;
    let contents = scene.change()?;
    scene.must_take("after a failed one")?;
    scene.change()?;
    fail("beside an earlier backup")?;
    scene.must_have(
        &contents,
        "after a second failure, beside an earlier success",
    )?;
    let contents = scene.change()?;
    scene.must_take("after two failures")?;
    scene.must_have(&contents, "after two failures and two successes")?;
    scene.must_not_have_crashed()?;
    Ok(Evidence::Seen(
        "a file of mode 000 in the data directory: both base backups failed, nothing was kept of them, and those between and \
         after were whole"
            .to_owned(),
    ))
}

fn wrong_checksum_is_no_backup(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let scene = Scene::begin(subject, lab, "primary")?;
    let file = scene.server.sql("select pg_relation_filepath('bulk')")?;
    let file = scene.server.data().join(file);
    let sound = fs::read(&file)?;
    let mut damaged = sound.clone();
    // In the middle of a page, behind its header.
    let byte = damaged
        .get_mut(3 * 8192 + 4000)
        .context("the table is too small")?;
    *byte ^= 0x55;
    fs::write(&file, &damaged)?;
    let outcome = scene.take()?;
    fs::write(&file, &sound)?;
    hold(!outcome.status.success(), || {
        "the client was told of success".to_owned()
    })?;
    hold(outcome.stderr.contains("checksum"), || {
        format!(
            "the client was told something else: {}",
            outcome.stderr.trim()
        )
    })?;
    scene.must_have_none("after a base backup with a page of a wrong checksum")?;
    let contents = scene.change()?;
    scene.must_take("once the page is sound again")?;
    scene.must_have(&contents, "once the page is sound again")?;
    scene.must_not_have_crashed()?;
    Ok(Evidence::Seen(
        "one byte of one page changed: the client was told, and nothing was kept as a backup"
            .to_owned(),
    ))
}

fn storage_away_is_failure(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let scene = Scene::begin(subject, lab, "primary")?;
    let contents = scene.change()?;
    scene.archive.set_mode(0o000)?;
    let outcome = scene.take();
    scene.archive.set_mode(0o755)?;
    let outcome = outcome?;
    hold(!outcome.status.success(), || {
        "with the archive of mode 000, the client was told of success".to_owned()
    })?;
    scene.must_not_have_crashed()?;
    scene.must_have_none("after a base backup without storage")?;
    scene.must_take("with the storage back")?;
    scene.must_have(&contents, "with the storage back")?;
    Ok(Evidence::Seen(format!(
        "archive of mode 000: {}; then a whole one",
        first_error(&outcome)
    )))
}

fn refused_role(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let Some(role) = &subject.target()?.refused_role else {
        return Ok(Evidence::DoesNotApply(
            "any role with REPLICATION may use it, as far as the suite is told; --refused-role names one that may not"
                .to_owned(),
        ));
    };
    let scene = Scene::begin(subject, lab, "primary")?;
    let quoted = role.replace('"', "\"\"");
    scene
        .server
        .sql(&format!("create role \"{quoted}\" login replication"))?;
    let checkpoint = "select redo_lsn from pg_control_checkpoint()";
    let before = scene.server.sql(checkpoint)?;
    let outcome = run(scene.command().args(["-U", role]))?;
    hold(!outcome.status.success(), || {
        format!("the role \"{role}\" was told of success")
    })?;
    let after = scene.server.sql(checkpoint)?;
    hold(before == after, || {
        "it was refused after a checkpoint".to_owned()
    })?;
    scene.must_have_none("after a refusal")?;
    let contents = scene.change()?;
    scene.must_take("as a superuser")?;
    scene.must_have(&contents, "as a superuser")?;
    Ok(Evidence::Seen(format!(
        "role \"{role}\" with REPLICATION: {}",
        first_error(&outcome)
    )))
}

/// The first ERROR that a client has printed; empty without one.
fn first_error(outcome: &Outcome) -> &str {
    let mut lines = outcome.stderr.lines();
    let error = lines.find(|line| line.contains("ERROR"));
    error.unwrap_or_default().trim()
}
