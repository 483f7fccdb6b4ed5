//! `walden.json`: whose WAL an archive holds. Written before the first WAL, create-if-absent, never changed.
//!
//! Guarantees: nothing is written into an archive of another system, not even by two that come first at
//! once. An archive without the file that holds segments (made by `cp` or `basic_archive`) is bound only
//! to the system those segments are from. A binding once seen that is gone means that the archive is gone.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::PoisonError;
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};
use wal::{LONG_PAGE_HEADER_BYTES, LongPageHeader, SystemIdentifier, WalFileName};

use crate::archive::Archive;
use crate::codec::Contents;
use crate::compression::CompressionKind;
use crate::error::{Error, ErrorKind};
use crate::forms;
use crate::key::{Form, parse_key};
use crate::options::Verify;
use crate::store::{Detail, Object};
use crate::time::rfc3339;

/// The binding's key.
pub const BINDING_KEY: &str = "walden.json";

/// The only format there is so far. Fields may be added to it; readers skip those they do not know.
const FORMAT: u32 = 1;

/// The longest binding believed, in bytes.
const BINDING_BYTES_MAX: usize = 64 * 1024;

/// Whose WAL an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The layout of the archive, 1.
    pub format: u32,
    /// The one system whose WAL belongs here.
    pub system: SystemIdentifier,
    /// When it was bound, RFC 3339, UTC.
    pub created: String,
}

#[derive(Serialize, Deserialize)]
struct Json {
    format: u32,
    /// A text, because JSON's numbers are often read as doubles, which lose its last digits.
    system_identifier: String,
    created: String,
}

/// Reads the binding; see [`Archive::binding`].
pub(crate) fn read(archive: &Archive) -> Result<Option<Binding>, Error> {
    let found = match archive.store.open(BINDING_KEY)? {
        None => None,
        Some(object) => Some(parse(archive, object)?),
    };
    let mut seen = archive.seen.lock().unwrap_or_else(PoisonError::into_inner);
    match (found, &*seen) {
        (Some(binding), Some((before, _))) if binding.system != before.system => {
            Err(Error::foreign(format!(
                "archive \"{}\" has become system identifier {}'s, and was {}'s",
                archive.place(),
                binding.system,
                before.system
            )))
        }
        (Some(binding), _) => {
            *seen = Some((binding.clone(), Instant::now()));
            Ok(Some(binding))
        }
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Error::unavailable(format!(
            "\"{}\" is gone",
            archive.shown(BINDING_KEY)
        ))
        .with_hint("Is the archive's file system still mounted?")),
    }
}

/// The binding as it was seen a moment ago, where reading it again is a request; else as it is now.
pub(crate) fn known(archive: &Archive) -> Result<Option<Binding>, Error> {
    if archive.store.is_remote() {
        let seen = archive.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((binding, at)) = &*seen
            && at.elapsed() < forms::BELIEVED
        {
            return Ok(Some(binding.clone()));
        }
    }
    read(archive)
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
    .with_hint("Every database cluster needs an archive of its own."))
}

/// Makes sure that the archive is this system's, and binds it if it is nobody's yet.
pub(crate) fn claim(archive: &Archive, system: SystemIdentifier) -> Result<(), Error> {
    let is_bound = known(archive)?;
    if let Some(binding) = &is_bound {
        check(archive, binding, system)?;
    }
    archive.store.prove_creation(archive.trial)?;
    if is_bound.is_some() {
        return Ok(());
    }
    let evidence = check_evidence(archive, system);
    if !matches!(evidence, Ok(false))
        && let Some(binding) = read(archive)?
    {
        // Bound meanwhile, perhaps by a neighbour of ours, whose file was the evidence.
        return check(archive, &binding, system);
    }
    if !evidence? {
        forms::begin(archive)?;
    }
    let json = Json {
        format: FORMAT,
        system_identifier: system.to_string(),
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
        Some(binding) => check(archive, &binding, system),
        None => Err(Error::unavailable(format!(
            "\"{}\" vanished as soon as it was written",
            archive.shown(BINDING_KEY)
        ))),
    }
}

/// Fails if the archive is known, or shows, to be another system's. Writes nothing.
pub(crate) fn must_not_be_foreign(
    archive: &Archive,
    system: SystemIdentifier,
) -> Result<(), Error> {
    match read(archive)? {
        Some(binding) => check(archive, &binding, system),
        None => check_evidence(archive, system).map(drop),
    }
}

/// An archive without a binding may hold WAL by other means; true if it does. Then that WAL says whose it is.
fn check_evidence(archive: &Archive, system: SystemIdentifier) -> Result<bool, Error> {
    // The newest and the oldest: one of them may be a copy that was interrupted.
    let mut newest: Option<(String, String)> = None;
    let mut oldest: Option<(String, String)> = None;
    archive.store.list("", Detail::Keys, &mut |entry| {
        if let Some((WalFileName::Segment(name), _)) = parse_key(&entry.key) {
            let candidate = (name.to_string(), entry.key);
            if newest.as_ref().is_none_or(|newest| candidate > *newest) {
                newest = Some(candidate.clone());
            }
            if oldest.as_ref().is_none_or(|oldest| candidate < *oldest) {
                oldest = Some(candidate);
            }
        }
        ControlFlow::Continue(())
    })?;
    let holds_wal = newest.is_some();
    let mut unread = None;
    for (_, key) in newest.into_iter().chain(oldest) {
        match header_of(archive, &key) {
            Ok(Some(header)) if header.system == system => return Ok(true),
            Ok(Some(header)) => {
                return Err(Error::foreign(format!(
                    "archive \"{}\" holds WAL of system identifier {} (\"{key}\"), not of {system}",
                    archive.place(),
                    header.system
                ))
                .with_hint("Every database cluster needs an archive of its own."));
            }
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::Damaged => unread = Some(error),
            Err(error) => return Err(error),
        }
    }
    match unread {
        Some(error) if archive.options.verify != Verify::Off => {
            Err(error.with_hint("Whose WAL this archive holds cannot be told."))
        }
        _ => Ok(holds_wal),
    }
}

/// The header of a stored segment; `None` if it has been removed meanwhile.
pub(crate) fn header_of(archive: &Archive, key: &str) -> Result<Option<LongPageHeader>, Error> {
    let Some((_, form)) = parse_key(key) else {
        return Ok(None);
    };
    let Some(object) = archive.store.open(key)? else {
        return Ok(None);
    };
    let shown = archive.shown(key);
    let mut head = [0; LONG_PAGE_HEADER_BYTES];
    let bytes = archive.decode(object, key, form)?.fill(&mut head)?;
    match LongPageHeader::parse(head.get(..bytes).unwrap_or_default()) {
        Ok(header) => Ok(Some(header)),
        Err(cause) => Err(Error::damaged(format!(
            "archive file \"{shown}\" is not valid: {cause}"
        ))),
    }
}

fn parse(archive: &Archive, object: Object) -> Result<Binding, Error> {
    let shown = archive.shown(BINDING_KEY);
    let damaged = |why: String| Error::damaged(format!("\"{shown}\" is not valid: {why}"));
    let mut text = vec![0; BINDING_BYTES_MAX];
    // Never encrypted: whoever is refused must be able to say why.
    let plain = Form::plain(CompressionKind::None);
    let bytes = archive
        .decode(object, BINDING_KEY, plain)?
        .fill(&mut text)?;
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
    Ok(Binding {
        format: json.format,
        system,
        created: json.created,
    })
}
