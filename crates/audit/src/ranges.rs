//! What WAL an archive has, in ranges: from where to where, since when until when, and what is missing between.
//!
//! Guarantees that little is read: the header of some segments, and of all where two sizes are met; and where times are asked
//! for, the first and last segment of each range, the timeline history files, and the backup history files. What cannot be
//! read is left out, and told. Whether the WAL is right is left to `verify`.

use std::collections::BTreeMap;

use archive::{Archive, Cancel, Error, ErrorKind};
use wal::{Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId, Timestamp, WalFileName};

use crate::backup_history::BackupHistory;
use crate::inventory::{Inventory, TimelineFiles};
use crate::lineage::{Lineage, Run, Runs, name_of};
use crate::measure::{Measure, Voters, measure};
use crate::scan::small::{Files, Small, names};
use crate::scan::{Expected, Reader};
use crate::sizes::{changes, differ, take_apart};

/// How much is to be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What names tell, and the size of segments.
    Names,
    /// Times, holes along the timelines, and labels of backups, too.
    Contents,
}

/// Segments that follow one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// First segment.
    pub first: SegmentName,
    /// Last segment.
    pub last: SegmentName,
    /// Number of segments.
    pub segments: u64,
    /// Where they begin, and where the WAL in them ends: the end of the last one unless that was read.
    pub places: Option<(Lsn, Lsn)>,
    /// The first and last time that a record in them tells, where those segments were read and some record does.
    pub times: (Option<Timestamp>, Option<Timestamp>),
}

/// Ranges and holes of one timeline.
#[derive(Clone, Debug, Default)]
pub struct TimelineRanges {
    /// Ranges of contiguous segments, oldest first.
    pub spans: Vec<Span>,
    /// Segments that are missing; of those that no timeline history file leads over, only with [`Depth::Names`].
    pub holes: Vec<Span>,
    /// How many bytes of WAL its segments are.
    pub wal_bytes: Option<u64>,
    /// How many bytes those take as stored.
    pub stored_bytes: u64,
    /// Its base backups by the names of their files; what they say where it was read.
    pub backups: BTreeMap<String, Option<BackupHistory>>,
}

/// Ranges of all timelines.
#[derive(Debug, Default)]
pub struct Ranges {
    /// Whose the segments are, and how long; `None` if that could not be read.
    pub measure: Option<Measure>,
    /// Ranges by timeline.
    pub timelines: BTreeMap<TimelineId, TimelineRanges>,
    /// What could not be read, in words.
    pub trouble: Vec<String>,
    /// Where the size of segments changes, in words.
    pub notes: Vec<String>,
}

/// Looks.
///
/// # Errors
/// When the archive is out of reach. What is damaged, or encrypted for others, is told in [`Ranges::trouble`].
pub fn ranges(
    archive: &Archive,
    inventory: &Inventory,
    depth: Depth,
    cancel: &Cancel,
) -> Result<Ranges, Error> {
    // Each segment is taken for what it says.
    let lineage = Lineage::default();
    let expected = Expected {
        archive,
        measure: None,
        lineage: &lineage,
        cancel,
    };
    let mut looker = Looker {
        archive,
        cancel,
        reader: Reader::new(&expected, true),
        size: inventory.likely_size(),
        ranges: Ranges::default(),
    };
    let has_wal = inventory.timelines.values().any(TimelineFiles::has_wal);
    if has_wal {
        match measure(archive, inventory, None, Voters::One, cancel) {
            Ok(measure) if measure.system.is_some() => {
                looker.size = measure.size;
                looker.ranges.measure = Some(measure);
            }
            // One that was guessed is no measure.
            Ok(_) => {}
            Err(error) => looker.tell(error)?,
        }
    }
    for (timeline, files) in &inventory.timelines {
        let found = looker.timeline(files);
        looker.ranges.timelines.insert(*timeline, found);
    }
    // Without histories each timeline is a line of its own.
    let lineage = match depth {
        Depth::Names => Lineage::default(),
        Depth::Contents => looker.small(inventory)?,
    };
    for (size, of) in looker.parts(inventory)? {
        looker.size = size;
        for (timeline, runs) in &of {
            looker.add(*timeline, runs, depth)?;
        }
        for hole in lineage.holes(&of, size) {
            let span = looker.span(hole.timeline, &hole.segments);
            let timeline = looker.ranges.timelines.entry(hole.timeline).or_default();
            timeline.holes.push(span);
        }
    }
    Ok(looker.ranges)
}

struct Looker<'a> {
    archive: &'a Archive,
    cancel: &'a Cancel,
    reader: Reader<'a>,
    size: SegmentSize,
    ranges: Ranges,
}

/// The first and last time that a segment tells, and where its WAL ends.
type Told = (Option<(Timestamp, Timestamp)>, Option<Lsn>);

/// Whether nothing can be read any more.
fn is_away(error: &Error) -> bool {
    let is_away = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Cancelled);
    is_away && !error.is_no_file()
}

impl Looker<'_> {
    /// Takes note of something that could not be read, unless nothing can be.
    fn tell(&mut self, error: Error) -> Result<(), Error> {
        if is_away(&error) {
            return Err(error);
        }
        self.ranges.trouble.push(error.to_string());
        Ok(())
    }

    fn span(&self, timeline: TimelineId, run: &Run) -> Span {
        let (first, last) = (*run.start(), *run.end());
        let name = |number| name_of(timeline, number, self.size);
        let bytes = self.size.bytes();
        let places = self.ranges.measure.map(|_| {
            let end = last.saturating_add(1).saturating_mul(bytes);
            (Lsn(first.saturating_mul(bytes)), Lsn(end))
        });
        Span {
            first: name(first),
            last: name(last),
            segments: last - first + 1,
            places,
            times: (None, None),
        }
    }

    /// The runs of segments of each size, the oldest WAL first.
    fn parts(&mut self, inventory: &Inventory) -> Result<Vec<(SegmentSize, Runs)>, Error> {
        let (archive, cancel) = (self.archive, self.cancel);
        let parts = match self.ranges.measure {
            Some(measure) if differ(archive, inventory, measure, cancel)? => {
                take_apart(archive, inventory, measure, cancel)?
            }
            _ => None,
        };
        let Some(parts) = parts else {
            return Ok(vec![(self.size, inventory.runs(self.size))]);
        };
        let changes = changes(&parts).into_iter().map(|(_, change)| change);
        self.ranges.notes.extend(changes);
        if let (Some(measure), Some(latest)) = (&mut self.ranges.measure, parts.last()) {
            measure.size = latest.size;
        }
        let parts = parts.iter().map(|it| (it.size, it.inventory.runs(it.size)));
        Ok(parts.collect())
    }

    /// What a timeline has beside segments.
    fn timeline(&self, files: &TimelineFiles) -> TimelineRanges {
        let backups = files.backups.iter().map(|(segment, offset)| {
            let (segment, offset) = (*segment, *offset);
            let name = WalFileName::BackupHistory { segment, offset };
            (name.to_string(), None)
        });
        TimelineRanges {
            backups: backups.collect(),
            wal_bytes: self.ranges.measure.map(|_| 0),
            stored_bytes: files.stored.bytes,
            ..TimelineRanges::default()
        }
    }

    /// Reads timeline history files and backup history files.
    fn small(&mut self, inventory: &Inventory) -> Result<Lineage, Error> {
        let files = Files {
            archive: self.archive,
            cancel: self.cancel,
            readers: 0,
            gives_up: &is_away,
        };
        let mut lineage = Lineage::default();
        for (name, small) in files.read(&names(inventory), &|| ()) {
            let contents = match small {
                Small::Contents(contents) => contents,
                Small::Failed(error) => {
                    self.tell(error)?;
                    continue;
                }
                Small::TooLong | Small::Gone => continue,
            };
            let timeline = name.timeline();
            if let WalFileName::TimelineHistory(_) = name {
                if let Ok(history) = TimelineHistory::parse(timeline, &contents) {
                    lineage.add(history);
                }
            } else if let Some(of) = self.ranges.timelines.get_mut(&timeline) {
                let backup = BackupHistory::parse(&contents).ok();
                of.backups.insert(name.to_string(), backup);
            }
        }
        Ok(lineage)
    }

    /// Adds segments of one size to what is known of a timeline.
    fn add(&mut self, timeline: TimelineId, runs: &[Run], depth: Depth) -> Result<(), Error> {
        let (mut spans, mut segments) = (Vec::new(), 0_u64);
        for run in runs {
            let mut span = self.span(timeline, run);
            if depth == Depth::Contents {
                let first = self.read(span.first)?;
                let last = if span.first == span.last {
                    first
                } else {
                    self.read(span.last)?
                };
                span.times = (first.0.map(|it| it.0), last.0.map(|it| it.1));
                if let (Some((_, end)), Some(read)) = (&mut span.places, last.1) {
                    *end = read;
                }
            }
            segments = segments.saturating_add(span.segments);
            spans.push(span);
        }
        let bytes = segments.saturating_mul(self.size.bytes());
        let found = self.ranges.timelines.entry(timeline).or_default();
        found.spans.extend(spans);
        found.wal_bytes = found.wal_bytes.map(|before| before.saturating_add(bytes));
        Ok(())
    }

    /// What a segment tells of its times and its end, as far as it can be read.
    fn read(&mut self, name: SegmentName) -> Result<Told, Error> {
        let seen = self.reader.segment(name, &WalFileName::Segment(name));
        if let Some(error) = seen.error {
            self.tell(error)?;
        } else if seen.why.is_some() {
            let messages = seen.findings.into_iter().map(|finding| finding.message);
            self.ranges.trouble.extend(messages);
        }
        Ok((seen.times, seen.until))
    }
}

#[cfg(test)]
mod tests {
    use archive::{MemoryStore, Options};

    use super::*;

    #[test]
    fn where_no_segment_can_be_read_their_names_tell_how_long_they_are() {
        let store = MemoryStore::new();
        // Of 1 GB.
        for key in ["0000000000000002", "0000000000000003", "0000000100000000"] {
            store.overwrite(
                &format!("00000001{key}"),
                b"age-encryption.org/v1 nobody can read this",
            );
        }
        let archive = Archive::with_store(Box::new(store), Options::default());
        let inventory = Inventory::take(&archive, &mut |_| ()).unwrap();
        let found = ranges(&archive, &inventory, Depth::Names, &Cancel::new()).unwrap();
        assert!(found.measure.is_none());
        let first = &found.timelines[&TimelineId::FIRST];
        assert_eq!(first.holes, []);
        let segments: Vec<u64> = first.spans.iter().map(|span| span.segments).collect();
        assert_eq!(segments, [3]);
    }
}
