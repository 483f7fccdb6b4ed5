//! How a segment fits those before and behind it, as far as they have passed by.
//!
//! Guarantees that of two segments which follow each other and were both read by this process, the one that comes later is
//! not handed on unless the record that goes over their boundary is right, and their records are one chain. Segments may
//! come in any order, and from several threads. A segment whose neighbours were not seen here is checked alone: an audit
//! of the whole archive is what sees all of them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use wal::{Damage, Lsn, SegmentName, SegmentSummary, WalFileName};

use crate::error::Error;

const ALL_THE_SAME: &str = "One of the two is not what the server wrote. With \"walden.verify\" set to \"header\" \
     records are not looked at.";

/// How many segments are remembered: more than are ever on their way at once. About 200 kB at most.
const REMEMBERED_MAX: usize = 48;

/// What is known of the segments that passed by last.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    seen: Mutex<VecDeque<SegmentSummary>>,
}

impl Neighbours {
    /// Fails unless the segment, which messages call `shown`, fits what has been seen of its neighbours.
    pub(crate) fn check(&self, summary: &SegmentSummary, shown: &str) -> Result<(), Error> {
        self.join(summary).map_err(|(other, damage)| {
            Error::damaged(format!("{shown} does not fit \"{other}\": {damage}"))
                .with_hint(ALL_THE_SAME)
        })
    }

    fn join(&self, summary: &SegmentSummary) -> Result<(), (SegmentName, Damage)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = summary.clone();
        if let Some(before) = seen.iter().find(|other| other.precedes(summary)) {
            let joined = before.join(&mut own, |_| ());
            joined.map_err(|damage| (before.name, damage))?;
        }
        match seen.iter().find(|other| summary.precedes(other)) {
            Some(behind) => {
                let joined = own.join(&mut behind.clone(), |_| ());
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

/// For a segment in which WAL ends, although it goes on in the next.
pub(crate) fn ends_early(shown: &str, lsn: Lsn, there: &str) -> Error {
    Error::damaged(format!(
        "{shown} is not valid: WAL ends at {lsn}, although {there}"
    ))
    .with_hint(ALL_THE_SAME)
}

#[cfg(test)]
mod tests {
    use forge::Written;
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
                let seen = Neighbours::default();
                assert!(seen.check(first, "the first").is_ok());
                seen.remember(&as_segment(first), first.clone());
                let checked = seen.check(second, "the second");
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
        let seen = Neighbours::default();
        // As far as it goes it is the same, but for its end.
        let mut ended = Written::new();
        ended.fill(SEGMENT - 40_000);
        let (name, bytes) = ended.segments(1).remove(0);
        let ended = read(name, &bytes);
        seen.remember(&WalFileName::Partial(name), ended.clone());
        assert!(seen.check(&two, "the second").is_ok());
        seen.remember(&as_segment(&ended), ended);
        assert!(seen.check(&two, "the second").is_err());
        // The last that was handed on counts.
        seen.remember(&as_segment(&one), one);
        assert!(seen.check(&two, "the second").is_ok());
    }

    #[test]
    fn no_more_than_so_many_segments_are_remembered() {
        let [one, two] = pair(Some(0));
        let seen = Neighbours::default();
        seen.remember(&as_segment(&one), one);
        let mut other = two.clone();
        for number in 0..REMEMBERED_MAX {
            let timeline = wal::TimelineId::new(u32::try_from(number).unwrap() + 7).unwrap();
            other.name = two.name.with_timeline(timeline);
            seen.remember(&as_segment(&other), other.clone());
        }
        assert!(seen.check(&two, "the second").is_ok());
    }
}
