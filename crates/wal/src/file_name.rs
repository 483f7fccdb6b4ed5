//! The names of all files that the server archives.
//!
//! Guarantees that a text is taken only if the server could have written it, and that writing it
//! again gives the same text, so a name is safe to use as a file name or a key. Contents, and the
//! suffixes that compression adds in an archive, are left to others.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::{SegmentName, TimelineId, hex};

/// The name of a file that the archiver may offer: one of four kinds.
///
/// Names order as their texts do. Any one is 16 to 40 characters of upper-case digits, dots and
/// lower-case letters, and never a path.
///
/// Source: the `Is...FileName` macros in `xlog_internal.h`, 15 to 18. The server's test for a backup
/// history file takes more than the server writes (anything between the 24 digits and
/// `.backup`); this type takes what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WalFileName {
    /// A complete segment: `000000010000000A000000FE`.
    Segment(SegmentName),
    /// The unfinished last segment of a timeline that was left in it:
    /// `000000010000000A000000FE.partial`.
    Partial(SegmentName),
    /// The ancestors of a timeline: `00000002.history`.
    TimelineHistory(TimelineId),
    /// What a base backup needs: `000000010000000A000000FE.00000028.backup`.
    BackupHistory {
        /// The segment in which the backup starts.
        segment: SegmentName,
        /// Where in that segment, in bytes.
        offset: u32,
    },
}

impl WalFileName {
    /// Whether no server ever writes a file of this name: the history file of timeline 1, which has no
    /// ancestors.
    ///
    /// It is asked for all the same, at the end of every recovery on timeline 1, when there is no way back
    /// any more (`writeTimeLineHistory`, timeline.c, 15 to 18). So it is absent without asking any archive,
    /// which may be out of reach just then.
    #[must_use]
    pub fn is_never_written(&self) -> bool {
        *self == Self::TimelineHistory(TimelineId::FIRST)
    }

    /// The most characters a name has.
    pub const CHARS_MAX: usize = 40;

    /// The timeline that the first eight digits give.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        match self {
            WalFileName::TimelineHistory(timeline) => *timeline,
            WalFileName::Segment(segment)
            | WalFileName::Partial(segment)
            | WalFileName::BackupHistory { segment, .. } => segment.timeline(),
        }
    }

    /// The segment in the name; `None` for a timeline history file.
    ///
    /// For a backup history file it is the segment in which the backup starts, not its contents:
    /// match on the kind where that matters.
    #[must_use]
    pub fn segment(&self) -> Option<&SegmentName> {
        match self {
            WalFileName::TimelineHistory(_) => None,
            WalFileName::Segment(segment)
            | WalFileName::Partial(segment)
            | WalFileName::BackupHistory { segment, .. } => Some(segment),
        }
    }

    /// What orders as the text does.
    ///
    /// A dot sorts before every digit, so `0000000N.history` comes before the segments of its
    /// timeline; a digit sorts before `p`, so after a segment come its backup history files and
    /// then its partial form.
    fn order(&self) -> (TimelineId, Option<(u32, u32)>, u8, u32) {
        let (kind, offset) = match self {
            WalFileName::TimelineHistory(_) | WalFileName::Segment(_) => (0, 0),
            WalFileName::BackupHistory { offset, .. } => (1, *offset),
            WalFileName::Partial(_) => (2, 0),
        };
        (
            self.timeline(),
            self.segment().map(SegmentName::position),
            kind,
            offset,
        )
    }
}

impl Ord for WalFileName {
    fn cmp(&self, other: &WalFileName) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for WalFileName {
    fn partial_cmp(&self, other: &WalFileName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<SegmentName> for WalFileName {
    fn from(segment: SegmentName) -> WalFileName {
        WalFileName::Segment(segment)
    }
}

/// Writes the name exactly as the server does.
impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalFileName::Segment(segment) => segment.fmt(f),
            WalFileName::Partial(segment) => f.pad(&format!("{segment}.partial")),
            WalFileName::TimelineHistory(timeline) => {
                f.pad(&format!("{:08X}.history", timeline.get()))
            }
            WalFileName::BackupHistory { segment, offset } => {
                f.pad(&format!("{segment}.{offset:08X}.backup"))
            }
        }
    }
}

/// Reads the server's exact text and nothing else.
impl FromStr for WalFileName {
    type Err = InvalidWalFileName;

    fn from_str(text: &str) -> Result<WalFileName, InvalidWalFileName> {
        parse(text.as_bytes()).ok_or_else(|| InvalidWalFileName {
            name: text.to_owned(),
        })
    }
}

fn parse(text: &[u8]) -> Option<WalFileName> {
    let (timeline, rest) = hex::split_word(text)?;
    let timeline = TimelineId::new(timeline)?;
    if rest == b".history" {
        return Some(WalFileName::TimelineHistory(timeline));
    }
    let (high, rest) = hex::split_word(rest)?;
    let (low, rest) = hex::split_word(rest)?;
    let segment = SegmentName::from_digits(timeline, high, low);
    match rest {
        b"" => Some(WalFileName::Segment(segment)),
        b".partial" => Some(WalFileName::Partial(segment)),
        _ => {
            let (offset, rest) = hex::split_word(rest.strip_prefix(b".")?)?;
            (rest == b".backup").then_some(WalFileName::BackupHistory { segment, offset })
        }
    }
}

/// A text that names no file of WAL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not the name of a WAL file", name.escape_debug())]
pub struct InvalidWalFileName {
    /// The text, as it was given.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_history_file_of_the_first_timeline_is_never_written() {
        for (name, never) in [
            ("00000001.history", true),
            ("00000002.history", false),
            ("000000010000000000000001", false),
        ] {
            assert_eq!(
                name.parse::<WalFileName>().unwrap().is_never_written(),
                never,
                "{name}"
            );
        }
    }

    fn name(text: &str) -> WalFileName {
        text.parse().unwrap()
    }

    #[test]
    fn each_kind_is_told_from_its_name() {
        let segment: SegmentName = "0000000A0000000B0000000C".parse().unwrap();
        let timeline = TimelineId::new(10).unwrap();
        for (text, expected) in [
            ("0000000A0000000B0000000C", WalFileName::Segment(segment)),
            (
                "0000000A0000000B0000000C.partial",
                WalFileName::Partial(segment),
            ),
            ("0000000A.history", WalFileName::TimelineHistory(timeline)),
            (
                "0000000A0000000B0000000C.000000D8.backup",
                WalFileName::BackupHistory {
                    segment,
                    offset: 0xD8,
                },
            ),
        ] {
            assert_eq!(name(text), expected);
            assert_eq!(expected.to_string(), text);
            assert_eq!(expected.timeline(), timeline);
            assert!(text.len() <= WalFileName::CHARS_MAX);
        }
    }

    #[test]
    fn only_a_timeline_history_file_names_no_segment() {
        assert_eq!(name("0000000A.history").segment(), None);
        for suffix in ["", ".partial", ".00000028.backup"] {
            let segment = "0000000A0000000B0000000C";
            let found = name(&format!("{segment}{suffix}"));
            assert_eq!(found.segment(), Some(&segment.parse().unwrap()));
        }
    }

    #[test]
    fn names_the_server_does_not_write_are_refused_and_quoted() {
        for text in [
            "",
            ".history",
            "0000000a.history",
            "0000000A.HISTORY",
            "0000000A.history.gz",
            "0000000A.history ",
            "A.history",
            "00000000.history",
            "000000010000000000000003.Partial",
            "000000010000000000000003.partial.partial",
            "000000010000000000000003.",
            "000000010000000000000003.zst",
            "000000010000000000000003.backup",
            "000000010000000000000003.28.backup",
            "000000010000000000000003.0000002a.backup",
            "000000010000000000000003.00000028.backupp",
            "00000001000000000000000300000028.backup",
            "000000000000000000000003",
            "000000000000000000000000",
            "00000001000000000000000",
            "0000000100000000000000031",
            "00000001000000000000000g",
            "../0000000100000000000000",
            "RECOVERYXLOG",
            "xlogtemp.4711",
            "0000000100000000000000\u{661}",
        ] {
            let error = text.parse::<WalFileName>().unwrap_err();
            assert_eq!(error.name, text);
            let message = format!("\"{}\" is not the name of a WAL file", text.escape_debug());
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn names_sort_as_ls_sorts_them() {
        let sorted = [
            "000000010000000000000009",
            "00000002.history",
            "000000020000000000000003",
            "000000020000000000000003.00000028.backup",
            "000000020000000000000003.000000FF.backup",
            "000000020000000000000003.partial",
            "000000020000000000000004",
            "000000020000000100000000",
            "0000000A.history",
        ];
        let mut names: Vec<WalFileName> = sorted.iter().rev().map(|text| name(text)).collect();
        names.sort();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(names, sorted);
    }
}
