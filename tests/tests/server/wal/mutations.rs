//! Whatever becomes of real WAL, reading it ends with an answer: no panic, no endless loop, no record that was not written.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use fastrand::Rng;
use lab::{scenario, seed};
use wal::SegmentReader;

use super::{segments, workload};

/// How many changed segments are read.
const ROUNDS: usize = 3000;
/// The most changes of one segment.
const CHANGES_MAX: usize = 8;

/// One change, as disks, networks and people make them.
fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Rng) {
    let length = bytes.len();
    let (from, count) = (random.usize(..length), 1 << random.u32(..16));
    let to = (from + count).min(length);
    let piece = bytes.get_mut(from..to).unwrap_or_default();
    match random.u32(..7) {
        0 => piece
            .iter_mut()
            .take(1)
            .for_each(|byte| *byte ^= 1 << random.u32(..8)),
        1 => piece.fill(0),
        2 => piece.iter_mut().for_each(|byte| *byte = random.u8(..)),
        // The same place of another segment, as a recycled file has it.
        3 => piece.copy_from_slice(other.get(from..to).unwrap_or_default()),
        // Another place of the same segment.
        4 => {
            let place = random.usize(..length - (to - from) + 1);
            bytes.copy_within(from..to, place);
        }
        5 => bytes.truncate(from),
        _ => {
            // Some bytes are missing, all behind them have moved.
            bytes.drain(from..to);
            bytes.resize(length, 0);
        }
    }
    // What follows expects a whole segment, but for the length itself.
    if bytes.is_empty() {
        bytes.push(0);
    }
}

#[test]
fn whatever_becomes_of_wal_no_record_is_read_that_was_not_written() -> Result<()> {
    scenario(|lab| {
        let mut random = Rng::with_seed(seed()?);
        let dir = lab.directory("raw")?;
        let primary = lab.cluster("primary", 1, workload::settings(lab, &dir))?;
        primary.start()?;
        workload::write(&primary, 1, 200, 12)?;
        primary.wait_until_archived()?;
        let names = segments::of_timeline(&dir, 1)?;
        let mut written = BTreeSet::new();
        let mut whole = Vec::new();
        for name in &names {
            let bytes = fs::read(dir.join(name.to_string()))?;
            let mut note = |record: &wal::Record<'_>| {
                written.insert((record.lsn, record.header.crc));
            };
            segments::read(*name, &bytes, &mut note)?;
            whole.push(bytes);
        }
        let (mut refused, mut read) = (0, 0);
        for _ in 0..ROUNDS {
            let (index, other) = (random.usize(..names.len()), random.usize(..names.len()));
            let mut bytes = whole[index].clone();
            for _ in 0..=random.usize(..CHANGES_MAX) {
                if bytes.len() == whole[other].len() {
                    change(&mut bytes, &whole[other], &mut random);
                }
            }
            let mut reader = SegmentReader::new(names[index]);
            let mut strangers = 0;
            let piece = 1 + random.usize(..300_000);
            let fed = bytes.chunks(piece).try_for_each(|piece| {
                reader.feed(piece, |record| {
                    let known = written.contains(&(record.lsn, record.header.crc));
                    strangers += u32::from(!known);
                    let _ = record.parts(|_| ());
                    let _ = record.meaning();
                })
            });
            ensure!(
                strangers == 0,
                "{strangers} records of \"{}\" were never written",
                names[index]
            );
            match fed.and_then(|()| reader.finish().map(drop)) {
                Ok(()) => read += 1,
                Err(_) => refused += 1,
            }
        }
        println!("{ROUNDS} changed segments: {refused} refused, {read} read up to where they end");
        ensure!(refused > ROUNDS / 2, "only {refused} were refused");
        Ok(())
    })
}
