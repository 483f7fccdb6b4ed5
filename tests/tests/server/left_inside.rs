//! A standby that archives what it receives (`archive_mode = always`), and whose upstream server leaves the timeline in the
//! middle of a segment: it hands that segment over under a complete name.

use anyhow::Result;
use lab::{ArchiveDir, Cluster, Lab, Mark, Shutdown, run, scenario, wait_until};

use crate::common::{must_recover, recovery_settings, wait_for_entries, write};
use crate::faces::{current_segment, plain, primary, promote, streaming};

/// Two standbys, the second behind the first; the primary is lost in the middle of a segment, and the first promoted.
struct Chain<'lab> {
    old: Cluster<'lab>,
    new: Cluster<'lab>,
    /// Archives what it receives.
    behind: Cluster<'lab>,
    backup: std::path::PathBuf,
    /// The segment that was left.
    fork: String,
}

fn chain<'lab>(
    lab: &'lab Lab,
    archive: &ArchiveDir,
    of_behind: &ArchiveDir,
) -> Result<Chain<'lab>> {
    let old = primary(lab, archive)?;
    let backup = old.base_backup("backup")?;
    let new = streaming(lab, "new", &backup, &old, plain(lab, archive)?)?;
    let settings = plain(lab, of_behind)?.with("archive_mode", "always");
    let behind = streaming(lab, "behind", &backup, &new, settings)?;
    old.write_segments(1..=2)?;
    // In the middle of a segment, and behind a long record.
    write(&old, 3)?;
    wait_for_entries(&behind, 3)?;
    let fork = current_segment(&old)?;
    old.wait_until_archived()?;
    old.stop(Shutdown::Immediate)?;
    promote(&new)?;
    write(&new, 4)?;
    wait_for_entries(&behind, 4)?;
    new.write_segments(5..=6)?;
    wait_for_entries(&behind, 6)?;
    new.wait_until_archived()?;
    let chain = Chain {
        old,
        new,
        behind,
        backup,
        fork,
    };
    chain.must_have_archived(6)?;
    Ok(chain)
}

impl Chain<'_> {
    /// The standby has archived everything that it has, and nothing was refused.
    fn must_have_archived(&self, entry: u32) -> Result<()> {
        wait_for_entries(&self.behind, entry)?;
        let last = current_segment(&self.new)?;
        wait_until("the standby to archive what it has received", || {
            let archived = self.behind.archiver("last_archived_wal")?;
            Ok(archived.starts_with("00000002")
                && self.behind.ready()?.iter().all(|name| *name >= last))
        })?;
        assert_eq!(self.behind.archive_failures()?, 0);
        assert_eq!(self.new.archive_failures()?, 0);
        Ok(())
    }
}

#[test]
fn a_standby_that_archives_for_itself_stores_the_segment_that_was_left_as_a_partial_one()
-> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let own = lab.archive("own")?;
        let chain = chain(lab, &archive, &own)?;
        let stored = format!("archived file \"{0}\" as \"{0}.partial\"", chain.fork);
        chain
            .behind
            .wait_for_log(Mark::default(), &["LOG", &stored])?;
        assert!(own.has(&format!("{}.partial", chain.fork))?);
        assert!(!own.has(&chain.fork)?, "{:?}", own.files()?);
        // What it has archived by itself is an archive to recover from.
        chain.new.archive_everything()?;
        let expected = chain.new.contents()?;
        chain.new.stop(Shutdown::Fast)?;
        wait_until("the standby to archive the last segment", || {
            let last = archive.segments()?.pop();
            Ok(own.segments()?.pop() == last)
        })?;
        chain.behind.stop(Shutdown::Fast)?;
        let recovered = lab.restored("recovered", &chain.backup, recovery_settings(lab, &own)?)?;
        recovered.touch("recovery.signal")?;
        must_recover(&recovered, &expected)
    })
}

#[test]
fn a_shared_archive_takes_the_segment_that_was_left_from_whoever_completes_it() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let chain = chain(lab, &archive, &archive)?;
        assert!(archive.has(&format!("{}.partial", chain.fork))?);
        assert!(!archive.has(&chain.fork)?, "{:?}", archive.files()?);
        // The old primary comes back, knows of nothing, and completes it.
        chain.old.start()?;
        chain.old.switch_segment()?;
        chain.old.wait_until_archived()?;
        assert_eq!(chain.old.archive_failures()?, 0);
        assert!(archive.has(&chain.fork)?);
        // That does not concern those who have left.
        write(&chain.new, 7)?;
        chain.new.archive_everything()?;
        chain.must_have_archived(7)
    })
}

#[test]
fn the_segment_that_a_server_writes_is_not_archived_before_it_is_complete() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive)?;
        write(&primary, 1)?;
        let current = current_segment(&primary)?;
        let path = primary.data().join("pg_wal").join(&current);
        let archived = run(lab.server_command("walden").arg("archive").arg(path))?;
        assert_eq!(archived.status.code(), Some(1), "{archived:?}");
        assert!(archived.stderr.contains("is not complete"), "{archived:?}");
        assert!(archived.stderr.contains(&format!("\"{current}.partial\"")));
        assert!(!archive.has(&current)?);
        primary.archive_everything()?;
        assert_eq!(primary.archive_failures()?, 0);
        Ok(())
    })
}
