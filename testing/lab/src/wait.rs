//! Waiting for conditions, always against a deadline.
//!
//! Guarantees that a wait ends, and that the error of one that ended too late says what was waited for.
//! Leaves to the caller what a condition costs: it is asked at least twenty times a second.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a condition may take: far above what a loaded machine with two cores needs, so that a test
/// that reaches it has found a hang and not a slow day.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// The pauses between two looks at a condition: the first is short enough to catch a server process in
/// the middle of a file, the longest leaves the processors to what is waited for.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Waits until `condition` answers true, for at most [`DEADLINE`].
///
/// # Errors
///
/// When the deadline passes (the message names `what`), and whatever `condition` fails with.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_for(what, DEADLINE, || Ok(condition()?.then_some(())))
}

/// Waits until `condition` answers with something, for at most `deadline`, and returns it.
///
/// # Errors
///
/// When the deadline passes (the message names `what`), and whatever `condition` fails with.
pub fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        if let Some(found) = condition()? {
            return Ok(found);
        }
        if begun.elapsed() > deadline {
            bail!("waited {} s in vain for: {what}", deadline.as_secs());
        }
        thread::sleep(pause);
        pause = (pause * 5 / 4).min(PAUSE_MAX);
    }
}
