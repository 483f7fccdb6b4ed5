//! Two failovers, and the archiving of the server in the middle was broken for its whole life: the last timeline's history
//! names one of which nothing is archived.

use std::fs;

use anyhow::{Context, Result};
use lab::{ArchiveDir, Cluster, Contents, Lab, Mark, Shutdown, scenario};

use crate::common::{wait_for_entries, write};
use crate::faces::{
    Case, WAYS, conninfo, current_segment, plain, primary, promote, segment_after, streaming,
};

/// How much the server in the middle wrote.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Middle {
    /// Several whole segments.
    Segments,
    /// One entry, in the segment in which its timeline begins and ends.
    Little,
}

struct TwoFailovers<'lab> {
    case: Case<'lab>,
    /// Stopped, and with all its WAL.
    middle: Cluster<'lab>,
    /// The first segment of the timeline in the middle.
    first: String,
    contents: Contents,
}

fn two_failovers(lab: &Lab, wrote: Middle) -> Result<TwoFailovers<'_>> {
    let archive = lab.archive("archive")?;
    let nowhere = lab.dir().join("unmounted").display().to_string();
    let settings = plain(lab, &archive)?.with("walden.restore_library", "walden");
    let old = primary(lab, &archive)?;
    let backup = old.base_backup("backup")?;
    old.write_segments(1..=2)?;
    old.wait_until_archived()?;
    let middle = streaming(lab, "middle", &backup, &old, settings.clone())?;
    let last = streaming(lab, "last", &backup, &old, settings)?;
    write(&old, 3)?;
    wait_for_entries(&middle, 3)?;
    wait_for_entries(&last, 3)?;
    old.stop(Shutdown::Immediate)?;

    middle.reload(|settings| settings.set("walden.archive", &nowhere))?;
    middle.wait_for_sql("show walden.archive", &nowhere)?;
    promote(&middle)?;
    let first = current_segment(&middle)?;
    last.reload(|settings| settings.set("primary_conninfo", &conninfo(&middle)))?;
    let entries = match wrote {
        Middle::Segments => {
            middle.write_segments(4..=6)?;
            write(&middle, 7)?;
            7
        }
        Middle::Little => {
            write(&middle, 4)?;
            4
        }
    };
    wait_for_entries(&last, entries)?;
    middle.stop(Shutdown::Immediate)?;
    promote(&last)?;
    write(&last, 8)?;
    last.archive_everything()?;
    let contents = last.contents()?;
    last.stop(Shutdown::Immediate)?;
    assert!(archive.has("00000003.history")?);
    assert!(!archive.has("00000002.history")?);
    Ok(TwoFailovers {
        case: Case::new(lab, &archive, backup),
        middle,
        first,
        contents,
    })
}

impl TwoFailovers<'_> {
    /// As if the last server had been lost before it archived the end of the timeline in the middle.
    fn lose_partial(&self) -> Result<()> {
        let archive = &self.case.archive;
        for key in archive.keys()? {
            if key.starts_with("00000002") && key.ends_with(".partial") {
                fs::remove_file(archive.path().join(key))?;
            }
        }
        Ok(())
    }

    /// Brings into the archive what the server in the middle did not, as a person would.
    fn bring(&self) -> Result<()> {
        bring(
            self.case.lab,
            &self.middle,
            &self.case.archive,
            "00000002.history",
        )?;
        for count in 0..3 {
            let segment = segment_after(&self.first, count)?;
            bring(self.case.lab, &self.middle, &self.case.archive, &segment)?;
        }
        Ok(())
    }
}

fn bring(lab: &Lab, from: &Cluster, archive: &ArchiveDir, name: &str) -> Result<()> {
    lab.copy(
        &from.data().join("pg_wal").join(name),
        &archive.path().join(name),
    )
    .with_context(|| format!("could not bring {name}"))
}

#[test]
fn recovery_stops_over_a_timeline_in_the_middle_that_was_never_archived() -> Result<()> {
    scenario(|lab| {
        let it = two_failovers(lab, Middle::Segments)?;
        let third = [("recovery_target_timeline", "3")];
        // The end of it, which the last server archived, tells it as well.
        it.case.refuses(&third, &it.first, &[".partial"])?;
        it.lose_partial()?;
        it.case
            .refuses(&[], "00000002.history", &["00000003.history"])?;
        it.case.refuses(&third, &it.first, &["00000003.history"])?;
        let audit = it.case.audit()?;
        audit.finds("error", "missing", &it.first)?;
        audit.finds("error", "missing-history", "00000002.history")?;
        audit.stops_at(3, &it.first, &it.first)?;

        it.bring()?;
        it.case.audit()?.is_clean()?;
        it.case.recovers(&[], &it.contents)?;
        it.case.recovers(&third, &it.contents)?;
        Ok(())
    })
}

#[test]
fn a_timeline_that_wrote_next_to_nothing_stops_recovery_to_latest_and_not_to_its_successor()
-> Result<()> {
    scenario(|lab| {
        let it = two_failovers(lab, Middle::Little)?;
        it.lose_partial()?;
        it.case
            .refuses(&[], "00000002.history", &["00000003.history"])?;
        // All its WAL is in the successor's first segment, too.
        it.case
            .recovers(&[("recovery_target_timeline", "3")], &it.contents)?;

        bring(lab, &it.middle, &it.case.archive, "00000002.history")?;
        it.case.recovers(&[], &it.contents)?;
        Ok(())
    })
}

#[test]
fn a_standby_says_that_a_timeline_in_the_middle_is_missing_and_follows_once_it_is_there()
-> Result<()> {
    scenario(|lab| {
        let it = two_failovers(lab, Middle::Segments)?;
        it.lose_partial()?;
        let standbys = WAYS
            .into_iter()
            .map(|way| it.case.standby(way, &[]))
            .collect::<Result<Vec<_>>>()?;
        for standby in &standbys {
            wait_for_entries(standby, 2)?;
            standby.wait_for_log(Mark::default(), &["00000002.history", "00000003.history"])?;
        }
        it.bring()?;
        for standby in &standbys {
            wait_for_entries(standby, 8)?;
            assert_eq!(standby.contents()?, it.contents);
        }
        Ok(())
    })
}
