//! Recovery to a point in time, and a standby that lives from the archive alone, with archives in object stores.
//!
//! One scenario for all stores that keep their promises, compressed and encrypted, and one for a store that does not.
//! Google's store is the lab's fake: see `lab::stores`.

use anyhow::{Context, Result, ensure};
use lab::stores::Make;
use lab::{Cluster, Lab, Mark, Process, Settings, Shutdown, scenario, wait_until};

use crate::common::{
    SMALL_MB, must_recover, primary_with, recovery_to, standby, wait_for_entries, write,
};
use crate::in_store::{InStore, threads_without_signals};
use crate::sealed::Key;

/// Segments between the backup and the restore point.
const SEGMENTS: u32 = 16;

/// Which settings say that files are encrypted, and open them.
fn with_key(settings: Settings, key: Option<&Key>) -> Settings {
    match key {
        Some(key) => settings
            .with("walden.recipients", &key.public)
            .with("walden.identity_file", &key.text()),
        None => settings,
    }
}

/// Fails unless every WAL file there ends so, and these are among them.
fn must_hold(archive: &InStore<'_>, key: Option<&Key>, names: &[&str]) -> Result<()> {
    let files = archive.files()?;
    for name in names {
        ensure!(files.contains(*name), "{name} is not among {files:?}");
    }
    for (name, _) in archive.objects()? {
        if name.starts_with("walden.") {
            continue;
        }
        let is_sealed = archive.is_sealed(&name)?;
        ensure!(
            is_sealed == key.is_some(),
            "{name} is encrypted: {is_sealed}"
        );
    }
    Ok(())
}

/// Writes on a timeline that has just begun; answers with its first segment.
fn goes_on(server: &Cluster, entry: u32, timeline: &str) -> Result<String> {
    write(server, entry)?;
    let first = server.archive_everything()?;
    ensure!(first.starts_with(timeline), "{first}");
    ensure!(server.archive_failures()? == 0, "there were failures");
    Ok(first)
}

/// A standby follows its primary segment by segment, is promoted when that is lost, and archives its own timeline; then
/// another server is recovered to a point before all that, and archives its own, too.
fn recovery_and_a_standby(make: Make, is_encrypted: bool) -> Result<()> {
    scenario(|lab| {
        let archive = InStore::new(lab, make)?;
        recovery_and_a_standby_from(lab, &archive, is_encrypted)
    })
}

fn recovery_and_a_standby_from(lab: &Lab, archive: &InStore<'_>, is_encrypted: bool) -> Result<()> {
    let key = if is_encrypted {
        Some(Key::new(lab, "key")?)
    } else {
        None
    };
    // Who archives holds no identity.
    let settings = match &key {
        Some(key) => archive.archiving()?.with("walden.recipients", &key.public),
        None => archive.archiving()?,
    };
    // A store that has just been started may take some seconds over the first conditional creates; no failure is to be counted.
    let settings = settings.with("walden.archive_timeout", "1min");
    let primary = primary_with(lab, SMALL_MB, settings)?;
    let backup = primary.base_backup("backup")?;
    let opening = with_key(archive.recovering()?, key.as_ref());
    let follower = standby(lab, "standby", &backup, opening.clone())?;
    for entry in 1..=3 {
        write(&primary, entry)?;
        primary.archive_everything()?;
        wait_for_entries(&follower, entry)?;
    }
    primary.write_segments(4..=SEGMENTS)?;
    let before = primary.contents()?;
    primary.sql("select pg_create_restore_point('goal')")?;
    write(&primary, SEGMENTS + 1)?;
    primary.archive_everything()?;
    ensure!(primary.archive_failures()? == 0, "there were failures");
    wait_for_entries(&follower, SEGMENTS + 1)?;
    assert_eq!(follower.contents()?, primary.contents()?);
    primary.stop(Shutdown::Immediate)?;

    follower.sql("select pg_promote()")?;
    follower.wait_until_promoted()?;
    let first = goes_on(&follower, SEGMENTS + 2, "00000002")?;
    must_hold(archive, key.as_ref(), &["00000002.history", &first])?;
    follower.stop(Shutdown::Fast)?;

    let recovered = recovery_to(lab, &backup, opening, "goal")?;
    must_recover(&recovered, &before)?;
    let ahead = recovered.logged(Mark::default(), &["restored file", "(fetched ahead)"])?;
    ensure!(ahead.len() >= 4, "{} were fetched ahead", ahead.len());
    let first = goes_on(&recovered, SEGMENTS + 3, "00000003")?;
    must_hold(archive, key.as_ref(), &["00000003.history", &first])?;
    for server in [&primary, &follower, &recovered] {
        archive.must_not_be_told(server)?;
    }
    Ok(())
}

#[test]
fn point_in_time_recovery_and_a_standby_work_from_s3() -> Result<()> {
    recovery_and_a_standby(Make::SeaweedFs, false)
}

#[test]
fn point_in_time_recovery_and_a_standby_work_from_s3_with_tls() -> Result<()> {
    recovery_and_a_standby(Make::SeaweedFsTls, false)
}

#[test]
fn point_in_time_recovery_and_a_standby_work_from_azure() -> Result<()> {
    recovery_and_a_standby(Make::Azurite, false)
}

#[test]
fn point_in_time_recovery_and_a_standby_work_from_a_fake_of_google_cloud_storage() -> Result<()> {
    recovery_and_a_standby(Make::GcsFake, false)
}

#[test]
fn point_in_time_recovery_and_a_standby_work_from_s3_encrypted() -> Result<()> {
    recovery_and_a_standby(Make::SeaweedFs, true)
}

#[test]
fn point_in_time_recovery_and_a_standby_work_from_azure_encrypted() -> Result<()> {
    recovery_and_a_standby(Make::Azurite, true)
}

#[test]
fn no_thread_that_talks_to_a_store_can_be_sent_a_signal() -> Result<()> {
    scenario(|lab| {
        let mut archive = InStore::new(lab, Make::SeaweedFs)?;
        // A name has to be looked up, for which there is a thread of its own.
        archive.location = archive.location.replacen("127.0.0.1", "localhost", 1);
        let primary = primary_with(lab, SMALL_MB, archive.archiving()?)?;
        let backup = primary.base_backup("backup")?;
        let follower = standby(lab, "standby", &backup, archive.recovering()?)?;
        let archiver = primary.wait_for_process("archiver")?;
        let worker = follower.wait_for_process("walden recovery worker")?;
        let mut entry = 0;
        // The look-up's thread goes soon after a connection has been made: an archive of another name makes a new one.
        let renamed = archive.location.replacen("localhost", "LOCALHOST", 1);
        ensure!(renamed != archive.location, "{renamed}");
        for (server, process) in [(&primary, &archiver), (&follower, &worker)] {
            server.reload(|settings| settings.set("walden.archive", &renamed))?;
            let mut seen = Vec::new();
            wait_until("the threads that talk to a store", || {
                entry += 1;
                write(&primary, entry)?;
                primary.switch_segment()?;
                seen.extend(threads_without_signals(process)?);
                let has = |name: &str| seen.iter().any(|seen| seen.starts_with(name));
                Ok(has("walden store") && has("tokio"))
            })
            .with_context(|| format!("\"{}\" had {seen:?}", process.title))?;
        }
        primary.wait_until_archived()?;
        // Those of this program can be, which is to be seen.
        let own = Process {
            pid: std::process::id(),
            title: "the tests".to_owned(),
        };
        let seen = threads_without_signals(&own);
        ensure!(seen.is_err(), "the tests' own threads are {seen:?}");
        for server in [&primary, &follower] {
            for process in server.processes("")? {
                let may_have_threads = [archiver.pid, worker.pid].contains(&process.pid);
                // One that has just ended shows nothing.
                let threads = threads_without_signals(&process).unwrap_or_default();
                ensure!(
                    may_have_threads || threads.is_empty(),
                    "\"{}\" has threads {threads:?}",
                    process.title
                );
            }
        }
        Ok(())
    })
}

#[test]
fn a_store_that_overwrites_gets_nothing_until_somebody_chooses_it_and_then_the_log_warns()
-> Result<()> {
    scenario(|lab| {
        let archive = InStore::new(lab, Make::S3Rver)?;
        let server = primary_with(lab, SMALL_MB, archive.archiving()?)?;
        write(&server, 1)?;
        let segment = server.switch_segment()?;
        let refused = ["from being overwritten", "unsafe_overwrite=true"];
        server.wait_for_log(Mark::default(), &refused)?;
        ensure!(
            server.ready()?.contains(&segment),
            "it is noted as archived"
        );

        let chosen = format!("{}&unsafe_overwrite=true", archive.location);
        let mark = server.mark()?;
        server.reload(|settings| settings.set("walden.archive", &chosen))?;
        server.wait_until_archived()?;
        server.wait_for_log(
            mark,
            &["WARNING", "nothing keeps two servers from overwriting"],
        )?;
        must_hold(&archive, None, &[&segment])
    })
}
