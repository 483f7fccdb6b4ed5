//! A standby with `archive_mode = always` that archives into an object store where its primary archives, too, or does not.

use std::ops::RangeInclusive;

use anyhow::{Result, ensure};
use lab::stores::{Make, Proxy};
use lab::{Cluster, Lab, scenario, wait_until};

use crate::common::{SMALL_MB, primary_with, wait_for_entries};
use crate::faces::streaming;
use crate::in_store::InStore;

/// A primary and its standby, which archives everything it receives through the proxy.
struct Pair<'lab> {
    /// The archive, which is gone when this is.
    _place: InStore<'lab>,
    primary: Cluster<'lab>,
    standby: Cluster<'lab>,
    proxy: Proxy,
}

fn pair(lab: &Lab, primary_archives: bool) -> Result<Pair<'_>> {
    let (place, proxy) = InStore::behind_a_proxy(lab, Make::SeaweedFs)?;
    let direct = place.direct()?;
    let mode = if primary_archives { "on" } else { "off" };
    let settings = lab.walden_settings_at(&direct)?.with("archive_mode", mode);
    let primary = primary_with(lab, SMALL_MB, settings)?;
    let backup = primary.base_backup("backup")?;
    // The first file of all waits for the primary, and then for the store to be tried before the archive is bound.
    let settings = place
        .archiving()?
        .with("archive_mode", "always")
        .with("walden.archive_timeout", "60s");
    let standby = streaming(lab, "standby", &backup, &primary, settings)?;
    Ok(Pair {
        _place: place,
        primary,
        standby,
        proxy,
    })
}

impl Pair<'_> {
    /// Writes segments, and waits until the standby has archived them; their names.
    fn write(&self, entries: RangeInclusive<u32>) -> Result<Vec<String>> {
        let last = *entries.end();
        let names = self.primary.write_segments(entries)?;
        wait_for_entries(&self.standby, last)?;
        wait_until("the standby to archive what it has received", || {
            let ready = self.standby.ready()?;
            let archived = self.standby.archiver("last_archived_wal")?;
            Ok(names
                .iter()
                .all(|name| *name <= archived && !ready.contains(name)))
        })?;
        ensure!(self.standby.archive_failures()? == 0);
        Ok(names)
    }

    /// How many requests of a method the standby has made for these segments.
    fn requests(&self, method: &str, names: &[String]) -> usize {
        let requests = self.proxy.requests().into_iter();
        let is_about = |path: &str| names.iter().any(|name| path.contains(name));
        requests
            .filter(|request| request.method == method && is_about(&request.path))
            .count()
    }
}

#[test]
fn a_standby_neither_sends_nor_fetches_what_its_primary_has_archived() -> Result<()> {
    scenario(|lab| {
        let pair = pair(lab, true)?;
        pair.write(1..=2)?;
        pair.proxy.clear();
        let names = pair.write(3..=8)?;
        ensure!(names.len() >= 6, "{names:?}");
        pair.primary.wait_until_archived()?;
        let requests = || format!("{names:?}: {:?}", pair.proxy.requests());
        ensure!(pair.requests("GET", &names) == 0, "{}", requests());
        ensure!(pair.requests("PUT", &names) == 0, "{}", requests());
        ensure!(
            pair.requests("HEAD", &names) == names.len(),
            "{}",
            requests()
        );
        Ok(())
    })
}

#[test]
fn a_standby_whose_primary_does_not_archive_soon_no_longer_waits_for_it() -> Result<()> {
    scenario(|lab| {
        let pair = pair(lab, false)?;
        pair.write(1..=8)?;
        pair.proxy.clear();
        let names = pair.write(9..=14)?;
        ensure!(names.len() >= 6, "{names:?}");
        let requests = || format!("{names:?}: {:?}", pair.proxy.requests());
        ensure!(
            pair.requests("PUT", &names) == names.len(),
            "{}",
            requests()
        );
        ensure!(pair.requests("HEAD", &names) == 0, "{}", requests());
        Ok(())
    })
}
