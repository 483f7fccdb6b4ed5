//! Which archive, with which settings, for which cluster: from flags, configuration and environment.
//!
//! The archive is the first of: `--archive`; `walden.archive` in the configuration of `--pgdata`; the
//! environment's `WALDEN_ARCHIVE`; `walden.archive` in the configuration of the data directory that the
//! file at hand lies in (for a command without a file: the current directory, if it is a data
//! directory). The other settings come from flags, else from the configuration of `--pgdata`
//! or, where that decided, of the file's data directory.
//!
//! Guarantees: when no archive is found the error names all four places; a setting that is there but
//! wrong is an error, never skipped for the next place. Left to others: parsing a configuration and its
//! values (`archive`), and what to do without an answer.

use crate::flags::Global;
use archive::{
    Archive, ClusterSecret, Error, ErrorKind, Location, MissingSegment, Settings, parameter,
};
use pgconf::ServerConf;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wal::SystemIdentifier;

/// The environment variable that names an archive.
const ARCHIVE_VARIABLE: &str = "WALDEN_ARCHIVE";

const RESTORE_TIMEOUT: &str = "walden.restore_timeout";

/// Everything a command needs to know before it opens the archive.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// Where the archive is and how it works.
    pub(crate) settings: Settings,
    /// Who said where the archive is, for `check`.
    pub(crate) said_by: String,
    /// The cluster's data directory, if there is one at hand.
    pub(crate) data_dir: Option<PathBuf>,
    /// The configuration that was read, if one was.
    pub(crate) conf: Option<ServerConf>,
}

/// Chooses. `near_dir` is the data directory that the file at hand lies in, or the current one.
pub(crate) fn choose(global: &Global, near_dir: Option<PathBuf>) -> Result<Chosen, Error> {
    let mut conf = global.pgdata.as_deref().map(read_conf).transpose()?;
    let (location, said_by) = match first_named(global, conf.as_ref())? {
        Some(found) => found,
        None => {
            let dir = near_dir.as_deref().ok_or_else(no_archive)?;
            let near_conf = read_conf(dir)?;
            let text = archive_in(&near_conf).ok_or_else(no_archive)?.to_owned();
            conf.get_or_insert(near_conf);
            (text, format!("the configuration of \"{}\"", dir.display()))
        }
    };
    let compression = global
        .compression
        .map(|compression| compression.to_string());
    if global
        .recipients
        .as_deref()
        .is_some_and(|keys| keys.trim().is_empty())
    {
        // As a shell's variable that is not set makes it: what was to be encrypted must not be stored as it is.
        return Err(
            Error::new(ErrorKind::Unusable, "--recipients names no recipient")
                .with_hint("Leave it out for files that are not encrypted."),
        );
    }
    let identity_file = global.identity_file.as_deref().map(absolute).transpose()?;
    let from_conf = |name: &str| conf.as_ref().and_then(|conf| conf.get(name));
    let mut settings = Settings::read(|name| match name {
        "walden.archive" => Some(location.as_str()),
        "walden.compression" => compression.as_deref().or_else(|| from_conf(name)),
        "walden.recipients" => global.recipients.as_deref().or_else(|| from_conf(name)),
        "walden.identity_file" => identity_file.as_deref().or_else(|| from_conf(name)),
        _ => from_conf(name),
    })?;
    let data_dir = match &global.pgdata {
        Some(dir) => Some(named_data_dir(dir, conf.as_ref())),
        None => near_dir,
    };
    settings.options.server_major = data_dir.as_deref().and_then(major_of);
    Ok(Chosen {
        settings,
        said_by,
        data_dir,
        conf,
    })
}

/// The first three places; the fourth is looked at only when they are silent.
fn first_named(
    global: &Global,
    conf: Option<&ServerConf>,
) -> Result<Option<(String, String)>, Error> {
    if let Some(location) = &global.archive {
        return Ok(Some((text_of(location)?, "--archive".to_owned())));
    }
    if let Some((dir, text)) = global.pgdata.as_ref().zip(conf.and_then(archive_in)) {
        let said_by = format!("the configuration of \"{}\"", dir.display());
        return Ok(Some((text.to_owned(), said_by)));
    }
    match std::env::var_os(ARCHIVE_VARIABLE).filter(|value| !value.is_empty()) {
        Some(value) => match value.into_string() {
            Ok(text) => Ok(Some((text, ARCHIVE_VARIABLE.to_owned()))),
            Err(_) => Err(Error::new(
                ErrorKind::Unusable,
                format!("environment variable \"{ARCHIVE_VARIABLE}\" is not UTF-8"),
            )),
        },
        None => Ok(None),
    }
}

/// Reads the configuration of the server with this data directory; fails as [`ServerConf::read`] does.
pub(crate) fn read_conf(dir: impl AsRef<Path>) -> Result<ServerConf, Error> {
    ServerConf::read(dir.as_ref()).map_err(|error| {
        let kind = match error.kind() {
            pgconf::ErrorKind::Unavailable => ErrorKind::Unavailable,
            pgconf::ErrorKind::Unusable => ErrorKind::Unusable,
        };
        let shown = Error::new(kind, error.to_string());
        match error.hint() {
            Some(hint) => shown.with_hint(hint),
            None => shown,
        }
    })
}

/// `--pgdata` may name a configuration directory, as the server's own `-D` may; its `data_directory`
/// then says where the data is (`SelectConfigFiles`, `guc.c`, 15 to 18).
fn named_data_dir(dir: &Path, conf: Option<&ServerConf>) -> PathBuf {
    match conf
        .and_then(|conf| conf.get("data_directory"))
        .filter(|named| !named.is_empty())
    {
        Some(named) => dir.join(named),
        None => dir.to_owned(),
    }
}

fn text_of(location: &Location) -> Result<String, Error> {
    let Some(path) = location.path() else {
        return Ok(location.to_string());
    };
    path.to_str().map(str::to_owned).ok_or_else(|| {
        let message = format!("archive location \"{location}\" is not UTF-8");
        Error::new(ErrorKind::Unusable, message)
    })
}

/// A path as a person gives it, in full: the parameter knows no other.
fn absolute(path: &Path) -> Result<String, Error> {
    let unusable = |why: String| Error::new(ErrorKind::Unusable, why);
    let shown = path.display();
    let full = std::path::absolute(path)
        .map_err(|cause| unusable(format!("\"{shown}\" is not a path: {cause}")))?;
    let text = full.into_os_string().into_string();
    text.map_err(|_| unusable(format!("path \"{shown}\" is not UTF-8")))
}

/// `walden.archive`, unless it is empty, which means not set.
fn archive_in(conf: &ServerConf) -> Option<&str> {
    conf.get("walden.archive").filter(|text| !text.is_empty())
}

fn no_archive() -> Error {
    Error::new(ErrorKind::Unusable, "no archive is named").with_hint(format!(
        "Give --archive, or --pgdata with a configuration that sets walden.archive, or set \
         {ARCHIVE_VARIABLE}, or set walden.archive in the configuration of the data directory that \
         the file lies in or that is the current directory."
    ))
}

impl Chosen {
    /// Opens the archive.
    pub(crate) fn open(&self) -> Result<Archive, Error> {
        self.settings.open(archive::spawn_plainly)
    }

    /// How long a restore is retried: `walden.restore_timeout` of the configuration, else its default.
    ///
    /// # Errors
    /// When what is written there cannot be used, which keeps nobody from anything but restoring.
    pub(crate) fn restore_timeout(&self) -> Result<Duration, Error> {
        let number = parameter::RESTORE_TIMEOUT;
        let text = self
            .conf
            .as_ref()
            .and_then(|conf| conf.get(RESTORE_TIMEOUT));
        let seconds = text.map_or(Ok(number.default), |text| {
            number.parse(text).map_err(|error| {
                let message = format!("invalid value for parameter \"{RESTORE_TIMEOUT}\": {error}");
                Error::new(ErrorKind::Unusable, message)
            })
        })?;
        Ok(Duration::from_secs(seconds.unsigned_abs().into()))
    }

    /// What a hole means: the flag, else the configuration, else an error.
    pub(crate) fn missing_segment(&self, flag: Option<MissingSegment>) -> MissingSegment {
        flag.unwrap_or(self.settings.missing_segment)
    }

    /// The secret of the cluster at hand; none without a data directory, or if its control file is not understood.
    pub(crate) fn secret(&self) -> Option<ClusterSecret> {
        self.data_dir.as_deref().and_then(recovery::secret_of)
    }

    /// The system identifier of the cluster at hand; none without a data directory.
    pub(crate) fn system(&self) -> Result<Option<SystemIdentifier>, Error> {
        self.data_dir
            .as_deref()
            .map(recovery::system_of)
            .transpose()
    }
}

/// The data directory whose `pg_wal` this file lies in, or will.
pub(crate) fn data_dir_of(file: &Path) -> Option<PathBuf> {
    let pg_wal = file.parent()?;
    if pg_wal.file_name()? != "pg_wal" {
        return None;
    }
    let dir = pg_wal
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    is_data_dir(dir).then(|| dir.to_owned())
}

/// The current directory, if it is a data directory: the server runs its commands there.
pub(crate) fn current_data_dir() -> Option<PathBuf> {
    let here = Path::new(".");
    is_data_dir(here).then(|| here.to_owned())
}

/// Whether this is a data directory, as the server itself tells it (`ValidatePgVersion`, 15 to 18).
fn is_data_dir(dir: &Path) -> bool {
    dir.join("PG_VERSION").is_file()
}

/// The major version of a data directory; `None` if it cannot be told.
fn major_of(dir: &Path) -> Option<u32> {
    // No more than what is there in any version, and of a regular file.
    let file = is_data_dir(dir).then(|| File::open(dir.join("PG_VERSION")))?;
    let mut text = String::new();
    file.ok()?.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_known_by_its_version_file_and_found_from_its_pg_wal() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pg_wal/RECOVERYXLOG");
        assert_eq!(data_dir_of(&file), None);
        std::fs::write(dir.path().join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(data_dir_of(&file).as_deref(), Some(dir.path()));
        assert_eq!(
            data_dir_of(&dir.path().join("elsewhere/RECOVERYXLOG")),
            None
        );
        assert_eq!(data_dir_of(Path::new("RECOVERYXLOG")), None);
    }
}
