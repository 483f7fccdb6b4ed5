//! What an archive can be recovered to: timelines and their times, base backups, restore points.
//!
//! Guarantees that a base backup is said to reach something only if all WAL from its beginning up to there is in the archive,
//! readable and contiguous, on a line that it belongs to. Where recovery stops for a target is `stop`, asked through
//! `answer`. Texts are in the form of JSON documents; showing them is left to the command.

mod answer;

pub use answer::{Answer, Answers, EndReport, Kind, Place, TimelineAnswers, answers};

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use wal::{Lsn, TimelineId, Timestamp};

use crate::facts::RestorePoint;
use crate::line::{Ended, Line, NoReach, Run};
use crate::survey::Survey;
use crate::text;

/// What can be recovered. Its fields are a promise to programs: add, never rename.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What the archive is called in messages.
    pub archive: String,
    /// System identifier of the cluster, if it is known.
    pub system: Option<String>,
    /// Segment size in bytes, if it is known.
    pub segment_bytes: Option<u64>,
    /// Timelines, by number.
    pub timelines: Vec<TimelineReport>,
    /// Base backups, by the LSN at which they begin.
    pub backups: Vec<BackupReport>,
    /// Restore points, by LSN.
    pub restore_points: Vec<PointReport>,
    /// What is wrong with files that are no segments.
    pub notes: Vec<String>,
    /// What becomes of a recovery to the target that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Answers>,
}

/// What is known of one timeline.
#[derive(Debug, Serialize)]
pub struct TimelineReport {
    /// Number of the timeline.
    #[serde(with = "text::timeline")]
    pub timeline: TimelineId,
    /// The timeline that it left, and where.
    pub left: Option<Left>,
    /// Whether its timeline history file is missing: no recovery finds its way to it then.
    pub history_missing: bool,
    /// Its own WAL, as far as it is contiguous.
    pub ranges: Vec<Range>,
    /// What is missing in it, or of no use.
    pub holes: Vec<Hole>,
}

/// Where a timeline comes from.
#[derive(Debug, Serialize)]
pub struct Left {
    /// Number of the timeline that was left.
    #[serde(with = "text::timeline")]
    pub timeline: TimelineId,
    /// The first place of its own.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// Why, in the server's words.
    pub reason: String,
}

/// A range of contiguous WAL.
#[derive(Debug, Serialize)]
pub struct Range {
    /// Name of the first segment.
    #[serde(with = "text::plain")]
    pub first_segment: wal::SegmentName,
    /// Name of the last segment.
    #[serde(with = "text::plain")]
    pub last_segment: wal::SegmentName,
    /// Number of segments.
    pub segments: u64,
    /// LSN at which it begins.
    #[serde(with = "text::plain")]
    pub first_lsn: Lsn,
    /// LSN at which it ends.
    #[serde(with = "text::plain")]
    pub until_lsn: Lsn,
    /// The first time that it tells.
    #[serde(with = "text::maybe_shown")]
    pub first_time: Option<Timestamp>,
    /// Last time in it.
    #[serde(with = "text::maybe_shown")]
    pub last_time: Option<Timestamp>,
    /// How many transactions it commits. A timeline's first segment repeats those of the one before.
    pub commits: u64,
    /// How many it rolls back.
    pub aborts: u64,
    /// How many bytes are stored.
    pub stored_bytes: u64,
    /// How many bytes of WAL these hold.
    pub wal_bytes: u64,
}

/// Why WAL is not contiguous.
#[derive(Debug, Clone, Serialize)]
pub struct Hole {
    /// The first segment that is missing or of no use.
    pub first_segment: String,
    /// Name of the last missing segment.
    pub last_segment: String,
    /// Number of segments.
    pub segments: u64,
    /// What is wrong with it, if it is there.
    pub why: Option<String>,
}

/// What is known of one base backup.
#[derive(Debug, Serialize)]
pub struct BackupReport {
    /// The name of its backup history file.
    pub file: String,
    /// Label of the backup.
    pub label: String,
    /// The timeline that it was taken on.
    #[serde(with = "text::timeline")]
    pub timeline: TimelineId,
    /// LSN at which its replay begins.
    #[serde(with = "text::plain")]
    pub start_lsn: Lsn,
    /// From where on it is consistent.
    #[serde(with = "text::plain")]
    pub stop_lsn: Lsn,
    /// When it began, as the server wrote it.
    pub start_time: Option<String>,
    /// Time at which the backup ended, as the file writes it.
    pub stop_time: Option<String>,
    /// How far it can be recovered, by timeline.
    pub reaches: Vec<ReachReport>,
}

/// How far a base backup can be recovered along a timeline.
#[derive(Debug, Serialize)]
pub struct ReachReport {
    /// `recovery_target_timeline`
    #[serde(with = "text::timeline")]
    pub timeline: TimelineId,
    /// Where its WAL ends; `None` if it cannot be recovered at all.
    pub until_lsn: Option<String>,
    /// Recovery can stop at target times from this one on; at any early one if it is `None`.
    #[serde(with = "text::maybe_shown")]
    pub from_time: Option<Timestamp>,
    /// And before this one, behind which no transaction ended; at none if it is `None`.
    #[serde(with = "text::maybe_shown")]
    pub before_time: Option<Timestamp>,
    /// Why it cannot be recovered at all, or no further though there is more WAL.
    pub why: Option<String>,
}

/// What is known of one restore point.
#[derive(Debug, Serialize)]
pub struct PointReport {
    /// Name of the restore point.
    pub name: String,
    /// LSN of its record.
    #[serde(with = "text::plain")]
    pub lsn: Lsn,
    /// Time at which it was made, by the server's clock.
    #[serde(with = "text::shown")]
    pub at: Timestamp,
    /// The timeline that it was made on.
    #[serde(with = "text::timeline")]
    pub timeline: TimelineId,
    /// With which `recovery_target_timeline` its name leads there, and from which base backups.
    pub reachable: Vec<PointReach>,
}

/// How to get to a restore point.
#[derive(Debug, Serialize)]
pub struct PointReach {
    /// `recovery_target_timeline`
    #[serde(with = "text::timeline")]
    pub timeline: TimelineId,
    /// The files of the base backups, the newest last; of many the newest ones.
    pub backups: Vec<String>,
    /// How many base backups there are in all.
    pub backup_count: u64,
}

/// The most base backups that are named for one restore point.
const BACKUPS_MAX: usize = 16;

/// What can be recovered.
#[must_use]
pub fn report(survey: &Survey) -> Report {
    let lines: Vec<Line<'_>> = survey
        .timelines()
        .into_iter()
        .map(|timeline| survey.line(timeline))
        .collect();
    Report {
        archive: survey.place.clone(),
        system: survey.system.map(|system| system.to_string()),
        segment_bytes: survey.size.map(wal::SegmentSize::bytes),
        timelines: lines.iter().map(timeline).collect(),
        backups: backups(survey, &lines),
        restore_points: points(survey, &lines),
        notes: survey.notes.clone(),
        target: None,
    }
}

fn timeline(line: &Line<'_>) -> TimelineReport {
    let parent = line.history.and_then(|history| history.entries().last());
    TimelineReport {
        timeline: line.timeline,
        left: parent.map(|parent| Left {
            timeline: parent.timeline,
            lsn: parent.switchpoint,
            reason: parent.reason.clone(),
        }),
        history_missing: line.history.is_none() && line.timeline != TimelineId::FIRST,
        ranges: line
            .runs
            .iter()
            .filter_map(|run| range(line, run))
            .collect(),
        holes: line
            .holes
            .iter()
            .filter(|ended| ended.timeline() == Some(line.timeline))
            .filter_map(hole)
            .collect(),
    }
}

/// What a run has of the timeline's own WAL.
fn range(line: &Line<'_>, run: &Run<'_>) -> Option<Range> {
    let own = run.of(line.timeline);
    let segments = own.len() as u64;
    let mut all = own.filter_map(|at| run.facts(at));
    let first = all.next()?;
    // The first segment repeats what the timeline before it has up to there.
    let mut begun = first.beginnings.iter();
    let begun = begun.find(|beginning| beginning.timeline == line.timeline);
    let mut range = Range {
        first_segment: first.name,
        last_segment: first.name,
        segments,
        first_lsn: first.start.max(line.begins()),
        until_lsn: first.wal_end(),
        first_time: None,
        last_time: None,
        commits: 0,
        aborts: 0,
        stored_bytes: 0,
        wal_bytes: 0,
    };
    let begun = begun.and_then(|begun| begun.at);
    for facts in std::iter::once(first).chain(all) {
        let add = |to: &mut u64, more: u64| *to = to.saturating_add(more);
        add(&mut range.commits, facts.ends.commits);
        add(&mut range.aborts, facts.ends.aborts);
        add(&mut range.stored_bytes, facts.stamp.bytes);
        add(&mut range.wal_bytes, facts.wal_bytes());
        for at in facts.ends.earliest.into_iter().chain(facts.time()) {
            range.first_time = Some(range.first_time.map_or(at, |first| first.min(at)));
            range.last_time = range.last_time.max(Some(at));
        }
        (range.last_segment, range.until_lsn) = (facts.name, facts.wal_end());
    }
    range.first_time = begun.or(range.first_time);
    Some(range)
}

/// What is wrong behind a run, if anything is.
#[must_use]
pub fn hole(ended: &Ended) -> Option<Hole> {
    match ended {
        Ended::Archive => None,
        Ended::Missing { first, last, count } => Some(Hole {
            first_segment: first.to_string(),
            last_segment: last.to_string(),
            segments: *count,
            why: None,
        }),
        Ended::Unreadable { name, why } | Ended::Broken { name, why } => Some(Hole {
            first_segment: name.to_string(),
            last_segment: name.to_string(),
            segments: 1,
            why: Some(why.clone()),
        }),
    }
}

impl Ended {
    /// In words, as a cause.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Ended::Archive => "the archive has no later WAL".to_owned(),
            Ended::Missing {
                first, count: 1, ..
            } => format!("segment \"{first}\" is missing"),
            Ended::Missing { first, last, count } => {
                format!("{count} segments are missing, \"{first}\" to \"{last}\"")
            }
            Ended::Unreadable { name, why } => format!("segment \"{name}\" cannot be read: {why}"),
            Ended::Broken { name, why } => format!("segment \"{name}\" does not follow: {why}"),
        }
    }
}

impl NoReach {
    /// In words, as a cause.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            NoReach::OtherTimeline => {
                "the timeline was left before the backup had ended".to_owned()
            }
            NoReach::StartMissing => {
                "the segment in which its replay begins is not in the archive".to_owned()
            }
            NoReach::EndMissing(ended) => format!(
                "WAL ends before the end of the backup: {}",
                ended.in_words()
            ),
        }
    }
}

fn backups(survey: &Survey, lines: &[Line<'_>]) -> Vec<BackupReport> {
    let of_line =
        |backup: &crate::survey::Backup, line: &Line<'_>| match line.reach(&backup.history) {
            Err(NoReach::OtherTimeline) => None,
            Err(why) => Some(ReachReport {
                timeline: line.timeline,
                until_lsn: None,
                from_time: None,
                before_time: None,
                why: Some(why.in_words()),
            }),
            Ok(reach) => {
                let (from_time, before_time) = reach.times(&backup.history);
                Some(ReachReport {
                    timeline: line.timeline,
                    until_lsn: Some(reach.until().to_string()),
                    from_time,
                    before_time: before_time
                        .filter(|before| from_time.is_none_or(|from| from < *before)),
                    why: (*reach.ended != Ended::Archive).then(|| reach.ended.in_words()),
                })
            }
        };
    survey
        .backups
        .iter()
        .map(|backup| BackupReport {
            file: backup.file.clone(),
            label: backup.history.label.clone(),
            timeline: backup.history.timeline,
            start_lsn: backup.history.start,
            stop_lsn: backup.history.stop,
            start_time: backup.history.start_time.clone(),
            stop_time: backup.history.stop_time.clone(),
            reaches: lines
                .iter()
                .filter_map(|line| of_line(backup, line))
                .collect(),
        })
        .collect()
}

fn points(survey: &Survey, lines: &[Line<'_>]) -> Vec<PointReport> {
    let mut found: BTreeMap<(Lsn, TimelineId), (RestorePoint, Vec<PointReach>)> = BTreeMap::new();
    for line in lines {
        let reaches: Vec<_> = survey
            .backups
            .iter()
            .filter_map(|backup| Some((backup, line.reach(&backup.history).ok()?)))
            .collect();
        let points = line.restore_points();
        let mut places: BTreeMap<String, BTreeSet<Lsn>> = BTreeMap::new();
        for point in &points {
            let same = places.entry(point.name.clone()).or_default();
            same.insert(point.lsn);
        }
        for point in points {
            // Recovery stops at the first one of its name.
            let is_first_since = |start: Lsn| {
                let same = places.get(&point.name);
                same.is_none_or(|same| same.range(start..).next() == Some(&point.lsn))
            };
            let reaching = reaches.iter().filter(|(backup, reach)| {
                let (start, stop) = (backup.history.start, backup.history.stop);
                reach.has(point.end) && stop <= point.end && is_first_since(start)
            });
            let files: Vec<&String> = reaching.map(|(backup, _)| &backup.file).collect();
            let newest = files.get(files.len().saturating_sub(BACKUPS_MAX)..);
            let owner = (point.lsn, line.timeline_at(point.lsn));
            let newest = newest.unwrap_or_default().iter().copied();
            let reach = (!files.is_empty()).then(|| PointReach {
                timeline: line.timeline,
                backups: newest.cloned().collect(),
                backup_count: files.len() as u64,
            });
            let (_, reachable) = found.entry(owner).or_insert_with(|| (point, Vec::new()));
            reachable.extend(reach);
        }
    }
    found
        .into_iter()
        .map(|((lsn, timeline), (point, reachable))| PointReport {
            name: point.name,
            lsn,
            at: point.at,
            timeline,
            reachable,
        })
        .collect()
}
