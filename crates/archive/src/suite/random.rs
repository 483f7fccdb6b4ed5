//! Random operations under injected faults, against a model of what was acknowledged.
//!
//! The model knows, of every name, which bytes were acknowledged and which may be there though nobody was
//! told. Demanded of every answer: acknowledged bytes are found; "absent" is never said of them; nothing
//! appears that was never offered; a failure is "unavailable" and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use wal::{KeepFrom, WalFileName};

use super::bench::{Bench, Broken, Promise, SIZE, STRANGER, WAYS, must, name, segment_of};
use super::fixtures;
use crate::{Archive, Cancel, Cleaned, Compression, Error, ErrorKind, Faults, Got, Put};

pub(super) const ALL: &[Promise] = &[
    (
        "with rare faults, what was acknowledged is never lost, changed or called absent",
        rare_faults,
    ),
    (
        "with many faults, what was acknowledged is never lost, changed or called absent",
        many_faults,
    ),
];

const OPERATIONS: u64 = 150;
const VARIANTS: u64 = 3;

/// Few names, so that operations meet; most of them small, so that there can be many.
const NAMES: [&str; 7] = [
    "000000010000000000000001",
    "000000010000000000000002",
    "000000010000000000000003.partial",
    "00000002.history",
    "00000003.history",
    "000000010000000000000001.00000028.backup",
    "000000010000000000000002.00000028.backup",
];

/// What may be stored under one name.
#[derive(Default)]
struct Known {
    acknowledged: Option<u64>,
    /// Offered, and neither acknowledged nor known to be gone.
    possible: BTreeSet<u64>,
}

struct Trial<'a, 'b> {
    bench: &'a mut Bench<'b>,
    archives: Vec<Archive>,
    names: Vec<WalFileName>,
    known: BTreeMap<String, Known>,
    failures: u64,
}

fn rare_faults(bench: &mut Bench<'_>) -> Result<String, Broken> {
    trial(bench, 10)
}

fn many_faults(bench: &mut Bench<'_>) -> Result<String, Broken> {
    trial(bench, 80)
}

fn trial(bench: &mut Bench<'_>, per_mille: u64) -> Result<String, Broken> {
    let faults = Faults::seeded(bench.random.u64(..), per_mille);
    let mut archives = Vec::new();
    for way in WAYS {
        let store = bench.subject.open_faulty(&faults)?;
        archives.push(bench.over(store, way));
    }
    let names: Vec<_> = NAMES
        .iter()
        .map(|text| name(text))
        .collect::<Result<_, _>>()?;
    let mut trial = Trial {
        bench,
        archives,
        names,
        known: BTreeMap::new(),
        failures: 0,
    };
    trial.bind()?;
    for _ in 0..OPERATIONS {
        trial.step()?;
    }
    faults.stop();
    let failures = trial.failures;
    trial.judge()?;
    Ok(format!(
        "{OPERATIONS} operations, {} faults, {failures} failures",
        faults.injected()
    ))
}

impl Trial<'_, '_> {
    /// The archive is ours before strangers come.
    fn bind(&mut self) -> Result<(), Broken> {
        let archive = self.bench.archive(Compression::None)?;
        let name = name("00000009.history")?;
        let contents = self.bench.contents(&name, 0);
        let source = self.bench.source(&contents)?;
        archive.put_new(&name, &source, Some(self.bench.system), &Cancel::new())?;
        self.known.insert(
            name.to_string(),
            Known {
                acknowledged: Some(0),
                possible: BTreeSet::new(),
            },
        );
        self.names.push(name);
        Ok(())
    }

    fn step(&mut self) -> Result<(), Broken> {
        match self.bench.random.u64(..100) {
            0..45 => self.put(),
            45..85 => self.get(),
            85..90 => self.list(),
            90..94 => self.clean_up(),
            94..97 => self.stranger(),
            _ => {
                let _ = self.archive().remove_leftovers();
                Ok(())
            }
        }
    }

    fn archive(&mut self) -> &Archive {
        let chosen = self.bench.random.usize(..self.archives.len());
        // The index was drawn below the length.
        #[expect(clippy::indexing_slicing)]
        &self.archives[chosen]
    }

    /// One that can read whatever any has stored: not the last one.
    fn reader(&mut self) -> &Archive {
        let chosen = self.bench.random.usize(..self.archives.len() - 1);
        // The index was drawn below the length.
        #[expect(clippy::indexing_slicing)]
        &self.archives[chosen]
    }

    fn name(&mut self) -> WalFileName {
        let chosen = self.bench.random.usize(..self.names.len());
        // The index was drawn below the length.
        #[expect(clippy::indexing_slicing)]
        self.names[chosen]
    }

    fn put(&mut self) -> Result<(), Broken> {
        let (name, variant) = (self.name(), self.bench.random.u64(..VARIANTS));
        let contents = self.bench.contents(&name, variant);
        let source = self.bench.source(&contents)?;
        let system = Some(self.bench.system);
        self.bench.lift_note()?;
        let put = self
            .archive()
            .put_new(&name, &source, system, &Cancel::new());
        let known = self.known.entry(name.to_string()).or_default();
        match put {
            Ok(Put::Stored { .. } | Put::AlreadyStored) => {
                let allowed = known.acknowledged.is_none_or(|before| before == variant);
                must(
                    allowed,
                    format!("\"{name}\" was acknowledged with two contents"),
                )?;
                *known = Known {
                    acknowledged: Some(variant),
                    possible: BTreeSet::new(),
                };
                Ok(())
            }
            Ok(Put::AsPartial) => Err(Broken(format!(
                "\"{name}\" was taken for a partial segment"
            ))),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let others = known.possible.iter().chain(&known.acknowledged);
                let justified = known.acknowledged != Some(variant)
                    && others.into_iter().any(|other| *other != variant);
                must(
                    justified,
                    format!("\"{name}\": a conflict with nothing: {error}"),
                )
            }
            Err(error) => {
                if known.acknowledged.is_none() {
                    known.possible.insert(variant);
                }
                self.failed(error)
            }
        }
    }

    fn get(&mut self) -> Result<(), Broken> {
        let name = self.name();
        let dest = self.bench.path();
        let got = self.reader().get(&name, &dest, None, &Cancel::new());
        if !matches!(got, Ok(Got::Restored { .. })) {
            must(
                !dest.exists(),
                format!("\"{name}\" was not restored, and yet there is a file"),
            )?;
        }
        match got {
            Ok(Got::Absent) => {
                let known = self.known.get(&name.to_string());
                let acknowledged = known.and_then(|known| known.acknowledged);
                must(
                    acknowledged.is_none(),
                    format!("\"{name}\" was acknowledged and called absent"),
                )
            }
            Ok(Got::Restored { .. }) => self.must_be_known(&name, &fs::read(&dest)?),
            Err(error) => self.failed(error),
        }
    }

    /// Restored bytes must be the acknowledged ones, or without those some that were offered.
    fn must_be_known(&self, name: &WalFileName, restored: &[u8]) -> Result<(), Broken> {
        let never = || Broken(format!("\"{name}\" appeared and was never offered"));
        let known = self.known.get(&name.to_string()).ok_or_else(never)?;
        let allowed: Vec<u64> = match known.acknowledged {
            Some(variant) => vec![variant],
            None => known.possible.iter().copied().collect(),
        };
        let right = allowed
            .iter()
            .any(|variant| self.bench.contents(name, *variant) == restored);
        must(
            right,
            format!("\"{name}\" was restored with other bytes than those acknowledged"),
        )
    }

    fn list(&mut self) -> Result<(), Broken> {
        match self.archive().list() {
            Err(error) => self.failed(error),
            Ok(listed) => {
                let listed: BTreeSet<_> = listed
                    .iter()
                    .map(|stored| stored.name.to_string())
                    .collect();
                for (name, known) in &self.known {
                    let missing = known.acknowledged.is_some() && !listed.contains(name);
                    must(
                        !missing,
                        format!("\"{name}\" was acknowledged and is not listed"),
                    )?;
                }
                let unknown = listed.iter().find(|name| !self.known.contains_key(*name));
                must(
                    unknown.is_none(),
                    format!("{unknown:?} is listed and was never offered"),
                )
            }
        }
    }

    fn clean_up(&mut self) -> Result<(), Broken> {
        let keep = KeepFrom::Segment(segment_of(&name("000000010000000000000002")?)?);
        let cleaned = self.archive().clean_up(&keep, None, &Cancel::new());
        // What is wanted may lie behind everything that is stored: then all of it stays.
        let nothing = matches!(cleaned, Ok(Cleaned { files: 0, .. }));
        for (text, known) in &mut self.known {
            if nothing || !keep.may_remove(&name(text)?) {
                continue;
            }
            // After a failure it may be there or not.
            let before = known.acknowledged.take();
            match cleaned {
                Ok(Cleaned { .. }) => known.possible.clear(),
                Err(_) => known.possible.extend(before),
            }
        }
        cleaned.map(|_| ()).or_else(|error| self.failed(error))
    }

    fn stranger(&mut self) -> Result<(), Broken> {
        let name = name("000000010000000000000008")?;
        let contents = fixtures::segment(&segment_of(&name)?, SIZE, STRANGER, 0);
        let source = self.bench.source(&contents)?;
        match self.archive().put_new(&name, &source, None, &Cancel::new()) {
            Ok(_) => Err(Broken("a stranger's file was archived".to_owned())),
            Err(error) if error.kind() == ErrorKind::Foreign => Ok(()),
            Err(error) => self.failed(error),
        }
    }

    /// An injected fault may only ever look like what it is: something that may work next time.
    fn failed(&mut self, error: Error) -> Result<(), Broken> {
        self.failures += 1;
        must(
            error.kind() == ErrorKind::Unavailable,
            format!("a fault was taken for {:?}: {error}", error.kind()),
        )
    }

    /// The faults are over: everything acknowledged is there, everything there is whole.
    fn judge(&mut self) -> Result<(), Broken> {
        let reader = self.bench.archive(Compression::None)?;
        let acknowledged: Vec<_> = self
            .known
            .iter()
            .filter(|(_, known)| known.acknowledged.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        let listed: BTreeSet<_> = reader
            .list()?
            .into_iter()
            .map(|stored| stored.name.to_string())
            .collect();
        for text in acknowledged.iter().chain(&listed) {
            let (name, dest) = (name(text)?, self.bench.path());
            let got = reader.get(&name, &dest, Some(self.bench.system), &Cancel::new())?;
            must(
                got != Got::Absent,
                format!("\"{name}\" is absent at the end"),
            )?;
            self.must_be_known(&name, &fs::read(&dest)?)?;
        }
        reader.remove_leftovers()?;
        must(reader.remove_leftovers()? == 0, "leftovers remain")
    }
}
