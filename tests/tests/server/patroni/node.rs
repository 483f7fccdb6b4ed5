//! One of the servers that Patroni keeps, with the Patroni beside it, as the shipped configuration has them.
//!
//! Guarantees that addresses, directories and times are all that differs from `contrib/patroni`, that only processes of this
//! node are signalled, and that Patroni is gone when the node is dropped. Leaves the server to `group.rs`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::stores::{Port, folder};
use lab::{ArchiveDir, Lab, Process, descendants, run, wait_until};
use rustix::process::Signal;
use serde_json::Value;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/patroni");

/// Passwords in the shipped configuration: of the server's superuser, and of `replicator`.
const PASSWORD: &str = "first-secret";
pub(super) const REPLICATION_PASSWORD: &str = "second-secret";

/// How long one answer of Patroni may take: it asks etcd.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// The times of the shipped configuration, and the shortest that Patroni takes. Failovers are the same, and sooner.
const HURRIED: [(&str, &str); 3] = [
    ("ttl: 30", "ttl: 20"),
    ("loop_wait: 10", "loop_wait: 1"),
    ("retry_timeout: 10", "retry_timeout: 3"),
];

/// What the lab needs beside the shipped settings: its library, a socket in the lab, less work, and soon a failure.
const LAB_SETTINGS: &str = "\
    fsync = off\nshared_buffers = 16MB\nmin_wal_size = 32MB\nautovacuum = off\nwal_retrieve_retry_interval = 500ms\n\
    walden.archive_timeout = 5s\nlc_messages = C\n";

/// One server and the Patroni beside it.
pub(super) struct Node<'lab> {
    lab: &'lab Lab,
    pub(super) name: String,
    home: PathBuf,
    server: Port,
    rest: Port,
    patroni: Mutex<Option<Child>>,
}

/// Text with each of these words replaced; each has to be there.
fn replaced(text: &str, changes: &[(&str, &str)]) -> Result<String> {
    let mut text = text.to_owned();
    for (from, to) in changes {
        ensure!(text.contains(from), "the shipped file lacks {from:?}");
        text = text.replace(from, to);
    }
    Ok(text)
}

fn shipped(name: &str) -> Result<String> {
    let path = Path::new(SHIPPED).join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Starts a program whose output is appended to a file.
pub(super) fn start_logged(command: &mut Command, log: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    command
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("could not start {command:?}"))
}

impl<'lab> Node<'lab> {
    /// Writes the configuration of the node with this number; etcd is at this port.
    pub(super) fn new(
        lab: &'lab Lab,
        number: usize,
        archive: &ArchiveDir,
        mode: &str,
        etcd: u16,
    ) -> Result<Node<'lab>> {
        let name = format!("node{number}");
        let node = Node {
            lab,
            home: lab.directory(&name)?,
            name,
            server: Port::take()?,
            rest: Port::take()?,
            patroni: Mutex::default(),
        };
        let home = node.home.display().to_string();
        let bin = lab.installation().pg_bin_dir().display().to_string();
        let text = replaced(&shipped("patroni.yml")?, &HURRIED)?;
        let text = replaced(
            &text,
            &[
                ("node1", &node.name),
                ("10.0.0.11:8008", &node.address(&node.rest)),
                ("10.0.0.11:5432", &node.address(&node.server)),
                (
                    "10.0.0.21:2379,10.0.0.22:2379,10.0.0.23:2379",
                    &format!("127.0.0.1:{etcd}"),
                ),
                ("/usr/lib/postgresql/15/bin", &bin),
                ("/var/lib/postgresql", &home),
                ("/etc/patroni", &home),
                ("10.0.0.0/24", "127.0.0.1/32"),
                // Small segments make many.
                (
                    "    - data-checksums",
                    "    - data-checksums\n    - wal-segsize: '1'",
                ),
            ],
        )?;
        fs::write(node.home.join("patroni.yml"), text)?;
        let settings = replaced(
            &shipped("walden.conf")?,
            &[
                ("'/srv/wal'", &format!("'{}'", archive.text())),
                ("archive_mode = always", &format!("archive_mode = {mode}")),
            ],
        )?;
        let library = lab.installation().library_dir().display().to_string();
        let jobs = std::env::var("WALDEN_TEST_ARCHIVE_JOBS").unwrap_or_default();
        let jobs = if jobs.is_empty() {
            String::new()
        } else {
            format!("walden.archive_jobs = {jobs}\n")
        };
        let own = format!(
            "{LAB_SETTINGS}{jobs}unix_socket_directories = '{home}'\ndynamic_library_path = '{library}:$libdir'\n"
        );
        fs::write(node.home.join("walden.conf"), settings + &own)?;
        Ok(node)
    }

    fn address(&self, port: &Port) -> String {
        format!("127.0.0.1:{}", port.number())
    }

    fn data(&self) -> PathBuf {
        self.home.join("main")
    }

    /// The directory of its WAL.
    pub(super) fn wal(&self) -> PathBuf {
        self.data().join("pg_wal")
    }

    /// The port of its server.
    pub(super) fn port(&self) -> u16 {
        self.server.number()
    }

    /// Starts Patroni, which starts the server.
    pub(super) fn start(&self) -> Result<()> {
        let program = folder("patroni")?.join("bin/patroni");
        let mut command = self.lab.server_command(&program.display().to_string());
        command.arg(self.home.join("patroni.yml"));
        // Servers that are unpacked and not installed find the system's libpq, which may be older than theirs.
        let libraries = self.lab.installation().pg_bin_dir().join("../lib");
        command.env("LD_LIBRARY_PATH", libraries);
        let child = start_logged(&mut command, &self.home.join("log"))?;
        let mut patroni = self.patroni.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(patroni.is_none(), "{} runs already", self.name);
        *patroni = Some(child);
        Ok(())
    }

    fn patroni(&self) -> Option<Process> {
        let patroni = self.patroni.lock().unwrap_or_else(PoisonError::into_inner);
        patroni.as_ref().map(|child| Process {
            pid: child.id(),
            title: "patroni".to_owned(),
        })
    }

    /// Whether its Patroni can answer: it runs, and is not stopped.
    pub(super) fn answers(&self) -> bool {
        self.patroni().is_some_and(|patroni| !is_stopped(&patroni))
    }

    /// Signals Patroni and waits for its end; SIGTERM has it stop its server first.
    pub(super) fn end_patroni(&self, signal: Signal) -> Result<()> {
        let process = self.patroni().context("Patroni does not run")?;
        process.signal(signal)?;
        wait_until("Patroni to end", || Ok(!process.is_alive()))?;
        let mut patroni = self.patroni.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = patroni.take() {
            child.wait()?;
        }
        Ok(())
    }

    /// The server's first process; `None` when there is none of this data directory.
    pub(super) fn postmaster(&self) -> Option<Process> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let pid: u32 = text.lines().next()?.parse().ok()?;
        // A killed server leaves the file, and its number may be another process's by now.
        let place = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        (place == self.data().canonicalize().ok()?).then(|| Process {
            pid,
            title: "postgres".to_owned(),
        })
    }

    /// The server's processes, the first one first.
    pub(super) fn processes(&self) -> Result<Vec<Process>> {
        let Some(postmaster) = self.postmaster() else {
            return Ok(Vec::new());
        };
        let below = descendants(postmaster.pid)?;
        Ok(std::iter::once(postmaster).chain(below).collect())
    }

    /// Kills the server's first process, and waits for the end of all.
    pub(super) fn kill_server(&self) -> Result<()> {
        let family = self.processes()?;
        family
            .first()
            .context("there is no server to kill")?
            .signal(Signal::KILL)?;
        wait_until("the killed server's processes to end", || {
            Ok(!family.iter().any(Process::is_alive))
        })
    }

    /// Stops every process of this node (SIGSTOP), as a machine that hangs.
    pub(super) fn pause(&self) -> Result<()> {
        let patroni = self.patroni().context("Patroni does not run")?;
        patroni.pause()?;
        self.processes()?.iter().try_for_each(Process::pause)
    }

    /// Lets them go on.
    pub(super) fn go_on(&self) -> Result<()> {
        for process in self.processes()?.iter().chain(&self.patroni()) {
            process.signal(Signal::CONT)?;
        }
        Ok(())
    }

    /// Runs SQL on this node, each statement in a transaction of its own.
    pub(super) fn sql(&self, text: &str) -> Result<String> {
        let input = self.home.join("input.sql");
        fs::write(&input, text)?;
        let mut command = psql(self.lab, &[self.port()]);
        let answer = run(command.arg("-f").arg(&input))?.success();
        let answer = answer.with_context(|| format!("psql failed on {} with {text:?}", self.name));
        Ok(answer?.trim_end().to_owned())
    }

    /// Whether its server takes writes.
    pub(super) fn is_primary(&self) -> bool {
        self.sql("select pg_is_in_recovery()")
            .is_ok_and(|answer| answer == "f")
    }

    /// Whether the server answers that it is a standby.
    pub(super) fn is_standby(&self) -> bool {
        self.sql("select pg_is_in_recovery()")
            .is_ok_and(|answer| answer == "t")
    }

    /// The files that wait to be archived.
    pub(super) fn ready(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.wal().join("archive_status"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(name.strip_suffix(".ready").map(str::to_owned));
        }
        Ok(names)
    }

    /// All that Patroni and the server have logged.
    pub(super) fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.home.join("log"))?).into_owned())
    }

    /// One request to Patroni; the document in its answer, or its text.
    pub(super) fn ask(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.rest.number()));
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: patroni\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(
            head.split(' ')
                .nth(1)
                .is_some_and(|code| code.starts_with('2')),
            "{method} {path}: {answer}"
        );
        Ok(serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned())))
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        // What a test has stopped cannot end.
        let _ = self.go_on();
        let patroni = self
            .patroni
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = patroni.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// psql for the first of the servers on these ports that is what `PGTARGETSESSIONATTRS` asks for.
pub(super) fn psql(lab: &Lab, ports: &[u16]) -> Command {
    let hosts = vec!["127.0.0.1"; ports.len()].join(",");
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    let ports = ports.join(",");
    let mut command = lab.command("psql");
    command
        .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d"])
        .arg(format!(
            "host={hosts} port={ports} user=postgres dbname=postgres connect_timeout=3"
        ))
        .env("PGPASSWORD", PASSWORD);
    command
}

fn is_stopped(process: &Process) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with('T') || rest.starts_with('Z'))
}
