//! The other programs that archive WAL: whether they are here, in which version, how they are set up.
//!
//! Guarantees that a peer that is not here is a row that says so, not a row that is not there. Peers get the
//! same disk, the same two processors and, where they have it, the same codec and level as Walden; otherwise
//! their own defaults. `scripts/peers` fetches them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use lab::{Lab, run};

/// Where peers' programs are; `None` for those that are not here.
pub(crate) struct Peers {
    /// The program `pgbackrest`, if it is installed.
    pub(crate) pgbackrest: Option<PathBuf>,
    /// The program of WAL-RUS, if it is installed.
    pub(crate) walrus: Option<PathBuf>,
}

/// Why a peer has no figures.
pub(crate) const NOT_HERE: &str = "not here";

impl Peers {
    /// Looks for them in `dir` and on PATH; a copy of what is in `dir` is put where servers' users can run it.
    ///
    /// # Errors
    ///
    /// When a program cannot be copied.
    pub(crate) fn find(lab: &Lab, dir: &Path) -> Result<Peers> {
        let walrus = match dir.join("walrus") {
            path if path.exists() => {
                lab.installation().add_program(&path)?;
                Some(lab.installation().library_dir().join("../bin/walrus"))
            }
            _ => on_path("walrus"),
        };
        Ok(Peers {
            pgbackrest: on_path("pgbackrest"),
            walrus,
        })
    }

    /// What they say of their versions.
    pub(crate) fn versions(&self) -> BTreeMap<String, String> {
        let mut versions = BTreeMap::new();
        for (name, program, argument) in [
            ("pgBackRest", &self.pgbackrest, "version"),
            ("WAL-RUS", &self.walrus, "--version"),
        ] {
            let said = program
                .as_ref()
                .and_then(|program| Command::new(program).arg(argument).output().ok())
                .map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
            let version = said
                .and_then(|text| Some(text.rsplit_once(' ')?.1.to_owned()))
                .unwrap_or_else(|| NOT_HERE.to_owned());
            versions.insert(name.to_owned(), version);
        }
        versions
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// A pgBackRest repository of its own, with spool, locks and configuration.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    program: PathBuf,
    dir: PathBuf,
    config: PathBuf,
}

/// The one stanza of each repository.
const STANZA: &str = "bench";

/// How pgBackRest is to work.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// `archive-async`, with two processes.
    pub(crate) asynchronous: bool,
    /// Its `compress-type`, and the level if it has one.
    pub(crate) compress: (&'static str, Option<u32>),
    /// Lines of its configuration that say where the repository is; else in a directory of its own.
    pub(crate) place: Option<String>,
}

impl Repository {
    /// Makes the directories and the configuration of a repository for this data directory.
    ///
    /// # Errors
    ///
    /// When they cannot be made.
    pub(crate) fn new(
        lab: &Lab,
        name: &str,
        program: &Path,
        data: &Path,
        manner: Manner,
    ) -> Result<Repository> {
        let dir = lab.directory(name)?;
        for part in ["repo", "spool", "lock", "log"] {
            lab.directory(&format!("{name}/{part}"))?;
        }
        let (kind, level) = manner.compress;
        let level = level.map_or_else(String::new, |level| format!("compress-level={level}\n"));
        let (asynchronous, processes) = if manner.asynchronous {
            ("y", 2)
        } else {
            ("n", 1)
        };
        let here = dir.display();
        let place = manner
            .place
            .unwrap_or_else(|| format!("repo1-path={here}/repo\n"));
        let text = format!(
            "[global]\n{place}spool-path={here}/spool\nlock-path={here}/lock\n\
             log-path={here}/log\nlog-level-file=off\nlog-level-console=warn\n\
             archive-async={asynchronous}\nprocess-max={processes}\ncompress-type={kind}\n{level}\
             [{STANZA}]\npg1-path={}\n",
            data.display()
        );
        let config = dir.join("pgbackrest.conf");
        fs::write(&config, text)?;
        lab.own(&config)?;
        Ok(Repository {
            program: program.to_owned(),
            dir,
            config,
        })
    }

    /// Where archived files are, in directories below.
    pub(crate) fn archive(&self) -> PathBuf {
        self.dir.join("repo/archive")
    }

    /// The one directory that the segments lie in, if they do not differ in the first 16 digits of their names.
    ///
    /// # Errors
    ///
    /// When nothing was archived yet.
    pub(crate) fn segments(&self) -> Result<PathBuf> {
        let mut dir = self.archive().join(STANZA);
        for _ in 0..2 {
            let mut below = fs::read_dir(&dir)?.filter_map(|entry| Some(entry.ok()?.path()));
            dir = below
                .find(|path| path.is_dir())
                .with_context(|| format!("\"{}\" has no directory", dir.display()))?;
        }
        Ok(dir)
    }

    /// Empties it, spool included, and makes it ready for files. One in a bucket was emptied with that before.
    ///
    /// # Errors
    ///
    /// When pgBackRest refuses.
    pub(crate) fn renew(&self, lab: &Lab) -> Result<()> {
        for part in ["repo", "spool"] {
            let path = self.dir.join(part);
            fs::remove_dir_all(&path)?;
            fs::create_dir(&path)?;
            lab.own(&path)?;
        }
        let mut create = lab.server_command(&self.program.display().to_string());
        create
            .args(self.flags())
            .args(["stanza-create", "--no-online"]);
        run(&mut create)?
            .success()
            .context("stanza-create failed")?;
        Ok(())
    }

    /// Empties the spool, in which files fetched ahead lie.
    ///
    /// # Errors
    ///
    /// When it cannot be emptied.
    pub(crate) fn forget_ahead(&self, lab: &Lab) -> Result<()> {
        let path = self.dir.join("spool");
        fs::remove_dir_all(&path)?;
        fs::create_dir(&path)?;
        lab.own(&path)
    }

    fn flags(&self) -> [String; 2] {
        [
            format!("--config={}", self.config.display()),
            format!("--stanza={STANZA}"),
        ]
    }

    /// The value of `archive_command`.
    pub(crate) fn push(&self) -> String {
        let [config, stanza] = self.flags();
        format!(
            "{} {config} {stanza} archive-push %p",
            self.program.display()
        )
    }

    /// The `restore_command` of a server in another data directory.
    pub(crate) fn get(&self, data: &Path, asynchronous: bool) -> String {
        let [config, stanza] = self.flags();
        let manner = if asynchronous {
            "--archive-async --process-max=2"
        } else {
            "--no-archive-async --process-max=1"
        };
        format!(
            "{} {config} {stanza} {manner} --pg1-path={} archive-get %f \"%p\"",
            self.program.display(),
            data.display()
        )
    }
}

/// A WAL-RUS archive.
#[derive(Clone, Debug)]
pub(crate) struct Herd {
    program: PathBuf,
    environment: Vec<(String, String)>,
}

impl Herd {
    /// An archive where these environment variables say; level 1 is its default for all codecs.
    pub(crate) fn new(program: &Path, place: Vec<(String, String)>, method: &'static str) -> Herd {
        let mut environment = place;
        for (name, value) in [
            ("WALG_COMPRESSION_METHOD", method),
            ("WALG_COMPRESSION_LEVEL", "1"),
        ] {
            environment.push((name.to_owned(), value.to_owned()));
        }
        Herd {
            program: program.to_owned(),
            environment,
        }
    }

    fn assignments(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.environment {
            text.push_str(&format!("{name}={value} "));
        }
        text
    }

    /// The `restore_command`, which fetches ahead by a process that it leaves behind.
    pub(crate) fn fetch(&self) -> String {
        format!(
            "{}{} wal-fetch %f %p",
            self.assignments(),
            self.program.display()
        )
    }

    /// The daemon, which archives four files at once (its default), as a command to start.
    pub(crate) fn daemon(&self, lab: &Lab, socket: &Path, data: &Path) -> Command {
        let mut command = lab.server_command(&self.program.display().to_string());
        command
            .envs(self.environment.iter().cloned())
            .env("PGDATA", data)
            .arg("daemon")
            .arg(socket);
        command
    }

    /// The `archive_command` that asks the daemon.
    pub(crate) fn ask(&self, socket: &Path) -> String {
        format!(
            "{} daemon-client --socket {} wal-push %p",
            self.program.display(),
            socket.display()
        )
    }
}
