//! The table of promises, verdicts and evidence, as text, Markdown or data.
//!
//! Guarantees that every line carries its source, so that a reader can look up what is asked for, and that
//! the text fits a terminal of [`COLUMNS`].

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::promise::{Kind, Promise, Verdict};

/// The width of the text.
const COLUMNS: usize = 100;

/// What stands left of a promise's text.
const MARGIN: usize = 11;

/// What became of one promise on one server.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The kind of module that promises it.
    pub kind: Kind,
    /// The promise's name, as `--only` takes it.
    pub name: &'static str,
    /// The promise as a sentence.
    pub promise: &'static str,
    /// The section of the manual or the function of the server that it follows from.
    pub source: &'static str,
    /// The server's version.
    pub server: String,
    /// How long the look took, in seconds; says nothing of the module.
    pub seconds: f64,
    /// The verdict with its evidence.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// The results of all promises on all servers.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The archive module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_library: Option<String>,
    /// The recovery module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_library: Option<String>,
    /// The base backup target's library.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_library: Option<String>,
    /// The servers' versions.
    pub servers: Vec<String>,
    /// What repeats this run's random choices.
    pub seed: u64,
    /// Line by line, all promises of one server after those of another.
    pub lines: Vec<Line>,
}

impl Line {
    pub(crate) fn new(promise: &Promise, server: &str, verdict: Verdict, took: Duration) -> Line {
        Line {
            kind: promise.kind,
            name: promise.name,
            promise: promise.says,
            source: promise.source,
            server: server.to_owned(),
            seconds: took.as_secs_f64(),
            verdict,
        }
    }
}

impl Report {
    /// Whether every promise is kept, or does not apply.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.lines.iter().all(|line| line.verdict.is_good())
    }

    /// The report as text for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            for kind in [Kind::Archive, Kind::Recovery, Kind::Target] {
                self.add_kind(&mut text, server, kind);
            }
        }
        for server in &self.servers {
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(text, "PostgreSQL {server}: {}", self.summary(server));
        }
        let _ = writeln!(
            text,
            "--only NAME looks at one promise again; --seed {} repeats the random choices",
            self.seed
        );
        text
    }

    /// The promises of one kind on one server, under a title.
    fn add_kind(&self, text: &mut String, server: &str, kind: Kind) {
        let of_kind = |line: &&Line| line.server == server && line.kind == kind;
        let lines: Vec<&Line> = self.lines.iter().filter(of_kind).collect();
        if lines.is_empty() {
            return;
        }
        let (what, library) = match kind {
            Kind::Archive => ("archive module", &self.archive_library),
            Kind::Recovery => ("recovery module", &self.recovery_library),
            Kind::Target => ("base backup target", &self.target_library),
        };
        let library = library.as_deref().unwrap_or_default();
        let _ = writeln!(text, "{what} \"{library}\" on PostgreSQL {server}\n");
        for line in lines {
            let label = format!("  {:<8} ", line.verdict.word());
            wrap(text, &label, line.promise);
            wrap(text, "", line.verdict.evidence());
            wrap(text, "", &format!("[{}: {}]", line.name, line.source));
        }
        text.push('\n');
    }

    /// How many of each verdict on one server, and which speak against the module.
    fn summary(&self, server: &str) -> String {
        let named = |word: &str| -> Vec<&str> {
            let lines = self.lines.iter().filter(|line| line.server == server);
            lines
                .filter(|line| line.verdict.word() == word)
                .map(|line| line.name)
                .collect()
        };
        let (broken, unclear) = (named("BROKEN"), named("UNCLEAR"));
        let mut summary = format!(
            "{} kept, {} broken, {} do not apply, {} unclear",
            named("kept").len(),
            broken.len(),
            named("n/a").len(),
            unclear.len()
        );
        for (word, names) in [("broken", broken), ("unclear", unclear)] {
            if !names.is_empty() {
                let _ = write!(summary, "; {word}: {}", names.join(", "));
            }
        }
        summary
    }

    /// For a book: a row for each promise, a column for each server, then the evidence.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::from("| promise |");
        for server in &self.servers {
            let _ = write!(text, " {} |", short(server));
        }
        let columns = "---|".repeat(self.servers.len());
        let _ = writeln!(text, " evidence | source |\n|---|{columns}---|---|");
        let first = self.servers.first();
        for row in self.lines.iter().filter(|line| Some(&line.server) == first) {
            let same: Vec<&Line> = self.lines.iter().filter(|it| it.name == row.name).collect();
            let _ = write!(text, "| {} (`{}`) |", cell(row.promise), row.name);
            for line in &same {
                let word = line.verdict.word();
                let strong = if line.verdict.is_good() { "" } else { "**" };
                let _ = write!(text, " {strong}{word}{strong} |");
            }
            // What speaks against the module says most.
            let telling = same
                .iter()
                .find(|line| !line.verdict.is_good())
                .unwrap_or(&row);
            let _ = writeln!(
                text,
                " {}: {} | {} |",
                short(&telling.server),
                cell(telling.verdict.evidence()),
                cell(row.source)
            );
        }
        let _ = writeln!(text, "\nRandom choices: `--seed {}`.", self.seed);
        text
    }
}

/// A version without what a distribution adds to it.
fn short(version: &str) -> &str {
    version.split(' ').next().unwrap_or_default()
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', "<br>")
}

/// Adds a paragraph whose first line begins with a label, the others below its text. Words longer than a
/// line stay whole.
fn wrap(text: &mut String, label: &str, paragraph: &str) {
    let _ = write!(text, "{label:<MARGIN$}");
    let mut column = MARGIN;
    for (number, word) in paragraph.split_whitespace().enumerate() {
        let wide = word.chars().count();
        if number > 0 && column + 1 + wide > COLUMNS {
            let _ = write!(text, "\n{:<MARGIN$}", "");
            column = MARGIN;
        } else if number > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += wide;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let line = |server: &str, verdict| Line {
            kind: Kind::Archive,
            name: "same-bytes-succeed",
            promise: "a file that the archive holds already is archived again",
            source: "manual | here",
            server: server.to_owned(),
            seconds: 1.0,
            verdict,
        };
        Report {
            archive_library: Some("mine".to_owned()),
            recovery_library: None,
            target_library: None,
            servers: vec!["15.20 (Debian)".to_owned(), "18.6".to_owned()],
            seed: 7,
            lines: vec![
                line("15.20 (Debian)", Verdict::Kept("seen ".repeat(40))),
                line("18.6", Verdict::Broken("it was refused".to_owned())),
            ],
        }
    }

    #[test]
    fn the_text_fits_the_terminal_and_ends_with_a_summary_for_each_server() {
        let text = report().text();
        assert!(
            text.lines().all(|line| line.chars().count() <= COLUMNS),
            "{text}"
        );
        assert!(text.contains("archive module \"mine\" on PostgreSQL 18.6\n"));
        assert!(text.contains("  BROKEN   a file that"));
        assert!(text.ends_with(
            "PostgreSQL 15.20 (Debian): 1 kept, 0 broken, 0 do not apply, 0 unclear\n\
             PostgreSQL 18.6: 0 kept, 1 broken, 0 do not apply, 0 unclear; broken: same-bytes-succeed\n\
             --only NAME looks at one promise again; --seed 7 repeats the random choices\n"
        ));
    }

    #[test]
    fn the_markdown_has_a_column_for_each_server_and_the_evidence_that_says_most() {
        let table = report().markdown();
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(rows[0], "| promise | 15.20 | 18.6 | evidence | source |");
        assert_eq!(rows[1], "|---|---|---|---|---|");
        assert_eq!(
            rows[2],
            "| a file that the archive holds already is archived again (`same-bytes-succeed`) | kept | \
             **BROKEN** | 18.6: it was refused | manual \\| here |"
        );
        assert_eq!(rows[3..], ["", "Random choices: `--seed 7`."]);
    }
}
