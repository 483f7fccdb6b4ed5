//! Runs the promises: several at a time, each in a lab of its own, on each server.
//!
//! Guarantees that every promise of the kinds under test has a verdict, on every server, in the order of
//! the list.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lab::Lab;

use crate::promise::{Kind, Promise, Verdict};
use crate::report::{Line, Report};
use crate::subject::{Plan, Subject};
use crate::{archive, first_look, recovery, target};

/// All promises, in the order of the report.
#[must_use]
pub fn promises() -> Vec<&'static Promise> {
    archive::PROMISES
        .iter()
        .chain(recovery::PROMISES)
        .chain(target::PROMISES)
        .flat_map(|group| group.iter())
        .collect()
}

/// Runs the plan; `seen` hears of each verdict as it comes, from several threads.
///
/// # Errors
///
/// When a server or a library is not there, the plan names a promise that does not exist, or the archive
/// module cannot be judged.
pub fn run(plan: &Plan, seen: &(dyn Fn(&Line) + Sync)) -> Result<Report> {
    let chosen = chosen(plan)?;
    // All at first, so that what is missing shows before anything is run.
    let laid_out = plan
        .servers
        .iter()
        .map(|server| Subject::lay_out(plan, server));
    let subjects = laid_out.collect::<Result<Vec<_>>>()?;
    let mut versions = BTreeSet::new();
    for subject in &subjects {
        // The report tells servers by their versions.
        let version = subject.installation.version();
        ensure!(
            versions.insert(version),
            "two servers of version {version} are given: leave one out"
        );
    }
    for subject in &subjects {
        Lab::of(Arc::clone(&subject.installation))
            .and_then(|lab| first_look::look(subject, &lab))
            .with_context(|| format!("on PostgreSQL {}", subject.installation.version()))?;
    }
    let mut lines = Vec::new();
    let mut servers = Vec::new();
    for subject in &subjects {
        servers.push(subject.installation.version().to_owned());
        lines.extend(run_on(subject, &chosen, seen));
    }
    Ok(Report {
        archive_library: plan
            .archive
            .as_ref()
            .map(|library| library.name().to_owned()),
        recovery_library: plan
            .recovery
            .as_ref()
            .map(|library| library.name().to_owned()),
        target_library: plan
            .target
            .as_ref()
            .map(|target| target.library.name().to_owned()),
        servers,
        seed: plan.seed,
        lines,
    })
}

/// The promises that the plan asks for.
fn chosen(plan: &Plan) -> Result<Vec<&'static Promise>> {
    let all = promises();
    for name in &plan.only {
        ensure!(
            all.iter().any(|promise| promise.name == name),
            "there is no promise \"{name}\": `walden-conformance --list` names them"
        );
    }
    ensure!(!plan.servers.is_empty(), "no server is given");
    let chosen: Vec<_> = all
        .into_iter()
        .filter(|promise| match promise.kind {
            Kind::Archive => plan.archive.is_some(),
            Kind::Recovery => plan.recovery.is_some(),
            Kind::Target => plan.target.is_some(),
        })
        .filter(|promise| plan.only.is_empty() || plan.only.iter().any(|name| name == promise.name))
        .collect();
    ensure!(
        !chosen.is_empty(),
        "there is nothing to look at: name the archive, recovery or target library that makes these promises"
    );
    Ok(chosen)
}

fn run_on(
    subject: &Subject,
    chosen: &[&'static Promise],
    seen: &(dyn Fn(&Line) + Sync),
) -> Vec<Line> {
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<(usize, Line)>> = Mutex::default();
    // The longest stand last in the list; begun first, they hold nothing up in the end.
    let order: Vec<(usize, &Promise)> = chosen.iter().copied().enumerate().rev().collect();
    thread::scope(|scope| {
        for _ in 0..subject.plan.jobs.max(1) {
            scope.spawn(|| {
                while let Some((index, promise)) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    let verdict = examine(promise, subject);
                    let took = begun.elapsed();
                    let line = Line::new(promise, subject.installation.version(), verdict, took);
                    seen(&line);
                    found
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((*index, line));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, line)| line).collect()
}

/// One promise in a lab of its own. A panic is the suite's fault, not the module's.
fn examine(promise: &Promise, subject: &Subject) -> Verdict {
    let examined = catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::of(Arc::clone(&subject.installation))
            .context("could not make a place to work in")?;
        anyhow::Ok(promise.examine(subject, &lab))
    }));
    match examined {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(error)) => Verdict::Unclear(format!("{error:#}")),
        Err(_) => {
            Verdict::Unclear("the check itself panicked; this is a fault of the suite".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn promises_have_names_of_their_own_and_sentences_without_a_full_stop() {
        let names: BTreeSet<&str> = promises().iter().map(|promise| promise.name).collect();
        assert_eq!(names.len(), promises().len());
        for promise in promises() {
            let plain = |letter: char| letter.is_ascii_lowercase() || letter == '-';
            assert!(promise.name.chars().all(plain), "{}", promise.name);
            assert!(!promise.says.ends_with('.'), "{}", promise.name);
            assert!(!promise.source.is_empty(), "{}", promise.name);
        }
    }
}
