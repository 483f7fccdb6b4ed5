//! A snapshot of a data directory has files in its `pg_wal` that are not what their names say, or only the beginning of it:
//! they are no stand-in for a segment that is missing from the archive.

use std::fs;

use anyhow::{Context, Result, ensure};
use lab::{Cluster, Contents, Lab, Mark, scenario};

use crate::common::{wait_for_entries, write};
use crate::faces::{Case, WAYS, current_segment, primary, segment_after, snapshot};

struct Taken<'lab> {
    case: Case<'lab>,
    primary: Cluster<'lab>,
    /// The segment that was being written when the snapshot was taken.
    current: String,
    contents: Contents,
}

/// A snapshot with entries 1 to 5, the last of them in a segment just begun, and recycled files behind it; then entries 6
/// to 9, each the last one of a segment.
fn taken(lab: &Lab) -> Result<Taken<'_>> {
    let archive = lab.archive("archive")?;
    let primary = primary(lab, &archive)?;
    primary.write_segments(1..=4)?;
    primary.wait_until_archived()?;
    // Twice: what the first checkpoint still needs is recycled by the second.
    primary.sql("checkpoint")?;
    primary.sql("checkpoint")?;
    write(&primary, 5)?;
    let current = current_segment(&primary)?;
    let path = snapshot(lab, &primary, "snapshot")?;
    primary.write_segments(6..=9)?;
    primary.wait_until_archived()?;
    let contents = primary.contents()?;
    Ok(Taken {
        case: Case::new(lab, &archive, path),
        primary,
        current,
        contents,
    })
}

#[test]
fn a_recycled_file_of_a_missing_segments_name_is_not_the_end_of_wal() -> Result<()> {
    scenario(|lab| {
        let it = taken(lab)?;
        let missing = segment_after(&it.current, 2)?;
        ensure!(
            it.case.backup.join("pg_wal").join(&missing).is_file(),
            "the snapshot has no recycled file {missing}"
        );
        missing_stops_recovery(&it, &missing, 7)
    })
}

#[test]
fn a_half_written_copy_of_a_missing_segment_is_not_the_end_of_wal() -> Result<()> {
    scenario(|lab| {
        let it = taken(lab)?;
        missing_stops_recovery(&it, &it.current.clone(), 5)
    })
}

#[test]
fn a_whole_copy_of_a_missing_segment_is_used() -> Result<()> {
    scenario(|lab| {
        let it = taken(lab)?;
        let whole = it.primary.data().join("pg_wal").join(&it.current);
        let held = it.case.backup.join("pg_wal").join(&it.current);
        fs::copy(whole, held).context("the primary no longer has it")?;
        fs::remove_file(it.case.archive.stored(&it.current)?)?;
        it.case.recovers(&[], &it.contents)?;
        Ok(())
    })
}

#[test]
fn a_half_written_last_segment_is_used_when_nothing_behind_it_is_archived() -> Result<()> {
    scenario(|lab| {
        let it = taken(lab)?;
        for count in 0..4 {
            let segment = segment_after(&it.current, count)?;
            fs::remove_file(it.case.archive.stored(&segment)?)?;
        }
        it.primary.sql("delete from ledger where entry > 5")?;
        it.case.recovers(&[], &it.primary.contents()?)?;
        Ok(())
    })
}

/// Without this segment recovery stops, a standby stays with so many entries, and both go on once it is there.
fn missing_stops_recovery(it: &Taken<'_>, missing: &str, entries: u32) -> Result<()> {
    let stored = it.case.archive.stored(missing)?;
    let aside = it.case.lab.dir().join("aside");
    fs::rename(&stored, &aside)?;
    let next = segment_after(missing, 1)?;
    it.case.refuses(&[], missing, &[&next])?;
    let standbys = WAYS
        .into_iter()
        .map(|way| it.case.standby(way, &[]))
        .collect::<Result<Vec<_>>>()?;
    for standby in &standbys {
        standby.wait_for_log(Mark::default(), &[missing, &next])?;
        wait_for_entries(standby, entries)?;
    }

    fs::rename(&aside, &stored)?;
    it.case.recovers(&[], &it.contents)?;
    for standby in &standbys {
        wait_for_entries(standby, 9)?;
    }
    Ok(())
}
