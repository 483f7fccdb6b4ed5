//! A recovery module that breaks one promise on request, for the tests of the conformance suite.
//!
//! It restores from `broken_recovery.directory`, which is one of plain files. `broken_recovery.how` says what is
//! wrong with it, [`How`] what each of the words means. With `nothing` it keeps every promise.

use module::settings::{About, Check, StringSetting};
use module::{
    ArchiveCleanupModule, Failure, KeepFrom, Module, Process, RecoveryEndModule, RestoreModule,
    Restored, WalFileName,
};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Nothing: a good module.
    Nothing,
    /// A file that cannot be looked at is called absent.
    SaysAbsentOnFailure,
    /// A file that is not there is called a failure.
    FailsOnAbsence,
    /// A file that is cut off is handed over as it is.
    HandsOverTruncated,
    /// A file that is cut off is filled up to the right size.
    FillsUp,
    /// A segment is handed over once.
    Forgets,
    /// What was absent once stays so.
    RemembersAbsence,
    /// Only later segments than the last one are found.
    OnlyForward,
    /// No segment is longer than the usual one.
    UsualSize,
    /// The file is written under the name that the server looks at.
    WritesThere,
    /// A lock in the archive, which a killed process leaves behind, keeps everybody out.
    Locks,
    /// A failure ends the process.
    Dies,
    /// After a failure the process is busy for a minute.
    Hangs,
    /// Cleanup removes nothing.
    RemovesNothing,
    /// Cleanup compares whole names, so that a parent timeline's segments go too.
    RemovesParents,
    /// Cleanup removes the oldest segment that is needed too.
    RemovesTooMuch,
    /// Cleanup removes timeline history files.
    RemovesHistory,
    /// The end of recovery is a failure.
    FailsAtEnd,
}

/// The words, of which there are too many for a choice setting.
const WORDS: [(&str, How); 18] = [
    ("nothing", How::Nothing),
    ("says_absent_on_failure", How::SaysAbsentOnFailure),
    ("fails_on_absence", How::FailsOnAbsence),
    ("hands_over_truncated", How::HandsOverTruncated),
    ("fills_up", How::FillsUp),
    ("forgets", How::Forgets),
    ("remembers_absence", How::RemembersAbsence),
    ("only_forward", How::OnlyForward),
    ("usual_size", How::UsualSize),
    ("writes_there", How::WritesThere),
    ("locks", How::Locks),
    ("dies", How::Dies),
    ("hangs", How::Hangs),
    ("removes_nothing", How::RemovesNothing),
    ("removes_parents", How::RemovesParents),
    ("removes_too_much", How::RemovesTooMuch),
    ("removes_history", How::RemovesHistory),
    ("fails_at_end", How::FailsAtEnd),
];

static HOW: StringSetting = StringSetting::checked::<Word>(
    About::reload(c"broken_recovery.how", c"Sets what is wrong."),
    c"nothing",
);
static DIRECTORY: StringSetting = StringSetting::new(
    About::reload(c"broken_recovery.directory", c"Sets where files are kept."),
    c"",
);

/// The size of a segment unless `initdb` is told otherwise.
const USUAL_BYTES: u64 = 16 * 1024 * 1024;

/// Longer than anybody waits for a single file.
const BUSY: Duration = Duration::from_secs(60);

/// The name under which the server asks for every segment.
const ASKED_FOR: &str = "pg_wal/RECOVERYXLOG";

struct Word;

impl Check for Word {
    fn check(value: &str) -> Result<(), String> {
        if WORDS.iter().any(|(word, _)| *word == value) {
            Ok(())
        } else {
            Err("There is no such fault.".to_owned())
        }
    }
}

fn how(process: Process) -> How {
    let value = HOW.get(process);
    let found = WORDS.iter().find(|(word, _)| *word == value);
    found.map_or(How::Nothing, |(_, how)| *how)
}

/// What it remembers, in all the ways that are wrong.
#[derive(Default)]
pub struct Broken {
    handed_over: BTreeSet<String>,
    absent: BTreeSet<String>,
    last: String,
}

impl Module for Broken {
    fn startup(_: Process) -> Result<Self, Failure> {
        Ok(Self::default())
    }
}

impl Broken {
    /// Whether what it remembers makes it call the file absent.
    fn misremembers(&mut self, how: How, file: &str) -> bool {
        match how {
            How::Forgets => self.handed_over.contains(file),
            How::RemembersAbsence => self.absent.contains(file),
            How::OnlyForward => {
                let backwards = file < self.last.as_str();
                self.last = file.to_owned();
                backwards
            }
            _ => false,
        }
    }

    fn absent(&mut self, how: How, file: &str) -> Result<Restored, Failure> {
        self.absent.insert(file.to_owned());
        if how == How::FailsOnAbsence {
            return Err(Failure::new(format!("there is no file \"{file}\"")));
        }
        Ok(Restored::NotInArchive)
    }
}

/// What a failure to look at a file comes to.
fn failed(how: How, file: &str, error: &io::Error) -> Result<Restored, Failure> {
    match how {
        How::SaysAbsentOnFailure => return Ok(Restored::NotInArchive),
        How::Dies => std::process::abort(),
        How::Hangs => be_busy(),
        _ => {}
    }
    Err(Failure::new(format!(
        "could not read file \"{file}\": {error}"
    )))
}

/// Serves nobody for a while, not even the end of the server.
fn be_busy() {
    let (_kept, nothing) = channel::<()>();
    let _ = nothing.recv_timeout(BUSY);
}

/// The bytes to hand over, of which there should be as many as in a whole segment.
fn contents(how: How, mut stored: File, whole: Option<u64>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stored.read_to_end(&mut bytes)?;
    let size = usize::try_from(whole.unwrap_or_default()).unwrap_or_default();
    match how {
        How::FillsUp if whole.is_some() => bytes.resize(size, 0),
        How::UsualSize => bytes.truncate(usize::try_from(USUAL_BYTES).unwrap_or_default()),
        How::HandsOverTruncated => {}
        _ if whole.is_some() && bytes.len() != size => {
            return Err(io::Error::other(format!(
                "{} bytes instead of {size}",
                bytes.len()
            )));
        }
        _ => {}
    }
    Ok(bytes)
}

/// Puts the bytes where they are wanted.
fn hand_over(how: How, path: &Path, bytes: &[u8]) -> io::Result<()> {
    if how != How::WritesThere {
        return fs::write(path, bytes);
    }
    let (one, other) = bytes.split_at(bytes.len() / 2);
    let mut there = File::create(ASKED_FOR)?;
    there.write_all(one)?;
    there.write_all(other)?;
    fs::rename(ASKED_FOR, path)
}

impl RestoreModule for Broken {
    fn restore(
        &mut self,
        process: Process,
        file: &WalFileName,
        path: &Path,
        _: &KeepFrom,
    ) -> Result<Restored, Failure> {
        let (how, directory, name) = (how(process), directory(process), file.to_string());
        let is_segment = matches!(file, WalFileName::Segment(_));
        if (is_segment || how == How::RemembersAbsence) && self.misremembers(how, &name) {
            return Ok(Restored::NotInArchive);
        }
        let lock = directory.join("lock");
        if how == How::Locks
            && is_segment
            && let Err(error) = File::create_new(&lock)
        {
            return failed(how, &name, &error);
        }
        let whole = is_segment.then(|| process.segment_size().bytes());
        let restored = match File::open(directory.join(&name)) {
            Ok(stored) => {
                contents(how, stored, whole).and_then(|bytes| hand_over(how, path, &bytes))
            }
            Err(error) => Err(error),
        };
        if how == How::Locks && is_segment {
            let _ = fs::remove_file(&lock);
        }
        match restored {
            Ok(()) => {
                self.handed_over.insert(name);
                Ok(Restored::Yes)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.absent(how, &name),
            Err(error) => failed(how, &name, &error),
        }
    }
}

impl ArchiveCleanupModule for Broken {
    fn archive_cleanup(&mut self, process: Process, keep: &KeepFrom) -> Result<(), Failure> {
        let how = how(process);
        if how == How::RemovesNothing {
            return Ok(());
        }
        clean_up(how, &directory(process), keep)
            .map_err(|error| Failure::new(format!("could not clean up: {error}")))
    }
}

fn clean_up(how: How, directory: &Path, keep: &KeepFrom) -> io::Result<()> {
    let oldest = keep.to_string();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(file) = name
            .to_str()
            .and_then(|name| name.parse::<WalFileName>().ok())
        else {
            continue;
        };
        let text = file.to_string();
        let too_much = match (how, &file) {
            (How::RemovesParents, WalFileName::Segment(_)) => text < oldest,
            (How::RemovesTooMuch, WalFileName::Segment(_)) => text.get(8..) == oldest.get(8..),
            (How::RemovesHistory, WalFileName::TimelineHistory(_)) => *keep != KeepFrom::Everything,
            _ => false,
        };
        if too_much || keep.may_remove(&file) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl RecoveryEndModule for Broken {
    fn recovery_end(&mut self, process: Process, _: &KeepFrom) -> Result<(), Failure> {
        match how(process) {
            How::FailsAtEnd => Err(Failure::new("asked to fail at the end of recovery")),
            _ => Ok(()),
        }
    }
}

fn directory(process: Process) -> PathBuf {
    PathBuf::from(DIRECTORY.get(process))
}

module::export! {
    settings: [HOW, DIRECTORY],
    recovery: Broken { restore, archive_cleanup, recovery_end },
}
