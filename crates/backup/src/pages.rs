//! The server's own rule of which pages count as corrupt, applied to a backup that passes by.
//!
//! A server that finds a corrupt page sends the backup to its end all the same, and raises its error only then; so what is
//! stored has to know by itself. Guarantees the server's verdict (`sendFile`, `verify_page_checksum` and `noChecksumFiles`,
//! basebackup.c, 15 to 19): files that are not the server's are not looked at, nor are pages that were never initialised, nor
//! those whose LSN is at or behind the start of the backup, which recovery brings anew. A file whose length is no multiple of a
//! page is looked at up to there; the server leaves it out from the read of 32 kB on that has the rest, with a warning.
//!
//! Left to others: whether the cluster has checksums.

use wal::Lsn;

use crate::document::{CORRUPT_NAMED_MAX, PageReport, PageState};
use crate::page::Page;
use crate::path::SafePath;

/// What decides about a cluster's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRule {
    /// The server's major version.
    pub major: u32,
    /// Where the backup began.
    pub start_lsn: Lsn,
    /// How long a page is, in bytes: a power of two from 1 to 32 kB (`block_size`).
    pub page_bytes: u32,
    /// How many pages a file of a relation has at most (`segment_size`, in pages).
    pub segment_pages: u32,
}

/// What the files of backups of incremental ones begin with.
const INCREMENTAL_PREFIX: &str = "INCREMENTAL.";

/// What such a file begins with (`INCREMENTAL_MAGIC`, basebackup_incremental.h, 17 to 19).
const INCREMENTAL_MAGIC: u32 = 0xD3AE_1F0D;

/// The numbers before the list of blocks: the magic, how many blocks there are, and where the relation is cut.
const INCREMENTAL_HEAD_BYTES: usize = 12;

/// The most pages that a file may have: `segment_size` has this maximum.
const SEGMENT_PAGES_MAX: u32 = 0x7FFF_FFFF;

/// Checks the files of a backup, one after the other.
#[derive(Debug)]
pub(crate) struct Checker {
    rule: Option<PageRule>,
    file: Option<Checked>,
    checked: u64,
    corrupt: u64,
    files: Vec<String>,
}

/// The file that passes by.
#[derive(Debug)]
struct Checked {
    path: SafePath,
    /// Number of the file's first page in its relation.
    first_page: u32,
    /// Pages that have passed by.
    pages: u32,
    /// The numbers of its pages, if it is an incremental one whose head has passed.
    blocks: Blocks,
    /// A page that has not come whole yet.
    partial: Vec<u8>,
}

/// Which pages a file holds.
#[derive(Debug)]
enum Blocks {
    /// All, one after the other.
    All,
    /// That stands at the head of the file, of which so much has come.
    Head(Vec<u8>),
    /// These; so many bytes fill up what comes before them.
    Listed { numbers: Vec<u32>, filler: usize },
    /// Its head is none: nobody knows what it holds.
    Unknown,
}

impl Checker {
    /// `None` if nothing is to be checked.
    pub(crate) fn new(rule: Option<PageRule>) -> Checker {
        let is_sound = |rule: &PageRule| {
            let pages = 1..=SEGMENT_PAGES_MAX;
            let sizes = 1024..=32_768;
            rule.page_bytes.is_power_of_two()
                && sizes.contains(&rule.page_bytes)
                && pages.contains(&rule.segment_pages)
        };
        Checker {
            rule: rule.filter(is_sound),
            file: None,
            checked: 0,
            corrupt: 0,
            files: Vec::new(),
        }
    }

    /// A file begins.
    pub(crate) fn begin(&mut self, path: &SafePath) {
        let Some(rule) = self.rule else {
            return;
        };
        self.file = place(rule.major, path).and_then(|place| {
            Some(Checked {
                path: path.clone(),
                first_page: place.segment.checked_mul(rule.segment_pages)?,
                pages: 0,
                blocks: if place.is_incremental {
                    Blocks::Head(Vec::new())
                } else {
                    Blocks::All
                },
                partial: Vec::new(),
            })
        });
    }

    /// So many bytes of it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let (Some(rule), Some(file)) = (self.rule, &mut self.file) else {
            return;
        };
        let page_bytes = usize::try_from(rule.page_bytes).unwrap_or(usize::MAX);
        let mut bytes = file.skip_head(bytes, page_bytes);
        while !bytes.is_empty() {
            if file.partial.is_empty() && bytes.len() >= page_bytes {
                let (page, rest) = bytes.split_at_checked(page_bytes).unwrap_or_default();
                bytes = rest;
                let verdict = file.judge(Page(page), &rule);
                count(
                    verdict,
                    &file.path,
                    &mut self.checked,
                    &mut self.corrupt,
                    &mut self.files,
                );
                continue;
            }
            let room = page_bytes.saturating_sub(file.partial.len());
            let (now, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            bytes = rest;
            file.partial.extend_from_slice(now);
            if file.partial.len() == page_bytes {
                let page = std::mem::take(&mut file.partial);
                let verdict = file.judge(Page(&page), &rule);
                count(
                    verdict,
                    &file.path,
                    &mut self.checked,
                    &mut self.corrupt,
                    &mut self.files,
                );
                file.partial = page;
                file.partial.clear();
            }
        }
    }

    /// It is over.
    pub(crate) fn end(&mut self) {
        self.file = None;
    }

    /// What has come of it.
    pub(crate) fn report(&self) -> PageReport {
        PageReport {
            state: match (self.rule, self.corrupt) {
                (None, _) => PageState::Unchecked,
                (Some(_), 0) => PageState::Ok,
                (Some(_), _) => PageState::Corrupt,
            },
            page_bytes: self.rule.map_or(0, |rule| rule.page_bytes),
            segment_pages: self.rule.map_or(0, |rule| rule.segment_pages),
            checked: self.checked,
            corrupt: self.corrupt,
            files: self.files.clone(),
        }
    }
}

/// What is to be said of a page; `None` of one that does not count.
type Verdict = Option<bool>;

fn count(
    verdict: Verdict,
    path: &SafePath,
    checked: &mut u64,
    corrupt: &mut u64,
    files: &mut Vec<String>,
) {
    let Some(is_right) = verdict else {
        return;
    };
    *checked += 1;
    if is_right {
        return;
    }
    *corrupt += 1;
    let path = path.to_string();
    if files.len() < CORRUPT_NAMED_MAX && files.last() != Some(&path) {
        files.push(path);
    }
}

impl Checked {
    /// Whether the next page is right.
    fn judge(&mut self, page: Page<'_>, rule: &PageRule) -> Verdict {
        let index = self.pages;
        self.pages = self.pages.saturating_add(1);
        let number = match &self.blocks {
            Blocks::All => Some(index),
            Blocks::Listed { numbers, .. } => numbers
                .get(usize::try_from(index).unwrap_or(usize::MAX))
                .copied(),
            Blocks::Head(_) | Blocks::Unknown => None,
        };
        let block = self.first_page.wrapping_add(number?);
        if page.is_new() || page.lsn() >= rule.start_lsn {
            return None;
        }
        Some(page.checksum(block) == page.stored_checksum())
    }

    /// Takes the head of an incremental file from the bytes; what is left are pages.
    fn skip_head<'b>(&mut self, mut bytes: &'b [u8], page_bytes: usize) -> &'b [u8] {
        while !bytes.is_empty() {
            match &mut self.blocks {
                Blocks::All => break,
                Blocks::Unknown => return &[],
                Blocks::Listed { filler, .. } => {
                    let (_, rest) = bytes.split_at_checked(*filler).unwrap_or((bytes, &[]));
                    *filler = filler.saturating_sub(bytes.len());
                    return rest;
                }
                Blocks::Head(head) => {
                    let wanted = head_bytes(head).unwrap_or(INCREMENTAL_HEAD_BYTES);
                    let room = wanted.saturating_sub(head.len());
                    let (now, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
                    head.extend_from_slice(now);
                    bytes = rest;
                    if head.len() < wanted {
                        break;
                    }
                    match head_bytes(head) {
                        None => self.blocks = Blocks::Unknown,
                        Some(whole) if whole == head.len() => {
                            self.blocks = listed(head, page_bytes);
                        }
                        Some(_) => {}
                    }
                }
            }
        }
        bytes
    }
}

/// The words of the head of an incremental file.
fn words(head: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let words = head.chunks_exact(4);
    words.map(|word| u32::from_ne_bytes(word.try_into().unwrap_or_default()))
}

/// How long the head is with its list; `None` if it is none.
fn head_bytes(head: &[u8]) -> Option<usize> {
    let mut words = words(head);
    let (magic, count, _) = (words.next()?, words.next()?, words.next()?);
    let count = usize::try_from(count)
        .ok()
        .filter(|count| *count <= 1 << 24)?;
    (magic == INCREMENTAL_MAGIC).then_some(INCREMENTAL_HEAD_BYTES + 4 * count)
}

/// The pages that a whole head lists. Where there are some, it is filled up to a multiple of a page
/// (`GetIncrementalHeaderSize`, 17 to 19).
fn listed(head: &[u8], page_bytes: usize) -> Blocks {
    let numbers: Vec<u32> = words(head).skip(3).collect();
    let filler = if numbers.is_empty() {
        0
    } else {
        head.len().next_multiple_of(page_bytes) - head.len()
    };
    Blocks::Listed { numbers, filler }
}

/// Where a file's pages stand in their relation.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    segment: u32,
    is_incremental: bool,
}

/// `None` for a file whose pages the server does not check. `path` is that below the data directory, for tablespaces too
/// (`pg_tblspc/16384/PG_18_202506291/5/1259`).
fn place(major: u32, path: &SafePath) -> Option<Place> {
    let text = std::str::from_utf8(path.bytes()).ok()?;
    let (folder, name) = text.rsplit_once('/')?;
    if major >= 17 {
        return of_relation(folder, name);
    }
    let is_data = ["global", "base", "pg_tblspc"]
        .iter()
        .any(|top| folder.split('/').next() == Some(top));
    let is_left_out = matches!(name, "pg_control" | "pg_filenode.map" | "PG_VERSION")
        || name.starts_with("pg_internal.init");
    // The server takes what stands behind the first dot, whatever that is (atoi).
    let behind = name.split_once('.').map_or("", |(_, behind)| behind);
    let digits = behind.find(|c: char| !c.is_ascii_digit());
    let digits = behind
        .get(..digits.unwrap_or(behind.len()))
        .unwrap_or_default();
    (is_data && !is_left_out).then(|| Place {
        segment: digits.parse().unwrap_or_default(),
        is_incremental: false,
    })
}

/// A file of a relation that is not temporary (`parse_filename_for_nontemp_relation`, 17 to 19).
fn of_relation(folder: &str, name: &str) -> Option<Place> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let parts: Vec<&str> = folder.split('/').collect();
    let is_data = match parts.as_slice() {
        ["global"] => true,
        ["base", database] => is_number(database),
        ["pg_tblspc", tablespace, version, database] => {
            is_number(tablespace) && version.starts_with("PG_") && is_number(database)
        }
        _ => false,
    };
    let is_incremental = name.starts_with(INCREMENTAL_PREFIX);
    let name = name.strip_prefix(INCREMENTAL_PREFIX).unwrap_or(name);
    let (stem, segment) = match name.split_once('.') {
        Some((stem, segment)) => (stem, Some(segment)),
        None => (name, None),
    };
    let (number, fork) = match stem.split_once('_') {
        Some((number, fork)) => (number, Some(fork)),
        None => (stem, None),
    };
    let is_plain = |text: &str| is_number(text) && !text.starts_with('0');
    let is_fork = fork.is_none_or(|fork| matches!(fork, "fsm" | "vm" | "init"));
    let segment = match segment {
        None => 0,
        Some(segment) if is_plain(segment) => segment.parse().ok()?,
        Some(_) => return None,
    };
    (is_data && is_plain(number) && is_fork).then_some(Place {
        segment,
        is_incremental,
    })
}

#[cfg(test)]
mod tests;
