//! Servers whose store misbehaves, with little memory to spare: neither the archiver, the recovery worker nor the startup
//! process may die, say that a file is absent, or say that one is archived; afterwards all goes on.

use anyhow::{Context, Result, ensure};
use lab::stores::{Make, Reply, Script, Step, Store};
use lab::{Cluster, DEADLINE, Lab, Process, scenario, wait_for};

use super::common::with_credentials;
use super::misbehaving::{answers_to_anything, listings_that_are_none};

/// How much more memory a process may have than it has when all is well.
const MEMORY: u64 = 96 * 1024 * 1024;

/// A store that is honest until it follows a script, and a server that archives there.
struct Scene<'lab> {
    store: Store<'lab>,
    script: Script,
}

impl<'lab> Scene<'lab> {
    fn new(lab: &'lab Lab) -> Result<Scene<'lab>> {
        let store = Store::start(lab, Make::GcsFake, "archive")?;
        let script = Script::before(&store)?;
        Ok(Scene { store, script })
    }

    fn url(&self) -> Result<String> {
        with_credentials(&self.store, &self.store.url_by(&self.script, "wal"))
    }
}

fn must_live(server: &Cluster, process: &Process) -> Result<()> {
    ensure!(process.is_alive(), "{process:?} has ended");
    ensure!(server.is_running()?, "the server has ended");
    Ok(())
}

#[test]
fn an_archiver_with_little_memory_survives_every_answer_and_archives_nothing_meanwhile()
-> Result<()> {
    scenario(|lab| {
        let scene = Scene::new(lab)?;
        let settings = lab.walden_settings_at(&scene.url()?)?;
        let server = lab.primary("primary", 1, settings.with("walden.archive_timeout", "2s"))?;
        server.archive_everything()?;
        let archiver = server.wait_for_process("archiver")?;
        lab.limit_memory(&archiver, MEMORY)?;
        let mut replies = answers_to_anything();
        replies.push(Reply::Zeros(200, u64::MAX));
        for (reply, entry) in replies.into_iter().zip(1..) {
            scene.script.follow(vec![Step::on("*", "", reply.clone())]);
            server.sql(&format!("insert into ledger(entry) values ({entry})"))?;
            let count = server.archiver("archived_count")?;
            let failures = server.archive_failures()?;
            server.switch_segment()?;
            wait_for("a failure", DEADLINE, || {
                must_live(&server, &archiver).with_context(|| format!("{reply:?}"))?;
                Ok((server.archive_failures()? > failures).then_some(()))
            })?;
            ensure!(
                server.archiver("archived_count")? == count,
                "{reply:?}: archived"
            );
            scene.script.follow(Vec::new());
            server
                .wait_until_archived()
                .with_context(|| format!("after {reply:?}"))?;
            must_live(&server, &archiver)?;
        }
        Ok(())
    })
}

#[test]
fn a_standby_with_little_memory_survives_every_answer_and_goes_on_afterwards() -> Result<()> {
    scenario(|lab| {
        let scene = Scene::new(lab)?;
        let settings = lab.walden_settings_at(&scene.url()?)?;
        let primary = lab.primary("primary", 1, settings.clone())?;
        let backup = primary.base_backup("backup")?;
        let settings = settings
            .with("walden.restore_library", "walden")
            .with("walden.restore_timeout", "2s");
        let standby = lab.restored("standby", &backup, settings)?;
        standby.touch("standby.signal")?;
        standby.start()?;
        let worker = standby.wait_for_process("walden")?;
        let startup = standby.wait_for_process("startup")?;
        for process in [&worker, &startup] {
            lab.limit_memory(process, MEMORY)?;
        }
        let mut replies = answers_to_anything();
        replies.push(Reply::Zeros(200, u64::MAX));
        for (reply, entry) in replies.into_iter().zip(1_u32..) {
            let mark = standby.mark()?;
            primary.sql(&format!("insert into ledger(entry) values ({entry})"))?;
            primary.archive_everything()?;
            scene.script.follow(vec![Step::on("*", "", reply.clone())]);
            standby
                .wait_for_log(mark, &["could not"])
                .with_context(|| format!("{reply:?}"))?;
            for process in [&worker, &startup] {
                must_live(&standby, process).with_context(|| format!("{reply:?}"))?;
            }
            scene.script.follow(Vec::new());
            standby
                .wait_for_sql("select count(*) from ledger", &entry.to_string())
                .with_context(|| format!("after {reply:?}"))?;
        }
        Ok(())
    })
}

#[test]
fn a_recovery_does_not_end_where_a_listing_is_none() -> Result<()> {
    scenario(|lab| {
        let scene = Scene::new(lab)?;
        let settings = lab.walden_settings_at(&scene.url()?)?;
        let primary = lab.primary("primary", 1, settings.clone())?;
        let backup = primary.base_backup("backup")?;
        primary.sql("insert into ledger(entry) values (1)")?;
        primary.archive_everything()?;
        let settings = settings
            .with("walden.restore_library", "walden")
            .with("walden.restore_timeout", "2s");
        for (reply, number) in listings_that_are_none().into_iter().zip(1..) {
            scene
                .script
                .follow(vec![Step::on("GET", "list-type=2", reply.clone())]);
            let name = format!("recovered{number}");
            let server = lab.restored(&name, &backup, settings.clone())?;
            server.touch("recovery.signal")?;
            let log = server
                .start_refused()
                .with_context(|| format!("{reply:?}"))?;
            ensure!(log.contains("could not"), "{reply:?}: {log}");
            ensure!(
                server.data().join("recovery.signal").exists(),
                "{reply:?}: it was promoted"
            );
            ensure!(
                scene.script.taken().first() > Some(&0),
                "{reply:?}: it was not asked"
            );
        }
        Ok(())
    })
}
