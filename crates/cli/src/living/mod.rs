//! A server that runs: what it says of itself.
//!
//! Left to others: the session (`psql.rs`), what is asked (`observed.rs`), who is asked where there is no session (`worker.rs`),
//! and what to make of it.

pub(crate) mod observed;
pub(crate) mod psql;
mod worker;

use archive::{Error, ErrorKind};
use psql::Psql;
use rustix::io::Errno;
use rustix::process::{Pid, geteuid, test_kill_process};
use status::Status;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The longest `postmaster.pid` that is read, in bytes: eight short lines.
const PID_FILE_BYTES_MAX: u64 = 8192;

/// Which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// By a connection string or URI of libpq.
    Conninfo(String),
    /// By its data directory.
    Directory(PathBuf),
}

impl Target {
    /// What `-d` and `-D` say; the connection string first.
    ///
    /// # Errors
    /// When the connection string holds a password.
    pub(crate) fn of(
        conninfo: Option<&str>,
        pgdata: Option<&Path>,
    ) -> Result<Option<Target>, Error> {
        if let Some(conninfo) = conninfo {
            if holds_password(conninfo) {
                let what = "the connection string holds a password, which \"ps\" would show";
                return Err(Error::new(ErrorKind::Unusable, what)
                    .with_hint("Put it into ~/.pgpass, or name a service of pg_service.conf."));
            }
            return Ok(Some(Target::Conninfo(conninfo.to_owned())));
        }
        Ok(pgdata.map(|directory| Target::Directory(directory.to_owned())))
    }

    /// The server of a data directory, by its files, for when it cannot be asked.
    pub(crate) fn running(&self) -> Option<Running> {
        match self {
            Target::Directory(directory) => Running::of(directory).ok().flatten(),
            Target::Conninfo(_) => None,
        }
    }

    /// What its recovery worker says, if the server runs and lets no session in; `None` if it does, or that is not known.
    pub(crate) fn closed(&self) -> Option<Result<Closed, Error>> {
        let Target::Directory(directory) = self else {
            return None;
        };
        let running = self.running()?;
        let is_standby = directory.join("standby.signal").exists();
        // As the postmaster writes them (`PM_STATUS_STARTING`, `PM_STATUS_STANDBY`, miscadmin.h, 15 to 19).
        let is_closed = ["starting", "standby"].contains(&running.state.as_str());
        let said = is_closed.then(|| worker::document(directory))?;
        Some(said.map(|document| Closed {
            document,
            is_standby,
        }))
    }

    /// A session with it; `None` if the data directory says that no server runs there.
    ///
    /// Run by root on a data directory, the session is its owner's: no server has a role for root, and a socket tells who
    /// comes.
    ///
    /// # Errors
    /// When the directory cannot be read, or `psql` cannot be run.
    pub(crate) fn session(&self) -> Result<Option<Psql>, Error> {
        match self {
            Target::Conninfo(conninfo) => Psql::start(conninfo, None).map(Some),
            Target::Directory(directory) => {
                let owner = directory.metadata().ok();
                let owner = owner.map(|owner| (owner.uid(), owner.gid()));
                let owner = owner.filter(|_| geteuid().is_root());
                let running = Running::of(directory)?;
                running
                    .map(|running| Psql::start(&running.conninfo(), owner))
                    .transpose()
            }
        }
    }
}

/// A server that runs and lets no session in, by its recovery worker.
#[derive(Debug)]
pub(crate) struct Closed {
    /// What a session would be shown.
    pub(crate) document: Status,
    /// Whether it is a standby, and not on its way to a target.
    pub(crate) is_standby: bool,
}

/// Whether a connection string or URI gives a password.
fn holds_password(conninfo: &str) -> bool {
    let lower = conninfo.to_ascii_lowercase();
    let blanks_out: String = lower.chars().filter(|c| !c.is_whitespace()).collect();
    let uri = ["postgresql://", "postgres://"];
    let rest = uri.iter().find_map(|prefix| lower.strip_prefix(prefix));
    // As libpq takes it apart (conninfo_uri_parse_options, fe-connect.c): the user ends at the first "@" before a "/".
    let user = rest.and_then(|rest| rest.split('/').next()?.split_once('@'));
    user.is_some_and(|(user, _)| user.contains(':')) || blanks_out.contains("password=")
}

/// A server that runs in a data directory, by its `postmaster.pid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    /// Process identifier of the postmaster.
    pub(crate) pid: i32,
    port: String,
    socket_directory: String,
    listen_address: String,
    /// What the postmaster says of itself: `starting`, `ready`, `standby`, `stopping`.
    pub(crate) state: String,
}

impl Running {
    /// The server that runs there; `None` if none does.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub(crate) fn of(directory: &Path) -> Result<Option<Running>, Error> {
        let path = directory.join("postmaster.pid");
        let what = || format!("could not read file \"{}\"", path.display());
        let mut text = String::new();
        match archive::open_regular(&path) {
            Ok(file) => file
                .take(PID_FILE_BYTES_MAX)
                .read_to_string(&mut text)
                .map_err(|cause| Error::io(what(), cause))?,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => {
                return Err(Error::io(what(), cause).with_hint("Run this as the server's user."));
            }
        };
        let mut running = Running::parse(&text);
        // It may be relative to the data directory, which is the server's working directory.
        if let Some(running) = &mut running
            && running.socket_directory.starts_with('.')
        {
            let socket = directory.join(&running.socket_directory);
            let absolute = std::path::absolute(&socket).unwrap_or(socket);
            running.socket_directory = absolute.display().to_string();
        }
        Ok(running.filter(|running| is_alive(running.pid)))
    }

    /// The lines of the file are listed in `pidfile.h` (`utils/pidfile.h`, 15 to 19).
    fn parse(text: &str) -> Option<Running> {
        let mut lines = text.lines().map(|line| line.trim().to_owned());
        // In single-user mode it is negative.
        let pid = lines.next()?.parse::<i32>().ok()?.checked_abs()?;
        let mut line = |number: usize| lines.nth(number).unwrap_or_default();
        let port = line(2);
        let socket_directory = line(0);
        let listen_address = line(0);
        let state = line(1);
        Some(Running {
            pid,
            port,
            socket_directory,
            listen_address,
            state,
        })
    }

    fn conninfo(&self) -> String {
        let host = if self.socket_directory.is_empty() {
            match self.listen_address.as_str() {
                "" | "*" | "0.0.0.0" => "localhost",
                address => address,
            }
        } else {
            &self.socket_directory
        };
        let host = host.replace('\\', "\\\\").replace('\'', "\\'");
        let port: String = self.port.chars().filter(char::is_ascii_digit).collect();
        format!("host='{host}' port='{port}' dbname=postgres")
    }
}

/// Whether there is such a process, of whatever user.
fn is_alive(pid: i32) -> bool {
    let Some(pid) = Pid::from_raw(pid) else {
        return false;
    };
    !matches!(test_kill_process(pid), Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found_in_whatever_form_they_are_given() {
        for with in [
            "host=a password=x",
            "host=a Password = 'x'",
            "postgres://me:x@host/db",
            "postgresql://host/db?password=x",
            "postgres://me:p?w@host/db",
            "application_name=x://y password=z",
        ] {
            assert!(holds_password(with), "{with}");
        }
        for without in [
            "host=a passfile=/x",
            "postgres://me@host:5432/db",
            "service=a",
            "postgres://host:5432/db?sslmode=require",
        ] {
            assert!(!holds_password(without), "{without}");
        }
    }

    #[test]
    fn a_server_is_reached_by_what_its_pid_file_says() {
        let pid = std::process::id();
        let text = format!("{pid}\n/data\n1700000000\n5433\n/run/it's\n*\n  1 2\nready   \n");
        let running = Running::parse(&text).unwrap();
        assert_eq!(running.state, "ready");
        assert_eq!(
            running.conninfo(),
            "host='/run/it\\'s' port='5433' dbname=postgres"
        );
        let tcp = format!("{pid}\n/data\n1700000000\n5433\n\n*\n  1 2\nready\n");
        let tcp = Running::parse(&tcp).unwrap().conninfo();
        assert_eq!(tcp, "host='localhost' port='5433' dbname=postgres");
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Running::of(folder.path()).unwrap(), None);
        std::fs::write(folder.path().join("postmaster.pid"), text).unwrap();
        assert!(Running::of(folder.path()).unwrap().is_some());
        // No process has this number: it is above the kernel's maximum.
        std::fs::write(folder.path().join("postmaster.pid"), "2147483647\n").unwrap();
        assert_eq!(Running::of(folder.path()).unwrap(), None);
    }
}
