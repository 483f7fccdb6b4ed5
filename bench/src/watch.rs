//! Waiting for what is measured, at a fixed pace and against a deadline.
//!
//! The harness's own waiting slows down up to 50 ms, which is too coarse here.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks: fine enough for work that takes seconds, coarse enough to cost nothing beside it.
pub(crate) const PACE: Duration = Duration::from_millis(5);

/// How long anything measured may take: far above the slowest contender's run.
pub(crate) const DEADLINE: Duration = Duration::from_secs(600);

/// Looks until `is_done`, and answers with how long that took since `begun`.
///
/// # Errors
///
/// When [`DEADLINE`] passes (the message names `what`), and whatever `is_done` fails with.
pub(crate) fn until(
    what: &str,
    begun: Instant,
    mut is_done: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    loop {
        if is_done()? {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > DEADLINE {
            bail!("waited {} s in vain for {what}", DEADLINE.as_secs());
        }
        thread::sleep(PACE);
    }
}
