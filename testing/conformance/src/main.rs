//! `walden-conformance`: the conformance suite, from flags to a report.
//!
//! Guarantees: succeeds only when every promise looked at is kept or does not apply; the exit statuses are
//! those of `walden`'s commands (1 failed, 2 usage error, 3 internal error).
//! Left to others: the promises, in the library of the same package.

mod flags;

use std::any::Any;
use std::io::{ErrorKind, Write};
use std::panic;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use conformance::Line;

use flags::Flags;

/// The command line was wrong.
const USAGE: u8 = 2;

/// A bug.
const PANICKED: u8 = 3;

fn main() -> ExitCode {
    panic::set_hook(Box::new(|info| {
        let at = info.location().map(ToString::to_string);
        let what = message(info.payload());
        say(
            "error",
            &format!(
                "internal error, please report this bug: {what} ({})",
                at.unwrap_or_default()
            ),
        );
    }));
    panic::catch_unwind(run).unwrap_or(ExitCode::from(PANICKED))
}

/// What a panic says.
fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

fn run() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => return explain(&error),
    };
    match judge(&flags) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say("error", &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Help and the version are results; everything else is a usage error.
fn explain(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if !error.use_stderr() {
        return output(&text).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    say(
        "error",
        text.strip_prefix("error: ").unwrap_or(&text).trim_end(),
    );
    ExitCode::from(USAGE)
}

/// Runs the suite, and answers whether nothing is broken or unclear.
fn judge(flags: &Flags) -> Result<bool> {
    if flags.list {
        output(&promises())?;
        return Ok(true);
    }
    let plan = flags.plan()?;
    // Also when the run is interrupted, it can be repeated.
    say(
        "note",
        &format!("--seed {} repeats the random choices", plan.seed),
    );
    let report = conformance::run(&plan, &|line: &Line| {
        let (word, name, seconds) = (line.verdict.word(), line.name, line.seconds);
        say(
            "note",
            &format!("PostgreSQL {}: {word} {name} ({seconds:.0} s)", line.server),
        );
    })?;
    if flags.json {
        output(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    } else if flags.markdown {
        output(&report.markdown())?;
    } else {
        output(&report.text())?;
    }
    Ok(report.is_good())
}

/// The promises that there are.
fn promises() -> String {
    conformance::promises()
        .iter()
        .map(|it| format!("{}\n    {}\n    [{}]\n", it.name, it.says, it.source))
        .collect()
}

/// Writes a whole result to standard output.
fn output(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // The reader, `head` say, has seen enough.
        Err(cause) if cause.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("could not write to standard output"),
    }
}

/// A line on standard error. One that cannot be written is dropped: the exit status is worth more.
fn say(kind: &str, message: &str) {
    let _ = writeln!(
        std::io::stderr().lock(),
        "walden-conformance: {kind}: {message}"
    );
}
