//! A base backup target that keeps every promise but the ones it is told to break.
//!
//! | `broken_target.how` | what is wrong |
//! |---|---|
//! | `none` | nothing |
//! | `loses_a_piece` | leaves out the tenth piece of an archive |
//! | `in_place` | writes under the backup's own name, and removes what has failed |
//! | `names_early` | gives the backup its name when all files are complete, and not when the server is content |
//! | `lies` | says that all is well when its storage is not there |
//! | `shares` | has one folder for what is not finished, and empties it when a backup begins |
//! | `deaf` | holds megabytes in memory, and writes them in small pieces without looking up |
//! | `once` | takes one backup for each session |
//! | `busy` | takes no more backups in a session once one has failed there after it began |
//! | `open` | asks nobody for a role |
//! | `aborts` | ends the process when its storage is not there |
//!
//! The target is `broken:NAME`. Roles have to have the privileges of `postgres`. For the tests of the conformance suite, which
//! has to find each fault and nothing else.

use module::settings::{About, EnumSetting, StringSetting};
use module::{
    BackupEnd, BackupFile, BackupSink, BackupStart, BackupTarget, Failure, OrFail, Process,
    Requester,
};
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    None,
    LosesAPiece,
    InPlace,
    NamesEarly,
    Lies,
    Shares,
    Deaf,
    Once,
    Busy,
    Open,
    Aborts,
}

static HOW: EnumSetting<How> = EnumSetting::new(
    About::reload(c"broken_target.how", c"Sets what is wrong with the target."),
    &[
        (c"none", How::None),
        (c"loses_a_piece", How::LosesAPiece),
        (c"in_place", How::InPlace),
        (c"names_early", How::NamesEarly),
        (c"lies", How::Lies),
        (c"shares", How::Shares),
        (c"deaf", How::Deaf),
        (c"once", How::Once),
        (c"busy", How::Busy),
        (c"open", How::Open),
        (c"aborts", How::Aborts),
    ],
);
static DIRECTORY: StringSetting = StringSetting::new(
    About::reload(c"broken_target.directory", c"Sets where backups are kept."),
    c"",
);

/// Which piece `loses_a_piece` leaves out: one in the middle of a file of the server.
const LOST: u32 = 10;

/// What `deaf` holds, bytes.
const HELD: usize = 4 << 20;

/// What `deaf` writes at a time, bytes.
const SMALL: usize = 4096;

/// How many backups this process has begun.
static BEGUN: AtomicU32 = AtomicU32::new(0);

/// Whether one that this process has begun was not committed since.
static RUNNING: AtomicBool = AtomicBool::new(false);

struct Broken;

impl BackupTarget for Broken {
    const NAME: &'static CStr = c"broken";
    type Detail = PathBuf;

    fn check_detail(
        process: Process,
        requester: Requester<'_>,
        detail: Option<&str>,
    ) -> Result<PathBuf, Failure> {
        let how = HOW.get(process);
        if how != How::Open && !requester.has_privileges_of("postgres")? {
            return Err(Failure::new(
                "permission denied to use the target \"broken\"",
            ));
        }
        let directory = DIRECTORY.get(process);
        match fs::read_dir(&directory) {
            Err(_) if how == How::Lies => {}
            Err(_) if how == How::Aborts => std::process::abort(),
            looked => drop(looked.or_fail(format_args!("could not look into \"{directory}\""))?),
        }
        Ok(Path::new(&directory).join(detail.unwrap_or("backup")))
    }

    fn begin(
        process: Process,
        kept: PathBuf,
        _: &BackupStart,
    ) -> Result<Box<dyn BackupSink>, Failure> {
        let how = HOW.get(process);
        if BEGUN.fetch_add(1, Ordering::Relaxed) > 0 && how == How::Once {
            return Err(Failure::new("this session has had its base backup"));
        }
        if RUNNING.swap(true, Ordering::Relaxed) && how == How::Busy {
            return Err(Failure::new("this session is taking a base backup"));
        }
        let staged = match how {
            How::InPlace => kept.clone(),
            How::Shares => kept.with_file_name("shared.partial"),
            _ => kept.with_extension(format!("{}.partial", std::process::id())),
        };
        if how == How::Shares {
            let _ = fs::remove_dir_all(&staged);
        }
        let made = fs::create_dir(&staged);
        if made.is_err() && how == How::Lies {
            return Ok(Box::new(Nothing));
        }
        made.or_fail(format_args!("could not create \"{}\"", staged.display()))?;
        Ok(Box::new(Backup {
            how,
            staged,
            kept,
            file: None,
            pieces: 0,
            held: Vec::new(),
            is_named: false,
        }))
    }
}

struct Backup {
    how: How,
    staged: PathBuf,
    kept: PathBuf,
    file: Option<File>,
    pieces: u32,
    held: Vec<u8>,
    is_named: bool,
}

impl Backup {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.file {
            Some(file) => file.write_all(bytes).or_fail("could not write"),
            None => Err(Failure::new("no file has begun")),
        }
    }

    fn write_held(&mut self) -> Result<(), Failure> {
        let held = std::mem::take(&mut self.held);
        held.chunks(SMALL).try_for_each(|piece| self.write(piece))
    }

    fn name(&mut self) -> Result<(), Failure> {
        if self.staged != self.kept {
            let shown = self.kept.display();
            fs::rename(&self.staged, &self.kept)
                .or_fail(format_args!("could not name \"{shown}\""))?;
        }
        self.is_named = true;
        Ok(())
    }
}

impl BackupSink for Backup {
    fn begin_file(&mut self, _: Process, file: &BackupFile) -> Result<(), Failure> {
        let path = self.staged.join(file.name());
        let made = File::create_new(&path);
        self.file = Some(made.or_fail(format_args!("could not create \"{}\"", path.display()))?);
        self.pieces = 0;
        Ok(())
    }

    fn contents(&mut self, _: Process, bytes: &[u8]) -> Result<(), Failure> {
        self.pieces += 1;
        match self.how {
            How::LosesAPiece if self.pieces == LOST => Ok(()),
            How::Deaf => {
                self.held.extend_from_slice(bytes);
                if self.held.len() < HELD {
                    return Ok(());
                }
                self.write_held()
            }
            _ => self.write(bytes),
        }
    }

    fn end_file(&mut self, _: Process) -> Result<(), Failure> {
        self.write_held()?;
        match self.file.take() {
            Some(file) => file.sync_all().or_fail("could not sync"),
            None => Err(Failure::new("no file has begun")),
        }
    }

    fn end_backup(&mut self, _: Process, _: &BackupEnd) -> Result<(), Failure> {
        match self.how {
            How::NamesEarly => self.name(),
            _ => Ok(()),
        }
    }

    fn commit(mut self: Box<Self>, _: Process) -> Result<(), Failure> {
        RUNNING.store(false, Ordering::Relaxed);
        if self.is_named { Ok(()) } else { self.name() }
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        if !self.is_named {
            let _ = fs::remove_dir_all(&self.staged);
        }
    }
}

/// Keeps nothing, and says nothing of it.
struct Nothing;

impl BackupSink for Nothing {
    fn begin_file(&mut self, _: Process, _: &BackupFile) -> Result<(), Failure> {
        Ok(())
    }

    fn contents(&mut self, _: Process, _: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn end_file(&mut self, _: Process) -> Result<(), Failure> {
        Ok(())
    }

    fn end_backup(&mut self, _: Process, _: &BackupEnd) -> Result<(), Failure> {
        Ok(())
    }

    fn commit(self: Box<Self>, _: Process) -> Result<(), Failure> {
        Ok(())
    }
}

module::export! { settings: [HOW, DIRECTORY], backup_target: Broken, }
