//! `walden conformance`: the conformance suite, from flags to a report.
//!
//! Guarantees: succeeds only when every promise looked at is kept or does not apply. Left to others: the
//! promises, in the crate of the same name.

use crate::exit::Outcome;
use crate::flags::Conformance;
use crate::say;
use conformance::{Library, Line, Plan, Report};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Runs the command.
pub(crate) fn run(flags: &Conformance) -> Outcome {
    if flags.list {
        return list();
    }
    let report = match plan(flags).and_then(|plan| {
        let seen = |line: &Line| {
            let (word, name, seconds) = (line.verdict.word(), line.name, line.seconds);
            say::note(&format!(
                "PostgreSQL {}: {word} {name} ({seconds:.0} s)",
                line.server
            ));
        };
        // Also when the run is interrupted, it can be repeated.
        say::note(&format!("--seed {} repeats the random choices", plan.seed));
        conformance::run(&plan, &seen).map_err(|error| format!("{error:#}"))
    }) {
        Ok(report) => report,
        Err(message) => {
            say::error(&message, None);
            return Outcome::Failed;
        }
    };
    match print(flags, &report) {
        Outcome::Done if !report.is_good() => Outcome::Failed,
        printed => printed,
    }
}

/// The promises that there are.
fn list() -> Outcome {
    let mut text = String::new();
    for promise in conformance::promises() {
        text.push_str(&format!(
            "{}\n    {}\n    [{}]\n",
            promise.name, promise.says, promise.source
        ));
    }
    say::output(&text)
}

fn print(flags: &Conformance, report: &Report) -> Outcome {
    if flags.json {
        say::json(report)
    } else if flags.markdown {
        say::output(&report.markdown())
    } else {
        say::output(&report.text())
    }
}

/// What the flags ask for, with the defaults.
fn plan(flags: &Conformance) -> Result<Plan, String> {
    if !flags
        .settings
        .iter()
        .any(|(_, value)| value.contains("{archive}"))
    {
        return Err(
            "no --set says where the archive is: give --set 'NAME={archive}', NAME being the module's \
             parameter for its directory"
                .to_owned(),
        );
    }
    let servers = match flags.servers.as_slice() {
        [] => vec![pg_config("--bindir")?],
        given => given.to_vec(),
    };
    let client =
        std::env::current_exe().map_err(|error| format!("could not find itself: {error}"))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Plan {
        servers,
        archive: flags.archive_library.as_deref().map(Library::new),
        recovery: flags.recovery_library.as_deref().map(Library::new),
        host: flags.host.clone().map_or_else(|| host(&client), Ok)?,
        client,
        settings: flags.settings.clone(),
        restore_command: flags.restore_command.clone(),
        only: flags.only.clone(),
        seed: flags.seed.unwrap_or_else(fresh_seed),
        jobs: flags.jobs.unwrap_or(cores + 1),
        place: flags.place.clone().unwrap_or_else(conformance::quick_place),
    })
}

/// `walden.so` beside this program, as cargo builds it, else where `make install` put it.
fn host(program: &Path) -> Result<PathBuf, String> {
    let built = program.with_file_name("libwalden.so");
    if built.exists() {
        return Ok(built);
    }
    Ok(pg_config("--pkglibdir")?.join("walden.so"))
}

fn pg_config(option: &str) -> Result<PathBuf, String> {
    let answer = Command::new("pg_config").arg(option).output();
    match answer {
        Ok(answer) if answer.status.success() => Ok(PathBuf::from(
            String::from_utf8_lossy(&answer.stdout).trim(),
        )),
        _ => Err("could not ask pg_config: name a server with --server".to_owned()),
    }
}

/// Differs from run to run; nothing more is asked of it.
fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| u64::from(now.subsec_nanos()))
}
