//! `walden.json`: whose WAL an archive holds, and how long its segments are. Written before the first WAL, create-if-absent,
//! never changed.
//!
//! Guarantees: nothing is written into an archive of another system, not even by two that come first at
//! once, and no segment of another size (`pg_resetwal --wal-segsize` begins another archive). An archive without the file that
//! holds segments (made by `cp` or `basic_archive`) is bound only to the system and the size of those segments. One whose
//! binding does not say the size takes it from its segments. A binding once seen that is gone means that the archive is gone.
//!
//! That the store creates only what is absent is tried before the binding is written, and by whoever finds one: see [`Trial`].

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use wal::{LONG_PAGE_HEADER_BYTES, LongPageHeader, SegmentSize, SystemIdentifier, WalFileName};

use crate::archive::Archive;
use crate::codec::Contents;
use crate::error::{Error, ErrorKind};
use crate::key::parse_key;
use crate::options::Verify;
use crate::store::{Detail, Glance, Object, Trial};
use crate::time::rfc3339;

/// The binding's key.
pub const BINDING_KEY: &str = "walden.json";

/// The only format there is so far. Fields may be added to it; readers skip those they do not know.
const FORMAT: u32 = 1;

/// The longest binding believed, in bytes.
const BINDING_BYTES_MAX: usize = 64 * 1024;

/// How long a binding that was seen is believed, where looking again is a request.
const BELIEVED: Duration = Duration::from_secs(60);

const ANOTHER_ARCHIVE: &str = "Every database cluster needs an archive of its own.";

/// Whose WAL an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The layout of the archive, 1.
    pub format: u32,
    /// The one system whose WAL belongs here.
    pub system: SystemIdentifier,
    /// How long its segments are; `None` if it was bound before that was written down, or by a file that does not tell.
    pub segment_size: Option<SegmentSize>,
    /// When it was bound, RFC 3339, UTC.
    pub created: String,
}

#[derive(Serialize, Deserialize)]
struct Json {
    format: u32,
    /// A text, because JSON's numbers are often read as doubles, which lose its last digits.
    system_identifier: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segment_size: Option<u64>,
    created: String,
}

/// A binding, and the bytes that it is stored as.
#[derive(Debug, Clone)]
struct Stored {
    binding: Binding,
    bytes: Vec<u8>,
}

/// What an opened archive has seen of its binding.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The binding once seen, as it is stored, and when. If it vanishes later, the archive's file system is gone, not its
    /// contents.
    binding: Option<(Stored, Instant)>,
    /// The size of its segments, where only they tell; `None` inside if there were none.
    size: Option<Option<SegmentSize>>,
    /// Whether the store has been tried.
    is_tried: bool,
}

/// Who offers a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    /// Whose WAL it is.
    pub(crate) system: SystemIdentifier,
    /// How long its segments are, where that is known.
    pub(crate) segment_size: Option<SegmentSize>,
}

/// Reads the binding; see [`Archive::binding`].
pub(crate) fn read(archive: &Archive) -> Result<Option<Binding>, Error> {
    let found = archive.store.open(BINDING_KEY)?;
    Ok(take(archive, found)?.map(|stored| stored.binding))
}

/// What an object found under the binding's key says, and that it is what was seen before.
fn take(archive: &Archive, found: Option<Object>) -> Result<Option<Stored>, Error> {
    let found = match found {
        None => None,
        Some(object) => Some(parse(archive, object)?),
    };
    let mut seen = seen(archive);
    match (found, &seen.binding) {
        (Some(now), Some((before, _))) if now.binding.system != before.binding.system => {
            Err(Error::foreign(format!(
                "archive \"{}\" has become system identifier {}'s, and was {}'s",
                archive.place(),
                now.binding.system,
                before.binding.system
            )))
        }
        (Some(now), _) => {
            seen.binding = Some((now.clone(), Instant::now()));
            Ok(Some(now))
        }
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Error::unavailable(format!(
            "\"{}\" is gone",
            archive.shown(BINDING_KEY)
        ))
        .with_hint(if archive.is_directory() {
            "Is the archive's file system still mounted?"
        } else {
            "Has somebody emptied the bucket or container, or is it another one now?"
        })),
    }
}

/// The binding as it was seen a moment ago, where reading it again is a request; else as it is now.
pub(crate) fn known(archive: &Archive) -> Result<Option<Binding>, Error> {
    Ok(known_as_stored(archive)?.map(|stored| stored.binding))
}

fn known_as_stored(archive: &Archive) -> Result<Option<Stored>, Error> {
    let found = match archive.store.glance(BINDING_KEY)? {
        Glance::Object(object) => Some(object),
        Glance::Absent => None,
        Glance::NotLooked => {
            if let Some((stored, at)) = &seen(archive).binding
                && at.elapsed() < BELIEVED
            {
                return Ok(Some(stored.clone()));
            }
            archive.store.open(BINDING_KEY)?
        }
    };
    take(archive, found)
}

fn seen(archive: &Archive) -> MutexGuard<'_, Seen> {
    archive.seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses if the archive is known to be another system's.
pub(crate) fn check(
    archive: &Archive,
    binding: &Binding,
    system: SystemIdentifier,
) -> Result<(), Error> {
    if binding.system == system {
        return Ok(());
    }
    Err(Error::foreign(format!(
        "archive \"{}\" belongs to system identifier {}, not to {system}",
        archive.place(),
        binding.system
    ))
    .with_hint(ANOTHER_ARCHIVE))
}

/// Refuses if the archive's segments are known to be of another size.
fn check_size(archive: &Archive, size: SegmentSize, own: SegmentSize) -> Result<(), Error> {
    if size == own {
        return Ok(());
    }
    Err(Error::foreign(format!(
        "archive \"{}\" holds segments of {size}, and this server's are of {own}",
        archive.place()
    ))
    .with_hint("WAL from after pg_resetwal --wal-segsize belongs into an archive of its own, with a new base backup."))
}

/// Makes sure that the archive is this system's, and binds it if it is nobody's yet.
pub(crate) fn claim(archive: &Archive, owner: Owner) -> Result<(), Error> {
    if let Some(Stored { binding, bytes }) = known_as_stored(archive)? {
        must_be_of(archive, &binding, owner)?;
        let is_tried = seen(archive).is_tried;
        if !is_tried {
            let again = Trial::Again {
                key: BINDING_KEY,
                bytes: &bytes,
            };
            archive.store.prove_creation(again)?;
            seen(archive).is_tried = true;
        }
        return Ok(());
    }
    archive.store.prove_creation(archive.trial)?;
    let evidence = check_evidence(archive, owner);
    if !matches!(evidence, Ok(Evidence::None))
        && let Some(binding) = read(archive)?
    {
        // Bound meanwhile, perhaps by a neighbour of ours, whose file was the evidence.
        return must_be_of(archive, &binding, owner);
    }
    let segment_size = match evidence? {
        Evidence::Size(size) => Some(size),
        Evidence::None | Evidence::Wal => owner.segment_size,
    };
    let json = Json {
        format: FORMAT,
        system_identifier: owner.system.to_string(),
        segment_size: segment_size.map(SegmentSize::bytes),
        created: rfc3339(SystemTime::now()),
    };
    let text = serde_json::to_string(&json)
        .map_err(|cause| Error::unavailable(format!("could not write a binding: {cause}")))?;
    let mut staged = archive.store.stage(BINDING_KEY)?;
    staged
        .write_all(format!("{text}\n").as_bytes())
        .map_err(|cause| {
            Error::io(
                format!("could not write file \"{}\"", archive.shown(BINDING_KEY)),
                cause,
            )
        })?;
    staged.publish()?;
    // Ours or that of somebody who came first at the same time: what is there now decides.
    match read(archive)? {
        Some(binding) => {
            seen(archive).is_tried = true;
            must_be_of(archive, &binding, owner)
        }
        None => Err(Error::unavailable(format!(
            "\"{}\" vanished as soon as it was written",
            archive.shown(BINDING_KEY)
        ))),
    }
}

/// Refuses an owner that a binding is not for.
fn must_be_of(archive: &Archive, binding: &Binding, owner: Owner) -> Result<(), Error> {
    check(archive, binding, owner.system)?;
    let Some(own) = owner.segment_size else {
        return Ok(());
    };
    match binding.segment_size {
        Some(size) => check_size(archive, size, own),
        None => match size_by_evidence(archive, owner)? {
            Some(size) => check_size(archive, size, own),
            None => {
                seen(archive).size = Some(Some(own));
                Ok(())
            }
        },
    }
}

/// How long the segments are of an archive whose binding does not say it: looked at once.
fn size_by_evidence(archive: &Archive, owner: Owner) -> Result<Option<SegmentSize>, Error> {
    if let Some(size) = seen(archive).size {
        return Ok(size);
    }
    let unsized_owner = Owner {
        segment_size: None,
        ..owner
    };
    let size = match check_evidence(archive, unsized_owner) {
        Ok(Evidence::Size(size)) => Some(size),
        Err(error) if error.kind().may_work_later() => return Err(error),
        // The binding says whose it is. What is wrong with single files is for an audit to say.
        Ok(Evidence::None | Evidence::Wal) | Err(_) => None,
    };
    seen(archive).size = Some(size);
    Ok(size)
}

/// Fails if the archive is known, or shows, to be another system's. Writes nothing.
pub(crate) fn must_not_be_foreign(
    archive: &Archive,
    system: SystemIdentifier,
) -> Result<(), Error> {
    let owner = Owner {
        system,
        segment_size: None,
    };
    match read(archive)? {
        Some(binding) => check(archive, &binding, system),
        None => check_evidence(archive, owner).map(drop),
    }
}

/// What an archive holds that may be of another system.
enum Evidence {
    /// No segments.
    None,
    /// Segments that say nothing.
    Wal,
    /// Segments of the system that was asked for, so long.
    Size(SegmentSize),
}

/// An archive without a binding may hold WAL by other means. Then that WAL says whose it is.
fn check_evidence(archive: &Archive, owner: Owner) -> Result<Evidence, Error> {
    // The newest and the oldest: one of them may be a copy that was interrupted.
    let mut newest: Option<String> = None;
    let mut oldest: Option<String> = None;
    archive.store.list("", Detail::Keys, &mut |entry| {
        if let Some(WalFileName::Segment(_)) = parse_key(&entry.key) {
            if newest.as_ref().is_none_or(|newest| entry.key > *newest) {
                newest = Some(entry.key.clone());
            }
            if oldest.as_ref().is_none_or(|oldest| entry.key < *oldest) {
                oldest = Some(entry.key);
            }
        }
        ControlFlow::Continue(())
    })?;
    let holds_wal = newest.is_some();
    let mut unread = None;
    for key in newest.into_iter().chain(oldest) {
        match header_of(archive, &key) {
            Ok(Some(header)) if header.system == owner.system => {
                if let Some(own) = owner.segment_size {
                    check_size(archive, header.segment_size, own)?;
                }
                return Ok(Evidence::Size(header.segment_size));
            }
            Ok(Some(header)) => {
                return Err(Error::foreign(format!(
                    "archive \"{}\" holds WAL of system identifier {} (\"{key}\"), not of {}",
                    archive.place(),
                    header.system,
                    owner.system
                ))
                .with_hint(ANOTHER_ARCHIVE));
            }
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::Damaged => unread = Some(error),
            Err(error) if error.is_packed() || error.is_no_file() => unread = Some(error),
            Err(error) => return Err(error),
        }
    }
    match unread {
        Some(error) if archive.options.verify != Verify::Off => {
            Err(error.with_hint("Whose WAL this archive holds cannot be told."))
        }
        _ if holds_wal => Ok(Evidence::Wal),
        _ => Ok(Evidence::None),
    }
}

/// The header of a stored segment; `None` if it has been removed meanwhile.
pub(crate) fn header_of(archive: &Archive, key: &str) -> Result<Option<LongPageHeader>, Error> {
    let Some(object) = archive.store.open(key)? else {
        return Ok(None);
    };
    let shown = archive.shown(key);
    let mut head = [0; LONG_PAGE_HEADER_BYTES];
    let bytes = archive.decode(object, key)?.fill(&mut head)?;
    match LongPageHeader::parse(head.get(..bytes).unwrap_or_default()) {
        Ok(header) => Ok(Some(header)),
        Err(cause) => Err(Error::damaged(format!(
            "archive file \"{shown}\" is not valid: {cause}"
        ))),
    }
}

fn parse(archive: &Archive, object: Object) -> Result<Stored, Error> {
    let shown = archive.shown(BINDING_KEY);
    let damaged = |why: String| Error::damaged(format!("\"{shown}\" is not valid: {why}"));
    let mut text = vec![0; BINDING_BYTES_MAX];
    // Never encrypted: whoever is refused must be able to say why.
    let bytes = archive.decode(object, BINDING_KEY)?.fill(&mut text)?;
    text.truncate(bytes);
    let json: Json = serde_json::from_slice(&text).map_err(|cause| damaged(cause.to_string()))?;
    if json.format != FORMAT {
        return Err(Error::unusable(format!(
            "archive \"{}\" has format {}, and this version of Walden knows format {FORMAT}",
            archive.place(),
            json.format
        )));
    }
    let system = json.system_identifier.parse().map_err(|_| {
        damaged(format!(
            "\"{}\" is not a system identifier",
            json.system_identifier.escape_default()
        ))
    })?;
    let segment_size = json.segment_size.map(SegmentSize::new).transpose();
    let segment_size = segment_size.map_err(|cause| damaged(cause.to_string()))?;
    let binding = Binding {
        format: json.format,
        system,
        segment_size,
        created: json.created,
    };
    Ok(Stored {
        binding,
        bytes: text,
    })
}
