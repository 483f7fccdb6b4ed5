//! Remembers what a standby was told "could not tell" about, in case it is promoted before that is settled.
//!
//! A standby answers "could not tell" by trying again and streaming meanwhile. If it is promoted instead, the
//! archive may have held WAL that it never saw: that deserves a WARNING.

use module::{Failure, Level, Process, Report, WalFileName};
use std::time::Duration;
use wal::{SegmentName, TimelineId};

/// How often an open question is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The open questions: the one about the last segment in question, and the latest about a timeline history file.
#[derive(Debug, Default)]
pub(crate) struct LeftBehind {
    segment: Option<SegmentName>,
    timeline: Option<TimelineId>,
}

impl LeftBehind {
    /// The standby was told "could not tell" about `file`.
    pub(crate) fn could_not_tell(&mut self, file: WalFileName) {
        match file {
            // The last one counts: a server that is being promoted asks for what it has replayed once more.
            WalFileName::Segment(now) => {
                let last = self.segment.filter(|open| open.position() > now.position());
                self.segment = Some(last.unwrap_or(now));
            }
            WalFileName::TimelineHistory(timeline) => self.timeline = Some(timeline),
            // Never asked for by recovery.
            WalFileName::Partial(_) | WalFileName::BackupHistory { .. } => {}
        }
    }

    /// The archive has answered about `file`: that settles an open question about it or, for segments, about
    /// what lies before it.
    pub(crate) fn answered(&mut self, file: WalFileName) {
        match file {
            WalFileName::Segment(now) => {
                self.segment = self.segment.filter(|open| now.position() < open.position());
            }
            WalFileName::TimelineHistory(now) => {
                self.timeline = self.timeline.filter(|open| *open != now);
            }
            WalFileName::Partial(_) | WalFileName::BackupHistory { .. } => {}
        }
    }

    /// Whether there is something to look at again.
    pub(crate) fn is_open(&self) -> bool {
        self.segment.is_some() || self.timeline.is_some()
    }

    /// Warns if recovery has ended with a question open.
    pub(crate) fn look(&mut self, process: Process, recovery_has_ended: bool) {
        if !self.is_open() || (!recovery_has_ended && process.in_recovery().unwrap_or(true)) {
            return;
        }
        if let Some(segment) = self.segment.take()
            && !arrived_otherwise(process, &segment)
        {
            let text = Failure::new("archived WAL may have been left behind")
                .detail(format!(
                    "When recovery ended it was not known whether the archive holds file \"{segment}\"."
                ))
                .hint(
                    "Check whether the archive holds the file; WAL in it was not replayed on this server.",
                );
            process.report(&Report::of(Level::Warning, text));
        }
        if let Some(timeline) = self.timeline.take() {
            let file = WalFileName::TimelineHistory(timeline);
            let text = Failure::new("the new timeline may have the number of one that exists already")
                .detail(format!(
                    "When recovery ended it was not known whether the archive holds file \"{file}\"."
                ))
                .hint(
                    "Check whether the archive holds the file; if so, and another server wrote it, this server \
                     cannot archive its WAL there.",
                );
            process.report(&Report::of(Level::Warning, text));
        }
    }
}

/// Whether replay went past the segment all the same, by streaming.
fn arrived_otherwise(process: Process, segment: &SegmentName) -> bool {
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
    fn a_question_about_an_earlier_segment_does_not_replace_one_about_a_later() {
        let mut question = LeftBehind::default();
        question.could_not_tell(file("000000010000000000000006"));
        question.could_not_tell(file("000000010000000000000005"));
        question.answered(file("000000010000000000000005"));
        assert!(question.is_open());
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
