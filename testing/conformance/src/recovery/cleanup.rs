//! Promises about archive cleanup: what is not needed goes, what may be needed stays.
//!
//! The yardstick is `pg_archivecleanup`, of which a module may remove less, and never more.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{ArchiveDir, Cluster, Lab, Mark, Settings, Shutdown, wait_for};

use super::scene::{
    Asker, SMALL_MB, ZEROS, does, last_words, must_recover, must_show, primary, recovery_of,
    standby_with,
};
use crate::promise::{Evidence, Kind, Promise, broken, hold, must};
use crate::subject::Subject;

/// Names the module for the job.
const PARAMETER: &str = "walden.archive_cleanup_library";

/// How long a cleanup may go on after it has been called done: a module may do it in the background.
const BACKGROUND: Duration = Duration::from_secs(10);

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "cleanup-removes-old-segments",
        kind: Kind::Recovery,
        says: "archive cleanup removes the segments before the oldest one that is needed",
        source: "recovery_module.h, archive_cleanup_cb; manual, archive_cleanup_command (15 to 18)",
        check: removes_old_segments,
    },
    Promise {
        name: "cleanup-keeps-needed-segments",
        kind: Kind::Recovery,
        says: "archive cleanup keeps the oldest segment needed and all later ones, on every timeline, and all of \
               them when none is named",
        source: "recovery_module.h, archive_cleanup_cb; CleanupPriorWALFiles, pg_archivecleanup.c (15 to 17)",
        check: keeps_needed_segments,
    },
    Promise {
        name: "cleanup-keeps-other-files",
        kind: Kind::Recovery,
        says: "archive cleanup removes no timeline history file, no backup history file, and nothing that is not WAL",
        source: "CleanupPriorWALFiles, pg_archivecleanup.c (15 to 17)",
        check: keeps_other_files,
    },
    Promise {
        name: "cleanup-at-restartpoints",
        kind: Kind::Recovery,
        says: "after cleanup at a restartpoint the standby can be restarted, and a later backup recovered",
        source: "CreateRestartPoint, xlog.c (15 to 18); recovery_module.h, archive_cleanup_cb",
        check: at_restartpoints,
    },
];

/// An archive with six segments and a server to clean it up through.
struct Cleaning<'lab> {
    archive: ArchiveDir,
    segments: Vec<String>,
    asker: Asker<'lab>,
    command: String,
}

/// What came of a cleanup.
enum Cleaned {
    Done,
    NoCallback,
}

fn cleaning(subject: &Subject, settings: Settings) -> Settings {
    match &subject.plan.recovery {
        Some(library) => settings.with(PARAMETER, library.name()),
        None => settings,
    }
}

impl<'lab> Cleaning<'lab> {
    fn begin(subject: &Subject, lab: &'lab Lab) -> Result<Cleaning<'lab>> {
        let archive = lab.archive("archive")?;
        let primary = primary(subject, lab, &archive, "primary", SMALL_MB)?;
        let segments = primary.write_segments(1..=6)?;
        primary.wait_until_archived()?;
        primary.stop(Shutdown::Immediate)?;
        let settings = cleaning(subject, subject.recovering(lab, &archive));
        let asker = Asker::start(lab, "asker", SMALL_MB, settings)?;
        let command = asker.server.sql("show archive_cleanup_command")?;
        Ok(Cleaning {
            archive,
            segments,
            asker,
            command,
        })
    }

    fn segment(&self, index: usize) -> Result<&str> {
        let segment = self.segments.get(index).context("a segment is missing")?;
        Ok(segment)
    }

    /// The part of a segment's name that is not its timeline.
    fn position(&self, index: usize) -> Result<&str> {
        self.segment(index)?.get(8..).context("a short name")
    }

    /// A file that is none of the server's doing, under this name, with the contents of a stored segment.
    fn plant(&self, lab: &Lab, name: &str) -> Result<()> {
        let path = self.archive.path().join(name);
        fs::copy(self.archive.stored(self.segment(5)?)?, &path)?;
        lab.own(&path)
    }

    /// Cleans up, the module being told that nothing before `oldest_kept` is needed.
    fn clean_up(&self, oldest_kept: &str) -> Result<Cleaned> {
        let mark = self.asker.server.mark()?;
        let outcome = self.asker.run(&self.command, "", oldest_kept)?;
        if !does(&self.asker.server, PARAMETER)? {
            return Ok(Cleaned::NoCallback);
        }
        hold(outcome.status.success(), || {
            format!(
                "cleanup before \"{oldest_kept}\" failed: {}{}",
                outcome.stdout, outcome.stderr
            )
        })
        .with_context(|| last_words(&self.asker.server, mark).unwrap_or_default())?;
        Ok(Cleaned::Done)
    }

    /// Waits until the first segments are gone; whether they went.
    fn wait_until_removed(&self, count: usize) -> bool {
        let gone = || -> Result<bool> {
            for index in 0..count {
                if holds(&self.archive, self.segment(index)?)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        wait_for("old segments to go", BACKGROUND, || {
            Ok(gone()?.then_some(()))
        })
        .is_ok()
    }
}

/// Whether the archive holds a WAL file, whatever the module appends to its name.
fn holds(archive: &ArchiveDir, name: &str) -> Result<bool> {
    let other = [".partial", ".backup"];
    let is = |key: &String| {
        key.strip_prefix(name).is_some_and(|rest| {
            rest.is_empty()
                || (rest.starts_with('.') && !other.iter().any(|end| rest.contains(end)))
        })
    };
    Ok(archive.keys()?.iter().any(is))
}

fn no_callback() -> Result<Evidence> {
    Ok(Evidence::DoesNotApply(
        "the module has no archive cleanup callback".to_owned(),
    ))
}

fn removes_old_segments(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let cleaning = Cleaning::begin(subject, lab)?;
    let oldest_kept = cleaning.segment(3)?;
    if let Cleaned::NoCallback = cleaning.clean_up(oldest_kept)? {
        return no_callback();
    }
    hold(cleaning.wait_until_removed(3), || {
        let keys = cleaning.archive.keys().unwrap_or_default().join(", ");
        format!(
            "{} s after cleanup before \"{oldest_kept}\" the archive holds {keys}",
            BACKGROUND.as_secs()
        )
    })?;
    Ok(Evidence::Seen(format!(
        "cleanup before \"{oldest_kept}\" removed {}",
        cleaning.segments.get(..3).unwrap_or_default().join(", ")
    )))
}

/// Fails unless each of these is still in the archive.
fn must_hold(archive: &ArchiveDir, names: &[String], oldest_kept: &str) -> Result<()> {
    let keys = archive.keys()?;
    for name in names {
        hold(keys.iter().any(|key| key.starts_with(name)), || {
            format!("cleanup before \"{oldest_kept}\" removed \"{name}\"")
        })?;
    }
    Ok(())
}

fn keeps_needed_segments(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let cleaning = Cleaning::begin(subject, lab)?;
    let second = format!("00000002{}", cleaning.position(4)?);
    let partial = format!("{}.partial", cleaning.segment(4)?);
    cleaning.plant(lab, &second)?;
    cleaning.plant(lab, &partial)?;
    let before = cleaning.archive.keys()?;
    if let Cleaned::NoCallback = cleaning.clean_up(ZEROS)? {
        return no_callback();
    }
    must_hold(&cleaning.archive, &before, ZEROS)?;

    // On a later timeline: replay may need what its parents hold from there on.
    let oldest_kept = format!("00000002{}", cleaning.position(3)?);
    cleaning.clean_up(&oldest_kept)?;
    let removed = cleaning.wait_until_removed(3);
    let mut kept = vec![second, partial];
    for index in 3..6 {
        let segment = cleaning.segment(index)?;
        hold(holds(&cleaning.archive, segment)?, || {
            format!("cleanup before \"{oldest_kept}\" removed \"{segment}\"")
        })?;
        kept.push(segment.to_owned());
    }
    must_hold(&cleaning.archive, &kept, &oldest_kept)?;
    Ok(Evidence::Seen(format!(
        "24 zeros removed nothing; cleanup before \"{oldest_kept}\" {}, and kept {}",
        if removed {
            "removed what is older"
        } else {
            "removed nothing"
        },
        kept.join(", ")
    )))
}

fn keeps_other_files(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let cleaning = Cleaning::begin(subject, lab)?;
    let old = cleaning.segment(0)?.to_owned();
    let others = [
        "00000002.history".to_owned(),
        format!("{old}.00000028.backup"),
        "notes.txt".to_owned(),
        // Segments are named in capitals.
        "00000001000000000000000a".to_owned(),
    ];
    for name in &others {
        cleaning.plant(lab, name)?;
    }
    let oldest_kept = cleaning.segment(3)?;
    if let Cleaned::NoCallback = cleaning.clean_up(oldest_kept)? {
        return no_callback();
    }
    let removed = cleaning.wait_until_removed(3);
    must_hold(&cleaning.archive, &others, oldest_kept)?;
    Ok(Evidence::Seen(format!(
        "cleanup before \"{oldest_kept}\" {}, and kept {}",
        if removed {
            "removed old segments"
        } else {
            "removed nothing"
        },
        others.join(", ")
    )))
}

fn at_restartpoints(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = primary(subject, lab, &archive, "primary", SMALL_MB)?;
    let backup = primary.base_backup("backup")?;
    let mut segments = primary.write_segments(1..=3)?;
    primary.sql("checkpoint")?;
    segments.extend(primary.write_segments(4..=5)?);
    primary.wait_until_archived()?;
    let settings = cleaning(subject, subject.recovering(lab, &archive));
    let standby = standby_with(lab, &backup, settings)?;
    must_show(&standby, 5)?;
    if !does(&standby, PARAMETER)? {
        return no_callback();
    }
    let oldest_kept = restartpoint(&standby)?;
    ensure!(
        segments.first() < Some(&oldest_kept),
        "the restartpoint is no later than the backup"
    );
    let failed = standby.logged(Mark::default(), &["WARNING", "archive_cleanup_command"])?;
    if let Some(entry) = failed.first() {
        return broken(format!(
            "{}; {}",
            entry.text,
            last_words(&standby, Mark::default())?
        ));
    }
    for segment in segments.iter().filter(|segment| **segment >= oldest_kept) {
        hold(holds(&archive, segment)?, || {
            format!("the restartpoint at \"{oldest_kept}\" removed \"{segment}\"")
        })?;
    }
    must(standby.stop(Shutdown::Fast), "the standby did not stop")?;
    must(standby.start(), "the standby did not start again")?;
    primary.write_segments(6..=6)?;
    primary.wait_until_archived()?;
    must_show(&standby, 6)?;

    let later = primary.base_backup("later")?;
    primary.write_segments(7..=8)?;
    primary.wait_until_archived()?;
    let settings = subject.recovering(lab, &archive);
    let recovered = recovery_of(lab, "recovered", &later, settings)?;
    must_recover(&recovered, &primary.contents()?)?;
    Ok(Evidence::Seen(format!(
        "restartpoint at \"{oldest_kept}\": nothing from there on is gone; the standby was restarted and followed, \
         and a later backup recovered"
    )))
}

/// Has the standby make a restartpoint; answers with the segment that a restart would begin in.
fn restartpoint(standby: &Cluster) -> Result<String> {
    standby.sql("checkpoint")?;
    standby.sql("select redo_wal_file from pg_control_checkpoint()")
}
