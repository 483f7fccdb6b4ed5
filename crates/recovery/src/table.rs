//! What is told to whom: functions of values, and nothing else.
//!
//! Each takes what was found and what the server is like, and gives what it is told. Every cell is tested below by a second
//! account of the rules, written the other way round: by what must never happen.

use archive::MissingSegment;
use wal::TimelineId;

use crate::control::Control;
use crate::own::Own;
use crate::phase::Phase;
use crate::server::TargetTimeline;

/// What an asker is told about a file that it does not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The file is not in the archive.
    Absent,
    /// The same, and a warning says what may follow.
    AbsentWithWarning,
    /// It is not known, or must not be said.
    CouldNotTell,
}

/// What was found of a segment that recovery asks for and is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentFound {
    /// Not stored, and nothing speaks against its absence.
    NotStored,
    /// The same, and the line under recovery leaves the segment's timeline in it.
    NotStoredAtFork,
    /// Not stored, and it must have existed.
    Missing,
    /// Stored, with WAL behind the place where the line left its timeline.
    BehindFork,
    /// The archive could not be made sure of.
    Unsure,
}

impl SegmentFound {
    /// Every value, for tables.
    pub const ALL: [SegmentFound; 5] = [
        SegmentFound::NotStored,
        SegmentFound::NotStoredAtFork,
        SegmentFound::Missing,
        SegmentFound::BehindFork,
        SegmentFound::Unsure,
    ];
}

/// What recovery is told about a segment. `own` is what the server has of it itself, which it reads after "absent".
#[must_use]
pub fn segment(
    phase: Phase,
    found: SegmentFound,
    own: Own,
    missing_segment: MissingSegment,
) -> Verdict {
    let warned = match (phase, missing_segment) {
        // There is no way back any more.
        (Phase::Ending, _) => Verdict::AbsentWithWarning,
        (Phase::Standby | Phase::Targeted, MissingSegment::End) => Verdict::AbsentWithWarning,
        (Phase::Standby | Phase::Targeted, MissingSegment::Error) => Verdict::CouldNotTell,
    };
    match found {
        SegmentFound::NotStored => Verdict::Absent,
        // A standby waits for the newer timeline's segment; its own copy is read next.
        SegmentFound::NotStoredAtFork => match (phase, own) {
            (Phase::Targeted, Own::Nothing) => Verdict::AbsentWithWarning,
            _ => Verdict::Absent,
        },
        SegmentFound::Missing => match own {
            Own::Whole => Verdict::Absent,
            Own::Nothing | Own::Begun => warned,
        },
        // It can stream what its own line holds.
        SegmentFound::BehindFork if phase == Phase::Standby => Verdict::AbsentWithWarning,
        SegmentFound::BehindFork => warned,
        SegmentFound::Unsure => match (phase, own) {
            // What pg_wal holds must not take the server down.
            (Phase::Ending, _) | (_, Own::Whole) => Verdict::AbsentWithWarning,
            _ => Verdict::CouldNotTell,
        },
    }
}

/// What a timeline history file is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// To be kept, or to be read where the server stops by itself without it: absent does no harm.
    Copy,
    /// To find out whether there is such a timeline.
    Probe {
        /// Recovery goes on to the next number until one is absent.
        for_latest: bool,
    },
}

impl Role {
    /// Every value, for tables.
    pub const ALL: [Role; 3] = [
        Role::Copy,
        Role::Probe { for_latest: false },
        Role::Probe { for_latest: true },
    ];

    /// What the server asks this timeline's file for (`findNewestTimeLine`, `readTimeLineHistory`, `restoreTimeLineHistoryFiles`,
    /// timeline.c, 15 to 18): without any memory of requests, by what it is set to and where it stands.
    #[must_use]
    pub fn of(
        timeline: TimelineId,
        phase: Phase,
        target: TargetTimeline,
        control: Option<Control>,
    ) -> Role {
        let is_behind_us = control.is_some_and(|control| timeline <= control.newest());
        let is_before_target =
            matches!(target, TargetTimeline::Number(number) if timeline < number);
        if phase == Phase::Ending || is_behind_us || is_before_target {
            Role::Copy
        } else {
            Role::Probe {
                for_latest: target == TargetTimeline::Latest,
            }
        }
    }
}

/// What was found of a timeline history file that recovery asks for and is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryFound {
    /// Not stored, and nothing speaks against its absence.
    NotStored,
    /// Not stored, and it must have existed.
    Missing,
    /// The archive could not be made sure of.
    Unsure,
}

impl HistoryFound {
    /// Every value, for tables.
    pub const ALL: [HistoryFound; 3] = [
        HistoryFound::NotStored,
        HistoryFound::Missing,
        HistoryFound::Unsure,
    ];
}

/// What recovery is told about a timeline history file. `is_kept`: it lies in `pg_wal`, where the server takes it from after
/// "absent".
#[must_use]
pub fn history(phase: Phase, role: Role, found: HistoryFound, is_kept: bool) -> Verdict {
    match (found, role) {
        (HistoryFound::NotStored, _) => Verdict::Absent,
        (HistoryFound::Missing, Role::Copy) => Verdict::Absent,
        (HistoryFound::Missing, Role::Probe { .. }) if is_kept => Verdict::Absent,
        (HistoryFound::Missing, Role::Probe { .. }) => Verdict::CouldNotTell,
        (HistoryFound::Unsure, _) if is_kept || phase == Phase::Ending => {
            Verdict::AbsentWithWarning
        }
        (HistoryFound::Unsure, _) => Verdict::CouldNotTell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 3] = [Phase::Standby, Phase::Targeted, Phase::Ending];

    #[test]
    fn every_cell_of_the_segments_table_keeps_what_is_promised() {
        for phase in PHASES {
            for found in SegmentFound::ALL {
                for own in Own::ALL {
                    for missing_segment in [MissingSegment::Error, MissingSegment::End] {
                        let verdict = segment(phase, found, own, missing_segment);
                        let cell =
                            format!("{phase:?} {found:?} {own:?} {missing_segment}: {verdict:?}");
                        let is_absent = verdict != Verdict::CouldNotTell;
                        // The end of a recovery neither stops nor waits.
                        assert!(phase != Phase::Ending || is_absent, "{cell}");
                        // What the server has to its end is never a reason to stop, unless it is on another line.
                        let reads_own = own == Own::Whole && found != SegmentFound::BehindFork;
                        assert!(!reads_own || is_absent, "{cell}");
                        // No evidence, no obstacle.
                        let is_free = matches!(
                            found,
                            SegmentFound::NotStored | SegmentFound::NotStoredAtFork
                        );
                        assert!(!is_free || is_absent, "{cell}");
                        // A failure of the archive never ends a recovery that goes on, whatever the parameter says.
                        if found == SegmentFound::Unsure && phase.stops() {
                            assert_eq!(is_absent, own == Own::Whole, "{cell}");
                        }
                        // What must have existed ends a recovery only if a setting allows it.
                        let is_hole =
                            matches!(found, SegmentFound::Missing | SegmentFound::BehindFork);
                        if is_hole && phase.stops() && !reads_own {
                            assert_eq!(is_absent, missing_segment == MissingSegment::End, "{cell}");
                        }
                        // An end that the evidence speaks against is never told without a warning.
                        assert!(
                            is_free || reads_own || verdict != Verdict::Absent,
                            "silent: {cell}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_cell_of_the_histories_table_keeps_what_is_promised() {
        for phase in PHASES {
            for role in Role::ALL {
                for found in HistoryFound::ALL {
                    for is_kept in [false, true] {
                        let verdict = history(phase, role, found, is_kept);
                        let cell = format!("{phase:?} {role:?} {found:?} {is_kept}: {verdict:?}");
                        let is_absent = verdict != Verdict::CouldNotTell;
                        let may_stop = match found {
                            HistoryFound::NotStored => false,
                            HistoryFound::Missing => role != Role::Copy && !is_kept,
                            HistoryFound::Unsure => !is_kept && phase != Phase::Ending,
                        };
                        assert_eq!(is_absent, !may_stop, "{cell}");
                        assert_eq!(
                            verdict == Verdict::AbsentWithWarning,
                            found == HistoryFound::Unsure && is_absent,
                            "{cell}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_history_file_is_a_probe_only_above_where_the_server_stands_and_from_its_target_on() {
        let timeline = |number| TimelineId::new(number).unwrap();
        let control = |checkpoint, min_recovery| {
            Some(Control {
                checkpoint_timeline: timeline(checkpoint),
                min_recovery_timeline: TimelineId::new(min_recovery),
                segment_size: None,
            })
        };
        let (latest, current) = (TargetTimeline::Latest, TargetTimeline::Current);
        let number = TargetTimeline::Number(timeline(4));
        let probe = |for_latest| Role::Probe { for_latest };
        for (asked, phase, target, control, role) in [
            (2, Phase::Targeted, latest, control(1, 0), probe(true)),
            (2, Phase::Standby, latest, control(1, 0), probe(true)),
            (2, Phase::Targeted, latest, control(2, 0), Role::Copy),
            (2, Phase::Targeted, latest, control(1, 2), Role::Copy),
            (3, Phase::Targeted, latest, control(1, 2), probe(true)),
            (3, Phase::Targeted, number, control(1, 0), Role::Copy),
            (4, Phase::Targeted, number, control(1, 0), probe(false)),
            (5, Phase::Targeted, number, control(1, 0), probe(false)),
            (2, Phase::Targeted, current, control(1, 0), probe(false)),
            (2, Phase::Ending, latest, control(1, 0), Role::Copy),
            (2, Phase::Targeted, latest, None, probe(true)),
        ] {
            let found = Role::of(timeline(asked), phase, target, control);
            assert_eq!(found, role, "{asked} {phase:?} {target:?} {control:?}");
        }
    }
}
