//! What earlier audits have read, in an index.
//!
//! Guarantees that what was wrong is looked at again, because it may have been brought back; and that what was said of
//! segments is not believed if they do not fit the archive any more.

use std::path::Path;

use archive::{Error, ErrorKind};

use super::Audit;
use crate::entries::Entries;
use crate::facts::SegmentFacts;
use crate::finding::{Finding, Kind, Severity};
use crate::index::{Entry, Index, Subject, Unusable, What};
use crate::inventory::Inventory;
use crate::measure::Measure;
use crate::scan::Scanned;

/// What is known of segments in which nothing was wrong, nor in what follows them.
pub(super) struct Before {
    pub(super) entries: Entries,
    /// Why what there was is not used and begun anew, if so.
    pub(super) anew: Option<Finding>,
}

/// Opens the index, which need not exist yet.
///
/// Fails if it cannot be read or written, or is another archive's.
pub(super) fn open(
    path: &Path,
    audit: &Audit<'_>,
    inventory: &Inventory,
    measure: Measure,
) -> Result<(Index, Before), Error> {
    let subject = Subject {
        place: audit.archive.place(),
        system: audit.binding.map(|binding| binding.system.to_string()),
    };
    let mut before = Before {
        entries: Entries::of(inventory.listing.clone()),
        anew: None,
    };
    let opened = Index::open(path, &subject, &mut |name, entry| match &entry.what {
        What::Segment(facts) if is_sound(facts, measure) => before.entries.learn(name, &entry),
        _ => before.entries.forget(&name),
    });
    let could_not = |what: &str, cause| {
        let what = format!("could not {what} file \"{}\"", path.display());
        Error::io(what, cause)
    };
    let opened = match opened {
        Err(unusable @ Unusable::Version { .. }) => {
            let why = format!("{unusable}: it is begun anew");
            before.anew = Some(Finding::new(Severity::Note, Kind::State, "", why));
            Ok(Index::anew(path, &subject))
        }
        opened => opened,
    };
    let mut index = opened.map_err(|unusable| match unusable {
        Unusable::Io { cause, .. } => could_not("read", cause),
        Unusable::NoFile { path } => {
            let shown = path.display();
            let what = format!("could not open file \"{shown}\": it is not a regular file");
            Error::new(ErrorKind::Unusable, what)
        }
        Unusable::Other { path } | Unusable::Version { path } => {
            let what = format!(
                "file \"{}\" is not the state of an audit of archive \"{}\"",
                path.display(),
                subject.place
            );
            Error::new(ErrorKind::Unusable, what)
                .with_hint("Give each archive a file of its own, or remove it to begin anew.")
        }
    })?;
    index.begin().map_err(|cause| could_not("open", cause))?;
    Ok((index, before))
}

/// Whether a segment is what a segment of this archive has to be, as far as its own facts tell, and what follows it
/// as it should.
fn is_sound(facts: &SegmentFacts, measure: Measure) -> bool {
    !facts.has_findings
        && facts.following.iter().all(|it| it.problem.is_none())
        && measure.system.is_none_or(|system| system == facts.system)
        && facts.size() == Some(measure.size)
}

/// Adds what was learnt of a segment.
pub(super) fn add(
    index: &mut Index,
    inventory: &Inventory,
    scanned: Scanned,
) -> std::io::Result<()> {
    let file = scanned.file;
    let Some(stamp) = inventory.listing.get(&file).copied() else {
        return Ok(());
    };
    match scanned.known() {
        Some(what) => index.add(file, &Entry { stamp, what }),
        None => Ok(()),
    }
}
