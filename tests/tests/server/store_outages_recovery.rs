//! The same outages as in `store_outages.rs`, met by a server that recovers, stands by or is promoted: nothing ends over
//! them but what was told to, and nothing is taken for the end of WAL.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::stores::{Behaviour, Make};
use lab::{Cluster, Lost, Mark, Settings, scenario, wait_for};
use rustix::process::Signal;

use crate::common::{
    SHORT_RESTORE_TIMEOUT, SMALL_MB, must_recover, primary_with, recovery_to, restored_since,
    standby, start_and_hold, wait_for_entries,
};
use crate::in_store::InStore;
use crate::store_outages::{
    MEMORY_LIMIT_MB, OUTAGE_WAIT_MAX, Trouble, at_once, lasting, must_be_bounded, must_be_readable,
};
use crate::witness::Witness;

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
fn recover_through(&(make, trouble): &(Make, Trouble)) -> Result<()> {
    scenario(|lab| {
        let (archive, proxy) = InStore::behind_a_proxy(lab, make)?;
        let lost = lost(&archive)?;
        let settings = patient(&archive, "10min")?;
        let recovered = recovery_to(lab, &lost.backup, settings, Lost::RESTORE_POINT)?;
        let startup = start_and_hold(&recovered, 3)?;
        let worker = recovered.wait_for_process("walden recovery worker")?;
        let mark = recovered.mark()?;
        let mut is_held = true;
        lasting(trouble, &proxy, || {
            if is_held {
                startup.signal(Signal::CONT)?;
                is_held = false;
            }
            ensure!(worker.is_alive(), "the worker died");
            must_be_in_recovery(&archive, &recovered)
        })?;
        must_be_readable(&recovered, mark, "recovery worker")?;
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
fn targeted_recovery_goes_on_after_a_while_without_the_store() -> Result<()> {
    let cases = [
        (Make::SeaweedFs, Trouble::Down),
        (Make::SeaweedFs, Trouble::Stalls),
        (Make::Azurite, Trouble::Down),
    ];
    at_once(&cases, recover_through)
}

#[test]
fn targeted_recovery_goes_on_after_a_while_in_which_the_store_refuses_to_do_anything() -> Result<()>
{
    let cases = [
        (Make::SeaweedFs, Trouble::Throttles),
        (Make::SeaweedFs, Trouble::Forbids),
    ];
    at_once(&cases, recover_through)
}

#[test]
fn targeted_recovery_goes_on_after_a_while_of_any_trouble_with_the_fake_of_googles_store()
-> Result<()> {
    let cases = Trouble::ALL.map(|trouble| (Make::GcsFake, trouble));
    at_once(&cases, recover_through)
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
fn stand_by_through(&trouble: &Trouble) -> Result<()> {
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
        lasting(trouble, &proxy, || {
            if !is_written {
                primary.write_segments(11..=30)?;
                is_written = true;
            }
            ensure!(worker.is_alive(), "the worker died");
            must_be_in_recovery(&archive, &follower)
        })?;
        must_be_readable(&follower, mark, "recovery worker")?;

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
fn a_standby_goes_on_after_a_while_of_any_trouble_with_its_store() -> Result<()> {
    at_once(&Trouble::ALL, stand_by_through)
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
