//! Is a file that is not stored absent, or missing? The only file of the archive that finds evidence either way.
//!
//! To the server both look the same: the file is not there, so recovery ends, or it follows another timeline. What speaks
//! against "absent" for segment N of timeline t, unless N lies before the place where t begins:
//! * (a) an object named `N.*` that is no WAL file's name: somebody packed the file (this holds before t's beginning, too);
//! * (b) a later segment of t, in any form, packed by somebody or partial;
//! * (c) a timeline history file, stored or at hand, that says t was left at or behind the start of the next segment.
//!
//! (b) and (c) say nothing where the line under recovery left t before the next segment: what t did behind its fork is not
//! on the line. Never evidence: forks in N or before it, WAL of other timelines, what was cleaned up.
//!
//! What speaks against "absent" for a timeline history file: the same (a), WAL of its timeline beside WAL of a lower one, a
//! stored history that names it, and for who looks for the latest timeline a stored history above it.
//!
//! Guarantees: evidence comes from complete listings, and a store that cannot be asked is an error; so is a history that is
//! locked. Another file that is damaged proves nothing and does not stand in the way. Left to the crate `recovery`: who is
//! told what.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;

use wal::{Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId, WalFileName};

use super::lookup;
use crate::archive::Archive;
use crate::archive::binding::{self, BINDING_KEY};
use crate::error::{Error, ErrorKind};
use crate::format::check::HISTORY_BYTES_MAX;
use crate::format::codec::Contents;
use crate::store::key::{beside, parse_key};
use crate::store::waist::Detail;

/// How many names of later files are given, at most: enough for a message.
const LATER_NAMES_MAX: usize = 8;

/// How many stored segments are tried for the segment size: a few may be damaged, not all of them.
const SAMPLES_MAX: usize = 16;

/// How many timeline history files are read, newest first. A cluster has a handful.
const HISTORIES_MAX: usize = 1024;

/// Digits of a segment's name.
const SEGMENT_DIGITS: usize = 24;

/// A segment that is not stored, and what whoever looks for it knows.
#[derive(Debug)]
pub struct SoughtSegment<'a> {
    /// Name of the segment.
    pub segment: SegmentName,
    /// The server's segment size, if it is known; else a stored segment tells it.
    pub size: Option<SegmentSize>,
    /// The line under recovery is known to leave the segment's timeline before the next segment.
    pub is_fork: bool,
    /// Timeline history files that lie elsewhere, in `pg_wal`.
    pub at_hand: &'a [TimelineHistory],
}

/// What the archive holds that speaks for or against a missing segment's absence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SegmentEvidence {
    /// It is there by now: fetch it again.
    pub is_stored: bool,
    /// Its partial segment is stored.
    pub has_partial: bool,
    /// Why it must have existed, if it must.
    pub against: Option<Evidence>,
}

/// Why a file that is not stored must have existed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// The object of this key is stored: the file, in a form that Walden does not read.
    Packed(String),
    /// Later segments of the timeline are stored.
    Later {
        /// The first of their keys, at most eight, in order.
        keys: Vec<String>,
        /// Number of segments.
        count: u64,
    },
    /// The timeline was left behind the segment.
    Left {
        /// The timeline whose history says so.
        by: TimelineId,
        /// LSN at which the timeline was left.
        at: Lsn,
    },
    /// A segment of the timeline is stored, and one of a lower timeline.
    OwnSegment(SegmentName),
    /// The history of this timeline names the one whose history file is missing.
    Named(TimelineId),
    /// The history file of this later timeline is stored.
    LaterHistory(TimelineId),
}

impl fmt::Display for Evidence {
    /// Completes a sentence that begins with the missing file: what the archive holds instead.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Evidence::Packed(key) => {
                write!(f, "which holds \"{key}\", a form that Walden does not read")
            }
            Evidence::Later { keys, count } => {
                write!(f, "which holds later ones: \"{}\"", keys.join("\", \""))?;
                let shown = u64::try_from(keys.len()).unwrap_or(u64::MAX);
                match count.saturating_sub(shown) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Evidence::Left { by, at } => {
                let file = WalFileName::TimelineHistory(*by);
                write!(f, "and \"{file}\" says that its timeline went on to {at}")
            }
            Evidence::OwnSegment(segment) => {
                write!(f, "which holds WAL of its timeline: \"{segment}\"")
            }
            Evidence::Named(by) => {
                let file = WalFileName::TimelineHistory(*by);
                write!(f, "which holds \"{file}\", and that names its timeline")
            }
            Evidence::LaterHistory(later) => {
                let file = WalFileName::TimelineHistory(*later);
                write!(f, "which holds that of a later timeline: \"{file}\"")
            }
        }
    }
}

impl Archive {
    /// "Absent" needs more than a name that is not there: an unmounted mount point is an empty directory. Asked behind every look
    /// that it has to cover.
    ///
    /// A bound archive proves itself by its binding, read again now. An unbound one proves itself by holding any WAL file at
    /// all: nobody recovers from an archive that holds none, so nothing is lost by calling that "could not tell".
    ///
    /// Fails with [`crate::ErrorKind::Unavailable`] if this is not the archive.
    pub fn prove_present(&self) -> Result<(), Error> {
        if binding::read(self)?.is_some() {
            return Ok(());
        }
        let mut holds_wal = false;
        self.store.list("", Detail::Keys, &mut |entry| {
            holds_wal = parse_key(&entry.key).is_some();
            if holds_wal {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if holds_wal {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "archive \"{}\" holds no WAL and no \"{BINDING_KEY}\"",
            self.place()
        ))
        .with_hint(if self.may_be_unmounted() {
            "Is the archive's file system mounted? Is this the right directory?"
        } else {
            "Is this the right bucket or container, and the right prefix?"
        }))
    }

    /// Whether a listing of the timeline from this segment on shows nothing at all: one request, for whoever asks for the same
    /// segment again and again. False proves nothing: see [`Archive::segment_evidence`].
    ///
    /// Fails when the archive cannot be listed.
    pub fn ends_before(&self, segment: &SegmentName) -> Result<bool, Error> {
        let name = segment.to_string();
        let timeline = name.get(..8).unwrap_or_default();
        // Not behind the name itself: it may have been stored since it was looked for.
        let before = name.get(..SEGMENT_DIGITS - 1).unwrap_or_default();
        let mut ends = true;
        let store = &self.store;
        store.list_after(timeline, before, Detail::Keys, &mut |entry| {
            ends = !is_of_segment_from(&entry.key, segment);
            if ends {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(ends)
    }

    /// What speaks against the absence of a segment that is not stored: a listing of everything, and the timeline history files.
    ///
    /// Fails when the archive cannot be read; that is never the end of WAL.
    pub fn segment_evidence(&self, sought: &SoughtSegment<'_>) -> Result<SegmentEvidence, Error> {
        let listed = Listed::segments_beside(self, &sought.segment)?;
        let mut evidence = SegmentEvidence {
            is_stored: listed.is_stored,
            has_partial: listed.has_partial,
            against: listed.packed.clone().map(Evidence::Packed),
        };
        if evidence.is_stored || evidence.against.is_some() || sought.is_fork {
            return Ok(evidence);
        }
        let size = match sought.size {
            Some(size) => Some(size),
            None => listed.segment_size(self)?,
        };
        let histories = Histories::read(self, &listed.histories, sought.at_hand)?;
        if histories.begins_behind(&sought.segment, size, listed.lowest) {
            return Ok(evidence);
        }
        evidence.against = match listed.later_count {
            0 => size.and_then(|size| histories.left_behind(&sought.segment, size)),
            count => Some(Evidence::Later {
                keys: listed.later.into_iter().collect(),
                count,
            }),
        };
        Ok(evidence)
    }

    /// What speaks against the absence of a timeline history file that is not stored. `for_latest`: whoever asks looks for the
    /// latest timeline.
    ///
    /// Fails when the archive cannot be read.
    pub fn history_evidence(
        &self,
        timeline: TimelineId,
        for_latest: bool,
    ) -> Result<Option<Evidence>, Error> {
        let listed = Listed::histories_beside(self, timeline)?;
        if let Some(key) = listed.packed {
            return Ok(Some(Evidence::Packed(key)));
        }
        if let Some(own) = listed.lowest
            && listed.has_lower_timeline
        {
            return Ok(Some(Evidence::OwnSegment(own)));
        }
        let later = listed.histories.iter().copied().filter(|it| *it > timeline);
        let later: BTreeSet<TimelineId> = later.collect();
        let histories = Histories::read(self, &later, &[])?;
        if let Some(by) = histories.naming(timeline) {
            return Ok(Some(Evidence::Named(by)));
        }
        let above = later.first().filter(|_| for_latest);
        Ok(above.map(|above| Evidence::LaterHistory(*above)))
    }

    /// A stored timeline history file; `None` if it is not stored.
    ///
    /// Fails with [`ErrorKind::Damaged`] if it cannot be understood, or as [`Archive::get`] does.
    pub fn stored_history(&self, timeline: TimelineId) -> Result<Option<TimelineHistory>, Error> {
        read_history(self, timeline)
    }

    /// The key of an object that is this file in a form which Walden does not read, if there is one.
    ///
    /// Fails when the archive cannot be listed.
    pub fn packed(&self, name: &WalFileName) -> Result<Option<String>, Error> {
        let mut packed = None;
        let prefix = name.to_string();
        self.store.list(&prefix, Detail::Keys, &mut |entry| {
            if beside(&entry.key) == Some(*name) {
                packed = packed.take().into_iter().chain([entry.key]).min();
            }
            ControlFlow::Continue(())
        })?;
        Ok(packed)
    }
}

/// The segment that a key is about: its own name, or one with anything behind a dot, but for backup history files.
fn segment_of(key: &str) -> Option<SegmentName> {
    let (digits, rest) = key.split_at_checked(SEGMENT_DIGITS)?;
    let segment = digits.parse().ok()?;
    let is_its = rest.is_empty() || rest.starts_with('.');
    let is_backup = matches!(key.parse(), Ok(WalFileName::BackupHistory { .. }));
    (is_its && !is_backup).then_some(segment)
}

/// Whether a key stands for this segment or a later one of its timeline, in any form.
fn is_of_segment_from(key: &str, segment: &SegmentName) -> bool {
    segment_of(key).is_some_and(|stored| {
        stored.timeline() == segment.timeline() && stored.position() >= segment.position()
    })
}

/// What one listing shows.
#[derive(Default)]
struct Listed {
    is_stored: bool,
    has_partial: bool,
    packed: Option<String>,
    /// Keys that prove WAL behind the segment, the lowest ones only, and how many there are.
    later: BTreeSet<String>,
    later_count: u64,
    /// The lowest segment of the timeline that is whole.
    lowest: Option<SegmentName>,
    has_lower_timeline: bool,
    /// A few stored segments, to learn the segment size from.
    samples: Vec<SegmentName>,
    histories: BTreeSet<TimelineId>,
}

impl Listed {
    /// Everything that may speak about this segment.
    fn segments_beside(archive: &Archive, segment: &SegmentName) -> Result<Listed, Error> {
        let mut listed = Listed::default();
        let name = segment.to_string();
        archive.store.list("", Detail::Keys, &mut |entry| {
            let key = entry.key;
            listed.note(&key, segment.timeline());
            if beside(&key) == Some(WalFileName::Segment(*segment)) {
                // Of several the first one, in the order of their names.
                listed.packed = listed.packed.take().into_iter().chain([key]).min();
            } else if let Some(stored) = segment_of(&key)
                && stored.timeline() == segment.timeline()
            {
                if stored == *segment {
                    listed.is_stored |= key == name;
                    listed.has_partial |= key != name;
                } else if stored.position() > segment.position() {
                    listed.add_later(key);
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(listed)
    }

    /// Everything that may speak about this timeline's history file.
    fn histories_beside(archive: &Archive, timeline: TimelineId) -> Result<Listed, Error> {
        let mut listed = Listed::default();
        let name = WalFileName::TimelineHistory(timeline);
        archive.store.list("", Detail::Keys, &mut |entry| {
            listed.note(&entry.key, timeline);
            if beside(&entry.key) == Some(name) {
                listed.packed = listed.packed.take().into_iter().chain([entry.key]).min();
            }
            ControlFlow::Continue(())
        })?;
        Ok(listed)
    }

    fn note(&mut self, key: &str, timeline: TimelineId) {
        let own = key.parse().ok();
        // A history counts in any form.
        if let Some(WalFileName::TimelineHistory(stored)) = own.or_else(|| beside(key)) {
            self.histories.insert(stored);
            return;
        }
        if let Some(WalFileName::Segment(stored)) = own
            && self.samples.len() < SAMPLES_MAX
        {
            self.samples.push(stored);
        }
        let Some(stored) = segment_of(key) else {
            return;
        };
        self.has_lower_timeline |= stored.timeline() < timeline;
        if stored.timeline() == timeline {
            let lowest = self.lowest.get_or_insert(stored);
            *lowest = (*lowest).min(stored);
        }
    }

    fn add_later(&mut self, key: String) {
        self.later_count += 1;
        self.later.insert(key);
        if self.later.len() > LATER_NAMES_MAX {
            self.later.pop_last();
        }
    }

    /// From the first sample that can be read: a damaged one says nothing, and is not what was asked for.
    fn segment_size(&self, archive: &Archive) -> Result<Option<SegmentSize>, Error> {
        for segment in &self.samples {
            match lookup::header_of(archive, &segment.to_string()) {
                Ok(Some(header)) => return Ok(Some(header.segment_size)),
                Ok(None) => {}
                Err(error) if proves_nothing(&error) || error.is_no_file() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// The histories of timelines, stored and at hand.
struct Histories(Vec<TimelineHistory>);

impl Histories {
    fn read(
        archive: &Archive,
        stored: &BTreeSet<TimelineId>,
        at_hand: &[TimelineHistory],
    ) -> Result<Histories, Error> {
        let mut histories = at_hand.to_vec();
        for timeline in stored.iter().rev().take(HISTORIES_MAX) {
            match read_history(archive, *timeline) {
                Ok(found) => histories.extend(found),
                Err(error) if proves_nothing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Histories(histories))
    }

    /// Whether the segment lies before its timeline begins, as far as can be told: without a history that says where that is,
    /// the timeline's lowest stored segment has to do.
    fn begins_behind(
        &self,
        segment: &SegmentName,
        size: Option<SegmentSize>,
        lowest: Option<SegmentName>,
    ) -> bool {
        if segment.timeline() == TimelineId::FIRST {
            return false;
        }
        match (self.beginning(segment.timeline()), size) {
            (Some(begins), Some(size)) => match (begins, segment.number(size)) {
                (Some(begins), Some(number)) => number < begins.segment(size),
                (None, _) => false,
                // There is no such segment of this size, so it is not missing.
                (_, None) => true,
            },
            _ => lowest.is_none_or(|lowest| segment.position() < lowest.position()),
        }
    }

    /// Where a timeline begins, if any history tells: its own, or one that names it behind the timeline that it left. The inner
    /// `None`: nothing comes before it.
    fn beginning(&self, timeline: TimelineId) -> Option<Option<Lsn>> {
        let own = self.0.iter().find(|it| it.timeline() == timeline);
        let named = || {
            self.0.iter().find_map(|history| {
                let entries = history.entries();
                let at = entries.iter().position(|it| it.timeline == timeline)?;
                let before = at.checked_sub(1).and_then(|before| entries.get(before));
                Some(before.map(|it| it.switchpoint))
            })
        };
        own.map(TimelineHistory::begins).or_else(named)
    }

    /// A history that left the segment's timeline at or behind the start of the next segment.
    fn left_behind(&self, segment: &SegmentName, size: SegmentSize) -> Option<Evidence> {
        let next = segment.next(size)?.start(size)?;
        self.0.iter().find_map(|history| {
            let at = history.left(segment.timeline())?;
            let by = history.timeline();
            (at >= next).then_some(Evidence::Left { by, at })
        })
    }

    /// The timeline whose history names this one.
    fn naming(&self, timeline: TimelineId) -> Option<TimelineId> {
        let names = |history: &&TimelineHistory| history.switchpoint_of(timeline).is_some();
        self.0.iter().find(names).map(TimelineHistory::timeline)
    }
}

/// Another file than the one asked for that is damaged proves nothing and stands in nobody's way.
fn proves_nothing(error: &Error) -> bool {
    error.kind() == ErrorKind::Damaged
}

fn read_history(archive: &Archive, timeline: TimelineId) -> Result<Option<TimelineHistory>, Error> {
    let key = WalFileName::TimelineHistory(timeline).to_string();
    let Some(object) = archive.store.open(&key)? else {
        return Ok(None);
    };
    let shown = archive.shown(&key);
    let mut contents = vec![0; usize::try_from(HISTORY_BYTES_MAX).unwrap_or(usize::MAX)];
    let bytes = archive.decode(object, &key)?.fill(&mut contents)?;
    TimelineHistory::parse(timeline, contents.get(..bytes).unwrap_or_default())
        .map(Some)
        .map_err(|cause| Error::damaged(format!("archive file \"{shown}\" is not valid: {cause}")))
}
