//! Watching a name in a directory: whether a file comes whole, or is written to under the name it is asked by.
//!
//! Guarantees that nothing that happens to the name between two looks is missed: the kernel keeps the list
//! (inotify(7)), and an overflow of it is an error.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

/// Room for some dozens of events at a time.
const BUFFER_BYTES: usize = 8 * 1024;

/// A name that is watched.
pub(super) struct Watch {
    inotify: OwnedFd,
    name: String,
}

/// What was seen to happen to the watched name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// How often a file got the name, by rename or link, or was created under it.
    pub(super) appeared: u32,
    /// How often a file was written to that had the name.
    pub(super) written: u32,
}

impl Watch {
    /// Watches `name` in `directory` from now on.
    pub(super) fn on(directory: &Path, name: &str) -> Result<Watch> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let what = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MODIFY;
        inotify::add_watch(&inotify, directory, what)
            .with_context(|| format!("could not watch \"{}\"", directory.display()))?;
        Ok(Watch {
            inotify,
            name: name.to_owned(),
        })
    }

    /// Adds what has happened since the last look.
    pub(super) fn look(&self, seen: &mut Seen) -> Result<()> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let what = event.events();
            ensure!(
                !what.contains(ReadFlags::QUEUE_OVERFLOW),
                "too much happened to be watched"
            );
            if event.file_name().map(|name| name.to_bytes()) != Some(self.name.as_bytes()) {
                continue;
            }
            seen.appeared += u32::from(what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO));
            seen.written += u32::from(what.contains(ReadFlags::MODIFY));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_written_under_its_name_is_told_from_one_that_is_renamed_to_it() -> Result<()> {
        let directory = std::env::temp_dir().join(format!("walden-watch-{}", std::process::id()));
        fs::create_dir(&directory)?;
        let watch = Watch::on(&directory, "asked")?;
        fs::write(directory.join("private"), "whole")?;
        fs::rename(directory.join("private"), directory.join("asked"))?;
        let mut seen = Seen::default();
        watch.look(&mut seen)?;
        assert_eq!(
            seen,
            Seen {
                appeared: 1,
                written: 0
            }
        );
        fs::write(directory.join("asked"), "half")?;
        watch.look(&mut seen)?;
        assert!(seen.written > 0, "{seen:?}");
        fs::remove_dir_all(&directory)?;
        Ok(())
    }
}
