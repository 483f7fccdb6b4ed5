//! What was learnt of an archive, kept in a file so that the next call reads only what is new.
//!
//! Guarantees that an index is an aid and nothing more: what does not fit the archive's objects, or is damaged, or of another
//! archive, is not used, and the file can be removed at any time. It is written beside its place and then put there, so a
//! reader sees all of it or the one before. Never in an archive: where it lies is the caller's choice.
//!
//! One JSON document a line: what it is of, then an object of the archive each, at last how many there were.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use archive::open_regular;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::facts::SegmentFacts;

/// Changes with the form of the lines.
const VERSION: u32 = 1;

/// The longest line that is read: the facts of a segment with as much in it as is noted take less.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// What is known of the files of an archive, by the server's names for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// The files.
    pub(crate) entries: BTreeMap<String, Entry>,
}

/// What is known of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The key of the object that was read.
    pub(crate) key: String,
    /// Its size as stored.
    pub(crate) bytes: u64,
    /// When it was stored, in nanoseconds since 1970.
    pub(crate) modified: u64,
    /// What is in it.
    pub(crate) what: What,
}

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// A segment.
    Segment(Box<SegmentFacts>),
    /// A timeline history file, or backup history file.
    Text(String),
    /// Something that cannot be read, and why.
    Unreadable(String),
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

#[derive(Serialize, Deserialize)]
struct Line {
    name: String,
    #[serde(flatten)]
    entry: Entry,
}

#[derive(Serialize, Deserialize)]
struct Foot {
    objects: u64,
}

/// Why an index is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("could not read index \"{}\": {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// It is a device, a pipe, a directory: nothing that another file could be put in the place of.
    #[error("index \"{}\" is no regular file", path.display())]
    NoFile {
        /// What was named.
        path: PathBuf,
    },
    /// It is not what was written.
    #[error("index \"{}\" is damaged at line {line}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first line that is wrong, from 1.
        line: u64,
    },
    /// It is of another archive, or another version of this program.
    #[error("index \"{}\" is of another archive or version", path.display())]
    Other {
        /// The file.
        path: PathBuf,
    },
}

impl Subject {
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
}

impl Index {
    /// Reads an index; an empty one if there is no file.
    ///
    /// # Errors
    /// [`Unusable`], when what is there is not to be used: an empty one does as well.
    pub fn load(path: &Path, subject: &Subject) -> Result<Index, Unusable> {
        let io = |cause| Unusable::Io {
            path: path.to_owned(),
            cause,
        };
        match path.metadata() {
            // A pipe would be waited for.
            Ok(metadata) if !metadata.is_file() => {
                return Err(Unusable::NoFile {
                    path: path.to_owned(),
                });
            }
            Ok(_) => {}
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Index::default());
            }
            Err(cause) => return Err(io(cause)),
        }
        let file = open_regular(path).map_err(io)?;
        let mut lines = Lines::new(BufReader::new(file));
        let damaged = |line| Unusable::Damaged {
            path: path.to_owned(),
            line,
        };
        let head = lines
            .next()
            .map_err(io)?
            .and_then(|line| serde_json::from_slice::<Head>(line).ok());
        let head = head.ok_or_else(|| damaged(1))?;
        if head.walden_index != VERSION || head.subject != *subject {
            return Err(Unusable::Other {
                path: path.to_owned(),
            });
        }
        let mut index = Index::default();
        while let Some(bytes) = lines.next().map_err(io)? {
            if let Ok(line) = serde_json::from_slice::<Line>(bytes) {
                index.entries.insert(line.name, line.entry);
                continue;
            }
            let foot = serde_json::from_slice::<Foot>(bytes).ok();
            let count = index.entries.len() as u64;
            let is_whole = foot.is_some_and(|foot| foot.objects == count);
            return match is_whole && lines.next().map_err(io)?.is_none() {
                true => Ok(index),
                false => Err(damaged(lines.number)),
            };
        }
        Err(damaged(lines.number + 1))
    }

    /// Writes the index, and the directories that lead to it.
    ///
    /// # Errors
    /// When they cannot be written; the one that was there before stays then.
    pub fn save(&self, path: &Path, subject: &Subject) -> std::io::Result<()> {
        // The file that is put there would take the place of a device, as "/dev/null" is one.
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(std::io::Error::other("it is no regular file"));
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let staged = tempfile::NamedTempFile::new_in(folder)?;
        let mut to = BufWriter::new(staged);
        let head = Head {
            walden_index: VERSION,
            subject: subject.clone(),
        };
        line(&mut to, &head)?;
        for (name, entry) in &self.entries {
            let (name, entry) = (name.clone(), entry.clone());
            line(&mut to, &Line { name, entry })?;
        }
        let objects = self.entries.len() as u64;
        line(&mut to, &Foot { objects })?;
        let staged = to
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)?;
        staged.persist(path).map_err(|failed| failed.error)?;
        Ok(())
    }

    /// What is known of a file, if the object is still the same one.
    pub(crate) fn fresh(
        &self,
        name: &str,
        key: &str,
        bytes: u64,
        modified: SystemTime,
    ) -> Option<&Entry> {
        let modified = nanos(modified);
        self.entries
            .get(name)
            .filter(|entry| entry.key == key && entry.bytes == bytes && entry.modified == modified)
    }
}

/// Since 1970; a time that cannot be told that way is 0.
pub(crate) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or(Duration::ZERO).as_nanos()).unwrap_or_default()
}

fn line(to: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *to, value)?;
    to.write_all(b"\n")
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
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject {
            place: "/archive".to_owned(),
            system: Some("7".to_owned()),
        }
    }

    fn index() -> Index {
        let facts = crate::made::segment("000000010000000000000003")
            .with_end(10, 700)
            .facts;
        let entry = |what| Entry {
            key: "x.zst".to_owned(),
            bytes: 5,
            modified: 1,
            what,
        };
        let entries = [
            ("a", entry(What::Segment(Box::new(facts)))),
            (
                "b",
                entry(What::Text("1\t0/3000000\tno \"reason\"\n".to_owned())),
            ),
            ("c", entry(What::Unreadable("rotten".to_owned()))),
        ];
        Index {
            entries: entries.map(|(name, entry)| (name.to_owned(), entry)).into(),
        }
    }

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/folder/index.jsonl");
        assert_eq!(Index::load(&path, &subject()).unwrap(), Index::default());
        index().save(&path, &subject()).unwrap();
        assert_eq!(Index::load(&path, &subject()).unwrap(), index());
        Index::default().save(&path, &subject()).unwrap();
        assert_eq!(Index::load(&path, &subject()).unwrap(), Index::default());
    }

    #[test]
    fn an_index_of_another_archive_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.jsonl");
        index().save(&path, &subject()).unwrap();
        let mut other = subject();
        other.system = Some("8".to_owned());
        let unusable = Index::load(&path, &other).unwrap_err();
        assert!(matches!(unusable, Unusable::Other { .. }), "{unusable}");
        assert_ne!(
            subject().default_path(dir.path()),
            other.default_path(dir.path())
        );
    }

    #[test]
    fn what_is_no_regular_file_is_neither_read_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [socket.as_path(), dir.path(), Path::new("/dev/null")] {
            let unusable = Index::load(path, &subject()).unwrap_err();
            assert!(matches!(unusable, Unusable::NoFile { .. }), "{unusable}");
        }
        index().save(&socket, &subject()).unwrap_err();
        assert!(!socket.metadata().unwrap().is_file());
    }

    #[test]
    fn no_cut_and_no_lost_line_passes_for_a_whole_index() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.jsonl");
        index().save(&path, &subject()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() - 1 {
            std::fs::write(&path, &whole[..length]).unwrap();
            let loaded = Index::load(&path, &subject());
            assert!(loaded.is_err(), "of {length} bytes {loaded:?}");
        }
        let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        for lost in 0..lines.len() {
            let mut rest = lines.clone();
            rest.remove(lost);
            std::fs::write(&path, rest.concat()).unwrap();
            let unusable = Index::load(&path, &subject()).unwrap_err();
            assert!(matches!(unusable, Unusable::Damaged { .. }), "{unusable}");
        }
    }
}
