//! Which files of an archive may go, given the oldest one to keep.
//!
//! Guarantees the rule of `pg_archivecleanup` and no other: what this file does not clearly allow
//! stays. Removing, and knowing whether other servers or backups need the files, is left to others.

use std::fmt;
use std::str::FromStr;

use crate::{SegmentName, WalFileName};

/// What the server hands over as `%r` while no restartpoint is known.
const ZEROS: &str = "000000000000000000000000";

/// The oldest file to keep, as `%r` gives it.
///
/// Source: `SetWALFileNameForCleanup` and `CleanupPriorWALFiles` in `pg_archivecleanup.c`, 15 to 17;
/// `RestoreArchivedFile` in `xlogarchive.c`, 15 to 18, for the zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeepFrom {
    /// All files stay: 24 zeros.
    Everything,
    /// This segment and all later ones stay, on every timeline.
    Segment(SegmentName),
}

impl KeepFrom {
    /// Whether the file may be removed: a segment or partial segment that lies before the oldest
    /// one to keep.
    ///
    /// The timeline takes no part in the comparison, because replay may still need early segments
    /// of a parent timeline. Timeline history files always stay: they are a few lines, and without
    /// one a timeline cannot be followed. Backup history files always stay, as they do with
    /// `pg_archivecleanup` before 17 and after it unless asked.
    #[must_use]
    pub fn may_remove(&self, name: &WalFileName) -> bool {
        match (self, name) {
            (
                KeepFrom::Segment(oldest),
                WalFileName::Segment(segment) | WalFileName::Partial(segment),
            ) => segment.position() < oldest.position(),
            (KeepFrom::Segment(_) | KeepFrom::Everything, _) => false,
        }
    }
}

/// The segment's name, or 24 zeros: what `%r` would be.
impl fmt::Display for KeepFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeepFrom::Everything => f.pad(ZEROS),
            KeepFrom::Segment(segment) => segment.fmt(f),
        }
    }
}

/// Reads 24 zeros, a segment's name, or the name of a partial segment or backup history file,
/// which stands for its segment.
///
/// `pg_archivecleanup` also takes timeline 0 and an offset of fewer digits in a backup history
/// file's name; the server writes neither, so here they are errors.
impl FromStr for KeepFrom {
    type Err = InvalidKeepFrom;

    fn from_str(text: &str) -> Result<KeepFrom, InvalidKeepFrom> {
        if text == ZEROS {
            return Ok(KeepFrom::Everything);
        }
        match text
            .parse::<WalFileName>()
            .ok()
            .as_ref()
            .and_then(WalFileName::segment)
        {
            Some(segment) => Ok(KeepFrom::Segment(*segment)),
            None => Err(InvalidKeepFrom {
                name: text.to_owned(),
            }),
        }
    }
}

/// A text that says no oldest file to keep.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not the name of an oldest segment to keep", name.escape_debug())]
pub struct InvalidKeepFrom {
    /// The text, as it was given.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may_remove(keep: &str, name: &str) -> bool {
        keep.parse::<KeepFrom>()
            .unwrap()
            .may_remove(&name.parse().unwrap())
    }

    #[test]
    fn earlier_segments_and_partial_segments_may_go_and_the_named_one_stays() {
        let keep = "00000003000000A900000065";
        assert!(may_remove(keep, "00000003000000A900000064"));
        assert!(may_remove(keep, "00000003000000A900000064.partial"));
        assert!(may_remove(keep, "00000003000000A8000000FF"));
        assert!(!may_remove(keep, "00000003000000A900000065"));
        assert!(!may_remove(keep, "00000003000000A900000065.partial"));
        assert!(!may_remove(keep, "00000003000000A900000066"));
    }

    #[test]
    fn the_timeline_takes_no_part() {
        let keep = "00000003000000A900000065";
        for timeline in ["00000001", "00000003", "00000009"] {
            assert!(may_remove(keep, &format!("{timeline}000000A900000064")));
            assert!(!may_remove(keep, &format!("{timeline}000000A900000065")));
        }
    }

    #[test]
    fn timeline_and_backup_history_files_always_stay() {
        let keep = "FFFFFFFFFFFFFFFFFFFFFFFF";
        assert!(!may_remove(keep, "00000001.history"));
        assert!(!may_remove(
            keep,
            "000000010000000000000001.00000028.backup"
        ));
    }

    #[test]
    fn zeros_keep_everything() {
        let keep: KeepFrom = ZEROS.parse().unwrap();
        assert_eq!(keep, KeepFrom::Everything);
        assert_eq!(keep.to_string(), ZEROS);
        assert!(!may_remove(ZEROS, "000000010000000000000000"));
        assert!(!may_remove(ZEROS, "000000010000000000000001.partial"));
    }

    #[test]
    fn a_partial_segment_and_a_backup_history_file_stand_for_their_segment() {
        let plain: KeepFrom = "000000010000000000000010".parse().unwrap();
        for suffix in [".partial", ".00000020.backup"] {
            assert_eq!(format!("{plain}{suffix}").parse(), Ok(plain));
        }
    }

    #[test]
    fn other_names_are_refused_because_a_wrong_guess_removes_wal() {
        for text in [
            "",
            "%r",
            "0",
            "00000002.history",
            "000000000000000000000001",
            "000000000000000000000000.partial",
            "00000001000000000000001",
            "00000001000000000000001a",
            "000000010000000000000010.28.backup",
        ] {
            let error = text.parse::<KeepFrom>().unwrap_err();
            assert_eq!(error.name, text);
        }
    }
}
