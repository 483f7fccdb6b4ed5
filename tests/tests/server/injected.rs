//! Panics, ERRORs and failures at every callback of an archive module, and everywhere else where the kit runs a
//! module's code outside recovery; `injected_recovery.rs` has the rest.
//!
//! What is right: the answer is "not archived" or "not configured", the archiver keeps its process wherever the
//! server lets it, the log names the module's trouble, and a session that was open before does not notice.
//!
//! | place | what the server makes of a failure there (15 to 18) |
//! |---|---|
//! | `_PG_init` | of the archiver: FATAL, tried again with the next archiver; of the postmaster: no start; of a session: ERROR |
//! | startup | none of its own: the kit starts a module at its first check |
//! | check configured | "not configured", counted nowhere |
//! | archive file | counted, tried again |
//! | shutdown | a WARNING; an ERROR is FATAL there, because the process is ending already |
//! | check hook | the value is refused |
//! | a worker's main function | the worker ends with status 1 and is started again |

use anyhow::{Result, ensure};
use lab::{Cluster, Lab, Mark, Settings, Shutdown, scenario, wait_until};

use crate::common::{SMALL_MB, primary_with, write};
use crate::witness::{RUST, Witness};

/// A server that archives with the misbehaving module.
fn settings(lab: &Lab, place: &str, way: &str) -> Result<Settings> {
    RUST.require(lab)?;
    let archive = lab.dir().join("archive");
    if !archive.exists() {
        lab.directory("archive")?;
    }
    let settings = lab
        .settings()
        .with("archive_mode", "on")
        .with("archive_library", "misbehave");
    Ok(RUST.with(settings, &archive.display().to_string(), place, way))
}

/// The process id of the archiver.
fn archiver(primary: &Cluster) -> Result<u32> {
    Ok(primary.wait_for_process("archiver")?.pid)
}

const COUNTS: &str = "archived_count || ' ' || failed_count";

#[test]
fn whatever_happens_in_archive_file_is_counted_and_tried_again_by_the_same_archiver() -> Result<()>
{
    scenario(|lab| {
        let primary = primary_with(lab, SMALL_MB, settings(lab, "jobs", "ok")?)?;
        let mut witness = Witness::of(&primary)?;
        let before = archiver(&primary)?;
        for (entry, (way, words)) in (1..).zip(RUST.ways) {
            let (mark, failures) = (primary.mark()?, primary.archive_failures()?);
            let archived = primary.archiver("archived_count")?;
            RUST.at(&primary, "archive_file", way)?;
            write(&primary, entry)?;
            primary.switch_segment()?;
            wait_until("two more counted failures", || {
                Ok(primary.archive_failures()? >= failures + 2)
            })?;
            primary.wait_for_log(mark, &["WARNING", words])?;
            assert_eq!(primary.archiver("archived_count")?, archived, "{way}");
            witness.check(&primary)?;
            RUST.behaves(&primary)?;
            primary.archive_everything()?;
            assert_eq!(archiver(&primary)?, before, "the archiver died: {way}");
        }
        let fatal = primary.logged(Mark::default(), &["FATAL"])?;
        assert!(fatal.is_empty(), "{fatal:?}");
        Ok(())
    })
}

/// Waits for the server's WARNING that archiving is not configured, and for the module's reason, which from 17 on
/// the server itself shows.
fn wait_for_not_configured(primary: &Cluster, lab: &Lab, mark: Mark, words: &str) -> Result<()> {
    let warning = "enabled, yet archiving is not configured";
    if lab.installation().major() >= 17 {
        primary.wait_for_log(mark, &["WARNING", warning, words])?;
    } else {
        primary.wait_for_log(mark, &["WARNING", words])?;
        primary.wait_for_log(mark, &["WARNING", warning])?;
    }
    Ok(())
}

/// Has the module fail at a place where it counts as "not configured".
fn not_configured(at: impl Fn(&Cluster, &str) -> Result<()>) -> Result<()> {
    scenario(|lab| {
        let primary = primary_with(lab, SMALL_MB, settings(lab, "jobs", "ok")?)?;
        let mut witness = Witness::of(&primary)?;
        let before = archiver(&primary)?;
        for (entry, (way, words)) in (1..).zip(RUST.ways) {
            let counts = primary.archiver(COUNTS)?;
            let mark = primary.mark()?;
            at(&primary, way)?;
            write(&primary, entry)?;
            let segment = primary.switch_segment()?;
            wait_for_not_configured(&primary, lab, mark, words)?;
            assert_eq!(primary.archiver(COUNTS)?, counts, "{way}");
            assert!(primary.ready()?.contains(&segment), "{way}");
            witness.check(&primary)?;
            RUST.behaves(&primary)?;
            primary.archive_everything()?;
            assert_eq!(archiver(&primary)?, before, "the archiver died: {way}");
        }
        let fatal = primary.logged(Mark::default(), &["FATAL"])?;
        assert!(fatal.is_empty(), "{fatal:?}");
        Ok(())
    })
}

#[test]
fn whatever_happens_in_the_check_is_not_configured_and_the_archiver_lives() -> Result<()> {
    not_configured(|primary, way| RUST.at(primary, "check_configured", way))
}

#[test]
fn whatever_happens_at_startup_is_not_configured_and_the_archiver_lives() -> Result<()> {
    not_configured(|primary, way| {
        // A panic costs the module its state, so that it has to start again.
        let mark = primary.mark()?;
        RUST.at(primary, "check_configured", "panic")?;
        primary.sql("select pg_create_restore_point('something to archive')")?;
        primary.switch_segment()?;
        primary.wait_for_log(mark, &["enabled, yet archiving is not configured"])?;
        RUST.at(primary, "startup", way)
    })
}

/// Has something archived by the next archiver, for which the server waits ten seconds from the start of the one
/// before it (pgarch.c, `PgArchCanRestart`, 15 to 18). Every session makes the server look whether it is time.
pub(crate) fn write_and_wait_for_next(server: &Cluster) -> Result<()> {
    let archived = server.archiver("archived_count")?;
    server.sql("select pg_create_restore_point('something to archive')")?;
    server.switch_segment()?;
    server.wait_for_sql(
        &format!("select archived_count > {archived} from pg_stat_archiver"),
        "t",
    )
}

#[test]
fn whatever_happens_at_shutdown_the_next_archiver_archives_and_the_server_ends_in_order()
-> Result<()> {
    scenario(|lab| {
        let mut servers = Vec::new();
        for (way, words) in RUST.ways {
            let server = lab.cluster(way, SMALL_MB, settings(lab, "shutdown", way)?)?;
            server.start()?;
            let witness = Witness::of(&server)?;
            server.archive_everything()?;
            let first = archiver(&server)?;
            servers.push((server, witness, first, *way, *words));
        }
        // The same library by another name: the archiver ends and another one loads it.
        let path = lab.installation().library_dir().join("misbehave.so");
        for (server, ..) in &servers {
            server.reload(|settings| {
                settings.set("archive_library", &path.display().to_string());
            })?;
        }
        for (server, witness, first, way, words) in &mut servers {
            let level = if *way == "error" { "FATAL" } else { "WARNING" };
            server.wait_for_log(Mark::default(), &[level, words])?;
            write_and_wait_for_next(server)?;
            ensure!(archiver(server)? != *first, "the archiver goes on: {way}");
            witness.check(server)?;
            server.stop(Shutdown::Fast)?;
            let ends = server.logged(Mark::default(), &["misbehave: shutting down after"])?;
            assert_eq!(ends.len(), 2, "{way}: {ends:?}");
            for words in ["terminated by signal", "PANIC:"] {
                assert!(server.logged(Mark::default(), &[words])?.is_empty());
            }
        }
        Ok(())
    })
}

#[test]
fn a_library_that_fails_to_load_in_the_archiver_is_loaded_by_a_later_one() -> Result<()> {
    scenario(|lab| {
        let mut servers = Vec::new();
        for (way, words) in RUST.ways {
            let server = lab.cluster(way, SMALL_MB, settings(lab, "load", way)?)?;
            server.start()?;
            let witness = Witness::of(&server)?;
            server.switch_segment()?;
            servers.push((server, witness, *words));
        }
        for (server, witness, words) in &mut servers {
            server.wait_for_log(Mark::default(), &["FATAL", words])?;
            assert_eq!(server.archiver(COUNTS)?, "0 0");
            witness.check(server)?;
            RUST.behaves(server)?;
        }
        for (server, witness, _) in &mut servers {
            server.wait_for_sql("select archived_count > 0 from pg_stat_archiver", "t")?;
            witness.check(server)?;
        }
        Ok(())
    })
}

#[test]
fn a_library_that_fails_to_load_in_the_postmaster_is_named_and_the_server_does_not_start()
-> Result<()> {
    scenario(|lab| {
        for (way, words) in RUST.ways {
            let settings =
                settings(lab, "load", way)?.with("shared_preload_libraries", "misbehave");
            let server = lab.cluster(way, SMALL_MB, settings)?;
            let log = server.start_refused()?;
            assert!(log.contains("FATAL") && log.contains(words), "{way}: {log}");
            assert!(!log.contains("terminated by signal"), "{way}: {log}");
        }
        Ok(())
    })
}

#[test]
fn a_library_that_fails_to_load_in_a_session_is_an_error_there_and_can_be_loaded_later()
-> Result<()> {
    scenario(|lab| {
        let settings = settings(lab, "jobs", "ok")?
            .without("archive_mode")
            .without("archive_library");
        let server = lab.cluster("server", SMALL_MB, settings)?;
        server.start()?;
        let mut witness = Witness::of(&server)?;
        for (way, words) in RUST.ways {
            let mark = server.mark()?;
            RUST.at(&server, "load", way)?;
            witness.tell("load 'misbehave'")?;
            witness.check(&server)?;
            server.wait_for_log(mark, &["ERROR", words, "load 'misbehave'"])?;
        }
        RUST.behaves(&server)?;
        witness.tell("load 'misbehave'")?;
        let contexts =
            "select string_agg(context, ' ') from pg_settings where name like 'misbehave.%'";
        assert_eq!(witness.ask(contexts)?, "sighup sighup sighup sighup");
        let fatal = server.logged(Mark::default(), &["FATAL"])?;
        assert!(fatal.is_empty(), "{fatal:?}");
        witness.check(&server)
    })
}

#[test]
fn a_check_hook_that_panics_refuses_the_value_in_every_process() -> Result<()> {
    scenario(|lab| {
        let settings = settings(lab, "jobs", "ok")?.with("shared_preload_libraries", "misbehave");
        let server = primary_with(lab, SMALL_MB, settings)?;
        let mut witness = Witness::of(&server)?;
        let before = archiver(&server)?;
        for (value, words) in [
            ("panic", "panic in the module: asked to panic in a check"),
            ("payload", "panic in the module: no message ("),
            ("refuse", "It was asked to refuse."),
        ] {
            let mark = server.mark()?;
            witness.tell(&format!("alter system set misbehave.checked = '{value}'"))?;
            witness.check(&server)?;
            server.wait_for_log(mark, &["ERROR", "misbehave.checked", words])?;
            let mark = server.mark()?;
            server.reload(|settings| settings.set("misbehave.checked", value))?;
            server.wait_for_log(mark, &["LOG", "misbehave.checked", words])?;
            assert_eq!(witness.ask("show misbehave.checked")?, "");
            server.configure(|settings| settings.remove("misbehave.checked"))?;
        }
        server.archive_everything()?;
        assert_eq!(archiver(&server)?, before, "the archiver died");
        witness.check(&server)
    })
}

#[test]
fn whatever_happens_in_a_worker_it_ends_with_status_1_and_is_started_again() -> Result<()> {
    scenario(|lab| {
        let settings = settings(lab, "jobs", "ok")?.with("shared_preload_libraries", "misbehave");
        let server = primary_with(lab, SMALL_MB, settings)?;
        let mut witness = Witness::of(&server)?;
        for (way, words) in RUST.ways {
            let worker = server.wait_for_process("misbehave worker")?;
            let mark = server.mark()?;
            RUST.at(&server, "worker", way)?;
            wait_until("the worker to end", || Ok(!worker.is_alive()))?;
            server.wait_for_log(mark, &["WARNING", words])?;
            server.wait_for_log(mark, &["misbehave worker", "exited with exit code 1"])?;
            RUST.behaves(&server)?;
            server.wait_for_process("misbehave worker")?;
            witness.check(&server)?;
        }
        server.archive_everything()?;
        witness.check(&server)
    })
}
