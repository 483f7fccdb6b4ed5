//! What is checked of a WAL file's contents while they stream past, the same on the way in and on the way
//! out.
//!
//! Guarantees, with [`Verify::Header`]: a segment or partial segment begins with a long page header of the
//! named segment and the expected system, and is exactly as long as that header says; a timeline history
//! file parses. With [`Verify::Records`] every record up to the end of WAL is right, too. In any case, [`Verify::Off`]
//! included, no file is empty, and a segment has the size of a segment: that of its header, of the archive, or at least one
//! that a server can have. How a segment fits those beside it is left to `archive/continuity.rs`.

use wal::{
    LONG_PAGE_HEADER_BYTES, LongPageHeader, ReadError, SegmentReader, SegmentSize, SegmentSummary,
    SystemIdentifier, TimelineHistory, WalFileName, WalMagic,
};

use crate::error::Error;
use crate::options::Verify;

/// The longest timeline or backup history file believed, in bytes. Real ones have a line per ancestor.
pub(crate) const HISTORY_BYTES_MAX: u64 = 1024 * 1024;

const UNKNOWN_FORMAT: &str = "Install a release of Walden that knows it. With \"walden.verify\" set to \"header\" \
     such segments are archived and restored without a look at their records.";

/// A check in progress.
pub(crate) struct Check<'a> {
    name: &'a WalFileName,
    verify: Verify,
    system: Option<SystemIdentifier>,
    /// How long the archive's segments are, if that is known.
    size: Option<SegmentSize>,
    /// The file as messages name it: `file "pg_wal/…"`, `archive file "…"`.
    pub(crate) shown: String,
    head: Vec<u8>,
    header: Option<LongPageHeader>,
    records: Option<SegmentReader>,
    bytes: u64,
    /// The server's major version, one that is known.
    server_major: Option<u32>,
}

/// What was checked, and found right.
pub(crate) struct Checked {
    /// Size of the file in bytes.
    pub(crate) bytes: u64,
    /// What its records say of it, where they were read.
    pub(crate) summary: Option<SegmentSummary>,
}

impl<'a> Check<'a> {
    /// `system` is whose WAL this must be, if that is known.
    pub(crate) fn new(
        name: &'a WalFileName,
        verify: Verify,
        system: Option<SystemIdentifier>,
        shown: String,
    ) -> Check<'a> {
        Check {
            name,
            verify,
            system,
            size: None,
            shown,
            head: Vec::new(),
            header: None,
            records: None,
            bytes: 0,
            server_major: None,
        }
    }

    /// The same where it is known how long the archive's segments are, for one whose header cannot be read.
    pub(crate) fn of_size(self, size: Option<SegmentSize>) -> Check<'a> {
        Check { size, ..self }
    }

    /// The same where the major version of the server whose WAL this is can be told.
    pub(crate) fn of_server(self, major: Option<u32>) -> Check<'a> {
        Check {
            server_major: major.filter(|major| WalMagic::knows(*major)),
            ..self
        }
    }

    /// The next bytes of the file. Fails as soon as they are known to be wrong.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.longest() {
            return Err(self.damaged(&format!("it is longer than {} bytes", self.longest())));
        }
        let room = self.head_bytes_max().saturating_sub(self.head.len());
        self.head
            .extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        if !self.is_segment() {
            return Ok(());
        }
        if self.header.is_some() {
            return self.read_records(bytes);
        }
        if self.head.len() >= LONG_PAGE_HEADER_BYTES {
            self.read_header()?;
        }
        if self.header.is_some() {
            let head = std::mem::take(&mut self.head);
            self.read_records(&head)?;
            let rest = bytes.get(room.min(bytes.len())..).unwrap_or_default();
            self.read_records(rest)?;
        }
        Ok(())
    }

    /// The end of the file.
    pub(crate) fn finish(&mut self) -> Result<Checked, Error> {
        let bytes = self.size_at_end()?;
        let summary = match self.records.take().map(SegmentReader::finish) {
            Some(Err(cause)) if self.believes(&cause) => {
                return Err(self.damaged(&cause.to_string()));
            }
            // What is known of records of another format is nothing.
            Some(Ok(summary)) if summary.header.magic.major().is_some() => Some(summary),
            _ => None,
        };
        self.must_be_of_a_known_format()?;
        Ok(Checked { bytes, summary })
    }

    /// A server of a known major version writes WAL that can be read; if not, what the setting promises cannot be kept, and
    /// nothing is wrong with the file. Asked last: a wrong magic number of the first page alone is damage.
    fn must_be_of_a_known_format(&self) -> Result<(), Error> {
        let (Some(major), Some(header), Verify::Records) =
            (self.server_major, &self.header, self.verify)
        else {
            return Ok(());
        };
        if !self.is_segment() || header.magic.major().is_some() {
            return Ok(());
        }
        let why = format!(
            "{} cannot be checked: its pages have magic number {}, which is not known as one of PostgreSQL {major}",
            self.shown, header.magic
        );
        Err(Error::unusable(why).with_hint(UNKNOWN_FORMAT))
    }

    fn size_at_end(&self) -> Result<u64, Error> {
        if self.bytes == 0 {
            return Err(self.damaged("it is empty"));
        }
        match (self.name, &self.header) {
            (WalFileName::Segment(_) | WalFileName::Partial(_), None)
                if self.verify == Verify::Off =>
            {
                self.size(self.bytes)?;
                Ok(self.bytes)
            }
            (WalFileName::Segment(_) | WalFileName::Partial(_), None) => {
                Err(self.damaged(&format!("it has only {} bytes", self.bytes)))
            }
            (WalFileName::Segment(_) | WalFileName::Partial(_), Some(_)) => {
                self.size(self.bytes)?;
                Ok(self.bytes)
            }
            (WalFileName::TimelineHistory(_), _) if self.verify == Verify::Off => Ok(self.bytes),
            (WalFileName::TimelineHistory(timeline), _) => {
                TimelineHistory::parse(*timeline, &self.head)
                    .map_err(|cause| self.damaged(&cause.to_string()))?;
                Ok(self.bytes)
            }
            (WalFileName::BackupHistory { .. }, _) => Ok(self.bytes),
        }
    }

    /// Whether a file of this size can be right, once its header is known.
    pub(crate) fn size(&self, bytes: u64) -> Result<(), Error> {
        let cut = "A copy may have been interrupted, or may still be running.";
        let own = self.header.as_ref().map(|header| header.segment_size);
        match own.or(self.size) {
            Some(size) if bytes != size.bytes() => {
                let why = format!("it has {bytes} bytes instead of {}", size.bytes());
                Err(self.damaged(&why).with_hint(cut))
            }
            None if self.is_segment()
                && self.verify == Verify::Off
                && SegmentSize::new(bytes).is_err() =>
            {
                let why = format!("it has {bytes} bytes, which is not a segment size");
                Err(self.damaged(&why).with_hint(cut))
            }
            _ => Ok(()),
        }
    }

    /// The header, once enough has been fed and if the file has one.
    pub(crate) fn header(&self) -> Option<&LongPageHeader> {
        self.header.as_ref()
    }

    /// What a timeline history file says, once all of it has been fed; `None` for other files, and for one that
    /// cannot be understood and was not checked either.
    pub(crate) fn history(&self) -> Option<TimelineHistory> {
        match self.name {
            WalFileName::TimelineHistory(timeline) => {
                TimelineHistory::parse(*timeline, &self.head).ok()
            }
            _ => None,
        }
    }

    fn read_header(&mut self) -> Result<(), Error> {
        let header = match LongPageHeader::parse(&self.head) {
            Ok(header) => header,
            Err(_) if self.verify == Verify::Off => return Ok(()),
            Err(cause) => return Err(self.damaged(&cause.to_string())),
        };
        if self.verify != Verify::Off {
            if let Some(segment) = self.name.segment() {
                header
                    .check_name(segment)
                    .map_err(|cause| self.damaged(&cause.to_string()))?;
            }
            if let Some(expected) = self.system
                && expected != header.system
            {
                return Err(Error::foreign(format!(
                    "{} is from system identifier {}, not from {expected}",
                    self.shown, header.system
                )));
            }
        }
        if let Some(segment) = self.name.segment()
            && self.verify == Verify::Records
        {
            self.records = Some(SegmentReader::new(*segment));
        }
        self.header = Some(header);
        Ok(())
    }

    fn read_records(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(records) = &mut self.records else {
            return Ok(());
        };
        match records.feed(bytes, |_| ()) {
            Ok(()) => Ok(()),
            Err(cause) if self.believes(&cause) => Err(self.damaged(&cause.to_string())),
            Err(_) => {
                self.records = None;
                Ok(())
            }
        }
    }

    /// Whether what the reader says counts. Of a major version that is not known it is that pages are of several: the first
    /// page's number may be what is damaged.
    fn believes(&self, cause: &ReadError) -> bool {
        let is_known = |header: &LongPageHeader| header.magic.major().is_some();
        match cause {
            ReadError::Damage(damage) if damage.is_of_magic() => true,
            _ => self.header.as_ref().is_some_and(is_known),
        }
    }

    fn is_segment(&self) -> bool {
        matches!(self.name, WalFileName::Segment(_) | WalFileName::Partial(_))
    }

    fn head_bytes_max(&self) -> usize {
        if self.is_segment() {
            LONG_PAGE_HEADER_BYTES
        } else {
            HISTORY_BYTES_MAX as usize
        }
    }

    fn longest(&self) -> u64 {
        match &self.header {
            Some(header) if self.verify != Verify::Off => header.segment_size.bytes(),
            _ if self.is_segment() => SegmentSize::LARGEST.bytes(),
            _ => HISTORY_BYTES_MAX,
        }
    }

    fn damaged(&self, why: &str) -> Error {
        Error::damaged(format!("{} is not valid: {why}", self.shown))
    }
}

#[cfg(test)]
mod tests {
    use fixtures::Written;

    use super::*;
    use crate::error::ErrorKind;

    const SEGMENT: usize = 1024 * 1024;

    /// The outcome of a check of a segment in which these bytes were changed.
    fn checked(change: impl FnOnce(&mut [u8])) -> Result<bool, String> {
        let mut wal = Written::new();
        wal.fill(SEGMENT);
        let (name, mut bytes) = wal.segments(1).remove(0);
        change(&mut bytes);
        let name = WalFileName::Segment(name);
        let mut check = Check::new(&name, Verify::Records, None, "the file".to_owned());
        let fed = bytes
            .chunks(100_000)
            .try_for_each(|piece| check.feed(piece));
        let end = fed.and_then(|()| check.finish());
        end.map(|checked| checked.summary.is_some())
            .map_err(|error| error.to_string())
    }

    /// Gives pages a magic number of no known major.
    fn other_major(bytes: &mut [u8]) {
        bytes[..2].copy_from_slice(&0xD150_u16.to_ne_bytes());
    }

    #[test]
    fn records_of_a_known_major_are_read() {
        assert_eq!(checked(|_| ()), Ok(true));
        let error = checked(|bytes| bytes[500_000] ^= 1).unwrap_err();
        assert!(error.starts_with("the file is not valid: at "), "{error}");
    }

    /// The same for a server of this major.
    fn checked_for(
        major: u32,
        verify: Verify,
        change: impl FnOnce(&mut [u8]),
    ) -> Result<(), Error> {
        let mut wal = Written::new();
        wal.fill(SEGMENT);
        let (name, mut bytes) = wal.segments(1).remove(0);
        change(&mut bytes);
        let name = WalFileName::Segment(name);
        let mut check =
            Check::new(&name, verify, None, "the file".to_owned()).of_server(Some(major));
        check.feed(&bytes)?;
        check.finish().map(drop)
    }

    #[test]
    fn an_unknown_format_of_a_known_major_is_an_error_and_no_damage() {
        let all = |bytes: &mut [u8]| bytes.chunks_mut(8192).for_each(other_major);
        let error = checked_for(19, Verify::Records, all).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable);
        assert_eq!(
            error.to_string(),
            "the file cannot be checked: its pages have magic number D150, which is not known as one of PostgreSQL 19"
        );
        assert!(error.hint().unwrap().contains("\"header\""));
        assert!(checked_for(19, Verify::Header, all).is_ok());
        assert!(checked_for(20, Verify::Records, all).is_ok());
        assert!(checked_for(19, Verify::Records, |_| ()).is_ok());
        // One page alone is damaged.
        let error = checked_for(19, Verify::Records, other_major).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        // A format that is not known may have other flags.
        let flags = |bytes: &mut [u8]| {
            all(bytes);
            bytes[3] |= 0x01;
        };
        let error = checked_for(19, Verify::Records, flags).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable);
    }

    #[test]
    fn wal_of_an_unknown_major_is_checked_by_its_pages_only() {
        let all = |bytes: &mut [u8]| bytes.chunks_mut(8192).for_each(other_major);
        assert_eq!(checked(all), Ok(false));
        assert_eq!(
            checked(|bytes| {
                all(bytes);
                bytes[500_000] ^= 1;
            }),
            Ok(false)
        );
    }

    #[test]
    fn a_damaged_number_of_the_first_page_is_no_unknown_major() {
        let error = checked(other_major).unwrap_err();
        assert!(
            error.contains("magic number D110 instead of D150"),
            "{error}"
        );
    }
}
