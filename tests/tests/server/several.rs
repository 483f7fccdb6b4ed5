//! `walden.archive_libraries`: several archive modules at once, with Walden as their host.

use std::fs;

use anyhow::{Context, Result, ensure};
use lab::{ArchiveDir, Cluster, Contents, Lab, Mark, Settings, Shutdown, scenario, wait_until};

use crate::c_module::CModule;
use crate::common::{SMALL_MB, must_recover, primary_with, recovery_to, write};

/// A look takes about a tenth of a second.
const LOOKS_BETWEEN_SEGMENTS: u32 = 40;

const LIST: &str = "walden.archive_libraries";

/// A server that archives through the modules of `list`, Walden's own into `archive`.
fn hosting(lab: &Lab, archive: &ArchiveDir, list: &str) -> Result<Settings> {
    Ok(lab.walden_settings(archive)?.with(LIST, list))
}

/// The three archives of the issue: Walden's, contrib's module in C, the example in Rust.
struct Three {
    walden: ArchiveDir,
    contrib: ArchiveDir,
    example: ArchiveDir,
}

impl Three {
    fn new(lab: &Lab) -> Result<Three> {
        ensure!(
            lab.installation().has_library("basic_archive")?,
            "this server comes without contrib's basic_archive: name one that has it, in WALDEN_PG_BINDIR"
        );
        lab.require_library("basic_archive_rs")?;
        Ok(Three {
            walden: lab.archive("walden")?,
            contrib: lab.archive("contrib")?,
            example: lab.archive("example")?,
        })
    }

    fn settings(&self, lab: &Lab) -> Result<Settings> {
        let list = "walden, basic_archive, basic_archive_rs";
        Ok(hosting(lab, &self.walden, list)?
            .with("basic_archive.archive_directory", &self.contrib.text())
            .with("basic_archive_rs.archive_directory", &self.example.text()))
    }

    fn all(&self) -> [&ArchiveDir; 3] {
        [&self.walden, &self.contrib, &self.example]
    }
}

/// Recovers from a base backup, and fails unless the contents are what the lost server had.
fn recovers(
    lab: &Lab,
    backup: &std::path::Path,
    settings: Settings,
    expected: &Contents,
) -> Result<()> {
    let recovered = recovery_to(lab, backup, settings, "goal")?;
    must_recover(&recovered, expected)?;
    recovered.stop(Shutdown::Immediate)?;
    fs::remove_dir_all(recovered.home()).context("could not remove the recovered server")
}

#[test]
fn three_modules_at_once_acknowledge_together_and_each_archive_restores_the_server() -> Result<()> {
    scenario(|lab| {
        let three = Three::new(lab)?;
        let primary = primary_with(lab, SMALL_MB, three.settings(lab)?)?;
        let backup = primary.base_backup("backup")?;
        let archiver = primary.wait_for_process("archiver")?;
        primary.write_segments(1..=2)?;
        primary.archive_everything()?;

        // One of them fails for a while.
        let acknowledged = primary.archiver("archived_count")?;
        let away = lab.dir().join("away");
        fs::rename(three.contrib.path(), &away)?;
        write(&primary, 11)?;
        let waiting = primary.switch_segment()?;
        write(&primary, 12)?;
        primary.switch_segment()?;
        wait_until("two counted failures", || {
            Ok(primary.archive_failures()? >= 2)
        })?;
        for has_it in [&three.walden, &three.example] {
            has_it.wait_for(&waiting)?;
        }
        assert!(primary.ready()?.contains(&waiting), "it was acknowledged");
        assert_eq!(primary.archiver("archived_count")?, acknowledged);
        let words = ["WARNING", "\"basic_archive\" ", &waiting];
        primary.wait_for_log(Mark::default(), &words)?;

        fs::rename(&away, three.contrib.path())?;
        primary.sql("select pg_create_restore_point('goal')")?;
        let before = primary.contents()?;
        primary.sql("drop table ledger")?;
        primary.archive_everything()?;
        for archive in three.all() {
            assert!(archive.has(&waiting)?, "{:?}", archive.keys()?);
        }
        assert_eq!(primary.wait_for_process("archiver")?.pid, archiver.pid);
        primary.stop(Shutdown::Immediate)?;

        let plain = lab.settings();
        let through = |library: &str| {
            plain
                .clone()
                .with("shared_preload_libraries", "walden")
                .with("walden.restore_library", library)
        };
        let walden = through("walden").with("walden.archive", &three.walden.text());
        recovers(lab, &backup, walden, &before)?;
        let copy = format!("cp {}/%f %p", three.contrib.text());
        let by_copy = plain.clone().with("restore_command", &copy);
        recovers(lab, &backup, by_copy, &before)?;
        let example = through("basic_archive_rs")
            .with("basic_archive_rs.archive_directory", &three.example.text());
        recovers(lab, &backup, example, &before)
    })
}

/// Walden and two modules in C, `first` before it and `last` behind it.
struct Around {
    walden: ArchiveDir,
    first: CModule,
    last: CModule,
}

impl Around {
    fn new(lab: &Lab) -> Result<Around> {
        Ok(Around {
            walden: lab.archive("walden")?,
            first: CModule::build(lab, "first")?,
            last: CModule::build(lab, "last")?,
        })
    }

    fn settings(&self, lab: &Lab, list: &str) -> Result<Settings> {
        let settings = hosting(lab, &self.walden, list)?;
        Ok(self.last.found_with(self.first.found_with(settings)))
    }

    fn primary<'lab>(&self, lab: &'lab Lab) -> Result<Cluster<'lab>> {
        primary_with(lab, SMALL_MB, self.settings(lab, "first, walden, last")?)
    }
}

/// Writes, and answers with the oldest file that is not acknowledged: a fresh server may have one already.
fn first_waiting(primary: &Cluster) -> Result<String> {
    write(primary, 1)?;
    primary.switch_segment()?;
    let waiting = primary.ready()?;
    waiting.into_iter().next().context("nothing to archive")
}

/// Has everything archived now, by an archiver that may have given up for a minute or is still to be started.
fn wake(primary: &Cluster) -> Result<()> {
    let mut looks = 0;
    wait_until("no .ready file left", || {
        // A new segment wakes the archiver up, a connection the postmaster that is to start one.
        let wakes = match looks % LOOKS_BETWEEN_SEGMENTS {
            0 => "create table wake(); drop table wake; select pg_switch_wal()",
            _ => "select",
        };
        primary.sql(wakes)?;
        looks += 1;
        Ok(primary.ready()?.is_empty())
    })
}

/// Has a segment archived while `first` misbehaves, for at least `failures` counted failures; answers with it.
///
/// The others must have been handed it once, and keep it; it must not be acknowledged meanwhile.
fn a_segment_that_first_does_not_take(
    around: &Around,
    primary: &Cluster,
    mode: &str,
    failures: u64,
) -> Result<String> {
    write(primary, 1)?;
    primary.archive_everything()?;
    let archiver = primary.wait_for_process("archiver")?;
    let (counted, acknowledged) = (
        primary.archive_failures()?,
        primary.archiver("archived_count")?,
    );
    around.first.misbehave(mode)?;
    write(primary, 2)?;
    let segment = primary.switch_segment()?;
    wait_until("counted failures", || {
        Ok(primary.archive_failures()? >= counted + failures)
    })?;
    assert!(primary.ready()?.contains(&segment), "it was acknowledged");
    assert_eq!(primary.archiver("archived_count")?, acknowledged);
    assert!(around.walden.has(&segment)? && around.last.archive.has(&segment)?);
    assert!(!around.first.archive.has(&segment)?);

    around.first.behave()?;
    wake(primary)?;
    assert!(around.first.archive.has(&segment)?);
    let log = primary.log(Mark::default())?;
    assert_eq!(around.last.times_asked(&log, &segment), 1, "handed again");
    assert_eq!(primary.wait_for_process("archiver")?.pid, archiver.pid);
    let fatal = primary.logged(Mark::default(), &["FATAL"])?;
    assert!(fatal.is_empty(), "{fatal:?}");
    Ok(segment)
}

#[test]
fn an_error_in_one_module_is_named_and_keeps_no_file_from_the_others() -> Result<()> {
    scenario(|lab| {
        let around = Around::new(lab)?;
        let primary = around.primary(lab)?;
        let segment = a_segment_that_first_does_not_take(&around, &primary, "error", 2)?;
        let words = [
            "WARNING",
            "archive module \"first\" did not archive",
            &segment,
            "asked to raise",
        ];
        primary.wait_for_log(Mark::default(), &words)?;
        Ok(())
    })
}

#[test]
fn a_module_that_says_false_is_named_and_tried_again() -> Result<()> {
    scenario(|lab| {
        let around = Around::new(lab)?;
        let primary = around.primary(lab)?;
        let segment = a_segment_that_first_does_not_take(&around, &primary, "false", 2)?;
        let words = ["WARNING", "\"first\" did not archive", &segment];
        primary.wait_for_log(Mark::default(), &words)?;
        let log = primary.log(Mark::default())?;
        assert!(around.first.times_asked(&log, &segment) >= 3);
        Ok(())
    })
}

#[test]
fn a_module_that_is_not_configured_is_named_and_the_others_get_the_file() -> Result<()> {
    scenario(|lab| {
        let around = Around::new(lab)?;
        let primary = around.primary(lab)?;
        let segment = a_segment_that_first_does_not_take(&around, &primary, "unset", 3)?;
        let not_configured = ["WARNING", "archive module \"first\" is not configured"];
        let said = primary.logged(Mark::default(), &not_configured)?;
        assert_eq!(said.len(), 1, "once for all its attempts: {said:?}");
        if lab.installation().major() >= 17 {
            assert!(said[0].has(&["asked to be not configured"]), "{said:?}");
        }
        let log = primary.log(Mark::default())?;
        assert_eq!(around.first.times_asked(&log, &segment), 1);
        Ok(())
    })
}

#[test]
fn a_file_that_some_have_goes_to_waldens_new_archive_too_before_it_is_acknowledged() -> Result<()> {
    scenario(|lab| {
        let around = Around::new(lab)?;
        let elsewhere = lab.archive("elsewhere")?;
        let primary = around.primary(lab)?;
        primary.archive_everything()?;
        around.first.misbehave("false")?;
        let segment = first_waiting(&primary)?;
        around.walden.wait_for(&segment)?;
        primary.reload(|settings| settings.set("walden.archive", &elsewhere.text()))?;
        around.first.behave()?;
        wake(&primary)?;
        assert!(elsewhere.has(&segment)?, "{:?}", elsewhere.keys()?);
        let log = primary.log(Mark::default())?;
        assert_eq!(around.last.times_asked(&log, &segment), 1, "handed again");
        Ok(())
    })
}

#[test]
fn the_misbehaving_module_of_the_kit_does_not_hide_the_others() -> Result<()> {
    scenario(|lab| {
        lab.require_library("misbehave")?;
        let (walden, kept) = (lab.archive("walden")?, lab.archive("kept")?);
        let settings = hosting(lab, &walden, "misbehave, walden")?
            .with("misbehave.directory", &kept.text())
            .with("misbehave.mode", "error");
        let primary = primary_with(lab, SMALL_MB, settings)?;
        let segment = first_waiting(&primary)?;
        walden.wait_for(&segment)?;
        let words = ["WARNING", "\"misbehave\" did not archive", &segment];
        primary.wait_for_log(Mark::default(), &words)?;
        assert!(primary.ready()?.contains(&segment), "it was acknowledged");
        primary.reload(|settings| settings.set("misbehave.mode", "ok"))?;
        wake(&primary)?;
        assert!(kept.has(&segment)?);
        Ok(())
    })
}

#[test]
fn walden_may_be_left_out_and_needs_no_archive_then() -> Result<()> {
    scenario(|lab| {
        let around = Around::new(lab)?;
        let settings = around.settings(lab, "last")?.without("walden.archive");
        let primary = primary_with(lab, SMALL_MB, settings)?;
        write(&primary, 1)?;
        let segment = primary.archive_everything()?;
        assert!(around.last.archive.has(&segment)?);
        assert_eq!(around.walden.keys()?, Vec::<String>::new());
        assert_eq!(primary.archive_failures()?, 0);
        Ok(())
    })
}

#[test]
fn when_no_module_is_configured_the_server_says_so_and_counts_nothing() -> Result<()> {
    scenario(|lab| {
        let around = Around::new(lab)?;
        let settings = around.settings(lab, "walden, no_such_library")?;
        let primary = primary_with(lab, SMALL_MB, settings.with("walden.archive", ""))?;
        write(&primary, 1)?;
        primary.switch_segment()?;
        let mark = Mark::default();
        primary.wait_for_log(mark, &["yet archiving is not configured"])?;
        primary.wait_for_log(
            mark,
            &[
                "WARNING",
                "\"walden.archive\" is not set",
                "no_such_library",
            ],
        )?;
        assert_eq!(primary.archiver("archived_count, failed_count")?, "0|0");
        Ok(())
    })
}

#[test]
fn a_library_that_is_missing_is_named_once_and_the_others_go_on() -> Result<()> {
    scenario(|lab| {
        let around = Around::new(lab)?;
        let settings = around.settings(lab, "not_there_yet, walden, last")?;
        let primary = primary_with(lab, SMALL_MB, settings)?;
        let segment = first_waiting(&primary)?;
        wait_until("three counted failures", || {
            Ok(primary.archive_failures()? >= 3)
        })?;
        assert!(around.walden.has(&segment)? && around.last.archive.has(&segment)?);
        assert!(primary.ready()?.contains(&segment), "it was acknowledged");
        let words = [
            "WARNING",
            "could not load library \"not_there_yet\"",
            LIST,
            "HINT",
        ];
        let said = primary.logged(Mark::default(), &words)?;
        assert_eq!(said.len(), 1, "{said:?}");
        // Cured without a restart: it is tried again. All tests have one folder of libraries, so the name is this one's alone.
        let late = CModule::build(lab, "late")?;
        let put = lab.installation().library_dir().join("not_there_yet.so");
        fs::copy(late.found_at(), &put)?;
        let done = wake(&primary);
        fs::remove_file(&put)?;
        done?;
        assert!(late.archive.has(&segment)?);
        Ok(())
    })
}

#[test]
fn a_library_that_is_no_archive_module_is_named_with_the_servers_reason() -> Result<()> {
    scenario(|lab| {
        let walden = lab.archive("walden")?;
        let major = lab.installation().major();
        for (name, switch, words) in [
            (
                "bare",
                "NO_INIT",
                "have to define the symbol _PG_archive_module_init",
            ),
            ("jobless", "NO_JOBS", "must register an archive callback"),
            ("null", "NO_CALLBACKS", ""),
        ] {
            let module = CModule::build_as(lab, name, major, &[switch])?;
            let settings = hosting(lab, &walden, &format!("{name}, walden"))?;
            let server = lab.cluster(
                &format!("with-{name}"),
                SMALL_MB,
                module.found_with(settings),
            )?;
            server.start()?;
            server.switch_segment()?;
            server.sql("create table t()")?;
            server.switch_segment()?;
            let said = ["WARNING", "could not load library", name, LIST, words];
            server.wait_for_log(Mark::default(), &said)?;
            server.stop(Shutdown::Immediate)?;
        }
        Ok(())
    })
}

#[test]
fn a_list_that_cannot_be_used_archives_nothing_and_is_refused_with_the_cure() -> Result<()> {
    scenario(|lab| {
        let around = Around::new(lab)?;
        let settings = around.settings(lab, "walden, last, walden")?;
        let primary = primary_with(lab, SMALL_MB, settings)?;
        write(&primary, 1)?;
        primary.switch_segment()?;
        let words = [
            "WARNING",
            LIST,
            "lists library \"walden\" twice",
            "List each library once",
        ];
        primary.wait_for_log(Mark::default(), &words)?;
        assert_eq!(around.walden.keys()?, Vec::<String>::new());
        assert_eq!(primary.archiver("archived_count, failed_count")?, "0|0");
        Ok(())
    })
}

#[test]
fn a_change_of_the_list_restarts_the_archiver_which_lets_its_modules_end_last_one_first()
-> Result<()> {
    scenario(|lab| {
        let around = Around::new(lab)?;
        let primary = around.primary(lab)?;
        write(&primary, 1)?;
        primary.archive_everything()?;
        let archiver = primary.wait_for_process("archiver")?;
        let mark = primary.mark()?;
        primary.reload(|settings| settings.set(LIST, "walden, last"))?;
        write(&primary, 2)?;
        let segment = primary.switch_segment()?;
        wake(&primary)?;
        let words = ["LOG", "restarting archiver process because value of", LIST];
        primary.wait_for_log(mark, &words)?;
        assert_ne!(primary.wait_for_process("archiver")?.pid, archiver.pid);
        assert!(around.last.archive.has(&segment)? && around.walden.has(&segment)?);
        assert!(!around.first.archive.has(&segment)?);
        let log = primary.log(mark)?;
        assert_eq!(around.first.said(&log), ["shuts down"]);
        assert_eq!(around.last.said(&log)[..2], ["shuts down", "begins"]);
        let (last, first) = (log.find("last: shuts down"), log.find("first: shuts down"));
        assert!(last < first, "{log}");
        Ok(())
    })
}

#[test]
fn every_module_is_told_of_the_end_of_the_server_once() -> Result<()> {
    scenario(|lab| {
        let around = Around::new(lab)?;
        let primary = around.primary(lab)?;
        write(&primary, 1)?;
        primary.archive_everything()?;
        let mark = primary.mark()?;
        primary.stop(Shutdown::Fast)?;
        let log = primary.log(mark)?;
        for module in [&around.first, &around.last] {
            let ends = |line: &&&str| **line == "shuts down";
            assert_eq!(module.said(&log).iter().filter(ends).count(), 1, "{log}");
        }
        Ok(())
    })
}

#[test]
fn a_list_without_walden_as_archive_library_is_said_to_have_no_effect() -> Result<()> {
    scenario(|lab| {
        let around = Around::new(lab)?;
        let settings = around.settings(lab, "first, last")?;
        let server = lab.cluster("server", SMALL_MB, settings.with("archive_library", "last"))?;
        server.start()?;
        let words = ["WARNING", LIST, "has no effect", "HINT", "archive_library"];
        assert_eq!(server.logged(Mark::default(), &words)?.len(), 1);
        server.stop(Shutdown::Immediate)?;
        Ok(())
    })
}
