//! The conformance suite: holds any store, and the archive above it, to the promises that they make.
//!
//! For whoever writes a store: implement [`Subject`] for it, run [`run`], and show the [`Report`]. Every
//! promise is a sentence; the verdict comes with what was seen. Some promises are tried with operations
//! drawn from a seed, under injected faults; the report names the seed, and the same seed draws the same
//! operations again.
//!
//! Guarantees that it notices stores that overwrite, that show objects too early, and that call absent
//! what they could not look for: tests of this crate plant such stores and demand that the suite catches
//! them.
//!
//! Leaves what it wrote below the scratch directory to the caller, and durability, which no test from
//! inside can see, to the tests of each store.

mod archive_promises;
mod bench;
pub mod fixtures;
mod race_promises;
mod random;
mod store_promises;

use std::fmt;
use std::fs;
use std::path::Path;

use age::secrecy::ExposeSecret;
use fastrand::Rng;

use self::bench::{Bench, Broken, SYSTEM};
use crate::{Error, IdentityFile, Recipients};

pub use bench::Subject;

/// What the suite found about one promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The promise as a sentence.
    pub promise: &'static str,
    /// Whether it was kept.
    pub kept: bool,
    /// What was seen.
    pub evidence: String,
}

/// Results of the suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Draws the same operations again.
    pub seed: u64,
    /// Every promise, in the order in which they were checked.
    pub checked: Vec<Checked>,
}

impl Report {
    /// True if every promise was kept.
    pub fn all_kept(&self) -> bool {
        self.checked.iter().all(|checked| checked.kept)
    }

    /// The promises that were broken.
    pub fn broken(&self) -> Vec<&'static str> {
        self.checked
            .iter()
            .filter(|checked| !checked.kept)
            .map(|checked| checked.promise)
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "WALDEN_SEED={}", self.seed)?;
        for Checked {
            promise,
            kept,
            evidence,
        } in &self.checked
        {
            let verdict = if *kept { "kept  " } else { "BROKEN" };
            writeln!(f, "{verdict}  {promise} ({evidence})")?;
        }
        Ok(())
    }
}

/// The seed to run with: the environment's `WALDEN_SEED`, to replay a report, else one that was never used.
pub fn seed_from_environment() -> u64 {
    let given = std::env::var("WALDEN_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..))
}

/// Checks every promise. Sources and restored files go below `scratch`, an empty directory.
pub fn run(subject: &mut dyn Subject, scratch: &Path, seed: u64) -> Report {
    let promises = store_promises::ALL
        .iter()
        .chain(archive_promises::ALL)
        .chain(race_promises::ALL)
        .chain(random::ALL);
    let (identity, recipients) = match keys(scratch) {
        Ok(keys) => keys,
        Err(error) => {
            let checked = Checked {
                promise: "the suite can write below its scratch directory",
                kept: false,
                evidence: error.to_string(),
            };
            return Report {
                seed,
                checked: vec![checked],
            };
        }
    };
    let mut bench = Bench {
        subject,
        scratch,
        random: Rng::with_seed(seed),
        system: SYSTEM,
        identity,
        recipients,
        files: 0,
    };
    let checked = promises.map(|(promise, check)| {
        let outcome = bench
            .subject
            .reset()
            .map_err(Broken::from)
            .and_then(|()| check(&mut bench));
        let (kept, evidence) = match outcome {
            Ok(evidence) => (true, evidence),
            Err(Broken(evidence)) => (false, evidence),
        };
        Checked {
            promise,
            kept,
            evidence,
        }
    });
    Report {
        seed,
        checked: checked.collect(),
    }
}

/// A new identity in a file, and the recipient that it is for.
fn keys(scratch: &Path) -> Result<(IdentityFile, Recipients), Error> {
    let identity = age::x25519::Identity::generate();
    let path = scratch.join("identity");
    let text = identity.to_string();
    fs::write(&path, text.expose_secret())
        .map_err(|cause| Error::io("could not write identity file", cause))?;
    let file = path.to_string_lossy().parse()?;
    Ok((file, identity.to_public().to_string().parse()?))
}

#[cfg(test)]
mod tests;
