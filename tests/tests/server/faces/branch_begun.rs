//! A new timeline's history file is archived and its first segment is not yet, while the old primary goes on and archives
//! its own copy of the segment in which the new one begins.

use anyhow::Result;
use lab::{Cluster, Lab, Mark, scenario};

use crate::common::{wait_for_entries, write};
use crate::faces::{Case, WAYS, current_segment, plain, primary, promote, streaming};

/// Two servers that have parted, and the archive of both.
struct Parted<'lab> {
    case: Case<'lab>,
    old: Cluster<'lab>,
    new: Cluster<'lab>,
    /// The old timeline's segment in which the new one begins.
    fork: String,
}

/// Entries 1 to 3 in segments of their own, 4 in the fork's; then the old primary writes 5 and 6, and nothing of the new
/// one but its history file is archived.
fn parted(lab: &Lab) -> Result<Parted<'_>> {
    let archive = lab.archive("archive")?;
    let old = primary(lab, &archive)?;
    let backup = old.base_backup("backup")?;
    old.write_segments(1..=3)?;
    old.wait_until_archived()?;
    let settings = plain(lab, &archive)?.with("walden.restore_library", "walden");
    let new = streaming(lab, "new", &backup, &old, settings)?;
    write(&old, 4)?;
    let fork = current_segment(&old)?;
    wait_for_entries(&new, 4)?;
    promote(&new)?;
    archive.wait_for("00000002.history")?;
    new.wait_until_archived()?;
    old.write_segments(5..=6)?;
    old.wait_until_archived()?;
    assert!(archive.has(&fork)?);
    Ok(Parted {
        case: Case::new(lab, &archive, backup),
        old,
        new,
        fork,
    })
}

#[test]
fn recovery_does_not_replay_past_the_fork_of_a_timeline_whose_first_segment_is_not_there_yet()
-> Result<()> {
    scenario(|lab| {
        let Parted {
            case,
            old,
            new,
            fork,
        } = parted(lab)?;
        case.refuses(&[], &fork, &["timeline 2"])?;
        let audit = case.audit()?;
        audit.finds("warning", "missing", &fork)?;
        audit.stops_at(2, &fork, "")?;

        // Who asks for the old timeline gets it whole.
        case.recovers(&[("recovery_target_timeline", "1")], &old.contents()?)?;

        // And once the new one's segment is there, it is what recovery is about.
        write(&new, 7)?;
        new.archive_everything()?;
        case.recovers(&[], &new.contents()?)?;
        case.audit()?.is_clean()
    })
}

#[test]
fn a_standby_waits_at_the_fork_of_a_timeline_whose_first_segment_is_not_there_yet() -> Result<()> {
    scenario(|lab| {
        let Parted {
            case, new, fork, ..
        } = parted(lab)?;
        let standbys = WAYS
            .into_iter()
            .map(|way| case.standby(way, &[]))
            .collect::<Result<Vec<_>>>()?;
        for standby in &standbys {
            wait_for_entries(standby, 3)?;
            standby.wait_for_log(Mark::default(), &[&fork, "timeline 2"])?;
        }
        write(&new, 7)?;
        new.archive_everything()?;
        for standby in &standbys {
            wait_for_entries(standby, 5)?;
            assert_eq!(standby.contents()?, new.contents()?);
        }
        Ok(())
    })
}
