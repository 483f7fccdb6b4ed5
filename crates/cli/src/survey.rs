//! Reading all WAL of an archive, for the commands that show what it is worth.
//!
//! Guarantees that nothing is written but the index, and that not into the archive; an index that cannot be used or written
//! is said and gone without. Left to others: what is read (`audit`), what is shown (`targets.rs`, `map.rs`).

use crate::flags::{self, Global};
use crate::progress::{Progress, Where};
use crate::say;
use crate::settings;
use archive::{Archive, Cancel, Error, ErrorKind, Location};
use audit::entries::Entries;
use audit::gather::{Gathered, Gathering};
use audit::index::{Index, Subject, Unusable};
use audit::survey::Survey;
use std::path::{Path, PathBuf};

/// More threads would wait for one another's segments, or for the same disk.
const JOBS_MAX: usize = 8;

/// Opens the archive and reads what is not known of it yet.
pub(crate) fn read(flags: &flags::Survey, global: &Global) -> Result<(Archive, Survey), Error> {
    let chosen = settings::choose(global, settings::current_data_dir())?;
    let progress = Progress::start("opening the archive", Where::Everywhere);
    let archive = chosen.open()?;
    let binding = archive.binding()?;
    let system = binding.map(|binding| binding.system);
    let subject = Subject {
        place: archive.place(),
        system: system.map(|system| system.to_string()),
    };
    let path = place_of_index(flags, &subject, &chosen.settings.location)?;
    progress.doing("listing");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let gathering = Gathering {
        archive: &archive,
        jobs: flags.jobs.map_or(processors.min(JOBS_MAX), usize::from),
        listed: &|files| progress.found(files),
        read: &|files, total| {
            if files == 1 {
                progress.doing("reading");
            }
            progress.done(files, total);
        },
        cancel: &Cancel::new(),
    };
    let open = |known: &mut Entries| path.and_then(|path| open(&path, &subject, known));
    let mut gathered = gathering.update(open)?;
    if global.verbose {
        say::note(&format!("read {} files", gathered.read));
    }
    keep(&mut gathered);
    let survey = Survey::of(archive.place(), system, gathered.entries);
    drop(progress);
    Ok((archive, survey))
}

/// Opens an index and reads what it says; `None` if nothing can be kept there.
fn open(path: &Path, subject: &Subject, known: &mut Entries) -> Option<Index> {
    let opened = Index::open(path, subject, &mut |name, entry| known.learn(name, &entry));
    match opened {
        Ok(index) => {
            if let Some(line) = index.damage() {
                let path = path.display();
                say::warning(&format!(
                    "index \"{path}\" is damaged at line {line}; the rest of it is used"
                ));
            }
            Some(index)
        }
        Err(unusable @ Unusable::NoFile { .. }) => {
            say::warning(&format!("{unusable}; nothing is kept"));
            None
        }
        Err(unusable) => {
            say::warning(&format!("{unusable}; it is rebuilt"));
            known.clear();
            Some(Index::anew(path, subject))
        }
    }
}

/// Sees to it that the index says all that is known, and little else.
fn keep(gathered: &mut Gathered) {
    let Some(index) = &mut gathered.index else {
        return;
    };
    let lines_max = gathered.entries.count() * 2;
    let is_worn = index.damage().is_some() || index.lines() > lines_max;
    let kept = if is_worn || gathered.not_kept.is_some() {
        index.rewrite(gathered.entries.all())
    } else {
        index.end()
    };
    if let Err(cause) = kept {
        let what = format!("could not write index \"{}\"", index.path().display());
        say::warning(&Error::io(what, cause).to_string());
    }
}

/// Where the index lies; nowhere, if there is no directory for caches.
fn place_of_index(
    flags: &flags::Survey,
    subject: &Subject,
    location: &Location,
) -> Result<Option<PathBuf>, Error> {
    let path = match &flags.index {
        Some(path) => Some(path.clone()),
        None => match caches() {
            Ok(caches) => Some(subject.default_path(&caches)),
            Err(why) => {
                say::warning(&format!(
                    "{why}: no index is kept, and everything is read each time"
                ));
                None
            }
        },
    };
    if let Some((path, archive)) = path.as_ref().zip(location.path())
        && lies_in(path, archive)
    {
        let what = format!("index \"{}\" would lie in the archive", path.display());
        return Err(Error::new(ErrorKind::Unusable, what).with_hint(
            "Name a file elsewhere with --index: an archive holds WAL and nothing else.",
        ));
    }
    Ok(path)
}

/// The directory for caches. A home that is not there is not made: services are given one that must not be.
fn caches() -> Result<PathBuf, String> {
    let variable = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let named = variable("XDG_CACHE_HOME");
    let caches = named.or_else(|| Some(variable("HOME")?.join(".cache")));
    let caches = caches.ok_or("there is no home directory (HOME)")?;
    match caches.parent() {
        Some(home) if !home.is_dir() => {
            let home = home.display();
            Err(format!("home directory \"{home}\" does not exist"))
        }
        _ => Ok(caches),
    }
}

/// Whether a file, which need not exist, lies below a directory.
fn lies_in(file: &Path, directory: &Path) -> bool {
    let Ok(directory) = directory.canonicalize() else {
        return false;
    };
    let full = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let existing = full
        .ancestors()
        .skip(1)
        .find_map(|parent| parent.canonicalize().ok());
    existing.is_some_and(|existing| existing.starts_with(&directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_lies_in_a_directory_however_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("archive");
        std::fs::create_dir(&archive).unwrap();
        std::os::unix::fs::symlink(&archive, dir.path().join("link")).unwrap();
        for (file, expected) in [
            ("archive/index", true),
            ("archive/not/yet/there", true),
            ("link/index", true),
            ("index", false),
            ("archives/index", false),
        ] {
            assert_eq!(
                lies_in(&dir.path().join(file), &archive),
                expected,
                "{file}"
            );
        }
    }
}
