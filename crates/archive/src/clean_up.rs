//! Removing WAL that nobody needs any more: what `pg_archivecleanup` would, and nothing else.
//!
//! Guarantees: only names that parse as segments or partial segments and lie before the oldest to keep are
//! removed; which ones those are is decided by [`KeepFrom::may_remove`] alone. Memory is bounded: keys are
//! collected and removed in batches.

use std::collections::HashSet;
use std::ops::ControlFlow;

use wal::{KeepFrom, SystemIdentifier};

use crate::archive::{Archive, Cleaned};
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
    let mut cleaned = Cleaned::default();
    let mut stuck: HashSet<String> = HashSet::new();
    let mut first_failure = None;
    if *keep == KeepFrom::Everything {
        return Ok(cleaned);
    }
    // "Oldest to keep" means something in the asker's own WAL only.
    if let Some(system) = system {
        binding::must_not_be_foreign(archive, system)?;
    }
    loop {
        let batch = removable(archive, keep, &stuck)?;
        let is_last = batch.len() < BATCH_KEYS_MAX;
        for entry in batch {
            cancel.check("archive cleanup")?;
            match archive.store.remove(&entry.key) {
                Ok(true) => {
                    cleaned.files += 1;
                    cleaned.bytes += entry.bytes;
                }
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
) -> Result<Vec<Entry>, Error> {
    let mut batch = Vec::new();
    archive.store.list("", Detail::Full, &mut |entry| {
        let may_go = parse_key(&entry.key).is_some_and(|name| keep.may_remove(&name));
        if may_go && !stuck.contains(&entry.key) {
            batch.push(entry);
        }
        if batch.len() < BATCH_KEYS_MAX {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(batch)
}
