//! Archives that lack something which no recovery needs, and servers that are ahead of theirs: all of this goes on working.
//!
//! Guarantees that a rule which is too strict is seen, on a real server, beside the one that was too lax.

use std::fs;

use anyhow::{Context, Result};
use lab::{ArchiveDir, Cluster, Lab, Mark, Shutdown, run, scenario};

use crate::common::{SMALL_MB, primary_with, wait_for_entries, write};
use crate::faces::{
    Case, WAYS, Way, conninfo, current_segment, plain, primary, promote, streaming,
};

/// A recovery of this backup ends where these settings say, and goes on with entries of its own; answers with it.
fn branch<'lab>(case: &Case<'lab>, more: &[(&str, &str)]) -> Result<Cluster<'lab>> {
    let more: Vec<_> = more
        .iter()
        .copied()
        .chain([("recovery_target_action", "promote")])
        .collect();
    let branch = case.recovery(Way::Library, &more)?;
    branch.start()?;
    branch.wait_until_promoted()?;
    Ok(branch)
}

#[test]
fn an_archive_begun_on_timeline_2_recovers_without_the_history_of_it() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let settings = plain(lab, &archive)?
            .with("archive_mode", "off")
            .with("restore_command", "false");
        let primary = primary_with(lab, SMALL_MB, settings)?;
        primary.stop(Shutdown::Fast)?;
        primary.touch("recovery.signal")?;
        primary.start()?;
        primary.wait_until_promoted()?;
        primary.stop(Shutdown::Fast)?;
        primary.configure(|settings| settings.set("archive_mode", "on"))?;
        primary.start()?;
        let backup = primary.base_backup("backup")?;
        let segments = primary.write_segments(1..=4)?;
        primary.wait_until_archived()?;
        assert!(segments[0].starts_with("00000002"), "{segments:?}");
        assert!(!archive.has("00000002.history")?);
        primary.stop(Shutdown::Immediate)?;
        primary.start()?;
        let case = Case::new(lab, &archive, backup);
        case.recovers(&[], &primary.contents()?)?;
        for way in WAYS {
            let standby = case.standby(way, &[])?;
            wait_for_entries(&standby, 4)?;
        }
        Ok(())
    })
}

#[test]
fn a_cleaned_up_archive_recovers_a_backup_that_needs_only_what_was_kept() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let first = primary(lab, &archive)?;
        let early = first.base_backup("backup")?;
        first.write_segments(1..=3)?;
        first.wait_until_archived()?;
        first.stop(Shutdown::Immediate)?;
        let second = branch(&Case::new(lab, &archive, early), &[])?;
        second.write_segments(4..=6)?;
        let late = second.base_backup("backup")?;
        let kept = second.write_segments(7..=9)?;
        second.wait_until_archived()?;
        let contents = second.contents()?;
        second.stop(Shutdown::Immediate)?;

        // All of timeline 1 and the beginning of timeline 2; every backup's need is in its label.
        let label = fs::read_to_string(late.join("backup_label"))?;
        let oldest = label
            .split("(file ")
            .nth(1)
            .and_then(|rest| rest.get(..24))
            .context("no segment in the backup label")?;
        assert!(oldest <= kept[0].as_str());
        run(lab
            .server_command("pg_archivecleanup")
            .arg(archive.path())
            .arg(oldest))?
        .success()?;
        assert_eq!(
            archive.segments()?.first().map(String::as_str),
            Some(oldest)
        );
        let case = Case::new(lab, &archive, late);
        case.recovers(&[], &contents)?;
        for way in WAYS {
            let standby = case.standby(way, &[])?;
            wait_for_entries(&standby, 9)?;
        }
        Ok(())
    })
}

#[test]
fn dead_branches_of_three_earlier_recoveries_forbid_no_end() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive)?;
        let backup = primary.base_backup("backup")?;
        let case = Case::new(lab, &archive, backup);
        for entry in 1..=4 {
            write(&primary, entry)?;
            primary.sql(&format!("select pg_create_restore_point('after {entry}')"))?;
            primary.switch_segment()?;
        }
        primary.wait_until_archived()?;
        // Three recoveries, each to an earlier point than the one before, and each went on for a little.
        let mut last = None;
        for (goal, segments) in [
            ("after 3", 101..=101),
            ("after 2", 201..=202),
            ("after 1", 301..=303),
        ] {
            let more = [
                ("recovery_target_name", goal),
                ("recovery_target_timeline", "1"),
            ];
            let branch = branch(&case, &more)?;
            branch.write_segments(segments)?;
            branch.wait_until_archived()?;
            last = Some(branch.contents()?);
            branch.stop(Shutdown::Immediate)?;
        }
        primary.write_segments(5..=8)?;
        primary.wait_until_archived()?;
        assert!(archive.has("00000004.history")?);

        case.recovers(&[("recovery_target_timeline", "1")], &primary.contents()?)?;
        case.recovers(
            &[("recovery_target_timeline", "current")],
            &primary.contents()?,
        )?;
        case.recovers(&[], &last.context("three branches")?)?;
        Ok(())
    })
}

/// A failover in the middle of a segment: answers with the two servers, the case and the old timeline's last segment, which
/// was never complete.
fn mid_segment_failover<'lab>(
    lab: &'lab Lab,
    archive: &ArchiveDir,
) -> Result<(Cluster<'lab>, Cluster<'lab>, Case<'lab>, String)> {
    let old = primary(lab, archive)?;
    let backup = old.base_backup("backup")?;
    old.write_segments(1..=3)?;
    old.wait_until_archived()?;
    let settings = plain(lab, archive)?.with("walden.restore_library", "walden");
    let new = streaming(lab, "new", &backup, &old, settings)?;
    write(&old, 4)?;
    let unfinished = current_segment(&old)?;
    wait_for_entries(&new, 4)?;
    promote(&new)?;
    // The archiver of the new timeline takes the history first; what the scenarios say of an archive holds behind both.
    archive.wait_for("00000002.history")?;
    archive.wait_for(&format!("{unfinished}.partial"))?;
    let case = Case::new(lab, archive, backup);
    Ok((old, new, case, unfinished))
}

#[test]
fn a_failover_in_the_middle_of_a_segment_needs_no_complete_copy_of_the_old_one() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (old, new, case, unfinished) = mid_segment_failover(lab, &archive)?;
        old.stop(Shutdown::Immediate)?;
        assert!(!archive.has(&unfinished)?);

        // As long as the new timeline's first segment is not there either, recovery ends before it, and says so.
        for way in WAYS {
            let recovered = case.recovery_of_copy(way, &[])?;
            recovered.start()?;
            recovered.wait_until_promoted()?;
            wait_for_entries(&recovered, 3)?;
            let partial = format!("{unfinished}.partial");
            let log = recovered.log(Mark::default())?;
            assert!(log.contains(&partial), "{way:?}: {log}");
        }

        new.write_segments(5..=7)?;
        new.wait_until_archived()?;
        let contents = new.contents()?;
        case.recovers(&[], &contents)?;
        case.recovers(&[("recovery_target_timeline", "2")], &contents)?;
        new.sql("delete from ledger where entry > 3")?;
        case.recovers(&[("recovery_target_timeline", "1")], &new.contents()?)?;
        Ok(())
    })
}

#[test]
fn a_branch_forked_in_the_live_primarys_unfinished_segment_forbids_nothing() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (old, new, case, unfinished) = mid_segment_failover(lab, &archive)?;
        new.write_segments(101..=103)?;
        new.wait_until_archived()?;
        new.stop(Shutdown::Immediate)?;
        let current = [("recovery_target_timeline", "current")];
        let standbys = WAYS
            .into_iter()
            .map(|way| case.standby(way, &current))
            .collect::<Result<Vec<_>>>()?;
        for standby in &standbys {
            wait_for_entries(standby, 3)?;
        }
        assert!(!archive.has(&unfinished)?);
        for way in WAYS {
            let recovered = case.recovery_of_copy(way, &current)?;
            recovered.start()?;
            recovered.wait_until_promoted()?;
            wait_for_entries(&recovered, 3)?;
        }

        // The primary lives, and so does its timeline.
        old.write_segments(5..=7)?;
        old.wait_until_archived()?;
        case.recovers(&current, &old.contents()?)?;
        for standby in &standbys {
            wait_for_entries(standby, 7)?;
        }
        Ok(())
    })
}

#[test]
fn an_archive_of_cp_recovers_and_feeds_a_standby() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let settings = lab.settings().with("archive_mode", "on").with(
            "archive_command",
            &format!("test ! -f {0}/%f && cp %p {0}/%f", archive.text()),
        );
        let first = primary_with(lab, SMALL_MB, settings.clone())?;
        let backup = first.base_backup("backup")?;
        first.write_segments(1..=4)?;
        first.wait_until_archived()?;
        first.stop(Shutdown::Immediate)?;
        let case = Case::new(lab, &archive, backup);
        let cp = format!("cp {}/%f %p", archive.text());
        let second = lab.restored(
            "second",
            &case.backup,
            settings.with("restore_command", &cp),
        )?;
        second.touch("recovery.signal")?;
        second.start()?;
        second.wait_until_promoted()?;
        second.write_segments(5..=6)?;
        second.wait_until_archived()?;
        assert!(!archive.path().join("walden.json").exists());
        case.recovers(&[], &second.contents()?)?;
        let standbys = WAYS
            .into_iter()
            .map(|way| case.standby(way, &[]))
            .collect::<Result<Vec<_>>>()?;
        for standby in &standbys {
            wait_for_entries(standby, 6)?;
        }
        second.write_segments(7..=8)?;
        for standby in &standbys {
            wait_for_entries(standby, 8)?;
        }
        Ok(())
    })
}

#[test]
fn a_standby_on_timeline_1_follows_its_primary_past_a_dead_branch() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive)?;
        let case = Case::new(lab, &archive, primary.base_backup("backup")?);
        primary.write_segments(1..=2)?;
        primary.sql("select pg_create_restore_point('goal')")?;
        primary.write_segments(3..=4)?;
        primary.wait_until_archived()?;
        let standbys = WAYS
            .into_iter()
            .map(|way| case.standby(way, &[]))
            .collect::<Result<Vec<_>>>()?;
        for standby in &standbys {
            wait_for_entries(standby, 4)?;
        }

        let marks = standbys
            .iter()
            .map(Cluster::mark)
            .collect::<Result<Vec<Mark>>>()?;
        let dead = branch(&case, &[("recovery_target_name", "goal")])?;
        dead.write_segments(101..=108)?;
        dead.wait_until_archived()?;
        dead.stop(Shutdown::Immediate)?;
        for (standby, mark) in standbys.iter().zip(marks) {
            standby.wait_for_log(mark, &["new timeline 2 forked off"])?;
        }
        primary.write_segments(5..=7)?;
        primary.wait_until_archived()?;
        for standby in &standbys {
            wait_for_entries(standby, 7)?;
        }

        // Started again it may look at no other timeline: the server itself would refuse the newest.
        for standby in &standbys {
            standby.stop(Shutdown::Fast)?;
            standby.configure(|settings| settings.set("recovery_target_timeline", "current"))?;
            standby.start()?;
        }
        primary.write_segments(8..=9)?;
        for standby in &standbys {
            wait_for_entries(standby, 9)?;
            promote(standby)?;
            assert_eq!(standby.contents()?, primary.contents()?);
        }
        Ok(())
    })
}

#[test]
fn a_streaming_standby_ahead_of_the_archive_restarts_and_is_promoted() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive)?;
        let case = Case::new(lab, &archive, primary.base_backup("backup")?);
        primary.write_segments(1..=2)?;
        primary.wait_until_archived()?;
        let nowhere = lab.dir().join("unmounted").display().to_string();
        primary.reload(|settings| settings.set("walden.archive", &nowhere))?;
        primary.wait_for_sql("show walden.archive", &nowhere)?;
        let conninfo = conninfo(&primary);
        for way in WAYS {
            let cleanup = match way {
                Way::Library => ("walden.archive_cleanup_library", "walden"),
                Way::Command => ("archive_cleanup_command", "walden archive-cleanup %r"),
            };
            let standby = case.standby(way, &[("primary_conninfo", &conninfo), cleanup])?;
            let first = primary.sql("select count(*) + 1 from ledger")?.parse()?;
            primary.write_segments(first..=first + 3)?;
            wait_for_entries(&standby, first + 3)?;
            // What the restartpoint keeps lies ahead of everything that is archived.
            primary.sql("checkpoint")?;
            write(&primary, first + 4)?;
            wait_for_entries(&standby, first + 4)?;
            let before = archive.files()?;
            standby.sql("checkpoint")?;
            standby.stop(Shutdown::Fast)?;
            standby.start()?;
            wait_for_entries(&standby, first + 4)?;
            assert_eq!(archive.files()?, before);
            write(&primary, first + 5)?;
            wait_for_entries(&standby, first + 5)?;
            // Its end is not in the archive; it has it itself.
            standby.reload(|settings| settings.remove("primary_conninfo"))?;
            standby.reload(|settings| settings.set("archive_library", ""))?;
            standby.wait_for_sql("show archive_library", "")?;
            promote(&standby)?;
            assert_eq!(standby.contents()?, primary.contents()?);
            let ends = standby.logged(Mark::default(), &["FATAL", "could not restore"])?;
            assert!(ends.is_empty(), "{ends:?}");
        }
        Ok(())
    })
}

#[test]
fn pg_rewind_gets_the_old_timelines_wal_behind_the_fork() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let (old, new, _, fork) = mid_segment_failover(lab, &archive)?;
        // The old primary went on alone, and has forgotten all WAL that is archived.
        let mut own = old.write_segments(1005..=1007)?;
        own.insert(0, segment_before(&fork)?);
        old.wait_until_archived()?;
        assert!(archive.has(&fork)?);
        new.sql("checkpoint")?;
        new.write_segments(5..=6)?;
        new.wait_until_archived()?;
        old.stop(Shutdown::Fast)?;
        for segment in &own {
            let path = old.data().join("pg_wal").join(segment);
            if path.exists() {
                fs::remove_file(path)?;
            }
        }
        old.configure(|settings| settings.set("restore_command", "walden restore %f %p"))?;
        let mut command = lab.server_command("pg_rewind");
        command.args(["-c", "--no-sync", "-D"]).arg(old.data());
        let source = format!("{} dbname=postgres", conninfo(&new));
        let rewound = run(command.arg("--source-server").arg(source))?;
        assert!(rewound.status.success(), "{rewound:?}");

        old.configure(|settings| {
            settings.remove("restore_command");
            settings.set("walden.restore_library", "walden");
        })?;
        old.touch("standby.signal")?;
        // It has to get as far as its source was when it was rewound.
        write(&new, 7)?;
        new.archive_everything()?;
        old.start()?;
        wait_for_entries(&old, 7)?;
        assert_eq!(old.contents()?, new.contents()?);
        Ok(())
    })
}

fn segment_before(name: &str) -> Result<String> {
    let segment: wal::SegmentName = name.parse()?;
    let size = wal::SegmentSize::new(u64::from(SMALL_MB) * 1024 * 1024)?;
    let before = segment.previous(size).context("the first segment")?;
    Ok(before.to_string())
}
