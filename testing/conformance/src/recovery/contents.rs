//! Promises about what comes out of the archive: the same bytes, however often and in whatever order.

use std::fs;

use anyhow::{Context, Result};
use lab::{Cluster, Lab, Mark, Shutdown};

use super::scene::{
    Answer, Asker, SMALL_MB, lose, must_recover, must_show, primary, recovery_of, standby, to_goal,
};
use crate::promise::{Evidence, Kind, Promise, broken, hold, must};
use crate::subject::Subject;

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "restores-to-a-restore-point",
        kind: Kind::Recovery,
        says: "a lost server is recovered from a base backup to a named restore point, with the tables it had then",
        source: "recovery_module.h, restore_cb; manual, \"Recovering Using a Continuous Archive Backup\" (15 to 18)",
        check: restores_to_a_restore_point,
    },
    Promise {
        name: "every-segment-size",
        kind: Kind::Recovery,
        says: "segments of 1, 16 and 64 MB come back with the bytes they were archived with",
        source: "manual, initdb --wal-segsize (15 to 18)",
        check: every_segment_size,
    },
    Promise {
        name: "same-answer-again",
        kind: Kind::Recovery,
        says: "a file that is asked for again comes again, with the same bytes",
        source: "FinishWalRecovery and WaitForWALToBecomeAvailable, xlogrecovery.c (15 to 18)",
        check: same_answer_again,
    },
    Promise {
        name: "any-order",
        kind: Kind::Recovery,
        says: "files are restored in whatever order they are asked for, backwards too",
        source: "recovery_module.h, restore_cb; manual, pg_rewind --restore-target-wal (15 to 18)",
        check: any_order,
    },
    Promise {
        name: "timeline-history-files",
        kind: Kind::Recovery,
        says: "a timeline history file is absent before there is one, comes once there is, and is followed",
        source: "findNewestTimeLine and readTimeLineHistory, timeline.c (15 to 18)",
        check: timeline_history_files,
    },
    Promise {
        name: "cut-off-file",
        kind: Kind::Recovery,
        says: "a stored segment that is cut off or empty is neither handed over nor called absent",
        source: "recovery_module.h, restore_cb: \"True: the file is complete\"",
        check: cut_off_file,
    },
];

/// The bytes of a segment, as the primary that wrote it has them.
fn original(primary: &Cluster, segment: &str) -> Result<Vec<u8>> {
    let path = primary.data().join("pg_wal").join(segment);
    fs::read(&path).with_context(|| format!("the primary was to keep \"{segment}\""))
}

fn restores_to_a_restore_point(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let lost = lose(subject, lab, &archive, 6)?;
    let settings = to_goal(subject.recovering(lab, &archive));
    let recovered = recovery_of(lab, "recovered", &lost.backup, settings)?;
    must_recover(&recovered, &lost.contents)?;
    let restored = recovered.logged(Mark::default(), &["restored log file"])?;
    hold(restored.len() >= lost.segments.len(), || {
        format!("only {} segments were restored", restored.len())
    })?;
    Ok(Evidence::Seen(format!(
        "{} segments restored, {} tables equal to the primary's at the restore point",
        restored.len(),
        lost.contents.len()
    )))
}

fn every_segment_size(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    for mb in [SMALL_MB, 16, 64] {
        let archive = lab.archive(&format!("archive-{mb}"))?;
        let primary = primary(subject, lab, &archive, &format!("primary-{mb}"), mb)?;
        let segments = primary.write_segments(1..=1)?;
        primary.wait_until_archived()?;
        let name = format!("asker-{mb}");
        let asker = Asker::start(lab, &name, mb, subject.recovering(lab, &archive))?;
        for segment in &segments {
            let bytes = original(&primary, segment)?;
            asker.must_restore(segment, &bytes, &format!("with segments of {mb} MB"))?;
        }
    }
    Ok(Evidence::Seen(
        "one segment of each size restored, equal to the primary's own".to_owned(),
    ))
}

fn same_answer_again(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = primary(subject, lab, &archive, "primary", SMALL_MB)?;
    let segments = primary.write_segments(1..=2)?;
    primary.wait_until_archived()?;
    let asker = Asker::of(subject, lab, &archive)?;
    let last = segments.last().context("no segment was written")?;
    let bytes = original(&primary, last)?;
    for when in ["the first time", "the second time", "the third time"] {
        asker.must_restore(last, &bytes, &format!("asked for {when}"))?;
    }
    Ok(Evidence::Seen(format!(
        "\"{last}\" restored three times, with the same bytes"
    )))
}

fn any_order(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = primary(subject, lab, &archive, "primary", SMALL_MB)?;
    let segments = primary.write_segments(1..=4)?;
    primary.wait_until_archived()?;
    let asker = Asker::of(subject, lab, &archive)?;
    let mut before = "first".to_owned();
    for index in [1, 2, 0, 3] {
        let segment = segments.get(index).context("a segment is missing")?;
        asker.must_restore(
            segment,
            &original(&primary, segment)?,
            &format!("asked for {before}"),
        )?;
        before = format!("after \"{segment}\"");
    }
    Ok(Evidence::Seen(
        "asked for the second, third, first and fourth of four segments: all restored".to_owned(),
    ))
}

fn timeline_history_files(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    const HISTORY: &str = "00000002.history";
    let archive = lab.archive("archive")?;
    let settings = subject.archiving_and_recovering(lab, &archive);
    let primary = lab.primary("primary", SMALL_MB, settings)?;
    let backup = primary.base_backup("backup")?;
    primary.write_segments(1..=2)?;
    primary.wait_until_archived()?;
    let asker = Asker::of(subject, lab, &archive)?;
    asker.must_be_absent(HISTORY, "before any promotion")?;

    // An archive recovery that ends where it begins: the quickest way to a second timeline.
    primary.stop(Shutdown::Fast)?;
    primary.touch("recovery.signal")?;
    let contents = "select pg_is_in_recovery()";
    must(
        primary.start(),
        "the primary did not come back from its own archive",
    )?;
    must(
        primary.wait_for_sql(contents, "f"),
        "the primary was not promoted",
    )?;
    primary.write_segments(3..=4)?;
    primary.wait_until_archived()?;
    let history = original(&primary, HISTORY)?;
    asker.must_restore(HISTORY, &history, "after a promotion")?;

    let standby = standby(subject, lab, &archive, &backup)?;
    must_show(&standby, 4)?;
    Ok(Evidence::Seen(format!(
        "\"{HISTORY}\" absent, then restored with its {} bytes; a standby of the first timeline followed to the \
         second",
        history.len()
    )))
}

fn cut_off_file(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = primary(subject, lab, &archive, "primary", SMALL_MB)?;
    let segments = primary.write_segments(1..=3)?;
    primary.wait_until_archived()?;
    let asker = Asker::of(subject, lab, &archive)?;
    let mut seen = Vec::new();
    for (segment, divisor, how) in [(0, Some(2), "cut off in the middle"), (1, None, "empty")] {
        let segment = segments.get(segment).context("a segment is missing")?;
        let place = archive.stored(segment)?;
        let whole = fs::read(&place)?;
        let left = divisor.map_or(0, |divisor| whole.len() / divisor);
        fs::write(&place, whole.get(..left).unwrap_or_default())?;
        let mark = asker.server.mark()?;
        let answer = asker.ask(segment)?;
        let what = format!(
            "\"{segment}\" {how} in the archive ({left} of {} bytes)",
            whole.len()
        );
        if !matches!(answer, Answer::CouldNotTell(_)) {
            return broken(format!("{what}: {answer}, instead of could-not-tell"));
        }
        // The host looks at the size of what it is handed, and refuses; the module had called it whole.
        let handed_over = asker
            .server
            .logged(mark, &["the recovery module restored", "bytes instead of"])?;
        hold(handed_over.is_empty(), || {
            format!(
                "{what} was handed over as restored; only the host's own look at its size kept it from the server"
            )
        })?;
        fs::write(&place, &whole)?;
        let bytes = original(&primary, segment)?;
        asker.must_restore(segment, &bytes, "once it was whole again")?;
        seen.push(format!("{how}: {answer}"));
    }
    Ok(Evidence::Seen(format!(
        "{}; restored once whole again",
        seen.join(", ")
    )))
}
