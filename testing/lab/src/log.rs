//! Reading a server's log.
//!
//! Guarantees that a message and its DETAIL and HINT lines are seen as one entry, which is what tests
//! ask about. Relies on the `log_line_prefix` that [`crate::Settings`] gives every server.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The `log_line_prefix` that entries are parsed with: time, process id, kind of process.
pub(crate) const LINE_PREFIX: &str = "%m|%p|%b|";

/// A place in a server's log: everything before it is of no interest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark(pub(crate) usize);

/// One message in a server's log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The process that wrote it; empty for raw lines, such as those of a `restore_command`.
    pub pid: String,
    /// The kind of process, as in `pg_stat_activity.backend_type`.
    pub backend: String,
    /// The severity, the message, and its DETAIL, HINT and CONTEXT lines.
    pub text: String,
}

impl Entry {
    /// Whether every one of `words` occurs in it.
    #[must_use]
    pub fn has(&self, words: &[&str]) -> bool {
        words.iter().all(|word| self.text.contains(word))
    }
}

pub(crate) fn size(path: &Path) -> Result<Mark> {
    Ok(Mark(
        fs::metadata(path).map_or(0, |meta| meta.len()).try_into()?,
    ))
}

pub(crate) fn read(path: &Path, since: Mark) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("could not read \"{}\"", path.display()))?;
    Ok(String::from_utf8_lossy(bytes.get(since.0..).unwrap_or_default()).into_owned())
}

pub(crate) fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(4, '|');
        let parts = (fields.next(), fields.next(), fields.next(), fields.next());
        let (pid, backend, message) = match parts {
            (Some(_), Some(pid), Some(backend), Some(message)) => (pid, backend, message),
            _ => ("", "", line),
        };
        let continues = ["DETAIL:", "HINT:", "CONTEXT:", "STATEMENT:", "\t"]
            .iter()
            .any(|start| message.starts_with(start));
        match entries
            .iter_mut()
            .rev()
            .find(|entry| pid.is_empty() || entry.pid == pid)
        {
            Some(entry) if continues => {
                entry.text.push('\n');
                entry.text.push_str(message);
            }
            _ => entries.push(Entry {
                pid: pid.to_owned(),
                backend: backend.to_owned(),
                text: message.to_owned(),
            }),
        }
    }
    entries
}

/// The last `lines` lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_belongs_to_the_last_message_of_its_process() {
        let log = "t|1|archiver|WARNING:  not archived\nt|2|startup|LOG:  other\nt|1|archiver|DETAIL:  why\n\
                   raw line\n";
        let entries = entries(log);
        assert_eq!(entries.len(), 3);
        assert!(entries[0].has(&["WARNING", "not archived", "why"]));
        assert_eq!(entries[1].backend, "startup");
        assert_eq!(entries[2].text, "raw line");
    }
}
