//! A disk that hangs: a process that opens or reads a file is held until let go.
//!
//! Uses the permission events of fanotify(7), which need CAP_SYS_ADMIN; without it a promise that needs a
//! stall says so instead of judging. Nobody who keeps a stall may open the file himself: he would wait
//! for his own answer.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lab::{DEADLINE, wait_for};
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags,
    Response,
};

/// A file that cannot be opened, or read, freely: the next process that tries waits. Dropped, all
/// goes on.
pub(crate) struct Stall {
    fanotify: Fanotify,
    path: PathBuf,
}

/// The process that waits.
pub(crate) struct Held<'stall> {
    stall: &'stall Stall,
    event: FanotifyEvent,
}

impl Stall {
    /// Holds any process that opens this file from now on.
    pub(crate) fn on_open(path: &Path) -> Result<Stall> {
        Stall::on(path, MaskFlags::FAN_OPEN_PERM)
    }

    /// Holds any process that opens this file from now on, and again before each read.
    pub(crate) fn on_open_and_read(path: &Path) -> Result<Stall> {
        Stall::on(path, MaskFlags::FAN_OPEN_PERM | MaskFlags::FAN_ACCESS_PERM)
    }

    fn on(path: &Path, what: MaskFlags) -> Result<Stall> {
        let fanotify = Fanotify::init(
            InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK,
            EventFFlags::O_RDONLY,
        )
        .context("holding a process at a file needs CAP_SYS_ADMIN: run this as root")?;
        let here = fs::File::open("/").context("could not open \"/\"")?;
        fanotify
            .mark(MarkFlags::FAN_MARK_ADD, what, here.as_fd(), Some(path))
            .with_context(|| format!("could not watch \"{}\"", path.display()))?;
        Ok(Stall {
            fanotify,
            path: path.to_owned(),
        })
    }

    /// Waits until this process is held.
    pub(crate) fn held_in(&self, pid: u32) -> Result<Held<'_>> {
        self.next(pid, || Ok(false))
            .context("a module that leaves its files to another process cannot be held")?
            .context("the process was never held")
    }

    /// Waits until this process is held, or `over` says that this will not come; others are let go at once.
    pub(crate) fn next(
        &self,
        pid: u32,
        mut over: impl FnMut() -> Result<bool>,
    ) -> Result<Option<Held<'_>>> {
        let what = format!("the module to work on \"{}\"", self.path.display());
        wait_for(&what, DEADLINE, || match self.waiting(pid)? {
            Some(held) => Ok(Some(Some(held))),
            None if over()? => Ok(Some(self.waiting(pid)?)),
            None => Ok(None),
        })
    }

    /// Who has come to the file since the last look.
    fn events(&self) -> Result<Vec<FanotifyEvent>> {
        match self.fanotify.read_events() {
            Err(nix::errno::Errno::EAGAIN) => Ok(Vec::new()),
            events => Ok(events?),
        }
    }

    fn waiting(&self, pid: u32) -> Result<Option<Held<'_>>> {
        let mut held = None;
        for event in self.events()? {
            let by = Held { stall: self, event };
            if held.is_none() && u32::try_from(by.event.pid()) == Ok(pid) {
                held = Some(by);
            } else {
                by.release()?;
            }
        }
        Ok(held)
    }
}

impl Held<'_> {
    /// Lets all other processes go on that have come to the file meanwhile: it is this process that the disk hangs for.
    /// Another thread of this process waits until the stall is dropped.
    pub(crate) fn let_others_go(&self) -> Result<()> {
        for event in self.stall.events()? {
            if event.pid() != self.event.pid() {
                let stall = self.stall;
                Held { stall, event }.release()?;
            }
        }
        Ok(())
    }

    /// Lets it go on; one that was killed meanwhile is no error.
    pub(crate) fn release(self) -> Result<()> {
        let fd = self.event.fd().context("the event has no file")?;
        let answer = FanotifyResponse::new(fd, Response::FAN_ALLOW);
        match self.stall.fanotify.write_response(answer) {
            Ok(()) | Err(nix::errno::Errno::ENOENT) => Ok(()),
            Err(error) => Err(error).context("could not let a process go on"),
        }
    }

    /// Whether it is about to read, and not to open.
    pub(crate) fn reads(&self) -> bool {
        self.event.mask().contains(MaskFlags::FAN_ACCESS_PERM)
    }

    /// Whether it has the file open and has read it to this size, so that what comes next is its last look.
    pub(crate) fn has_read(&self, size: u64) -> bool {
        let home = PathBuf::from(format!("/proc/{}", self.event.pid()));
        let Ok(files) = fs::read_dir(home.join("fd")) else {
            return false;
        };
        files.flatten().any(|file| {
            let here = fs::read_link(file.path()).is_ok_and(|target| target == self.stall.path);
            let info = fs::read_to_string(home.join("fdinfo").join(file.file_name()));
            here && info.is_ok_and(|info| position(&info) == Some(size))
        })
    }
}

/// The position in a file, from `/proc/PID/fdinfo/FD`, see proc(5).
fn position(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("pos:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_is_read_from_fdinfo() {
        assert_eq!(position("pos:\t1048576\nflags:\t02\n"), Some(1_048_576));
        assert_eq!(position("flags:\t02\n"), None);
    }
}
