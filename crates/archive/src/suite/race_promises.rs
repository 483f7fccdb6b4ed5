//! What holds when several writers meet on one name. Outcomes vary from run to run; what is demanded of them
//! does not.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;

use wal::WalFileName;

use super::bench::{
    Bench, Broken, COMPRESSIONS, Promise, SIZE, STRANGER, WAYS, must, name, segment_of,
};
use super::fixtures;
use crate::{Archive, Cancel, Compression, Error, ErrorKind, Got, Put};

pub(super) const ALL: &[Promise] = &[
    (
        "of writers with different bytes for one name at most one succeeds",
        different_bytes,
    ),
    (
        "of writers with equal bytes for one name none is told of a conflict",
        equal_bytes,
    ),
    (
        "of two systems that come first at once only one gets the archive",
        two_systems,
    ),
];

/// How often each race is run: enough for the interleavings to differ, quick enough to run always.
const ROUNDS: u64 = 8;

/// Offers one source through each archive, all at once.
fn race(archives: &[Archive], name: &WalFileName, sources: &[PathBuf]) -> Vec<Result<Put, Error>> {
    let start = Barrier::new(archives.len());
    thread::scope(|scope| {
        let writers: Vec<_> = archives
            .iter()
            .zip(sources)
            .map(|(archive, source)| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    archive.put_new(name, source, None, &Cancel::new())
                })
            })
            .collect();
        let died = || Err(Error::unavailable("a writer died"));
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap_or_else(|_| died()))
            .collect()
    })
}

/// Six writers: each compression twice; every other round also encrypted.
fn archives(bench: &Bench<'_>, round: u64) -> Result<Vec<Archive>, Broken> {
    let ways = if round.is_multiple_of(2) {
        COMPRESSIONS.iter().chain(&COMPRESSIONS).copied().collect()
    } else {
        WAYS.to_vec()
    };
    let archives = ways.into_iter().map(|way| bench.archive(way));
    Ok(archives.collect::<Result<_, _>>()?)
}

fn different_bytes(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let mut told = 0;
    for round in 0..ROUNDS {
        let name = name(&format!("0000000100000000000000{round:02X}"))?;
        // Writers 0 and 5 have equal bytes, the others each their own.
        let variants = [1, 2, 3, 4, 5, 1];
        let contents = variants.map(|variant| bench.contents(&name, variant));
        let mut sources = Vec::new();
        for contents in &contents {
            sources.push(bench.source(contents)?);
        }
        let archives = archives(bench, round)?;
        bench.lift_note()?;
        let puts = race(&archives, &name, &sources);
        let winners: BTreeSet<u64> = variants
            .iter()
            .zip(&puts)
            .filter(|(_, put)| put.is_ok())
            .map(|(variant, _)| *variant)
            .collect();
        must(
            winners.len() <= 1,
            format!("round {round}: variants {winners:?} all succeeded"),
        )?;
        for error in puts.iter().filter_map(|put| put.as_ref().err()) {
            // Those that do not encrypt may come after one that does.
            let expected = matches!(
                error.kind(),
                ErrorKind::Conflict | ErrorKind::Unavailable | ErrorKind::Unusable
            );
            must(
                expected,
                format!("round {round}: {:?}: {error}", error.kind()),
            )?;
        }
        told += winners.len();
        let told_to = winners.first().copied();
        must_be_the_winners(bench, &name, told_to, &variants)
            .map_err(|Broken(why)| Broken(format!("round {round}: {why}")))?;
    }
    Ok(format!(
        "{ROUNDS} rounds of 6 writers, {told} with a winner"
    ))
}

/// What is restored after a race is what the winner has stored, whoever that was.
fn must_be_the_winners(
    bench: &mut Bench<'_>,
    name: &WalFileName,
    winner: Option<u64>,
    variants: &[u64],
) -> Result<(), Broken> {
    let reader = bench.archive(Compression::None)?;
    let dest = bench.path();
    let got = reader.get(name, &dest, None, &Cancel::new())?;
    must(got != Got::Absent, "acknowledged and absent")?;
    let restored = std::fs::read(&dest)?;
    // Whoever created it knows; if the answer was lost, nobody does, and it is one of those offered.
    let mut allowed = variants
        .iter()
        .filter(|it| winner.is_none_or(|won| won == **it));
    must(
        allowed.any(|it| bench.contents(name, *it) == restored),
        "acknowledged bytes were lost",
    )
}

fn equal_bytes(bench: &mut Bench<'_>) -> Result<String, Broken> {
    for round in 0..ROUNDS {
        let name = name(&format!("0000000100000000000000{round:02X}"))?;
        let contents = bench.contents(&name, round);
        let source = bench.source(&contents)?;
        let archives = archives(bench, round)?;
        bench.lift_note()?;
        let puts = race(&archives, &name, &vec![source.clone(); archives.len()]);
        for error in puts.iter().filter_map(|put| put.as_ref().err()) {
            // "Being published by another" is no conflict, nor is that all others are encrypted.
            let expected = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unusable);
            must(expected, format!("{:?}: {error}", error.kind()))?;
        }
        must(
            puts.iter().any(Result::is_ok),
            format!("round {round}: nobody succeeded"),
        )?;
        for archive in &archives {
            bench.lift_note()?;
            archive.put_new(&name, &source, None, &Cancel::new())?;
        }
        let dest = bench.path();
        bench
            .archive(Compression::None)?
            .get(&name, &dest, None, &Cancel::new())?;
        must(
            std::fs::read(&dest)? == contents,
            "the file was restored differently",
        )?;
    }
    Ok(format!("{ROUNDS} rounds of 6 writers"))
}

fn two_systems(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let name = name("000000010000000000000001")?;
    let ours = bench.contents(&name, 1);
    let theirs = fixtures::segment(&segment_of(&name)?, SIZE, STRANGER, 1);
    let sources = [bench.source(&ours)?, bench.source(&theirs)?];
    for round in 0..ROUNDS {
        bench.subject.reset()?;
        let archives = [
            bench.archive(Compression::Zstd(1))?,
            bench.archive(Compression::Zstd(1))?,
        ];
        let puts = race(&archives, &name, &sources);
        let kinds: Vec<_> = puts
            .iter()
            .filter_map(|put| put.as_ref().err())
            .map(Error::kind)
            .collect();
        must(
            kinds == [ErrorKind::Foreign],
            format!("round {round}: {puts:?}"),
        )?;
    }
    Ok(format!("{ROUNDS} rounds"))
}
