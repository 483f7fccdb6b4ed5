//! An archive module that keeps every promise but the ones it is told to break.
//!
//! | `broken.how` | what is wrong |
//! |---|---|
//! | `none` | nothing |
//! | `overwrites` | gives a file its name whatever stands there |
//! | `looks_then_overwrites` | looks whether the name is free, and renames later |
//! | `refuses_the_same` | fails when the archive holds the file already |
//! | `lies` | says that files are archived, and stores none |
//! | `lies_after_failures` | says that files are archived which could not be |
//! | `half_written` | writes under the file's own name |
//! | `never_syncs` | leaves it to the kernel when bytes reach the disk |
//! | `blocks` | works on the archiver's main thread |
//! | `litters` | writes to a temporary file of a name of its own |
//! | `gives_up` | after one failure, fails until it is started again |
//! | `ends` | after a failure ends the archiver |
//! | `reads_once` | looks at its parameter once, when it is first asked |
//! | `forgets_backups` | stores no backup history files |
//! | `small` | takes no segments above 16 MB |
//! | `hurries` | stores nothing more once the server shuts down |
//! | `nests` | nothing, but files lie in a subdirectory, where the suite does not look for them |
//!
//! For the tests of the conformance suite, which has to find each fault and nothing else.

use module::settings::{About, EnumSetting, StringSetting};
use module::{
    ArchiveModule, Archived, Failure, Module, OrFail, Process, Task, Waited, WalFileName,
};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    None,
    Overwrites,
    LooksThenOverwrites,
    RefusesTheSame,
    Lies,
    LiesAfterFailures,
    HalfWritten,
    NeverSyncs,
    Blocks,
    Litters,
    GivesUp,
    Ends,
    ReadsOnce,
    ForgetsBackups,
    Small,
    Hurries,
    Nests,
}

static HOW: EnumSetting<How> = EnumSetting::new(
    About::reload(c"broken.how", c"Sets what is wrong with the module."),
    &[
        (c"none", How::None),
        (c"overwrites", How::Overwrites),
        (c"looks_then_overwrites", How::LooksThenOverwrites),
        (c"refuses_the_same", How::RefusesTheSame),
        (c"lies", How::Lies),
        (c"lies_after_failures", How::LiesAfterFailures),
        (c"half_written", How::HalfWritten),
        (c"never_syncs", How::NeverSyncs),
        (c"blocks", How::Blocks),
        (c"litters", How::Litters),
        (c"gives_up", How::GivesUp),
        (c"ends", How::Ends),
        (c"reads_once", How::ReadsOnce),
        (c"forgets_backups", How::ForgetsBackups),
        (c"small", How::Small),
        (c"hurries", How::Hurries),
        (c"nests", How::Nests),
    ],
);
static DIRECTORY: StringSetting = StringSetting::new(
    About::reload(c"broken.directory", c"Sets where files are kept."),
    c"",
);

/// How long one attempt is waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The largest file that `small` takes.
const SMALL_BYTES: u64 = 16 * 1024 * 1024;

/// What goes on, and what `gives_up` and `reads_once` remember.
#[derive(Default)]
pub struct Broken {
    attempt: Option<(Job, Task<Result<(), Failure>>)>,
    failed: bool,
    first_directory: Option<String>,
}

/// One file to store.
#[derive(Clone, PartialEq, Eq)]
struct Job {
    how: How,
    name: String,
    from: PathBuf,
    directory: PathBuf,
}

impl Module for Broken {
    fn startup(_: Process) -> Result<Self, Failure> {
        Ok(Self::default())
    }
}

impl Broken {
    fn directory(&mut self, process: Process) -> String {
        let now = DIRECTORY.get(process);
        if HOW.get(process) != How::ReadsOnce {
            return now;
        }
        self.first_directory.get_or_insert(now).clone()
    }

    /// Works on a file, on a thread unless told to block; false when the server has something else to do first.
    fn work(&mut self, process: Process, job: &Job) -> Result<bool, Failure> {
        if job.how == How::Blocks {
            return store(job).map(|()| true);
        }
        let mut task = match self.attempt.take() {
            Some((going_on, task)) if going_on == *job => task,
            _ => {
                let job = job.clone();
                Task::start("broken", move || store(&job))?
            }
        };
        match task.wait(process, Instant::now() + WAIT_MAX)? {
            Waited::Done(stored) => stored.map(|()| true),
            Waited::NotYet(_) => {
                self.attempt = Some((job.clone(), task));
                Ok(false)
            }
        }
    }
}

impl ArchiveModule for Broken {
    fn check_configured(&mut self, process: Process) -> Result<(), Failure> {
        if self.directory(process).is_empty() {
            return Err(Failure::new("\"broken.directory\" is not set"));
        }
        Ok(())
    }

    fn archive_file(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
    ) -> Result<Archived, Failure> {
        let mut job = Job {
            how: HOW.get(process),
            name: file.to_string(),
            from: path.to_path_buf(),
            directory: self.directory(process).into(),
        };
        if job.how == How::Nests {
            job.directory.push("nest");
            fs::create_dir_all(&job.directory).or_fail("could not make a directory")?;
        }
        if self.failed {
            return Err(Failure::new("it failed before"));
        }
        match (self.work(process, &job), job.how) {
            (Ok(true), _) => Ok(Archived::Durably),
            (Ok(false), _) => Ok(Archived::NotYet),
            (Err(_), How::LiesAfterFailures) => Ok(Archived::Durably),
            (Err(_), How::Ends) => std::process::exit(1),
            (Err(failure), how) => {
                self.failed = how == How::GivesUp;
                Err(failure)
            }
        }
    }
}

/// Stores a file, but for what is wrong.
fn store(job: &Job) -> Result<(), Failure> {
    let target = job.directory.join(&job.name);
    if job.how == How::Litters {
        File::create(temporary(job)).or_fail("could not create a file")?;
    }
    // In this order: what comes after the look is what a module that only looks cannot know.
    let there = match job.how {
        How::Overwrites | How::Lies => None,
        _ => read(&target).or_fail("could not look for the file")?,
    };
    let bytes = fs::read(&job.from).or_fail("could not read the file")?;
    match job.how {
        How::Lies => return Ok(()),
        How::ForgetsBackups if job.name.ends_with(".backup") => return Ok(()),
        How::Small if bytes.len() as u64 > SMALL_BYTES => {
            return Err(Failure::new("the file is too large"));
        }
        How::Hurries if is_stopping() => return Err(Failure::new("the server shuts down")),
        _ => {}
    }
    if let Some(there) = there {
        let _ = fs::remove_file(temporary(job));
        return found(job, &target, &there, &bytes);
    }
    match job.how {
        How::Overwrites | How::LooksThenOverwrites => return rename_over(job, &bytes),
        How::Litters => return through_a_temporary_file(job, &bytes),
        How::HalfWritten => return in_place(job, &target, false),
        _ => {}
    }
    match link(job, &bytes) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let there = fs::read(&target).or_fail("could not read the archived file")?;
            found(job, &target, &there, &bytes)
        }
        linked => linked.or_fail("could not link the file"),
    }
}

/// The name is taken.
fn found(job: &Job, target: &Path, there: &[u8], bytes: &[u8]) -> Result<(), Failure> {
    if job.how == How::HalfWritten && there.len() < bytes.len() && bytes.starts_with(there) {
        // What a killed attempt wrote.
        return in_place(job, target, true);
    }
    if there != bytes || job.how == How::RefusesTheSame {
        return Err(Failure::new("the name is taken"));
    }
    let archived = File::open(target).or_fail("could not open the archived file")?;
    sync(job, &archived).or_fail("could not sync the archived file")?;
    sync_directory(job)
}

/// A file without a name that gets one when it is whole.
fn link(job: &Job, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = File::from(openat(CWD, &job.directory, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(bytes)?;
    sync(job, &file)?;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    let target = job.directory.join(&job.name);
    linkat(CWD, unnamed, CWD, &target, AtFlags::SYMLINK_FOLLOW)?;
    sync(job, &File::open(&job.directory)?)
}

/// The same name for every attempt, so that nothing stays behind: here only the overwriting is wrong.
fn rename_over(job: &Job, bytes: &[u8]) -> Result<(), Failure> {
    let target = job.directory.join(&job.name);
    let staged = job.directory.join(format!("{}.staged", std::process::id()));
    let mut file = File::create(&staged).or_fail("could not create a file")?;
    file.write_all(bytes).or_fail("could not write")?;
    sync(job, &file).or_fail("could not sync the file")?;
    fs::rename(&staged, target).or_fail("could not rename the file")?;
    sync_directory(job)
}

fn temporary(job: &Job) -> PathBuf {
    let name = format!("temporary.{}.{}", job.name, std::process::id());
    job.directory.join(name)
}

fn through_a_temporary_file(job: &Job, bytes: &[u8]) -> Result<(), Failure> {
    let staged = temporary(job);
    let mut file = File::create(&staged).or_fail("could not create a file")?;
    file.write_all(bytes).or_fail("could not write")?;
    sync(job, &file).or_fail("could not sync the file")?;
    let linked = fs::hard_link(&staged, job.directory.join(&job.name));
    fs::remove_file(&staged).or_fail("could not remove a file")?;
    linked.or_fail("could not link the file")?;
    sync_directory(job)
}

/// Copies under the file's own name, which is there from the first byte on.
fn in_place(job: &Job, target: &Path, also_there: bool) -> Result<(), Failure> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(!also_there);
    let mut file = options.open(target).or_fail("could not create the file")?;
    let mut source = File::open(&job.from).or_fail("could not open the file")?;
    io::copy(&mut source, &mut file).or_fail("could not copy")?;
    sync(job, &file).or_fail("could not sync the file")?;
    sync_directory(job)
}

fn sync(job: &Job, file: &File) -> io::Result<()> {
    if job.how == How::NeverSyncs {
        return Ok(());
    }
    file.sync_all()
}

fn sync_directory(job: &Job) -> Result<(), Failure> {
    let directory = File::open(&job.directory).or_fail("could not open the directory")?;
    sync(job, &directory).or_fail("could not sync the directory")
}

/// A file's bytes; `None` when there is no such file.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the server is shutting down, by its own word (`LOCK_FILE_LINE_PM_STATUS`).
fn is_stopping() -> bool {
    let text = fs::read_to_string("postmaster.pid").unwrap_or_default();
    text.lines()
        .nth(7)
        .is_some_and(|state| state.trim() == "stopping")
}

module::export! {
    settings: [HOW, DIRECTORY],
    archive: Broken,
}
