//! A scratch place for the built binary: an archive, a data directory, and WAL made to measure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The system identifier of [`Place`]'s data directory and of the WAL made for it.
pub const SYSTEM: u64 = 7_123_456_789_012_345_678;

/// The size of segments made here: the smallest there is.
pub const SEGMENT_BYTES: usize = 1024 * 1024;

/// 24 zeros: what the server gives for `%r` when there is no restartpoint.
pub const ZEROS: &str = "000000000000000000000000";

/// A directory with an archive and a data directory in it.
pub struct Place {
    dir: TempDir,
}

/// What became of a run.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Place {
        let place = Place {
            dir: tempfile::tempdir().unwrap(),
        };
        for dir in ["archive", "data/pg_wal", "data/global", "data/pg_stat_tmp"] {
            fs::create_dir_all(place.path(dir)).unwrap();
        }
        fs::write(place.path("data/PG_VERSION"), "15\n").unwrap();
        fs::write(place.path("data/recovery.signal"), "").unwrap();
        fs::write(place.path("data/postgresql.conf"), "").unwrap();
        fs::write(place.path("data/global/pg_control"), SYSTEM.to_ne_bytes()).unwrap();
        place
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub fn text(&self, below: &str) -> String {
        self.path(below).to_str().unwrap().to_owned()
    }

    /// Sets the data directory's configuration; `ARCHIVE` stands for the archive's path.
    pub fn configure(&self, text: &str) {
        let text = text.replace("ARCHIVE", &self.text("archive"));
        fs::write(self.path("data/postgresql.conf"), text).unwrap();
    }

    /// Puts segments of timeline 1 into the archive as `cp` would.
    pub fn archive_raw(&self, numbers: &[u32]) {
        for number in numbers {
            let path = self.path("archive").join(name(*number));
            fs::write(path, segment(*number, SYSTEM)).unwrap();
        }
    }

    /// Runs `walden` in the scratch directory itself, which is no data directory.
    pub fn walden(&self, args: &[&str]) -> Ran {
        self.walden_in(".", args)
    }

    pub fn walden_in(&self, cwd: &str, args: &[&str]) -> Ran {
        run(self.command(cwd).args(args))
    }

    /// The command, with an environment that says nothing about archives.
    pub fn command(&self, cwd: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walden"));
        command
            .current_dir(self.path(cwd))
            .env_remove("WALDEN_ARCHIVE")
            .stdin(Stdio::null());
        command
    }
}

pub fn run(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ran {
    /// Fails the test, showing everything, unless the status is this one.
    #[track_caller]
    pub fn exits(self, status: i32) -> Ran {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    /// Fails the test unless standard error contains this.
    #[track_caller]
    pub fn says(self, text: &str) -> Ran {
        assert!(self.stderr.contains(text), "not said: {text}\n{self:#?}");
        self
    }

    /// Fails the test unless standard output contains this.
    #[track_caller]
    pub fn prints(self, text: &str) -> Ran {
        assert!(self.stdout.contains(text), "not printed: {text}\n{self:#?}");
        self
    }
}

/// The name of a segment of timeline 1.
pub fn name(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

/// A segment of 1 MiB, with another filler behind its only record for each number.
pub fn segment(number: u32, system: u64) -> Vec<u8> {
    let name: wal::SegmentName = name(number).parse().unwrap();
    let system = wal::SystemIdentifier(system);
    let size = wal::SegmentSize::SMALLEST;
    archive::suite::fixtures::segment(&name, size, system, u64::from(number))
}

pub fn same(left: &Path, right: &Path) -> bool {
    fs::read(left).unwrap() == fs::read(right).unwrap()
}
