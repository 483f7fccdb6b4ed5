//! What a backup history file says of the base backup that it belongs to.
//!
//! Guarantees the fields that the server writes in 15 to 18 (`build_backup_content`, `xlogbackup.c`); unknown lines are
//! skipped. Times are left as the server wrote them, in its own time zone.

use wal::{Lsn, TimelineId, WalFileName};

/// A base backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupHistory {
    /// Where the WAL begins that it needs.
    pub start: Lsn,
    /// Where the WAL ends that it needs to be consistent.
    pub stop: Lsn,
    /// On which timeline it began, if the file says so.
    pub timeline: Option<TimelineId>,
    /// The label that it was given, on one line.
    pub label: String,
    /// When it began, in the server's words.
    pub started: String,
    /// When it ended, in the server's words.
    pub stopped: String,
}

/// Why a file is no backup history file, or another's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackupHistory {
    /// A line that every such file has is not there, or says something else.
    #[error("there is no line \"{line}\" with a place in WAL")]
    Place {
        /// How the line begins.
        line: &'static str,
    },
    /// The backup began elsewhere than its name says.
    #[error("the backup began at {start}, which is not what the name says")]
    OtherName {
        /// Where it began.
        start: Lsn,
    },
}

impl BackupHistory {
    /// Reads the contents of a file.
    ///
    /// # Errors
    /// When it does not say where the backup begins and ends.
    pub fn parse(contents: &[u8]) -> Result<BackupHistory, InvalidBackupHistory> {
        let text = String::from_utf8_lossy(contents);
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .unwrap_or_default()
        };
        let place = |line: &'static str| {
            // "0/2000028 (file 000000010000000000000002)"
            let first = field(line).split_whitespace().next().unwrap_or_default();
            first
                .parse()
                .map_err(|_| InvalidBackupHistory::Place { line })
        };
        Ok(BackupHistory {
            start: place("START WAL LOCATION")?,
            stop: place("STOP WAL LOCATION")?,
            timeline: field("START TIMELINE")
                .parse()
                .ok()
                .and_then(TimelineId::new),
            label: field("LABEL").to_owned(),
            started: field("START TIME").to_owned(),
            stopped: field("STOP TIME").to_owned(),
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
        match differs || self.start.0 >> 32 != u64::from(high) {
            true => Err(InvalidBackupHistory::OtherName { start: self.start }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"START WAL LOCATION: 1/2000028 (file 000000010000000100000002)\n\
        STOP WAL LOCATION: 1/2000138 (file 000000010000000100000002)\n\
        CHECKPOINT LOCATION: 1/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-21 10:00:00 UTC\nLABEL: pg_basebackup base: backup\nSTART TIMELINE: 1\n\
        STOP TIME: 2026-11-21 10:00:09 UTC\nSTOP TIMELINE: 1\n";

    #[test]
    fn a_backup_history_file_says_where_its_backup_begins_and_ends() {
        let label = BackupHistory::parse(TEXT).unwrap();
        assert_eq!(
            (label.start.0, label.stop.0),
            (0x1_0200_0028, 0x1_0200_0138)
        );
        assert_eq!(label.label, "pg_basebackup base: backup");
        assert_eq!(label.timeline, Some(TimelineId::FIRST));
        assert_eq!(label.stopped, "2026-11-21 10:00:09 UTC");
        let fits = |name: &str| label.fits(&name.parse().unwrap());
        assert_eq!(fits("000000010000000100000002.00000028.backup"), Ok(()));
        assert!(fits("000000010000000100000002.00000060.backup").is_err());
        assert!(fits("000000010000000200000002.00000028.backup").is_err());
    }

    #[test]
    fn other_text_is_refused_and_the_missing_line_is_named() {
        let error = BackupHistory::parse(b"LABEL: x\n").unwrap_err();
        assert!(error.to_string().contains("START WAL LOCATION"), "{error}");
    }
}
