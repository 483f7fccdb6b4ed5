//! `walden targets`: what an archive can be recovered to, for people as text, for programs as one JSON document.
//!
//! Guarantees that names out of WAL are shown escaped, and times in UTC in the form that `recovery_target_time` takes. Left to
//! others: what can be recovered (`audit`).

use crate::exit::Outcome;
use crate::flags::{Global, Targets};
use crate::say;
use crate::survey;
use archive::{Cancel, Error};
use audit::records::FromArchive;
use audit::size;
use audit::stop::{Goal, Target};
use audit::targets::{
    Answer, Answers, BackupReport, EndReport, Hole, Kind, Place, PointReport, Range, ReachReport,
    Report, TimelineAnswers, TimelineReport, answers, report,
};
use audit::timestamp::readable;
use std::fmt::Write;

/// Prints what can be recovered, or what becomes of one target.
pub(crate) fn run(flags: &Targets, global: &Global) -> Outcome {
    match read(flags, global) {
        Ok(report) if flags.json => say::json(&report),
        Ok(report) => say::output(&in_words(&report)),
        Err(error) => {
            say::failure(&error);
            Outcome::Failed
        }
    }
}

fn read(flags: &Targets, global: &Global) -> Result<Report, Error> {
    let (archive, survey) = survey::read(&flags.survey, global)?;
    let mut found = report(&survey);
    if let Some(target) = target(flags) {
        let goal = Goal {
            target,
            inclusive: !flags.exclusive,
        };
        let cancel = Cancel::new();
        let mut records = FromArchive::new(archive.reading(), &cancel);
        found.target = Some(answers(&survey, &goal, &mut records)?);
    }
    Ok(found)
}

fn target(flags: &Targets) -> Option<Target> {
    let time = flags.near.map(Target::Time);
    let xid = flags.xid.map(Target::Xid);
    let lsn = flags.lsn.map(Target::Lsn);
    let name = flags.name.clone().map(Target::Name);
    time.or(xid).or(lsn).or(name)
}

/// Text that grows line by line; a `String` takes all of them.
macro_rules! line {
    ($text:expr, $($word:tt)*) => {{
        let _ = writeln!($text, $($word)*);
    }};
}

fn in_words(report: &Report) -> String {
    let mut text = String::new();
    match &report.system {
        Some(system) => line!(text, "\"{}\": WAL of system {system}", report.archive),
        None => line!(text, "no WAL in \"{}\"", report.archive),
    }
    for note in &report.notes {
        line!(text, "note: {note}");
    }
    if let Some(answers) = &report.target {
        target_in_words(&mut text, answers);
        return text;
    }
    for timeline in &report.timelines {
        line!(text, "");
        timeline_in_words(&mut text, timeline);
    }
    for backup in &report.backups {
        line!(text, "");
        backup_in_words(&mut text, backup);
    }
    if report.backups.is_empty() && report.system.is_some() {
        line!(text, "\nno base backup has left a backup history file");
    }
    if !report.restore_points.is_empty() {
        line!(text, "\nrestore points");
    }
    for point in &report.restore_points {
        point_in_words(&mut text, point);
    }
    text
}

fn timeline_in_words(text: &mut String, timeline: &TimelineReport) {
    match &timeline.left {
        Some(left) => line!(
            text,
            "timeline {}, which left {} at {}: {}",
            timeline.timeline,
            left.timeline,
            left.lsn,
            left.reason.escape_debug()
        ),
        None => line!(text, "timeline {}", timeline.timeline),
    }
    if timeline.history_missing {
        line!(text, "  its timeline history file is missing");
    }
    let mut holes = timeline.holes.iter().peekable();
    for range in &timeline.ranges {
        let is_before = |hole: &&Hole| hole.first_segment < range.first_segment.to_string();
        while let Some(hole) = holes.next_if(is_before) {
            hole_in_words(text, hole);
        }
        range_in_words(text, range);
    }
    for hole in holes {
        hole_in_words(text, hole);
    }
    if timeline.ranges.is_empty() {
        line!(text, "  no WAL");
    }
}

fn range_in_words(text: &mut String, range: &Range) {
    line!(
        text,
        "  {} to {}, {}, {} of WAL in {}",
        range.first_lsn,
        range.until_lsn,
        say::counted(range.segments, "segment"),
        size(range.wal_bytes),
        size(range.stored_bytes)
    );
    if let Some((first, last)) = range.first_time.zip(range.last_time) {
        line!(
            text,
            "    {} to {}, {}",
            readable(first),
            readable(last),
            say::counted(range.commits, "commit")
        );
    }
}

fn hole_in_words(text: &mut String, hole: &Hole) {
    match (&hole.why, hole.segments) {
        (Some(why), _) => line!(
            text,
            "  segment \"{}\" is of no use: {why}",
            hole.first_segment
        ),
        (None, 1) => line!(text, "  segment \"{}\" is missing", hole.first_segment),
        (None, segments) => line!(
            text,
            "  {segments} segments are missing, \"{}\" to \"{}\"",
            hole.first_segment,
            hole.last_segment
        ),
    }
}

fn backup_in_words(text: &mut String, backup: &BackupReport) {
    let ended = backup
        .stop_time
        .as_deref()
        .map(|time| format!(", ended {time}"));
    line!(
        text,
        "base backup \"{}\" ({}), timeline {}{}",
        backup.file,
        backup.label.escape_debug(),
        backup.timeline,
        ended.unwrap_or_default().escape_debug()
    );
    for reach in &backup.reaches {
        reach_in_words(text, backup, reach);
    }
    if backup.reaches.is_empty() {
        line!(text, "  no WAL of its timeline");
    }
}

fn reach_in_words(text: &mut String, backup: &BackupReport, reach: &ReachReport) {
    let timeline = reach.timeline;
    let why = reach.why.as_deref().unwrap_or_default();
    let Some(until) = &reach.until_lsn else {
        return line!(text, "  timeline {timeline}: cannot be recovered: {why}");
    };
    line!(
        text,
        "  timeline {timeline}: from {} to {until}",
        backup.stop_lsn
    );
    match (reach.from_time, reach.before_time) {
        (Some(from), Some(before)) => {
            line!(
                text,
                "    target times from {} until before {}",
                readable(from),
                readable(before)
            );
        }
        (None, Some(before)) => line!(text, "    target times before {}", readable(before)),
        (_, None) => line!(text, "    no target time: no transaction has ended since"),
    }
    if !why.is_empty() {
        line!(text, "    and no further: {why}");
    }
}

fn point_in_words(text: &mut String, point: &PointReport) {
    line!(
        text,
        "  \"{}\", timeline {}, {}, {}",
        point.name.escape_debug(),
        point.timeline,
        point.lsn,
        readable(point.at)
    );
    for reach in &point.reachable {
        let others = reach.backup_count - reach.backups.len() as u64;
        let backups: Vec<String> = reach
            .backups
            .iter()
            .map(|file| format!("\"{file}\""))
            .collect();
        line!(
            text,
            "    on timeline {} from {}",
            reach.timeline,
            backups.join(", ")
        );
        if others > 0 {
            line!(
                text,
                "      and from {} before",
                say::counted(others, "base backup")
            );
        }
    }
    if point.reachable.is_empty() {
        line!(text, "    out of reach of every base backup");
    }
}

fn target_in_words(text: &mut String, answers: &Answers) {
    line!(
        text,
        "{} = '{}'",
        answers.parameter,
        answers.value.escape_debug()
    );
    if !answers.inclusive {
        line!(text, "recovery_target_inclusive = off");
    }
    for timeline in &answers.timelines {
        line!(text, "\ntimeline {}", timeline.timeline);
        timeline_answers_in_words(text, timeline);
    }
}

fn timeline_answers_in_words(text: &mut String, timeline: &TimelineAnswers) {
    match &timeline.found {
        Some(place) => place_in_words(text, place),
        None => line!(text, "  nothing to stop at: WAL ends before the target"),
    }
    for answer in &timeline.backups {
        answer_in_words(text, answer, timeline.found.as_ref());
    }
    if timeline.backups.is_empty() {
        line!(text, "  no base backup that belongs to it is known");
    }
}

fn place_in_words(text: &mut String, place: &Place) {
    if let Some(commit) = &place.last_commit {
        line!(text, "  last commit   {}", end_in_words(commit));
    }
    if let Some(last) = place.last.as_ref().filter(|last| !last.committed) {
        line!(text, "  then          {}", end_in_words(last));
    }
    line!(text, "  ends at       {}", place.lsn);
    if let Some(next) = &place.next {
        line!(text, "  next would be {}", end_in_words(next));
    }
}

/// `700 at 2026-11-21 10:00:00+00, 0/3000148 to 0/3000170`
fn end_in_words(end: &EndReport) -> String {
    let xid = end.xid.map_or("a transaction".to_owned(), |xid| {
        format!("transaction {xid}")
    });
    let how = if end.committed { "" } else { " rolled back" };
    format!(
        "{xid}{how}, {}, {} to {}",
        readable(end.at),
        end.lsn,
        end.end_lsn
    )
}

fn answer_in_words(text: &mut String, answer: &Answer, found: Option<&Place>) {
    let why = answer.why.as_deref().unwrap_or_default();
    let name = format!(
        "base backup \"{}\" ({})",
        answer.backup,
        answer.label.escape_debug()
    );
    match answer.kind {
        Kind::Stops if answer.stop.as_ref() == found => line!(text, "  {name}: gets there"),
        Kind::Stops => {
            line!(text, "  {name}: stops elsewhere");
            let mut place = String::new();
            if let Some(stop) = &answer.stop {
                place_in_words(&mut place, stop);
            }
            for part in place.lines() {
                line!(text, "  {part}");
            }
        }
        Kind::TooEarly => line!(text, "  {name}: too late: {why}"),
        Kind::NotReached => line!(text, "  {name}: does not get there: {why}"),
        Kind::Unusable => line!(text, "  {name}: cannot be recovered: {why}"),
    }
}
