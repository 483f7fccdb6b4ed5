//! Which segments recovery will ask for next: the line that it follows through the timelines.
//!
//! Guarantees: with the timeline history file that recovery follows, and segments of that line, the names are those
//! that the server asks for first (`XLogFileReadAnyTLI`, xlogrecovery.c, 15 to 18). Everything here is a guess all
//! the same: a wrong one costs a fetch, and never an answer.

use std::path::Path;

use wal::{SegmentName, SegmentNumber, SegmentSize, TimelineHistory};

use crate::pg_wal::folder::histories_in;

/// What is known of the line.
#[derive(Debug, Default)]
pub(super) struct Line {
    newest: Option<TimelineHistory>,
}

impl Line {
    /// Recovery was given this timeline history file. The newest one is believed: a server that looks for
    /// the newest timeline follows the last file that it finds.
    pub(super) fn learn(&mut self, history: TimelineHistory) {
        let newer = self
            .newest
            .as_ref()
            .is_none_or(|known| known.timeline() <= history.timeline());
        if newer {
            self.newest = Some(history);
        }
    }

    /// The same of what lies in this folder, `pg_wal`: recovery keeps the timeline history files that it follows there
    /// (`restoreTimeLineHistoryFiles`, timeline.c, 15 to 18), also those that it did not get through us.
    pub(super) fn learn_from(&mut self, folder: &Path) {
        // What cannot be read, or understood, is no reason not to fetch: this is a guess.
        for history in histories_in(folder) {
            self.learn(history);
        }
    }

    /// The segments after this one, in the order in which they will be asked for.
    pub(super) fn after(
        &self,
        last: SegmentName,
        size: SegmentSize,
    ) -> impl Iterator<Item = SegmentName> {
        let history = self
            .newest
            .as_ref()
            .filter(|history| holds(history, last, size));
        let first = last.number(size).map_or(u64::MAX, |number| number.0);
        let beyond = SegmentNumber::last(size).0;
        (first..beyond).map(move |before| {
            let number = SegmentNumber(before + 1);
            let timeline = history.map_or(last.timeline(), |history| {
                // Never below the timeline that is being replayed.
                history.first_asked_for(number, size).max(last.timeline())
            });
            SegmentName::new(timeline, number, size)
        })
    }
}

/// Whether the line of this history leads through the segment: beyond the segment in which the timeline was left,
/// its segments belong to another line.
fn holds(history: &TimelineHistory, segment: SegmentName, size: SegmentSize) -> bool {
    if history.timeline() == segment.timeline() {
        return true;
    }
    let left = history.switchpoint_of(segment.timeline());
    match (left, segment.number(size)) {
        (Some(left), Some(number)) => number <= left.segment(size),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wal::{Lsn, TimelineId};

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    /// A history of timelines 1, 2, … that were left at these places.
    fn history(switchpoints: &[Lsn]) -> TimelineHistory {
        let lines: String = (1..)
            .zip(switchpoints)
            .map(|(number, place)| format!("{number}\t{place}\tx\n"))
            .collect();
        let own = timeline(u32::try_from(switchpoints.len()).unwrap() + 1);
        TimelineHistory::parse(own, lines.as_bytes()).unwrap()
    }

    /// `XLogFileReadAnyTLI` written out: the first name that is asked for segment `number`, by a server that
    /// replays timeline `current` and expects timelines 1 to the last.
    fn model(switchpoints: &[Lsn], current: u32, number: u64, size: SegmentSize) -> Option<u32> {
        let last = u32::try_from(switchpoints.len()).unwrap() + 1;
        for asked in (1..=last).rev() {
            if asked < current {
                return None;
            }
            // Where the timeline begins is where the one before it was left.
            if asked >= 2 {
                let begins = switchpoints[asked as usize - 2].0;
                if number < begins / size.bytes() {
                    continue;
                }
            }
            return Some(asked);
        }
        None
    }

    proptest! {
        #[test]
        fn recovery_finds_what_was_foreseen_whatever_the_size_and_wherever_timelines_were_left(
            power in 0..=10_u32,
            // How far each switchpoint lies from the one before, in quarters of a segment: several in one segment,
            // and some on a boundary.
            steps in prop::collection::vec(0..12_u64, 0..6),
            start in 1..5_u64,
            nudges in prop::collection::vec(prop::bool::ANY, 6),
        ) {
            let size = SegmentSize::new(1 << (20 + power)).unwrap();
            let mut at = size.bytes() * start;
            let switchpoints: Vec<Lsn> = steps.iter().zip(&nudges).map(|(step, nudge)| {
                at += step * size.bytes() / 4 + u64::from(*nudge) * 24;
                Lsn(at)
            }).collect();
            let mut line = Line::default();
            line.learn(history(&switchpoints));
            // Recovery from segment 1 on, each segment on the timeline that it is first asked for on.
            let mut current = 1;
            let mut name = SegmentName::new(timeline(1), SegmentNumber(1), size);
            let foreseen: Vec<SegmentName> = line.after(name, size).take(40).collect();
            for (number, foreseen) in (2..).zip(&foreseen) {
                let expected = model(&switchpoints, current, number, size).unwrap();
                prop_assert_eq!(foreseen.timeline(), timeline(expected));
                prop_assert_eq!(foreseen.number(size), Some(SegmentNumber(number)));
                // Looking from each segment on the way sees the same as looking from the first one.
                let next = line.after(name, size).next();
                prop_assert_eq!(next.as_ref(), Some(foreseen));
                current = expected;
                name = *foreseen;
            }
        }
    }

    fn names(line: &Line, last: &str, count: usize) -> Vec<String> {
        line.after(last.parse().unwrap(), SegmentSize::DEFAULT)
            .take(count)
            .map(|name| name.to_string())
            .collect()
    }

    #[test]
    fn without_a_history_file_the_line_stays_on_its_timeline() {
        assert_eq!(
            names(&Line::default(), "0000000300000000000000FE", 3),
            [
                "0000000300000000000000FF",
                "000000030000000100000000",
                "000000030000000100000001"
            ]
        );
    }

    #[test]
    fn a_segment_beyond_the_switchpoint_belongs_to_another_line() {
        let mut line = Line::default();
        // Left in the middle of segment 5.
        line.learn(history(&[Lsn(0x580_0000)]));
        assert_eq!(
            names(&line, "000000010000000000000003", 2),
            ["000000010000000000000004", "000000020000000000000005"]
        );
        assert_eq!(
            names(&line, "000000010000000000000005", 1),
            ["000000020000000000000006"]
        );
        assert_eq!(
            names(&line, "000000010000000000000006", 1),
            ["000000010000000000000007"]
        );
        assert_eq!(
            names(&line, "000000070000000000000003", 1),
            ["000000070000000000000004"]
        );
    }

    #[test]
    fn a_switchpoint_on_a_boundary_leaves_the_older_timeline_whole() {
        let mut line = Line::default();
        line.learn(history(&[Lsn(0x500_0000)]));
        assert_eq!(
            names(&line, "000000010000000000000003", 2),
            ["000000010000000000000004", "000000020000000000000005"]
        );
    }

    #[test]
    fn history_files_that_recovery_keeps_are_believed_and_others_skipped() {
        let pg_wal = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(pg_wal.path().join(name), text);
        write("00000002.history", "1\t0/5800000\tx\n").unwrap();
        write("00000003.history", "rubbish").unwrap();
        write("000000010000000000000003", "").unwrap();
        let mut line = Line::default();
        line.learn_from(pg_wal.path());
        assert_eq!(
            names(&line, "000000010000000000000003", 2),
            ["000000010000000000000004", "000000020000000000000005"]
        );
        line.learn_from(&pg_wal.path().join("missing"));
    }

    #[test]
    fn an_older_history_file_does_not_replace_a_newer_one() {
        let mut line = Line::default();
        line.learn(history(&[Lsn(0x200_0000), Lsn(0x400_0000)]));
        line.learn(history(&[Lsn(0x300_0000)]));
        assert_eq!(
            names(&line, "000000020000000000000003", 1),
            ["000000030000000000000004"]
        );
    }

    #[test]
    fn nothing_comes_after_the_last_segment_of_wal() {
        assert_eq!(
            names(&Line::default(), "00000001FFFFFFFF000000FF", 1).len(),
            0
        );
        assert_eq!(
            names(&Line::default(), "000000010000000000001000", 1).len(),
            0
        );
    }
}
