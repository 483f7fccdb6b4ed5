//! What `walden check` says of a server's WAL directory beside its archive: what the archive lacks, and the server has; and what
//! the server cannot read there.
//!
//! Guarantees: nothing is changed, and only a segment whose records reach its end counts as one that the server has. Left to
//! others: what the archive holds, in `check_names.rs`; archiving it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use archive::{Error, Form, Location, Overlap, Stored, open_regular};
use recovery::Own;
use wal::{SegmentName, WalFileName};

use crate::check_line::{Line, are, some_of};
use crate::say;
use crate::settings::Chosen;

/// Looks at the WAL directory of the cluster at hand, if there is one. `archived`: what its archive holds, in order, looked at
/// before; `None` if that cannot be told, or is another system's.
pub(crate) fn check(chosen: &Chosen, archived: Option<&[Stored]>, lines: &mut Vec<Line>) {
    let Some(data_dir) = chosen.data_dir.as_deref() else {
        return;
    };
    lines.extend(place(&chosen.settings.location, data_dir));
    let pg_wal = data_dir.join("pg_wal");
    let own = match named_like_wal(&pg_wal) {
        Ok(own) => own,
        Err(cause) => {
            let what = format!("could not read directory \"{}\"", pg_wal.display());
            lines.push(Line::error(
                &Error::io(what, cause),
                "Run the check as the server's user.",
            ));
            return;
        }
    };
    lines.push(packed(&pg_wal, &own));
    if let Some(archived) = archived {
        lines.push(match holes(data_dir, &own, archived).as_slice() {
            [] => Line::passed(format!("\"{}\" fills no hole of the archive", pg_wal.display())),
            filled @ [first, ..] => Line::failed(
                format!(
                    "the archive lacks {} before later ones: in \"{}\", with neither \".ready\" nor \".done\" in \
                     \"archive_status\", so that the server does not know of it: {}",
                    say::counted(filled.len() as u64, "segment"),
                    pg_wal.display(),
                    some_of(filled)
                ),
                format!(
                    "As the server's user, archive each of them, in order: {} {first}",
                    command(chosen, data_dir)
                ),
            ),
        });
    }
}

/// What comes of an archive that lies in the cluster's directories, or they in it. A store, and a directory that is not there,
/// lie nowhere.
fn place(location: &Location, data_dir: &Path) -> Option<Line> {
    let directory = location.path()?;
    let data = data_dir.display();
    let elsewhere = "Give the archive a directory of its own, on another file system if possible.";
    Some(match location.overlap(data_dir) {
        Some(Overlap::WithWal) => Line::failed(
            format!(
                "archive \"{location}\" is the WAL directory of \"{data}\", whose files the server removes"
            ),
            elsewhere,
        ),
        Some(Overlap::InWal) => Line::failed(
            format!(
                "archive \"{location}\" lies in the WAL directory of \"{data}\", and is lost with it"
            ),
            elsewhere,
        ),
        Some(Overlap::InData) => Line::warning(
            format!(
                "archive \"{location}\" lies in the data directory \"{data}\", is lost with it, and is copied with every \
                 base backup"
            ),
            elsewhere,
        ),
        Some(Overlap::Around) => Line::warning(
            format!(
                "archive \"{location}\" is a directory around \"{data}\" or its WAL directory, not one of its own"
            ),
            elsewhere,
        ),
        None if directory.exists() => {
            Line::passed(format!("archive and \"{data}\" do not lie in one another"))
        }
        None => return None,
    })
}

/// Files that a person has copied there as they are stored: whatever Walden restores is unpacked, and the server unpacks nothing.
fn packed(pg_wal: &Path, own: &[WalFileName]) -> Line {
    let form_of = |name: &WalFileName| {
        let path = pg_wal.join(name.to_string());
        open_regular(&path).and_then(Form::of_contents).ok()
    };
    // An empty file has no bytes that say where it is from.
    let is_packed = |form: &Form| !matches!(form, Form::Plain | Form::Empty);
    let packed: Vec<(&WalFileName, Form)> = own
        .iter()
        .filter_map(|name| form_of(name).filter(is_packed).map(|form| (name, form)))
        .collect();
    let Some((name, form)) = packed.first() else {
        return Line::passed(format!(
            "no file in \"{}\" is compressed or encrypted",
            pg_wal.display()
        ));
    };
    let names: Vec<&WalFileName> = packed.iter().map(|(name, _)| *name).collect();
    Line::failed(
        format!(
            "{} in \"{}\" compressed or encrypted, which ends a recovery that comes to it (\"{name}\" is {form}): {}",
            are(names.len(), "file"),
            pg_wal.display(),
            some_of(&names)
        ),
        match form {
            Form::Zstd | Form::Lz4 | Form::Age => {
                "Move such a file into the archive, if that has none of the name, or away: recovery gets it from the archive, \
                 unpacked."
            }
            _ => "Move it away, or put it there unpacked.",
        },
    )
}

/// The files of a WAL directory whose names are WAL files', in order.
fn named_like_wal(pg_wal: &Path) -> io::Result<Vec<WalFileName>> {
    let mut own = Vec::new();
    for entry in fs::read_dir(pg_wal)? {
        let name = entry?.file_name();
        own.extend(
            name.to_str()
                .and_then(|name| name.parse::<WalFileName>().ok()),
        );
    }
    own.sort();
    Ok(own)
}

/// The segments that a server has, that its archive lacks before a later one of the timeline, and that are not noted as files
/// to be archived or archived: after a crash between a segment's end and that note.
///
/// What lies before everything archived is no hole: archiving began later, or has been cleaned up. A running server renames
/// `.ready` to `.done`, and a file before it removes its `.done`; so one is looked for after the other, and the file last.
fn holes(data_dir: &Path, own: &[WalFileName], archived: &[Stored]) -> Vec<SegmentName> {
    let stored = |stored: &Stored| match stored.name {
        WalFileName::Segment(segment) => Some(segment),
        _ => None,
    };
    let segments: Vec<SegmentName> = archived.iter().filter_map(stored).collect();
    let oldest = segments.iter().map(SegmentName::position).min();
    let is_hole = |segment: &SegmentName| {
        let at = match segments.binary_search(segment) {
            Ok(_) => return false,
            Err(at) => at,
        };
        let later = segments.get(at);
        later.is_some_and(|later| later.timeline() == segment.timeline())
            && oldest.is_some_and(|oldest| oldest < segment.position())
    };
    let is_noted = |segment: &SegmentName| {
        ["ready", "done"].iter().any(|status| {
            let note: PathBuf = ["pg_wal", "archive_status"].iter().collect();
            let note = data_dir.join(note).join(format!("{segment}.{status}"));
            note.try_exists().unwrap_or(true)
        })
    };
    own.iter()
        .filter_map(|name| match name {
            WalFileName::Segment(segment) => Some(*segment),
            _ => None,
        })
        .filter(|segment| is_hole(segment) && !is_noted(segment))
        .filter(|segment| recovery::own(data_dir, *segment) == Own::Whole)
        .collect()
}

/// What archives a file by hand into this archive; its name is left to be added.
fn command(chosen: &Chosen, data_dir: &Path) -> String {
    let location = &chosen.settings.location;
    let conf = chosen.conf.as_ref();
    let configured = conf.and_then(|conf| conf.get("walden.archive")?.parse::<Location>().ok());
    let named = if configured.as_ref() == Some(location) {
        String::new()
    } else {
        format!("-A '{location}' ")
    };
    format!("walden archive {named}-D {}", data_dir.display())
}
