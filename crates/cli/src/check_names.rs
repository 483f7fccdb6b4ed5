//! What `walden check` says of an archive by the names of what is in it.
//!
//! Guarantees: one listing, and a look at the beginning of two files at most. Left to others: whether the files are what their
//! names say (`walden verify`).

use std::ops::ControlFlow;
use std::time::SystemTime;

use archive::{
    Archive, BINDING_KEY, Compression, Error, ErrorKind, Form, Found, Options, Stored, beside,
    rename_hint,
};
use audit::stops_recovery;
use wal::{SegmentSize, WalFileName};

use crate::check_line::{Line, are, some_of};
use crate::progress::Progress;

/// The names in an archive, by kind.
pub(crate) struct Names {
    /// The WAL files, in order.
    pub(crate) files: Vec<Stored>,
    /// Keys of objects that stand beside a WAL file's name, in order.
    beside: Vec<String>,
    /// What `basic_archive` writes before it renames it, and when.
    theirs: Vec<(String, SystemTime)>,
    /// When the archive was bound.
    bound: Option<SystemTime>,
}

/// Lists the archive.
pub(crate) fn list(archive: &Archive, progress: &Progress) -> Result<Names, Error> {
    let mut names = Names {
        files: Vec::new(),
        beside: Vec::new(),
        theirs: Vec::new(),
        bound: None,
    };
    let mut has_room = true;
    archive.each(&mut |found| {
        // How many there are is not for us to say.
        has_room = names.files.try_reserve(1).is_ok()
            && names.beside.try_reserve(1).is_ok()
            && names.theirs.try_reserve(1).is_ok();
        if !has_room {
            return ControlFlow::Break(());
        }
        match found {
            Found::File(stored) => names.files.push(stored),
            Found::Other(entry) if beside(&entry.key).is_some() => names.beside.push(entry.key),
            Found::Other(entry) if is_basic_archives(&entry.key) => {
                names.theirs.push((entry.key, entry.modified));
            }
            Found::Other(entry) if entry.key == BINDING_KEY => names.bound = Some(entry.modified),
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
    names.theirs.sort();
    Ok(names)
}

/// Whether this is how `basic_archive` names what it is writing: `archtemp.NAME.PID.TIME` (`basic_archive_file`, 15 to 18).
fn is_basic_archives(key: &str) -> bool {
    let rest = key.strip_prefix("archtemp.");
    let name = rest.and_then(|rest| rest.rsplitn(3, '.').nth(2));
    name.is_some_and(|name| name.parse::<WalFileName>().is_ok())
}

/// What to do about another writer; before it, whether there is one.
const NOT_SHARED: &str = "give it a directory of its own: one is shared only with walden.compression = none and no \
     walden.recipients.";

/// What `basic_archive` has left in an archive that only Walden can read.
fn shared(names: &Names) -> Option<Line> {
    let bound = names.bound?;
    let since = names.theirs.iter().filter(|(_, when)| *when > bound);
    let keys: Vec<&String> = since.map(|(key, _)| key).collect();
    (!keys.is_empty()).then(|| {
        let found = format!(
            "{} of basic_archive, from after the archive was bound: {}",
            are(keys.len(), "file"),
            some_of(&keys)
        );
        let cure = format!(
            "If basic_archive archives into it, {NOT_SHARED} If not, remove what it has left."
        );
        Line::warning(found, cure)
    })
}

/// Segments that lie plain in such an archive, and came after all that are compressed or encrypted: Walden does not write any
/// under these settings. For earlier ones there is no telling whose they are: settings change.
fn plain_behind(archive: &Archive, names: &Names) -> Option<Line> {
    let is_segment = |stored: &&Stored| matches!(stored.name, WalFileName::Segment(_));
    let segments = || names.files.iter().filter(is_segment);
    // What is compressed has another length but by a rare chance, in which nothing is said.
    let is_whole = |stored: &&Stored| SegmentSize::new(stored.bytes).is_ok();
    let packed = segments().filter(|stored| !is_whole(stored));
    let packed = packed.max_by_key(|stored| stored.modified)?;
    let since = segments().filter(|stored| stored.modified > packed.modified);
    let plain: Vec<&Stored> = since.filter(is_whole).collect();
    let form = |stored: &Stored| archive.form_of(&stored.key).ok().flatten();
    let is_packed = matches!(form(packed)?, Form::Zstd | Form::Lz4 | Form::Age);
    if !is_packed || form(plain.last()?)? != Form::Plain {
        return None;
    }
    let keys: Vec<&String> = plain.iter().map(|stored| &stored.key).collect();
    let found = format!(
        "{} neither compressed nor encrypted, from after \"{}\", which is: {}",
        are(keys.len(), "segment"),
        packed.key,
        some_of(&keys)
    );
    let cure = format!(
        "If something else than Walden archives into it, {NOT_SHARED} If the settings have changed, or a person has put them \
         there, nothing is wrong."
    );
    Some(Line::warning(found, cure))
}

/// Judges the names. `options`: how files are stored from now on.
pub(crate) fn check(archive: &Archive, names: &Names, options: &Options, lines: &mut Vec<Line>) {
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
            "{} named like WAL files that nothing restores: {}",
            are(spare.len(), "object"),
            some_of(&spare)
        );
        let cure =
            "No recovery asks for them; see whether they are still wanted, and move them away.";
        lines.push(Line::warning(found, cure));
    }
    if options.compression != Compression::None || !options.recipients.is_empty() {
        lines.extend(shared(names));
        lines.extend(plain_behind(archive, names));
    }
}

/// Whether an object stands in the place of a file that a recovery asks for.
fn is_needed(names: &Names, key: &str) -> bool {
    beside(key).is_some_and(|name| {
        let find = || names.files.binary_search_by_key(&name, |it| it.name);
        stops_recovery(&name, || find().is_ok())
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
