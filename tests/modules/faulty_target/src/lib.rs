//! A base backup target that misbehaves on request and keeps nothing: `pg_basebackup --target=faulty:PLACE=HOW`.
//!
//! | HOW | what happens at the place |
//! |---|---|
//! | `failure` | returns a failure |
//! | `error` | calls a server function that raises ERROR |
//! | `panic` | panics |
//! | `payload` | panics with something that is no text |
//! | `wait` | waits a minute on the latch, and fails |
//! | `look` | computes for a minute, looks for interrupts meanwhile, and fails |
//! | `slow` | computes for a fifth of a second, each time, and looks for nothing |
//!
//! The places are the methods of the target and the sink, and `drop`, which can do nothing but panic. With `role=NAME`
//! the requester has to have the privileges of this role. Without a detail nothing bad happens.
//!
//! How many sinks there are, were dropped and were committed in this session is said when the next backup is asked for, and
//! each drop adds a line to `faulty_target.dropped` in the data directory, for when the session has ended.

use module::{
    BackupEnd, BackupFile, BackupSink, BackupStart, BackupTarget, Failure, Level, Process, Report,
    Requester,
};
use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

static BEGUN: AtomicU32 = AtomicU32::new(0);
static DROPPED: AtomicU32 = AtomicU32::new(0);
static COMMITTED: AtomicU32 = AtomicU32::new(0);

/// How long `wait` and `look` take: far longer than any test waits for what they must not hold up.
const LONG: Duration = Duration::from_secs(60);

/// How long `slow` takes.
const SLOW: Duration = Duration::from_millis(200);

struct Faulty;

/// Where to misbehave, and how.
#[derive(Clone, Default)]
struct Fault {
    place: String,
    how: String,
}

impl Fault {
    fn at(&self, place: &str, process: Process) -> Result<(), Failure> {
        if self.place != place {
            return Ok(());
        }
        let begun = Instant::now();
        match self.how.as_str() {
            "failure" => Err(Failure::new(format!("asked to fail at {place}"))
                .detail("This is a detail.")
                .hint("This is a hint.")),
            "error" => {
                let name = format!("faulty.error_at_{place}\0");
                let name = CStr::from_bytes_with_nul(name.as_bytes());
                let name = name.map_err(|_| Failure::new("NUL"))?;
                process.required_parameter(name)?;
                Ok(())
            }
            "panic" => panic!("asked to panic at {place}"),
            "payload" => std::panic::panic_any(vec![1_u8; 10_000]),
            "wait" => {
                let woken = process.pause(LONG)?;
                Err(Failure::new(format!("waited at {place} until {woken:?}")))
            }
            "look" => {
                while begun.elapsed() < LONG {
                    process.check_interrupts()?;
                    std::hint::spin_loop();
                }
                Err(Failure::new(format!("looked at {place} for a minute")))
            }
            "slow" => {
                while begun.elapsed() < SLOW {
                    std::hint::spin_loop();
                }
                Ok(())
            }
            other => Err(Failure::new(format!("asked for \"{other}\""))),
        }
    }
}

impl BackupTarget for Faulty {
    const NAME: &'static CStr = c"faulty";
    type Detail = Fault;

    fn check_detail(
        process: Process,
        requester: Requester<'_>,
        detail: Option<&str>,
    ) -> Result<Fault, Failure> {
        let (begun, dropped) = (BEGUN.load(Relaxed), DROPPED.load(Relaxed));
        let counted = format!(
            "faulty_target: {} alive, {dropped} dropped, {} committed",
            begun - dropped,
            COMMITTED.load(Relaxed)
        );
        process.report(&Report::new(Level::Log, counted));
        let (place, how) = detail.unwrap_or("=").split_once('=').unwrap_or_default();
        if place == "role" && !requester.has_privileges_of(how)? {
            return Err(
                Failure::new("permission denied to use the target \"faulty\"").detail(format!(
                    "Only roles with privileges of the role \"{how}\" may."
                )),
            );
        }
        let fault = Fault {
            place: place.to_owned(),
            how: how.to_owned(),
        };
        fault.at("check_detail", process)?;
        Ok(fault)
    }

    fn begin(
        process: Process,
        fault: Fault,
        _: &BackupStart,
    ) -> Result<Box<dyn BackupSink>, Failure> {
        BEGUN.fetch_add(1, Relaxed);
        let sink = Box::new(Sink { fault });
        sink.fault.at("begin", process)?;
        Ok(sink)
    }
}

struct Sink {
    fault: Fault,
}

impl BackupSink for Sink {
    fn begin_file(&mut self, process: Process, _: &BackupFile) -> Result<(), Failure> {
        self.fault.at("begin_file", process)
    }

    fn contents(&mut self, process: Process, _: &[u8]) -> Result<(), Failure> {
        self.fault.at("contents", process)
    }

    fn end_file(&mut self, process: Process) -> Result<(), Failure> {
        self.fault.at("end_file", process)
    }

    fn end_backup(&mut self, process: Process, _: &BackupEnd) -> Result<(), Failure> {
        self.fault.at("end_backup", process)
    }

    fn commit(self: Box<Self>, process: Process) -> Result<(), Failure> {
        self.fault.at("commit", process)?;
        COMMITTED.fetch_add(1, Relaxed);
        Ok(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Relaxed);
        let note = OpenOptions::new()
            .create(true)
            .append(true)
            .open("faulty_target.dropped");
        if let Ok(mut note) = note {
            let _ = writeln!(note, "{}={}", self.fault.place, self.fault.how);
        }
        if self.fault.place == "drop" {
            panic!("asked to panic at drop");
        }
    }
}

module::export! { backup_target: Faulty, }
