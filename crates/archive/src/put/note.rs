//! An archive that has begun to encrypt goes on to: `walden.encrypted`, an object of its own beside the binding.
//!
//! Guarantees: it is there before the first encrypted file is, and from then on nothing is stored here that is not encrypted:
//! a line of the configuration that gets lost must not leak WAL. Looked at once in an archiver's life, which ends whenever its
//! settings change. A person who means to store plain files again removes the object.

use std::io::Write;

use crate::archive::Archive;
use crate::error::Error;
use crate::store::waist::Glance;

/// Key of the object that notes that an archive holds encrypted files.
pub const ENCRYPTED_KEY: &str = "walden.encrypted";

const TEXT: &[u8] =
    b"This archive holds encrypted files. While this object is here, Walden stores no others.\n";

/// Sees to the note before an object is stored, which messages call `shown`.
///
/// Fails with [`crate::ErrorKind::Unusable`] for one that would not be encrypted in an archive that is noted.
pub(super) fn must_be_as_noted(archive: &Archive, shown: &str) -> Result<(), Error> {
    if archive.run.has_seen_note() {
        return Ok(());
    }
    match (archive.options.recipients.is_empty(), is_there(archive)?) {
        (true, Some(true)) => {
            return Err(Error::unusable(format!(
                "archive \"{}\" holds encrypted files only, and {shown} would not be encrypted",
                archive.place()
            ))
            .with_hint(format!(
                "Set \"walden.recipients\" again. If files are to be stored plain from now on, remove \"{}\".",
                archive.shown(ENCRYPTED_KEY)
            )));
        }
        (true, _) | (false, Some(true)) => {}
        (false, _) => write(archive)?,
    }
    archive.run.sees_note();
    Ok(())
}

/// Whether the note is there; `None` if a caller that means to write it need not look.
fn is_there(archive: &Archive) -> Result<Option<bool>, Error> {
    Ok(match archive.store.glance(ENCRYPTED_KEY)? {
        Glance::Object(_) => Some(true),
        Glance::Absent => Some(false),
        Glance::NotLooked if archive.options.recipients.is_empty() => {
            Some(archive.store.open(ENCRYPTED_KEY)?.is_some())
        }
        Glance::NotLooked => None,
    })
}

fn write(archive: &Archive) -> Result<(), Error> {
    let mut staged = archive.store.stage(ENCRYPTED_KEY)?;
    let could_not = || {
        let shown = archive.shown(ENCRYPTED_KEY);
        format!("could not write archive file \"{shown}\"")
    };
    staged
        .write_all(TEXT)
        .map_err(|cause| Error::io(could_not(), cause))?;
    // By us or by another: it is there.
    staged.publish().map(drop)
}
