//! An object store that is down, stalls, throttles or forbids in the middle of archiving and of recovery: no file is
//! falsely noted as archived, nothing is promoted, nobody dies, the log stays readable, and all goes on afterwards.
//!
//! An outage takes [`outage`]; what is promised is looked at all the while. Outages of one kind of scenario run at once,
//! because they wait far more than they compute. Archiving is shown here, recovery in `store_outages_recovery.rs`.

use std::fmt::Debug;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::stores::{Behaviour, Fault, Make, Proxy};
use lab::{Cluster, Mark, Process, scenario, wait_for};

use crate::common::{SMALL_MB, at_full_length, must_recover, primary_with, recovery_of};
use crate::in_store::InStore;
use crate::witness::Witness;

/// How long an outage lasts: longer than one try of a request. With `WALDEN_TEST_WHOLE` it lasts as long as the server's pause
/// between two attempts to archive a file (`PGARCH_AUTOWAKE_INTERVAL`, 60 s) and the timeouts of archiving and restoring.
fn outage() -> Duration {
    Duration::from_secs(if at_full_length() { 60 } else { 25 })
}

/// Longer than any wait here.
pub(crate) const OUTAGE_WAIT_MAX: Duration = Duration::from_secs(120);

/// How many messages an outage may bring from Walden and from the server about it.
const MESSAGES_MAX: usize = 12;

/// `walden.memory_limit` of these tests, in megabytes.
pub(crate) const MEMORY_LIMIT_MB: u64 = 64;

/// What a server process has in memory of its own without Walden, and the stacks of threads.
const OTHER_MEMORY_MB: u64 = 8;

/// What happens to the store.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    Down,
    Stalls,
    Throttles,
    Forbids,
}

impl Trouble {
    pub(crate) const ALL: [Trouble; 4] = [
        Trouble::Down,
        Trouble::Stalls,
        Trouble::Throttles,
        Trouble::Forbids,
    ];

    pub(crate) fn behaviour(self) -> Behaviour {
        let behaviour = Behaviour::default();
        match self {
            Trouble::Down => behaviour.refuse(),
            Trouble::Stalls => behaviour.always(Fault::Stall),
            Trouble::Throttles => behaviour.always(Fault::Status(503)),
            Trouble::Forbids => behaviour.always(Fault::Status(403)),
        }
    }
}

/// Goes through all of these at the same time; what any of them fails with is told.
pub(crate) fn at_once<Case>(cases: &[Case], go: impl Fn(&Case) -> Result<()> + Sync) -> Result<()>
where
    Case: Debug + Sync,
{
    let go = &go;
    thread::scope(|scope| {
        let going = cases
            .iter()
            .map(|case| (case, scope.spawn(move || go(case))));
        // All of them are under way before the first one is waited for.
        let going: Vec<_> = going.collect();
        let mut failed = Vec::new();
        for (case, thread) in going {
            match thread.join() {
                Ok(Ok(())) => (),
                Ok(Err(error)) => failed.push(format!("{case:?}: {error:#}")),
                Err(_) => failed.push(format!("{case:?}: it panicked, as is told above")),
            }
        }
        ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
        Ok(())
    })
}

/// Has trouble last for [`outage`], and looks at what is promised all the while.
pub(crate) fn lasting(
    trouble: Trouble,
    proxy: &Proxy,
    mut promised: impl FnMut() -> Result<()>,
) -> Result<()> {
    proxy.clear();
    proxy.behave(trouble.behaviour())?;
    let begun = Instant::now();
    wait_for("the end of an outage", OUTAGE_WAIT_MAX, || {
        promised().with_context(|| format!("{trouble:?}"))?;
        Ok((begun.elapsed() >= outage()).then_some(()))
    })?;
    // Who refuses connections sees no requests.
    let failed = proxy.requests();
    let failed = failed.iter().filter(|request| request.fault.is_some());
    let is_felt = matches!(trouble, Trouble::Down) || failed.count() > 0;
    ensure!(is_felt, "{trouble:?} was met by no request");
    proxy.behave(Behaviour::default())
}

/// Fails when the log has more to say of an outage than people want to read.
pub(crate) fn must_be_readable(server: &Cluster, since: Mark, backend: &str) -> Result<()> {
    let mut entries = server.logged(since, &[])?;
    // What a client of the worker says has no process.
    entries.retain(|entry| entry.backend.is_empty() || entry.backend.contains(backend));
    entries.retain(|entry| !entry.text.starts_with("DEBUG"));
    let told: Vec<_> = entries.iter().map(|entry| entry.text.as_str()).collect();
    ensure!(
        !told.is_empty() && told.len() <= MESSAGES_MAX,
        "{} messages: {}",
        told.len(),
        told.join("\n")
    );
    Ok(())
}

/// A figure of a process's status, in kB.
fn status_kb(process: &Process, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid))?;
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(field));
    let value = value.with_context(|| format!("no {field} in the status of a process"))?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}

/// Fails when a process has ever had more memory than Walden may take, beside what it shares with others and what a
/// server process takes without Walden.
pub(crate) fn must_be_bounded(process: &Process) -> Result<()> {
    let shared_kb = status_kb(process, "RssShmem:")? + status_kb(process, "RssFile:")?;
    let peak_kb = status_kb(process, "VmHWM:")?;
    ensure!(
        peak_kb <= shared_kb + (MEMORY_LIMIT_MB + OTHER_MEMORY_MB) * 1024,
        "\"{}\" shares {shared_kb} kB and had {peak_kb} kB",
        process.title
    );
    Ok(())
}

/// What archiving through an outage needs to know.
#[derive(Debug)]
struct Archiving {
    make: Make,
    trouble: Trouble,
    segment_mb: u32,
    entries: u32,
}

/// A primary archives a backlog while its store is in trouble.
fn archive_through(case: &Archiving) -> Result<()> {
    scenario(|lab| {
        let (archive, proxy) = InStore::behind_a_proxy(lab, case.make)?;
        let settings = archive
            .archiving()?
            .with("walden.archive_timeout", "60s")
            .with("walden.compression", "none")
            .with("walden.memory_limit", &format!("{MEMORY_LIMIT_MB}MB"))
            .with("walden.archive_jobs", "8");
        let primary = primary_with(lab, case.segment_mb, settings)?;
        let archiver = primary.wait_for_process("archiver")?;
        let backup = primary.base_backup("backup")?;
        let mut witness = Witness::of(&primary)?;

        // So late that the outage finds requests under way.
        proxy.behave(Behaviour::default().latency(Duration::from_millis(300)))?;
        let half = case.entries / 2;
        primary.write_segments(1..=half)?;
        let mark = primary.mark()?;
        let mut is_written = false;
        lasting(case.trouble, &proxy, || {
            if !is_written {
                primary.write_segments(half + 1..=case.entries)?;
                is_written = true;
            }
            archive.must_hold_what_is_noted(&primary)?;
            ensure!(archiver.is_alive(), "the archiver died");
            ensure!(!primary.ready()?.is_empty(), "all is noted as archived");
            Ok(())
        })?;
        must_be_readable(&primary, mark, "archiver")?;

        primary.archive_everything()?;
        archive.must_hold_what_is_noted(&primary)?;
        ensure!(archiver.is_alive(), "the archiver died");
        witness.check(&primary)?;
        must_be_bounded(&archiver)?;
        archive.must_not_be_told(&primary)?;
        let names: Vec<_> = archive
            .objects()?
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let staged = names
            .iter()
            .filter(|name| name.starts_with("walden.staged."));
        ensure!(staged.count() == 0, "{names:?}");

        let before = primary.contents()?;
        primary.stop(lab::Shutdown::Immediate)?;
        must_recover(&recovery_of(lab, &backup, archive.recovering()?)?, &before)
    })
}

/// With segments of the usual size.
fn large(make: Make, trouble: Trouble) -> Archiving {
    Archiving {
        make,
        trouble,
        segment_mb: 16,
        entries: 16,
    }
}

/// With small ones, and more of them.
fn small(make: Make, trouble: Trouble) -> Archiving {
    Archiving {
        make,
        trouble,
        segment_mb: SMALL_MB,
        entries: 40,
    }
}

#[test]
fn archiving_goes_on_after_a_while_without_the_store() -> Result<()> {
    let cases = [
        large(Make::SeaweedFs, Trouble::Down),
        large(Make::SeaweedFs, Trouble::Stalls),
        small(Make::SeaweedFs, Trouble::Down),
    ];
    at_once(&cases, archive_through)
}

#[test]
fn archiving_goes_on_after_a_while_in_which_the_store_refuses_to_do_anything() -> Result<()> {
    let cases = [
        small(Make::SeaweedFs, Trouble::Throttles),
        small(Make::SeaweedFs, Trouble::Forbids),
        small(Make::Azurite, Trouble::Throttles),
    ];
    at_once(&cases, archive_through)
}

#[test]
fn archiving_goes_on_after_a_while_of_any_trouble_with_the_fake_of_googles_store() -> Result<()> {
    let cases = Trouble::ALL.map(|trouble| small(Make::GcsFake, trouble));
    at_once(&cases, archive_through)
}

#[test]
fn a_note_about_a_file_that_is_not_in_the_store_is_seen() -> Result<()> {
    scenario(|lab| {
        let archive = InStore::new(lab, Make::GcsFake)?;
        let lies = lab
            .settings()
            .with("archive_mode", "on")
            .with("archive_command", "true");
        let primary = primary_with(lab, SMALL_MB, lies)?;
        primary.write_segments(1..=1)?;
        primary.wait_until_archived()?;
        let seen = archive.must_hold_what_is_noted(&primary);
        ensure!(seen.is_err(), "false notes were not seen");
        Ok(())
    })
}
