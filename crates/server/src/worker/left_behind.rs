//! Remembers what a standby was told "could not tell" about, in case it is promoted before that is settled.
//!
//! A standby answers "could not tell" by trying again and streaming meanwhile.  If it is promoted instead, the
//! archive may have held WAL that it never saw: that deserves a WARNING.

use module::{Failure, Level, Process, Report, WalFileName};
use std::time::Duration;

/// How often an open question is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// At most one open question: the latest.
#[derive(Debug, Default)]
pub(crate) struct LeftBehind {
    file: Option<WalFileName>,
}

impl LeftBehind {
    /// The standby was told that nobody can tell about `file`.
    pub(crate) fn could_not_tell(&mut self, file: WalFileName) {
        self.file = Some(file);
    }

    /// The archive has answered about `file`: whatever was open before it is settled.
    pub(crate) fn answered(&mut self, file: WalFileName) {
        let settled = match (self.file, file) {
            (Some(open), _) if open == file => true,
            (Some(WalFileName::Segment(open)), WalFileName::Segment(now)) => {
                now.position() >= open.position()
            }
            _ => false,
        };
        if settled {
            self.file = None;
        }
    }

    /// Whether there is something to look at again.
    pub(crate) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Warns if recovery has ended with the question open.
    pub(crate) fn look(&mut self, process: Process, recovery_has_ended: bool) {
        let Some(file) = self.file else {
            return;
        };
        if !recovery_has_ended && process.in_recovery().unwrap_or(true) {
            return;
        }
        self.file = None;
        if arrived_otherwise(process, &file) {
            return;
        }
        let text = Failure::new("archived WAL may have been left behind")
            .detail(format!(
                "When recovery ended it could not be told whether the archive holds file \"{file}\"."
            ))
            .hint("See whether the archive holds the file; WAL in it was not replayed on this server.");
        process.report(&Report::of(Level::Warning, text));
    }
}

/// Whether replay went past the segment all the same, by streaming.
fn arrived_otherwise(process: Process, file: &WalFileName) -> bool {
    let WalFileName::Segment(segment) = file else {
        return false;
    };
    let size = process.segment_size();
    let end = segment
        .start(size)
        .map(|start| start.0.saturating_add(size.bytes()));
    let replayed = process.replayed_to().ok();
    matches!((end, replayed), (Some(end), Some(replayed)) if replayed.0 >= end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> WalFileName {
        name.parse().unwrap()
    }

    #[test]
    fn an_answer_about_the_same_or_a_later_segment_settles_the_question() {
        for (answered, open) in [
            ("000000010000000000000004", true),
            ("000000010000000000000005", false),
            ("000000010000000000000006", false),
            ("000000020000000000000005", false),
            ("00000002.history", true),
        ] {
            let mut question = LeftBehind::default();
            question.could_not_tell(file("000000010000000000000005"));
            question.answered(file(answered));
            assert_eq!(question.is_open(), open, "{answered}");
        }
    }

    #[test]
    fn a_timeline_history_file_is_settled_by_an_answer_about_itself_only() {
        let mut question = LeftBehind::default();
        question.could_not_tell(file("00000002.history"));
        question.answered(file("000000010000000000000005"));
        assert!(question.is_open());
        question.answered(file("00000002.history"));
        assert!(!question.is_open());
    }
}
