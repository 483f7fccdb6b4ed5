//! An object store that is down, stalls, throttles or forbids in the middle of archiving and of recovery: no file is
//! falsely noted as archived, nothing is promoted, nobody dies, the log stays readable, and all goes on afterwards.
//!
//! An outage takes [`SHORT`], and for each direction once [`LONG`]; what is promised is looked at all the while.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::stores::{Behaviour, Fault, Make, Proxy};
use lab::{Cluster, Lost, Mark, Process, Settings, scenario, wait_for};
use rustix::process::Signal;

use crate::common::{
    SHORT_RESTORE_TIMEOUT, SMALL_MB, must_recover, primary_with, recovery_of, recovery_to,
    restored_since, standby, start_and_hold, wait_for_entries,
};
use crate::in_store::InStore;
use crate::witness::Witness;

/// A long outage, longer than one request's patience, and than the server's between two attempts.
const LONG: Duration = Duration::from_secs(60);

/// A short one, longer than the silence that is worth a message.
const SHORT: Duration = Duration::from_secs(15);

/// Longer than any wait here.
const OUTAGE_WAIT_MAX: Duration = Duration::from_secs(120);

/// How many messages a minute of trouble may bring from Walden and from the server about it.
const MESSAGES_A_MINUTE_MAX: usize = 12;

/// `walden.memory_limit` here.
const MEMORY_LIMIT_MB: u64 = 64;

/// What a server process has in memory of its own without Walden, and the stacks of threads.
const OTHER_MEMORY_MB: u64 = 8;

/// What happens to the store.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Down,
    Stalls,
    Throttles,
    Forbids,
}

impl Trouble {
    fn behaviour(self) -> Behaviour {
        let behaviour = Behaviour::default();
        match self {
            Trouble::Down => behaviour.refuse(),
            Trouble::Stalls => behaviour.always(Fault::Stall),
            Trouble::Throttles => behaviour.always(Fault::Status(503)),
            Trouble::Forbids => behaviour.always(Fault::Status(403)),
        }
    }
}

/// Has trouble last so long, and looks at what is promised all the while.
fn lasting(
    trouble: Trouble,
    proxy: &Proxy,
    how_long: Duration,
    mut promised: impl FnMut() -> Result<()>,
) -> Result<()> {
    proxy.clear();
    proxy.behave(trouble.behaviour())?;
    let begun = Instant::now();
    wait_for("the end of an outage", OUTAGE_WAIT_MAX, || {
        promised().with_context(|| format!("{trouble:?}"))?;
        Ok((begun.elapsed() >= how_long).then_some(()))
    })?;
    // Who refuses connections sees no requests.
    let failed = proxy.requests();
    let failed = failed.iter().filter(|request| request.fault.is_some());
    let is_felt = matches!(trouble, Trouble::Down) || failed.count() > 0;
    ensure!(is_felt, "{trouble:?} was met by no request");
    proxy.behave(Behaviour::default())
}

/// Fails when the log has more to say of an outage than people want to read.
fn must_be_readable(server: &Cluster, since: Mark, backend: &str, outage: Duration) -> Result<()> {
    let mut entries = server.logged(since, &[])?;
    // What a client of the worker says has no process.
    entries.retain(|entry| entry.backend.is_empty() || entry.backend.contains(backend));
    entries.retain(|entry| !entry.text.starts_with("DEBUG"));
    let minutes = usize::try_from(outage.as_secs().div_ceil(60))?;
    let told: Vec<_> = entries.iter().map(|entry| entry.text.as_str()).collect();
    ensure!(
        !told.is_empty() && told.len() <= MESSAGES_A_MINUTE_MAX * minutes,
        "{} messages in {} s: {}",
        told.len(),
        outage.as_secs(),
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
fn must_be_bounded(process: &Process) -> Result<()> {
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
struct Archiving {
    make: Make,
    trouble: Trouble,
    outage: Duration,
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
        lasting(case.trouble, &proxy, case.outage, || {
            if !is_written {
                primary.write_segments(half + 1..=case.entries)?;
                is_written = true;
            }
            archive.must_hold_what_is_noted(&primary)?;
            ensure!(archiver.is_alive(), "the archiver died");
            ensure!(!primary.ready()?.is_empty(), "all is noted as archived");
            Ok(())
        })?;
        must_be_readable(&primary, mark, "archiver", case.outage)?;

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

/// The same for a short outage and small segments.
fn archive_through_a_short(make: Make, trouble: Trouble) -> Result<()> {
    archive_through(&Archiving {
        make,
        trouble,
        outage: SHORT,
        segment_mb: SMALL_MB,
        entries: 40,
    })
}

#[test]
fn archiving_goes_on_after_a_minute_without_the_store() -> Result<()> {
    archive_through(&Archiving {
        make: Make::SeaweedFs,
        trouble: Trouble::Down,
        outage: LONG,
        segment_mb: 16,
        entries: 16,
    })
}

#[test]
fn archiving_goes_on_after_a_minute_in_which_the_store_answers_nothing() -> Result<()> {
    archive_through(&Archiving {
        make: Make::SeaweedFs,
        trouble: Trouble::Stalls,
        outage: LONG,
        segment_mb: 16,
        entries: 16,
    })
}

#[test]
fn archiving_goes_on_after_a_store_was_down() -> Result<()> {
    archive_through_a_short(Make::SeaweedFs, Trouble::Down)
}

#[test]
fn archiving_goes_on_after_a_store_had_too_much_to_do() -> Result<()> {
    archive_through_a_short(Make::SeaweedFs, Trouble::Throttles)
}

#[test]
fn archiving_goes_on_after_a_store_has_forbidden_it() -> Result<()> {
    archive_through_a_short(Make::SeaweedFs, Trouble::Forbids)
}

#[test]
fn archiving_goes_on_after_azure_had_too_much_to_do() -> Result<()> {
    archive_through_a_short(Make::Azurite, Trouble::Throttles)
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

/// Segments that a recovery has before it: more than are fetched ahead.
const SEGMENTS: u32 = 40;

/// A lost primary whose archive is in a store.
fn lost(archive: &InStore<'_>) -> Result<Lost> {
    primary_with(archive.lab, SMALL_MB, archive.archiving()?)?.lose(SEGMENTS)
}

/// Settings of a recovery: not so much fetched ahead that the outage is not felt.
fn patient(archive: &InStore<'_>, restore_timeout: &str) -> Result<Settings> {
    Ok(archive
        .recovering()?
        .with("walden.restore_prefetch", "4")
        .with("walden.memory_limit", &format!("{MEMORY_LIMIT_MB}MB"))
        .with("walden.restore_timeout", restore_timeout))
}

/// Fails when a server in recovery has left it.
fn must_be_in_recovery(archive: &InStore<'_>, server: &Cluster) -> Result<()> {
    ensure!(server.is_running()?, "the server has ended");
    ensure!(
        !server.data().join("pg_wal/00000002.history").exists(),
        "there is a second timeline"
    );
    let signals = ["recovery.signal", "standby.signal"];
    let has = |name: &&str| server.data().join(name).exists();
    ensure!(signals.iter().any(has), "the server was promoted");
    let files = archive.files()?;
    ensure!(
        !files.contains("00000002.history"),
        "there is a second timeline in the archive"
    );
    Ok(())
}

/// The store is in trouble in the middle of a targeted recovery that may wait for longer than that.
fn recover_through(make: Make, trouble: Trouble, outage: Duration) -> Result<()> {
    scenario(|lab| {
        let (archive, proxy) = InStore::behind_a_proxy(lab, make)?;
        let lost = lost(&archive)?;
        let settings = patient(&archive, "10min")?;
        let recovered = recovery_to(lab, &lost.backup, settings, Lost::RESTORE_POINT)?;
        let startup = start_and_hold(&recovered, 3)?;
        let worker = recovered.wait_for_process("walden recovery worker")?;
        let mark = recovered.mark()?;
        let mut is_held = true;
        lasting(trouble, &proxy, outage, || {
            if is_held {
                startup.signal(Signal::CONT)?;
                is_held = false;
            }
            ensure!(worker.is_alive(), "the worker died");
            must_be_in_recovery(&archive, &recovered)
        })?;
        must_be_readable(&recovered, mark, "recovery worker", outage)?;
        let so_far = restored_since(&recovered, Mark::default())?.len();
        ensure!(so_far < lost.segments.len(), "recovery was over before");

        recovered.wait_until_promoted()?;
        assert_eq!(recovered.contents()?, lost.contents);
        ensure!(worker.is_alive(), "the worker died");
        must_be_bounded(&worker)?;
        archive.must_not_be_told(&recovered)
    })
}

#[test]
fn targeted_recovery_goes_on_after_a_minute_without_the_store() -> Result<()> {
    recover_through(Make::SeaweedFs, Trouble::Down, LONG)
}

#[test]
fn targeted_recovery_goes_on_after_a_store_has_answered_nothing() -> Result<()> {
    recover_through(Make::SeaweedFs, Trouble::Stalls, SHORT)
}

#[test]
fn targeted_recovery_goes_on_after_a_store_had_too_much_to_do() -> Result<()> {
    recover_through(Make::SeaweedFs, Trouble::Throttles, SHORT)
}

#[test]
fn targeted_recovery_goes_on_after_a_store_has_forbidden_it() -> Result<()> {
    recover_through(Make::SeaweedFs, Trouble::Forbids, SHORT)
}

#[test]
fn targeted_recovery_goes_on_after_azure_was_down() -> Result<()> {
    recover_through(Make::Azurite, Trouble::Down, SHORT)
}

/// The store is in trouble for longer than a targeted recovery may wait.
fn recovery_stops(trouble: Trouble) -> Result<()> {
    scenario(|lab| {
        let (archive, proxy) = InStore::behind_a_proxy(lab, Make::SeaweedFs)?;
        let lost = lost(&archive)?;
        let settings = patient(&archive, SHORT_RESTORE_TIMEOUT)?;
        let recovered = recovery_to(lab, &lost.backup, settings, Lost::RESTORE_POINT)?;
        let startup = start_and_hold(&recovered, 3)?;
        let mark = recovered.mark()?;
        proxy.behave(trouble.behaviour())?;
        startup.signal(Signal::CONT)?;
        recovered.wait_for_end()?;
        let fatal = recovered.logged(mark, &["FATAL", "could not restore file"])?;
        ensure!(!fatal.is_empty(), "{}", recovered.log(mark)?);
        ensure!(
            recovered.data().join("recovery.signal").exists(),
            "the server was promoted"
        );
        proxy.behave(Behaviour::default())?;
        must_recover(&recovered, &lost.contents)
    })
}

#[test]
fn targeted_recovery_stops_while_a_store_is_down_and_completes_after_a_restart() -> Result<()> {
    recovery_stops(Trouble::Down)
}

#[test]
fn targeted_recovery_stops_while_a_store_answers_nothing_and_completes_after_a_restart()
-> Result<()> {
    recovery_stops(Trouble::Stalls)
}

#[test]
fn targeted_recovery_stops_while_a_store_forbids_and_completes_after_a_restart() -> Result<()> {
    recovery_stops(Trouble::Forbids)
}

/// The store of a standby is in trouble, its primary's is not.
fn stand_by_through(trouble: Trouble, outage: Duration) -> Result<()> {
    scenario(|lab| {
        let (archive, proxy) = InStore::behind_a_proxy(lab, Make::SeaweedFs)?;
        let direct = archive.store.url("wal");
        let through = archive.store.url_through(&proxy, "wal");
        let direct = archive.location.replacen(&through, &direct, 1);
        let settings = archive.archiving()?.with("walden.archive", &direct);
        let primary = primary_with(lab, SMALL_MB, settings)?;
        let backup = primary.base_backup("backup")?;
        let follower = standby(lab, "standby", &backup, patient(&archive, "60s")?)?;
        primary.write_segments(1..=10)?;
        primary.wait_until_archived()?;
        wait_for_entries(&follower, 10)?;
        let worker = follower.wait_for_process("walden recovery worker")?;
        let mut witness = Witness::of(&follower)?;

        let mark = follower.mark()?;
        let mut is_written = false;
        lasting(trouble, &proxy, outage, || {
            if !is_written {
                primary.write_segments(11..=30)?;
                is_written = true;
            }
            ensure!(worker.is_alive(), "the worker died");
            must_be_in_recovery(&archive, &follower)
        })?;
        must_be_readable(&follower, mark, "recovery worker", outage)?;

        primary.wait_until_archived()?;
        wait_for_entries(&follower, 30)?;
        assert_eq!(follower.contents()?, primary.contents()?);
        assert_eq!(follower.sql("select pg_is_in_recovery()")?, "t");
        witness.check(&follower)?;
        let fatal = follower.logged(Mark::default(), &["FATAL"])?;
        ensure!(fatal.is_empty(), "{fatal:?}");
        ensure!(worker.is_alive(), "the worker died");
        archive.must_not_be_told(&follower)
    })
}

#[test]
fn a_standby_goes_on_after_a_minute_in_which_the_store_answers_nothing() -> Result<()> {
    stand_by_through(Trouble::Stalls, LONG)
}

#[test]
fn a_standby_goes_on_after_a_store_was_down() -> Result<()> {
    stand_by_through(Trouble::Down, SHORT)
}

#[test]
fn a_standby_goes_on_after_a_store_had_too_much_to_do() -> Result<()> {
    stand_by_through(Trouble::Throttles, SHORT)
}

#[test]
fn a_standby_goes_on_after_a_store_has_forbidden_it() -> Result<()> {
    stand_by_through(Trouble::Forbids, SHORT)
}

/// How long a promotion may take: three requests, each for a part of `walden.restore_timeout` only.
const PROMPTLY: Duration = Duration::from_secs(45);

/// A standby whose store is in trouble is promoted, and archives what it has to when that is over.
fn promote_in(trouble: Trouble) -> Result<()> {
    scenario(|lab| {
        let (archive, proxy) = InStore::behind_a_proxy(lab, Make::SeaweedFs)?;
        let primary = primary_with(lab, SMALL_MB, archive.archiving()?)?;
        let backup = primary.base_backup("backup")?;
        let follower = standby(lab, "standby", &backup, patient(&archive, "60s")?)?;
        primary.write_segments(1..=3)?;
        primary.wait_until_archived()?;
        wait_for_entries(&follower, 3)?;
        primary.stop(lab::Shutdown::Immediate)?;
        let mark = follower.mark()?;
        proxy.clear();
        proxy.behave(trouble.behaviour())?;
        match trouble {
            // Silence is worth no warning yet, but one request waits in it.
            Trouble::Stalls => wait_for("a request", OUTAGE_WAIT_MAX, || {
                Ok((!proxy.requests().is_empty()).then_some(()))
            })?,
            _ => drop(follower.wait_for_log(mark, &["WARNING", "could not restore file"])?),
        }
        let begun = Instant::now();
        follower.sql("select pg_promote(wait => false)")?;
        follower.wait_until_promoted()?;
        let took = begun.elapsed();
        ensure!(took < PROMPTLY, "{trouble:?}: promotion took {took:?}");
        follower.wait_for_log(mark, &["WARNING", "archived WAL may have been left behind"])?;

        proxy.behave(Behaviour::default())?;
        follower.archive_everything()?;
        let files = archive.files()?;
        ensure!(files.contains("00000002.history"), "{files:?}");
        archive.must_hold_what_is_noted(&follower)
    })
}

#[test]
fn a_promotion_does_not_wait_for_a_store_that_answers_nothing() -> Result<()> {
    promote_in(Trouble::Stalls)
}

#[test]
fn a_promotion_does_not_wait_for_a_store_that_is_down() -> Result<()> {
    promote_in(Trouble::Down)
}
