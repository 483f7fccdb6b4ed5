//! Whether a timeline begins where its history file says.
//!
//! Guarantees that a switchpoint which lies within a record, behind the record that begins the timeline, or before one that
//! does not belong to the beginning, is found. What the server writes between the two is at most a record that gives up an
//! unfinished one, and one about full-page writes (`StartupXLOG`, 15 to 18).

use wal::{Lsn, Meaning, Record, ResourceManager, TimelineId, WalFileName};

use crate::finding::{Finding, Kind};

/// The record about full-page writes (`pg_control.h`).
const FPW_CHANGE: u8 = 0x80;

/// Watches for the beginning of a timeline in the segment that its switchpoint lies in.
pub(crate) struct Beginning {
    timeline: TimelineId,
    switchpoint: Lsn,
    /// What does not fit the switchpoint.
    wrong: Option<String>,
    is_over: bool,
}

impl Beginning {
    pub(crate) fn new(timeline: TimelineId, switchpoint: Lsn) -> Beginning {
        Beginning {
            timeline,
            switchpoint,
            wrong: None,
            is_over: false,
        }
    }

    pub(crate) fn see(&mut self, record: &Record<'_>) {
        if self.is_over {
            return;
        }
        if record.lsn < self.switchpoint && record.end <= self.switchpoint {
            if self.begins(record) {
                self.end(format!("it begins at {} already", record.lsn));
            }
            return;
        }
        if record.lsn < self.switchpoint {
            return self.end(format!(
                "there is the middle of the record at {}",
                record.lsn
            ));
        }
        if self.begins(record) {
            self.is_over = true;
        } else if !is_about_beginning(record) {
            self.end(format!(
                "the record at {} is of the timeline before",
                record.lsn
            ));
        }
    }

    fn begins(&self, record: &Record<'_>) -> bool {
        if record.header.manager != ResourceManager::XLOG {
            return false;
        }
        match record.meaning() {
            Meaning::Checkpoint { timelines, .. } | Meaning::EndOfRecovery { timelines, .. } => {
                timelines.this == self.timeline && timelines.previous != timelines.this
            }
            _ => false,
        }
    }

    fn end(&mut self, what: String) {
        self.wrong = Some(what);
        self.is_over = true;
    }

    /// What is wrong with the timeline history file; `key` is the segment.
    pub(crate) fn finding(&self, key: &str) -> Option<Finding> {
        let what = self.wrong.as_ref()?;
        let name = WalFileName::TimelineHistory(self.timeline).to_string();
        let message = format!(
            "timeline history file \"{name}\" says that timeline {} begins at {}, and in \"{key}\" {what}",
            self.timeline, self.switchpoint
        );
        let finding = Finding::error(Kind::WrongSwitchpoint, name, message).at(self.switchpoint);
        Some(finding.hint(
            "Bring the right one back from a copy of the archive, or from the pg_wal of a server on that timeline.",
        ))
    }
}

fn is_about_beginning(record: &Record<'_>) -> bool {
    let is_xlog = record.header.manager == ResourceManager::XLOG;
    is_xlog
        && (record.header.operation() == FPW_CHANGE
            || matches!(record.meaning(), Meaning::OverwriteContrecord { .. }))
}
