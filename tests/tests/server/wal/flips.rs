//! A flipped bit in WAL is found wherever it is; behind the end of WAL it is nobody's.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use lab::{Cluster, Shutdown, scenario, seed};
use wal::{SegmentEnd, SegmentName, SegmentSummary};

use super::{segments, workload};

/// How many bits are flipped, one at a time.
const FLIPS: usize = 10_000;
/// Of a page.
const PAGE_BYTES: usize = 8192;
/// From this major on every bit counts; up to 18 nothing depends on byte 2, bit 2 of a page (`XLP_BKP_REMOVABLE`).
const NO_REMOVABLE: u32 = 19;
/// How often a server is given a chance to use a segment again.
const TRIES: u32 = 50;
/// How long a switch is.
const SWITCH_BYTES: u64 = 24;

/// A segment as the server left it.
struct Segment {
    name: SegmentName,
    bytes: Vec<u8>,
    /// Read alone.
    alone: SegmentSummary,
    /// With what is known of a record that began before.
    joined: SegmentSummary,
    /// How many bytes of it are WAL.
    written: usize,
}

fn load(dir: &std::path::Path, names: &[SegmentName]) -> Result<Vec<Segment>> {
    let mut loaded: Vec<Segment> = Vec::new();
    for name in names {
        let bytes = fs::read(dir.join(name.to_string()))?;
        let alone = segments::read(*name, &bytes, |_| ())?;
        let mut joined = alone.clone();
        if let Some(before) = loaded.last() {
            before.joined.join(&mut joined, |_| ())?;
        }
        let start = alone.header.address.0;
        let written = match alone.end() {
            SegmentEnd::Full => bytes.len() as u64,
            SegmentEnd::Switched(lsn) => lsn.0 - start + SWITCH_BYTES,
            SegmentEnd::Ended(lsn) => lsn.0 - start,
        };
        let written = usize::try_from(written)?;
        loaded.push(Segment {
            name: *name,
            bytes,
            alone,
            joined,
            written,
        });
    }
    Ok(loaded)
}

/// Whether a segment with other bytes is known to be wrong, with all segments around it.
fn is_found(all: &[Segment], index: usize, bytes: &[u8]) -> bool {
    let Some(segment) = all.get(index) else {
        return false;
    };
    let Ok(mut summary) = segments::read(segment.name, bytes, |_| ()) else {
        return true;
    };
    // Where nothing follows, WAL must not look shorter or longer than it is.
    if index + 1 == all.len() && summary.end() != segment.alone.end() {
        return true;
    }
    if let Some(before) = index.checked_sub(1).and_then(|before| all.get(before))
        && before.joined.join(&mut summary, |_| ()).is_err()
    {
        return true;
    }
    // A record may go over all that follows.
    for next in all.get(index + 1..).unwrap_or_default() {
        let mut joined = next.alone.clone();
        if summary.join(&mut joined, |_| ()).is_err() {
            return true;
        }
        if next.alone.first.is_some() {
            return false;
        }
        summary = joined;
    }
    false
}

/// Writes until WAL ends in a segment that has been used before; answers with its name.
fn in_a_recycled_segment(primary: &Cluster) -> Result<String> {
    for _ in 0..TRIES {
        // Only what is archived is used again.
        primary.wait_until_archived()?;
        primary.sql("checkpoint")?;
        primary.switch_segment()?;
        primary.pgbench(&["-c", "2", "-t", "50"])?;
        let last = primary.sql("select pg_walfile_name(pg_current_wal_lsn())")?;
        let bytes = fs::read(primary.data().join("pg_wal").join(&last))?;
        let tail = bytes.get(bytes.len() - PAGE_BYTES..).unwrap_or_default();
        if tail.iter().any(|byte| *byte != 0) {
            return Ok(last);
        }
    }
    bail!("no segment has been used again in {TRIES} tries")
}

#[test]
fn each_of_ten_thousand_flipped_bits_is_found_and_none_behind_the_end_of_wal_is() -> Result<()> {
    scenario(|lab| {
        let mut random = fastrand::Rng::with_seed(seed()?);
        let dir = lab.directory("raw")?;
        // Segments are used again, so that what is behind the end of WAL is older WAL.
        let settings = workload::settings(lab, &dir)
            .with("min_wal_size", "32MB")
            .with("max_wal_size", "32MB");
        let primary = lab.cluster("primary", 1, settings)?;
        primary.start()?;
        workload::write(&primary, 1, 500, 12)?;
        let last = in_a_recycled_segment(&primary)?;
        primary.wait_until_archived()?;
        primary.stop(Shutdown::Immediate)?;
        lab.copy(&primary.data().join("pg_wal").join(&last), &dir.join(&last))?;

        let names = segments::of_timeline(&dir, 1)?;
        let all = load(&dir, &names)?;
        let tail = all.last().context("no segments")?;
        ensure!(
            matches!(tail.alone.end(), SegmentEnd::Ended(_)),
            "WAL ends nowhere"
        );
        let behind = tail
            .bytes
            .get(tail.written + PAGE_BYTES..)
            .unwrap_or_default();
        ensure!(
            behind.iter().any(|byte| *byte != 0),
            "nothing older is behind the end of WAL"
        );
        let (mut in_wal, mut behind) = (0, 0);
        while in_wal < FLIPS {
            // One in ten is in the last segment, half of which is no WAL.
            let index = match random.u32(..10) {
                0 => all.len() - 1,
                // The first may begin with the end of a record of which nobody has the beginning.
                _ => random.usize(1..all.len()),
            };
            let segment = all.get(index).context("no segment")?;
            let (at, bit) = (random.usize(..segment.bytes.len()), random.u32(..8));
            if at % PAGE_BYTES == 2 && bit == 2 && lab.installation().major() < NO_REMOVABLE {
                continue;
            }
            let mut bytes = segment.bytes.clone();
            *bytes.get_mut(at).context("no byte")? ^= 1 << bit;
            let found = is_found(&all, index, &bytes);
            let is_written = at < segment.written;
            ensure!(
                found == is_written,
                "bit {bit} of byte {at} of \"{}\": found is {found}",
                segment.name
            );
            if is_written { in_wal += 1 } else { behind += 1 }
        }
        println!(
            "{} segments: {in_wal} of {in_wal} flipped bits in WAL were found, 0 of {behind} behind its end reported",
            all.len()
        );
        ensure!(behind > 100, "only {behind} were behind the end of WAL");
        Ok(())
    })
}
