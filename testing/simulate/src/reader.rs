//! The server's reader of WAL: pages, records over pages, and what makes it stop.
//!
//! Guarantees the checks of `xlogreader.c` (15 to 18) in their order: `XLogReaderValidatePageHeader`, `ValidXLogRecordHeader`,
//! the checksum. Where pages come from is left to `startup`. One function
//! is long because the server's is.

use fixtures::pen::{OVERWRITES, Written};

use crate::startup::Halt;
use crate::tree::Kind;
use crate::{PAGE, SEGMENT, SYSTEM, lsn};

const LONG: u64 = 40;
const SHORT: u64 = 24;
const RECORD: usize = 24;

/// Why there is no record.
#[derive(Debug)]
pub enum Trouble {
    /// There is none here; and what the server says.
    None(String),
    /// The server stops.
    Halt(Halt),
}

impl From<Halt> for Trouble {
    fn from(halt: Halt) -> Trouble {
        Trouble::Halt(halt)
    }
}

/// A page that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub page: u64,
    /// How many bytes of it.
    pub bytes: u64,
    /// The record that it is for.
    pub record: u64,
    /// The first read after a jump.
    pub random: bool,
    /// What has been read so far.
    pub end: u64,
}

/// Where pages come from (`XLogPageRead`).
pub trait Pages {
    /// The page, and how much of it is valid; `None` if there is none.
    ///
    /// # Errors
    /// When the server stops.
    fn page(&mut self, ask: Ask, seen: &mut Seen) -> Result<Option<(Vec<u8>, u64)>, Halt>;
}

/// The last page that passed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    page: u64,
    pub timeline: u32,
}

#[derive(Clone, Debug)]
pub struct Record {
    pub written: Written,
    pub kind: Kind,
    /// The timeline of the last page that was read for it.
    pub page_timeline: u32,
}

#[derive(Debug, Default)]
pub struct Reader {
    /// Where the last record begins; 0 after a jump.
    pub read: u64,
    /// Where the next one is looked for.
    pub end: u64,
    pub seen: Seen,
    segment: Option<u64>,
    cached: Option<u64>,
    bytes: Vec<u8>,
    valid: u64,
    /// A record that was never finished, and where its rest is missing.
    pub aborted: Option<(u64, u64)>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Checks a page's header (`XLogReaderValidatePageHeader`).
///
/// # Errors
/// With what the server says of it.
pub fn validate(seen: &mut Seen, place: u64, page: &[u8]) -> Result<(), String> {
    let (magic, flags, timeline) = (u16_at(page, 0), u16_at(page, 2), u32_at(page, 4));
    if magic != 0xD110 {
        return Err(format!(
            "invalid magic number {magic:04X} at {}",
            lsn(place)
        ));
    }
    if flags & !15 != 0 {
        return Err(format!("invalid info bits {flags:04X} at {}", lsn(place)));
    }
    if flags & 2 != 0 {
        if u64_at(page, 24) != SYSTEM {
            return Err("WAL file is from different database system".to_owned());
        }
        if u64::from(u32_at(page, 32)) != SEGMENT || u64::from(u32_at(page, 36)) != PAGE {
            return Err("incorrect segment or page size in page header".to_owned());
        }
    } else if place.is_multiple_of(SEGMENT) {
        return Err(format!("invalid info bits {flags:04X} at {}", lsn(place)));
    }
    let address = u64_at(page, 8);
    if address != place {
        return Err(format!(
            "unexpected pageaddr {} at {}",
            lsn(address),
            lsn(place)
        ));
    }
    if place > seen.page {
        if timeline < seen.timeline {
            return Err(format!(
                "out-of-sequence timeline ID {timeline} (after {}) at {}",
                seen.timeline,
                lsn(place)
            ));
        }
        *seen = Seen {
            page: place,
            timeline,
        };
    }
    Ok(())
}

impl Reader {
    /// Goes on reading at this LSN, as `XLogBeginRead` does.
    pub fn begin(&mut self, at: u64) {
        self.read = 0;
        self.end = at;
    }

    fn page(&mut self, pages: &mut dyn Pages, mut ask: Ask) -> Result<(), Trouble> {
        if self.cached == Some(ask.page) && self.valid >= ask.bytes {
            return Ok(());
        }
        self.cached = None;
        let segment = ask.page / SEGMENT;
        if self.segment != Some(segment) && !ask.page.is_multiple_of(SEGMENT) {
            let first = Ask {
                page: segment * SEGMENT,
                bytes: PAGE,
                ..ask
            };
            self.fetch(pages, first)?;
        }
        ask.bytes = ask.bytes.max(SHORT);
        self.fetch(pages, ask)?;
        self.segment = Some(segment);
        self.cached = Some(ask.page);
        Ok(())
    }

    fn fetch(&mut self, pages: &mut dyn Pages, ask: Ask) -> Result<(), Trouble> {
        let Some((bytes, valid)) = pages.page(ask, &mut self.seen)? else {
            self.segment = None;
            return Err(Trouble::None(String::new()));
        };
        let checked = validate(&mut self.seen, ask.page, &bytes);
        if checked.is_err() {
            self.segment = None;
        }
        checked.map_err(Trouble::None)?;
        self.bytes = bytes;
        self.valid = valid;
        Ok(())
    }

    /// Reads the next record (`XLogDecodeNextRecord`).
    ///
    /// # Errors
    /// When there is none, or the server stops.
    pub fn next(&mut self, pages: &mut dyn Pages) -> Result<Record, Trouble> {
        self.aborted = None;
        let mut at = self.end;
        loop {
            match self.record_at(at, pages) {
                Ok(Ok(record)) => {
                    self.read = record.written.lsn;
                    self.end = record.written.end;
                    return Ok(record);
                }
                // Given up: another record stands in its place.
                Ok(Err(page)) => at = page,
                Err(trouble) => {
                    self.cached = None;
                    return Err(trouble);
                }
            }
        }
    }

    /// The record here; or where to go on if it was given up.
    fn record_at(
        &mut self,
        mut at: u64,
        pages: &mut dyn Pages,
    ) -> Result<Result<Record, u64>, Trouble> {
        let random = self.read == 0;
        let mut ask = Ask {
            page: at - at % PAGE,
            bytes: (at % PAGE + RECORD as u64).min(PAGE),
            record: at,
            random,
            end: self.end,
        };
        self.page(pages, ask)?;
        let header = if ask.page.is_multiple_of(SEGMENT) {
            LONG
        } else {
            SHORT
        };
        if at.is_multiple_of(PAGE) {
            at += header;
        } else if at % PAGE < header {
            return Err(wrong("invalid record offset", at));
        }
        if u16_at(&self.bytes, 2) & 1 != 0 && at % PAGE == header {
            return Err(wrong("contrecord is requested by", at));
        }
        let offset = (at % PAGE) as usize;
        let total = u32_at(&self.bytes, offset) as usize;
        if total < RECORD {
            return Err(wrong("invalid record length", at));
        }
        if offset + RECORD <= PAGE as usize {
            self.check_chain(at, u64_at(&self.bytes, offset + 8), random)?;
        }
        let mut record = Vec::new();
        if offset + total <= PAGE as usize {
            ask.bytes = (offset + total) as u64;
            self.page(pages, ask)?;
            record.extend_from_slice(&self.bytes[offset..offset + total]);
        } else {
            record.extend_from_slice(&self.bytes[offset..]);
        }
        let mut end = at + total as u64;
        let mut chain_checked = offset + RECORD <= PAGE as usize;
        while record.len() < total {
            ask.page += PAGE;
            let header = if ask.page.is_multiple_of(SEGMENT) {
                LONG
            } else {
                SHORT
            };
            let left = total - record.len();
            ask.bytes = (header + left as u64).min(PAGE);
            let aborted = Some((at, ask.page));
            let got = self.page(pages, ask);
            if let Err(trouble) = got {
                self.aborted = aborted;
                return Err(trouble);
            }
            let flags = u16_at(&self.bytes, 2);
            if flags & OVERWRITES != 0 {
                return Ok(Err(ask.page));
            }
            if flags & 1 == 0 || u32_at(&self.bytes, 16) as usize != left {
                self.aborted = aborted;
                return Err(wrong(
                    "there is no contrecord flag, or its length is wrong",
                    at,
                ));
            }
            let here = left.min((PAGE - header) as usize);
            record.extend_from_slice(&self.bytes[header as usize..header as usize + here]);
            end = ask.page + header + here as u64;
            if !chain_checked && record.len() >= RECORD {
                self.check_chain(at, u64_at(&record, 8), random)?;
                chain_checked = true;
            }
        }
        if !fixtures::pen::is_sound(&record) {
            return Err(wrong(
                "incorrect resource manager data checksum in record",
                at,
            ));
        }
        let kind = kind_of(&record);
        end = end.next_multiple_of(8);
        if kind == Kind::Switch {
            end = end.next_multiple_of(SEGMENT);
        }
        Ok(Ok(Record {
            written: Written {
                lsn: at,
                end,
                crc: u32_at(&record, 20),
            },
            kind,
            page_timeline: self.seen.timeline,
        }))
    }

    fn check_chain(&self, at: u64, previous: u64, random: bool) -> Result<(), Trouble> {
        let right = if random {
            previous < at
        } else {
            previous == self.read
        };
        if right {
            Ok(())
        } else {
            Err(Trouble::None(format!(
                "record with incorrect prev-link {} at {}",
                lsn(previous),
                lsn(at)
            )))
        }
    }
}

fn wrong(what: &str, at: u64) -> Trouble {
    Trouble::None(format!("{what} at {}", lsn(at)))
}

/// What a record does.
fn kind_of(record: &[u8]) -> Kind {
    let (info, manager) = (record[16] & 0xF0, record[17]);
    let main = record.get(RECORD + 2..).unwrap_or_default();
    if manager != 0 {
        return Kind::Data;
    }
    match info {
        0x40 => Kind::Switch,
        0x00 | 0x10 => Kind::Checkpoint {
            is_shutdown: info == 0,
            redo: u64_at(main, 0),
            this: u32_at(main, 8),
            previous: u32_at(main, 12),
        },
        0x50 => Kind::BackupEnd {
            start: u64_at(main, 0),
        },
        0x90 => Kind::EndOfRecovery {
            this: u32_at(main, 8),
            previous: u32_at(main, 12),
        },
        0xD0 => Kind::Overwrite,
        _ => Kind::Data,
    }
}
