//! Base backup targets made with the kit: whatever a target does, the server and the session go on, and nothing waits for it.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{Cluster, Lab, Mark, Outcome, Settings, Shutdown, run, scenario, wait_until};

/// Where a target can misbehave, in the order of a backup.
const PLACES: [&str; 7] = [
    "check_detail",
    "begin",
    "begin_file",
    "contents",
    "end_file",
    "end_backup",
    "commit",
];

/// What must not wait for a target takes less than this on a loaded machine; the target itself takes a minute.
const BRIEFLY: Duration = Duration::from_secs(10);

fn settings(lab: &Lab) -> Result<Settings> {
    lab.require_library("faulty_target")?;
    Ok(lab
        .settings()
        .with("shared_preload_libraries", "faulty_target"))
}

/// Runs replication commands, one after the other in one session.
fn session(server: &Cluster, commands: &[String]) -> Result<Outcome> {
    let mut psql = server.client("psql");
    psql.args([
        "-X",
        "-q",
        "-A",
        "-t",
        "-d",
        "dbname=postgres replication=true",
    ]);
    for command in commands {
        psql.arg("-c").arg(command);
    }
    run(&mut psql)
}

fn backup_to(detail: &str) -> String {
    let asked = if detail.is_empty() {
        String::new()
    } else {
        format!(", TARGET_DETAIL '{detail}'")
    };
    format!("BASE_BACKUP (TARGET 'faulty'{asked}, CHECKPOINT 'fast', WAIT false, MANIFEST 'yes')")
}

/// Begins a backup, and waits until its target is where it misbehaves: the server shows the wait, or the progress.
fn begun(server: &Cluster, detail: &str) -> Result<Child> {
    let mut command = server.backup_command(&format!("faulty:{detail}"));
    command.args(["-X", "fetch"]).stderr(Stdio::null());
    let child = command.spawn().context("could not start pg_basebackup")?;
    server.wait_for_sql(
        "select count(*) from pg_stat_progress_basebackup \
         where phase like 'streaming %' or phase like 'transferring %'",
        "1",
    )?;
    Ok(child)
}

fn dropped(server: &Cluster) -> String {
    fs::read_to_string(server.data().join("faulty_target.dropped")).unwrap_or_default()
}

#[test]
fn whatever_a_target_does_is_an_error_of_its_backup_and_the_session_goes_on() -> Result<()> {
    scenario(|lab| {
        let server = lab.primary("primary", 1, settings(lab)?)?;
        let mut commands = Vec::new();
        let mut expected = Vec::new();
        for place in PLACES {
            for (how, said) in [
                (
                    "failure",
                    format!(
                        "ERROR:  asked to fail at {place}\nDETAIL:  This is a detail.\nHINT:  This is a hint.\n"
                    ),
                ),
                (
                    "error",
                    format!(
                        "ERROR:  unrecognized configuration parameter \"faulty.error_at_{place}\"\n"
                    ),
                ),
                (
                    "panic",
                    format!("ERROR:  panic in the module: asked to panic at {place}"),
                ),
                (
                    "payload",
                    "ERROR:  panic in the module: no message".to_owned(),
                ),
            ] {
                commands.push(backup_to(&format!("{place}={how}")));
                expected.push(said);
            }
        }
        // A destructor that panics: of a sink that was committed, and so has nothing else to say.
        commands.push(backup_to("drop=panic"));
        expected.push("ERROR:  panic in the module: asked to panic at drop".to_owned());
        commands.push(backup_to(""));
        commands.push(backup_to("check_detail=failure"));
        expected.push("ERROR:  asked to fail at check_detail".to_owned());
        let outcome = session(&server, &commands)?;
        let mut rest = outcome.stderr.as_str();
        for said in &expected {
            let at = rest.find(said);
            let at = at.with_context(|| format!("{said:?} is not in what is left: {rest}"))?;
            rest = rest.get(at + said.len()..).unwrap_or_default();
        }
        assert!(
            !outcome.stderr.contains("connection"),
            "the session ended: {}",
            outcome.stderr
        );
        let counted = server.logged(Mark::default(), &["faulty_target:"])?;
        assert_eq!(counted.len(), commands.len(), "{counted:?}");
        // All but those that were refused before they began; of these only the last two were committed.
        let begun = commands.len() - 4 - 1;
        let last = counted.last().context("nothing was counted")?;
        assert!(
            last.has(&[&format!("0 alive, {begun} dropped, 2 committed")]),
            "{last:?}"
        );
        assert_eq!(
            server
                .logged(Mark::default(), &["was terminated by signal"])?
                .len(),
            0
        );
        Ok(())
    })
}

#[test]
fn a_fast_shutdown_does_not_wait_for_a_target() -> Result<()> {
    for detail in [
        "contents=wait",
        "contents=look",
        "contents=slow",
        "end_file=wait",
        "begin=wait",
    ] {
        scenario(|lab| {
            let server = lab.primary("primary", 1, settings(lab)?)?;
            let mut client = match detail {
                // The server shows it as waiting for its checkpoint still.
                "begin=wait" => {
                    let mut command = server.backup_command("faulty:begin=wait");
                    let child = command
                        .args(["-X", "fetch"])
                        .stderr(Stdio::null())
                        .spawn()?;
                    server.wait_for_sql(
                        "select count(*) from pg_stat_activity where wait_event_type = 'Extension'",
                        "1",
                    )?;
                    child
                }
                detail => begun(&server, detail)?,
            };
            let took = server.stop(Shutdown::Fast)?;
            assert!(took < BRIEFLY, "{detail}: the shutdown took {took:?}");
            assert!(
                !client.wait()?.success(),
                "{detail}: the client believes it"
            );
            assert_eq!(
                dropped(&server),
                format!("{detail}\n"),
                "the sink was not dropped"
            );
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn dropping_a_database_does_not_wait_for_a_target() -> Result<()> {
    scenario(|lab| {
        let server = lab.primary("primary", 1, settings(lab)?)?;
        for detail in ["contents=wait", "contents=look", "contents=slow"] {
            server.sql("create database short_lived")?;
            let mut client = begun(&server, detail)?;
            let asked = Instant::now();
            server.sql("drop database short_lived")?;
            let took = asked.elapsed();
            assert!(took < BRIEFLY, "{detail}: it took {took:?}");
            assert!(
                client.try_wait()?.is_none(),
                "{detail}: the backup is over, so nothing was shown"
            );
            // A cancelled command is an ERROR, after which the session and its client end in an orderly way.
            server.sql("select pg_cancel_backend(pid) from pg_stat_progress_basebackup")?;
            assert!(!client.wait()?.success());
            wait_until("the sink to be dropped", || {
                Ok(dropped(&server).ends_with(&format!("{detail}\n")))
            })?;
        }
        let said = server.logged(
            Mark::default(),
            &["ERROR", "canceling statement due to user request"],
        )?;
        assert_eq!(said.len(), 3, "{said:?}");
        Ok(())
    })
}

#[test]
fn a_promotion_does_not_wait_for_a_target() -> Result<()> {
    scenario(|lab| {
        let primary = lab.primary("primary", 1, settings(lab)?)?;
        let archive = lab.archive("archive")?;
        let copy = format!("cp %p {}/%f", archive.text());
        let primary_settings = settings(lab)?
            .with("archive_mode", "on")
            .with("archive_command", &copy);
        primary.stop(Shutdown::Fast)?;
        primary.configure(|settings| {
            *settings = primary_settings.with(
                "unix_socket_directories",
                &primary.home().display().to_string(),
            )
        })?;
        primary.start()?;
        let backup = primary.base_backup("backup")?;
        let restore = format!("cp {}/%f %p", archive.text());
        let standby = lab.restored(
            "standby",
            &backup,
            settings(lab)?.with("restore_command", &restore),
        )?;
        standby.touch("standby.signal")?;
        standby.start()?;
        let mut client = begun(&standby, "contents=wait")?;
        let asked = Instant::now();
        standby.sql("select pg_promote()")?;
        let took = asked.elapsed();
        assert!(took < BRIEFLY, "the promotion took {took:?}");
        assert!(
            client.try_wait()?.is_none(),
            "the backup is over, so nothing was shown"
        );
        standby.sql("select pg_terminate_backend(pid) from pg_stat_progress_basebackup")?;
        assert!(!client.wait()?.success());
        wait_until("the sink to be dropped", || {
            Ok(!dropped(&standby).is_empty())
        })
    })
}

#[test]
fn a_target_can_ask_for_a_role() -> Result<()> {
    scenario(|lab| {
        let server = lab.primary("primary", 1, settings(lab)?)?;
        server.sql(
            "create role backup_takers; create role member login replication in role backup_takers; \
             create role stranger login replication",
        )?;
        let taken_by = |role: &str, detail: &str| {
            let mut command = server.backup_command(&format!("faulty:{detail}"));
            run(command.args(["-X", "fetch", "-U", role]))
        };
        for role in ["member", "postgres"] {
            taken_by(role, "role=backup_takers")?.success()?;
        }
        let refused = taken_by("stranger", "role=backup_takers")?;
        assert!(!refused.status.success());
        assert!(
            refused
                .stderr
                .contains("permission denied to use the target \"faulty\""),
            "{}",
            refused.stderr
        );
        // The ERROR ends a transaction of the kit's, and the session goes on.
        let outcome = session(
            &server,
            &[
                backup_to("role=nobody"),
                backup_to("role=backup_takers"),
                backup_to(""),
            ],
        )?;
        assert!(
            outcome.stderr.contains("role \"nobody\" does not exist"),
            "{}",
            outcome.stderr
        );
        let counted = server.logged(Mark::default(), &["faulty_target:"])?;
        let last = counted.last().context("nothing was counted")?;
        assert!(last.has(&["0 alive, 1 dropped, 1 committed"]), "{last:?}");
        assert!(
            !outcome.stderr.contains("there is already a transaction"),
            "{}",
            outcome.stderr
        );
        Ok(())
    })
}
