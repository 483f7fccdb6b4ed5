//! Whether what is stored under a file's name is that file.
//!
//! Guarantees that "equal" is said only of the same bytes, or, of segments in which WAL ends, the same records; anything else is
//! a conflict that says what both sides are, and nothing is changed.
//!
//! An archiver that encrypts needs no key to decrypt, and must still tell the same bytes from others. What an identity at hand
//! opens is compared byte by byte. Else the digest that the writer has put into the header decides, which only a server
//! of the same cluster can make (`secret.rs`); it is made in a pass of its own before the header is written. What a
//! digest does not show is damage of the stored bytes.

use std::time::SystemTime;

use wal::WalFileName;

use super::Offer;
use crate::base::digest::Digest;
use crate::base::time::rfc3339;
use crate::error::{Error, ErrorKind, Mark};
use crate::format::codec::{CHUNK_BYTES, Contents};
use crate::format::compare::{Comparison, Side, compare, describe};
use crate::store::waist::Object;

const TWO_WRITERS: &str = "Two servers may be writing the same timeline into one archive. Nothing has been changed; find \
     out which file is right before moving one away.";

impl Offer<'_> {
    /// A conflict unless the stored object holds the source's bytes, or of one in which WAL ends its records.
    pub(super) fn must_equal(&mut self, object: Object) -> Result<(), Error> {
        let shown = self.archive.shown(&self.key);
        let modified = object.modified;
        let what = self.what();
        self.source.rewind()?;
        let comparison = match self.archive.decode(object, &self.key) {
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
                if self.agrees_with_stored()? {
                    return Ok(());
                }
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
            Err(Side::Left(error))
                if error.kind() == ErrorKind::Damaged || error.mark() == Some(Mark::Packed) =>
            {
                let what = format!("{error}; it already exists and is never overwritten");
                Err(Error::conflict(what).with_hint(format!(
                    "Move \"{shown}\" away by hand; the file will then be archived again."
                )))
            }
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
        let could_not = |why: &str| {
            Error::new(locked.kind(), format!("{locked}; {why}")).marked(Mark::CannotCompare)
        };
        let hint = locked.hint().unwrap_or_default();
        let Some(noted) = noted else {
            return Err(could_not("nor does it hold a digest to compare").with_hint(hint));
        };
        let mut chunk = vec![0; CHUNK_BYTES];
        match self.digest(&mut chunk)? {
            Some(ours) if ours == noted => Ok(()),
            Some(ours) if ours.secret == noted.secret => {
                self.must_hold_still()?;
                if self.ends_inside(None)?.is_some() || self.is_cut_partial()? {
                    let why = "and only the records of the two could be compared, since WAL ends inside them";
                    return Err(could_not(why).with_hint(hint));
                }
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
                could_not("and comparing digests needs the cluster's secret").with_hint(format!(
                    "Name the data directory that the file is from (-D), or give the identity. {hint}"
                )),
            ),
        }
    }

    /// The digest of the file's contents, of a partial segment up to the end of its WAL; `None` without the cluster's secret.
    pub(super) fn digest(&mut self, chunk: &mut [u8]) -> Result<Option<Digest>, Error> {
        let Some(secret) = &self.archive.secret else {
            return Ok(None);
        };
        let mut digesting = secret.digesting(self.name)?;
        let mut left = match self.name {
            WalFileName::Partial(own) => self
                .read_records(*own)?
                .as_ref()
                .map(super::ended::wal_bytes),
            _ => None,
        };
        self.source.rewind()?;
        loop {
            self.cancel.check(&self.what())?;
            let bytes = self.source.fill(chunk)?;
            let counts = left.map_or(bytes, |left| {
                bytes.min(usize::try_from(left).unwrap_or(bytes))
            });
            digesting.feed(chunk.get(..counts).unwrap_or_default());
            left = left.map(|left| left - counts as u64);
            if bytes < chunk.len() {
                return Ok(Some(digesting.finish()));
            }
        }
    }
}
