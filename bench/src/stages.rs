//! Part (e): where the time goes, for one segment.
//!
//! Measured: the system calls of `walden archive` for one segment after the other, as strace(1) times them. The file
//! that is archived is recognised by its path, the one that is written by the calls that write to it, its directory by
//! being the other one that is synced. What is left between the opening of the segment and the last call is computing:
//! checking and compressing. strace stops the process at each of some 130 calls, which makes computing look up to a
//! millisecond longer than it is; the command is the same engine as the module's, with one job.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use lab::run;

use crate::backlog::empty;
use crate::part::{Measured, Session, Shared, progress};
use crate::plan::{Part, Run};
use crate::results::{Row, median};

/// How many segments are looked at, one after the other.
const SEGMENTS_MAX: usize = 10;

/// The calls that matter.
const CALLS: &str = "trace=openat,read,pread64,write,pwrite64,copy_file_range,sendfile,fsync,fdatasync,\
                     sync_file_range,linkat,renameat2,exit_group";

/// The steps, in order.
pub(crate) const STEPS: [&str; 6] = [
    "read_ms",
    "compute_ms",
    "write_ms",
    "sync_ms",
    "publish_ms",
    "sync_directory_ms",
];

/// Measures each codec.
///
/// # Errors
///
/// When strace is missing or a segment is not archived.
pub(crate) fn measure(session: &Session, shared: &Shared<'_>, plan: &Run) -> Result<Measured> {
    let mut measured = Measured::default();
    let backlog = shared.of_pgbench()?;
    let lab = &session.lab;
    let paths = backlog.paths();
    let count = plan.segments_up_to(SEGMENTS_MAX);
    let archive = lab.archive("stages")?;
    measured.note("segments", count);
    for codec in ["none", "zstd:1", "zstd", "lz4"] {
        let mut row = Row::new("", "walden archive", codec);
        for run_number in 1..=plan.runs {
            let mut steps: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
            for path in paths.iter().take(count) {
                let trace = lab.dir().join("stages.trace");
                let mut command = lab.command("strace");
                command
                    .args(["-f", "--seccomp-bpf", "-ttt", "-T", "-e", CALLS, "-o"])
                    .arg(&trace)
                    .args([
                        "walden",
                        "--archive",
                        &archive.text(),
                        "--compression",
                        codec,
                        "-D",
                    ])
                    .arg(backlog.cluster.data())
                    .arg("archive")
                    .arg(path);
                run(&mut command)?
                    .success()
                    .context("walden archive failed")?;
                let text = fs::read_to_string(&trace)?;
                for (step, took) in steps_of(&text, &path.display().to_string())? {
                    steps.entry(step).or_default().push(took);
                }
            }
            empty(archive.path())?;
            for (step, values) in &steps {
                row.add(step, median(values).unwrap_or_default());
            }
            let total: f64 = STEPS
                .iter()
                .filter_map(|step| median(steps.get(step)?))
                .sum();
            progress(
                Part::Stages,
                run_number,
                plan.runs,
                &row,
                &format!("{total:7.2} ms"),
            );
        }
        measured.rows.push(row);
    }
    Ok(measured)
}

/// One traced call.
struct Call<'a> {
    /// When it began, in seconds.
    at: f64,
    /// How long it took, in seconds.
    took: f64,
    name: &'a str,
    arguments: &'a str,
    /// What it answered.
    result: &'a str,
}

/// `12 1763786000.123456 read(4, "…", 262144) = 262144 <0.000031>`
fn call(line: &str) -> Option<Call<'_>> {
    let (_, rest) = line.split_once(' ')?;
    let (at, rest) = rest.trim_start().split_once(' ')?;
    let (name, rest) = rest.split_once('(')?;
    // Short calls are padded with blanks before the answer.
    let (arguments, answer) = rest.rsplit_once(" = ")?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    let took = answer
        .rsplit_once('<')
        .and_then(|(_, took)| took.strip_suffix('>')?.parse().ok())
        .unwrap_or_default();
    Some(Call {
        at: at.parse().ok()?,
        took,
        name,
        arguments,
        result: answer.split(' ').next().unwrap_or_default(),
    })
}

/// The steps of one traced run, in milliseconds.
fn steps_of(trace: &str, source: &str) -> Result<Vec<(&'static str, f64)>> {
    let calls: Vec<Call<'_>> = trace.lines().filter_map(call).collect();
    let begin = calls
        .iter()
        .position(|call| call.name == "openat" && call.arguments.contains(source))
        .context("the segment was never opened")?;
    let work = calls.get(begin..).unwrap_or_default();
    let first = work.first().context("no calls")?;
    let (start, from) = (first.at, first.result);
    let into = work
        .iter()
        .rfind(|call| call.name.contains("write") && !["1", "2"].contains(&descriptor(call)))
        .map(descriptor)
        .context("nothing was written")?;
    let mut spent: BTreeMap<&'static str, f64> = STEPS.map(|step| (step, 0.0)).into();
    let mut end = start;
    for call in work {
        let step = match call.name {
            "read" | "pread64" if descriptor(call) == from => "read_ms",
            "fsync" | "fdatasync" | "sync_file_range" if descriptor(call) == into => "sync_ms",
            "fsync" | "fdatasync" => "sync_directory_ms",
            "linkat" | "renameat2" => "publish_ms",
            "exit_group" => break,
            name if name.contains("write") && descriptor(call) == into => "write_ms",
            "copy_file_range" | "sendfile" => "write_ms",
            _ => continue,
        };
        *spent.entry(step).or_default() += call.took * 1e3;
        end = call.at + call.took;
    }
    let in_calls: f64 = spent.values().sum();
    spent.insert("compute_ms", ((end - start) * 1e3 - in_calls).max(0.0));
    Ok(spent.into_iter().collect())
}

/// The descriptor that a call works on.
fn descriptor<'a>(call: &Call<'a>) -> &'a str {
    call.arguments.split(',').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_between_the_calls_is_computing() {
        let trace = "7 100.000000 openat(AT_FDCWD, \"/w/1\", O_RDONLY) = 4 <0.000100>\n\
                     7 100.001000 read(4, \"x\"..., 9) = 9 <0.001000>\n\
                     7 100.003000 write(6, \"x\"..., 9) = 9 <0.002000>\n\
                     7 100.005000 fsync(6)        = 0 <0.004000>\n\
                     7 100.009000 linkat(5, \"\", 5, \"1\", 0) = 0 <0.000500>\n\
                     7 100.009500 fsync(5)        = 0 <0.000500>\n\
                     7 100.020000 exit_group(0)   = ?\n";
        let steps: BTreeMap<_, _> = steps_of(trace, "/w/1").unwrap().into_iter().collect();
        let near = |step: &str, ms: f64| (steps[step] - ms).abs() < 0.01;
        assert!(near("read_ms", 1.0) && near("write_ms", 2.0) && near("sync_ms", 4.0));
        assert!(near("publish_ms", 0.5) && near("sync_directory_ms", 0.5));
        assert!(near("compute_ms", 2.0), "{steps:?}");
    }
}
