//! Backup history files: where the replay of a base backup begins, and from where on it is consistent.
//!
//! Guarantees that a file is taken only with both places and a timeline; what else it says is for people. Backups taken on a
//! standby leave no such file, so an archive knows nothing of them.

use serde::{Deserialize, Serialize};
use wal::{Lsn, TimelineId, WalFileName};

use crate::text;

/// The most bytes that such a file can have: a label has at most 1024, and a dozen lines are short.
pub const BACKUP_HISTORY_BYTES_MAX: u64 = 16 * 1024;

/// What a backup history file says. Unknown lines are skipped.
///
/// Source: `build_backup_content` in `xlogbackup.c` (16 to 18) and `do_pg_backup_stop` in `xlog.c` (15).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHistory {
    /// LSN at which replay begins.
    #[serde(with = "text::plain")]
    pub start: Lsn,
    /// From where on the backup is consistent: recovery cannot stop before.
    #[serde(with = "text::plain")]
    pub stop: Lsn,
    /// The timeline that it was taken on.
    #[serde(with = "text::timeline")]
    pub timeline: TimelineId,
    /// Its label; bytes that are not UTF-8 are replaced.
    pub label: String,
    /// When it began, as the server writes it, in the time zone of its log.
    pub start_time: Option<String>,
    /// Time at which the backup ended, as the file writes it.
    pub stop_time: Option<String>,
}

/// Why a file is no backup history file, or another's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackupHistory {
    /// A line that every such file has is not there, or says something else.
    #[error("it has no valid line \"{line}\"")]
    Line {
        /// How the line begins.
        line: &'static str,
    },
    /// The backup began elsewhere than its name says.
    #[error("the backup began at {start}, which is not what the name says")]
    OtherName {
        /// LSN at which the backup began.
        start: Lsn,
    },
}

impl BackupHistory {
    /// Reads the contents of a file.
    ///
    /// # Errors
    /// When it does not say where the backup begins and ends, and on which timeline.
    pub fn parse(contents: &[u8]) -> Result<BackupHistory, InvalidBackupHistory> {
        let text = String::from_utf8_lossy(contents);
        let field = |name: &str| {
            let value = |line: &str| {
                let value = line.strip_prefix(name)?.strip_prefix(':')?;
                Some(value.strip_prefix(' ').unwrap_or(value).to_owned())
            };
            text.lines().find_map(value)
        };
        // "0/2000028 (file 000000010000000000000002)"
        let first = |line: &str| field(line)?.split(' ').next().map(str::to_owned);
        let place = |line| {
            let lsn = first(line).and_then(|word| word.parse().ok());
            lsn.ok_or(InvalidBackupHistory::Line { line })
        };
        let line = "START TIMELINE";
        let timeline = first(line).and_then(|word| TimelineId::new(word.parse().ok()?));
        Ok(BackupHistory {
            start: place("START WAL LOCATION")?,
            stop: place("STOP WAL LOCATION")?,
            timeline: timeline.ok_or(InvalidBackupHistory::Line { line })?,
            label: field("LABEL").unwrap_or_default(),
            start_time: field("START TIME"),
            stop_time: field("STOP TIME"),
        })
    }

    /// Whether it can be the file of this name: the lowest bits of the place where the backup began stand in it.
    ///
    /// # Errors
    /// When it cannot.
    pub fn fits(&self, name: &WalFileName) -> Result<(), InvalidBackupHistory> {
        let WalFileName::BackupHistory { segment, offset } = name else {
            return Ok(());
        };
        let (high, _) = segment.position();
        // Segments of the smallest size leave 20 bits to the offset.
        let differs = (self.start.0 ^ u64::from(*offset)) & 0xF_FFFF != 0;
        if differs || self.start.0 >> 32 != u64::from(high) {
            Err(InvalidBackupHistory::OtherName { start: self.start })
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "START WAL LOCATION: 1/2000028 (file 000000010000000100000002)\n\
        STOP WAL LOCATION: 1/2000138 (file 000000010000000100000002)\n\
        CHECKPOINT LOCATION: 1/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-21 10:00:00 UTC\nLABEL: pg_basebackup base: backup\nSTART TIMELINE: 1\n\
        STOP TIME: 2026-11-21 10:00:09 UTC\nSTOP TIMELINE: 1\n";

    #[test]
    fn a_file_says_where_its_backup_begins_and_ends() {
        let backup = BackupHistory::parse(FILE.as_bytes()).unwrap();
        assert_eq!(backup.start, Lsn(0x1_0200_0028));
        assert_eq!(backup.stop, Lsn(0x1_0200_0138));
        assert_eq!(backup.timeline, TimelineId::FIRST);
        assert_eq!(backup.label, "pg_basebackup base: backup");
        let times = (backup.start_time.as_deref(), backup.stop_time.as_deref());
        assert_eq!(
            times,
            (
                Some("2026-11-21 10:00:00 UTC"),
                Some("2026-11-21 10:00:09 UTC")
            )
        );
        let fits = |name: &str| backup.fits(&name.parse().unwrap());
        assert_eq!(fits("000000010000000100000002.00000028.backup"), Ok(()));
        assert!(fits("000000010000000100000002.00000060.backup").is_err());
        assert!(fits("000000010000000200000002.00000028.backup").is_err());
    }

    #[test]
    fn a_file_without_its_places_is_refused_and_the_missing_line_is_named() {
        for line in ["START WAL LOCATION", "STOP WAL LOCATION", "START TIMELINE"] {
            let others = FILE.lines().filter(|other| !other.starts_with(line));
            let cut: String = others.map(|line| format!("{line}\n")).collect();
            let refused = BackupHistory::parse(cut.as_bytes());
            assert_eq!(refused, Err(InvalidBackupHistory::Line { line }));
        }
        let error = BackupHistory::parse(b"\xFF\0").unwrap_err();
        assert!(error.to_string().contains("START WAL LOCATION"), "{error}");
    }
}
