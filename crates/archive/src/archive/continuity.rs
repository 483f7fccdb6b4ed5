//! How a segment fits those before and behind it, as far as they have passed by or are at hand.
//!
//! Guarantees that of two segments which follow each other and were both read by this process, the one that comes later is
//! not handed on unless the record that goes over their boundary is right, and their records are one chain; the same if the
//! first lies in the directory that the second comes from or goes to. Segments may come in any order, and from several threads.
//! A segment whose neighbours were not seen is checked alone: an audit of the whole archive is what sees all of them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use wal::{Damage, Lsn, SegmentName, SegmentSummary, WalFileName};

use crate::error::Error;
use crate::pg_wal::folder::segment_in;

const ALL_THE_SAME: &str = "One of the two is not what the server wrote. With \"walden.verify\" set to \"header\" \
     records are not looked at.";

/// How many segments are remembered: more than are ever on their way at once. About 200 kB at most.
const REMEMBERED_MAX: usize = 48;

/// What is known of the segments that passed by last.
#[derive(Debug, Default)]
pub(crate) struct Continuity {
    seen: Mutex<VecDeque<SegmentSummary>>,
}

impl Continuity {
    /// Fails unless the segment, which messages call `shown`, fits what has been seen of its neighbours. If that says nothing of
    /// the one before, or too little, the file that lies in `directory` is asked: there the server has what it wrote or replayed.
    pub(crate) fn check(
        &self,
        summary: &SegmentSummary,
        directory: Option<&Path>,
        shown: &str,
    ) -> Result<(), Error> {
        self.join(summary, directory).map_err(|(other, damage)| {
            Error::damaged(format!("{shown} does not fit \"{other}\": {damage}"))
                .with_hint(ALL_THE_SAME)
        })
    }

    fn join(
        &self,
        summary: &SegmentSummary,
        directory: Option<&Path>,
    ) -> Result<(), (SegmentName, Damage)> {
        let seen = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            // The one on its own timeline counts more than what its first page says of itself.
            let by_name = seen.iter().find(|other| is_named_before(other, summary));
            let before = by_name.or_else(|| seen.iter().find(|other| other.precedes(summary)));
            let behind = seen.iter().find(|other| summary.precedes(other));
            (before.cloned(), behind.cloned())
        };
        let (before, behind) = seen;
        let mut own = summary.clone();
        let known = before.map(|before| join(&before, &mut own));
        if !matches!(known, Some(Ok(()))) {
            let there = directory.and_then(|directory| before_in(directory, summary));
            match (there, known) {
                (Some(there), _) => {
                    own = summary.clone();
                    join(&there, &mut own)?;
                }
                (None, Some(known)) => known?,
                (None, None) => {}
            }
        }
        match behind {
            Some(mut behind) => {
                let joined = own.join(&mut behind, |_| ());
                joined.map_err(|damage| (behind.name, damage))
            }
            None => Ok(()),
        }
    }

    /// Remembers a segment that was handed on. WAL ends in a partial segment, so that none follows it.
    pub(crate) fn remember(&self, name: &WalFileName, summary: SegmentSummary) {
        if !matches!(name, WalFileName::Segment(_)) {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A record over several segments is checked only in order, so a segment may know more of it than it could itself.
        seen.retain(|other| other.name != summary.name);
        if seen.len() >= REMEMBERED_MAX {
            seen.pop_front();
        }
        seen.push_back(summary);
    }
}

fn join(before: &SegmentSummary, own: &mut SegmentSummary) -> Result<(), (SegmentName, Damage)> {
    let joined = before.join(own, |_| ());
    joined.map_err(|damage| (before.name, damage))
}

fn is_named_before(other: &SegmentSummary, summary: &SegmentSummary) -> bool {
    other.name.next(summary.header.segment_size) == Some(summary.name)
}

/// What the segment before is, as it lies in a directory; `None` if it is not there to its end, or is another file's contents
/// under a new name.
fn before_in(directory: &Path, summary: &SegmentSummary) -> Option<SegmentSummary> {
    let name = summary.name.previous(summary.header.segment_size)?;
    let of_parent = name.with_timeline(summary.header.timeline);
    let found = [name, of_parent]
        .into_iter()
        .find_map(|name| segment_in(directory, name))?;
    is_whole(&found, summary).then_some(found)
}

/// What a segment is that lies in a directory; `None` if it is not there to its end, or of another system than `summary`.
pub(crate) fn whole_in(
    directory: &Path,
    name: &SegmentName,
    summary: &SegmentSummary,
) -> Option<SegmentSummary> {
    let found = segment_in(directory, *name)?;
    is_whole(&found, summary).then_some(found)
}

fn is_whole(found: &SegmentSummary, summary: &SegmentSummary) -> bool {
    let is_same = found.header.system == summary.header.system;
    is_same && !found.is_cut()
}

/// For a segment in which WAL ends, although it goes on in the next.
pub(crate) fn ends_early(shown: &str, lsn: Lsn, there: &str) -> Error {
    Error::damaged(format!(
        "{shown} is not valid: WAL ends at {lsn}, although {there}"
    ))
    .with_hint(ALL_THE_SAME)
}

#[cfg(test)]
mod tests {
    use fixtures::Written;
    use wal::{Record, SegmentReader};

    use super::*;

    const SEGMENT: usize = 1024 * 1024;

    fn read(name: SegmentName, bytes: &[u8]) -> SegmentSummary {
        let mut reader = SegmentReader::new(name);
        reader.feed(bytes, |_: &Record<'_>| ()).unwrap();
        reader.finish().unwrap()
    }

    /// Two segments with a record over their boundary; `flipped` is the segment of it that is damaged, if any.
    fn pair(flipped: Option<usize>) -> [SegmentSummary; 2] {
        let mut wal = Written::new();
        wal.fill(SEGMENT - 40_000);
        wal.data(80_000);
        wal.fill(SEGMENT + 90_000);
        let mut segments = wal.segments(1);
        if let Some(index) = flipped {
            // Within the long record.
            let at = [SEGMENT - 5000, 5000][index];
            segments[index].1[at] ^= 4;
        }
        let [one, two] = [&segments[0], &segments[1]];
        [read(one.0, &one.1), read(two.0, &two.1)]
    }

    fn as_segment(summary: &SegmentSummary) -> WalFileName {
        WalFileName::Segment(summary.name)
    }

    #[test]
    fn a_record_over_two_segments_is_checked_with_whichever_comes_second() {
        for flipped in [None, Some(0), Some(1)] {
            let [one, two] = pair(flipped);
            for (first, second) in [(&one, &two), (&two, &one)] {
                let seen = Continuity::default();
                assert!(seen.check(first, None, "the first").is_ok());
                seen.remember(&as_segment(first), first.clone());
                let checked = seen.check(second, None, "the second");
                assert_eq!(checked.is_ok(), flipped.is_none(), "{checked:?}");
                if let Err(error) = checked {
                    let text = error.to_string();
                    assert!(text.starts_with("the second does not fit \""), "{text}");
                    assert!(text.contains("the record has checksum"), "{text}");
                }
            }
        }
    }

    #[test]
    fn what_ends_in_a_partial_segment_goes_on_in_none() {
        let [one, two] = pair(None);
        let seen = Continuity::default();
        // As far as it goes it is the same, but for its end.
        let mut ended = Written::new();
        ended.fill(SEGMENT - 40_000);
        let (name, bytes) = ended.segments(1).remove(0);
        let ended = read(name, &bytes);
        seen.remember(&WalFileName::Partial(name), ended.clone());
        assert!(seen.check(&two, None, "the second").is_ok());
        seen.remember(&as_segment(&ended), ended);
        assert!(seen.check(&two, None, "the second").is_err());
        // The last that was handed on counts.
        seen.remember(&as_segment(&one), one);
        assert!(seen.check(&two, None, "the second").is_ok());
    }

    #[test]
    fn a_segment_does_not_go_back_to_the_timeline_before() {
        let [one, two] = pair(None);
        let second = wal::TimelineId::new(2).unwrap();
        let mut before = one.clone();
        before.name = one.name.with_timeline(second);
        before.timeline = second;
        let mut behind = two.clone();
        behind.name = two.name.with_timeline(second);
        let seen = Continuity::default();
        seen.remember(&as_segment(&one), one);
        assert!(seen.check(&behind, None, "the second").is_ok());
        seen.remember(&as_segment(&before), before);
        let error = seen.check(&behind, None, "the second").unwrap_err();
        assert!(error.to_string().contains("timeline 1"), "{error}");
    }

    #[test]
    fn the_file_beside_it_counts_where_nothing_was_seen_or_too_little() {
        let mut wal = Written::new();
        wal.fill(SEGMENT - 40_000);
        wal.data(80_000);
        wal.fill(SEGMENT + 90_000);
        let [(name, first), (_, second)] = &wal.segments(1)[..] else {
            panic!("two segments");
        };
        let [one, two] = pair(None);
        let dir = tempfile::tempdir().unwrap();
        let beside = Some(dir.path());
        let seen = Continuity::default();
        assert!(seen.check(&two, beside, "the second").is_ok());
        let file = dir.path().join(name.to_string());
        std::fs::write(&file, first).unwrap();
        assert!(seen.check(&two, beside, "the second").is_ok());
        // Only as much of it was archived once, and it went on here.
        let mut ended = Written::new();
        ended.fill(SEGMENT - 40_000);
        let (name, part) = ended.segments(1).remove(0);
        seen.remember(&as_segment(&one), read(name, &part));
        assert!(seen.check(&two, None, "the second").is_err());
        assert!(seen.check(&two, beside, "the second").is_ok());
        // What is not whole, or a recycled file, says nothing.
        for other in [&part, second] {
            std::fs::write(&file, other).unwrap();
            assert!(Continuity::default().check(&two, beside, "x").is_ok());
        }
        let mut rotten = first.clone();
        rotten[SEGMENT - 5000] ^= 4;
        std::fs::write(&file, &rotten).unwrap();
        let error = Continuity::default().check(&two, beside, "it").unwrap_err();
        assert!(error.to_string().starts_with("it does not fit"), "{error}");
    }

    #[test]
    fn no_more_than_so_many_segments_are_remembered() {
        let [one, two] = pair(Some(0));
        let seen = Continuity::default();
        seen.remember(&as_segment(&one), one);
        let mut other = two.clone();
        for number in 0..REMEMBERED_MAX {
            let timeline = wal::TimelineId::new(u32::try_from(number).unwrap() + 7).unwrap();
            other.name = two.name.with_timeline(timeline);
            seen.remember(&as_segment(&other), other.clone());
        }
        assert!(seen.check(&two, None, "the second").is_ok());
    }
}
