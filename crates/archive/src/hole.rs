//! Is a missing segment the end of WAL, or a hole with WAL behind it?
//!
//! To the server both look the same: the file is not there, so recovery ends and a new timeline begins.
//! Evidence that WAL went on makes it a hole. Two kinds are taken, and nothing is guessed:
//! * a later segment, or partial segment, of the same timeline is stored;
//! * a stored timeline history file says that a timeline left this one in a later segment.
//!
//! No hole is reported before the segment in which the timeline begins. Where that is tells the timeline's
//! own history file; without it, what lies before the lowest stored segment of the timeline counts as
//! before it. A partial segment never counts as the segment itself: the server never asks for one.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use wal::{SegmentName, SegmentSize, TimelineHistory, TimelineId, WalFileName};

use crate::archive::{Archive, Hole};
use crate::binding::header_of;
use crate::check::HISTORY_BYTES_MAX;
use crate::codec::{Contents, Decoded};
use crate::error::{Error, ErrorKind};
use crate::key::parse_key;
use crate::store::Detail;

/// How many names of later files are given, at most: enough for a message.
pub const HOLE_NAMES_MAX: usize = 8;

/// How many stored segments are tried for the segment size: a few may be damaged, not all of them.
const SAMPLES_MAX: usize = 16;

/// See [`Archive::hole_at`].
pub(crate) fn hole_at(
    archive: &Archive,
    segment: &SegmentName,
    size: Option<SegmentSize>,
) -> Result<Option<Hole>, Error> {
    let mut line = Line::read(archive, segment)?;
    let size = match size {
        Some(size) => Some(size),
        None => line.segment_size(archive)?,
    };
    if !had_begun(archive, segment, &line, size)? {
        return Ok(None);
    }
    if let Some(size) = size {
        line.add_descendants(archive, segment, size)?;
    }
    if line.later_count == 0 {
        return Ok(None);
    }
    Ok(Some(Hole {
        missing: *segment,
        later: line.later.into_iter().collect(),
        later_count: line.later_count,
    }))
}

/// What the archive holds of one timeline, and which timeline history files.
#[derive(Default)]
struct Line {
    /// Names of files that prove WAL after the segment, the lowest ones only, and how many there are.
    later: BTreeSet<String>,
    later_count: u64,
    lowest: Option<SegmentName>,
    /// A few stored segments, to learn the segment size from.
    samples: Vec<String>,
    histories: Vec<(TimelineId, String)>,
}

impl Line {
    fn read(archive: &Archive, segment: &SegmentName) -> Result<Line, Error> {
        let mut line = Line::default();
        archive.store.list(Detail::Keys, &mut |entry| {
            let Some((name, _)) = parse_key(&entry.key) else {
                return ControlFlow::Continue(());
            };
            match &name {
                WalFileName::TimelineHistory(timeline) => {
                    line.histories.push((*timeline, entry.key));
                }
                WalFileName::Segment(stored) | WalFileName::Partial(stored) => {
                    let own = stored.timeline() == segment.timeline();
                    if line.samples.len() < SAMPLES_MAX {
                        line.samples.push(entry.key);
                    }
                    if own {
                        let lowest = line.lowest.get_or_insert(*stored);
                        *lowest = (*lowest).min(*stored);
                    }
                    if own && stored.position() > segment.position() {
                        line.add(name.to_string());
                    }
                }
                WalFileName::BackupHistory { .. } => {}
            }
            ControlFlow::Continue(())
        })?;
        Ok(line)
    }

    /// From the first sample that can be read: a damaged one says nothing, and is not what was asked for.
    fn segment_size(&self, archive: &Archive) -> Result<Option<SegmentSize>, Error> {
        for key in &self.samples {
            match header_of(archive, key) {
                Ok(Some(header)) => return Ok(Some(header.segment_size)),
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::Damaged => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn add(&mut self, name: String) {
        self.later_count += 1;
        self.later.insert(name);
        if self.later.len() > HOLE_NAMES_MAX {
            self.later.pop_last();
        }
    }

    /// Timelines that left this one in a later segment.
    fn add_descendants(
        &mut self,
        archive: &Archive,
        segment: &SegmentName,
        size: SegmentSize,
    ) -> Result<(), Error> {
        let Some(number) = segment.number(size) else {
            return Ok(());
        };
        for (timeline, key) in std::mem::take(&mut self.histories) {
            if timeline == segment.timeline() {
                continue;
            }
            let history = match read_history(archive, timeline, &key) {
                Ok(Some(history)) => history,
                Ok(None) => continue,
                // Another timeline's damaged file proves nothing, and is not what was asked for.
                Err(error) if error.kind() == ErrorKind::Damaged => continue,
                Err(error) => return Err(error),
            };
            let left = history.switchpoint_of(segment.timeline());
            if left.is_some_and(|switchpoint| switchpoint.segment(size) > number) {
                self.add(WalFileName::TimelineHistory(timeline).to_string());
            }
        }
        Ok(())
    }
}

/// True if the timeline must have had this segment as far as its beginning tells.
fn had_begun(
    archive: &Archive,
    segment: &SegmentName,
    line: &Line,
    size: Option<SegmentSize>,
) -> Result<bool, Error> {
    if segment.timeline() == TimelineId::FIRST {
        return Ok(true);
    }
    let own = line
        .histories
        .iter()
        .find(|(timeline, _)| *timeline == segment.timeline());
    let history = match own {
        Some((timeline, key)) => read_history(archive, *timeline, key)?,
        None => None,
    };
    match (history, size) {
        (Some(history), Some(size)) => {
            let begins = history
                .begins()
                .map(|switchpoint| switchpoint.segment(size));
            let number = segment.number(size);
            Ok(match (begins, number) {
                (Some(begins), Some(number)) => number >= begins,
                (None, _) => true,
                // No such segment exists at this size, so it cannot be missing.
                (_, None) => false,
            })
        }
        _ => Ok(line
            .lowest
            .is_some_and(|lowest| lowest.position() < segment.position())),
    }
}

/// A stored timeline history file; `None` if it has been removed meanwhile.
fn read_history(
    archive: &Archive,
    timeline: TimelineId,
    key: &str,
) -> Result<Option<TimelineHistory>, Error> {
    let Some((_, kind)) = parse_key(key) else {
        return Ok(None);
    };
    let Some(object) = archive.store.open(key)? else {
        return Ok(None);
    };
    let shown = archive.shown(key);
    let mut contents = vec![0; usize::try_from(HISTORY_BYTES_MAX).unwrap_or(usize::MAX)];
    let bytes = Decoded::new(object, kind, shown.clone())?.fill(&mut contents)?;
    TimelineHistory::parse(timeline, contents.get(..bytes).unwrap_or_default())
        .map(Some)
        .map_err(|cause| Error::damaged(format!("archive file \"{shown}\" is not valid: {cause}")))
}
