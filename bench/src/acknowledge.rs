//! Part (c): the answer about a file that is durable already.
//!
//! Measured by Walden itself, inside `archive_file_cb`: at `log_min_messages = debug1` it says of each file how long
//! after the call it answered ("acknowledged in N us"). With four jobs most files of a backlog are durable when the
//! server hands them over; the median is such a file's.

use anyhow::{Result, bail};
use lab::Shutdown;

use crate::contenders::{Stage, WALDEN_4, Way};
use crate::part::{Measured, Session, Shared, progress};
use crate::plan::{Part, Run};
use crate::results::{Row, median, number};
use crate::watch;

/// What Walden's message has before the number, and after it.
const BEFORE: &str = "acknowledged in ";
const AFTER: &str = " us";

/// Measures Walden with four jobs; the others tell no such figure.
///
/// # Errors
///
/// When the backlog is not archived.
pub(crate) fn measure(session: &Session, shared: &Shared<'_>, plan: &Run) -> Result<Measured> {
    let mut measured = Measured::default();
    measured.note("segments", plan.segments);
    let backlog = shared.of_pgbench()?;
    let stage = Stage::new(session, "acknowledge", &backlog.cluster);
    for codec in ["none", "zstd:1"] {
        let contender = stage.walden(4, codec)?;
        let served = match contender.way {
            Way::Server(served) => served,
            Way::Missing(why) => {
                measured.rows.push(Row::missing("", WALDEN_4, codec, why));
                continue;
            }
            Way::FileEach | Way::OneFile => bail!("a limit acknowledges nothing"),
        };
        let mut row = Row::new("", WALDEN_4, codec);
        for run in 1..=plan.runs {
            served.prepare(&session.lab, &backlog.cluster.data())?;
            let mut idle = served.idle.clone();
            idle.push(("log_min_messages".to_owned(), "debug1".to_owned()));
            backlog.start(&idle)?;
            let mark = backlog.cluster.mark()?;
            let begun = backlog.release(&served.active)?;
            watch::until("the backlog to be archived", begun, || backlog.is_drained())?;
            let log = backlog.cluster.log(mark)?;
            backlog.cluster.stop(Shutdown::Immediate)?;
            let mut said = answers_us(&log);
            if said.is_empty() {
                row.missing = Some("this build does not say".to_owned());
                break;
            }
            said.sort_by(f64::total_cmp);
            let middle = median(&said).unwrap_or_default();
            row.add("answer_median_us", middle);
            row.add("answers", number(u64::try_from(said.len())?));
            row.add(
                "answers_under_50_us",
                number(u64::try_from(below(&said, 50.0))?),
            );
            progress(
                Part::Acknowledge,
                run,
                plan.runs,
                &row,
                &format!("{middle:7.1} µs"),
            );
        }
        served.clear()?;
        measured.rows.push(row);
    }
    Ok(measured)
}

fn below(values: &[f64], limit: f64) -> usize {
    values.iter().filter(|value| **value < limit).count()
}

/// The durations that the archiver's messages name.
fn answers_us(log: &str) -> Vec<f64> {
    log.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(BEFORE)?;
            rest.split_once(AFTER)?.0.parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_count_and_all_of_them() {
        let log = "DEBUG:  file \"a\" acknowledged in 12 us\nDEBUG:  other\n\
                   DEBUG:  archived file \"b\": stored, acknowledged in 7.5 us\n";
        assert_eq!(answers_us(log), [12.0, 7.5]);
    }
}
