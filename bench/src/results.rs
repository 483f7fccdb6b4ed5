//! Raw results: every single measurement, and where it was made.
//!
//! Guarantees that a file is there whole or not at all, and that what is rendered later needs nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// What one part of the bench has measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    /// Name of the part, as on the command line.
    pub(crate) part: String,
    /// When the part began, UTC.
    pub(crate) begun: String,
    /// The machine that it ran on.
    pub(crate) machine: Machine,
    /// What else was fixed: counts, sizes, settings.
    pub(crate) setup: BTreeMap<String, String>,
    /// One row for each contender in each case.
    pub(crate) rows: Vec<Row>,
}

/// The measurements of one contender in one case.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The workload, the added latency, the number of files: whatever the part varies.
    pub(crate) case: String,
    /// Who was measured.
    pub(crate) contender: String,
    /// How it was to compress.
    pub(crate) codec: String,
    /// By name (which ends in the unit), one value for each run, in the order of the runs.
    pub(crate) measures: BTreeMap<String, Vec<f64>>,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) missing: Option<String>,
}

impl Row {
    /// A row without measurements yet.
    pub(crate) fn new(case: &str, contender: &str, codec: &str) -> Row {
        Row {
            case: case.to_owned(),
            contender: contender.to_owned(),
            codec: codec.to_owned(),
            ..Row::default()
        }
    }

    /// A row that says why there are no measurements.
    pub(crate) fn missing(case: &str, contender: &str, codec: &str, why: &str) -> Row {
        Row {
            missing: Some(why.to_owned()),
            ..Row::new(case, contender, codec)
        }
    }

    /// Adds a measurement.
    pub(crate) fn add(&mut self, measure: &str, value: f64) {
        self.measures
            .entry(measure.to_owned())
            .or_default()
            .push(value);
    }

    /// The median of a measure; `None` if it was not measured.
    pub(crate) fn median(&self, measure: &str) -> Option<f64> {
        median(self.measures.get(measure)?)
    }

    /// The greatest value of a measure.
    pub(crate) fn max(&self, measure: &str) -> Option<f64> {
        self.measures.get(measure)?.iter().copied().reduce(f64::max)
    }

    /// Contender and codec as one name.
    pub(crate) fn title(&self) -> String {
        if self.codec.is_empty() {
            self.contender.clone()
        } else {
            format!("{}, {}", self.contender, self.codec)
        }
    }
}

/// The middle one of some values, of two in the middle the mean; `None` without any.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let above = sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(*above);
    }
    let below = sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(*below, *above))
}

/// A count as a number to calculate with.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts and sizes are far below 2^52"
)]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

impl Results {
    /// The row of one contender in one case.
    pub(crate) fn row(&self, case: &str, contender: &str, codec: &str) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.case == case && row.contender == contender && row.codec == codec)
    }

    /// The cases, in the order of the rows.
    pub(crate) fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !cases.contains(&row.case.as_str()) {
                cases.push(&row.case);
            }
        }
        cases
    }

    /// Writes them as `<date>-<part>.json` in `dir`, over those of the same day, and answers with the path.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn write(&self, dir: &Path) -> Result<PathBuf> {
        let day = self.begun.get(..10).unwrap_or(&self.begun);
        let path = dir.join(format!("{day}-{}.json", self.part));
        let staged = dir.join(format!(".{}.staged", self.part));
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::create_dir_all(dir)?;
        fs::write(&staged, text)
            .with_context(|| format!("could not write \"{}\"", staged.display()))?;
        fs::rename(&staged, &path)?;
        Ok(path)
    }

    /// The newest ones of a part; `None` if there are none.
    ///
    /// # Errors
    ///
    /// When they cannot be read or understood.
    pub(crate) fn newest(dir: &Path, part: &str) -> Result<Option<Results>> {
        let suffix = format!("-{part}.json");
        if !dir.exists() {
            return Ok(None);
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).with_context(|| format!("no \"{}\"", dir.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // The day has ten characters: a part whose name ends like another's is no match.
            if name.len() == 10 + suffix.len() && name.ends_with(&suffix) {
                names.push(name);
            }
        }
        names.sort();
        let Some(name) = names.pop() else {
            return Ok(None);
        };
        let text = fs::read_to_string(dir.join(&name))?;
        let results =
            serde_json::from_str(&text).with_context(|| format!("cannot read \"{name}\""))?;
        Ok(Some(results))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_value_whatever_the_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
