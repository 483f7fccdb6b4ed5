//! How archiving goes, as seen from outside: what the archive holds, and what waits.
//!
//! Guarantees that a reader of the state file sees one whole state. `archive_status` is the server's and is
//! only read here.

use crate::keep;
use module::{Failure, OrFail, SegmentSize, WalFileName};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// Where the server notes which files wait to be archived: `NAME.ready` (pgarch.c, 15 to 18).
const ARCHIVE_STATUS: &str = "pg_wal/archive_status";

/// How the state file is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Format {
    /// A line for each value.
    Text,
    /// One JSON object.
    Json,
}

/// What one look at the archive and at `archive_status` has found.
#[derive(Debug)]
pub(crate) struct State {
    beats: u64,
    archived: u64,
    last: String,
    waiting: u64,
    segment_size: SegmentSize,
}

impl State {
    /// Looks; an archive that is not configured or not there has no files.
    ///
    /// # Errors
    /// When the server's own directory cannot be listed.
    pub(crate) fn look(
        directory: &Path,
        segment_size: SegmentSize,
        beats: u64,
    ) -> Result<Self, Failure> {
        let mut state = State {
            beats,
            archived: 0,
            last: String::new(),
            waiting: 0,
            segment_size,
        };
        for name in names(directory).unwrap_or_default() {
            if let Ok(file) = name.parse::<WalFileName>() {
                state.archived += 1;
                if matches!(file, WalFileName::Segment(_)) && name > state.last {
                    state.last = name;
                }
            }
        }
        let status = names(Path::new(ARCHIVE_STATUS))
            .or_fail(format_args!("could not list \"{ARCHIVE_STATUS}\""))?;
        let is_ready = |name: &String| name.ends_with(".ready");
        state.waiting = status.iter().filter(|name| is_ready(name)).map(|_| 1).sum();
        Ok(state)
    }

    /// How much WAL waits; the few files that are no segments are counted as if they were.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.waiting.saturating_mul(self.segment_size.bytes())
    }

    /// Replaces the state file. Nothing is synced: after a power cut an old state is as good as none.
    pub(crate) fn write(&self, file: &Path, format: Format) -> io::Result<()> {
        let text = match format {
            Format::Text => format!(
                "beats {}\narchived {}\nlast {}\nwaiting {}\n",
                self.beats, self.archived, self.last, self.waiting
            ),
            // The one text among the values is the name of a segment: nothing in it needs escaping.
            Format::Json => format!(
                "{{\"beats\": {}, \"archived\": {}, \"last\": \"{}\", \"waiting\": {}}}\n",
                self.beats, self.archived, self.last, self.waiting
            ),
        };
        let new = file.with_extension("new");
        fs::write(&new, text)?;
        fs::rename(&new, file)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} files archived, {} waiting, last segment \"{}\"",
            self.archived, self.waiting, self.last
        )
    }
}

/// Removes the state file, if there is one.
pub(crate) fn remove(file: &Path) -> io::Result<()> {
    if file.as_os_str().is_empty() {
        return Ok(());
    }
    keep::remove(file)
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}
