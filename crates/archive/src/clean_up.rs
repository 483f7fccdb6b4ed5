//! Removing WAL that nobody needs any more: what `pg_archivecleanup` would, and nothing else; less where a person asks.
//!
//! Guarantees: only names that parse as segments or partial segments and lie before the oldest to keep are
//! removed; which ones those are is decided by [`KeepFrom::may_remove`] alone. An oldest to keep that lies behind everything
//! that is stored removes nothing: a standby that streams is ahead of its archive, and a person has mistyped. Memory is
//! bounded: keys are collected and removed in batches.

use std::collections::HashSet;
use std::ops::ControlFlow;

use wal::{KeepFrom, SegmentName, SystemIdentifier, WalFileName};

use crate::archive::{Archive, ByHand, Cleaned, CleanedByHand};
use crate::binding;
use crate::error::{Error, ErrorKind};
use crate::key::parse_key;
use crate::options::Cancel;
use crate::store::{Detail, Entry};

/// Keys collected before they are removed, so that the store is not changed while it is being listed.
const BATCH_KEYS_MAX: usize = 1024;

/// After this many objects that cannot be removed, something is wrong with all of them.
const FAILURES_MAX: usize = 256;

/// See [`Archive::clean_up`].
pub(crate) fn clean_up(
    archive: &Archive,
    keep: &KeepFrom,
    system: Option<SystemIdentifier>,
    cancel: &Cancel,
) -> Result<Cleaned, Error> {
    let KeepFrom::Segment(oldest) = keep else {
        return Ok(Cleaned::default());
    };
    must_be_ours(archive, system)?;
    let mut is_ahead = true;
    each_name(archive, &mut |name| {
        is_ahead = !reaches(&name, oldest);
        if is_ahead {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    if is_ahead {
        return Ok(Cleaned::default());
    }
    remove(archive, keep, cancel)
}

/// See [`Archive::clean_up_by_hand`].
pub(crate) fn clean_up_by_hand(
    archive: &Archive,
    keep: &KeepFrom,
    system: Option<SystemIdentifier>,
    how: ByHand,
    told: &mut dyn FnMut(&str),
    cancel: &Cancel,
) -> Result<CleanedByHand, Error> {
    let KeepFrom::Segment(oldest) = keep else {
        return Ok(CleanedByHand::default());
    };
    must_be_ours(archive, system)?;
    let mut newest: Option<SegmentName> = None;
    let mut backups = Vec::new();
    each_name(archive, &mut |name| {
        match name {
            WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
                let later = newest.is_none_or(|known| known.position() < segment.position());
                if later {
                    newest = Some(segment);
                }
            }
            WalFileName::BackupHistory { segment, .. } if !reaches(&name, oldest) => {
                backups.push((segment, name));
            }
            WalFileName::BackupHistory { .. } | WalFileName::TimelineHistory(_) => {}
        }
        ControlFlow::Continue(())
    })?;
    let Some(newest) = newest else {
        return Ok(CleanedByHand::default());
    };
    if newest.position() < oldest.position() {
        return Err(Error::unusable(format!(
            "oldest segment to keep \"{oldest}\" is later than the newest one in archive \"{}\", \"{newest}\"",
            archive.place()
        ))
        .with_hint("Nothing was removed. Name a segment that the archive holds."));
    }
    let mut kept_for = None;
    if !how.force {
        backups.sort_by_key(|(segment, _)| segment.position());
        for (segment, name) in backups {
            if is_stored(archive, &segment)? {
                kept_for = Some((segment, name));
                break;
            }
        }
    }
    let keep = kept_for.map_or(*keep, |(segment, _)| KeepFrom::Segment(segment));
    let cleaned = if how.dry_run {
        count(archive, &keep, told)?
    } else {
        remove(archive, &keep, cancel)?
    };
    Ok(CleanedByHand {
        cleaned,
        kept_for: kept_for.map(|(_, name)| name),
    })
}

/// "Oldest to keep" means something in the asker's own WAL only.
fn must_be_ours(archive: &Archive, system: Option<SystemIdentifier>) -> Result<(), Error> {
    match system {
        Some(system) => binding::must_not_be_foreign(archive, system),
        None => Ok(()),
    }
}

/// Shows every file's name, until told to stop.
fn each_name(
    archive: &Archive,
    visit: &mut dyn FnMut(WalFileName) -> ControlFlow<()>,
) -> Result<(), Error> {
    archive
        .store
        .list("", Detail::Keys, &mut |entry| match parse_key(&entry.key) {
            Some(name) => visit(name),
            None => ControlFlow::Continue(()),
        })
}

/// Whether this is a segment, a partial one or a backup's start at or behind the oldest to keep.
fn reaches(name: &WalFileName, oldest: &SegmentName) -> bool {
    name.segment()
        .is_some_and(|segment| segment.position() >= oldest.position())
}

/// Whether a segment is stored. The needs of a backup whose first segment is gone are gone with it.
fn is_stored(archive: &Archive, segment: &SegmentName) -> Result<bool, Error> {
    let mut found = false;
    let wanted = WalFileName::Segment(*segment);
    archive
        .store
        .list(&segment.to_string(), Detail::Keys, &mut |entry| {
            found |= parse_key(&entry.key).is_some_and(|name| name == wanted);
            ControlFlow::Continue(())
        })?;
    Ok(found)
}

/// What would be removed.
fn count(archive: &Archive, keep: &KeepFrom, told: &mut dyn FnMut(&str)) -> Result<Cleaned, Error> {
    let mut cleaned = Cleaned::default();
    archive.store.list("", Detail::Full, &mut |entry| {
        if let Some(segment) = may_go(&entry, keep) {
            told(&entry.key);
            cleaned.add(segment, entry.bytes);
        }
        ControlFlow::Continue(())
    })?;
    Ok(cleaned)
}

/// The segment whose file this is, if it may go.
fn may_go(entry: &Entry, keep: &KeepFrom) -> Option<SegmentName> {
    let name = parse_key(&entry.key)?;
    name.segment().filter(|_| keep.may_remove(&name)).copied()
}

impl Cleaned {
    fn add(&mut self, segment: SegmentName, bytes: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.range = Some(match self.range {
            None => (segment, segment),
            Some((first, last)) => (first.min(segment), last.max(segment)),
        });
    }
}

fn remove(archive: &Archive, keep: &KeepFrom, cancel: &Cancel) -> Result<Cleaned, Error> {
    let mut cleaned = Cleaned::default();
    let mut stuck: HashSet<String> = HashSet::new();
    let mut first_failure = None;
    loop {
        let batch = removable(archive, keep, &stuck)?;
        let is_last = batch.len() < BATCH_KEYS_MAX;
        for (segment, entry) in batch {
            cancel.check("archive cleanup")?;
            match archive.store.remove(&entry.key) {
                Ok(true) => cleaned.add(segment, entry.bytes),
                // Another cleanup, of a standby that shares this archive, was faster.
                Ok(false) => {}
                Err(error) => {
                    stuck.insert(entry.key);
                    first_failure.get_or_insert(error);
                }
            }
        }
        if is_last || stuck.len() >= FAILURES_MAX {
            break;
        }
    }
    match first_failure {
        None => Ok(cleaned),
        Some(error) => Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "could not remove {} files from archive \"{}\" ({} removed): {error}",
                stuck.len(),
                archive.place(),
                cleaned.files
            ),
        )),
    }
}

/// The next objects to remove, leaving out those that have failed.
fn removable(
    archive: &Archive,
    keep: &KeepFrom,
    stuck: &HashSet<String>,
) -> Result<Vec<(SegmentName, Entry)>, Error> {
    let mut batch = Vec::new();
    archive.store.list("", Detail::Full, &mut |entry| {
        if let Some(segment) = may_go(&entry, keep)
            && !stuck.contains(&entry.key)
        {
            batch.push((segment, entry));
        }
        if batch.len() < BATCH_KEYS_MAX {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(batch)
}
