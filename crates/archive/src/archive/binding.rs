//! `walden.json`: whose WAL an archive holds, and how long its segments are. Here it is read; `admin/claim.rs` writes it.
//!
//! Guarantees that a binding once seen that is gone means that the archive is gone, and that one of another system than before
//! is refused. Where looking again is a request, it is believed for a minute.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use wal::{SegmentSize, SystemIdentifier};

use crate::archive::Archive;
use crate::base::time::rfc3339;
use crate::error::Error;
use crate::format::codec::Contents;
use crate::store::waist::{Glance, Object};

/// Key of the object that binds an archive to a system.
pub const BINDING_KEY: &str = "walden.json";

/// The only format there is so far. Fields may be added to it; readers skip those they do not know.
const FORMAT: u32 = 1;

/// The longest binding believed, in bytes.
const BINDING_BYTES_MAX: usize = 64 * 1024;

/// How long a binding that was seen is believed, where looking again is a request.
const BELIEVED: Duration = Duration::from_secs(60);

pub(crate) const ANOTHER_ARCHIVE: &str = "Every database cluster needs an archive of its own.";

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
pub(crate) struct Stored {
    pub(crate) binding: Binding,
    pub(crate) bytes: Vec<u8>,
}

/// What an opened archive has seen of its binding.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The binding once seen, as it is stored, and when. If it vanishes later, the archive's file system is gone, not its
    /// contents.
    binding: Option<(Stored, Instant)>,
    /// The size of its segments, where only they tell; `None` inside if there were none.
    pub(crate) size: Option<Option<SegmentSize>>,
    /// Whether the store has been tried.
    pub(crate) is_tried: bool,
}

impl Archive {
    /// Whose WAL this archive holds; `None` if it has not been bound yet.
    ///
    /// Fails with [`crate::ErrorKind::Unavailable`] if a binding seen before is gone: then the file system is
    /// gone, and whatever is left in its place is not this archive.
    pub fn binding(&self) -> Result<Option<Binding>, Error> {
        read(self)
    }
}

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
        .with_hint(if archive.may_be_unmounted() {
            "Is the archive's file system still mounted?"
        } else {
            "Has the bucket or container been emptied, or is it another one now?"
        })),
    }
}

/// The binding as it was seen a moment ago, where reading it again is a request; else as it is now.
pub(crate) fn known(archive: &Archive) -> Result<Option<Binding>, Error> {
    Ok(known_as_stored(archive)?.map(|stored| stored.binding))
}

/// The same, with the bytes that it is stored as.
pub(crate) fn known_as_stored(archive: &Archive) -> Result<Option<Stored>, Error> {
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

/// What has been seen of the binding so far.
pub(crate) fn seen(archive: &Archive) -> MutexGuard<'_, Seen> {
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

/// What is written for a binding to this system.
///
/// Fails where that cannot be put into words, which does not happen.
pub(crate) fn text_of(
    system: SystemIdentifier,
    segment_size: Option<SegmentSize>,
) -> Result<String, Error> {
    let json = Json {
        format: FORMAT,
        system_identifier: system.to_string(),
        segment_size: segment_size.map(SegmentSize::bytes),
        created: rfc3339(SystemTime::now()),
    };
    let text = serde_json::to_string(&json)
        .map_err(|cause| Error::unavailable(format!("could not write a binding: {cause}")))?;
    Ok(format!("{text}\n"))
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
