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
//!
//! Finding out takes a listing of the whole archive. Where nothing ends over a missing segment, on a standby that
//! asks again every few seconds, [`Holes`] does with less.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wal::{SegmentName, SegmentSize, TimelineHistory, TimelineId, WalFileName};

use crate::archive::{Archive, Hole};
use crate::binding::header_of;
use crate::check::HISTORY_BYTES_MAX;
use crate::codec::Contents;
use crate::error::{Error, ErrorKind};
use crate::key::{key_of, parse_key};
use crate::store::Detail;

/// How many names of later files are given, at most: enough for a message.
pub const HOLE_NAMES_MAX: usize = 8;

/// How many stored segments are tried for the segment size: a few may be damaged, not all of them.
const SAMPLES_MAX: usize = 16;

/// How many segments behind a missing one are looked for by name.
const NEAR: usize = 3;

/// How long a hole must have been there before it is one for somebody who asks again: an archive to which several files
/// go at once has a later one before an earlier one for a moment, and that is no trouble.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// How long a listing holds for one missing segment, where a listing each time would cost too much.
const LISTED_HOLDS: Duration = Duration::from_secs(60);

/// How many missing segments are remembered: a standby asks for one on each timeline of its history.
const REMEMBERED_MAX: usize = 16;

/// What to make of a segment that the archive does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// It is absent, and nothing follows from that.
    Final,
    /// Recovery would end over it: see [`Archive::hole_at`].
    MayEnd,
    /// It will be asked for again soon. A hole is told at once, or rather after a second look, when one of the next
    /// segments is there, and within a minute otherwise.
    AskedAgain,
}

/// What is known of segments that are missing again and again.
#[derive(Debug, Default)]
pub(crate) struct Holes {
    looked: Vec<Looked>,
}

#[derive(Debug, Clone)]
struct Looked {
    archive: String,
    segment: SegmentName,
    listed: Instant,
    /// One of the next segments was there.
    near: bool,
    hole: Option<Hole>,
    /// Since when there has been a hole.
    since: Instant,
}

/// What a look has shown.
#[derive(Debug)]
pub(crate) enum Seen {
    /// No later segments, as far as was looked.
    Nothing,
    /// A hole, seen for the first time: to be looked at once more after [`SETTLED_AFTER`].
    Unsettled,
    Hole(Hole),
}

impl Looked {
    fn seen(self) -> Seen {
        match self.hole {
            None => Seen::Nothing,
            Some(hole) if self.since.elapsed() >= SETTLED_AFTER => Seen::Hole(hole),
            Some(_) => Seen::Unsettled,
        }
    }
}

impl Holes {
    /// Whether the segment, which the archive does not have, is a hole. Nothing is locked while the archive is asked.
    pub(crate) fn look(
        holes: &Mutex<Holes>,
        archive: &Archive,
        segment: &SegmentName,
        size: SegmentSize,
        absence: Absence,
    ) -> Result<Seen, Error> {
        match absence {
            Absence::Final => return Ok(Seen::Nothing),
            Absence::MayEnd => {
                let hole = hole_at(archive, segment, Some(size))?;
                return Ok(hole.map_or(Seen::Nothing, Seen::Hole));
            }
            Absence::AskedAgain => {}
        }
        let near = is_near(archive, segment, size)?;
        let known = Holes::lock(holes).known(archive, segment);
        if let Some(known) = &known
            && known.listed.elapsed() < LISTED_HOLDS
        {
            match &known.hole {
                // A hole with its proof gone (cleaned up) is looked at again.
                Some(hole) if near || proof_stands(archive, hole)? => {
                    return Ok(known.clone().seen());
                }
                None if !near || known.near => return Ok(Seen::Nothing),
                _ => {}
            }
        }
        let since = known.filter(|known| known.hole.is_some());
        let looked = Looked {
            archive: archive.place(),
            segment: *segment,
            listed: Instant::now(),
            near,
            hole: hole_at(archive, segment, Some(size))?,
            since: since.map_or_else(Instant::now, |known| known.since),
        };
        Holes::lock(holes).remember(looked.clone());
        Ok(looked.seen())
    }

    fn lock(holes: &Mutex<Holes>) -> MutexGuard<'_, Holes> {
        holes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&mut self, archive: &Archive, segment: &SegmentName) -> Option<Looked> {
        let place = archive.place();
        self.looked.retain(|looked| looked.archive == place);
        self.looked
            .iter()
            .find(|looked| looked.segment == *segment)
            .cloned()
    }

    fn remember(&mut self, looked: Looked) {
        self.looked.retain(|old| old.segment != looked.segment);
        if self.looked.len() >= REMEMBERED_MAX {
            self.looked.remove(0);
        }
        self.looked.push(looked);
    }
}

/// Whether one of the next segments of the same timeline is there.
fn is_near(archive: &Archive, segment: &SegmentName, size: SegmentSize) -> Result<bool, Error> {
    let mut next = segment.next(size);
    for _ in 0..NEAR {
        let Some(now) = next else { break };
        if is_stored(archive, &WalFileName::Segment(now))? {
            return Ok(true);
        }
        next = now.next(size);
    }
    Ok(false)
}

fn proof_stands(archive: &Archive, hole: &Hole) -> Result<bool, Error> {
    match hole.later.first().map(|name| name.parse()) {
        Some(Ok(name)) => is_stored(archive, &name),
        _ => Ok(false),
    }
}

fn is_stored(archive: &Archive, name: &WalFileName) -> Result<bool, Error> {
    Ok(archive.store.open(&key_of(name))?.is_some())
}

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
        archive.store.list("", Detail::Keys, &mut |entry| {
            let Some(name) = parse_key(&entry.key) else {
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
    let Some(object) = archive.store.open(key)? else {
        return Ok(None);
    };
    let shown = archive.shown(key);
    let mut contents = vec![0; usize::try_from(HISTORY_BYTES_MAX).unwrap_or(usize::MAX)];
    let bytes = archive.decode(object, key)?.fill(&mut contents)?;
    TimelineHistory::parse(timeline, contents.get(..bytes).unwrap_or_default())
        .map(Some)
        .map_err(|cause| Error::damaged(format!("archive file \"{shown}\" is not valid: {cause}")))
}
