//! What a process asks of the file system, in order, as strace(1) sees it.
//!
//! Guarantees that a process is traced from before [`Trace::begin`] returns to its end. Leaves out
//! what is not asked through a system call with a file's name or descriptor (io_uring, writing through mmap).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use lab::{Lab, Outcome, Process, run, wait_until};
use rustix::process::Signal;

/// The calls that make, fill, name or sync files.
const CALLS: &str = "trace=open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,sendfile,\
                     copy_file_range,splice,fsync,fdatasync,sync,syncfs,rename,renameat,renameat2,link,linkat";

/// strace(1) at work on a process.
pub(crate) struct Trace {
    strace: std::process::Child,
    output: PathBuf,
}

/// One call that succeeded, e.g. `fsync(7</archive>) = 0`.
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Trace {
    /// Starts to trace all threads of a process, those to come included.
    pub(crate) fn begin(lab: &Lab, process: &Process, name: &str) -> Result<Trace> {
        if let Err(error) = run(lab.command("strace").arg("-V")).and_then(Outcome::success) {
            bail!(
                "whether files are synced is seen with strace, which is not on PATH: install it ({error:#})"
            );
        }
        let output = lab.dir().join(name);
        let said = output.with_extension("said");
        let strace = lab
            .command("strace")
            .args(["-f", "-y", "-s", "8", "-e", CALLS, "-p"])
            .arg(process.pid.to_string())
            .arg("-o")
            .arg(&output)
            .stderr(Stdio::from(fs::File::create(&said)?))
            .spawn()
            .context("could not start strace")?;
        let mut trace = Trace { strace, output };
        wait_until("strace to attach", || {
            if let Some(status) = trace.strace.try_wait()? {
                bail!(
                    "strace ended with {status}: {}",
                    fs::read_to_string(&said)?.trim()
                );
            }
            Ok(fs::read_to_string(&said)?.contains(" attached"))
        })?;
        Ok(trace)
    }

    /// Ends the tracing once the server's note that this file is archived has been seen; the process goes on.
    /// Answers with what succeeded before it, in the order of the ends.
    pub(crate) fn until_acknowledged(mut self, file: &str) -> Result<Vec<Call>> {
        // The note is in the file system before strace has told of it.
        let mut before = Vec::new();
        wait_until(
            &format!("strace to see the server's note about {file}"),
            || {
                before = calls(&fs::read_to_string(&self.output)?);
                let noted = before.iter().position(|call| call.acknowledges(file));
                before.truncate(noted.unwrap_or(before.len()));
                Ok(noted.is_some())
            },
        )?;
        let strace = Process {
            pid: self.strace.id(),
            title: String::new(),
        };
        // It detaches; the process goes on untraced.
        strace.signal(Signal::INT)?;
        self.strace.wait()?;
        ensure!(!before.is_empty(), "strace saw no call that concerns files");
        Ok(before)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // After an error; it is gone already after `until_acknowledged`.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

impl Call {
    /// Whether it puts bytes into a file below this directory.
    pub(crate) fn writes_below(&self, directory: &Path) -> bool {
        // What is written to comes first, except in these.
        let to = match self.name.as_str() {
            "copy_file_range" | "splice" => self.text.splitn(3, '<').nth(2).unwrap_or_default(),
            "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" | "sendfile" => {
                self.text.split_once('<').map_or("", |(_, rest)| rest)
            }
            _ => return false,
        };
        let to = to.split('>').next().unwrap_or_default();
        Path::new(to).starts_with(directory) && to != directory.to_string_lossy()
    }

    /// Whether it is done so that the bytes written are durable without a sync.
    pub(crate) fn opens_synchronously(&self, directory: &Path) -> bool {
        self.name.starts_with("open") && self.text.contains("SYNC") && self.is_below(directory)
    }

    /// Whether it syncs a file below this directory, or everything.
    pub(crate) fn syncs_below(&self, directory: &Path) -> bool {
        match self.name.as_str() {
            "fsync" | "fdatasync" => self.is_below(directory) && !self.is_of(directory),
            "sync" | "syncfs" => true,
            _ => false,
        }
    }

    /// Whether it syncs this directory, or everything.
    pub(crate) fn syncs(&self, directory: &Path) -> bool {
        match self.name.as_str() {
            "fsync" | "fdatasync" => self.is_of(directory),
            "sync" | "syncfs" => true,
            _ => false,
        }
    }

    /// Whether it gives this file, in this directory, its name.
    pub(crate) fn names(&self, directory: &Path, file: &str) -> bool {
        let makes = match self.name.as_str() {
            "open" | "openat" | "openat2" => {
                self.text.contains("O_CREAT") && !self.text.contains("O_TMPFILE")
            }
            "creat" | "rename" | "renameat" | "renameat2" | "link" | "linkat" => true,
            _ => false,
        };
        let last = self.text.rsplit('"').nth(1).unwrap_or_default();
        makes
            && Path::new(last)
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(file))
            && self.is_below(directory)
    }

    /// Whether it is the server's own note that it takes this file for archived.
    pub(crate) fn acknowledges(&self, file: &str) -> bool {
        self.name.starts_with("rename")
            && self.text.contains(&format!("archive_status/{file}.done"))
    }

    /// Whether this directory, or what lies in it, is an argument: a descriptor's `<path>` or a `"path"`.
    fn is_below(&self, directory: &Path) -> bool {
        let path = directory.to_string_lossy();
        let here = |start: char| {
            let begun = format!("{start}{path}");
            let mut ends = self
                .text
                .match_indices(&begun)
                .map(|(at, _)| at + begun.len());
            ends.any(|at| {
                self.text
                    .get(at..)
                    .is_some_and(|rest| rest.starts_with(['/', '>', '"']))
            })
        };
        here('<') || here('"')
    }

    fn is_of(&self, directory: &Path) -> bool {
        self.text.contains(&format!("<{}>", directory.display()))
    }
}

/// The calls that succeeded. A call that another thread's interrupted is put together again, at its end.
fn calls(text: &str) -> Vec<Call> {
    let mut begun: std::collections::BTreeMap<&str, &str> = std::collections::BTreeMap::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((pid, line)) = line.split_once(' ') else {
            continue;
        };
        let line = line.trim_start();
        if let Some(start) = line.strip_suffix(" <unfinished ...>") {
            begun.insert(pid, start);
            continue;
        }
        let whole = match line.strip_prefix("<... ") {
            Some(rest) => {
                let rest = rest.split_once(" resumed>").map_or("", |(_, rest)| rest);
                format!("{}{rest}", begun.remove(pid).unwrap_or_default())
            }
            None => line.to_owned(),
        };
        let Some((name, _)) = whole.split_once('(') else {
            continue;
        };
        let failed = whole
            .rsplit_once(" = ")
            .is_none_or(|(_, result)| result.starts_with('-'));
        if !failed {
            found.push(Call {
                name: name.to_owned(),
                text: whole,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"11 openat(4</a>, ".", O_WRONLY|O_CLOEXEC|O_TMPFILE, 0600) = 5</a/#12 (deleted)>
11 copy_file_range(3</w/0A>, NULL, 5</a/#12 (deleted)>, NULL, 1024, 0) = 1024
11 fsync(5</a/#12 (deleted)> <unfinished ...>
12 fsync(9</elsewhere>) = 0
11 <... fsync resumed>)          = 0
11 linkat(AT_FDCWD</d>, "/proc/self/fd/5", 4</a>, "0A", AT_SYMLINK_FOLLOW) = 0
11 fsync(4</a>) = -1 EIO (Input/output error)
11 fsync(4</a>) = 0
10 rename("pg_wal/archive_status/0A.ready", "pg_wal/archive_status/0A.done") = 0
"#;

    #[test]
    fn syncs_of_a_file_and_of_its_directory_are_told_apart() {
        let calls = calls(TEXT);
        let at = |what: &dyn Fn(&Call) -> bool| -> Vec<usize> {
            (0..calls.len())
                .filter(|index| what(&calls[*index]))
                .collect()
        };
        let a = Path::new("/a");
        assert_eq!(at(&|call| call.writes_below(a)), [1]);
        assert_eq!(at(&|call| call.syncs_below(a)), [3]);
        assert_eq!(at(&|call| call.names(a, "0A")), [4]);
        assert_eq!(at(&|call| call.syncs(a)), [5]);
        assert_eq!(at(&|call| call.acknowledges("0A")), [6]);
    }
}
