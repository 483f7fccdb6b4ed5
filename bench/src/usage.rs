//! Processor time and memory of a server's process and of everything it starts.
//!
//! Guarantees that helpers are counted that outlive or leave their parent (pgBackRest's asynchronous process, the
//! processes by which WAL-RUS fetches ahead): this program adopts them, and asks the dead for their times before it
//! buries them. Processor time has the kernel's resolution of 10 ms, so only sums over seconds mean anything.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};

use crate::results::number;

/// What `/proc` counts processor time in, a second (`USER_HZ`, fixed on Linux's common architectures).
const TICKS_PER_SECOND: f64 = 100.0;

/// Programs that leave their parents.
const STRAYS: [&str; 2] = ["pgbackrest", "walrus"];

/// Makes this program the parent of processes that lose their own.
///
/// # Errors
///
/// When the kernel refuses.
pub(crate) fn adopt() -> Result<()> {
    set_child_subreaper(Some(getpid())).context("could not become the parent of orphans")
}

/// One process as `/proc` shows it.
struct Seen {
    pid: u32,
    parent: u32,
    name: String,
    is_dead: bool,
    /// Its own time and that of children it has waited for.
    ticks: u64,
}

/// Seconds of processor time that a process, those it started, and strays have used so far.
///
/// # Errors
///
/// When `/proc` cannot be read.
pub(crate) fn cpu_seconds(roots: &[u32]) -> Result<f64> {
    let all = look()?;
    let family = family(roots, &all);
    let ticks = all
        .iter()
        .filter(|seen| family.contains(&seen.pid))
        .map(|seen| seen.ticks);
    Ok(number(ticks.sum()) / TICKS_PER_SECOND)
}

/// Resident memory of a process and those it started, strays included, together, in kB.
///
/// # Errors
///
/// When `/proc` cannot be read.
pub(crate) fn resident_kb(roots: &[u32]) -> Result<u64> {
    Ok(family(roots, &look()?)
        .iter()
        .filter_map(|pid| status_kb(*pid, "VmRSS:"))
        .sum())
}

/// These processes, strays, and all below them.
fn family(roots: &[u32], all: &[Seen]) -> BTreeSet<u32> {
    let own = std::process::id();
    let strays = all
        .iter()
        .filter(|seen| seen.parent == own && is_stray(seen))
        .map(|seen| seen.pid);
    let mut family = roots.iter().copied().chain(strays).collect();
    extend(&mut family, all);
    family
}

/// Adds all processes below the members.
fn extend(family: &mut BTreeSet<u32>, all: &[Seen]) {
    loop {
        let before = family.len();
        for seen in all {
            if family.contains(&seen.parent) {
                family.insert(seen.pid);
            }
        }
        if family.len() == before {
            return;
        }
    }
}

/// Buries strays that are dead, and waits for those that still work.
///
/// # Errors
///
/// When `/proc` cannot be read.
pub(crate) fn bury() -> Result<()> {
    let own = std::process::id();
    lab::wait_until("the peers' left-over processes to end", || {
        let mut alive = false;
        for seen in look()? {
            if seen.parent != own || !is_stray(&seen) {
                continue;
            }
            alive |= !seen.is_dead;
            if let Some(pid) = Pid::from_raw(i32::try_from(seen.pid)?).filter(|_| seen.is_dead) {
                waitpid(Some(pid), WaitOptions::NOHANG)?;
            }
        }
        Ok(!alive)
    })
}

fn is_stray(seen: &Seen) -> bool {
    STRAYS.contains(&seen.name.as_str())
}

/// The most memory that a process has had resident at once since [`forget_peak`], in kB.
pub(crate) fn peak_kb(pid: u32) -> Option<u64> {
    status_kb(pid, "VmHWM:")
}

/// Memory of a process that is resident now, in kB.
pub(crate) fn now_kb(pid: u32) -> Option<u64> {
    status_kb(pid, "VmRSS:")
}

/// Begins a new count of the peak.
///
/// # Errors
///
/// When the process is gone.
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
        .with_context(|| format!("could not reset the peak of process {pid}"))
}

/// What all processors have done since the machine was started, in ticks: not idle, and in all.
///
/// # Errors
///
/// When `/proc` cannot be read.
pub(crate) fn machine_ticks() -> Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat").context("could not read /proc/stat")?;
    busy_and_all(&text).context("/proc/stat has no line \"cpu\"")
}

/// proc(5): user, nice, system, idle, waiting for the disk, …; what guests take is in the first two as well.
fn busy_and_all(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .filter_map(|text| text.parse().ok())
        .collect();
    let idle: u64 = ticks.get(3..5)?.iter().sum();
    let all: u64 = ticks.iter().sum();
    Some((all - idle, all))
}

fn status_kb(pid: u32, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn look() -> Result<Vec<Seen>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            all.extend(seen(pid));
        }
    }
    Ok(all)
}

/// A process by its `/proc/PID/stat`; `None` when it is gone.
fn seen(pid: u32) -> Option<Seen> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse(pid, &line)
}

/// proc(5): the name in parentheses, then state, parent, …; times are the 14th to the 17th field.
fn parse(pid: u32, line: &str) -> Option<Seen> {
    let (head, rest) = line.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split(' ').collect();
    let times = fields.get(11..15)?;
    Some(Seen {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        name,
        is_dead: fields.first() == Some(&"Z"),
        ticks: times
            .iter()
            .filter_map(|text| text.parse::<u64>().ok())
            .sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_blanks_and_parentheses() {
        let line = "7 (a (b) c) S 3 7 7 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 5";
        let seen = parse(7, line).unwrap();
        assert_eq!((seen.parent, seen.ticks, seen.is_dead), (3, 100, false));
        assert_eq!(seen.name, "a (b) c");
    }

    #[test]
    fn waiting_for_the_disk_is_idle_and_guests_count_once() {
        let stat = "cpu  10 1 20 300 40 5 6 7 8 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_and_all(stat), Some((49, 389)));
        assert_eq!(busy_and_all("intr 1"), None);
    }
}
