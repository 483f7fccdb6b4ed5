//! The page: fills the newest raw results into its marked places.
//!
//! Guarantees that what stands outside the marks stays as it is, and that a mark that is not filled, or a part
//! without a mark, is an error. A place is the lines between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use crate::plan::{Page, Part};
use crate::results::Results;
use crate::{goals, tables};

/// Renders the page anew.
///
/// # Errors
///
/// When raw results or the page cannot be read, or a place is missing.
pub(crate) fn write(plan: &Page) -> Result<()> {
    let mut newest = BTreeMap::new();
    for part in Part::ALL {
        if let Some(results) = Results::newest(&plan.results, part.name())? {
            newest.insert(part.name(), results);
        }
    }
    let mut page = fs::read_to_string(&plan.page)
        .with_context(|| format!("could not read \"{}\"", plan.page.display()))?;
    let machine = newest
        .get("drain")
        .or_else(|| newest.values().next())
        .map_or_else(|| "Not measured yet.\n".to_owned(), machine);
    page = filled(&page, "machine", &machine)?;
    page = filled(&page, "goals", &goals::table(|part| newest.get(part)))?;
    for part in Part::ALL {
        let text = match newest.get(part.name()) {
            Some(results) => format!(
                "{}\n{}\n",
                tables::of_part(results),
                tables::caption(part, results)
            ),
            None => "Not measured yet.\n".to_owned(),
        };
        page = filled(&page, part.name(), &text)?;
    }
    fs::write(&plan.page, page)?;
    println!(
        "rendered {} parts into {}",
        newest.len(),
        plan.page.display()
    );
    Ok(())
}

fn machine(results: &Results) -> String {
    let machine = &results.machine;
    let versions: Vec<String> = machine
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    format!(
        "{}. {}. Load average before the run: {:.2}.\n",
        machine.sentence(),
        versions.join(", "),
        machine.load_before
    )
}

/// The page with this text in the place of this name.
fn filled(page: &str, name: &str, text: &str) -> Result<String> {
    let (open, close) = (
        format!("<!-- bench:{name} -->\n"),
        format!("<!-- /bench:{name} -->"),
    );
    let missing = || format!("the page has no place \"{name}\"");
    let (before, rest) = page.split_once(&open).with_context(missing)?;
    let (_, after) = rest.split_once(&close).with_context(missing)?;
    Ok(format!(
        "{before}{open}\n{}\n\n{close}{after}",
        text.trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_filled_again_and_again_and_the_rest_stays() {
        let page = "a\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nb\n";
        let once = filled(page, "x", "new\n").unwrap();
        assert_eq!(once, "a\n<!-- bench:x -->\n\nnew\n\n<!-- /bench:x -->\nb\n");
        assert_eq!(filled(&once, "x", "new\n").unwrap(), once);
        assert!(filled(page, "y", "new\n").is_err());
    }
}
