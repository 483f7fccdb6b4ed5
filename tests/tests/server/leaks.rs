//! Nothing leaks when a module fails a thousand times: not memory, not descriptors, not threads.
//!
//! The process is measured after a hundred failures, which fill caches and buffers, and again after a thousand more.
//! Memory is what the process has written to and shares with nobody (`RssAnon` in `/proc/PID/status`): whatever the
//! module, the kit, the host or the server forgets shows there. That the measurement sees a leak is shown by a module
//! that has one.
//!
//! How a thousand failures are had within seconds: in the archiver SIGUSR1 ends the pause between two attempts and
//! the wait after the third (pgarch.c, `pgarch_ArchiverCopyLoop`: `pg_usleep` and the latch, 15 to 18); the
//! recovery worker is asked by clients of the test's own.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lab::{Cluster, DEADLINE, Lab, Process, run_for, scenario, wait_until};
use rustix::process::Signal;

use crate::common::write;
use crate::injected_c::{C, compiled};
use crate::injected_recovery::{Pair, archiving};
use crate::witness::{Culprit, RUST, Witness};

/// Failures before the first measurement.
const WARM_UP: u64 = 100;
/// Failures between the two.
const REPEATS: u64 = 1000;
/// How often growth is measured at most.
const ROUNDS_MAX: u32 = 3;
/// How much more memory may be in use afterwards: a leak of more than 64 bytes a call is too much. The allocator's own
/// housekeeping makes up to 16 kB of it.
const GROWTH_MAX_KB: u64 = 64;

/// What a process has in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Usage {
    memory_kb: u64,
    descriptors: usize,
    threads: usize,
}

impl Usage {
    fn of(process: &Process) -> Result<Usage> {
        let proc = format!("/proc/{}", process.pid);
        let status = fs::read_to_string(format!("{proc}/status"))?;
        let memory = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .context("no RssAnon")?;
        Ok(Usage {
            memory_kb: memory.trim().trim_end_matches(" kB").parse()?,
            descriptors: fs::read_dir(format!("{proc}/fd"))?.count(),
            threads: fs::read_dir(format!("{proc}/task"))?.count(),
        })
    }
}

/// Has the process fail, first to warm up and then in earnest, and answers with by how many kilobytes it grew; fails
/// when it has more descriptors or threads than before.
///
/// Growth is measured up to three times, and the least counts: an allocator may take a large piece once, a leak takes
/// its share every time.
fn growth_kb(process: &Process, mut fail: impl FnMut(u64) -> Result<()>) -> Result<u64> {
    fail(WARM_UP)?;
    let mut least = u64::MAX;
    for _ in 0..ROUNDS_MAX {
        let before = Usage::of(process)?;
        fail(REPEATS)?;
        let mut after = Usage::of(process)?;
        // The standby's own requests come and go meanwhile: a leak stays.
        wait_until("as few descriptors and threads as before", || {
            after = Usage::of(process)?;
            Ok(after.descriptors <= before.descriptors && after.threads <= before.threads)
        })
        .with_context(|| format!("{before:?} has become {after:?}"))?;
        ensure!(process.is_alive(), "the process died");
        least = least.min(after.memory_kb.saturating_sub(before.memory_kb));
        if least <= GROWTH_MAX_KB {
            break;
        }
    }
    Ok(least)
}

/// Wakes the archiver until `count` has grown by `times`.
fn wake(archiver: &Process, times: u64, mut count: impl FnMut() -> Result<u64>) -> Result<()> {
    let begun = Instant::now();
    let enough = count()? + times;
    loop {
        archiver.signal(Signal::USR1)?;
        let so_far = count()?;
        if so_far >= enough {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < DEADLINE,
            "{} of {times} failures are still to come",
            enough - so_far
        );
    }
}

/// By how much the archiver grows when the module misbehaves at `archive_file`.
fn growth_at_archive_file(
    primary: &Cluster,
    witness: &mut Witness,
    archiver: &Process,
    way: &str,
) -> Result<u64> {
    RUST.at(primary, "archive_file", way)?;
    growth_kb(archiver, |times| {
        wake(archiver, times, || {
            let count = witness.ask("select failed_count from pg_stat_archiver")?;
            Ok(count.parse()?)
        })
    })
}

/// By how much the archiver grows when the module misbehaves at `check_configured`, which nothing counts but the log.
fn growth_at_check(
    primary: &Cluster,
    witness: &mut Witness,
    archiver: &Process,
    way: &str,
) -> Result<u64> {
    RUST.at(primary, "check_configured", way)?;
    let since = primary.mark()?;
    let mut asked = 0_u32;
    let mut counted = 0;
    growth_kb(archiver, |times| {
        wake(archiver, times, || {
            // An answer gives the archiver time for its own; reading the log takes longer.
            witness.ask("select 1")?;
            asked += 1;
            if asked.is_multiple_of(100) {
                let log = primary.log(since)?;
                counted = log
                    .matches("enabled, yet archiving is not configured")
                    .count();
            }
            Ok(counted.try_into()?)
        })
    })
}

/// A primary whose archiver has something to archive.
fn with_archiver(
    lab: &Lab,
    body: impl FnOnce(&Cluster, &mut Witness, &Process) -> Result<()>,
) -> Result<()> {
    let primary = archiving(lab)?;
    let archiver = primary.wait_for_process("archiver")?;
    primary.archive_everything()?;
    let mut witness = Witness::of(&primary)?;
    RUST.at(&primary, "archive_file", "no")?;
    write(&primary, 1)?;
    primary.switch_segment()?;
    body(&primary, &mut witness, &archiver)?;
    RUST.behaves(&primary)?;
    primary.archive_everything()?;
    assert_eq!(primary.wait_for_process("archiver")?.pid, archiver.pid);
    witness.check(&primary)
}

#[test]
fn an_archiver_whose_module_fails_a_thousand_times_does_not_grow() -> Result<()> {
    scenario(|lab| {
        with_archiver(lab, |primary, witness, archiver| {
            for (way, _) in RUST.ways {
                let grown = growth_at_archive_file(primary, witness, archiver, way)?;
                assert!(grown <= GROWTH_MAX_KB, "archive_file, {way}: {grown} kB");
                let grown = growth_at_check(primary, witness, archiver, way)?;
                assert!(
                    grown <= GROWTH_MAX_KB,
                    "check_configured, {way}: {grown} kB"
                );
            }
            Ok(())
        })
    })
}

#[test]
fn a_leak_of_a_quarter_kilobyte_a_call_in_the_archiver_is_seen() -> Result<()> {
    scenario(|lab| {
        with_archiver(lab, |primary, witness, archiver| {
            let grown = growth_at_archive_file(primary, witness, archiver, "leak")?;
            assert!(grown > GROWTH_MAX_KB, "archive_file: {grown} kB");
            let grown = growth_at_check(primary, witness, archiver, "leak")?;
            assert!(grown > GROWTH_MAX_KB, "check_configured: {grown} kB");
            Ok(())
        })
    })
}

/// By how much the recovery worker grows when clients of the test's own ask in vain.
fn growth_of_worker(
    lab: &Lab,
    pair: &mut Pair,
    culprit: &Culprit,
    place: &str,
    way: &str,
) -> Result<u64> {
    let worker = pair.standby.wait_for_process("walden recovery worker")?;
    culprit.at(&pair.standby, place, way)?;
    // As the library spells it for the server, with a file that no archive has.
    let (call, failed) = match place {
        "archive_cleanup" => (
            format!("archive-cleanup --library {} {:024}", culprit.library, 0),
            "1",
        ),
        // Whoever is not the server's startup process is told apart what "could not tell" is.
        _ => (
            format!(
                "restore --library {} 0000000100000000000000F0 pg_wal/asked_by_a_test {:024}",
                culprit.library, 0
            ),
            "200",
        ),
    };
    let grown = growth_kb(&worker, |times| {
        let mut clients = lab.server_command("sh");
        clients
            .current_dir(pair.standby.data())
            .arg("-c")
            .arg(format!(
                "for i in $(seq {times}); do walden {call} 2>/dev/null; echo $?; done"
            ));
        let answers = run_for(&mut clients, DEADLINE)?.success()?;
        let told = answers.lines().filter(|status| *status == failed).count();
        ensure!(
            u64::try_from(told)? == times && answers.lines().count() == told,
            "not all of {times} clients ended with {failed}: {answers}"
        );
        Ok(())
    })?;
    pair.witness.check(&pair.standby)?;
    Ok(grown)
}

#[test]
fn a_recovery_worker_whose_module_fails_a_thousand_times_does_not_grow() -> Result<()> {
    scenario(|lab| {
        let mut pair = Pair::new(lab, &RUST, lab.settings())?;
        for place in ["restore", "archive_cleanup"] {
            for (way, _) in RUST.ways {
                let grown = growth_of_worker(lab, &mut pair, &RUST, place, way)?;
                assert!(grown <= GROWTH_MAX_KB, "{place}, {way}: {grown} kB");
            }
        }
        Ok(())
    })
}

#[test]
fn a_leak_of_a_quarter_kilobyte_a_call_in_the_recovery_worker_is_seen() -> Result<()> {
    scenario(|lab| {
        let mut pair = Pair::new(lab, &RUST, lab.settings())?;
        for place in ["restore", "archive_cleanup"] {
            let grown = growth_of_worker(lab, &mut pair, &RUST, place, "leak")?;
            assert!(grown > GROWTH_MAX_KB, "{place}: {grown} kB");
        }
        Ok(())
    })
}

#[test]
fn a_recovery_worker_whose_c_module_raises_a_thousand_errors_does_not_grow() -> Result<()> {
    scenario(|lab| {
        let mut pair = Pair::new(lab, &C, compiled(lab, C.library)?)?;
        for place in ["restore", "archive_cleanup"] {
            for (way, _) in C.ways {
                let grown = growth_of_worker(lab, &mut pair, &C, place, way)?;
                assert!(grown <= GROWTH_MAX_KB, "{place}, {way}: {grown} kB");
            }
        }
        Ok(())
    })
}

#[test]
fn a_recovery_worker_that_cannot_start_a_c_module_a_thousand_times_does_not_grow() -> Result<()> {
    scenario(|lab| {
        let mut pair = Pair::new(lab, &C, compiled(lab, C.library)?)?;
        let loaded = pair.standby.wait_for_process("walden recovery worker")?;
        C.at(&pair.standby, "startup", "error")?;
        loaded.signal(Signal::TERM)?;
        wait_until("the worker to end", || Ok(!loaded.is_alive()))?;
        let grown = growth_of_worker(lab, &mut pair, &C, "startup", "error")?;
        assert!(grown <= GROWTH_MAX_KB, "startup: {grown} kB");
        Ok(())
    })
}
