//! The conformance suite itself, put to the test: a module with one fault fails exactly the promises that the
//! fault breaks, and one without keeps them all.
//!
//! The faults are those of `tests/modules/broken`. Each is shown to the promises that it breaks and to their nearest
//! neighbours, which it keeps; all promises are looked at without a fault, with the one that breaks most, and for each fault
//! in `make test-all`.

#![expect(clippy::print_stdout)]

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use conformance::{Kind, Library, Plan, Verdict};
use lab::{Installation, timed};

use crate::common::at_full_length;

/// Promises at a time: most of them wait most of the time.
const JOBS: usize = 5;

/// All promises of archive modules, put to the module with these parameters.
fn plan(installation: &Installation, settings: &[(&str, &str)]) -> Result<Plan> {
    let libraries = installation.library_dir();
    let module = libraries.join("broken.so");
    let seed = lab::seed()?;
    println!("WALDEN_TEST_SEED={seed}");
    let settings = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Ok(Plan {
        servers: vec![installation.pg_bin_dir().to_path_buf()],
        archive: Some(Library::new(&module.display().to_string())),
        recovery: None,
        target: None,
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

/// Runs these promises with this fault, those that it breaks and their neighbours: exactly those must be broken.
///
/// With `WALDEN_TEST_WHOLE` it runs all promises for each fault.
fn breaks(how: &str, broken: &[&str], kept: &[&str]) -> Result<()> {
    if at_full_length() {
        return breaks_of_all(how, broken);
    }
    breaks_of(how, broken, &[broken, kept].concat())
}

/// Runs all promises of archive modules with this fault.
fn breaks_of_all(how: &str, broken: &[&str]) -> Result<()> {
    let promises = conformance::promises();
    let of_archive = promises.iter().filter(|it| it.kind == Kind::Archive);
    breaks_of(
        how,
        broken,
        &of_archive.map(|it| it.name).collect::<Vec<_>>(),
    )
}

fn breaks_of(how: &str, broken: &[&str], looked_at: &[&str]) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the suite holds a module where it opens a file, which needs CAP_SYS_ADMIN: run this test as root"
    );
    let installation = Installation::of_environment()?;
    let settings = [("broken.how", how), ("broken.directory", "{archive}")];
    let plan = Plan {
        only: looked_at.iter().map(|name| (*name).to_owned()).collect(),
        ..plan(&installation, &settings)?
    };
    let report = timed(|| conformance::run(&plan, &|_| {}))?;
    assert_eq!(
        report.lines.len(),
        looked_at.len(),
        "{how}: {}",
        report.text()
    );
    let found: BTreeSet<&str> = report
        .lines
        .iter()
        .filter(|line| matches!(line.verdict, Verdict::Broken(_)))
        .map(|line| line.name)
        .collect();
    let unclear: Vec<_> = report
        .lines
        .iter()
        .filter(|line| matches!(line.verdict, Verdict::Unclear(_)))
        .collect();
    assert!(unclear.is_empty(), "{how}: {}", report.text());
    assert_eq!(
        found,
        broken.iter().copied().collect(),
        "{how}: {}",
        report.text()
    );
    assert_eq!(report.is_good(), broken.is_empty());
    Ok(())
}

/// The run ends before anything is judged, and says so in these words.
fn is_not_judged(settings: &[(&str, &str)], words: &str) -> Result<()> {
    let installation = Installation::of_environment()?;
    let judged = conformance::run(&plan(&installation, settings)?, &|_| {});
    let error = format!("{:#}", judged.err().context("the module was judged")?);
    assert!(error.contains(words), "{error}");
    Ok(())
}

#[test]
fn a_module_that_is_not_configured_is_not_judged() -> Result<()> {
    is_not_judged(
        &[
            ("broken.how", "none"),
            ("broken.directory", "{archive}/no/such"),
        ],
        "are its parameters given with --set?",
    )
}

#[test]
fn a_server_that_does_not_start_with_the_parameters_judges_nothing() -> Result<()> {
    is_not_judged(
        &[
            ("broken.directory", "{archive}"),
            ("shared_preload_libraries", "no_such_library"),
        ],
        "no_such_library",
    )
}

#[test]
fn a_module_that_archives_into_subdirectories_is_not_judged() -> Result<()> {
    is_not_judged(
        &[("broken.how", "nests"), ("broken.directory", "{archive}")],
        "and the suite looks for a file of that name in the archive's directory itself",
    )
}

#[test]
fn a_module_without_a_fault_keeps_every_promise() -> Result<()> {
    breaks_of_all("none", &[])
}

#[test]
fn a_module_that_renames_over_what_is_there_is_caught() -> Result<()> {
    breaks(
        "overwrites",
        &["different-bytes-refused", "nothing-overwritten-in-between"],
        &[
            "same-bytes-succeed",
            "archived-is-there",
            "visible-only-when-whole",
        ],
    )
}

#[test]
fn a_module_that_looks_before_it_renames_is_caught_by_a_file_that_appears_in_between() -> Result<()>
{
    breaks(
        "looks_then_overwrites",
        &["nothing-overwritten-in-between"],
        &[
            "different-bytes-refused",
            "same-bytes-succeed",
            "visible-only-when-whole",
        ],
    )
}

#[test]
fn a_module_that_refuses_what_it_has_stored_already_is_caught() -> Result<()> {
    breaks(
        "refuses_the_same",
        &[
            "same-bytes-succeed",
            "durable-when-found",
            "whole-after-kills",
            "two-servers-one-archive",
        ],
        &[
            "different-bytes-refused",
            "archived-is-there",
            "failure-is-retried",
        ],
    )
}

#[test]
fn a_module_that_calls_archived_what_it_could_not_store_is_caught() -> Result<()> {
    breaks(
        "lies_after_failures",
        &[
            "different-bytes-refused",
            "nothing-overwritten-in-between",
            "failure-is-retried",
        ],
        &[
            "same-bytes-succeed",
            "archived-is-there",
            "failure-ends-nothing",
        ],
    )
}

#[test]
fn a_module_that_stores_nothing_is_caught_wherever_something_is_looked_for() -> Result<()> {
    breaks_of_all(
        "lies",
        &[
            "restores-the-same-server",
            "same-bytes-succeed",
            "different-bytes-refused",
            "nothing-overwritten-in-between",
            "visible-only-when-whole",
            "archived-is-there",
            "failure-is-retried",
            "durable-when-archived",
            "durable-when-found",
            "configured-later",
            "library-changed",
            "fast-shutdown-drains",
            "whole-after-kills",
            "timeline-history-first",
            "every-kind-of-file",
            "segment-sizes",
            "two-servers-one-archive",
        ],
    )
}

#[test]
fn a_module_that_writes_under_the_final_name_is_caught() -> Result<()> {
    breaks(
        "half_written",
        &["visible-only-when-whole"],
        &[
            "archived-is-there",
            "whole-after-kills",
            "nothing-left-behind",
        ],
    )
}

#[test]
fn a_module_that_never_syncs_is_caught() -> Result<()> {
    breaks(
        "never_syncs",
        &["durable-when-archived", "durable-when-found"],
        &[
            "archived-is-there",
            "whole-after-kills",
            "visible-only-when-whole",
        ],
    )
}

#[test]
fn a_module_that_blocks_the_archiver_is_caught() -> Result<()> {
    breaks(
        "blocks",
        &[
            "slow-storage-drop-database",
            "slow-storage-reload",
            "slow-storage-promotion",
        ],
        &[
            "configured-later",
            "failure-ends-nothing",
            "fast-shutdown-drains",
        ],
    )
}

#[test]
fn a_module_that_leaves_temporary_files_behind_is_caught() -> Result<()> {
    breaks(
        "litters",
        &["nothing-left-behind"],
        &[
            "visible-only-when-whole",
            "whole-after-kills",
            "failure-is-retried",
        ],
    )
}

#[test]
fn a_module_that_never_tries_again_is_caught() -> Result<()> {
    breaks(
        "gives_up",
        &["failure-is-retried"],
        &[
            "failure-ends-nothing",
            "archived-is-there",
            "configured-later",
        ],
    )
}

#[test]
fn a_module_that_ends_the_archiver_is_caught() -> Result<()> {
    breaks(
        "ends",
        &["failure-ends-nothing"],
        &["failure-is-retried", "library-changed"],
    )
}

#[test]
fn a_module_that_reads_its_parameter_once_is_caught() -> Result<()> {
    breaks(
        "reads_once",
        &["configured-later"],
        &["library-changed", "failure-is-retried"],
    )
}

#[test]
fn a_module_that_forgets_one_kind_of_file_is_caught() -> Result<()> {
    breaks(
        "forgets_backups",
        &["every-kind-of-file"],
        &[
            "timeline-history-first",
            "archived-is-there",
            "restores-the-same-server",
        ],
    )
}

#[test]
fn a_module_that_knows_one_size_of_segments_is_caught() -> Result<()> {
    breaks(
        "small",
        &["segment-sizes"],
        &[
            "every-kind-of-file",
            "archived-is-there",
            "restores-the-same-server",
        ],
    )
}

#[test]
fn a_module_that_stores_nothing_during_a_shutdown_is_caught() -> Result<()> {
    breaks(
        "hurries",
        &["fast-shutdown-drains"],
        &["configured-later", "library-changed", "slow-storage-reload"],
    )
}
