//! What the promises share: a primary whose backups go to the target, and what is found of them.
//!
//! Guarantees: backups are asked for by the stock `pg_basebackup`, their WAL included; what is found is judged by the manifest
//! and by a server that is started from it.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use lab::{ArchiveDir, Cluster, Contents, Lab, Mark, Outcome, Process, Shutdown, run, wait_for};

use crate::promise::{broken, hold, must};
use crate::subject::Subject;

/// The smallest segment size: little WAL in each backup.
const SEGMENT_MB: u32 = 1;

/// How long something may take that a working target does in a moment, on a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The rate at which a backup goes on that is to be met in the middle, for pg_basebackup. One of the scene, 30 MB and more, takes
/// half a minute: the server notices within two seconds that its client is gone, and on a loaded machine later.
const RATE: &str = "--max-rate=1M";

/// How many bytes of a backup of the scene have gone at most when something happens to it: few of all.
pub(super) const MIDDLE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What folders end in that are not backups yet, where the target has no command.
const UNFINISHED: &str = ".partial";

/// A running primary, and the place where the target keeps its backups.
pub(super) struct Scene<'lab> {
    pub(super) server: Cluster<'lab>,
    pub(super) archive: ArchiveDir,
    lab: &'lab Lab,
    name: String,
    unpack: Option<String>,
    asked: Cell<u32>,
    found: Cell<u32>,
}

impl<'lab> Scene<'lab> {
    /// Starts a primary with a ledger, and a table that makes backups last long enough to be met in the middle.
    pub(super) fn begin(subject: &Subject, lab: &'lab Lab, name: &str) -> Result<Self> {
        let target = subject.target()?;
        let archive = lab.archive(&format!("{name}-archive"))?;
        let settings = subject.backing_up(lab, &archive)?;
        let server = lab.cluster(name, SEGMENT_MB, settings)?;
        if let Err(error) = server.start() {
            let log = server.log(Mark::default())?;
            let said = log.lines().last().unwrap_or_default();
            return Err(error).context(format!(
                "no server starts with the target's library and the parameters given with --set; it logged: {said}"
            ));
        }
        server.create_ledger()?;
        server.sql(
            "insert into ledger(entry) values (1); create table bulk as \
             select n, repeat(md5(n::text), 32) filling from generate_series(1, 10000) n; checkpoint",
        )?;
        Ok(Self {
            server,
            archive,
            lab,
            name: target.name.clone(),
            unpack: target.unpack.clone(),
            asked: Cell::new(0),
            found: Cell::new(0),
        })
    }

    /// `pg_basebackup` to the target, under a name of its own if the target wants one.
    pub(super) fn command(&self) -> Command {
        self.asked.set(self.asked.get() + 1);
        let number = self.asked.get().to_string();
        let mut command = self
            .server
            .backup_command(&self.name.replace("{n}", &number));
        command.args(["-X", "fetch"]);
        command
    }

    /// The same for the replication protocol.
    pub(super) fn replication_command(&self) -> String {
        self.asked.set(self.asked.get() + 1);
        let target = self.name.replace("{n}", &self.asked.get().to_string());
        let (name, detail) = target.split_once(':').unwrap_or((&target, ""));
        let quoted = |text: &str| text.replace('\'', "''");
        let detail = match detail {
            "" => String::new(),
            detail => format!(", TARGET_DETAIL '{}'", quoted(detail)),
        };
        format!(
            "BASE_BACKUP (TARGET '{}'{detail}, CHECKPOINT 'fast', WAL, TABLESPACE_MAP, MANIFEST 'yes')",
            quoted(name)
        )
    }

    /// Takes a backup; answers with what `pg_basebackup` did.
    pub(super) fn take(&self) -> Result<Outcome> {
        run(&mut self.command())
    }

    /// Takes a backup, which must succeed.
    pub(super) fn must_take(&self, when: &str) -> Result<()> {
        let outcome = self.take()?;
        hold(outcome.status.success(), || {
            format!("{when}, a base backup failed: {}", outcome.stderr.trim())
        })
    }

    /// Begins a backup at a pace at which it can be met in the middle, and waits until this much of it has gone.
    pub(super) fn begin_slowly(&self, bytes: u64) -> Result<Child> {
        let mut command = self.command();
        command
            .arg(RATE)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().context("could not start pg_basebackup")?;
        let query = format!(
            "select count(*) > 0 from pg_stat_progress_basebackup where backup_streamed > {bytes}"
        );
        wait_for("a base backup to be under way", PATIENCE, || {
            Ok((self.server.sql(&query)? == "t").then_some(()))
        })?;
        Ok(child)
    }

    /// The process that takes the backup.
    pub(super) fn walsender(&self) -> Result<Process> {
        let pid = self
            .server
            .sql("select pid from pg_stat_progress_basebackup")?;
        Ok(Process {
            pid: pid.trim().parse()?,
            title: "walsender".to_owned(),
        })
    }

    pub(super) fn postmaster(&self) -> Result<Process> {
        Ok(Process {
            pid: self.server.pid()?,
            title: "postmaster".to_owned(),
        })
    }

    /// Waits until no backup is running in the server.
    pub(super) fn wait_until_over(&self) -> Result<()> {
        self.server
            .wait_for_sql("select count(*) from pg_stat_progress_basebackup", "0")
    }

    /// The last backup that there is, unpacked into a data directory; `None` where there is none.
    pub(super) fn find(&self) -> Result<Option<PathBuf>> {
        self.found.set(self.found.get() + 1);
        let home = self.server.home().file_name().unwrap_or_default();
        let name = format!("{}-found-{}", home.to_string_lossy(), self.found.get());
        match &self.unpack {
            Some(command) => self.unpack_by(command, &name),
            None => match newest(self.archive.path())? {
                Some(folder) => self
                    .lab
                    .unpacked(&name, &folder)
                    .with_context(|| {
                        format!(
                            "what was found in \"{}\" is no whole base backup",
                            folder.display()
                        )
                    })
                    .map(Some),
                None => Ok(None),
            },
        }
    }

    fn unpack_by(&self, command: &str, name: &str) -> Result<Option<PathBuf>> {
        let data = self.lab.directory(name)?;
        let command = command
            .replace("{archive}", &self.archive.text())
            .replace("{data}", &data.display().to_string());
        let outcome = run(self.lab.server_command("sh").arg("-c").arg(&command))?;
        if !outcome.status.success() {
            return Ok(None);
        }
        let manifest = data.join("backup_manifest");
        if manifest.exists() {
            self.lab.verify_backup(&data, &manifest)?;
        }
        Ok(Some(data))
    }

    /// There must be no backup.
    pub(super) fn must_have_none(&self, when: &str) -> Result<()> {
        match self.find() {
            Ok(None) => Ok(()),
            Ok(Some(_)) => broken(format!(
                "{when}, there is something that is taken for a whole base backup"
            )),
            Err(error) => broken(format!(
                "{when}, there is something that is taken for a base backup: {error:#}"
            )),
        }
    }

    /// There must be a backup, whole, and a server that is started from it must have these tables.
    pub(super) fn must_have(&self, contents: &Contents, when: &str) -> Result<()> {
        let data = match self.find() {
            Ok(Some(data)) => data,
            Ok(None) => return broken(format!("{when}, there is no base backup")),
            Err(error) => {
                return broken(format!("{when}, the base backup is not whole: {error:#}"));
            }
        };
        let name = format!(
            "{}-revived",
            data.file_name().unwrap_or_default().to_string_lossy()
        );
        let revived = self.lab.restored(&name, &data, self.lab.settings())?;
        let up = revived.start().and_then(|()| revived.wait_until_promoted());
        if let Err(error) = up {
            return broken(format!(
                "{when}, no server starts from the base backup: {error:#}"
            ));
        }
        let now = revived.contents()?;
        hold(now == *contents, || {
            format!("{when}, the base backup holds {now:?}, and the server held {contents:?}")
        })?;
        revived.stop(Shutdown::Immediate)?;
        Ok(())
    }

    /// The server must not have crashed: a process that does takes all others with it.
    pub(super) fn must_not_have_crashed(&self) -> Result<()> {
        let crashed = self
            .server
            .logged(Mark::default(), &["was terminated by signal"])?;
        let crashed = crashed.first();
        hold(crashed.is_none(), || {
            format!(
                "the server crashed: {}",
                crashed.map_or("", |entry| entry.text.trim())
            )
        })
    }

    /// The end of a client that must have failed.
    pub(super) fn must_have_failed(&self, mut client: Child, when: &str) -> Result<()> {
        let ended = wait_for("the client's end", PATIENCE, || Ok(client.try_wait()?));
        if ended.is_err() {
            client.kill()?;
            client.wait()?;
        }
        let status = must(ended, &format!("{when}, the client was told nothing"))?;
        hold(!status.success(), || {
            format!("{when}, the client was told that the base backup succeeded")
        })
    }

    /// Writes an entry, so that a later backup differs from an earlier one; answers with what the tables hold.
    pub(super) fn change(&self) -> Result<Contents> {
        self.server
            .sql("insert into ledger(entry) select max(entry) + 1 from ledger")?;
        self.server.contents()
    }
}

/// The newest folder with a data directory's archive in it, by the manifest's time or else the archive's.
fn newest(place: &Path) -> Result<Option<PathBuf>> {
    let mut found: Option<(SystemTime, PathBuf)> = None;
    for entry in fs::read_dir(place)? {
        let folder = entry?.path();
        let archive = folder.join("base.tar");
        if folder.to_string_lossy().ends_with(UNFINISHED) || !archive.is_file() {
            continue;
        }
        let changed = fs::metadata(&archive)?.modified()?;
        if found.as_ref().is_none_or(|(before, _)| *before <= changed) {
            found = Some((changed, folder));
        }
    }
    Ok(found.map(|(_, folder)| folder))
}

/// Fails when what happened came too late to show anything.
pub(super) fn in_time(client: &mut Child) -> Result<()> {
    ensure!(
        client.try_wait()?.is_none(),
        "the base backup was over too soon: nothing was shown"
    );
    Ok(())
}
