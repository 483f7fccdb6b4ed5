//! A session that is kept open while a module misbehaves: an innocent bystander of everything that the server does.
//!
//! Guarantees that its answers come from one and the same server process, or that it fails; and that no answer is
//! waited for without end, because the server itself cancels a statement that takes too long.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, ensure};
use lab::{Cluster, Lab, Mark};

/// What no log may hold, whatever a module does.
const HARM: [&str; 4] = [
    "terminated by signal",
    "PANIC:",
    "terminating any other active server processes",
    "database system was interrupted",
];

/// An open session, and its server process.
pub(crate) struct Witness {
    psql: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    pid: String,
    since: Mark,
}

impl Witness {
    /// Opens a session.
    pub(crate) fn of(cluster: &Cluster) -> Result<Witness> {
        let mut command = cluster.client("psql");
        command.args(["-X", "-A", "-t", "-q", "-d", "postgres"]);
        let mut psql = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("could not start psql")?;
        let to = psql.stdin.take().context("no standard input")?;
        let from = psql.stdout.take().context("no standard output")?;
        let mut witness = Witness {
            psql,
            to,
            from: BufReader::new(from),
            pid: String::new(),
            since: cluster.mark()?,
        };
        witness.tell("set statement_timeout = '60s'")?;
        witness.pid = witness.ask("select pg_backend_pid()")?;
        Ok(witness)
    }

    /// Runs a statement that answers nothing; whether it fails is not looked at.
    pub(crate) fn tell(&mut self, sql: &str) -> Result<()> {
        writeln!(self.to, "{sql};").context("the session is gone")
    }

    /// Runs a statement that answers with one line.
    pub(crate) fn ask(&mut self, sql: &str) -> Result<String> {
        self.tell(sql)?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "the session ended at {sql:?}");
        Ok(line.trim_end().to_owned())
    }

    /// Fails unless the session lives on in the same process, and the log tells of no harm since it was opened.
    pub(crate) fn check(&mut self, cluster: &Cluster) -> Result<()> {
        let pid = self.ask("select pg_backend_pid()")?;
        ensure!(pid == self.pid, "the session was in process {}", self.pid);
        for words in HARM {
            let found = cluster.logged(self.since, &[words])?;
            ensure!(found.is_empty(), "the server came to harm: {found:?}");
        }
        Ok(())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}

/// A module that misbehaves on request: the name of its library, which is the prefix of its parameters too, and each
/// of its ways with what the log says of it.
pub(crate) struct Culprit {
    pub(crate) library: &'static str,
    pub(crate) ways: &'static [(&'static str, &'static str)],
}

/// The module in Rust.
pub(crate) const RUST: Culprit = Culprit {
    library: "misbehave",
    ways: &[
        ("panic", "panic in the module: asked to panic during"),
        ("payload", "panic in the module: no message ("),
        ("error", "misbehave.no_such_parameter"),
        ("failure", "asked to fail during"),
    ],
};

impl Culprit {
    /// The name of one of its parameters.
    pub(crate) fn parameter(&self, name: &str) -> String {
        format!("{}.{name}", self.library)
    }

    /// Has it misbehave at this place from now on: when this returns the server's processes have been told.
    pub(crate) fn at(&self, cluster: &Cluster, place: &str, way: &str) -> Result<()> {
        let (at, mode) = (self.parameter("at"), self.parameter("mode"));
        cluster.reload(|settings| {
            settings.set(&at, place);
            settings.set(&mode, way);
        })?;
        // A session that starts after the reload has the new values; the others were signalled before it started
        // (postmaster.c, process_pm_reload_request and, in 15, SIGHUP_handler).
        let both = format!("select current_setting('{at}') || ' ' || current_setting('{mode}')");
        cluster.wait_for_sql(&both, &format!("{place} {way}"))
    }

    /// Has it behave again.
    pub(crate) fn behaves(&self, cluster: &Cluster) -> Result<()> {
        self.at(cluster, "jobs", "ok")
    }

    /// Its settings beside `settings`, where files are kept in `directory`.
    pub(crate) fn with(
        &self,
        settings: lab::Settings,
        directory: &str,
        place: &str,
        way: &str,
    ) -> lab::Settings {
        settings
            .with(&self.parameter("directory"), directory)
            .with(&self.parameter("at"), place)
            .with(&self.parameter("mode"), way)
    }

    /// Fails unless it was built.
    pub(crate) fn require(&self, lab: &Lab) -> Result<()> {
        lab.require_library(self.library)
    }
}
