//! Which segments there are, in little memory: a bit for each, in blocks of 64.
//!
//! Guarantees that a million segments that follow one another take some hundred kilobytes. Names are kept, not places, for
//! the size of segments may be known only later.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use wal::{SegmentName, SegmentNumber, SegmentSize};

/// No segment size has more segments to the middle eight digits of a name.
const LOW_MAX: u32 = 4096;

/// Segments of one timeline.
#[derive(Clone, Debug, Default)]
pub struct Positions {
    blocks: BTreeMap<u64, u64>,
}

/// Segments that follow one another without a gap, by their numbers.
pub type Run = RangeInclusive<u64>;

impl Positions {
    /// Adds a segment; false if no segment of any size has such a name.
    pub(crate) fn insert(&mut self, name: &SegmentName) -> bool {
        let (high, low) = name.position();
        if low >= LOW_MAX {
            return false;
        }
        self.set(u64::from(high) * u64::from(LOW_MAX) + u64::from(low));
        true
    }

    /// Whether a segment of this name is there.
    pub(crate) fn has(&self, name: &SegmentName) -> bool {
        let (high, low) = name.position();
        low < LOW_MAX && self.is_set(u64::from(high) * u64::from(LOW_MAX) + u64::from(low))
    }

    fn is_set(&self, at: u64) -> bool {
        let bits = self.blocks.get(&(at / 64));
        bits.is_some_and(|bits| bits & (1 << (at % 64)) != 0)
    }

    fn set(&mut self, at: u64) {
        *self.blocks.entry(at / 64).or_default() |= 1 << (at % 64);
    }

    /// Number of segments.
    pub fn count(&self) -> u64 {
        self.blocks
            .values()
            .map(|bits| u64::from(bits.count_ones()))
            .sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Whether this segment is there.
    pub fn contains(&self, number: u64, size: SegmentSize) -> bool {
        let per_log_id = size.segments_per_log_id();
        self.is_set(number / per_log_id * u64::from(LOW_MAX) + number % per_log_id)
    }

    /// The two numbers in the names of all of them, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u64, u64)> {
        self.blocks.iter().flat_map(|(block, bits)| {
            let (block, bits) = (*block, *bits);
            (0..64).filter_map(move |bit| {
                let at = block * 64 + bit;
                (bits & (1 << bit) != 0)
                    .then_some((at / u64::from(LOW_MAX), at % u64::from(LOW_MAX)))
            })
        })
    }

    /// Whether the middle digits in the names of all of these differ, and the highest number in their last eight.
    pub(crate) fn spread<'a>(all: impl Iterator<Item = &'a Positions>) -> (bool, u64) {
        let low_max = u64::from(LOW_MAX);
        let (mut first, mut has_changed, mut highest) = (None, false, 0);
        for (block, bits) in all.flat_map(|positions| &positions.blocks) {
            let last = block * 64 + u64::from(bits.checked_ilog2().unwrap_or_default());
            let (high, low) = (last / low_max, last % low_max);
            has_changed |= *first.get_or_insert(high) != high;
            highest = highest.max(low);
        }
        (has_changed, highest)
    }

    /// Where they follow one another, in order, for segments of this size. Names that it does not have are left out.
    pub fn runs(&self, size: SegmentSize) -> Vec<Run> {
        let per_log_id = size.segments_per_log_id();
        let mut runs: Vec<Run> = Vec::new();
        for (high, low) in self.all().filter(|(_, low)| *low < per_log_id) {
            let number = high * per_log_id + low;
            match runs.last_mut() {
                Some(run) if *run.end() + 1 == number => *run = *run.start()..=number,
                _ => runs.push(number..=number),
            }
        }
        runs
    }

    /// The two numbers in the names of those that segments of this size do not have.
    pub(crate) fn impossible(&self, size: SegmentSize) -> Vec<(u64, u64)> {
        let per_log_id = size.segments_per_log_id();
        self.all().filter(|(_, low)| *low >= per_log_id).collect()
    }

    /// The first, the last and some between, as the two numbers in their names.
    pub(crate) fn some(&self, count: usize) -> Vec<(u64, u64)> {
        let step = self.blocks.len().div_ceil(count.max(1)).max(1);
        let keys = self.blocks.keys().copied();
        let chosen: Vec<u64> = keys.clone().step_by(step).chain(keys.last()).collect();
        let first_of = |block: u64| {
            let bits = self.blocks.get(&block).copied().unwrap_or_default();
            let at = block * 64 + u64::from(bits.trailing_zeros());
            (at / u64::from(LOW_MAX), at % u64::from(LOW_MAX))
        };
        chosen.into_iter().map(first_of).collect()
    }
}

/// The gaps between runs, within `range`.
pub(crate) fn gaps(runs: &[Run], range: Run) -> Vec<Run> {
    let mut gaps = Vec::new();
    let mut next = *range.start();
    for run in runs {
        if *run.end() < next {
            continue;
        }
        if *run.start() > *range.end() {
            break;
        }
        if *run.start() > next {
            gaps.push(next..=*run.start() - 1);
        }
        next = run.end().saturating_add(1);
    }
    if next <= *range.end() {
        gaps.push(next..=*range.end());
    }
    gaps
}

/// The name of a segment by its number.
pub(crate) fn name_of(timeline: wal::TimelineId, number: u64, size: SegmentSize) -> SegmentName {
    SegmentName::new(timeline, SegmentNumber(number), size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Positions {
        let mut positions = Positions::default();
        for name in names {
            assert!(positions.insert(&name.parse().unwrap()));
        }
        positions
    }

    #[test]
    fn runs_go_over_the_middle_digits_as_the_segment_size_says() {
        let positions = of(&[
            "0000000100000002000000FF",
            "000000010000000300000000",
            "000000010000000300000001",
            "000000010000000300000003",
        ]);
        assert_eq!(
            positions.runs(SegmentSize::DEFAULT),
            [0x2FF..=0x301, 0x303..=0x303]
        );
        assert!(positions.contains(0x300, SegmentSize::DEFAULT));
        assert!(!positions.contains(0x302, SegmentSize::DEFAULT));
        // With 1 MB there are 4096 to the middle digits.
        let small = positions.runs(SegmentSize::SMALLEST);
        assert_eq!(small, [0x20FF..=0x20FF, 0x3000..=0x3001, 0x3003..=0x3003]);
        let large = SegmentSize::LARGEST;
        assert_eq!(positions.impossible(large), [(2, 0xFF)]);
        assert_eq!(positions.count(), 4);
        assert_eq!(positions.some(1).first(), Some(&(2, 0xFF)));
    }

    #[test]
    fn a_name_that_no_size_allows_is_refused() {
        let name = "000000010000000200001000".parse().unwrap();
        assert!(!Positions::default().insert(&name));
    }

    #[test]
    fn gaps_are_what_no_run_covers() {
        assert_eq!(gaps(&[3..=4, 7..=7], 1..=9), [1..=2, 5..=6, 8..=9]);
        assert_eq!(gaps(&[3..=4, 7..=7], 4..=7), [5..=6]);
        assert_eq!(gaps(&[3..=4], 3..=4), []);
        assert_eq!(gaps(&[], 3..=4), [3..=4]);
    }
}
