//! What is put to the test: the libraries, and the settings that servers load them with.
//!
//! Guarantees that every server of the suite is configured here. Leaves to the promises what to do with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use lab::{ArchiveDir, Cluster, Installation, Lab, Settings};
use rustix::fs::StatVfsMountFlags;

/// What stands for the archive's directory in the user's settings and commands.
const PLACE: &str = "{archive}";

/// What stands for a server's major version in the path of a library: one written in C serves one major.
const MAJOR: &str = "{major}";

/// How long "could not tell" is retried where a promise wants to see it reported.
const RESTORE_TIMEOUT: &str = "2s";

/// Memory, as Linux offers it to programs.
const MEMORY: &str = "/dev/shm";

/// How much of it must be free to be used: more than all promises together take, with room for others.
const MEMORY_BYTES_MIN: u64 = 6 << 30;

/// Where servers are quickest: in memory, if there is enough of it, else in `/tmp`. What a module asks of the
/// file system is the same; only its answers come sooner.
#[must_use]
pub fn quick_place() -> PathBuf {
    let enough = rustix::fs::statvfs(MEMORY).is_ok_and(|fs| {
        // Libraries are loaded from there, which containers often forbid.
        !fs.f_flag.contains(StatVfsMountFlags::NOEXEC)
            && fs.f_bavail * fs.f_frsize >= MEMORY_BYTES_MIN
    });
    PathBuf::from(if enough { MEMORY } else { "/tmp" })
}

/// What to test, and on which servers.
pub struct Plan {
    /// Directories with the programs of servers, one run of the suite on each.
    pub servers: Vec<PathBuf>,
    /// The archive module.
    pub archive: Option<Library>,
    /// The recovery module.
    pub recovery: Option<Library>,
    /// The base backup target.
    pub target: Option<Target>,
    /// The library that hosts recovery modules, `walden.so`.
    pub host: PathBuf,
    /// The program that the host calls, `walden`.
    pub client: PathBuf,
    /// Parameters for every server; [`PLACE`] in a value stands for the archive's directory.
    pub settings: Vec<(String, String)>,
    /// How a server without a recovery module restores what the archive module stored.
    pub restore_command: String,
    /// The names of the promises to look at; empty for all.
    pub only: Vec<String>,
    /// What random choices are made from.
    pub seed: u64,
    /// How many promises are looked at at a time.
    pub jobs: usize,
    /// Where the servers' directories are made; see [`Installation::below`].
    pub place: PathBuf,
}

/// A base backup target, and where its backups are found.
pub struct Target {
    /// The library that adds it; servers preload it.
    pub library: Library,
    /// What `pg_basebackup --target` is given; `{n}` stands for a number that each backup has for itself.
    pub name: String,
    /// Unpacks the last backup, [`PLACE`] being where the target keeps them, into the directory that `{data}` stands for, and
    /// fails where there is none. Without it a backup is a folder there, with the server's archives and manifest in it.
    pub unpack: Option<String>,
    /// A role that the target refuses; the promises make it, with REPLICATION.
    pub refused_role: Option<String>,
}

/// A library that servers load.
#[derive(Clone, Debug)]
pub struct Library {
    name: String,
    file: Option<PathBuf>,
}

impl Library {
    /// A library by its path (`target/release/libmine.so` is loaded as `mine`), in which `{major}` stands for
    /// the server's major version, or, without a slash, by the name under which it comes with the server.
    #[must_use]
    pub fn new(text: &str) -> Library {
        if !text.contains('/') {
            return Library {
                name: text.trim_end_matches(".so").to_owned(),
                file: None,
            };
        }
        let stem = Path::new(text).file_stem().unwrap_or_default();
        let stem = stem.to_string_lossy();
        Library {
            name: stem.strip_prefix("lib").unwrap_or(&stem).to_owned(),
            file: Some(PathBuf::from(text)),
        }
    }

    /// The name that servers load it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn install(&self, installation: &Installation) -> Result<()> {
        match &self.file {
            Some(file) => {
                let major = installation.major().to_string();
                let file = file.to_string_lossy().replace(MAJOR, &major);
                ensure!(Path::new(&file).is_file(), "there is no library \"{file}\"");
                installation.add_library(&self.name, Path::new(&file))
            }
            None if installation.has_library(&self.name)? => Ok(()),
            None => anyhow::bail!(
                "the server in \"{}\" comes without a library \"{}\": give its path",
                installation.pg_bin_dir().display(),
                self.name
            ),
        }
    }
}

/// The modules under test on one server.
pub(crate) struct Subject<'plan> {
    pub(crate) plan: &'plan Plan,
    pub(crate) installation: Arc<Installation>,
}

impl<'plan> Subject<'plan> {
    /// Lays out the libraries beside the server.
    pub(crate) fn lay_out(plan: &'plan Plan, server: &Path) -> Result<Subject<'plan>> {
        let server = std::path::absolute(server)?;
        let installation = Installation::below(&server, &plan.place)?;
        if let (Some(one), Some(other)) = (&plan.archive, &plan.recovery) {
            ensure!(
                one.name != other.name || one.file == other.file,
                "servers would load two libraries as \"{}\": rename one of them",
                one.name
            );
        }
        if plan.recovery.is_some() {
            installation
                .add_library("walden", &plan.host)
                .context("recovery modules need their host, walden.so: name it with --host")?;
            installation.add_program(&plan.client)?;
        }
        // After the host, so that what is tested is a walden.so that is named, and no other.
        let of_target = plan.target.iter().map(|target| &target.library);
        for library in plan.archive.iter().chain(&plan.recovery).chain(of_target) {
            library.install(&installation)?;
        }
        Ok(Subject {
            plan,
            installation: Arc::new(installation),
        })
    }

    /// A server's settings with the user's own, the archive being in this directory.
    fn configured(&self, lab: &Lab, archive: &ArchiveDir) -> Settings {
        let mut settings = lab.settings();
        for (name, value) in &self.plan.settings {
            settings.set(name, &value.replace(PLACE, &archive.text()));
        }
        settings
    }

    /// The names of the user's parameters that say where the archive is.
    pub(crate) fn places(&self) -> impl Iterator<Item = &str> {
        let settings = self.plan.settings.iter();
        settings
            .filter(|(_, value)| value.contains(PLACE))
            .map(|(name, _)| name.as_str())
    }

    /// Settings of a server that archives into a directory: through the archive module, or, where only a
    /// recovery module is tested, by copying.
    pub(crate) fn archiving(&self, lab: &Lab, archive: &ArchiveDir) -> Settings {
        let settings = self
            .configured(lab, archive)
            .with("archive_mode", "on")
            // What was archived stays, to be looked at and to be offered again.
            .with("wal_keep_size", "128MB");
        match &self.plan.archive {
            Some(library) => settings.with("archive_library", library.name()),
            None => {
                let place = archive.text();
                let copy = format!("test ! -f {place}/%f && cp %p {place}/%f");
                settings.with("archive_command", &copy)
            }
        }
    }

    /// The base backup target under test.
    pub(crate) fn target(&self) -> Result<&Target> {
        self.plan.target.as_ref().context("no target is under test")
    }

    /// Settings of a server whose base backups may go to the target, which keeps them in a directory.
    pub(crate) fn backing_up(&self, lab: &Lab, archive: &ArchiveDir) -> Result<Settings> {
        let settings = self.configured(lab, archive);
        let library = self.target()?.library.name();
        let preloaded = match settings.get("shared_preload_libraries") {
            Some(given) => format!("{given}, {library}"),
            None => library.to_owned(),
        };
        Ok(settings.with("shared_preload_libraries", &preloaded))
    }

    /// Settings of a server that recovers from a directory: through the recovery module, or, where only an
    /// archive module is tested, by the user's command.
    pub(crate) fn recovering(&self, lab: &Lab, archive: &ArchiveDir) -> Settings {
        self.recovering_with(self.configured(lab, archive), archive)
    }

    /// Settings of a server that archives into a directory, and recovers from it.
    pub(crate) fn archiving_and_recovering(&self, lab: &Lab, archive: &ArchiveDir) -> Settings {
        self.recovering_with(self.archiving(lab, archive), archive)
    }

    fn recovering_with(&self, settings: Settings, archive: &ArchiveDir) -> Settings {
        // A module may have to be preloaded for its parameters.
        let preloaded = match settings.get("shared_preload_libraries") {
            Some(given) => format!("walden, {given}"),
            None => "walden".to_owned(),
        };
        match &self.plan.recovery {
            Some(library) => settings
                .with("shared_preload_libraries", &preloaded)
                .with("walden.restore_library", library.name())
                .with("walden.restore_timeout", RESTORE_TIMEOUT),
            None => settings.with("restore_command", &self.restore_command(archive)),
        }
    }

    /// The user's command, the archive being in this directory.
    pub(crate) fn restore_command(&self, archive: &ArchiveDir) -> String {
        self.plan.restore_command.replace(PLACE, &archive.text())
    }

    /// A running primary that archives into the directory, with an empty ledger.
    pub(crate) fn primary<'lab>(
        &self,
        lab: &'lab Lab,
        archive: &ArchiveDir,
        segment_mb: u32,
    ) -> Result<Cluster<'lab>> {
        lab.primary("primary", segment_mb, self.archiving(lab, archive))
    }
}
