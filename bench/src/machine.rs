//! The machine that figures were measured on.
//!
//! Guarantees that what a reader needs to judge a figure is said: processors, memory, kernel, file system, how
//! fast the disk writes and syncs, and the versions of all programs measured. What cannot be found out is "unknown".

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::Result;
use lab::Lab;
use serde::{Deserialize, Serialize};

use crate::limit;
use crate::peers::Peers;
use crate::results::median;

/// A description of the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) cpu: String,
    /// Processors this program may use.
    pub(crate) cores: usize,
    /// Main memory, in MB.
    pub(crate) memory_mb: u64,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The type of the file system that servers and archives lie on.
    pub(crate) file_system: String,
    /// Sequential writing of one large file and one fsync at its end, in MB/s (10^6 bytes), median of three.
    pub(crate) disk_mb_s: f64,
    /// The load average of the minute before, which tells whether the machine was quiet.
    pub(crate) load_before: f64,
    /// The server's version.
    pub(crate) server: String,
    /// The versions of Walden and of the peers.
    pub(crate) versions: BTreeMap<String, String>,
}

/// How much is written to learn the disk's speed.
const PROBE_BYTES: u64 = 1 << 30;

impl Machine {
    /// Looks at this machine; writes three gigabytes below the lab's directory, one after the other.
    ///
    /// # Errors
    ///
    /// When the disk cannot be written to.
    pub(crate) fn describe(lab: &Lab, peers: &Peers) -> Result<Machine> {
        let mut speeds = Vec::new();
        for _ in 0..3 {
            speeds.push(limit::disk_speed(lab, PROBE_BYTES)?);
        }
        let mut versions = peers.versions();
        versions.insert("Walden".to_owned(), walden_version(lab));
        Ok(Machine {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: available_parallelism().map_or(1, usize::from),
            memory_mb: field("/proc/meminfo", "MemTotal")
                .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
                .unwrap_or_default()
                / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| unknown(), |text| text.trim().to_owned()),
            file_system: file_system(lab.dir()),
            disk_mb_s: median(&speeds).unwrap_or_default(),
            load_before: load(),
            server: lab.installation().version().to_owned(),
            versions,
        })
    }

    /// The machine in one sentence, for the page.
    pub(crate) fn sentence(&self) -> String {
        format!(
            "{} with {} cores and {} GB of memory, Linux {}, {} on a disk that writes and syncs {:.0} MB/s in \
             one stream, PostgreSQL {}",
            self.cpu,
            self.cores,
            (self.memory_mb + 512) / 1024,
            self.kernel,
            self.file_system,
            self.disk_mb_s,
            self.server
        )
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// The load average of the last minute.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().unwrap_or_default()
}

/// The value of the first line `key : value` of a file.
fn field(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The type of the file system that a directory is on: that of the longest mount point above it.
fn file_system(dir: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut best = (0, unknown());
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(at), Some(kind)) = (fields.next(), fields.next()) else {
            continue;
        };
        if dir.starts_with(at) && at.len() >= best.0 {
            best = (at.len(), kind.to_owned());
        }
    }
    best.1
}

/// Now, UTC, to the second, as `2026-11-22T04:05:06Z`.
///
/// # Errors
///
/// When `date` cannot be run.
pub(crate) fn now() -> Result<String> {
    let said = Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])
        .output()?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

fn walden_version(lab: &Lab) -> String {
    match lab.command("walden").arg("--version").output() {
        Ok(said) => String::from_utf8_lossy(&said.stdout)
            .trim()
            .trim_start_matches("walden ")
            .to_owned(),
        Err(_) => unknown(),
    }
}
