//! The small files: timeline history files and backup history files.
//!
//! Guarantees that each is read, several at a time, unless the caller gives up, and that what cannot be understood is a finding.
//! How histories fit together, and the WAL, is left to `verify`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use archive::{Archive, Cancel, Error, ErrorKind, Reading};
use wal::{TimelineHistory, WalFileName};

use super::pool::{lock, readers, side_by_side};
use crate::backup_history::BackupHistory;
use crate::finding::{Finding, Kind, Severity};
use crate::inventory::Inventory;
use crate::lineage::Lineage;

/// The longest file believed, in bytes; the archive believes no longer ones either.
const BYTES_MAX: usize = 1024 * 1024;

/// What to do about an object that is not what was archived.
pub(crate) const BRING_IT_BACK: &str = "Bring the object back from a copy of the archive. Without it, take a new base backup: no \
     recovery from an older one gets over this place.";

/// What became of reading a file.
pub(crate) enum Small {
    /// It was read.
    Contents(Vec<u8>),
    /// It has more than [`BYTES_MAX`] bytes.
    TooLong,
    /// It was listed, and is gone.
    Gone,
    /// It could not be read.
    Failed(Error),
}

/// What is read besides segments.
#[derive(Clone, Copy)]
pub(crate) struct Files<'a> {
    pub(crate) archive: &'a Archive,
    pub(crate) cancel: &'a Cancel,
    /// How many are read at a time.
    pub(crate) readers: usize,
    /// Which failure ends it: what is left over then is not read.
    pub(crate) gives_up: &'a (dyn Fn(&Error) -> bool + Sync),
}

impl Files<'_> {
    /// Reads files to their ends, all of them unless it gives up. `told` hears of each.
    pub(crate) fn read(
        &self,
        names: &[WalFileName],
        told: &(dyn Fn() + Sync),
    ) -> BTreeMap<WalFileName, Small> {
        let found = Mutex::new(BTreeMap::new());
        let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        side_by_side(readers(self.readers).min(names.len()), &|| {
            let mut reading = self.archive.reading();
            while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed))
                && !is_over.load(Ordering::Acquire)
            {
                let small = one(&mut reading, &name.to_string(), self.cancel);
                if matches!(&small, Small::Failed(why) if (self.gives_up)(why)) {
                    is_over.store(true, Ordering::Release);
                }
                lock(&found).insert(*name, small);
                told();
            }
        });
        found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads all timeline and backup history files.
    pub(crate) fn check(&self, inventory: &Inventory) -> (Lineage, Vec<Finding>) {
        let mut findings = Vec::new();
        let mut lineage = Lineage::default();
        for (name, small) in self.read(&names(inventory), &|| ()) {
            let key = name.to_string();
            let contents = match small {
                Small::Contents(contents) => Ok(contents),
                Small::TooLong => Err(damaged(&key, &too_long())),
                Small::Gone => Err(removed(&key)),
                Small::Failed(why) => Err(unreadable(&key, &why)),
            };
            let parsed = contents.and_then(|contents| parse(&name, &contents, &mut lineage));
            findings.extend(parsed.err());
        }
        (lineage, findings)
    }
}

/// All timeline and backup history files.
pub(crate) fn names(inventory: &Inventory) -> Vec<WalFileName> {
    let timelines = inventory.timelines.iter();
    let names = timelines.flat_map(|(timeline, files)| {
        let history = files.has_history.then_some(*timeline);
        let backups = files.backups.iter();
        let backups = backups.map(|(segment, offset)| WalFileName::BackupHistory {
            segment: *segment,
            offset: *offset,
        });
        history
            .map(WalFileName::TimelineHistory)
            .into_iter()
            .chain(backups)
    });
    names.collect()
}

fn parse(name: &WalFileName, contents: &[u8], lineage: &mut Lineage) -> Result<(), Finding> {
    let key = name.to_string();
    if let WalFileName::TimelineHistory(timeline) = name {
        let history = TimelineHistory::parse(*timeline, contents);
        let history = history.map_err(|why| damaged(&key, &why.to_string()))?;
        lineage.add(history);
        return Ok(());
    }
    let backup = BackupHistory::parse(contents).and_then(|backup| backup.fits(name));
    backup.map_err(|why| {
        let message = format!("backup history file \"{key}\" is not valid: {why}");
        let finding = Finding::new(Severity::Warning, Kind::BackupHistory, key, message);
        finding.hint("Recovery does not read it; the backup itself says where it begins.")
    })
}

fn damaged(key: &str, why: &str) -> Finding {
    let message = if why.contains(key) {
        why.to_owned()
    } else {
        format!("archive file \"{key}\" is not valid: {why}")
    };
    Finding::error(Kind::Damaged, key, message).hint(
        "Bring it back from a copy of the archive, or from the pg_wal of a server on that timeline.",
    )
}

/// Why a file is not believed that is longer than any.
pub(crate) fn too_long() -> String {
    format!("it is longer than {BYTES_MAX} bytes")
}

fn one(reading: &mut Reading<'_>, key: &str, cancel: &Cancel) -> Small {
    let mut contents = Vec::new();
    let read = reading.read(key, cancel, &mut |piece| {
        contents.extend_from_slice(piece);
        if contents.len() > BYTES_MAX {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    match read {
        Ok(Some(_)) if contents.len() > BYTES_MAX => Small::TooLong,
        Ok(Some(_)) => Small::Contents(contents),
        Ok(None) => Small::Gone,
        Err(why) => Small::Failed(why),
    }
}

/// An object that was listed and is not there.
pub(crate) fn removed(key: &str) -> Finding {
    let message = format!("archive file \"{key}\" was listed, and is gone");
    Finding::new(Severity::Warning, Kind::Removed, key, message)
        .hint("If an archive cleanup has run meanwhile, all is well.")
}

/// An object that could not be read: it is damaged, or packed in another way, or it cannot be told whether it is.
pub(crate) fn unreadable(key: &str, why: &Error) -> Finding {
    if why.is_no_file() {
        // Not for good: a run that goes on later looks again.
        let finding = Finding::error(Kind::NotRead, key, why.to_string());
        return finding.hint(
            "Something that is no file has a WAL file's name: bring the file back, or mount what the link leads to.",
        );
    }
    if why.is_packed() {
        let finding = Finding::error(Kind::Unreadable, key, why.to_string());
        return finding.hint(why.hint().unwrap_or_default());
    }
    if why.kind() != ErrorKind::Damaged {
        return Finding::not_read(key, why);
    }
    let hint = match why.hint() {
        Some(hint) => format!("{hint} {BRING_IT_BACK}"),
        None => BRING_IT_BACK.to_owned(),
    };
    Finding::error(Kind::Damaged, key, why.to_string()).hint(hint)
}
