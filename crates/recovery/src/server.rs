//! Who asks for a file, and what is known of a server in recovery.

use std::path::{Path, PathBuf};

use archive::{MissingSegment, histories_in, history_in};
use wal::{SegmentSize, SystemIdentifier, TimelineHistory, TimelineId, WalFileName};

use crate::control::Control;
use crate::phase::Phase;

/// What recovery asks for itself ends so (`RestoreArchivedFile`, xlogarchive.c, 15 to 18): it restores under these
/// names, and a host's private name ends in the one that was asked for.
const RECOVERYS_OWN: [&str; 2] = ["RECOVERYXLOG", "RECOVERYHISTORY"];

/// Whether it is recovery that wants a file under this path, and not pg_rewind or a person.
#[must_use]
pub fn is_recoverys_own(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    RECOVERYS_OWN.iter().any(|own| name.ends_with(own))
}

/// Who asks for a file.
#[derive(Debug, Clone)]
pub enum Asker {
    /// The startup process of this server, which draws conclusions.
    Recovery(Server),
    /// pg_rewind, or a person: just this file is wanted.
    Other,
}

/// Which timeline a recovery is to follow: `recovery_target_timeline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetTimeline {
    /// The latest that there is, which is the server's default.
    #[default]
    Latest,
    /// The one that the backup was taken on.
    Current,
    /// The timeline of this number: `recovery_target_timeline = '3'`.
    Number(TimelineId),
}

impl TargetTimeline {
    /// As the parameter is written (`check_recovery_target_timeline`, xlogrecovery.c, 15 to 18); what the server would refuse
    /// counts as its default.
    #[must_use]
    pub fn parse(text: &str) -> TargetTimeline {
        match text {
            "current" => TargetTimeline::Current,
            number => {
                let number = number.trim();
                let hex = number.strip_prefix("0x").or(number.strip_prefix("0X"));
                // strtoul with base 0: octal after a zero.
                let parsed = match (hex, number.strip_prefix('0')) {
                    (Some(hex), _) => u32::from_str_radix(hex, 16).ok(),
                    (None, Some(octal)) => u32::from_str_radix(octal, 8).ok(),
                    (None, None) => number.parse().ok(),
                };
                parsed
                    .and_then(TimelineId::new)
                    .map_or(TargetTimeline::Latest, TargetTimeline::Number)
            }
        }
    }
}

/// A server in recovery, as it is when it asks.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its data directory; `pg_wal` lies there.
    pub data_directory: PathBuf,
    /// How far its recovery has come.
    pub phase: Phase,
    /// Which timeline it is to follow.
    pub target: TargetTimeline,
    /// What its control file says of timelines; `None` if that cannot be read.
    pub control: Option<Control>,
    /// Its system identifier, if it is known.
    pub system: Option<SystemIdentifier>,
    /// Its segment size, if it is known.
    pub size: Option<SegmentSize>,
    /// What a missing segment means to it.
    pub missing_segment: MissingSegment,
}

impl Server {
    /// Where its WAL lies.
    #[must_use]
    pub fn pg_wal(&self) -> PathBuf {
        self.data_directory.join("pg_wal")
    }

    /// The timeline history files in `pg_wal` that can be read: recovery keeps those it has read there, also of timelines
    /// that it then rejects (`readTimeLineHistory` and `rescanLatestTimeLine`, 15 to 18).
    pub(crate) fn kept_histories(&self) -> Vec<TimelineHistory> {
        histories_in(&self.pg_wal())
    }

    /// The same of one timeline.
    pub(crate) fn kept_history(&self, timeline: TimelineId) -> Option<TimelineHistory> {
        history_in(&self.pg_wal(), timeline)
    }

    /// Whether the history file of this timeline is wanted for a copy only, see [`keeps_history`].
    pub(crate) fn keeps_history(&self, timeline: TimelineId) -> bool {
        keeps_history(&self.data_directory, timeline)
    }
}

/// Whether the server of this data directory has this timeline history file in `pg_wal`. Such a file never changes, and after
/// "absent" the server takes it (`RestoreArchivedFile`, xlogarchive.c, 15 to 18): no trouble with an archive, whichever module
/// has it, is a reason to stop.
#[must_use]
pub fn keeps_history(data_directory: &Path, timeline: TimelineId) -> bool {
    let name = WalFileName::TimelineHistory(timeline).to_string();
    data_directory.join("pg_wal").join(name).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_is_known_by_the_names_that_it_restores_under() {
        for own in [
            "pg_wal/RECOVERYXLOG",
            "pg_wal/RECOVERYHISTORY",
            "pg_wal/pgsql_tmp_x_RECOVERYXLOG",
        ] {
            assert!(is_recoverys_own(Path::new(own)), "{own}");
        }
        assert!(!is_recoverys_own(Path::new(
            "pg_wal/000000010000000000000001"
        )));
    }

    #[test]
    fn a_target_timeline_is_read_as_the_server_reads_it() {
        let number = |number| TargetTimeline::Number(TimelineId::new(number).unwrap());
        for (text, target) in [
            ("latest", TargetTimeline::Latest),
            ("", TargetTimeline::Latest),
            ("current", TargetTimeline::Current),
            ("3", number(3)),
            ("0x1A", number(26)),
            ("012", number(10)),
            ("0", TargetTimeline::Latest),
            ("soon", TargetTimeline::Latest),
        ] {
            assert_eq!(TargetTimeline::parse(text), target, "{text}");
        }
    }
}
