//! A file that another server has archived already, recognised without fetching it, and a head start for that server.
//!
//! A standby with `archive_mode = always` archives what its primary archives too. Into an object store it would send each
//! segment for nothing, and then fetch it to see that the two are equal. So
//! * a writer notes the digest of the contents with the object, and an equal digest counts as equal contents. A different one,
//!   or none, decides nothing: the two are compared. Encrypted files have none there, since it would tell to who may read
//!   the bucket which file is inside; their header has one that only the cluster can make (`equal.rs`);
//! * a standby gives its primary [`HEAD_START`] from the moment the file was finished, asks whether it is there, and sends it
//!   only if it is not.
//!
//! Guarantees that a standby whose primary does not archive is not held up: after a few files in a row that were not there
//! (`archive/run.rs`) it neither waits nor asks, until the store refuses one because another server was first. Files that
//! have been finished for longer, a backlog for example, are not waited for at any time.

use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use wal::WalFileName;

use super::{Offer, Put, must_not_be_itself};
use crate::error::Error;
use crate::format::codec::Contents;
use crate::format::workspace::Workspace;
use crate::options::compression::Compression;
use crate::store::waist::Noted;

/// How long a primary has for a file before its standby sends it: it needs a tenth of a second to compress a segment and
/// some round trips to store it.
const HEAD_START: Duration = Duration::from_secs(2);

/// Whether the server that a file in `pg_wal` belongs to is a standby.
pub(crate) fn is_standby(path: &Path) -> bool {
    // The server asks for files of pg_wal in its data directory.
    let data_directory = path.parent().and_then(Path::parent);
    data_directory.is_some_and(|directory| directory.join("standby.signal").exists())
}

impl Offer<'_> {
    /// Whether a digest of the contents is to be noted.
    pub(super) fn wants_digest(&self) -> bool {
        // Stored plain, an object has the size of any other segment: then a note could outlive the bytes that it tells of,
        // where a tool writes others under the same metadata.
        self.archive.options.recipients.is_empty()
            && self.archive.options.compression != Compression::None
            && matches!(self.name, WalFileName::Segment(_))
            && self.archive.store.keeps_notes()
    }

    /// What is noted with the object that stands in the way, where it can be of use.
    pub(super) fn noted(&self) -> Result<Noted, Error> {
        match self.contents {
            Some(_) => self.archive.store.noted(&self.key),
            None => Ok(Noted::Nothing),
        }
    }

    /// Waits for the primary to archive this file; what is noted with it, if it has.
    pub(super) fn stored_by_primary(
        &mut self,
        workspace: &mut Workspace,
    ) -> Result<Option<Noted>, Error> {
        let run = &self.archive.run;
        if run.is_alone() || !self.archive.store.keeps_notes() {
            return Ok(None);
        }
        // A file from the future, by a clock that was set back or a file server's, is not waited for.
        let age = self.source.modified.elapsed().unwrap_or(HEAD_START);
        self.cancel.wait(HEAD_START.saturating_sub(age));
        self.cancel.check(&self.what())?;
        // A store that does not tell is asked to take the file, as it would be without this.
        let noted = self.archive.store.noted(&self.key);
        let Some(noted) = noted.ok().filter(|noted| *noted != Noted::Absent) else {
            run.misses_primary();
            return Ok(None);
        };
        run.finds_another();
        if let Noted::Digest(_) = noted {
            self.contents = Some(self.contents_digest(workspace)?);
        }
        Ok(Some(noted))
    }

    /// Archives a file of whose name there is one, with which this is noted.
    pub(super) fn put_beside_noted(
        self,
        noted: Noted,
        workspace: &mut Workspace,
    ) -> Result<Put, Error> {
        if self.contents.map(Noted::Digest) == Some(noted) {
            self.must_hold_still()?;
            self.archive.run.follows(self.name);
            return Ok(Put::AlreadyStored);
        }
        let object = self.reopened()?;
        must_not_be_itself(self.archive, &self.key, &object, &self.source)?;
        self.put_beside(object, workspace)
    }

    fn contents_digest(&mut self, workspace: &mut Workspace) -> Result<[u8; 32], Error> {
        let chunk = workspace.parts().chunk;
        let mut digesting = Sha256::new();
        self.source.rewind()?;
        loop {
            self.cancel.check(&self.what())?;
            let bytes = self.source.fill(chunk)?;
            digesting.update(chunk.get(..bytes).unwrap_or_default());
            if bytes < chunk.len() {
                return Ok(digesting.finalize().into());
            }
        }
    }
}
