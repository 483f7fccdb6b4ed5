//! Promises about the end of a recovery, and about the archive that goes on after it.

use anyhow::Result;
use lab::{Cluster, Lab, Mark, Shutdown};

use super::scene::{does, last_words, lose, must_recover, must_show, recovery_of, standby_with};
use super::standby::must_be_promoted;
use crate::promise::{Evidence, Kind, Promise, broken, hold, must};
use crate::subject::Subject;

/// Names the module for the job.
const PARAMETER: &str = "walden.recovery_end_library";

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "recovery-end-once",
        kind: Kind::Recovery,
        says: "the module is told of the end of recovery once, when it ends, and takes it without failing",
        source: "recovery_module.h, recovery_end_cb; CleanupAfterArchiveRecovery, xlog.c (15 to 18)",
        check: recovery_end_once,
    },
    Promise {
        name: "one-library-for-both",
        kind: Kind::Recovery,
        says: "a recovered server archives its new timeline into the archive it came from, which can be recovered again",
        source: "recovery_module.h; manual, \"Timelines\" (15 to 18)",
        check: one_library_for_both,
    },
];

/// How often the server had the module told (ExecuteRecoveryCommand, xlogarchive.c, 15 to 18).
fn times(cluster: &Cluster) -> Result<usize> {
    let times = cluster.logged(Mark::default(), &["executing recovery_end_command"])?;
    Ok(times.len())
}

fn recovery_end_once(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let lost = lose(subject, lab, &archive, 3)?;
    let mut settings = subject.recovering(lab, &archive);
    if let Some(library) = &subject.plan.recovery {
        settings.set(PARAMETER, library.name());
    }
    let standby = standby_with(lab, &lost.backup, settings)?;
    standby.configure(|settings| settings.set("log_min_messages", "debug3"))?;
    must_show(&standby, 3)?;
    must(standby.stop(Shutdown::Fast), "the standby did not stop")?;
    must(standby.start(), "the standby did not start again")?;
    must_show(&standby, 3)?;
    if !does(&standby, PARAMETER)? {
        return Ok(Evidence::DoesNotApply(
            "the module has no recovery end callback".to_owned(),
        ));
    }
    anyhow::ensure!(
        times(&standby)? == 0,
        "a restarted standby ended its recovery"
    );
    let (before, mark) = (archive.files()?, standby.mark()?);
    standby.sql("select pg_promote(wait => false)")?;
    must_be_promoted(&standby, mark)?;
    let failed = standby.logged(mark, &["WARNING", "recovery_end_command"])?;
    if let Some(entry) = failed.first() {
        return broken(format!("{}; {}", entry.text, last_words(&standby, mark)?));
    }
    let after = archive.files()?;
    for file in &before {
        hold(after.contains(file), || {
            format!("the end of recovery removed \"{file}\" from the archive")
        })?;
    }
    must(
        standby.stop(Shutdown::Fast),
        "the promoted server did not stop",
    )?;
    must(standby.start(), "the promoted server did not start again")?;
    let times = times(&standby)?;
    anyhow::ensure!(times == 1, "the server ended recovery {times} times");
    Ok(Evidence::Seen(
        "told once, at the promotion, without a warning; not when the standby or the promoted server was restarted"
            .to_owned(),
    ))
}

fn one_library_for_both(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let names = |library: &Option<crate::subject::Library>| {
        library.as_ref().map(|one| one.name().to_owned())
    };
    if names(&subject.plan.archive) != names(&subject.plan.recovery) {
        return Ok(Evidence::DoesNotApply(
            "the library is not both archive and recovery module here".to_owned(),
        ));
    }
    let archive = lab.archive("archive")?;
    let lost = lose(subject, lab, &archive, 3)?;
    let before = archive.snapshot()?;
    let settings = subject.archiving_and_recovering(lab, &archive);
    let recovered = recovery_of(lab, "recovered", &lost.backup, settings)?;
    must_recover(&recovered, &lost.contents)?;
    recovered.write_segments(4..=5)?;
    must(
        recovered.wait_until_archived(),
        "the recovered server does not archive",
    )?;
    let failures = recovered.archive_failures()?;
    hold(failures == 0, || {
        format!("the recovered server failed {failures} times to archive")
    })?;
    let now = archive.snapshot()?;
    for (name, bytes) in &before {
        hold(now.get(name) == Some(bytes), || {
            format!("\"{name}\" has changed")
        })?;
    }
    hold(archive.has("00000002.history")?, || {
        "\"00000002.history\" was not archived".to_owned()
    })?;
    let contents = recovered.contents()?;
    recovered.stop(Shutdown::Immediate)?;
    let again = recovery_of(
        lab,
        "again",
        &lost.backup,
        subject.recovering(lab, &archive),
    )?;
    must_recover(&again, &contents)?;
    Ok(Evidence::Seen(format!(
        "{} files of the first timeline unchanged, {} more of the second; recovered again along both",
        before.len(),
        now.len().saturating_sub(before.len())
    )))
}
