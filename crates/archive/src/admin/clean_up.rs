//! Removing WAL that is no longer needed: what `pg_archivecleanup` would, and nothing else; less where a person asks.
//!
//! Guarantees: only names that parse as segments or partial segments and lie before the oldest to keep are
//! removed; which ones those are is decided by [`KeepFrom::may_remove`] alone. An oldest to keep that lies behind everything
//! that is stored removes nothing: a standby that streams is ahead of its archive, and a person has mistyped. Memory is
//! bounded: keys are collected and removed in batches.

use std::collections::HashSet;
use std::ops::ControlFlow;

use wal::{KeepFrom, SegmentName, SystemIdentifier, WalFileName};

use crate::admin::claim::must_not_be_foreign;
use crate::archive::Archive;
use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind};
use crate::get::lookup::is_listed;
use crate::store::key::parse_key;
use crate::store::waist::{Detail, Entry};

/// Keys collected before they are removed, so that the store is not changed while it is being listed.
const BATCH_KEYS_MAX: usize = 1024;

/// After this many objects that cannot be removed, something is wrong with all of them.
const FAILURES_MAX: usize = 256;

/// Result of [`Archive::clean_up`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cleaned {
    /// Number of removed objects.
    pub files: u64,
    /// Their size as stored, in bytes.
    pub bytes: u64,
    /// The first and the last segment among them, by name; `None` if nothing was removed.
    pub range: Option<(SegmentName, SegmentName)>,
}

/// How a person has an archive cleaned up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByHand {
    /// Remove also what base backups need.
    pub force: bool,
    /// Remove nothing, and tell what would be.
    pub dry_run: bool,
}

/// What [`Archive::clean_up_by_hand`] did, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CleanedByHand {
    /// The removed files.
    pub cleaned: Cleaned,
    /// The backup history file of the base backup for which more was kept than had been asked for.
    pub kept_for: Option<WalFileName>,
}

impl Archive {
    /// Removes what `pg_archivecleanup` would: segments and partial segments before `keep`; but nothing if `keep` is behind
    /// all that is stored, as it is on a standby that streams.
    ///
    /// `system` is the system identifier of the caller's cluster, if it is known: an archive of another system is
    /// refused with [`crate::ErrorKind::Foreign`] before anything is removed.
    ///
    /// A file that cannot be removed does not stop the others; the error then counts the failures and gives
    /// the first one's cause.
    pub fn clean_up(
        &self,
        keep: &KeepFrom,
        system: Option<SystemIdentifier>,
        cancel: &Cancel,
    ) -> Result<Cleaned, Error> {
        let KeepFrom::Segment(oldest) = keep else {
            return Ok(Cleaned::default());
        };
        must_be_ours(self, system)?;
        let mut is_ahead = true;
        each_name(self, &mut |name| {
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
        remove(self, keep, cancel)
    }

    /// The same for a person, more careful: what base backups that are still complete need stays unless `how` says
    /// otherwise, and a `keep` behind all that is stored is refused with [`crate::ErrorKind::Unusable`]. `progress` hears of
    /// each object that a dry run would remove.
    pub fn clean_up_by_hand(
        &self,
        keep: &KeepFrom,
        system: Option<SystemIdentifier>,
        how: ByHand,
        progress: &mut dyn FnMut(&str),
        cancel: &Cancel,
    ) -> Result<CleanedByHand, Error> {
        let KeepFrom::Segment(oldest) = keep else {
            return Ok(CleanedByHand::default());
        };
        must_be_ours(self, system)?;
        let mut newest: Option<SegmentName> = None;
        let mut backups = Vec::new();
        each_name(self, &mut |name| {
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
                self.place()
            ))
            .with_hint("Nothing was removed. Name a segment that the archive holds."));
        }
        let mut kept_for = None;
        if !how.force {
            backups.sort_by_key(|(segment, _)| segment.position());
            for (segment, name) in backups {
                if is_listed(self, &segment)? {
                    kept_for = Some((segment, name));
                    break;
                }
            }
        }
        let keep = kept_for.map_or(*keep, |(segment, _)| KeepFrom::Segment(segment));
        let cleaned = if how.dry_run {
            count(self, &keep, progress)?
        } else {
            remove(self, &keep, cancel)?
        };
        Ok(CleanedByHand {
            cleaned,
            kept_for: kept_for.map(|(_, name)| name),
        })
    }
}

/// "Oldest to keep" means something in the asker's own WAL only.
fn must_be_ours(archive: &Archive, system: Option<SystemIdentifier>) -> Result<(), Error> {
    match system {
        Some(system) => must_not_be_foreign(archive, system),
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

/// What would be removed.
fn count(
    archive: &Archive,
    keep: &KeepFrom,
    progress: &mut dyn FnMut(&str),
) -> Result<Cleaned, Error> {
    let mut cleaned = Cleaned::default();
    archive.store.list("", Detail::Full, &mut |entry| {
        if let Some(segment) = may_go(&entry, keep) {
            progress(&entry.key);
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
