//! What `walden check` says of an archive by the names of what is in it.
//!
//! Guarantees: one listing, and no look into any file. Left to others: whether the files are what their names say
//! (`walden verify`).

use std::ops::ControlFlow;

use archive::{Archive, Error, ErrorKind, Found, Stored, beside, rename_hint};
use wal::WalFileName;

use crate::check::{Line, are, some_of};
use crate::progress::Progress;

/// What an archive holds.
pub(crate) struct Names {
    /// The WAL files, in order.
    pub(crate) files: Vec<Stored>,
    /// Keys of objects that stand beside a WAL file's name, in order.
    beside: Vec<String>,
}

/// Lists the archive.
pub(crate) fn list(archive: &Archive, progress: &Progress) -> Result<Names, Error> {
    let mut names = Names {
        files: Vec::new(),
        beside: Vec::new(),
    };
    let mut has_room = true;
    archive.each(&mut |found| {
        // How many there are is not for us to say.
        has_room = names.files.try_reserve(1).is_ok() && names.beside.try_reserve(1).is_ok();
        if !has_room {
            return ControlFlow::Break(());
        }
        match found {
            Found::File(stored) => names.files.push(stored),
            Found::Other(entry) if beside(&entry.key).is_some() => names.beside.push(entry.key),
            Found::Other(_) => {}
        }
        progress.found(names.files.len() as u64);
        ControlFlow::Continue(())
    })?;
    if !has_room {
        let message = format!(
            "there is no memory for more names than {}",
            names.files.len()
        );
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    names.files.sort_by_key(|stored| stored.name);
    names.beside.sort();
    Ok(names)
}

/// Judges the names.
pub(crate) fn check(names: &Names, lines: &mut Vec<Line>) {
    lines.push(Line::passed(format!(
        "archive can be listed, {} WAL files",
        names.files.len()
    )));
    let (needed, spare): (Vec<&String>, Vec<&String>) =
        names.beside.iter().partition(|key| is_needed(names, key));
    if let Some(cure) = cure(&needed) {
        let found = format!(
            "{} named like WAL files that are not there, which stops a recovery: {}",
            are(needed.len(), "object"),
            some_of(&needed)
        );
        lines.push(Line::failed(found, cure));
    }
    if !spare.is_empty() {
        let found = format!(
            "{} named like WAL files and restored by nobody: {}",
            are(spare.len(), "object"),
            some_of(&spare)
        );
        let cure =
            "No recovery asks for them; see whether they are still wanted, and move them away.";
        lines.push(Line::warning(found, cure));
    }
}

/// Whether an object stands in the place of a file that a recovery asks for.
fn is_needed(names: &Names, key: &str) -> bool {
    let asked_for = beside(key).filter(|name| {
        matches!(
            name,
            WalFileName::Segment(_) | WalFileName::TimelineHistory(_)
        )
    });
    asked_for.is_some_and(|name| {
        let place = names
            .files
            .binary_search_by_key(&name, |stored| stored.name);
        place.is_err()
    })
}

/// What to do, said of the first.
fn cure(keys: &[&String]) -> Option<String> {
    let key = keys.first()?;
    let hint = rename_hint(key, &beside(key)?);
    Some(match keys.len() {
        1 => hint,
        _ => format!("{hint} The others likewise (\"walden list\" says how)."),
    })
}
