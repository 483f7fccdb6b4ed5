//! Who takes part in archiving, and what each needs to be told.
//!
//! Guarantees that a server's archiver is up and idle before the clock starts: a module is loaded but has no
//! archive yet, a command is empty yet; a reload starts the work. So neither the start of the server nor loading
//! a library is measured, and opening the archive is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::{Context, Result, ensure};
use lab::{Cluster, Lab};

use crate::backlog::empty;
use crate::bucket::Bucket;
use crate::many::NOTHING;
use crate::part::Session;
use crate::peers::{Herd, Manner, NOT_HERE, Peers, Repository};

/// The names of contenders that tables compare.
pub(crate) const LIMIT_EACH: &str = "limit: write, fsync each";
/// As [`LIMIT_EACH`], but one large file and one sync.
pub(crate) const LIMIT_ONE: &str = "limit: one file, one fsync";
/// `archive_library = 'walden'` with its default number of jobs.
pub(crate) const WALDEN_4: &str = "Walden, 4 jobs";
/// Another build's library, by the name that servers find it by.
const OTHER_BUILD: &str = "walden_other_build";
/// The same with `walden.archive_jobs = 1`.
pub(crate) const WALDEN_1: &str = "Walden, 1 job";
/// The archive module from PostgreSQL's contrib.
pub(crate) const BASIC_ARCHIVE: &str = "basic_archive";
/// An `archive_command` that copies and syncs.
pub(crate) const CP: &str = "cp and sync";
/// `pgbackrest archive-push`, one file for each call.
pub(crate) const PGBACKREST: &str = "pgBackRest";
/// `pgbackrest archive-push` with `archive-async`.
pub(crate) const PGBACKREST_ASYNC: &str = "pgBackRest async, 2 processes";
/// The daemon of WAL-RUS and its client as `archive_command`.
pub(crate) const WALRUS_DAEMON: &str = "WAL-RUS daemon, 4 uploads";

/// A program or module that is measured.
pub(crate) struct Contender {
    /// Its name in tables.
    pub(crate) name: &'static str,
    /// How it compresses, in Walden's words.
    pub(crate) codec: &'static str,
    /// How it is set to work.
    pub(crate) way: Way,
}

/// How a contender is set to work.
pub(crate) enum Way {
    /// No server: each file copied and synced.
    FileEach,
    /// No server: all into one file.
    OneFile,
    /// By a server's archiver.
    Server(Box<Served>),
    /// Not at all.
    Missing(&'static str),
}

/// A contender that a server's archiver works with.
pub(crate) struct Served {
    /// Settings before the clock starts.
    pub(crate) idle: Vec<(String, String)>,
    /// Settings that start the work.
    pub(crate) active: Vec<(String, String)>,
    /// Where archived files are, at any depth; where they go into a bucket it stays empty.
    pub(crate) dir: PathBuf,
    /// The repository, for pgBackRest only.
    pub(crate) repository: Option<Repository>,
    /// WAL-RUS as a daemon, and its socket.
    pub(crate) daemon: Option<(Herd, PathBuf)>,
}

impl Served {
    /// An empty archive, and the daemon if there is one, which ends when it is dropped.
    ///
    /// # Errors
    ///
    /// When the archive cannot be emptied or the daemon not started.
    pub(crate) fn prepare(&self, lab: &Lab, data: &Path) -> Result<Option<Daemon>> {
        match &self.repository {
            Some(repository) => repository.renew(lab)?,
            None => empty(&self.dir)?,
        }
        let Some((herd, socket)) = &self.daemon else {
            return Ok(None);
        };
        let log = fs::File::create(self.dir.with_extension("log"))?;
        let mut command = herd.daemon(lab, socket, data);
        command.stdout(log.try_clone()?).stderr(log);
        let daemon = Daemon(command.spawn().context("could not start the daemon")?);
        lab::wait_until("the daemon's socket", || Ok(socket.exists()))?;
        Ok(Some(daemon))
    }

    /// Fails unless each of these segments is in the archive; answers with the bytes stored.
    ///
    /// # Errors
    ///
    /// When one is not.
    pub(crate) fn stored(&self, segments: &[String]) -> Result<u64> {
        let mut found = BTreeSet::new();
        let bytes = collect(&self.dir, &mut found)?;
        let missing = segments
            .iter()
            .filter(|name| !found.contains(*name))
            .count();
        ensure!(
            missing == 0,
            "{missing} of {} segments are not in the archive",
            segments.len()
        );
        Ok(bytes)
    }

    /// Empties the archive.
    ///
    /// # Errors
    ///
    /// When it cannot be emptied.
    pub(crate) fn clear(&self) -> Result<()> {
        empty(&self.dir)
    }
}

/// The names of WAL files below a directory without their suffixes, and the bytes of all files.
fn collect(dir: &Path, found: &mut BTreeSet<String>) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            bytes += collect(&entry.path(), found)?;
        } else {
            bytes += entry.metadata()?.len();
            // pgBackRest puts a hash behind the name, others a suffix.
            found.extend(name.get(..24).map(str::to_owned));
        }
    }
    Ok(bytes)
}

/// A process that is ended when this is dropped.
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A destructor cannot report it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What contenders are made for.
pub(crate) struct Stage<'a> {
    /// Where archives are made.
    pub(crate) lab: &'a Lab,
    /// Who of the peers is here.
    pub(crate) peers: &'a Peers,
    /// Walden's parameters that this build has.
    pub(crate) parameters: &'a BTreeSet<String>,
    /// The data directory that is archived.
    pub(crate) data: PathBuf,
    /// Distinguishes the archives of one stage from those of another.
    pub(crate) name: &'static str,
    /// Where archives are; else in directories.
    pub(crate) bucket: Option<&'a Bucket<'a>>,
}

impl<'a> Stage<'a> {
    /// A stage for a cluster; the name distinguishes its archives from others'.
    pub(crate) fn new(
        session: &'a Session,
        name: &'static str,
        cluster: &Cluster<'_>,
    ) -> Stage<'a> {
        Stage {
            data: cluster.data(),
            ..Stage::of(session, name)
        }
    }

    /// A stage whose data directory is named later.
    pub(crate) fn of(session: &'a Session, name: &'static str) -> Stage<'a> {
        Stage {
            lab: &session.lab,
            peers: &session.peers,
            parameters: &session.parameters,
            data: PathBuf::new(),
            name,
            bucket: None,
        }
    }

    /// Walden's default number of jobs, or the one that a build without the parameter has.
    pub(crate) fn jobs(&self) -> u32 {
        if self.parameters.contains("walden.archive_jobs") {
            4
        } else {
            1
        }
    }

    /// A command that says "archived" and does nothing.
    pub(crate) fn nothing(&self) -> Result<Contender> {
        let dir = self.archive("nothing")?;
        let mut contender = self.command(NOTHING, "none", dir, "true".to_owned())?;
        self.unsynced(&mut contender);
        Ok(contender)
    }

    /// For a server that does not sync its own files.
    pub(crate) fn unsynced(&self, contender: &mut Contender) {
        if let Way::Server(served) = &mut contender.way {
            served.idle.push(("fsync".to_owned(), "off".to_owned()));
        }
    }

    /// Walden with these jobs and this compression.
    pub(crate) fn walden(&self, jobs: u32, codec: &'static str) -> Result<Contender> {
        let name = match jobs {
            1 => WALDEN_1,
            4 => WALDEN_4,
            _ => "Walden, 8 jobs",
        };
        let mut settings = vec![("walden.compression", codec.to_owned())];
        if self.parameters.contains("walden.archive_jobs") {
            settings.push(("walden.archive_jobs", jobs.to_string()));
        } else if jobs != 1 {
            return Ok(missing(
                name,
                codec,
                "this build has no walden.archive_jobs",
            ));
        }
        let name_of = format!("walden-{jobs}-{}", codec.replace(':', "-"));
        let dir = self.archive(&name_of)?;
        let place = match self.bucket {
            Some(bucket) => bucket.for_walden(&name_of),
            None => dir.display().to_string(),
        };
        settings.push(("walden.archive", place));
        Ok(Contender {
            name,
            codec,
            way: Way::Server(Box::new(Served {
                idle: pairs(&[("archive_library", "walden".to_owned())]),
                active: pairs(&settings),
                dir,
                repository: None,
                daemon: None,
            })),
        })
    }

    /// This build and another one's library, each with four jobs and preloaded, as servers usually have it.
    pub(crate) fn both_builds(&self, other: &Path, codec: &'static str) -> Result<[Contender; 2]> {
        self.lab.installation().add_library(OTHER_BUILD, other)?;
        let preloaded = |name, library: &'static str| -> Result<Contender> {
            // Each has archives of its own.
            let stage = Stage {
                data: self.data.clone(),
                name: library,
                ..*self
            };
            let mut contender = stage.walden(4, codec)?;
            contender.name = name;
            if let Way::Server(served) = &mut contender.way {
                let names = ["shared_preload_libraries", "archive_library"];
                served.idle = pairs(&names.map(|name| (name, library.to_owned())));
            }
            Ok(contender)
        };
        Ok([
            preloaded("Walden, this build", "walden")?,
            preloaded("Walden, the other build", OTHER_BUILD)?,
        ])
    }

    /// Plain `cp`, and `sync` of the copy.
    pub(crate) fn cp(&self) -> Result<Contender> {
        let dir = self.archive("cp")?;
        let to = dir.join("%f").display().to_string();
        self.command(CP, "none", dir, format!("cp %p {to} && sync {to}"))
    }

    /// The module that comes with the server.
    pub(crate) fn basic_archive(&self) -> Result<Contender> {
        if !self.lab.installation().has_library("basic_archive")? {
            return Ok(missing(BASIC_ARCHIVE, "none", NOT_HERE));
        }
        let dir = self.archive("basic_archive")?;
        let place = ("basic_archive.archive_directory", dir.display().to_string());
        Ok(Contender {
            name: BASIC_ARCHIVE,
            codec: "none",
            way: Way::Server(Box::new(Served {
                idle: pairs(&[("archive_library", "basic_archive".to_owned())]),
                active: pairs(&[place]),
                dir,
                repository: None,
                daemon: None,
            })),
        })
    }

    /// pgBackRest, with level 1 where it compresses.
    pub(crate) fn pgbackrest(&self, asynchronous: bool, codec: &'static str) -> Result<Contender> {
        let name = if asynchronous {
            PGBACKREST_ASYNC
        } else {
            PGBACKREST
        };
        let Some(program) = &self.peers.pgbackrest else {
            return Ok(missing(name, codec, NOT_HERE));
        };
        let compress = match codec {
            "none" => ("none", None),
            "lz4" => ("lz4", Some(1)),
            _ => ("zst", Some(1)),
        };
        let kind = if asynchronous { "async" } else { "sync" };
        let place = format!("{}-pgbackrest-{kind}-{}", self.name, compress.0);
        let manner = Manner {
            asynchronous,
            compress,
            place: self.bucket.map(|bucket| bucket.for_pgbackrest(&place)),
        };
        let repository = Repository::new(self.lab, &place, program, &self.data, manner)?;
        let command = repository.push();
        let mut contender = self.command(name, codec, repository.archive(), command)?;
        if let Way::Server(served) = &mut contender.way {
            served.repository = Some(repository);
        }
        Ok(contender)
    }

    /// WAL-RUS as a daemon, at level 1: its faster way by far, and the only one that archives several files at once.
    pub(crate) fn walrus(&self, codec: &'static str) -> Result<Contender> {
        let Some(program) = &self.peers.walrus else {
            return Ok(missing(WALRUS_DAEMON, codec, NOT_HERE));
        };
        let method = match codec {
            "none" => "none",
            "lz4" => "lz4",
            _ => "zstd",
        };
        let name_of = format!("walrus-{method}");
        let dir = self.archive(&name_of)?;
        let place = match self.bucket {
            Some(bucket) => bucket.for_walrus(&name_of),
            None => pairs(&[("WALG_FILE_PREFIX", dir.display().to_string())]),
        };
        let herd = Herd::new(program, place, method);
        let socket = self
            .lab
            .dir()
            .join(format!("{}-walrus-{method}.sock", self.name));
        let mut contender = self.command(WALRUS_DAEMON, codec, dir, herd.ask(&socket))?;
        if let Way::Server(served) = &mut contender.way {
            served.daemon = Some((herd, socket));
        }
        Ok(contender)
    }

    fn command(
        &self,
        name: &'static str,
        codec: &'static str,
        dir: PathBuf,
        command: String,
    ) -> Result<Contender> {
        Ok(Contender {
            name,
            codec,
            way: Way::Server(Box::new(Served {
                idle: pairs(&[("archive_command", String::new())]),
                active: pairs(&[("archive_command", command)]),
                dir,
                repository: None,
                daemon: None,
            })),
        })
    }

    fn archive(&self, name: &str) -> Result<PathBuf> {
        self.lab.directory(&format!("{}-{name}", self.name))
    }
}

fn missing(name: &'static str, codec: &'static str, why: &'static str) -> Contender {
    Contender {
        name,
        codec,
        way: Way::Missing(why),
    }
}

/// The limits, which need no server.
pub(crate) fn limits() -> [Contender; 2] {
    [(LIMIT_EACH, Way::FileEach), (LIMIT_ONE, Way::OneFile)].map(|(name, way)| Contender {
        name,
        codec: "none",
        way,
    })
}

pub(crate) fn pairs(settings: &[(&str, String)]) -> Vec<(String, String)> {
    settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}
