//! Archiving one file: check, compress, encrypt and publish in one pass, or find that it is there already.
//!
//! Guarantees: "stored" and "already stored" are answered only for bytes that survive a power cut, nothing
//! is ever overwritten, and of several writers with different bytes for one name at most one is told that
//! it succeeded.
//!
//! # Two writers, two settings, one name
//!
//! Create-if-absent is per key, and one file may be stored under six: raw, `.zst`, `.lz4`, and each of them encrypted.
//! So a writer that has just created its key looks at the others before it answers:
//!
//! * Each of two writers publishes first and looks afterwards, so at least one of them sees the other's
//!   object. If the bytes differ, whoever sees that withdraws its own object and reports a conflict. Both
//!   may; then nobody has been told "stored", and both are asked again. If the bytes are equal both
//!   objects stay; restoring accepts equal twins.
//! * An object can be withdrawn only while its creator holds the handle it was given for it, and as long
//!   as that lives nobody else can settle the object ([`crate::Fresh`]). A third writer that finds equal
//!   bytes there says "already stored" only after settling, that is only for objects that stay.
//! * Whoever settles has looked at the other keys before; a rival published after that look sees this object.
//!
//! # Stores without a way back
//!
//! In an object store what has been created stays. The order is the same, and so is who may acknowledge: nobody, while
//! different bytes are stored under another key of the name. Such objects then wait for a person; it takes two servers
//! with different settings and different WAL that meet within one request's time. Looking at the other keys is left out
//! where nobody can have used them (`forms.rs`).
//! # Equal to what cannot be read
//!
//! Whoever encrypts needs no key to decrypt, and must still know the same bytes from others. What an identity at hand
//! opens is compared byte by byte. Else the digest that the writer has put into the header decides, which only a server
//! of the same cluster can make (`secret.rs`); it is made in a pass of its own before the header is written. What a
//! digest does not show is damage of the stored bytes.
//!
//! What stays uncured: a writer that dies between publishing and looking may leave an object that nobody
//! was told of beside a different acknowledged one. Restoring then refuses to choose and names both.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use wal::{SegmentEnd, SegmentSummary, SystemIdentifier, WalFileName};

use crate::archive::{Archive, Put};
use crate::binding;
use crate::check::Check;
use crate::codec::{CHUNK_BYTES, Contents, Encoder};
use crate::compare::{Comparison, Side, compare, describe};
use crate::compression::{Compression, CompressionKind};
use crate::error::{Error, ErrorKind, Mark};
use crate::forms;
use crate::key::{self, Form, key_of};
use crate::neighbours;
use crate::options::Cancel;
use crate::seal::Sealing;
use crate::secret::Digest;
use crate::source::{Identity, Source};
use crate::store::{Fresh, Object, Published, Staged};
use crate::time::rfc3339;
use crate::workspace::{Parts, Workspace};

/// How long to wait for another writer to decide about an object: a second in all, a hundred times what the
/// decision takes. A writer that hangs longer is reported, and the file is offered again.
const SETTLE_PAUSE: Duration = Duration::from_millis(10);
const SETTLE_TRIES_MAX: u32 = 100;

const TWO_WRITERS: &str = "Two servers may be writing the same timeline into one archive. Nothing has been changed; find \
     out which file is right before moving one away.";

/// A file that somebody wants archived.
pub(crate) struct Offered<'a> {
    pub(crate) name: &'a WalFileName,
    pub(crate) path: &'a Path,
    /// The server's note that it still has to be archived, for files that nobody has asked for yet: without it
    /// the server may be doing something else with the file by now.
    pub(crate) ready: Option<&'a Path>,
    pub(crate) system: Option<SystemIdentifier>,
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
    let owner = owner_of(archive, name, &mut source, offered.system)?;
    binding::claim(archive, owner)?;
    let mut offer = Offer {
        archive,
        name,
        ready: offered.ready,
        source,
        owner,
        cancel,
    };
    let identity = offer.source.identity();
    // Where only one key can hold it and looking there costs as much as creating, creating is tried at once.
    if !forms::is_only_own(archive)? && offer.is_stored(None)? {
        return Ok((Put::AlreadyStored, identity));
    }
    match offer.create(workspace)? {
        Some(put) => Ok((put, identity)),
        None if offer.is_stored(None)? => Ok((Put::AlreadyStored, identity)),
        None => Err(Error::unavailable(format!(
            "archive file \"{name}\" was there and then was not: another process is at work"
        ))),
    }
}

/// Whose file this is: as it says itself, else as the caller says.
fn owner_of(
    archive: &Archive,
    name: &WalFileName,
    source: &mut Source,
    system: Option<SystemIdentifier>,
) -> Result<SystemIdentifier, Error> {
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
    system.or(own).ok_or_else(|| {
        let message = format!("{} does not say which system it is from", source.shown);
        Error::unusable(message).with_hint("Name the data directory it is from (-D).")
    })
}

/// A file that was checked and stored, but has no name yet.
struct Encoded {
    staged: Box<dyn Staged>,
    /// How many bytes it became.
    bytes: u64,
    summary: Option<SegmentSummary>,
}

/// A file on its way into the archive.
struct Offer<'a> {
    archive: &'a Archive,
    name: &'a WalFileName,
    ready: Option<&'a Path>,
    source: Source,
    owner: SystemIdentifier,
    cancel: &'a Cancel,
}

impl Offer<'_> {
    /// Looks for the file under every suffix except `own`. Without `own`, what is found equal is also
    /// settled.
    ///
    /// True if it is there with equal bytes; a conflict if it is there with others, or cannot be understood.
    fn is_stored(&mut self, own: Option<Form>) -> Result<bool, Error> {
        let mut equal = Vec::new();
        for form in key::candidates(self.archive, self.name)? {
            if Some(form) == own {
                continue;
            }
            let key = key_of(self.name, form);
            if let Some(object) = self.archive.store.open(&key)? {
                self.must_equal(&key, form, object)?;
                equal.push(key);
            }
        }
        if own.is_none() && !equal.is_empty() {
            self.must_hold_still()?;
            for key in &equal {
                self.settle(key)?;
            }
        }
        Ok(!equal.is_empty())
    }

    /// Makes a stored object durable again, waiting a little for its creator to decide: it has only a look
    /// at two keys left to do. On a shared archive (`archive_mode = always`) this meeting is common.
    fn settle(&self, key: &str) -> Result<(), Error> {
        let mut tries = 1;
        loop {
            match self.archive.store.settle(key) {
                Err(error) if error.mark() == Some(Mark::Busy) && tries < SETTLE_TRIES_MAX => {
                    self.cancel.wait(SETTLE_PAUSE);
                    self.cancel.check(&self.what())?;
                    tries += 1;
                }
                settled => return settled,
            }
        }
    }

    /// A conflict unless the stored object holds the source's bytes.
    fn must_equal(&mut self, key: &str, form: Form, object: Object) -> Result<(), Error> {
        let shown = self.archive.shown(key);
        let modified = object.modified;
        let what = self.what();
        self.source.rewind()?;
        let comparison = match self.archive.decode(object, key, form) {
            Ok(mut stored) => compare(&mut stored, &mut self.source, self.cancel, &what),
            Err(error) => match error.mark() {
                Some(Mark::Locked(noted)) => {
                    return self.must_have_digest(noted, error, &shown, modified);
                }
                _ => Err(Side::Left(error)),
            },
        };
        match comparison {
            Ok(Comparison::Equal) => Ok(()),
            Ok(Comparison::Differ { at, left, right }) => {
                self.must_hold_still()?;
                Err(Error::conflict(format!(
                    "archive file \"{shown}\" already exists with different contents: \
                     stored is {}; {} is {}; first difference at byte {at}",
                    describe(&left, modified),
                    self.source.shown,
                    describe(&right, self.source.modified)
                ))
                .with_hint(TWO_WRITERS))
            }
            Err(Side::Left(error)) if error.kind() == ErrorKind::Damaged => Err(Error::conflict(
                format!("{error}; it already exists and is never overwritten"),
            )
            .with_hint(format!(
                "Move \"{shown}\" away by hand; the file will then be archived again."
            ))),
            Err(Side::Left(error) | Side::Right(error) | Side::Neither(error)) => Err(error),
        }
    }

    /// The same for a stored object that cannot be opened, for which `locked` gives the reason: by its digest.
    fn must_have_digest(
        &mut self,
        noted: Option<Digest>,
        locked: Error,
        shown: &str,
        modified: SystemTime,
    ) -> Result<(), Error> {
        let could_not = |why: &str| Error::new(locked.kind(), format!("{locked}; {why}"));
        let hint = locked.hint().unwrap_or_default();
        let Some(noted) = noted else {
            return Err(could_not("nor does it hold a digest to compare").with_hint(hint));
        };
        let mut chunk = vec![0; CHUNK_BYTES];
        match self.digest(&mut chunk)? {
            Some(ours) if ours == noted => Ok(()),
            Some(ours) if ours.secret == noted.secret => {
                self.must_hold_still()?;
                Err(Error::conflict(format!(
                    "archive file \"{shown}\" already exists with different contents: its digest, written {}, is not \
                     that of {}",
                    rfc3339(modified),
                    self.source.shown
                ))
                .with_hint(TWO_WRITERS))
            }
            Some(_) => Err(could_not("and its digest was made by another cluster").with_hint(hint)),
            None => Err(
                could_not("and to compare digests takes the cluster's secret").with_hint(format!(
                    "Name the data directory that the file is from (-D), or give the identity. {hint}"
                )),
            ),
        }
    }

    /// The digest of the file's contents; `None` without the cluster's secret.
    fn digest(&mut self, chunk: &mut [u8]) -> Result<Option<Digest>, Error> {
        let Some(secret) = &self.archive.secret else {
            return Ok(None);
        };
        let mut digesting = secret.digesting(self.name)?;
        self.source.rewind()?;
        loop {
            self.cancel.check(&self.what())?;
            let bytes = self.source.fill(chunk)?;
            digesting.feed(chunk.get(..bytes).unwrap_or_default());
            if bytes < chunk.len() {
                return Ok(Some(digesting.finish()));
            }
        }
    }

    /// Stores the file under a new key. `None` if somebody else has the key by now.
    fn create(&mut self, workspace: &mut Workspace) -> Result<Option<Put>, Error> {
        let form = self.archive.options.form().for_file(self.name);
        let compression = match form.compression {
            CompressionKind::None => Compression::None,
            _ => self.archive.options.compression,
        };
        forms::use_own(self.archive)?;
        let digest = match form.sealed {
            true => self.digest(workspace.parts().chunk)?,
            false => None,
        };
        let key = key_of(self.name, form);
        self.source.rewind()?;
        let staged = self.archive.store.stage(&key)?;
        let Encoded {
            staged,
            bytes: bytes_out,
            summary,
        } = self.encode(compression, digest, staged, &key, workspace)?;
        self.cancel.check(&self.what())?;
        self.must_hold_still()?;
        if let Some(summary) = &summary {
            self.must_fit(summary)?;
        }
        match staged.publish()? {
            Published::Exists => Ok(None),
            Published::Created(fresh) => {
                match fresh {
                    Some(fresh) => self.decide(form, fresh)?,
                    None => self.look_for_others(form)?,
                }
                if let Some(summary) = summary {
                    self.archive.neighbours.remember(self.name, summary);
                }
                Ok(Some(Put::Stored {
                    bytes_in: self.source.bytes,
                    bytes_out,
                }))
            }
        }
    }

    /// The one pass over the file: checked, compressed and encrypted, chunk by chunk.
    fn encode(
        &mut self,
        compression: Compression,
        digest: Option<Digest>,
        staged: Box<dyn Staged>,
        key: &str,
        workspace: &mut Workspace,
    ) -> Result<Encoded, Error> {
        let shown = self.archive.shown(key);
        let could_not =
            |cause| Error::io(format!("could not write archive file \"{shown}\""), cause);
        let verify = self.archive.options.verify;
        let mut check = Check::new(
            self.name,
            verify,
            Some(self.owner),
            self.source.shown.clone(),
        );
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
        loop {
            self.cancel.check(&self.what())?;
            let bytes = self.source.fill(chunk)?;
            let now = chunk.get(..bytes).unwrap_or_default();
            check.feed(now)?;
            encoder.write_all(now).map_err(could_not)?;
            if bytes < CHUNK_BYTES {
                break;
            }
        }
        let summary = check.finish()?.summary;
        let counted = encoder
            .finish()
            .and_then(Sealing::finish)
            .map_err(could_not)?;
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
            return Err(neighbours::ends_early(shown, lsn, &there));
        }
        let directory = self.source.directory();
        self.archive.neighbours.check(summary, directory, shown)
    }

    /// Keeps the object just created, or takes it back; the argument is in this file's header.
    fn decide(&mut self, own: Form, fresh: Box<dyn Fresh>) -> Result<(), Error> {
        let Err(error) = self.is_stored(Some(own)) else {
            drop(fresh);
            return Ok(());
        };
        // Also when the look itself failed: an object whose rivals are not known is not acknowledged, and
        // kept unacknowledged it could one day stand beside a different, acknowledged one.
        match fresh.withdraw() {
            Ok(()) => Err(error),
            Err(stuck) => {
                let kind = error.kind();
                Err(Error::new(
                    kind,
                    format!("{error}; and our own copy stays beside it: {stuck}"),
                ))
            }
        }
    }

    /// Whether what has just been created, and stays, stands alone or beside the same bytes.
    fn look_for_others(&mut self, own: Form) -> Result<(), Error> {
        if forms::is_only_own(self.archive)? {
            return Ok(());
        }
        match self.is_stored(Some(own)) {
            Err(error) if error.kind() == ErrorKind::Conflict => Err(Error::conflict(format!(
                "{error}; and our own copy stays beside it as \"{}\"",
                self.archive.shown(&key_of(self.name, own))
            ))
            .with_hint("Nobody has been told that either is archived. Find out which file is right and move the other away.")),
            looked => looked.map(drop),
        }
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
