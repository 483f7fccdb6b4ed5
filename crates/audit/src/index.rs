//! What was learnt of an archive, kept in a file so that the next call reads only what is new.
//!
//! Guarantees that an index is an aid and nothing more: what does not fit the archive's objects, or is damaged, or of another
//! archive, is not used, and the file can be removed at any time. Each line is added once all that it speaks of has been read,
//! so a call that is interrupted costs what it had not finished. Never in an archive: where it lies is the caller's choice.
//!
//! One JSON document a line: what it is of, then a file of the archive each, of which the last line counts; and at the end of
//! each call how many there have been, so that a lost line is noticed. A call that is interrupted leaves no such end, and perhaps
//! a part of a line, which the next one ends as such: that is no damage. A file that changes is read again, whatever is lost.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use archive::{append_regular, open_regular};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wal::WalFileName;

use crate::facts::SegmentFacts;
use crate::inventory::Stamp;
use crate::text;

/// Changes with the form of the lines.
const VERSION: u32 = 4;

/// The end of a line that an interrupted call has left in part.
const TORN: &[u8] = b"<torn>\n";

/// The longest line that is read: the facts of a segment with as much in it as is noted take less.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What is known of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Of the object that was read.
    #[serde(flatten)]
    pub(crate) stamp: Stamp,
    /// Facts that were read from the file.
    pub(crate) what: What,
}

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// Facts of a segment.
    Segment(Box<SegmentFacts>),
    /// A timeline history file, or backup history file.
    Text(String),
    /// Something that cannot be read by anybody, and why.
    Unreadable(String),
    /// Something that does not fit what else there is, or cannot be read now, and why. Never in an index: it is looked at again
    /// each time.
    #[serde(skip)]
    Unfit(String),
}

/// Which archive an index is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its place, as messages name it.
    pub place: String,
    /// Whose WAL it holds, once it is bound.
    pub system: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    walden_index: u32,
    #[serde(flatten)]
    subject: Subject,
}

#[derive(Deserialize)]
struct Line {
    #[serde(with = "text::plain")]
    name: WalFileName,
    #[serde(flatten)]
    entry: Entry,
}

#[derive(Serialize)]
struct LineToWrite<'a> {
    #[serde(with = "text::plain")]
    name: WalFileName,
    #[serde(flatten)]
    entry: &'a Entry,
}

#[derive(Serialize, Deserialize)]
struct Foot {
    lines: u64,
}

/// Why an index is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The index cannot be read.
    #[error("could not read index \"{}\": {cause}", path.display())]
    Io {
        /// Path of the index.
        path: PathBuf,
        /// The system's error.
        cause: std::io::Error,
    },
    /// It is a device, a pipe, a directory: nothing that another file could be put in the place of.
    #[error("index \"{}\" is no regular file", path.display())]
    NoFile {
        /// Path that was given.
        path: PathBuf,
    },
    /// It is of another version of this program.
    #[error("index \"{}\" is of another version of Walden", path.display())]
    Version {
        /// Path of the index.
        path: PathBuf,
    },
    /// It is of another archive, or no index.
    #[error("index \"{}\" is of another archive, or no index", path.display())]
    Other {
        /// Path of the index.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
struct Version {
    walden_index: u32,
}

impl Subject {
    /// Whether it is of the same archive, perhaps from before that was bound: what it says of objects is true all the same.
    fn may_become(&self, now: &Subject) -> bool {
        self.place == now.place && (self.system.is_none() || self.system == now.system)
    }

    /// Where the index lies if nobody says: `walden/index/` below a directory for caches, by archive and system.
    #[must_use]
    pub fn default_path(&self, caches: &Path) -> PathBuf {
        let digest = Sha256::digest(self.place.as_bytes());
        let place: String = digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let system = self.system.as_deref().unwrap_or("unbound");
        caches
            .join("walden/index")
            .join(format!("{system}-{place}.jsonl"))
    }

    /// The first line of its index.
    fn head(&self) -> std::io::Result<Vec<u8>> {
        let head = Head {
            walden_index: VERSION,
            subject: self.clone(),
        };
        in_a_line(&head)
    }
}

/// An index, open to be added to.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    subject: Subject,
    /// `None` until there is something to add.
    file: Option<File>,
    /// How many lines there are about files.
    lines: u64,
    /// Whether a foot is to be written: there is none, or something behind the last one.
    is_open: bool,
    /// Whether the last line is cut off.
    is_torn: bool,
    /// Whether it is this archive's, so that it can be added to.
    is_of_use: bool,
    damage: Option<u64>,
}

impl Index {
    /// Reads an index, which need not exist yet; `visit` is shown what each line says, a later one of the same file counts.
    ///
    /// # Errors
    /// [`Unusable`], when what is there is not to be used.
    pub fn open(
        path: &Path,
        subject: &Subject,
        visit: &mut dyn FnMut(WalFileName, Entry),
    ) -> Result<Index, Unusable> {
        let path = path.to_owned();
        let io = |cause| Unusable::Io {
            path: path.clone(),
            cause,
        };
        let mut index = Index::anew(&path, subject);
        match path.metadata() {
            // A pipe would be waited for.
            Ok(metadata) if !metadata.is_file() => return Err(Unusable::NoFile { path }),
            Ok(_) => {}
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(index),
            Err(cause) => return Err(io(cause)),
        }
        let mut lines = Lines::new(BufReader::new(open_regular(&path).map_err(io)?));
        let head = subject.head().map_err(io)?;
        let first = lines.next().map_err(io)?.unwrap_or_default();
        if first != head.as_slice() {
            // The disk was full, say, when it was begun.
            if head.starts_with(first) {
                return Ok(index);
            }
            match serde_json::from_slice::<Version>(first) {
                Ok(of) if of.walden_index != VERSION => return Err(Unusable::Version { path }),
                _ => {}
            }
            let found = serde_json::from_slice::<Head>(first);
            if !found.is_ok_and(|found| found.subject.may_become(subject)) {
                return Err(Unusable::Other { path });
            }
        }
        index.is_of_use = true;
        index.read(&mut lines, visit).map_err(io)?;
        Ok(index)
    }

    fn read(
        &mut self,
        lines: &mut Lines<impl BufRead>,
        visit: &mut dyn FnMut(WalFileName, Entry),
    ) -> std::io::Result<()> {
        while let Some(bytes) = lines.next()? {
            self.is_torn = !bytes.ends_with(b"\n");
            if self.is_torn {
                // A line that is longer than any is damage, unless nothing follows it.
                let number = lines.number;
                if lines.next()?.is_some() {
                    self.is_torn = false;
                    self.damage.get_or_insert(number);
                    continue;
                }
                break;
            }
            if let Ok(line) = serde_json::from_slice::<Line>(bytes) {
                visit(line.name, line.entry);
                self.lines += 1;
                self.is_open = true;
            } else if let Ok(foot) = serde_json::from_slice::<Foot>(bytes) {
                self.is_open = false;
                if foot.lines != self.lines {
                    self.damage.get_or_insert(lines.number);
                }
            } else if !bytes.ends_with(TORN) {
                self.damage.get_or_insert(lines.number);
            }
        }
        Ok(())
    }

    /// An index that takes the place of whatever is there.
    #[must_use]
    pub fn anew(path: &Path, subject: &Subject) -> Index {
        Index {
            path: path.to_owned(),
            subject: subject.clone(),
            file: None,
            lines: 0,
            is_open: true,
            is_torn: false,
            is_of_use: false,
            damage: None,
        }
    }

    /// The first line that is not what was written, from 1, if one is. What is said by the others is true all the same.
    #[must_use]
    pub fn damage(&self) -> Option<u64> {
        self.damage
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many lines there are about files; more than files where some have changed.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Opens the file to be added to, which is made if it has to be.
    ///
    /// # Errors
    /// When that cannot be.
    pub fn begin(&mut self) -> std::io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        // What another call has added meanwhile to one that is of use stays.
        if !self.is_of_use && self.path.metadata().is_ok_and(|it| it.len() > 0) {
            self.rewrite(std::iter::empty())?;
        }
        let mut file = append_regular(&self.path)?;
        if file.metadata()?.len() == 0 {
            file.write_all(&self.subject.head()?)?;
        } else if self.is_torn {
            file.write_all(TORN)?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Adds what is known of a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, name: WalFileName, entry: &Entry) -> std::io::Result<()> {
        if matches!(entry.what, What::Unfit(_)) {
            return Ok(());
        }
        self.write(&LineToWrite { name, entry })?;
        self.lines += 1;
        self.is_open = true;
        Ok(())
    }

    /// Ends what was added, so that nothing of it is lost unnoticed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(&mut self) -> std::io::Result<()> {
        if self.is_open || self.damage.is_some() {
            let lines = self.lines;
            self.write(&Foot { lines })?;
            self.is_open = false;
        }
        Ok(())
    }

    fn write(&mut self, value: &impl Serialize) -> std::io::Result<()> {
        let bytes = in_a_line(value)?;
        self.begin()?;
        match &mut self.file {
            Some(file) => file.write_all(&bytes),
            None => Ok(()),
        }
    }

    /// Puts a file in the place of this one that says nothing twice, and makes the directories that lead to it.
    ///
    /// # Errors
    /// When it cannot be written; the one that was there before stays then.
    pub fn rewrite(
        &self,
        entries: impl Iterator<Item = (WalFileName, Entry)>,
    ) -> std::io::Result<()> {
        // The file that is put there would take the place of a device, as "/dev/null" is one.
        if self.path.metadata().is_ok_and(|it| !it.is_file()) {
            return Err(std::io::Error::other("it is no regular file"));
        }
        let folder = self.folder()?;
        let staged = tempfile::NamedTempFile::new_in(folder)?;
        let mut to = BufWriter::new(staged);
        to.write_all(&self.subject.head()?)?;
        let is_kept = |(_, entry): &(_, Entry)| !matches!(entry.what, What::Unfit(_));
        let mut lines = 0_u64;
        for (name, entry) in entries.filter(is_kept) {
            let entry = &entry;
            to.write_all(&in_a_line(&LineToWrite { name, entry })?)?;
            lines += 1;
        }
        to.write_all(&in_a_line(&Foot { lines })?)?;
        let staged = to
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)?;
        staged.persist(&self.path).map_err(|failed| failed.error)?;
        Ok(())
    }

    /// Makes the directories that lead to it.
    ///
    /// # Errors
    /// When that cannot be.
    pub fn folder(&self) -> std::io::Result<&Path> {
        let folder = self.path.parent();
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        Ok(folder)
    }
}

fn in_a_line(value: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Lines of bounded length.
struct Lines<R> {
    from: R,
    bytes: Vec<u8>,
    /// Of the last one, from 1.
    number: u64,
}

impl<R: BufRead> Lines<R> {
    fn new(from: R) -> Lines<R> {
        Lines {
            from,
            bytes: Vec::new(),
            number: 0,
        }
    }

    /// The next line, or as much of it as is allowed: more is none of ours.
    fn next(&mut self) -> std::io::Result<Option<&[u8]>> {
        self.bytes.clear();
        let mut limited = std::io::Read::take(&mut self.from, LINE_BYTES_MAX as u64);
        if limited.read_until(b'\n', &mut self.bytes)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(&self.bytes))
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
