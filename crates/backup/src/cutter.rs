//! A tar file of any length is cut into parts, each a whole tar file and an object of its own.
//!
//! Guarantees that a part is cut between members only, that it has at most so many bytes unless a single member has more, and
//! that all parts of a file, one after the other, have its members as they came, byte for byte. Memory does not grow with the
//! file. An empty file is one part.

use archive::{Archive, Error, ErrorKind, PackedObject};

use crate::document::Part;
use crate::id::Id;
use crate::layout::TarName;
use crate::tar::{Member, TRAILER, Visitor};

/// The most parts of one tar file: what five digits number.
const PARTS_MAX: u32 = 99_999;

/// Writes the parts of one tar file.
pub(crate) struct Cutter<'a> {
    pub(crate) archive: &'a Archive,
    pub(crate) id: &'a Id,
    pub(crate) tar: TarName,
    /// The most bytes of a part, unless a single member has more.
    pub(crate) bytes_max: u64,
    pub(crate) cut: &'a mut Cut,
}

/// What has been cut so far.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    part: Option<PackedObject>,
    /// The number of the last part that was begun.
    number: u32,
    pub(crate) parts: Vec<Part>,
}

impl Cutter<'_> {
    fn part(&mut self) -> Result<&mut PackedObject, Error> {
        if self.cut.part.is_none() {
            self.cut.number += 1;
            if self.cut.number > PARTS_MAX {
                let what = format!(
                    "could not store backup {}: it has more than {PARTS_MAX} parts",
                    self.id
                );
                return Err(Error::new(ErrorKind::Unusable, what)
                    .with_hint("Raise \"walden.backup_part_size\"."));
            }
            let key = self.id.key(&self.tar.part(self.cut.number));
            self.cut.part = Some(self.archive.begin_packed(&key)?);
        }
        self.cut.part.as_mut().ok_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                "a part that was just begun is not there",
            )
        })
    }

    /// Ends the part that is being written.
    fn end_part(&mut self) -> Result<(), Error> {
        let Some(mut part) = self.cut.part.take() else {
            return Ok(());
        };
        part.add(&TRAILER)?;
        let packed = self.archive.finish_packed(part)?;
        self.cut.parts.push(Part {
            name: self.tar.part(self.cut.number),
            bytes: packed.bytes,
            stored_bytes: packed.stored_bytes,
            stored_digest: packed.stored_digest,
        });
        Ok(())
    }

    /// Ends the file.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        if self.cut.number == 0 {
            self.part()?;
        }
        self.end_part()
    }
}

impl Visitor for Cutter<'_> {
    fn member(&mut self, member: &Member, header: &[u8]) -> Result<(), Error> {
        let room = self.bytes_max.saturating_sub(TRAILER.len() as u64);
        let used = self.cut.part.as_ref().map_or(0, PackedObject::bytes);
        if used > 0 && used.saturating_add(member.bytes_in_tar()) > room {
            self.end_part()?;
        }
        self.part()?.add(header)
    }

    fn contents(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.part()?.add(bytes)
    }

    fn padding(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.part()?.add(bytes)
    }

    fn member_ends(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
