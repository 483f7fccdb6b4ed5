//! The profile: which functions the archiver spends its time in while it drains a backlog.
//!
//! Sampled a thousand times a second by perf(1) over all threads of the archiver, kernel included; a share of the
//! samples is a share of the processor time, not of the clock.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use lab::{Lab, Shutdown, run_for};
use rustix::process::{Pid, Signal, kill_process};

use crate::backlog::Backlog;
use crate::contenders::{Served, Stage, Way};
use crate::part::{Measured, Session, Shared, step};
use crate::results::Row;
use crate::watch;

/// Functions below this share are left out, in per cent.
const SHARE_MIN: &str = "1";

/// Profiles Walden without compression and with `zstd:1`.
///
/// # Errors
///
/// When perf fails; when it is missing a row says so.
pub(crate) fn measure(session: &Session, shared: &Shared<'_>) -> Result<Measured> {
    let mut measured = Measured::default();
    let backlog = shared.of_pgbench()?;
    let stage = Stage::new(session, "profile", &backlog.cluster);
    let found = session.lab.command("perf").arg("--version").output();
    if !found.is_ok_and(|said| said.status.success()) {
        let why = "perf is not here";
        measured.rows.push(Row::missing("", "Walden", "", why));
        return Ok(measured);
    }
    for codec in ["none", "zstd:1"] {
        let Way::Server(served) = stage.walden(stage.jobs(), codec)?.way else {
            bail!("Walden is not served by a server");
        };
        step(&format!("profiling the archiver, {codec}"));
        let report = sample(&session.lab, backlog, &served)?;
        measured.rows.extend(functions(&report, codec));
    }
    Ok(measured)
}

fn sample(lab: &Lab, backlog: &Backlog<'_>, served: &Served) -> Result<String> {
    served.prepare(lab, &backlog.cluster.data())?;
    backlog.start(&served.idle)?;
    let archiver = backlog.cluster.wait_for_process("archiver")?;
    let data = lab.dir().join("perf.data");
    let mut perf = lab
        .command("perf")
        .args([
            "record",
            "-q",
            "-F",
            "999",
            "-p",
            &archiver.pid.to_string(),
            "-o",
        ])
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("could not start perf")?;
    lab::wait_until("perf to sample", || has_counters(perf.id()))?;
    let begun = backlog.release(&served.active)?;
    watch::until("the backlog to be archived", begun, || backlog.is_drained())?;
    let pid = Pid::from_raw(i32::try_from(perf.id())?).context("no process id")?;
    kill_process(pid, Signal::INT)?;
    perf.wait()?;
    backlog.cluster.stop(Shutdown::Immediate)?;
    served.clear()?;
    let mut report = lab.command("perf");
    report.args(["report", "--stdio", "-q", "--percent-limit", SHARE_MIN]);
    report.args(["--sort", "dso,symbol", "-i"]).arg(&data);
    let said = run_for(&mut report, watch::DEADLINE)?.success()?;
    std::fs::remove_file(&data)?;
    Ok(said)
}

/// Whether a process has opened counters, of which perf keeps one for each thread.
fn has_counters(pid: u32) -> Result<bool> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = std::fs::read_link(entry?.path()).unwrap_or_default();
        if target.to_string_lossy().contains("perf_event") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One row for each function: `    42.50%  walden.so  [.] ZSTD_compressBlock_fast`.
fn functions(report: &str, codec: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in report.lines() {
        let Some((share, rest)) = line.trim().split_once('%') else {
            continue;
        };
        let Ok(share) = share.trim().parse::<f64>() else {
            continue;
        };
        let mut fields = rest.split_whitespace();
        let object = fields.next().unwrap_or_default();
        let symbol: Vec<&str> = fields
            .filter(|word| *word != "-" && !word.starts_with('['))
            .collect();
        let object = object.trim_matches(['[', ']']);
        let mut row = Row::new(codec, &symbol.join(" "), object);
        row.add("share_percent", share);
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_read_with_its_share_and_where_it_lies() {
        let rows = functions(
            "    42.50%  walden.so  [.] ZSTD_f\n\n  7.10%  [kernel.kallsyms]  [k] copy  -      -\n",
            "x",
        );
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].median("share_percent"), Some(42.5));
        assert_eq!(
            (rows[1].contender.as_str(), rows[1].codec.as_str()),
            ("copy", "kernel.kallsyms")
        );
    }
}
