//! `kill -9` of an archiver in the middle of an upload to an object store: no half object has a segment's name, at any
//! time, and all is archived in the end.

use anyhow::{Result, ensure};
use lab::stores::{Behaviour, Fault, Make, Proxy};
use lab::{Cluster, Lab, Shutdown, scenario, wait_until, wal_file};
use rustix::process::Signal;

use crate::common::{must_recover, primary_with, recovery_of};
use crate::in_store::InStore;

const MB: u64 = 1024 * 1024;

/// Fails unless every segment that is visible has all of its bytes; answers with how many there are.
fn must_be_whole(archive: &InStore<'_>, segment_mb: u32) -> Result<usize> {
    let mut count = 0;
    for (name, bytes) in archive.objects()? {
        let is_segment = name.len() == 24 && !name.contains('.');
        if is_segment {
            let whole = u64::from(segment_mb) * MB;
            ensure!(bytes == whole, "\"{name}\" has {bytes} bytes");
            count += 1;
        }
    }
    Ok(count)
}

/// Waits until a request has met the proxy's fault.
fn wait_until_stalled(proxy: &Proxy) -> Result<()> {
    wait_until("an upload to be under way", || {
        let requests = proxy.requests();
        Ok(requests.iter().any(|request| request.fault.is_some()))
    })
}

/// Kills the archiver, which has the server start anew by itself.
fn kill_archiver(primary: &Cluster) -> Result<()> {
    let mark = primary.mark()?;
    primary.wait_for_process("archiver")?.signal(Signal::KILL)?;
    primary.wait_for_log(mark, &["archiver", "terminated by signal 9"])?;
    Ok(())
}

/// Starts the server afresh after that: its old postmaster would wait a minute before it starts another archiver.
fn start_afresh(primary: &Cluster) -> Result<()> {
    primary.stop(Shutdown::Immediate)?;
    primary.start()
}

/// A primary that archives uncompressed, so that an object's size tells whether it is whole.
fn primary<'lab>(lab: &'lab Lab, archive: &InStore<'_>, segment_mb: u32) -> Result<Cluster<'lab>> {
    let settings = archive
        .archiving()?
        .with("walden.compression", "none")
        .with("walden.archive_timeout", "60s");
    primary_with(lab, segment_mb, settings)
}

/// Everything gets there, and can be recovered from.
fn must_get_there(
    lab: &Lab,
    archive: &InStore<'_>,
    primary: &Cluster,
    backup: &std::path::Path,
    segment_mb: u32,
) -> Result<()> {
    wait_until("everything to be archived", || {
        must_be_whole(archive, segment_mb)?;
        Ok(primary.ready()?.is_empty())
    })?;
    primary.archive_everything()?;
    archive.must_hold_what_is_noted(primary)?;
    must_be_whole(archive, segment_mb)?;
    let before = primary.contents()?;
    primary.stop(Shutdown::Immediate)?;
    must_recover(&recovery_of(lab, backup, archive.recovering()?)?, &before)
}

#[test]
fn killing_the_archiver_in_mid_upload_leaves_no_half_object() -> Result<()> {
    scenario(|lab| {
        let (archive, proxy) = InStore::behind_a_proxy(lab, Make::SeaweedFs)?;
        let primary = primary(lab, &archive, 16)?;
        let backup = primary.base_backup("backup")?;
        for round in 1..=3 {
            // What is left from the round before must not come between.
            primary.wait_until_archived()?;
            let there = must_be_whole(&archive, 16)?;
            proxy.clear();
            let stall = Behaviour::default().always(Fault::Stall);
            proxy.behave(stall.only("PUT", "/wal/0000000"))?;
            primary.write_segments(2 * round - 1..=2 * round)?;
            wait_until_stalled(&proxy)?;
            kill_archiver(&primary)?;
            assert_eq!(must_be_whole(&archive, 16)?, there);
            // What the dead archiver had sent goes on to the store, and breaks off there.
            proxy.behave(Behaviour::default())?;
            start_afresh(&primary)?;
            wait_until("an upload after the kill", || {
                Ok(must_be_whole(&archive, 16)? > there)
            })?;
        }
        must_get_there(lab, &archive, &primary, &backup, 16)
    })
}

#[test]
fn killing_the_archiver_while_a_store_takes_an_object_in_leaves_no_half_object() -> Result<()> {
    scenario(|lab| {
        let archive = InStore::new(lab, Make::SeaweedFs)?;
        let primary = primary(lab, &archive, 16)?;
        let backup = primary.base_backup("backup")?;
        for entry in 1..=3 {
            // It takes a connection, and as much as the kernel keeps for it.
            archive.store.pause()?;
            primary.write_segments(entry..=entry)?;
            primary.wait_for_process("archiver archiving")?;
            kill_archiver(&primary)?;
            archive.store.resume()?;
            start_afresh(&primary)?;
            wait_until("everything to be archived", || {
                must_be_whole(&archive, 16)?;
                Ok(primary.ready()?.is_empty())
            })?;
        }
        must_get_there(lab, &archive, &primary, &backup, 16)
    })
}

#[test]
fn killing_the_archiver_between_two_parts_leaves_no_half_object() -> Result<()> {
    scenario(|lab| {
        let (archive, proxy) = InStore::behind_a_proxy(lab, Make::SeaweedFs)?;
        let primary = primary(lab, &archive, 64)?;
        let backup = primary.base_backup("backup")?;
        let there = must_be_whole(&archive, 64)?;
        proxy.clear();
        let stall = Behaviour::default().always(Fault::Stall);
        proxy.behave(stall.only("PUT", "partNumber=2"))?;
        primary.write_segments(1..=1)?;
        wait_until_stalled(&proxy)?;
        kill_archiver(&primary)?;
        assert_eq!(must_be_whole(&archive, 64)?, there);
        let unfinished = archive.store.unfinished_uploads()?;
        ensure!(
            unfinished.iter().any(|key| key.contains("/walden.staged.")),
            "{unfinished:?}"
        );
        ensure!(
            !unfinished.iter().any(|key| wal_file(key).len() == 24),
            "{unfinished:?}"
        );
        proxy.behave(Behaviour::default())?;
        must_get_there(lab, &archive, &primary, &backup, 64)
    })
}
