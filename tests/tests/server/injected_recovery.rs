//! Panics, ERRORs and failures at every callback of a recovery module, with a standby that has to live through them.
//!
//! What is right: no file that nobody could give is taken for absent, the recovery worker keeps its process, the log
//! names the module's trouble, and a session on the standby does not notice. The same is asked of a module in C by
//! `injected_c.rs`; for targeted recovery see `misbehaving.rs`.

use anyhow::Result;
use lab::{Cluster, Lab, Mark, Settings, scenario, wait_until};
use rustix::process::Signal;

use crate::common::{SMALL_MB, primary_with, standby, wait_for_entries, write};
use crate::witness::{Culprit, RUST, Witness};

/// A standby whose recovery is the culprit's, and the primary that feeds its archive.
pub(crate) struct Pair<'lab> {
    pub(crate) primary: Cluster<'lab>,
    pub(crate) standby: Cluster<'lab>,
    pub(crate) witness: Witness,
    entry: u32,
}

/// Settings of a server that recovers with the culprit in all three jobs.
fn recovering(lab: &Lab, culprit: &Culprit, base: Settings) -> Result<Settings> {
    lab.require_library("walden")?;
    let library = culprit.library;
    let settings = base
        .with("shared_preload_libraries", "walden")
        .with("walden.restore_library", library)
        .with("walden.archive_cleanup_library", library)
        .with("walden.recovery_end_library", library);
    let archive = lab.dir().join("archive").display().to_string();
    Ok(culprit.with(settings, &archive, "jobs", "ok"))
}

/// A primary that archives with the module in Rust, which behaves.
pub(crate) fn archiving(lab: &Lab) -> Result<Cluster<'_>> {
    RUST.require(lab)?;
    let archive = lab.directory("archive")?.display().to_string();
    let settings = lab
        .settings()
        .with("archive_mode", "on")
        .with("archive_library", "misbehave");
    let settings = RUST.with(settings, &archive, "jobs", "ok");
    primary_with(lab, SMALL_MB, settings)
}

impl<'lab> Pair<'lab> {
    /// A pair in which everything is well; `base` is what the standby's settings start from.
    pub(crate) fn new(lab: &'lab Lab, culprit: &Culprit, base: Settings) -> Result<Pair<'lab>> {
        let primary = archiving(lab)?;
        let backup = primary.base_backup("backup")?;
        let settings = recovering(lab, culprit, base)?;
        let standby = standby(lab, "standby", &backup, settings)?;
        write(&primary, 1)?;
        primary.archive_everything()?;
        wait_for_entries(&standby, 1)?;
        let witness = Witness::of(&standby)?;
        Ok(Pair {
            primary,
            standby,
            witness,
            entry: 1,
        })
    }

    /// One more entry in the archive, in a segment of its own, which begins after a checkpoint.
    fn archive_one_more(&mut self) -> Result<()> {
        self.entry += 1;
        write(&self.primary, self.entry)?;
        self.primary.sql("checkpoint")?;
        self.primary.archive_everything()?;
        Ok(())
    }

    fn worker(&self) -> Result<u32> {
        Ok(self.standby.wait_for_process("walden recovery worker")?.pid)
    }

    /// The standby shows what it showed before, and the newest entry is not among it.
    fn check_waiting(&mut self) -> Result<()> {
        self.witness.check(&self.standby)?;
        assert_eq!(
            self.witness.ask("select count(*) from ledger")?,
            (self.entry - 1).to_string()
        );
        assert_eq!(self.witness.ask("select pg_is_in_recovery()")?, "t");
        Ok(())
    }

    /// The worker said this as a WARNING.
    fn wait_for_warning(&self, mark: Mark, words: &str) -> Result<()> {
        wait_until(&format!("a WARNING of the worker with {words:?}"), || {
            let said = self.standby.logged(mark, &["WARNING", words])?;
            Ok(said.iter().any(|entry| entry.backend.contains("walden")))
        })
    }
}

/// At `restore`: not taken for absent, asked again, restored once the module behaves.
pub(crate) fn at_restore(pair: &mut Pair, culprit: &Culprit) -> Result<()> {
    let worker = pair.worker()?;
    for (way, words) in culprit.ways {
        let mark = pair.standby.mark()?;
        culprit.at(&pair.standby, "restore", way)?;
        pair.archive_one_more()?;
        pair.wait_for_warning(mark, words)?;
        pair.check_waiting()?;
        culprit.behaves(&pair.standby)?;
        wait_for_entries(&pair.standby, pair.entry)?;
        assert_eq!(pair.worker()?, worker, "the worker died: {way}");
    }
    pair.witness.check(&pair.standby)
}

/// At `archive_cleanup`: a WARNING, and the next restartpoint asks again.
pub(crate) fn at_archive_cleanup(pair: &mut Pair, culprit: &Culprit) -> Result<()> {
    let worker = pair.worker()?;
    for (way, words) in culprit.ways {
        let mark = pair.standby.mark()?;
        culprit.at(&pair.standby, "archive_cleanup", way)?;
        pair.archive_one_more()?;
        wait_for_entries(&pair.standby, pair.entry)?;
        pair.standby.sql("checkpoint")?;
        pair.wait_for_warning(mark, words)?;
        let failed = ["WARNING", "archive_cleanup_command", "exit code 1"];
        pair.standby.wait_for_log(mark, &failed)?;
        pair.witness.check(&pair.standby)?;
        culprit.behaves(&pair.standby)?;
        assert_eq!(pair.worker()?, worker, "the worker died: {way}");
    }
    let mark = pair.standby.mark()?;
    pair.archive_one_more()?;
    wait_for_entries(&pair.standby, pair.entry)?;
    pair.standby.sql("checkpoint")?;
    let warnings = pair.standby.logged(mark, &["WARNING"])?;
    assert!(warnings.is_empty(), "{warnings:?}");
    pair.witness.check(&pair.standby)
}

/// At `recovery_end`: a WARNING, and the server is promoted all the same. Uses the pair up: one promotion a way.
pub(crate) fn at_recovery_end(lab: &Lab, culprit: &Culprit, base: &Settings) -> Result<()> {
    let primary = archiving(lab)?;
    let backup = primary.base_backup("backup")?;
    write(&primary, 1)?;
    primary.archive_everything()?;
    for (way, words) in culprit.ways {
        let settings = recovering(lab, culprit, base.clone())?;
        let standby = standby(lab, way, &backup, settings)?;
        wait_for_entries(&standby, 1)?;
        let mut witness = Witness::of(&standby)?;
        culprit.at(&standby, "recovery_end", way)?;
        let worker = standby.wait_for_process("walden recovery worker")?;
        standby.sql("select pg_promote(wait => false)")?;
        standby.wait_until_promoted()?;
        standby.wait_for_log(Mark::default(), &["WARNING", words])?;
        write(&standby, 2)?;
        witness.check(&standby)?;
        assert!(worker.is_alive(), "the worker died: {way}");
    }
    Ok(())
}

/// At `shutdown`: the worker that was told to end ends, and its successor restores.
pub(crate) fn at_shutdown(pair: &mut Pair, culprit: &Culprit) -> Result<()> {
    for (way, words) in culprit.ways {
        let worker = pair.standby.wait_for_process("walden recovery worker")?;
        let mark = pair.standby.mark()?;
        culprit.at(&pair.standby, "shutdown", way)?;
        worker.signal(Signal::TERM)?;
        wait_until("the worker to end", || Ok(!worker.is_alive()))?;
        // While a process ends the server makes FATAL of an ERROR, which nobody but the server catches there.
        let level = match *way {
            "error" | "late" => "FATAL",
            _ => "WARNING",
        };
        pair.standby.wait_for_log(mark, &[level, words])?;
        let ended = ["walden recovery worker", "exited with exit code 1"];
        pair.standby.wait_for_log(mark, &ended)?;
        culprit.behaves(&pair.standby)?;
        pair.archive_one_more()?;
        wait_for_entries(&pair.standby, pair.entry)?;
        pair.witness.check(&pair.standby)?;
    }
    Ok(())
}

/// At `load` and at `startup` as the host sees them: the library is named, the worker goes on without it, and loads it
/// when it behaves.
pub(crate) fn at_load(pair: &mut Pair, culprit: &Culprit, place: &str) -> Result<()> {
    let refused = format!(
        "could not load library \"{}\" of \"walden.restore_library\"",
        culprit.library
    );
    for (way, words) in culprit.ways {
        let before = pair.standby.wait_for_process("walden recovery worker")?;
        let mark = pair.standby.mark()?;
        culprit.at(&pair.standby, place, way)?;
        before.signal(Signal::TERM)?;
        wait_until("the worker to end", || Ok(!before.is_alive()))?;
        pair.standby
            .wait_for_log(mark, &["WARNING", &refused, words])?;
        let worker = pair.worker()?;
        pair.archive_one_more()?;
        pair.check_waiting()?;
        culprit.behaves(&pair.standby)?;
        wait_for_entries(&pair.standby, pair.entry)?;
        assert_eq!(pair.worker()?, worker, "the worker died: {way}");
        pair.witness.check(&pair.standby)?;
    }
    Ok(())
}

#[test]
fn whatever_happens_in_restore_the_standby_asks_again_and_the_worker_lives() -> Result<()> {
    scenario(|lab| at_restore(&mut Pair::new(lab, &RUST, lab.settings())?, &RUST))
}

#[test]
fn whatever_happens_in_archive_cleanup_is_a_warning_and_the_worker_lives() -> Result<()> {
    scenario(|lab| at_archive_cleanup(&mut Pair::new(lab, &RUST, lab.settings())?, &RUST))
}

#[test]
fn whatever_happens_in_recovery_end_is_a_warning_and_the_standby_is_promoted() -> Result<()> {
    scenario(|lab| at_recovery_end(lab, &RUST, &lab.settings()))
}

#[test]
fn whatever_happens_at_shutdown_the_next_worker_restores() -> Result<()> {
    scenario(|lab| at_shutdown(&mut Pair::new(lab, &RUST, lab.settings())?, &RUST))
}

#[test]
fn whatever_happens_while_loading_the_worker_lives_and_loads_the_library_later() -> Result<()> {
    scenario(|lab| at_load(&mut Pair::new(lab, &RUST, lab.settings())?, &RUST, "load"))
}

#[test]
fn whatever_happens_at_startup_the_next_file_starts_the_module_again() -> Result<()> {
    scenario(|lab| {
        let mut pair = Pair::new(lab, &RUST, lab.settings())?;
        let worker = pair.worker()?;
        for (way, words) in RUST.ways {
            // A panic costs the module its state, so that it has to start again: the kit starts it at its next job.
            let mark = pair.standby.mark()?;
            RUST.at(&pair.standby, "restore", "panic")?;
            pair.archive_one_more()?;
            pair.wait_for_warning(mark, "asked to panic during restoring")?;
            RUST.at(&pair.standby, "startup", way)?;
            pair.wait_for_warning(mark, words)?;
            pair.check_waiting()?;
            RUST.behaves(&pair.standby)?;
            wait_for_entries(&pair.standby, pair.entry)?;
            assert_eq!(pair.worker()?, worker, "the worker died: {way}");
        }
        pair.witness.check(&pair.standby)
    })
}
