//! Binding an archive to a system, and its segments to a size: `walden.json` is written before the first WAL,
//! create-if-absent, and never changed. What it says is read by `archive/binding.rs`.
//!
//! Guarantees: nothing is written into an archive of another system, not even by two that come first at
//! once, and no segment of another size (`pg_resetwal --wal-segsize` begins another archive). An archive without the file that
//! holds segments (made by `cp` or `basic_archive`) is bound only to the system and the size of those segments. One whose
//! binding does not say the size takes it from its segments.
//!
//! That the store creates only what is absent is tried before the binding is written, and by archivers that find one: [`Trial`].

use std::io::Write;
use std::ops::ControlFlow;

use wal::{SegmentSize, SystemIdentifier, WalFileName};

use crate::archive::Archive;
use crate::archive::binding::{
    self, ANOTHER_ARCHIVE, BINDING_KEY, Binding, Stored, check, known_as_stored, read, seen,
};
use crate::error::{Error, ErrorKind};
use crate::get::lookup::header_of;
use crate::options::Verify;
use crate::store::key::parse_key;
use crate::store::waist::{Detail, Trial};

/// The cluster that a file is from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    /// System identifier of the cluster.
    pub(crate) system: SystemIdentifier,
    /// How long its segments are, where that is known.
    pub(crate) segment_size: Option<SegmentSize>,
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
    .with_hint("WAL from after pg_resetwal --wal-segsize needs an archive of its own, with a new base backup."))
}

/// Makes sure that the archive is this system's, and binds it if it is not bound yet.
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
    let text = binding::text_of(owner.system, segment_size)?;
    let mut staged = archive.store.stage(BINDING_KEY)?;
    staged.write_all(text.as_bytes()).map_err(|cause| {
        Error::io(
            format!("could not write file \"{}\"", archive.shown(BINDING_KEY)),
            cause,
        )
    })?;
    staged.publish()?;
    // Ours, or that of another that came first at the same time: what is there now decides.
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
    /// There are no segments.
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
            Err(error.with_hint("It is not known whose WAL this archive holds."))
        }
        _ if holds_wal => Ok(Evidence::Wal),
        _ => Ok(Evidence::None),
    }
}
