//! Does the first segment of a run go on where the archive ends? What was archived before it decides.
//!
//! Two servers that were one (a backup put back without `recovery.signal`, a copy of a data directory) have one system
//! identifier and one timeline, and their segments different contents. Where both have archived a name, comparing tells. Where
//! only the other one has, nothing would: the archive would then hold the one's segments behind the other's. So the segment
//! before is looked at, once for each timeline in an archiver's life; what follows is compared with what passed by before. Where
//! that one never passed by, the stored one is looked at again: after a crash the server may have no note of a segment
//! (XLogArchiveNotifySeg comes behind the flush; XLogArchiveCheckDone makes up for it at a checkpoint, 15 to 18), and goes on
//! behind it.
//!
//! Guarantees refusal only on proof: the segment before lies in `pg_wal`, whole, and is not what is stored; or the two do not
//! join. What is missing, damaged, or cannot be read is told to the caller, and the file is archived.

use std::ops::ControlFlow;
use std::path::Path;

use wal::{LongPageHeader, Lsn, SegmentEnd, SegmentName, SegmentSummary, WalFileName};

use super::{ANOTHER_SERVER, Offer};
use crate::archive::Archive;
use crate::archive::continuity;
use crate::base::digest::Digest;
use crate::error::{Error, ErrorKind, Mark};
use crate::format::codec::{CHUNK_BYTES, Contents};
use crate::format::compare::compare_wal;
use crate::pg_wal::folder::{history_in, summary_of};
use crate::pg_wal::source::Source;
use crate::store::key::{key_of, parse_key};
use crate::store::waist::{Detail, Object};

/// What is known of the stored segment before.
enum Known {
    /// It is what was written before this one.
    Same,
    /// Nothing, for this reason.
    Nothing(String),
}

impl Offer<'_> {
    /// Refuses a segment whose predecessor is another server's. `summary` is of what is offered, where its records were read.
    pub(super) fn must_follow(&mut self, summary: Option<&SegmentSummary>) -> Result<(), Error> {
        let (WalFileName::Segment(own) | WalFileName::Partial(own)) = *self.name else {
            return Ok(());
        };
        let begins = !self.archive.run.has_followed(own.timeline());
        let previous = self.owner.segment_size.and_then(|size| own.previous(size));
        let has_passed = |previous: SegmentName| self.archive.run.has_passed(&previous);
        if !begins && previous.is_none_or(has_passed) {
            return Ok(());
        }
        let own = match summary {
            Some(summary) => Some(summary.clone()),
            None => self.read_records(own)?,
        };
        // Another major's records, or none at all with verification off: nothing can be told.
        if let Some(own) = own
            && let Some(before) = before(&own, self.source.directory())
        {
            match self.known(&before, &own, begins)? {
                Known::Same => {}
                // Not stored yet, most likely.
                Known::Nothing(_) if !begins => {}
                Known::Nothing(why) => self.archive.run.warn(format!(
                    "could not tell whether file \"{}\" goes on where archive file \"{}\" ends: {why}",
                    self.name,
                    self.archive.shown(&before.to_string())
                )),
            }
        }
        self.archive.run.follows(self.name);
        Ok(())
    }

    /// `begins`: nothing of the timeline has been seen to follow what is stored.
    fn known(
        &mut self,
        before: &SegmentName,
        own: &SegmentSummary,
        begins: bool,
    ) -> Result<Known, Error> {
        // As initdb and pg_resetwal begin WAL.
        if own.first.is_some_and(|(_, previous)| previous == Lsn(0)) {
            return if has_older(self.archive, &own.name)? {
                Ok(Known::Nothing(
                    "it follows nothing, as after pg_resetwal".to_owned(),
                ))
            } else {
                Ok(Known::Same)
            };
        }
        let key = key_of(&WalFileName::Segment(*before));
        let Some(object) = self.archive.store.open(&key)? else {
            return if begins && has_older(self.archive, before)? {
                Ok(Known::Nothing("that is missing".to_owned()))
            } else {
                // The archive begins here.
                Ok(Known::Same)
            };
        };
        let there = self
            .source
            .directory()
            .filter(|directory| continuity::whole_in(directory, before, own).is_some())
            .map(|directory| directory.join(before.to_string()));
        let compared = match &there {
            Some(path) => self.compared(before, object, path),
            None => self.joined(before, object, own),
        };
        match compared {
            Err(error) if error.kind() == ErrorKind::Damaged || error.is_packed() => {
                Ok(Known::Nothing(error.to_string()))
            }
            Err(error) => match (error.mark(), &there) {
                (Some(Mark::Locked(Some(noted))), Some(path)) => {
                    self.by_digest(before, noted, path, &error)
                }
                (Some(Mark::Locked(_)), _) => Ok(Known::Nothing(error.to_string())),
                _ => Err(error),
            },
            known => known,
        }
    }

    /// By the bytes of the file that lies in `pg_wal`.
    fn compared(&self, before: &SegmentName, object: Object, path: &Path) -> Result<Known, Error> {
        let mut stored = self.archive.decode(object, &before.to_string())?;
        let mut there = Source::open(path)?;
        let check = || self.cancel.check(&self.what());
        let compared = compare_wal(*before, &mut stored, &mut there, check)?;
        if compared.differ.is_none() {
            return Ok(Known::Same);
        }
        there.must_hold_still()?;
        // A stored one that is damaged, or was cut at a timeline's end, is no other server's for that.
        let is_whole = compared.stored.is_some_and(|summary| !summary.is_cut());
        if is_whole {
            Err(self.another(before, &format!("it is not file \"{}\"", path.display())))
        } else {
            Ok(Known::Nothing("it is not whole".to_owned()))
        }
    }

    /// By how the two join: weaker, since records of equal lengths may follow one another by chance.
    fn joined(
        &self,
        before: &SegmentName,
        object: Object,
        own: &SegmentSummary,
    ) -> Result<Known, Error> {
        let mut stored = self.archive.decode(object, &before.to_string())?;
        let Some(summary) = read(&mut stored, *before, || self.cancel.check(&self.what()))? else {
            return Ok(Known::Nothing("it is not valid".to_owned()));
        };
        if let SegmentEnd::Ended(lsn) = summary.end() {
            return Ok(Known::Nothing(format!("WAL ends in it at {lsn}")));
        }
        match summary.join(&mut own.clone(), |_| ()) {
            Ok(()) => Ok(Known::Same),
            Err(damage) => Err(self.another(before, &damage.to_string())),
        }
    }

    /// By the digest of a stored one that cannot be opened.
    fn by_digest(
        &self,
        before: &SegmentName,
        noted: Digest,
        path: &Path,
        locked: &Error,
    ) -> Result<Known, Error> {
        let Some(secret) = &self.archive.secret else {
            return Ok(Known::Nothing(locked.to_string()));
        };
        let mut digesting = secret.digesting(&WalFileName::Segment(*before))?;
        let mut there = Source::open(path)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            self.cancel.check(&self.what())?;
            let bytes = there.fill(&mut chunk)?;
            digesting.feed(chunk.get(..bytes).unwrap_or_default());
            if bytes < chunk.len() {
                break;
            }
        }
        there.must_hold_still()?;
        let ours = digesting.finish();
        match (ours == noted, ours.secret == noted.secret) {
            (true, _) => Ok(Known::Same),
            (false, true) => Err(self.another(
                before,
                &format!("its digest is not that of file \"{}\"", path.display()),
            )),
            (false, false) => Ok(Known::Nothing(locked.to_string())),
        }
    }

    fn another(&self, before: &SegmentName, why: &str) -> Error {
        Error::conflict(format!(
            "{} does not follow archive file \"{}\": {why}",
            self.source.shown,
            self.archive.shown(&before.to_string())
        ))
        .with_hint(ANOTHER_SERVER)
    }

    /// What the file's records say; `None` if they are not right, or of a version that is not known.
    pub(super) fn read_records(
        &mut self,
        own: SegmentName,
    ) -> Result<Option<SegmentSummary>, Error> {
        self.source.rewind()?;
        let (cancel, what) = (self.cancel, self.what());
        read(&mut self.source, own, || cancel.check(&what))
    }
}

/// What the records of a segment say; `None` if they are not right, or of a version that is not known.
fn read(
    contents: &mut dyn Contents,
    name: SegmentName,
    check: impl Fn() -> Result<(), Error>,
) -> Result<Option<SegmentSummary>, Error> {
    let summary = summary_of(contents, name, check)?;
    Ok(summary.filter(|summary| summary.header.magic.major().is_some()))
}

/// The segment before: on the same timeline, or where that begins in this segment, on the one that it left.
fn before(own: &SegmentSummary, directory: Option<&Path>) -> Option<SegmentName> {
    let LongPageHeader {
        timeline,
        segment_size,
        ..
    } = own.header;
    let before = own.name.previous(segment_size)?;
    if timeline != own.name.timeline() {
        return Some(before.with_timeline(timeline));
    }
    // One that begins at the boundary has no page of the other. Its history says so.
    let parent = directory
        .and_then(|directory| history_in(directory, own.name.timeline()))
        .filter(|history| {
            let begins = history.begins().map(|begins| begins.segment(segment_size));
            begins.is_some() && begins == own.name.number(segment_size)
        })
        .and_then(|history| history.entries().last().map(|entry| entry.timeline));
    Some(match parent {
        Some(parent) => before.with_timeline(parent),
        None => before,
    })
}

/// Whether the archive holds WAL of the timeline behind this segment: then another has written it, or this process before it was
/// started anew. Not a question for files that are no segments.
pub(crate) fn has_later(archive: &Archive, name: &WalFileName) -> Result<bool, Error> {
    let (WalFileName::Segment(own) | WalFileName::Partial(own)) = name else {
        return Ok(false);
    };
    let mut has_later = false;
    let prefix = format!("{:08X}", own.timeline().get());
    archive
        .store
        .list_after(&prefix, &own.to_string(), Detail::Keys, &mut |entry| {
            has_later = match parse_key(&entry.key) {
                Some(WalFileName::Segment(found) | WalFileName::Partial(found)) => found > *own,
                _ => false,
            };
            if has_later {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
    Ok(has_later)
}

/// Whether the archive holds segments of the timeline from before this one.
fn has_older(archive: &Archive, segment: &SegmentName) -> Result<bool, Error> {
    let mut has_older = false;
    let prefix = format!("{:08X}", segment.timeline().get());
    archive.store.list(&prefix, Detail::Keys, &mut |entry| {
        if let Some(WalFileName::Segment(found)) = parse_key(&entry.key) {
            has_older |= found < *segment;
            if has_older || archive.store.lists_in_order() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(has_older)
}
