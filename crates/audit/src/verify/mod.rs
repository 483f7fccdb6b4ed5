//! Whether all that an archive holds can be replayed.
//!
//! Guarantees, of what was looked at: every object decodes and every record is right; segments follow one another, along the
//! timelines; none is missing; timeline history files fit one another and the WAL. What could not be read is a finding of its
//! own kind, never passed over. Memory does not grow with the number of objects but for the inventory, for findings up to
//! [`crate::LISTED_MAX`] of a kind, and with an index for what is known of each segment. Not looked at is whether replaying the
//! records would work: that takes a server.

mod before;
mod histories;
mod missed;
mod scope;
#[cfg(test)]
mod tests;

pub use scope::{Edge, Scope};

use std::collections::BTreeMap;
use std::path::PathBuf;

use archive::{Archive, Binding, Cancel, Error, ErrorKind};
use wal::{Lsn, SegmentSize, WalFileName};

use crate::finding::{Finding, Findings, Kind, Severity};
use crate::index::Index;
use crate::inventory::{Inventory, stops_recovery};
use crate::lineage::{Lineage, Runs};
use crate::measure::{Measure, Voters, measure};
use crate::scan::small::Files;
use crate::scan::{Expected, GONE_AFTER, Known, Order, Scan, Scanned, plan};
use crate::sizes::{self, Part};
use before::Before;

/// What is to be verified, and how.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// WAL to verify.
    pub scope: Scope,
    /// How many segments are read at a time; 0 for as many as there are processors.
    pub readers: usize,
    /// The file that says what has been read already, and is told what has been read now.
    pub state: Option<PathBuf>,
}

/// Progress of an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// So many objects have been found.
    Listed(u64),
    /// So many segments have been read, of so many.
    Read(u64, u64),
}

/// Result of an audit.
#[derive(Clone, Debug)]
pub struct Report {
    /// Directory or URL of the archive.
    pub place: String,
    /// Whose WAL it holds, and in which segments.
    pub measure: Measure,
    /// Findings, and how many of each kind.
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
    let mut listed = |objects| told(Told::Listed(objects));
    let mut inventory = Inventory::take(archive, &mut listed)?;
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
        || inventory.impossible(measure.size).next().is_some();
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
        let small = Files {
            archive,
            cancel,
            readers: request.readers,
            gives_up: &|_| false,
        };
        let (mut lineage, of_small) = missed::look(small, inventory, measure.size)?;
        let all = inventory.runs(measure.size);
        if let Some(place) = up_to {
            lineage = lineage.up_to(place, &all);
        }
        let within = cut(request.scope, &all, &lineage, measure.size)?;
        let opened = state.map(|path| before::open(path, self, inventory, measure));
        let opened = opened.transpose()?;
        let anew = opened.as_ref().and_then(|(_, before)| before.anew.clone());
        let mut findings = Findings::default();
        let by_name = [
            of_small,
            names(inventory, self.binding, measure.size),
            histories::check(
                inventory,
                &lineage,
                (&all, &within),
                request.scope,
                measure.size,
            ),
        ];
        for finding in by_name.into_iter().flatten().chain(anew) {
            findings.add(finding);
        }
        let expected = Expected {
            archive,
            measure: Some(measure),
            lineage: &lineage,
            cancel,
        };
        let mut report = Report {
            place: archive.place(),
            measure,
            findings,
            objects: inventory.total.objects,
            stored_bytes: inventory.total.bytes,
            segments: 0,
            bytes: 0,
            records: 0,
            read_before: 0,
            stopped: None,
        };
        self.read(&expected, inventory, opened, &mut report);
        report.findings.sort();
        Ok(report)
    }

    /// Reads everything that was asked for and is not known.
    fn read(
        &self,
        expected: &Expected<'_>,
        inventory: &Inventory,
        opened: Option<(Index, Before)>,
        report: &mut Report,
    ) {
        let (lineage, size) = (expected.lineage, report.measure.size);
        let order = Order::of(inventory, lineage, size);
        let (index, before) = opened.unzip();
        let known =
            before.map(|before| move |file: &WalFileName| before.entries.known(file, lineage));
        let known = known
            .as_ref()
            .map(|known| known as &dyn Fn(&WalFileName) -> Known);
        let scope = self.request.scope;
        let is_asked_for = |file: &WalFileName| is_asked_for(file, scope, lineage, size);
        let plan = plan(&order, &inventory.listing, &is_asked_for, known);
        report.read_before = plan.known();
        let planned = plan.to_read();
        let scan = Scan {
            expected,
            order: &order,
            readers: self.request.readers,
            stamps: index.as_ref().map(|_| &*inventory.listing),
            gone_after: GONE_AFTER,
            told: &|segments| (self.told)(Told::Read(segments, planned)),
        };
        let mut noting = Noting {
            inventory,
            index,
            findings: &mut report.findings,
        };
        let tally = scan.run(&plan, &mut |scanned| noting.take(scanned));
        noting.end();
        (report.segments, report.bytes, report.records) =
            (tally.segments, tally.bytes, tally.records);
        if self.cancel.is_cancelled() {
            report.stopped = Some("it was cancelled".to_owned());
        } else if tally.is_gone {
            report.stopped = Some(format!("{GONE_AFTER} objects in a row could not be read"));
        }
        if let Some(why) = &report.stopped {
            let left = planned.saturating_sub(tally.segments);
            let message = format!("{left} of {planned} segments were not read: {why}");
            let kind = Kind::NotRead;
            let finding = Finding::new(Severity::CouldNotTell, kind, "", message);
            report.findings.add(finding);
        }
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

/// What to say of an archive that is not bound and has nothing in it: it may be another place than was meant.
#[must_use]
pub fn nothing_there(archive: &Archive) -> Error {
    let message = format!(
        "archive \"{}\" is empty and belongs to no system",
        archive.place()
    );
    Error::new(ErrorKind::Unusable, message).with_hint(if archive.may_be_unmounted() {
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
        let severity = if stops_recovery(&name, || inventory.has_file(&name)) {
            Severity::Error
        } else {
            Severity::Warning
        };
        let finding = Finding::new(severity, Kind::Unreadable, key, message);
        findings.push(finding.hint(archive::rename_hint(key, &name)));
    }
    for name in &inventory.foreign.names {
        let message = format!("\"{name}\" is not the name of a WAL file");
        findings.push(Finding::new(Severity::Note, Kind::Foreign, name, message));
    }
    let mut impossible = inventory.impossible.names.clone();
    impossible.extend(inventory.impossible(size).map(|name| name.to_string()));
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

/// Takes down what is found.
struct Noting<'a> {
    inventory: &'a Inventory,
    index: Option<Index>,
    findings: &'a mut Findings,
}

impl Noting<'_> {
    fn take(&mut self, scanned: Scanned) {
        // Of what is read again nothing has been told: else it would not have been known as sound.
        for finding in &scanned.findings {
            self.findings.add(finding.clone());
        }
        for finding in scanned.at_its_end() {
            self.findings.add(finding);
        }
        if scanned.is_as_known() {
            return;
        }
        if let Some(index) = &mut self.index {
            let added = before::add(index, self.inventory, scanned);
            self.noted(added);
        }
    }

    fn end(&mut self) {
        if let Some(index) = &mut self.index {
            let ended = index.end();
            self.noted(ended);
        }
    }

    /// What cannot be written down has been verified all the same.
    fn noted(&mut self, written: std::io::Result<()>) {
        if let (Err(cause), Some(index)) = (written, &self.index) {
            let what = format!("could not write file \"{}\"", index.path().display());
            let why = Error::io(what, cause).to_string();
            let finding = Finding::new(Severity::Warning, Kind::State, "", why);
            self.findings
                .add(finding.hint("An interrupted run will begin anew from there."));
            self.index = None;
        }
    }
}

/// Whether a segment or partial segment was asked for. A partial one without a number is no segment of this archive's, and will
/// be told.
fn is_asked_for(file: &WalFileName, scope: Scope, lineage: &Lineage, size: SegmentSize) -> bool {
    let (name, otherwise) = match file {
        WalFileName::Segment(name) => (name, false),
        WalFileName::Partial(name) => (name, scope == Scope::default()),
        _ => return false,
    };
    name.number(size).map_or(otherwise, |number| {
        let allowed = scope.allowed(name.timeline(), lineage, size);
        allowed.is_some_and(|allowed| allowed.contains(&number.0))
    })
}
