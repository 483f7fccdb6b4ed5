//! Reading the records of a segment as its bytes come past.
//!
//! Guarantees that every byte between a segment's beginning and the end of its WAL is accounted for: page headers, records by
//! their checksums and by their chain, the padding between them; but for the flag `XLP_BKP_REMOVABLE` of 15 to 18, which
//! nothing depends on. Memory is bounded, whatever the bytes say: a page, and a part of one record. Nothing is allocated for a
//! record within a page. Opening and decoding files is left to the caller; that one segment follows another, to
//! [`SegmentSummary`].
//!
//! A reader does not know beforehand where WAL ends. When something is no record, it is damage if there is a sign that
//! a record was there (`evidence`), or if any later page of the segment belongs to its place; otherwise WAL ends there.

mod evidence;
mod head;
mod open;
mod page;
mod summary;
mod timelines;
mod walk;

pub use summary::{SegmentEnd, SegmentSummary};

use crate::damage::Damage;
use crate::{HeaderError, LONG_PAGE_HEADER_BYTES, LongPageHeader, Record, SegmentName};
use walk::Walk;

/// A segment being read.
#[derive(Debug)]
pub struct SegmentReader {
    name: SegmentName,
    /// A page of which not all bytes are here; until the first header is known, its bytes.
    page: Vec<u8>,
    walk: Option<Walk>,
    failure: Option<ReadError>,
}

/// Why a segment cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Its first page is not that of the named segment.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Something in it is not what was written.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// It is not as long as its header says.
    #[error("it has {bytes} bytes instead of {expected}")]
    Length {
        /// Segment size in bytes.
        bytes: u64,
        /// How long it should be.
        expected: u64,
    },
}

impl SegmentReader {
    /// A reader for the segment, or partial segment, of this name.
    #[must_use]
    pub fn new(name: SegmentName) -> SegmentReader {
        SegmentReader {
            name,
            page: Vec::new(),
            walk: None,
            failure: None,
        }
    }

    /// The next bytes of the segment; `visit` is shown each record that ends in them. Pieces of any length will do; those that
    /// are whole pages are not copied.
    ///
    /// # Errors
    /// When damage is found; the same again from then on.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut visit: impl FnMut(&Record<'_>),
    ) -> Result<(), ReadError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let fed = self.feed_on(bytes, &mut visit);
        if let Err(failure) = &fed {
            self.failure = Some(failure.clone());
        }
        fed
    }

    fn feed_on(
        &mut self,
        mut bytes: &[u8],
        visit: &mut impl FnMut(&Record<'_>),
    ) -> Result<(), ReadError> {
        while !bytes.is_empty() {
            let Some(walk) = &mut self.walk else {
                bytes = self.fill(bytes, LONG_PAGE_HEADER_BYTES);
                if self.page.len() == LONG_PAGE_HEADER_BYTES {
                    let header = LongPageHeader::parse(&self.page)?;
                    header.check_name(&self.name)?;
                    self.walk = Some(Walk::new(self.name, header));
                }
                continue;
            };
            let page_bytes = walk.header.block_size as usize;
            if self.page.is_empty()
                && let Some((page, rest)) = bytes.split_at_checked(page_bytes)
            {
                walk.page(page, visit)?;
                bytes = rest;
                continue;
            }
            bytes = self.fill(bytes, page_bytes);
            if self.page.len() == page_bytes
                && let Some(walk) = &mut self.walk
            {
                walk.page(&self.page, visit)?;
                self.page.clear();
            }
        }
        Ok(())
    }

    /// Moves bytes to the page until it has `count`; returns those that are left.
    fn fill<'b>(&mut self, bytes: &'b [u8], count: usize) -> &'b [u8] {
        let wanted = count.saturating_sub(self.page.len()).min(bytes.len());
        let (taken, rest) = bytes.split_at(wanted);
        self.page.extend_from_slice(taken);
        rest
    }

    /// The end of the segment.
    ///
    /// # Errors
    /// When it is too short or too long, and as [`SegmentReader::feed`].
    pub fn finish(self) -> Result<SegmentSummary, ReadError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        match self.walk {
            Some(walk) => walk.finish(self.page.len() as u64),
            // Says how short it is.
            None => match LongPageHeader::parse(&self.page) {
                Ok(header) => Err(ReadError::Length {
                    bytes: LONG_PAGE_HEADER_BYTES as u64,
                    expected: header.segment_size.bytes(),
                }),
                Err(short) => Err(short.into()),
            },
        }
    }
}
