//! Who takes part in recovery, and the archives they fetch from.
//!
//! Guarantees that every archive holds the same segments, each written by the program that reads it (`cp` reads what
//! Walden wrote without compression: a plain directory). Peers have their defaults, which fetch ahead for WAL-RUS
//! and pgBackRest's asynchronous mode.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use lab::{Conditions, FailingStorage, Lab};

use crate::backlog::Backlog;
use crate::contenders::{Contender, Served, Stage, Way, pairs};
use crate::drain::drain_once;
use crate::part::{Session, step};
use crate::peers::{Herd, NOT_HERE, Repository};

/// The name of the limit: every segment is in `pg_wal` already.
pub(crate) const LIMIT: &str = "limit: all in pg_wal";
/// The least that any command can cost: every segment lies beside `pg_wal`, synced, and is renamed into it.
pub(crate) const FLOOR: &str = "floor: mv";
/// A directory of the data directory.
const BESIDE: &str = "beside";
/// Walden's recovery module.
pub(crate) const WALDEN: &str = "Walden";
/// pgBackRest, one file after the other.
pub(crate) const PGBACKREST_GET: &str = "pgBackRest archive-get";
/// pgBackRest, several files ahead.
pub(crate) const PGBACKREST_GET_ASYNC: &str = "pgBackRest archive-get async, 2 processes";
/// WAL-RUS, which fetches ahead.
pub(crate) const WALRUS_FETCH: &str = "WAL-RUS wal-fetch";

/// A way to get segments back.
pub(crate) struct Fetcher {
    /// Its name in tables.
    pub(crate) name: &'static str,
    /// How the archive is compressed.
    pub(crate) codec: &'static str,
    /// How much of it is measured.
    pub(crate) extent: Extent,
    /// How it fetches.
    pub(crate) way: Fetch,
}

/// How much of a fetcher is measured; each takes part in what those before it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Extent {
    /// What one segment costs the startup process.
    Segment,
    /// The long recovery.
    Long,
    /// Recoveries with latency.
    Late,
}

/// How a server gets its segments.
pub(crate) enum Fetch {
    /// They are in `pg_wal`.
    Local,
    /// They lie in a directory beside `pg_wal`, and a command renames them.
    Beside,
    /// By `cp` from this directory.
    Copy(PathBuf),
    /// By Walden's recovery module from this archive.
    Walden(PathBuf),
    /// By Walden's recovery module from this location in an object store.
    WaldenAt(String),
    /// By pgBackRest, asynchronously or not.
    PgBackRest(Repository, bool),
    /// By WAL-RUS, from the directory if it is one.
    Walrus(Herd, Option<PathBuf>),
    /// Not at all.
    Missing(&'static str),
}

impl Fetcher {
    /// The settings of a server in this data directory.
    pub(crate) fn settings(&self, data: &Path) -> Vec<(String, String)> {
        let command = match &self.way {
            // The server asks the archive first, and finds the segment in pg_wal after that.
            Fetch::Local | Fetch::Missing(_) => "false".to_owned(),
            Fetch::Beside => format!("exec mv {BESIDE}/%f %p"),
            Fetch::Copy(dir) => format!("cp {}/%f %p", dir.display()),
            Fetch::PgBackRest(repository, asynchronous) => repository.get(data, *asynchronous),
            Fetch::Walrus(herd, _) => herd.fetch(),
            Fetch::Walden(dir) => return of_walden(&dir.display().to_string()),
            Fetch::WaldenAt(location) => return of_walden(location),
        };
        pairs(&[("restore_command", command)])
    }

    /// Whether it is Walden's module, which works in a process of its own.
    pub(crate) fn has_worker(&self) -> bool {
        matches!(self.way, Fetch::Walden(_) | Fetch::WaldenAt(_))
    }

    /// The directory that its segments lie in; `None` for the limit, and for WAL in a bucket.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(crate) fn dir(&self) -> Result<Option<PathBuf>> {
        Ok(match &self.way {
            Fetch::Local | Fetch::Beside | Fetch::WaldenAt(_) | Fetch::Missing(_) => None,
            Fetch::Copy(dir) | Fetch::Walden(dir) => Some(dir.clone()),
            Fetch::PgBackRest(repository, _) => Some(repository.segments()?),
            Fetch::Walrus(_, dir) => dir.as_ref().map(|dir| dir.join("wal_005")),
        })
    }

    /// Where in the data directory its segments lie when the server starts.
    pub(crate) fn lies_in(&self) -> Option<&'static str> {
        match &self.way {
            Fetch::Local => Some("pg_wal"),
            Fetch::Beside => Some(BESIDE),
            _ => None,
        }
    }

    /// Forgets what was fetched ahead by an earlier recovery.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub(crate) fn forget(&self, lab: &Lab) -> Result<()> {
        match &self.way {
            Fetch::PgBackRest(repository, true) => repository.forget_ahead(lab),
            _ => Ok(()),
        }
    }

    /// Makes each open of one of its segments late by so many milliseconds, as long as the answer lives.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(crate) fn make_late(&self, late_ms: u64) -> Result<Option<FailingStorage>> {
        let Some(dir) = self.dir()?.filter(|_| late_ms > 0) else {
            return Ok(None);
        };
        let delay = std::time::Duration::from_millis(late_ms);
        let late = Conditions::default().delay(delay);
        Ok(Some(FailingStorage::over_files(
            &dir,
            |name| segment_of(name).is_some(),
            late,
        )?))
    }

    /// Removes the segments after this one from its archive.
    ///
    /// # Errors
    ///
    /// When one cannot be removed.
    pub(crate) fn trim(&self, last: &str) -> Result<()> {
        let Some(dir) = self.dir()? else {
            return Ok(());
        };
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if segment_of(&name).is_some_and(|segment| segment > last) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// The settings of a server that recovers through Walden's module from this location.
fn of_walden(location: &str) -> Vec<(String, String)> {
    pairs(&[
        ("shared_preload_libraries", "walden".to_owned()),
        ("walden.archive", location.to_owned()),
        ("walden.restore_library", "walden".to_owned()),
    ])
}

/// The segment's name that a stored file's name begins with.
fn segment_of(name: &str) -> Option<&str> {
    name.get(..24)
        .filter(|head| head.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// All who fetch, each with an archive of the backlog.
///
/// # Errors
///
/// When an archive cannot be made.
pub(crate) fn all(session: &Session, backlog: &Backlog<'_>) -> Result<Vec<Fetcher>> {
    let stage = Stage::new(session, "fetch", &backlog.cluster);
    let plain = |name, extent, way| Fetcher {
        name,
        codec: "none",
        extent,
        way,
    };
    let archived = |codec| -> Result<Option<PathBuf>> {
        let served = filled(session, backlog, stage.walden(stage.jobs(), codec)?)?;
        Ok(served.map(|served| served.dir))
    };
    let by_walden = |dir: Option<PathBuf>| dir.map_or(Fetch::Missing(NOT_HERE), Fetch::Walden);
    let dir = archived("none")?;
    let copied = dir.clone().map_or(Fetch::Missing(NOT_HERE), Fetch::Copy);
    let mut found = vec![
        plain(LIMIT, Extent::Late, Fetch::Local),
        plain(FLOOR, Extent::Long, Fetch::Beside),
        plain("cp", Extent::Late, copied),
        plain(WALDEN, Extent::Late, by_walden(dir)),
    ];
    let repository =
        filled(session, backlog, stage.pgbackrest(true, "none")?)?.and_then(|it| it.repository);
    for (name, extent, asynchronous) in [
        (PGBACKREST_GET, Extent::Segment, false),
        (PGBACKREST_GET_ASYNC, Extent::Late, true),
    ] {
        let way = repository.clone().map_or(Fetch::Missing(NOT_HERE), |it| {
            Fetch::PgBackRest(it, asynchronous)
        });
        found.push(plain(name, extent, way));
    }
    let walrus = filled(session, backlog, stage.walrus("none")?)?;
    let walrus = walrus.and_then(|served| Some((served.daemon?.0, served.dir)));
    let way = walrus.map_or(Fetch::Missing(NOT_HERE), |(herd, dir)| {
        Fetch::Walrus(herd, Some(dir))
    });
    found.push(plain(WALRUS_FETCH, Extent::Late, way));
    found.push(Fetcher {
        codec: "zstd:1",
        ..plain(WALDEN, Extent::Long, by_walden(archived("zstd:1")?))
    });
    Ok(found)
}

/// Has a contender archive the backlog; `None` when it is not here.
fn filled(
    session: &Session,
    backlog: &Backlog<'_>,
    contender: Contender,
) -> Result<Option<Served>> {
    match contender.way {
        Way::Missing(_) => Ok(None),
        Way::Server(served) => {
            step(&format!(
                "making an archive: {}, {}",
                contender.name, contender.codec
            ));
            drain_once(session, backlog, &served)?;
            served.stored(backlog.segments())?;
            Ok(Some(*served))
        }
        Way::FileEach | Way::OneFile => bail!("a limit keeps no archive"),
    }
}
