//! Archiving one file: check, compress, encrypt and publish in one pass, or find that it is there already.
//!
//! Guarantees: "stored" and "already stored" are answered only for bytes that survive a power cut, nothing
//! is ever overwritten, and of several writers with different bytes for one name at most one is told that
//! it succeeded.
//!
//! A file has one key, whatever its form, so creating it if it is absent decides between writers, whatever their settings
//! are. Where a look at the key costs next to nothing (directories) it comes first, to spare the work; else the store's
//! refusal tells. A file that is there is compared; the same bytes are made durable again before anything is acknowledged.

use std::io::{self, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use wal::{SegmentEnd, SegmentSummary, SystemIdentifier, WalFileName};

use crate::admin::claim::{Owner, claim};
use crate::archive::Archive;
use crate::archive::continuity;
use crate::base::digest::{ContentsDigest, Digest};
use crate::cancel::Cancel;
use crate::error::{Error, Mark};
use crate::format::check::Check;
use crate::format::codec::{CHUNK_BYTES, Contents, Encoder};
use crate::format::seal::Sealing;
use crate::format::workspace::{Parts, Workspace};
use crate::options::compression::Compression;
use crate::pg_wal::source::{Identity, Source};
use crate::store::key::key_of;
use crate::store::waist::{Glance, Object, Published, Staged};

mod ended;
mod equal;
mod note;
mod noted;
mod object;
mod predecessor;

pub use note::ENCRYPTED_KEY;
pub(crate) use noted::is_standby;
pub use object::PackedObject;
pub(crate) use predecessor::has_later;

const ANOTHER_SERVER: &str = "Another server has archived under the same system identifier: the one that this one is a copy \
     of, or that was restored without recovery.signal. Give this one an archive of its own, or restore it anew. If what is \
     stored is wrong, move it away.";

/// What became of a file offered to [`Archive::put_new`]. Each means: it is in the archive, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there by our doing.
    Stored {
        /// Size of the file in bytes.
        bytes_in: u64,
        /// Size of the object it became.
        bytes_out: u64,
    },
    /// It was there with the same bytes, and has been made durable again. Of a partial segment, and of a segment in which WAL
    /// ends, the records count.
    AlreadyStored,
    /// WAL ends inside this segment, where the server has left its timeline: its partial segment is there, by our doing or with
    /// the same records.
    AsPartial,
}

/// A file that is to be archived.
pub(crate) struct Offered<'a> {
    pub(crate) name: &'a WalFileName,
    pub(crate) path: &'a Path,
    /// The server's note that it still has to be archived, for files that the server has not asked for yet: without it
    /// the server may be doing something else with the file by now.
    pub(crate) ready: Option<&'a Path>,
    pub(crate) system: Option<SystemIdentifier>,
    /// Whether another server may be archiving it at this moment, which then goes first (`noted.rs`).
    pub(crate) has_primary: bool,
    /// Waits until it may be given its name; an error if it may not.
    pub(crate) turn: Option<&'a dyn Fn() -> Result<(), Error>>,
}

impl Archive {
    /// Stores a WAL file under its name, unless the archive has it already.
    ///
    /// `system` is the server's own system identifier when the caller knows it; it is needed for timeline and
    /// backup history files, which do not say whose they are. When this returns `Ok`, the server may recycle
    /// the source. Fails with
    /// * [`crate::ErrorKind::Conflict`]: other bytes are stored under this name, or bytes that cannot be
    ///   read; nothing was changed;
    /// * [`crate::ErrorKind::Foreign`]: the archive, or the file, belongs to another system, or the archive is one of segments of
    ///   another size; nothing was written;
    /// * [`crate::ErrorKind::Damaged`]: the source fails its checks;
    /// * [`crate::ErrorKind::Unusable`]: the source is not there, or not complete (WAL ends inside it), or is itself what is in
    ///   the archive, or whose it is cannot be told; or it would not be encrypted where all others are; or it cannot be told
    ///   whether an encrypted file that is there is the same;
    /// * [`crate::ErrorKind::Unavailable`], [`crate::ErrorKind::Cancelled`]: offer the file again.
    pub fn put_new(
        &self,
        name: &WalFileName,
        source: &Path,
        system: Option<SystemIdentifier>,
        cancel: &Cancel,
    ) -> Result<Put, Error> {
        let offered = Offered {
            name,
            path: source,
            ready: None,
            system,
            has_primary: false,
            turn: None,
        };
        let (put, _) = put_new(self, &offered, cancel, &mut Workspace::default())?;
        Ok(put)
    }

    /// What the caller should be told beside the outcome, each once: where it could not be told whether a server goes on
    /// where the archive ends.
    pub fn take_warnings(&self) -> Vec<String> {
        self.run.take_warnings()
    }
}

/// See [`Archive::put_new`]. Also tells which file it was that is archived now.
pub(crate) fn put_new(
    archive: &Archive,
    offered: &Offered<'_>,
    cancel: &Cancel,
    workspace: &mut Workspace,
) -> Result<(Put, Identity), Error> {
    let name = offered.name;
    let mut source = Source::open(offered.path)?;
    let key = key_of(name);
    let found = archive.store.glance(&key)?;
    if let Glance::Object(object) = &found {
        // Before anything is written, the binding included: it may be the server's own directory.
        must_not_be_itself(archive, &key, object, &source)?;
    }
    let owner = owner_of(archive, name, &mut source, offered.system)?;
    claim(archive, owner)?;
    let mut offer = Offer {
        archive,
        name,
        key,
        ready: offered.ready,
        turn: offered.turn,
        source,
        owner,
        cancel,
        contents: None,
    };
    let identity = offer.source.identity();
    archive.run.passes(name);
    note::must_be_as_noted(archive, &offer.source.shown)?;
    if let Glance::Object(object) = found {
        return Ok((offer.put_beside(object, workspace)?, identity));
    }
    if offered.has_primary
        && let Some(stored) = offer.stored_by_primary(workspace)?
    {
        return Ok((offer.put_beside_noted(stored, workspace)?, identity));
    }
    let put = match offer.create(workspace)? {
        Made::Stored {
            bytes_in,
            bytes_out,
        } => Put::Stored {
            bytes_in,
            bytes_out,
        },
        Made::Ended(summary) => offer.put_ended(&summary, workspace)?,
        Made::Exists => {
            archive.run.finds_another();
            let noted = offer.noted()?;
            offer.put_beside_noted(noted, workspace)?
        }
    };
    Ok((put, identity))
}

/// A file that is found under its own name in the archive because the archive is where it lies is no copy.
fn must_not_be_itself(
    archive: &Archive,
    key: &str,
    object: &Object,
    source: &Source,
) -> Result<(), Error> {
    if object.file != Some(source.identity().file()) {
        return Ok(());
    }
    Err(Error::unusable(format!(
        "archive file \"{}\" is {} itself, and not a copy of it",
        archive.shown(key),
        source.shown
    ))
    .with_hint(
        "An archive needs a directory of its own: the server removes from its WAL directory (pg_wal) what it takes for \
         archived.",
    ))
}

/// Whose file this is: as it says itself, else as the caller says.
fn owner_of(
    archive: &Archive,
    name: &WalFileName,
    source: &mut Source,
    system: Option<SystemIdentifier>,
) -> Result<Owner, Error> {
    let mut check = Check::new(name, archive.options.verify, system, source.shown.clone());
    let mut head = [0; wal::LONG_PAGE_HEADER_BYTES];
    let bytes = source.fill(&mut head)?;
    check.feed(head.get(..bytes).unwrap_or_default())?;
    // What can be known to be wrong now is found before anything is written, a binding included.
    if bytes < head.len() {
        check.finish()?;
    }
    check.size(source.bytes)?;
    source.rewind()?;
    let own = check.header().map(|header| header.system);
    let system = system.or(own).ok_or_else(|| {
        let message = format!("{} does not say which system it is from", source.shown);
        Error::unusable(message).with_hint("Name the data directory it is from (-D).")
    })?;
    Ok(Owner {
        system,
        segment_size: check.header().map(|header| header.segment_size),
    })
}

/// A file that was checked and stored, but has no name yet.
struct Encoded {
    staged: Box<dyn Staged>,
    /// How many bytes it became.
    bytes: u64,
    summary: Option<SegmentSummary>,
}

/// What came of storing a file.
enum Made {
    /// The file is stored; sizes in bytes.
    Stored { bytes_in: u64, bytes_out: u64 },
    /// Nothing: there is a file of its name.
    Exists,
    /// Nothing: WAL ends in this segment.
    Ended(SegmentSummary),
}

/// A file on its way into the archive.
struct Offer<'a> {
    archive: &'a Archive,
    name: &'a WalFileName,
    /// Under which it is stored.
    key: String,
    ready: Option<&'a Path>,
    turn: Option<&'a dyn Fn() -> Result<(), Error>>,
    source: Source,
    owner: Owner,
    cancel: &'a Cancel,
    /// The digest of its contents, once it has been made.
    contents: Option<ContentsDigest>,
}

impl Offer<'_> {
    /// What was found under the key is this file, durably; else a conflict.
    fn must_be_stored(&mut self, object: Object) -> Result<(), Error> {
        self.must_equal(object)?;
        self.must_hold_still()?;
        self.archive.store.settle(&self.key)?;
        // The same bytes are the best proof that it was this server that wrote what comes before.
        self.archive.run.follows(self.name);
        Ok(())
    }

    /// The object that stands in the way.
    fn reopened(&self) -> Result<Object, Error> {
        self.archive.store.open(&self.key)?.ok_or_else(|| {
            Error::unavailable(format!(
                "archive file \"{}\" disappeared while it was being compared",
                self.archive.shown(&self.key)
            ))
        })
    }

    /// Stores the file, unless there is one of its name, or WAL ends in it.
    fn create(&mut self, workspace: &mut Workspace) -> Result<Made, Error> {
        let options = &self.archive.options;
        let compression = match self.name {
            WalFileName::Segment(_) | WalFileName::Partial(_) => options.compression,
            // Small, and read by people.
            WalFileName::TimelineHistory(_) | WalFileName::BackupHistory { .. } => {
                Compression::None
            }
        };
        let digest = if options.recipients.is_empty() {
            None
        } else {
            self.digest(workspace.parts().chunk)?
        };
        self.source.rewind()?;
        let staged = self.archive.store.stage(&self.key)?;
        let Encoded {
            mut staged,
            bytes: bytes_out,
            summary,
        } = self.encode(compression, digest, staged, workspace)?;
        self.cancel.check(&self.what())?;
        if let Some(ended) = self.ends_inside(summary.as_ref())? {
            return Ok(Made::Ended(ended));
        }
        if let Some(turn) = self.turn {
            staged.prepare()?;
            turn()?;
        }
        self.must_follow(summary.as_ref())?;
        self.must_hold_still()?;
        if let Some(summary) = &summary {
            self.must_fit(summary)?;
        }
        match staged.publish()? {
            Published::Exists => Ok(Made::Exists),
            Published::Created => {
                if let Some(summary) = summary {
                    self.archive.continuity.remember(self.name, summary);
                }
                Ok(Made::Stored {
                    bytes_in: self.source.bytes,
                    bytes_out,
                })
            }
        }
    }

    /// The one pass over the file: checked, compressed and encrypted, chunk by chunk.
    fn encode(
        &mut self,
        compression: Compression,
        digest: Option<Digest>,
        staged: Box<dyn Staged>,
        workspace: &mut Workspace,
    ) -> Result<Encoded, Error> {
        let shown = self.archive.shown(&self.key);
        let could_not =
            |cause| Error::io(format!("could not write archive file \"{shown}\""), cause);
        let verify = self.archive.options.verify;
        let mut check = Check::new(
            self.name,
            verify,
            Some(self.owner.system),
            self.source.shown.clone(),
        )
        .of_server(self.archive.options.server_major);
        let counted = Counted {
            inner: staged,
            bytes: 0,
        };
        let Parts {
            chunk, compressor, ..
        } = workspace.parts();
        let sealing =
            Sealing::begin(&self.archive.options.recipients, digest, counted).map_err(could_not)?;
        let mut encoder =
            Encoder::new(compression, self.source.bytes, compressor, sealing).map_err(could_not)?;
        let mut digesting = self.wants_digest().then(Sha256::new);
        loop {
            self.cancel.check(&self.what())?;
            let bytes = self.source.fill(chunk)?;
            let now = chunk.get(..bytes).unwrap_or_default();
            check.feed(now)?;
            if let Some(digesting) = &mut digesting {
                digesting.update(now);
            }
            encoder.write_all(now).map_err(could_not)?;
            if bytes < CHUNK_BYTES {
                break;
            }
        }
        let summary = check.finish()?.summary;
        self.contents = digesting.map(|digesting| digesting.finalize().into());
        let mut counted = encoder
            .finish()
            .and_then(Sealing::finish)
            .map_err(could_not)?;
        if let Some(contents) = self.contents {
            counted.inner.note(contents);
        }
        Ok(Encoded {
            staged: counted.inner,
            bytes: counted.bytes,
            summary,
        })
    }

    /// Refuses a segment that does not go on where the one before it ends, or ends before the one behind it begins.
    fn must_fit(&self, summary: &SegmentSummary) -> Result<(), Error> {
        let shown = &self.source.shown;
        // A standby that archives what it receives hands a segment over when its timeline was left in the middle of it
        // (WalReceiverMain, 15 to 18). Nothing is ever written behind that one.
        if let (SegmentEnd::Ended(lsn), WalFileName::Segment(own)) = (summary.end(), self.name)
            && let Some(next) = own.next(summary.header.segment_size)
            && self.source.has_sibling(&next)
        {
            let there = format!("segment \"{next}\" is there");
            return Err(continuity::ends_early(shown, lsn, &there));
        }
        let directory = self.source.directory();
        self.archive.continuity.check(summary, directory, shown)
    }

    /// What has been read counts only if the file was all the time what its name says, and still to be archived.
    fn must_hold_still(&self) -> Result<(), Error> {
        self.source.must_hold_still()?;
        match self.ready {
            Some(ready) if !ready.exists() => {
                let what = format!("\"{}\" is no longer to be archived", self.name);
                Err(Error::unavailable(what).marked(Mark::NotReady))
            }
            _ => Ok(()),
        }
    }

    fn what(&self) -> String {
        format!("archiving of \"{}\"", self.name)
    }
}

/// A staged object that counts what is written to it.
struct Counted {
    inner: Box<dyn Staged>,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
