//! Timeline history files: which timelines a timeline descends from, and where it left each.
//!
//! Guarantees what the server demands of such a file: one ancestor a line, timelines strictly
//! increasing, all below the file's own. Fetching the file, and what to do when it is missing, is
//! left to others.

use crate::{Lsn, SegmentNumber, SegmentSize, TimelineId, WalFileName};

/// One line of a timeline history file: a timeline that was left for the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// The timeline that was left.
    pub timeline: TimelineId,
    /// Where it was left: the first place that belongs to the next timeline.
    pub switchpoint: Lsn,
    /// Why, in the server's words, for people: `no recovery target specified`. Bytes that are not
    /// UTF-8 (a restore point's name may have any encoding) are replaced.
    pub reason: String,
}

/// The contents of a timeline history file.
///
/// Source: `readTimeLineHistory` and `writeTimeLineHistory` in `timeline.c`, 15 to 18.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    timeline: TimelineId,
    entries: Vec<Ancestor>,
}

impl TimelineHistory {
    /// Reads the contents of the file that belongs to `timeline`.
    ///
    /// Like the server it skips blank lines and lines that begin with `#`, takes any blanks between
    /// the fields, and accepts a file without ancestors. It does not demand that switchpoints
    /// increase: after recovery along timeline 2 that stopped before timeline 1 was left, the server
    /// writes a later switchpoint for 1 than for 2.
    ///
    /// # Errors
    /// [`InvalidTimelineHistory`] with the number of the first line that is not as described, or if
    /// the last ancestor is not below `timeline`. The server stops with FATAL on the same files,
    /// but for one kind: it takes NUL bytes for the end of a line, so that a file which a crash
    /// filled with zeros passes as one without ancestors. Here it is invalid.
    pub fn parse(
        timeline: TimelineId,
        contents: &[u8],
    ) -> Result<TimelineHistory, InvalidTimelineHistory> {
        let mut entries: Vec<Ancestor> = Vec::new();
        for (line, number) in contents.split(|byte| *byte == b'\n').zip(1_u64..) {
            let invalid = |problem| InvalidTimelineHistory {
                timeline,
                line: number,
                problem,
            };
            let Some(ancestor) = parse_line(line).map_err(invalid)? else {
                continue;
            };
            if entries
                .last()
                .is_some_and(|previous| ancestor.timeline <= previous.timeline)
            {
                return Err(invalid(Problem::NotIncreasing));
            }
            // The server checks the last line alone, which with increasing timelines is the same;
            // checking each lets the message name the line.
            if ancestor.timeline >= timeline {
                return Err(invalid(Problem::NotBelowOwn));
            }
            entries.push(ancestor);
        }
        Ok(TimelineHistory { timeline, entries })
    }

    /// The timeline the file belongs to.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The ancestors, oldest first; empty if the file lists none.
    #[must_use]
    pub fn entries(&self) -> &[Ancestor] {
        &self.entries
    }

    /// Where the timeline begins: where it left its parent. `None` without ancestors: it then
    /// begins with WAL itself.
    #[must_use]
    pub fn begins(&self) -> Option<Lsn> {
        self.entries.last().map(|parent| parent.switchpoint)
    }

    /// Where `timeline` was left. `None` for the file's own timeline, which goes on, and for one
    /// that is no ancestor.
    #[must_use]
    pub fn switchpoint_of(&self, timeline: TimelineId) -> Option<Lsn> {
        self.entries
            .iter()
            .find(|ancestor| ancestor.timeline == timeline)
            .map(|ancestor| ancestor.switchpoint)
    }

    /// Where this history's line left `timeline` for good: the least switchpoint among the lines for it
    /// and for those that came after it. `None` where there is no line for `timeline`: it is the file's own,
    /// which goes on, or no ancestor.
    ///
    /// The least, because switchpoints need not increase (see [`TimelineHistory::parse`]): what lies behind
    /// the place where a later timeline was left is not on this line, whatever the lines before it say.
    #[must_use]
    pub fn left(&self, timeline: TimelineId) -> Option<Lsn> {
        self.switchpoint_of(timeline)?;
        self.entries
            .iter()
            .filter(|ancestor| ancestor.timeline >= timeline)
            .map(|ancestor| ancestor.switchpoint)
            .min()
    }

    /// The timeline whose WAL holds `place`, for a server on this history
    /// (`tliOfPointInHistory`, 15 to 18).
    ///
    /// A segment with a switchpoint in it exists on both timelines; the newer one holds all of it.
    #[must_use]
    pub fn timeline_at(&self, place: Lsn) -> TimelineId {
        // From the newest back: the first timeline that had begun by then. Were it done from the
        // oldest, a timeline that was left before it began (see `parse`) would be chosen wrongly.
        let mut holder = self.timeline;
        for ancestor in self.entries.iter().rev() {
            if ancestor.switchpoint <= place {
                break;
            }
            holder = ancestor.timeline;
        }
        holder
    }

    /// The timeline on which a server that recovers along this history looks for a segment first: the
    /// newest one that begins in this segment or before it. Where that has no such segment it looks on
    /// older ones (`XLogFileReadAnyTLI`, 15 to 18).
    #[must_use]
    pub fn first_asked_for(&self, segment: SegmentNumber, size: SegmentSize) -> TimelineId {
        let mut newest = self.timeline;
        for parent in self.entries.iter().rev() {
            if parent.switchpoint.segment(size) <= segment {
                break;
            }
            newest = parent.timeline;
        }
        newest
    }
}

/// Reads one line; `None` for one that the server skips.
fn parse_line(line: &[u8]) -> Result<Option<Ancestor>, Problem> {
    let line = line.trim_ascii();
    if line.contains(&0) {
        return Err(Problem::NulByte);
    }
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let (timeline, rest) = split_field(line);
    let (switchpoint, reason) = split_field(rest);
    let timeline = parse_timeline(timeline).ok_or(Problem::Timeline)?;
    let switchpoint = std::str::from_utf8(switchpoint)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Problem::Switchpoint)?;
    let reason = String::from_utf8_lossy(reason).into_owned();
    Ok(Some(Ancestor {
        timeline,
        switchpoint,
        reason,
    }))
}

/// Takes the text up to the first blank off the front: the field, and what follows the blanks.
fn split_field(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(text.len());
    let (field, rest) = text.split_at_checked(end).unwrap_or((text, b""));
    (field, rest.trim_ascii_start())
}

fn parse_timeline(digits: &[u8]) -> Option<TimelineId> {
    // Checked by hand because `u32::from_str` would take a leading plus sign.
    let plain = digits.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(digits)
        .ok()
        .filter(|_| plain)?
        .parse()
        .ok()?;
    TimelineId::new(number)
}

/// Contents that are not those of a timeline history file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "timeline history file \"{}\" is invalid at line {line}: {problem}",
    WalFileName::TimelineHistory(*timeline)
)]
pub struct InvalidTimelineHistory {
    timeline: TimelineId,
    line: u64,
    problem: Problem,
}

impl InvalidTimelineHistory {
    /// The timeline whose file it was to be.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The number of the line that is wrong, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }
}

/// What is wrong with a line; private, because a caller can do nothing else about one than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("expected a timeline number as first field")]
    Timeline,
    #[error("expected a switchpoint such as \"0/3000148\" as second field")]
    Switchpoint,
    #[error("timeline numbers must increase from line to line")]
    NotIncreasing,
    #[error("ancestors must have lower numbers than the timeline itself")]
    NotBelowOwn,
    #[error("there is a NUL byte in it")]
    NulByte,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn parse(own: u32, contents: &str) -> Result<TimelineHistory, InvalidTimelineHistory> {
        TimelineHistory::parse(timeline(own), contents.as_bytes())
    }

    fn problem(own: u32, contents: &str) -> (u64, Problem) {
        let error = parse(own, contents).unwrap_err();
        assert_eq!(error.timeline(), timeline(own));
        (error.line(), error.problem)
    }

    #[test]
    fn ancestors_are_read_in_order_with_their_switchpoints_and_reasons() {
        // The blank line is the server's: it adds one before its own line, to be safe from a parent
        // file that does not end in a newline.
        let history = parse(
            3,
            "1\t0/3000148\tno recovery target specified\n\
             \n\
             2\t1A/FF000000\tat restore point \"before\tthe change\"\n",
        )
        .unwrap();
        assert_eq!(history.timeline(), timeline(3));
        let [first, second] = history.entries() else {
            panic!("{history:?}")
        };
        assert_eq!(first.timeline, timeline(1));
        assert_eq!(first.switchpoint, Lsn(0x300_0148));
        assert_eq!(first.reason, "no recovery target specified");
        assert_eq!(second.reason, "at restore point \"before\tthe change\"");
        assert_eq!(history.begins(), Some(Lsn(0x1A_FF00_0000)));
        assert_eq!(history.switchpoint_of(timeline(1)), Some(Lsn(0x300_0148)));
        assert_eq!(history.switchpoint_of(timeline(3)), None);
        assert_eq!(history.switchpoint_of(timeline(4)), None);
    }

    #[test]
    fn comments_blank_lines_and_loose_blanks_are_taken_as_the_server_takes_them() {
        let history = parse(
            9,
            "# by hand\n  # indented\n\n \t \r\n  1   0/1\n5\t\t0/2 \r\n7 0/3\treason, no newline",
        )
        .unwrap();
        let timelines: Vec<u32> = history.entries().iter().map(|a| a.timeline.get()).collect();
        assert_eq!(timelines, [1, 5, 7]);
        let reasons: Vec<&str> = history
            .entries()
            .iter()
            .map(|a| a.reason.as_str())
            .collect();
        assert_eq!(reasons, ["", "", "reason, no newline"]);
    }

    #[test]
    fn a_file_without_ancestors_is_accepted() {
        for contents in ["", "\n", "# nothing\n"] {
            let history = parse(2, contents).unwrap();
            assert_eq!(history.entries(), []);
            assert_eq!(history.begins(), None);
            assert_eq!(history.timeline_at(Lsn(u64::MAX)), timeline(2));
        }
    }

    #[test]
    fn malformed_lines_are_refused_with_their_number() {
        for line in [
            "x\t0/1\tr",
            "-1\t0/1\tr",
            "+1\t0/1\tr",
            "0\t0/1\tr",
            "4294967296\t0/1\tr",
            "1x\t0/1",
        ] {
            assert_eq!(
                problem(9, &format!("\n{line}\n")),
                (2, Problem::Timeline),
                "{line:?}"
            );
        }
        for line in [
            "1",
            "1\t",
            "1\tnowhere",
            "1\t0",
            "1\t0/",
            "1\t0/1/1",
            "1\t0/100000000\tr",
        ] {
            assert_eq!(
                problem(9, &format!("#\n\n{line}")),
                (3, Problem::Switchpoint),
                "{line:?}"
            );
        }
    }

    #[test]
    fn timelines_must_increase_and_stay_below_their_descendant() {
        assert_eq!(problem(9, "2\t0/1\n1\t0/2\n"), (2, Problem::NotIncreasing));
        assert_eq!(problem(9, "2\t0/1\n2\t0/2\n"), (2, Problem::NotIncreasing));
        assert_eq!(problem(3, "1\t0/1\n3\t0/2\n"), (2, Problem::NotBelowOwn));
        assert_eq!(problem(3, "4\t0/1\n"), (1, Problem::NotBelowOwn));
        assert_eq!(problem(1, "1\t0/1\n"), (1, Problem::NotBelowOwn));
    }

    #[test]
    fn a_file_that_a_crash_filled_with_zeros_is_refused() {
        assert_eq!(problem(2, &"\0".repeat(42)), (1, Problem::NulByte));
        assert_eq!(problem(2, "1\t0/1\treason\n\0\0\0"), (2, Problem::NulByte));
    }

    #[test]
    fn the_message_names_file_line_and_cause() {
        assert_eq!(
            parse(26, "1\t0/1\nrubbish\n").unwrap_err().to_string(),
            "timeline history file \"0000001A.history\" is invalid at line 2: \
             expected a timeline number as first field"
        );
    }

    #[test]
    fn a_reason_in_another_encoding_does_not_spoil_the_file() {
        let history = TimelineHistory::parse(timeline(2), b"1\t0/1\tat \"caf\xE9\"\n").unwrap();
        assert_eq!(history.entries()[0].reason, "at \"caf\u{FFFD}\"");
    }

    #[test]
    fn each_place_belongs_to_the_newest_timeline_that_had_begun() {
        let history = parse(4, "1\t0/100\n3\t0/200\n").unwrap();
        for (place, holder) in [
            (0, 1),
            (0xFF, 1),
            (0x100, 3),
            (0x1FF, 3),
            (0x200, 4),
            (u64::MAX, 4),
        ] {
            assert_eq!(
                history.timeline_at(Lsn(place)),
                timeline(holder),
                "{place:X}"
            );
        }
    }

    #[test]
    fn a_segment_is_first_asked_for_on_the_newest_timeline_that_begins_in_it_or_before() {
        // Left in the middle of segment 2, in the same segment again, and at the boundary before 5.
        let history = parse(4, "1\t0/2800000\n2\t0/2900000\n3\t0/5000000\n").unwrap();
        for (number, asked) in [(1, 1), (2, 3), (3, 3), (4, 3), (5, 4), (6, 4)] {
            assert_eq!(
                history.first_asked_for(SegmentNumber(number), SegmentSize::DEFAULT),
                timeline(asked),
                "segment {number}"
            );
        }
    }

    #[test]
    fn a_line_leaves_a_timeline_at_the_least_switchpoint_from_there_on() {
        let history = parse(4, "1\t0/300\n2\t0/200\n3\t0/400\n").unwrap();
        for (number, left) in [
            (1, Some(0x200)),
            (2, Some(0x200)),
            (3, Some(0x400)),
            (4, None),
            (5, None),
        ] {
            assert_eq!(history.left(timeline(number)), left.map(Lsn), "{number}");
        }
        // No ancestor, although there are older ones.
        assert_eq!(parse(4, "1\t0/1\n").unwrap().left(timeline(2)), None);
    }

    #[test]
    fn a_timeline_left_before_it_began_holds_nothing() {
        let history = parse(3, "1\t0/200\n2\t0/100\n").unwrap();
        assert_eq!(history.begins(), Some(Lsn(0x100)));
        for (place, holder) in [(0xFF, 1), (0x100, 3), (0x1FF, 3), (0x200, 3)] {
            assert_eq!(
                history.timeline_at(Lsn(place)),
                timeline(holder),
                "{place:X}"
            );
        }
    }
}
