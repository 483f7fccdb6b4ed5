//! The conformance suite is itself put to the test: a recovery module that breaks one promise on request has to be
//! found to break exactly that one, and those that follow from it.
//!
//! Each fault is shown to the promises it breaks and to their nearest neighbours, which it keeps; without a fault
//! all are looked at. The module is `tests/modules/broken_recovery`.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use conformance::{Kind, Library, Plan, Report, promises, quick_place, run};
use lab::{Installation, timed};

/// How many promises are looked at at a time: their servers wait more than they work.
const JOBS: usize = 4;

/// Any will do.
const SEED: u64 = 20_261_121;

/// Runs these promises on the module with this fault.
fn examine(fault: &str, only: &[&str]) -> Result<Report> {
    let installation = Installation::of_environment()?;
    let libraries = installation.library_dir();
    let library = libraries.join("broken_recovery.so");
    ensure!(
        library.exists(),
        "broken_recovery.so was not built: run `make build`"
    );
    let plan = Plan {
        servers: vec![installation.pg_bin_dir().to_path_buf()],
        archive: None,
        recovery: Some(Library::new(&library.to_string_lossy())),
        target: None,
        host: libraries.join("walden.so"),
        client: libraries.with_file_name("bin").join("walden"),
        settings: [
            ("broken_recovery.directory", "{archive}"),
            ("broken_recovery.how", fault),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        restore_command: String::new(),
        only: only.iter().map(|name| (*name).to_owned()).collect(),
        seed: SEED,
        jobs: JOBS,
        place: quick_place(),
    };
    timed(|| run(&plan, &|_| ()))
}

/// Fails unless the module with this fault breaks exactly `broken`, and keeps `kept`.
fn breaks(fault: &str, broken: &[&str], kept: &[&str]) -> Result<()> {
    let report = examine(fault, &[broken, kept].concat())?;
    let found: BTreeSet<&str> = report
        .lines
        .iter()
        .filter(|line| !line.verdict.is_good())
        .map(|line| line.name)
        .collect();
    let expected: BTreeSet<&str> = broken.iter().copied().collect();
    ensure!(found == expected, "{}", report.text());
    for line in &report.lines {
        let word = line.verdict.word();
        ensure!(
            word == "kept" || word == "BROKEN",
            "{}: {word}: {}",
            line.name,
            line.verdict.evidence()
        );
    }
    Ok(())
}

#[test]
fn a_module_without_a_fault_keeps_every_promise() -> Result<()> {
    let report = examine("nothing", &[])?;
    let all = promises()
        .iter()
        .filter(|promise| promise.kind == Kind::Recovery)
        .count();
    ensure!(
        report.is_good() && report.lines.len() == all,
        "{}",
        report.text()
    );
    // It is no archive module.
    let others: Vec<_> = report
        .lines
        .iter()
        .filter(|line| line.verdict.word() != "kept")
        .collect();
    ensure!(
        others
            .iter()
            .all(|line| line.name == "one-library-for-both"),
        "{}",
        report.text()
    );
    Ok(())
}

#[test]
fn calling_a_file_absent_that_cannot_be_read_is_found() -> Result<()> {
    breaks(
        "says_absent_on_failure",
        &["cut-off-file", "outage-is-not-absence"],
        &[
            "failure-is-contained",
            "hang-is-bounded",
            "absent-ends-recovery",
        ],
    )
}

#[test]
fn failing_over_a_file_that_is_not_there_is_found() -> Result<()> {
    breaks(
        "fails_on_absence",
        &[
            "absent-ends-recovery",
            "killed-restore",
            "timeline-history-files",
        ],
        &["same-answer-again", "cut-off-file"],
    )
}

#[test]
fn handing_over_what_is_cut_off_is_found() -> Result<()> {
    for fault in ["hands_over_truncated", "fills_up"] {
        breaks(
            fault,
            &["cut-off-file"],
            &["same-answer-again", "failure-is-contained"],
        )?;
    }
    Ok(())
}

#[test]
fn handing_a_file_over_only_once_is_found() -> Result<()> {
    breaks(
        "forgets",
        &["same-answer-again"],
        &["any-order", "timeline-history-files"],
    )
}

#[test]
fn going_forward_only_is_found() -> Result<()> {
    breaks(
        "only_forward",
        &["any-order"],
        &["same-answer-again", "standby-follows"],
    )
}

#[test]
fn remembering_what_was_absent_is_found() -> Result<()> {
    breaks(
        "remembers_absence",
        &[
            "standby-follows",
            "standby-lives-through-outage",
            "timeline-history-files",
        ],
        &["same-answer-again", "promotion-during-outage"],
    )
}

#[test]
fn knowing_one_segment_size_only_is_found() -> Result<()> {
    breaks(
        "usual_size",
        &["every-segment-size"],
        &["same-answer-again"],
    )
}

#[test]
fn writing_under_the_name_the_server_looks_at_is_found() -> Result<()> {
    breaks(
        "writes_there",
        &["whole-before-visible"],
        &["restores-to-a-restore-point"],
    )
}

#[test]
fn stumbling_over_what_a_killed_process_left_is_found() -> Result<()> {
    breaks(
        "locks",
        &["killed-restore"],
        &["same-answer-again", "failure-is-contained"],
    )
}

#[test]
fn dying_of_a_failure_is_found() -> Result<()> {
    breaks(
        "dies",
        &["failure-is-contained", "standby-lives-through-outage"],
        &["same-answer-again"],
    )
}

#[test]
fn being_busy_after_a_failure_is_found() -> Result<()> {
    breaks(
        "hangs",
        &["failure-is-contained", "standby-lives-through-outage"],
        &["same-answer-again", "promotion-during-outage"],
    )
}

#[test]
fn cleaning_nothing_up_is_found() -> Result<()> {
    breaks(
        "removes_nothing",
        &["cleanup-removes-old-segments"],
        &["cleanup-keeps-needed-segments", "cleanup-keeps-other-files"],
    )
}

#[test]
fn cleaning_up_what_is_needed_is_found() -> Result<()> {
    breaks(
        "removes_parents",
        &["cleanup-keeps-needed-segments"],
        &[
            "cleanup-removes-old-segments",
            "cleanup-keeps-other-files",
            "cleanup-at-restartpoints",
        ],
    )?;
    breaks(
        "removes_too_much",
        &["cleanup-keeps-needed-segments", "cleanup-at-restartpoints"],
        &["cleanup-removes-old-segments"],
    )
}

#[test]
fn cleaning_up_timeline_history_files_is_found() -> Result<()> {
    breaks(
        "removes_history",
        &["cleanup-keeps-other-files"],
        &[
            "cleanup-removes-old-segments",
            "cleanup-keeps-needed-segments",
        ],
    )
}

#[test]
fn failing_at_the_end_of_recovery_is_found() -> Result<()> {
    breaks(
        "fails_at_end",
        &["recovery-end-once"],
        &["promotion-during-outage"],
    )
}
