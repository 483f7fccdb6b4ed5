//! Whether timeline history files fit one another, and the names of the segments.
//!
//! Guarantees that whatever recovery would conclude wrongly from them is an error. What is in the segments is left to `piece`.

use std::collections::BTreeSet;

use wal::{SegmentSize, TimelineHistory, TimelineId, WalFileName};

use super::scope::Scope;
use crate::finding::{Finding, Kind, Severity};
use crate::inventory::Inventory;
use crate::lineage::{Gap, Lineage, Run, Runs, name_of};

const FROM_A_SERVER: &str =
    "Bring it back from a copy of the archive, or from the pg_wal of a server on that timeline.";

/// All that is wrong with them.
pub(crate) fn check(
    inventory: &Inventory,
    lineage: &Lineage,
    (runs, within): (&Runs, &Runs),
    scope: Scope,
    size: SegmentSize,
) -> Vec<Finding> {
    let mut findings = without_history(inventory, lineage);
    for history in lineage.histories() {
        findings.extend(contradiction(history, lineage));
        findings.extend(before_beginning(history, within, size));
    }
    let holes = lineage.holes_before(&inventory.partials(), runs, size);
    let asked_for = holes
        .iter()
        .filter_map(|gap| scope.cut_gap(gap, lineage, size));
    findings.extend(asked_for.map(|gap| hole(&gap, size, Severity::Error)));
    let unreached = unreached(lineage, runs, size, &holes);
    let asked_for = unreached
        .iter()
        .filter_map(|gap| scope.cut_gap(gap, lineage, size));
    findings.extend(asked_for.map(|gap| hole(&gap, size, Severity::Warning)));
    findings.extend(left_behind(lineage, runs, size));
    findings.extend(no_such_timeline(inventory, scope));
    findings.extend(outside(within, scope, size));
    findings
}

/// A range that begins before the oldest WAL, or ends behind the newest.
fn outside(within: &Runs, scope: Scope, size: SegmentSize) -> Vec<Finding> {
    let Some(numbers) = scope.numbers(size) else {
        return Vec::new();
    };
    let all = || within.values().flatten();
    let oldest = all().map(|run| *run.start()).min();
    let newest = all().map(|run| *run.end()).max();
    let finding = |what: &str, is: String| {
        let message = format!("WAL was asked for {what} a segment that {is}");
        Finding::error(Kind::Missing, "", message).hint("Look with walden list at what there is.")
    };
    let is_before = scope.from.is_some() && oldest.is_none_or(|oldest| oldest > *numbers.start());
    let is_behind = scope.to.is_some() && newest.is_none_or(|newest| newest < *numbers.end());
    let mut findings = Vec::new();
    if is_before {
        findings.push(finding("from", "is not there, nor an older one".to_owned()));
    }
    if is_behind {
        findings.push(finding("up to", "is not there, nor a newer one".to_owned()));
    }
    findings
}

/// A timeline of which there is nothing: to have found nothing wrong with it would say that it can be recovered to.
fn no_such_timeline(inventory: &Inventory, scope: Scope) -> Option<Finding> {
    let timeline = scope.timeline?;
    let files = inventory.timelines.get(&timeline);
    if files.is_some_and(|files| files.has_wal() || files.has_history) {
        return None;
    }
    let message = format!("WAL of timeline {timeline} was asked for, and there is none");
    let finding = Finding::error(Kind::Missing, "", message);
    Some(finding.hint("Look with walden list at what there is."))
}

/// The oldest timeline that has WAL, and those whose histories should be there and are not. A server that looks for the
/// newest timeline takes the first one without a history file for
/// the end of them (`findNewestTimeLine`, timeline.c, 15 to 18).
pub(crate) fn missing(
    inventory: &Inventory,
    lineage: &Lineage,
) -> (Option<TimelineId>, Vec<TimelineId>) {
    let mut needed: BTreeSet<TimelineId> = inventory
        .timelines
        .iter()
        .filter(|(_, files)| files.has_wal())
        .map(|(timeline, _)| *timeline)
        .collect();
    let oldest = needed.first().copied();
    for history in lineage.histories() {
        let ancestors = history.entries().iter().map(|parent| parent.timeline);
        needed.extend(ancestors.filter(|timeline| Some(*timeline) > oldest));
    }
    let wanted = needed
        .into_iter()
        .filter(|timeline| *timeline != TimelineId::FIRST && !inventory.has_history(*timeline));
    (oldest, wanted.collect())
}

fn without_history(inventory: &Inventory, lineage: &Lineage) -> Vec<Finding> {
    let (oldest, wanted) = missing(inventory, lineage);
    let finding = |timeline: TimelineId| {
        let name = WalFileName::TimelineHistory(timeline).to_string();
        if Some(timeline) == oldest {
            let message = format!(
                "timeline history file \"{name}\" is missing, so where the oldest timeline begins cannot be checked"
            );
            let finding = Finding::new(Severity::Warning, Kind::MissingHistory, name, message);
            return finding.hint(
                "All is well if the archive was begun on that timeline. Backups of an older one need the file.",
            );
        }
        let message = format!(
            "timeline history file \"{name}\" is missing, and there is WAL of timeline {timeline} or of one that came from it"
        );
        Finding::error(Kind::MissingHistory, name, message).hint(format!(
            "{FROM_A_SERVER} Without it no recovery finds timeline {timeline}, or a later one that it looks for."
        ))
    };
    let mut findings: Vec<Finding> = wanted.iter().copied().map(finding).collect();
    findings.extend(gaps_in_numbers(inventory, oldest, &wanted));
    findings
}

/// Numbers left out below a timeline whose history file is there. Whoever looks for the latest timeline tries one number after
/// the other, and recovery does not take the first that is missing for the end while a later one is stored.
fn gaps_in_numbers(
    inventory: &Inventory,
    oldest: Option<TimelineId>,
    wanted: &[TimelineId],
) -> Vec<Finding> {
    let has_history = |timeline| inventory.has_history(timeline);
    let stored = inventory.timelines.keys().filter(|it| has_history(**it));
    let before = stored.filter_map(|it| Some((TimelineId::new(it.get().checked_sub(1)?)?, *it)));
    let gaps = before.filter(|(gap, _)| {
        *gap > oldest.unwrap_or(TimelineId::FIRST) && !has_history(*gap) && !wanted.contains(gap)
    });
    let finding = |(gap, later): (TimelineId, TimelineId)| {
        let name = WalFileName::TimelineHistory(gap).to_string();
        let message = format!(
            "timeline history file \"{name}\" is missing, and there is one of timeline {later}"
        );
        Finding::new(Severity::Warning, Kind::MissingHistory, name, message).hint(format!(
            "{FROM_A_SERVER} Without it recovery to the latest timeline stops there; to timeline {later} by its number it works."
        ))
    };
    gaps.map(finding).collect()
}

/// The latest timeline has no segment yet, and the one that it left has the segment in which it was left: recovery along the
/// latest does not take it, since WAL from behind that place may be in it.
fn left_behind(lineage: &Lineage, runs: &Runs, size: SegmentSize) -> Option<Finding> {
    let latest = lineage.histories().max_by_key(|it| it.timeline())?;
    let parent = latest.entries().last()?;
    let number = parent.switchpoint.segment(size).0;
    let has = |timeline, number| {
        let runs: Option<&Vec<Run>> = runs.get(&timeline);
        runs.is_some_and(|runs| runs.iter().any(|run| run.contains(&number)))
    };
    if has(latest.timeline(), number) || !has(parent.timeline, number) {
        return None;
    }
    let (own, left) = (latest.timeline(), parent.timeline);
    let object = name_of(left, number, size).to_string();
    let message = format!(
        "timeline {own} left timeline {left} at {} within segment \"{object}\", and its own segment from there is not stored",
        parent.switchpoint
    );
    let mut finding = Finding::new(Severity::Warning, Kind::Missing, object, message);
    finding.lsn = Some(parent.switchpoint);
    Some(finding.hint(format!(
        "Recovery to the latest timeline stops before it while WAL from behind that place is in the old one. Archive the segment \
         of timeline {own}, or recover along timeline {left} by its number."
    )))
}

/// A history has to begin with that of the timeline it left.
fn contradiction(history: &TimelineHistory, lineage: &Lineage) -> Option<Finding> {
    let entries = history.entries();
    let (at, ancestor) = entries
        .iter()
        .enumerate()
        .rev()
        .find_map(|(at, parent)| Some((at, lineage.history(parent.timeline)?)))?;
    let own = entries.get(..at).unwrap_or_default();
    let places = |entries: &[wal::Ancestor]| {
        let places = entries.iter().map(|it| (it.timeline, it.switchpoint));
        places.collect::<Vec<_>>()
    };
    if places(own) == places(ancestor.entries()) {
        return None;
    }
    let name = |of: &TimelineHistory| WalFileName::TimelineHistory(of.timeline()).to_string();
    let message = format!(
        "timeline history file \"{}\" does not begin with what \"{}\" says",
        name(history),
        name(ancestor)
    );
    let finding = Finding::error(Kind::Contradiction, name(history), message);
    Some(finding.hint(format!("One of the two is wrong. {FROM_A_SERVER}")))
}

/// Segments under the name of a timeline that had not begun.
fn before_beginning(history: &TimelineHistory, runs: &Runs, size: SegmentSize) -> Vec<Finding> {
    let timeline = history.timeline();
    let Some(begins) = history.begins() else {
        return Vec::new();
    };
    let first = begins.segment(size).0;
    let early = runs
        .get(&timeline)
        .into_iter()
        .flatten()
        .filter(|run| *run.start() < first);
    let finding = |run: &Run| {
        let last = (*run.end()).min(first - 1);
        let names = names(timeline, &(*run.start()..=last), size);
        let is = if *run.start() == last { "lies" } else { "lie" };
        let message = format!(
            "{names} {is} before {begins}, where timeline {timeline} begins as \"{}\" says",
            WalFileName::TimelineHistory(timeline)
        );
        let object = name_of(timeline, *run.start(), size).to_string();
        let finding = Finding::error(Kind::BeforeTimeline, object, message);
        finding.hint("Either the segment has a wrong name, or the timeline history file is wrong.")
    };
    early.map(finding).collect()
}

/// What is missing on the way to timelines without segments.
fn unreached(lineage: &Lineage, runs: &Runs, size: SegmentSize, holes: &[Gap]) -> Vec<Gap> {
    let mut unreached = Vec::new();
    for history in lineage.histories() {
        let has_segments = runs
            .get(&history.timeline())
            .is_some_and(|it| !it.is_empty());
        let Some(last) = history
            .begins()
            .and_then(|begins| begins.segment(size).0.checked_sub(1))
        else {
            continue;
        };
        if has_segments {
            continue;
        }
        let gaps = lineage.gaps_up_to(history.timeline(), last, runs, size);
        let is_new = |gap: &Gap| {
            !holes
                .iter()
                .any(|hole| hole.timeline == gap.timeline && hole.segments == gap.segments)
        };
        unreached.extend(gaps.into_iter().filter(is_new));
    }
    unreached
}

fn hole(gap: &Gap, size: SegmentSize, severity: Severity) -> Finding {
    let first = name_of(gap.timeline, *gap.segments.start(), size);
    let names = names(gap.timeline, &gap.segments, size);
    let is = if gap.segments.start() == gap.segments.end() {
        "is"
    } else {
        "are"
    };
    let leads = if gap.line == gap.timeline {
        "there is WAL behind".to_owned()
    } else {
        format!("timeline {} goes on behind", gap.line)
    };
    let message = format!("{names} {is} missing, and {leads}");
    let mut finding = Finding::new(severity, Kind::Missing, first.to_string(), message);
    finding.lsn = first.start(size);
    finding.hint(
        "If a server still has it in pg_wal, archive it: walden archive. Else take a new base backup: recovery from an older \
         one ends here.",
    )
}

/// `segment "…"`, or `segments "…" to "…"`.
fn names(timeline: TimelineId, run: &Run, size: SegmentSize) -> String {
    let (first, last) = (*run.start(), *run.end());
    let name = |number| name_of(timeline, number, size);
    match last - first {
        0 => format!("segment \"{}\"", name(first)),
        more => format!(
            "{} segments, \"{}\" to \"{}\",",
            more.saturating_add(1),
            name(first),
            name(last)
        ),
    }
}
