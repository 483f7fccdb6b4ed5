//! `backup_label` and `tablespace_map`, which the server writes at the head of `base.tar`.
//!
//! Guarantees that only what is understood is taken: a label without its start is an error. The lines are those of
//! `build_backup_content` (xlogbackup.c, 16 to 19; `do_pg_backup_start`, xlog.c, in 15).

use wal::{Lsn, TimelineId};

use crate::document::Tablespace;

/// The longest of each that is taken, in bytes.
pub(crate) const LABEL_FILE_BYTES_MAX: u64 = 64 * 1024;
pub(crate) const MAP_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What `backup_label` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackupLabel {
    pub(crate) start_lsn: Lsn,
    pub(crate) timeline: TimelineId,
    pub(crate) label: String,
    /// Where the backup began that this one is based on, and on which timeline.
    pub(crate) incremental_from: Option<(Lsn, TimelineId)>,
}

impl BackupLabel {
    /// Which line is missing or wrong, if it is none.
    pub(crate) fn parse(contents: &[u8]) -> Result<BackupLabel, &'static str> {
        let text = String::from_utf8_lossy(contents);
        let field = |name: &str| {
            let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned());
            text.lines().find_map(value)
        };
        let word = |name: &str| field(name)?.split(' ').next().map(str::to_owned);
        let timeline = |name| word(name)?.parse().ok().and_then(TimelineId::new);
        let lsn = |name| word(name)?.parse().ok();
        let from = match (field("INCREMENTAL FROM LSN"), field("INCREMENTAL FROM TLI")) {
            (None, None) => None,
            _ => {
                let from = lsn("INCREMENTAL FROM LSN").ok_or("INCREMENTAL FROM LSN")?;
                let of = timeline("INCREMENTAL FROM TLI").ok_or("INCREMENTAL FROM TLI")?;
                Some((from, of))
            }
        };
        Ok(BackupLabel {
            start_lsn: lsn("START WAL LOCATION").ok_or("START WAL LOCATION")?,
            timeline: timeline("START TIMELINE").ok_or("START TIMELINE")?,
            label: field("LABEL").unwrap_or_default(),
            incremental_from: from,
        })
    }
}

/// The tablespaces of `tablespace_map`: a line for each, its number, a blank, and where it is, with a backslash before a
/// backslash and before the ends of lines that belong to it. `None` if it is none.
pub(crate) fn tablespaces(contents: &[u8]) -> Option<Vec<Tablespace>> {
    let text = std::str::from_utf8(contents).ok()?;
    let mut lines = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let line = lines.last_mut()?;
        match character {
            '\\' => line.push(characters.next()?),
            '\n' => lines.push(String::new()),
            character => line.push(character),
        }
    }
    // The last line ends as all do.
    if lines.pop() != Some(String::new()) {
        return None;
    }
    let parsed = lines.iter().map(|line| {
        let (oid, location) = line.split_once(' ')?;
        Some(Tablespace {
            oid: oid.parse().ok()?,
            location: location.to_owned(),
        })
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: &str = "START WAL LOCATION: 1/4000028 (file 000000010000000100000004)\nCHECKPOINT LOCATION: 1/4000060\n\
        BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-29 17:15:00 UTC\nLABEL: nightly run\n\
        START TIMELINE: 1\n";

    #[test]
    fn a_label_says_where_its_backup_begins_and_what_it_is_based_on() {
        let full = BackupLabel::parse(LABEL.as_bytes()).unwrap();
        assert_eq!(
            (full.start_lsn, full.timeline),
            (Lsn(0x1_0400_0028), TimelineId::FIRST)
        );
        assert_eq!(
            (full.label.as_str(), full.incremental_from),
            ("nightly run", None)
        );
        let text = format!("{LABEL}INCREMENTAL FROM LSN: 0/2000028\nINCREMENTAL FROM TLI: 1\n");
        let based = BackupLabel::parse(text.as_bytes()).unwrap();
        assert_eq!(
            based.incremental_from,
            Some((Lsn(0x200_0028), TimelineId::FIRST))
        );
    }

    #[test]
    fn a_label_without_a_line_that_matters_is_none_and_the_line_is_named() {
        for line in ["START WAL LOCATION", "START TIMELINE"] {
            let others = LABEL.lines().filter(|other| !other.starts_with(line));
            let cut: String = others.map(|line| format!("{line}\n")).collect();
            assert_eq!(BackupLabel::parse(cut.as_bytes()), Err(line));
        }
        let half = format!("{LABEL}INCREMENTAL FROM LSN: 0/2000028\n");
        assert_eq!(
            BackupLabel::parse(half.as_bytes()),
            Err("INCREMENTAL FROM TLI")
        );
    }

    #[test]
    fn a_map_names_each_tablespace_whatever_is_in_its_path() {
        let found = tablespaces(b"16384 /a b\n16385 /c\\\nd\\\\e\n").unwrap();
        let expected = [(16384, "/a b"), (16385, "/c\nd\\e")];
        let found: Vec<_> = found
            .iter()
            .map(|it| (it.oid, it.location.as_str()))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(tablespaces(b""), Some(Vec::new()));
        for odd in [&b"16384 /a"[..], b"x /a\n", b"16384\n", b"1 a\\", b"\xff\n"] {
            assert_eq!(tablespaces(odd), None, "{odd:?}");
        }
    }
}
