//! Whether all that an archive holds can be replayed.
//!
//! Guarantees, of what was looked at: every object decodes and every record is right; segments follow one another, along the
//! timelines; none is missing; timeline history files fit one another and the WAL. What could not be read is a finding of its
//! own kind, never passed over. Memory does not grow with the number of objects but for the inventory, and for findings up to
//! [`crate::LISTED_MAX`] of a kind. Not looked at is whether replaying the records would work: that takes a server.

mod beginning;
mod desk;
mod histories;
mod joints;
mod journal;
mod measure;
mod missed;
mod object;
mod piece;
mod plan;
mod small;
#[cfg(test)]
mod tests;

pub use measure::Measure;
pub(crate) use measure::{Voters, header, is_of_object, measure, segment};
pub use plan::{Edge, Scope};
pub(crate) use small::read as histories_of;

use std::collections::BTreeMap;
use std::mem;
use std::path::PathBuf;
use std::thread;

use archive::{Archive, Binding, Cancel, Error, ErrorKind};
use wal::{Lsn, SegmentName, SegmentSize, WalFileName};

use crate::finding::{Finding, Findings, Kind, Severity};
use crate::inventory::Inventory;
use crate::lineage::{Lineage, Runs};
use crate::sizes::{self, Part};
use desk::{Office, Tally};
use journal::{Journal, Past};
use object::{Eyes, Known};
use piece::Reader;

/// The most readers: more are of no use to any archive, and each takes some megabytes.
pub const READERS_MAX: usize = 256;

/// What is to be verified, and how.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Which WAL.
    pub scope: Scope,
    /// How many segments are read at a time; 0 for as many as there are processors.
    pub readers: usize,
    /// The file that says what has been read already, and is told what has been read now.
    pub state: Option<PathBuf>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// So many objects have been found.
    Listed(u64),
    /// So many segments have been read, of so many.
    Read(u64, u64),
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where the archive is.
    pub place: String,
    /// Whose WAL it holds, and in which segments.
    pub measure: Measure,
    /// What was found.
    pub findings: Findings,
    /// How many objects the archive holds, files of WAL alone.
    pub objects: u64,
    /// How many bytes they take.
    pub stored_bytes: u64,
    /// How many segments and partial segments have been read now.
    pub segments: u64,
    /// How many bytes of WAL are in them.
    pub bytes: u64,
    /// How many records end in them and were checked.
    pub records: u64,
    /// How many segments an earlier run had read.
    pub read_before: u64,
    /// Why not all was read, if so.
    pub stopped: Option<String>,
}

impl Report {
    /// How bad it is, all in all; `None` if nothing was found.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.worst()
    }
}

/// Verifies an archive.
///
/// # Errors
/// When it could not be begun: then nothing can be told.
pub fn verify(
    archive: &Archive,
    request: &Request,
    told: &(dyn Fn(Told) + Sync),
    cancel: &Cancel,
) -> Result<Report, Error> {
    let binding = archive.binding()?;
    let mut inventory = Inventory::take(archive, &mut |objects| told(Told::Listed(objects)))?;
    if binding.is_none() && inventory.is_empty() {
        return Err(nothing_there(archive));
    }
    let bound = binding.as_ref().map(|binding| binding.system);
    let measure = measure(archive, &inventory, bound, Voters::Many, cancel)?;
    let audit = Audit {
        archive,
        binding: binding.as_ref(),
        request,
        told,
        cancel,
    };
    let report = audit.of(&mut inventory, measure, None, request.state.as_ref())?;
    let mut kinds = report.findings.counts().keys();
    let has_other = kinds.any(|(_, kind)| *kind == Kind::OtherSize)
        || sizes::has_impossible(&inventory, measure.size);
    if !has_other || report.stopped.is_some() {
        return Ok(report);
    }
    match sizes::take_apart(archive, &inventory, measure, cancel)? {
        Some(parts) => audit.of_parts(report, parts),
        None => Ok(report),
    }
}

/// What all parts of an audit have in common.
struct Audit<'a> {
    archive: &'a Archive,
    binding: Option<&'a Binding>,
    request: &'a Request,
    told: &'a (dyn Fn(Told) + Sync),
    cancel: &'a Cancel,
}

impl Audit<'_> {
    /// Audits WAL in segments of one size; up to a place, where segments of another size follow there.
    fn of(
        &self,
        inventory: &mut Inventory,
        measure: Measure,
        up_to: Option<Lsn>,
        state: Option<&PathBuf>,
    ) -> Result<Report, Error> {
        let Audit {
            archive,
            request,
            cancel,
            ..
        } = *self;
        let read_first = small::read(archive, inventory, cancel);
        let (mut lineage, small) =
            missed::look(archive, inventory, read_first, measure.size, cancel)?;
        let all = runs(inventory, measure.size);
        if let Some(place) = up_to {
            lineage = lineage.up_to(place, &all);
        }
        let within = cut(request.scope, &all, &lineage, measure.size)?;
        let (journal, mut past) = match state {
            Some(path) => {
                let (journal, past) = Journal::open(path, &archive.place(), measure)?;
                (Some(journal), past)
            }
            None => (None, Past::default()),
        };
        let mut findings = Findings::default();
        let by_name = [
            small,
            names(inventory, self.binding, measure.size),
            histories::check(
                inventory,
                &lineage,
                (&all, &within),
                request.scope,
                measure.size,
            ),
        ];
        for finding in by_name.into_iter().flatten() {
            findings.add(finding);
        }
        findings.merge(mem::take(&mut past.findings));
        let known = Known {
            archive,
            measure,
            lineage: &lineage,
            cancel,
        };
        let read_before = past.segments;
        let done = (journal, &past);
        let tally = read(&known, inventory, &within, request, done, self.told);
        findings.merge(tally.findings);
        findings.sort();
        Ok(Report {
            place: archive.place(),
            measure,
            findings,
            objects: inventory.total.objects,
            stored_bytes: inventory.total.bytes,
            segments: tally.segments,
            bytes: tally.bytes,
            records: tally.records,
            read_before,
            stopped: tally.stopped,
        })
    }

    /// Audits WAL in segments of several sizes, each as WAL of its own. What was read for the whole is read again: it was
    /// taken for something else.
    fn of_parts(&self, whole: Report, parts: Vec<Part>) -> Result<Report, Error> {
        let changes = sizes::changes(&parts);
        let count = parts.len();
        let (mut reports, mut refused) = (Vec::new(), None);
        for (at, mut part) in parts.into_iter().enumerate() {
            let measure = Measure {
                size: part.size,
                ..whole.measure
            };
            let up_to = (at + 1 < count).then_some(part.places.1);
            match self.of(&mut part.inventory, measure, up_to, None) {
                Ok(report) => reports.push(report),
                // Nothing that was asked for can be in it.
                Err(error) if error.kind() == ErrorKind::Unusable => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        let Some(latest) = reports.last() else {
            return Err(refused.unwrap_or_else(|| {
                Error::new(ErrorKind::Unusable, "nothing of this was asked for")
            }));
        };
        let mut all = Report {
            measure: latest.measure,
            findings: Findings::default(),
            segments: 0,
            bytes: 0,
            records: 0,
            ..whole
        };
        let mut nowhere: BTreeMap<Finding, usize> = BTreeMap::new();
        let parts = reports.len();
        for report in reports {
            all.segments += report.segments;
            all.bytes += report.bytes;
            all.records += report.records;
            all.stopped = all.stopped.or(report.stopped);
            let (of_range, own) = report
                .findings
                .divide(|finding| finding.kind == Kind::Missing && finding.object.is_empty());
            for finding in of_range {
                *nowhere.entry(finding).or_default() += 1;
            }
            all.findings.merge_new(own);
        }
        // What was asked for and is in none of the parts.
        for (finding, _) in nowhere.into_iter().filter(|(_, of)| *of == parts) {
            all.findings.add(finding);
        }
        for (object, message) in changes {
            let note = Finding::new(Severity::Note, Kind::OtherSize, object, message);
            all.findings.add(note);
        }
        all.findings.sort();
        Ok(all)
    }
}

/// The segments that were asked for.
fn cut(scope: Scope, all: &Runs, lineage: &Lineage, size: SegmentSize) -> Result<Runs, Error> {
    let unusable = |message: String| Error::new(ErrorKind::Unusable, message);
    if scope.is_backwards(size) {
        let message = "the last segment that was asked for lies before the first one";
        return Err(unusable(message.to_owned()));
    }
    let within = scope.cut(all, lineage, size);
    within.ok_or_else(|| unusable(format!("there is no such segment, segments are of {size}")))
}

/// The runs of segments of every timeline that has WAL.
pub(crate) fn runs(inventory: &Inventory, size: SegmentSize) -> Runs {
    let with_wal = inventory
        .timelines
        .iter()
        .filter(|(_, files)| files.has_wal());
    with_wal
        .map(|(timeline, files)| (*timeline, files.segments.runs(size)))
        .collect()
}

fn nothing_there(archive: &Archive) -> Error {
    let message = format!(
        "archive \"{}\" is empty and belongs to no system",
        archive.place()
    );
    Error::new(ErrorKind::Unusable, message).with_hint(if archive.is_directory() {
        "Is the right place named, and is its file system mounted?"
    } else {
        "Is the right place named?"
    })
}

/// What names alone tell.
fn names(inventory: &Inventory, binding: Option<&Binding>, size: SegmentSize) -> Vec<Finding> {
    let mut findings = Vec::new();
    for key in &inventory.unreadable.names {
        let Some(name) = archive::beside(key) else {
            continue;
        };
        let message =
            format!("\"{key}\" is not \"{name}\", which it is named like, to anybody who restores");
        // A recovery that asks for a file which is stored in this way alone stops.
        let severity = match is_wanted(inventory, &name, size) {
            true => Severity::Error,
            false => Severity::Warning,
        };
        let finding = Finding::new(severity, Kind::Unreadable, key, message);
        findings.push(finding.hint(archive::rename_hint(key, &name)));
    }
    for name in &inventory.foreign.names {
        let message = format!("\"{name}\" is not the name of a WAL file");
        findings.push(Finding::new(Severity::Note, Kind::Foreign, name, message));
    }
    let mut impossible = inventory.impossible.names.clone();
    for (timeline, files) in &inventory.timelines {
        for digits in files.segments.impossible(size) {
            impossible.extend(measure::segment(*timeline, digits).map(|name| name.to_string()));
        }
    }
    for name in impossible {
        let message = format!("there is no segment \"{name}\" where segments are of {size}");
        let finding = Finding::error(Kind::Misnamed, name, message);
        findings.push(finding.hint("Move it away, or into the archive of its own cluster."));
    }
    if binding.is_none() {
        let message = "archive belongs to no system yet, its segments were taken for one another's";
        let finding = Finding::new(Severity::Note, Kind::Unbound, archive::BINDING_KEY, message);
        findings.push(finding.hint("The first server that archives into it with Walden binds it."));
    }
    findings
}

/// Whether recovery may ask for a file, and it is not there under its own name.
fn is_wanted(inventory: &Inventory, name: &WalFileName, size: SegmentSize) -> bool {
    let timeline = name.timeline();
    match name {
        WalFileName::Segment(segment) => !segment
            .number(size)
            .is_some_and(|number| inventory.has(timeline, number.0, size)),
        WalFileName::TimelineHistory(_) => !inventory
            .timelines
            .get(&timeline)
            .is_some_and(|files| files.has_history),
        WalFileName::Partial(_) | WalFileName::BackupHistory { .. } => false,
    }
}

/// Reads everything, with several readers.
fn read(
    known: &Known<'_>,
    inventory: &Inventory,
    within: &Runs,
    request: &Request,
    (journal, past): (Option<Journal>, &Past),
    told: &(dyn Fn(Told) + Sync),
) -> Tally {
    let readers = match request.readers {
        0 => thread::available_parallelism().map_or(1, usize::from),
        some => some,
    };
    let readers = readers.clamp(1, READERS_MAX);
    let size = known.measure.size;
    let partials = partials(inventory, request.scope, known.lineage, size);
    let plan = plan::plan(&partials, known.lineage, within, size, past, readers as u64);
    let office = Office::new(plan, journal, known.cancel, told);
    thread::scope(|scope| {
        let work = || {
            let mut reader = Reader {
                eyes: Eyes::new(known),
                known,
                inventory,
                desk: &office,
            };
            office.work(&mut reader);
        };
        let helpers: Vec<_> = (1..readers)
            .map(|_| thread::Builder::new().spawn_scoped(scope, work))
            .collect();
        work();
        // Fewer readers only take longer.
        drop(helpers);
    });
    office.tally()
}

/// The partial segments that were asked for. One without a number is no segment of this archive's, and will be told.
fn partials(
    inventory: &Inventory,
    scope: Scope,
    lineage: &Lineage,
    size: SegmentSize,
) -> Vec<SegmentName> {
    let is_wanted = |name: &SegmentName| {
        let allowed = scope.allowed(name.timeline(), lineage, size);
        match name.number(size) {
            Some(number) => allowed.is_some_and(|allowed| allowed.contains(&number.0)),
            None => scope == Scope::default(),
        }
    };
    let mut partials = inventory.partials();
    partials.retain(is_wanted);
    partials
}
