//! What `walden check` says of a server's WAL directory beside its archive: what the archive lacks, and the server has; and what
//! the server cannot read there.
//!
//! Guarantees: nothing is changed, and only a segment whose records reach its end counts as one that the server has. Left to
//! others: what the archive holds, in `check_names.rs`; archiving it.

use std::fs;
use std::io;
use std::path::Path;

use archive::{Error, Form, Location, Overlap, Stored, histories_in, open_regular};
use recovery::Own;
use wal::{SegmentName, SegmentSize, TimelineHistory, WalFileName};

use crate::check_line::{Line, are, some_of};
use crate::say;
use crate::settings::Chosen;

/// Looks at the WAL directory of the cluster at hand, if there is one. `archived`: what its archive holds, in order, looked at
/// before; `None` if that cannot be told, or is another system's. `list` looks once more.
pub(crate) fn check(
    chosen: &Chosen,
    archived: Option<&[Stored]>,
    list: impl Fn() -> Option<Vec<Stored>>,
    lines: &mut Vec<Line>,
) {
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
        let mut filled = holes(data_dir, &own, archived);
        // A server that archives has archived some of them since the archive was looked at.
        if !filled.is_empty()
            && let Some(archived) = list()
        {
            filled = holes(data_dir, &own, &archived);
        }
        lines.push(match filled.as_slice() {
            [] => Line::passed(format!("\"{}\" fills no hole of the archive", pg_wal.display())),
            filled @ [first, ..] => Line::failed(
                format!(
                    "the archive lacks {} before later ones: in \"{}\", and not noted as \".ready\" in \"archive_status\", so \
                     that the server does not archive what is there: {}",
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

/// The segments that a server has, that its archive lacks before later WAL of the timeline or of one that left it behind them,
/// and that the server will not archive by itself: those without a note, after a crash between a segment's end and that note;
/// and those noted as archived, which a standby without `archive_mode = always` notes of all that it receives, and which may
/// have been lost from the archive.
///
/// What lies before everything archived is no hole: archiving began later, or has been cleaned up.
fn holes(data_dir: &Path, own: &[WalFileName], archived: &[Stored]) -> Vec<SegmentName> {
    let segment = |name: &WalFileName| match name {
        WalFileName::Segment(segment) => Some(*segment),
        _ => None,
    };
    let stored = archived.iter().filter_map(|stored| segment(&stored.name));
    let segments: Vec<SegmentName> = stored.collect();
    let oldest = segments.iter().map(SegmentName::position).min();
    let pg_wal = data_dir.join("pg_wal");
    // Of the server's timelines those that have WAL in the archive.
    let mut continued = histories_in(&pg_wal);
    continued.retain(|history| {
        let mut timelines = segments.iter().map(SegmentName::timeline);
        timelines.any(|timeline| timeline == history.timeline())
    });
    let is_hole = |segment: &SegmentName| {
        let at = match segments.binary_search(segment) {
            Ok(_) => return false,
            Err(at) => at,
        };
        let later = segments.get(at);
        let goes_on = later.is_some_and(|later| later.timeline() == segment.timeline());
        (goes_on || is_left_behind(&pg_wal, segment, &continued))
            && oldest.is_some_and(|oldest| oldest < segment.position())
    };
    let is_ready = |segment: &SegmentName| {
        let note = pg_wal
            .join("archive_status")
            .join(format!("{segment}.ready"));
        note.try_exists().unwrap_or(true)
    };
    own.iter()
        .filter_map(segment)
        .filter(|segment| is_hole(segment) && !is_ready(segment))
        .filter(|segment| recovery::own(data_dir, *segment) == Own::Whole)
        .collect()
}

/// Whether a timeline of these histories left the segment's at its end or behind it.
fn is_left_behind(pg_wal: &Path, segment: &SegmentName, continued: &[TimelineHistory]) -> bool {
    let file = fs::metadata(pg_wal.join(segment.to_string()));
    let Some(size) = file.ok().and_then(|file| SegmentSize::new(file.len()).ok()) else {
        return false;
    };
    let left = continued
        .iter()
        .filter_map(|history| history.left(segment.timeline()));
    let number = segment.number(size);
    left.map(|left| left.segment(size))
        .any(|left| number.is_some_and(|number| left > number))
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
