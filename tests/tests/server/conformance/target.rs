//! The promises of base backup targets, put to the test: a target with one fault fails exactly those that the fault breaks, and
//! one without keeps them all.
//!
//! The faults are those of `tests/modules/broken_target`. As with archive modules each is shown to the promises that it breaks
//! and to their nearest neighbours, and to all in `make test-all`.

#![expect(clippy::print_stdout)]

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use conformance::{Kind, Library, Plan, Target, Verdict};
use lab::{Installation, timed};

use crate::common::at_full_length;

/// Promises at a time: servers that copy whole data directories keep two processors busy.
const JOBS: usize = 3;

fn plan(installation: &Installation, target: &str, settings: &[(&str, &str)]) -> Result<Plan> {
    let libraries = installation.library_dir();
    let seed = lab::seed()?;
    println!("WALDEN_TEST_SEED={seed}");
    let (name, _) = target.split_once(':').unwrap_or((target, ""));
    let library = match name {
        "directory" => "backup_to_directory.so",
        _ => "broken_target.so",
    };
    let settings = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Ok(Plan {
        servers: vec![installation.pg_bin_dir().to_path_buf()],
        archive: None,
        recovery: None,
        target: Some(Target {
            library: Library::new(&libraries.join(library).display().to_string()),
            name: target.to_owned(),
            unpack: None,
            refused_role: (name == "broken").then(|| "stranger".to_owned()),
        }),
        host: libraries.join("walden.so"),
        client: libraries.with_file_name("bin").join("walden"),
        settings: settings.collect(),
        restore_command: "cp {archive}/%f %p".to_owned(),
        only: Vec::new(),
        seed,
        jobs: JOBS,
        place: conformance::quick_place(),
    })
}

fn names() -> Vec<&'static str> {
    let promises = conformance::promises();
    let of_targets = promises.iter().filter(|it| it.kind == Kind::Target);
    of_targets.map(|it| it.name).collect()
}

/// Runs these promises, those that the fault breaks and their neighbours: exactly those must be broken.
fn breaks(how: &str, broken: &[&str], kept: &[&str]) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "storage is made slow with strace, which needs CAP_SYS_PTRACE: run this test as root"
    );
    let installation = Installation::of_environment()?;
    let settings = [
        ("broken_target.how", how),
        ("broken_target.directory", "{archive}"),
    ];
    let looked_at = if at_full_length() {
        names()
    } else {
        [broken, kept].concat()
    };
    judge(
        Plan {
            only: looked_at.iter().map(|name| (*name).to_owned()).collect(),
            ..plan(&installation, "broken:{n}", &settings)?
        },
        how,
        broken,
        looked_at.len(),
    )
}

fn judge(plan: Plan, what: &str, broken: &[&str], lines: usize) -> Result<()> {
    let report = timed(|| conformance::run(&plan, &|_| {}))?;
    assert_eq!(report.lines.len(), lines, "{what}: {}", report.text());
    let named = |broken: bool| -> BTreeSet<&str> {
        let lines = report.lines.iter().filter(|line| match line.verdict {
            Verdict::Broken(_) => broken,
            Verdict::Unclear(_) => !broken,
            _ => false,
        });
        lines.map(|line| line.name).collect()
    };
    assert!(named(false).is_empty(), "{what}: {}", report.text());
    assert_eq!(
        named(true),
        broken.iter().copied().collect(),
        "{what}: {}",
        report.text()
    );
    assert_eq!(report.is_good(), broken.is_empty());
    Ok(())
}

#[test]
fn a_target_without_a_fault_keeps_every_promise() -> Result<()> {
    breaks("none", &[], &names())
}

#[test]
fn the_example_keeps_every_promise() -> Result<()> {
    let installation = Installation::of_environment()?;
    let settings = [("backup_to_directory.directory", "{archive}")];
    let plan = plan(&installation, "directory:backup-{n}", &settings)?;
    judge(plan, "backup_to_directory", &[], names().len())
}

#[test]
fn a_target_that_loses_bytes_is_found_out() -> Result<()> {
    // With all of them each one meets it in the end.
    let broken = if at_full_length() {
        names()
    } else {
        vec!["backup-is-whole"]
    };
    breaks("loses_a_piece", &broken, &[])
}

#[test]
fn a_target_that_writes_under_the_last_name_is_found_out() -> Result<()> {
    breaks(
        "in_place",
        &["killed-server"],
        &["ended-session", "failed-backup-is-none"],
    )
}

#[test]
fn a_target_that_does_not_wait_for_the_servers_verdict_is_found_out() -> Result<()> {
    breaks(
        "names_early",
        &["wrong-checksum-is-no-backup"],
        &["failed-backup-is-none"],
    )
}

#[test]
fn a_target_that_says_all_is_well_without_its_storage_is_found_out() -> Result<()> {
    breaks("lies", &["storage-away-is-failure"], &["backup-is-whole"])
}

#[test]
fn a_target_that_takes_the_server_with_it_is_found_out() -> Result<()> {
    breaks("aborts", &["storage-away-is-failure"], &["backup-is-whole"])
}

#[test]
fn a_target_with_one_folder_for_all_that_is_unfinished_is_found_out() -> Result<()> {
    breaks(
        "shares",
        &["two-backups-at-once"],
        &["two-backups-in-a-session"],
    )
}

#[test]
fn a_target_that_does_not_look_up_is_found_out() -> Result<()> {
    breaks(
        "deaf",
        &["slow-storage-holds-nothing-up"],
        &["backup-is-whole"],
    )
}

#[test]
fn a_target_that_serves_a_session_once_is_found_out() -> Result<()> {
    breaks(
        "once",
        &["two-backups-in-a-session"],
        &["two-backups-at-once"],
    )
}

#[test]
fn a_target_that_stays_busy_after_a_failure_is_found_out() -> Result<()> {
    breaks(
        "busy",
        &["two-backups-in-a-session"],
        &["failed-backup-is-none"],
    )
}

#[test]
fn a_target_that_asks_nobody_for_a_role_is_found_out() -> Result<()> {
    breaks("open", &["refused-role"], &["backup-is-whole"])
}

#[test]
fn a_target_that_is_not_configured_is_not_judged() -> Result<()> {
    let installation = Installation::of_environment()?;
    let settings = [("broken_target.directory", "{archive}/no/such")];
    let judged = conformance::run(&plan(&installation, "broken:{n}", &settings)?, &|_| {});
    let error = format!("{:#}", judged.err().context("the target was judged")?);
    assert!(
        error.contains("are its parameters given with --set"),
        "{error}"
    );
    assert!(error.contains("could not look into"), "{error}");
    Ok(())
}
