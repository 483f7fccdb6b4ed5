//! `walden backups`: the base backups that lie in the archive, for people as a table, for programs as one JSON document.
//!
//! Guarantees that a backup is called complete only with all of its parts and its WAL in this archive; one that cannot be
//! understood is shown as that, and none of the others with it. Nothing is read but listings and each backup's own description.
//! Left to others: the judgement (`backup`), what is in the parts (`walden verify --backups`).

use std::fmt::Write;
use std::time::SystemTime;

use archive::{Archive, Error};
use audit::Inventory;
use backup::{Catalogue, Found, State, What};
use serde::Serialize;
use wal::SegmentName;

use crate::exit::Outcome;
use crate::flags::{Backups, Global};
use crate::progress::{Progress, Where};
use crate::say;
use crate::settings;

/// Prints the backups.
pub(crate) fn run(flags: &Backups, global: &Global) -> Outcome {
    let looked = match look(global) {
        Ok(looked) => looked,
        Err(error) => {
            say::failure(&error);
            return Outcome::Failed;
        }
    };
    let backups = looked.catalogue.backups.iter().zip(looked.states());
    let rows: Vec<Row> = backups
        .map(|(found, state)| Row::of(found, state))
        .collect();
    if flags.json {
        return say::json(&Document {
            archive: &looked.archive.place(),
            backups: &rows,
        });
    }
    say::output(&text(&rows, &looked.archive.place()))
}

/// An archive, its backups, and the WAL that it has.
pub(crate) struct Looked {
    pub(crate) archive: Archive,
    pub(crate) catalogue: Catalogue,
    inventory: Inventory,
}

impl Looked {
    /// What state each backup is in, in their order.
    pub(crate) fn states(&self) -> Vec<State> {
        let is_stored = |name: &SegmentName| self.inventory.has_bytes_of(name);
        self.catalogue.states(SystemTime::now(), &is_stored)
    }
}

/// Opens the archive and lists it. Fails too if there is nothing at all, as where its file system is not mounted.
pub(crate) fn look(global: &Global) -> Result<Looked, Error> {
    let progress = Progress::start("opening the archive", Where::Everywhere);
    let chosen = settings::choose(global, settings::current_data_dir())?;
    let archive = chosen.open()?;
    let binding = archive.binding()?;
    progress.doing("listing");
    // The WAL last: a backup whose WAL is still on its way waits rather than being called complete.
    let catalogue = backup::catalogue(&archive, binding.as_ref().map(|it| it.system))?;
    let inventory = Inventory::take(&archive, &mut |files| progress.found(files))?;
    drop(progress);
    if binding.is_none() && inventory.is_empty() && catalogue.backups.is_empty() {
        return Err(audit::nothing_there(&archive));
    }
    if catalogue.foreign > 0 {
        let objects = say::counted(catalogue.foreign, "object");
        let folder = backup::FOLDER;
        say::note(&format!(
            "ignored {objects} in \"{folder}\" that belong to no backup"
        ));
    }
    Ok(Looked {
        archive,
        catalogue,
        inventory,
    })
}

/// The JSON document. Its fields are a promise to programs: add, never rename.
#[derive(Serialize)]
struct Document<'a> {
    archive: &'a str,
    backups: &'a [Row],
}

/// One backup. Times are RFC 3339 by the server's clock, sizes bytes.
#[derive(Default, Serialize)]
struct Row {
    id: String,
    /// `running`, `abandoned`, `waiting`, `complete`, `corrupt_pages`, `parent_missing`, `damaged` or `unknown`.
    state: &'static str,
    /// The first segment that a waiting backup lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_segment: Option<String>,
    /// What is wrong with one that is damaged or has no parent, or why nothing is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    /// What an incremental one is based on; null if that is not in this archive, or not the only one that began there.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_lsn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_lsn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_major: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tablespaces: Option<usize>,
    /// What is known of its pages: `ok`, `corrupt` or `unchecked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<backup::PageState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    corrupt_pages: Option<u64>,
    /// Whether its client saw the server call it a success.
    confirmed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    stored_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<usize>,
}

impl Row {
    fn of(found: &Found, state: State) -> Row {
        let mut row = Row {
            id: found.id.to_string(),
            state: state.word(),
            confirmed: found.is_confirmed,
            stored_bytes: found.stored_bytes,
            ..Row::default()
        };
        match state {
            State::Waiting(segment) => row.missing_segment = Some(segment.to_string()),
            State::Damaged(why) | State::ParentMissing(why) | State::Unknown(why) => {
                row.why = Some(why);
            }
            _ => {}
        }
        if let What::Running(running) = &found.what {
            row.label = Some(running.label.clone());
            row.started = Some(running.started.clone());
            row.start_lsn = Some(running.start_lsn.to_string());
            row.timeline = Some(running.timeline.get());
            row.server_major = Some(running.major);
        }
        if let Some(backup) = found.committed() {
            row.kind = Some(backup.kind.word());
            let parent = backup.parent.as_ref();
            row.parent = parent.map(|parent| parent.id.as_ref().map(ToString::to_string));
            row.label = Some(backup.label.clone());
            row.started = Some(backup.started.clone());
            row.stopped = Some(backup.stopped.clone());
            row.start_lsn = Some(backup.start_lsn.to_string());
            row.stop_lsn = Some(backup.stop_lsn.to_string());
            row.timeline = Some(backup.timeline.get());
            row.server_major = Some(backup.major);
            row.tablespaces = Some(backup.tablespaces.len());
            row.pages = Some(backup.pages.state);
            row.corrupt_pages = Some(backup.pages.corrupt);
            row.bytes = Some(backup.bytes());
            row.parts = Some(backup.parts.len());
        }
        row
    }

    /// As people read them, in the order of [`HEAD`].
    fn cells(&self) -> [String; 9] {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let from = text(&self.start_lsn);
        let lsns = match &self.stop_lsn {
            Some(stop) => format!("{from} to {stop}"),
            None => from,
        };
        [
            self.id.clone(),
            self.kind.unwrap_or_default().to_owned(),
            self.state.replace('_', " "),
            self.started.as_deref().map(spaced).unwrap_or_default(),
            self.stopped.as_deref().map(spaced).unwrap_or_default(),
            self.bytes.map(audit::size).unwrap_or_default(),
            audit::size(self.stored_bytes),
            self.timeline.map(|it| it.to_string()).unwrap_or_default(),
            lsns,
        ]
    }

    /// What does not fit into a table.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(segment) = &self.missing_segment {
            let stop = self.stop_lsn.as_deref().unwrap_or_default();
            remarks.push(format!(
                "waits for WAL through {stop}: segment \"{segment}\" is not in the archive"
            ));
        }
        if let Some(why) = &self.why {
            remarks.push(archive::printable(why));
        }
        if let Some(count) = self.corrupt_pages.filter(|count| *count > 0) {
            let count = say::counted(count, "corrupt page");
            remarks.push(format!(
                "has {count}: see walden verify --backups {}",
                self.id
            ));
        }
        if self.confirmed && self.corrupt_pages.is_some_and(|count| count > 0) {
            remarks
                .push("and was a success to the server, which checks by another rule".to_owned());
        }
        match &self.parent {
            Some(Some(parent)) => remarks.push(format!("is based on {parent}")),
            Some(None) => {
                remarks.push("is based on a backup that this archive does not tell".to_owned())
            }
            None => {}
        }
        if let Some(label) = self.label.as_deref().filter(|label| !label.is_empty()) {
            remarks.push(format!("label \"{}\"", archive::printable(label)));
        }
        remarks
    }
}

const HEAD: [&str; 9] = [
    "ID", "KIND", "STATE", "STARTED", "ENDED", "SIZE", "STORED", "TIMELINE", "LSN",
];

/// A time as the server prints it.
fn spaced(text: &str) -> String {
    text.replace('T', " ").replace('Z', " UTC")
}

fn text(rows: &[Row], place: &str) -> String {
    let cells: Vec<[String; 9]> = rows.iter().map(Row::cells).collect();
    let mut widths = HEAD.map(str::len);
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let padded = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line = padded.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    let mut text = String::new();
    if !rows.is_empty() {
        text.push_str(&line(&HEAD.map(str::to_owned)));
    }
    for (row, cells) in rows.iter().zip(&cells) {
        text.push_str(&line(cells));
        for remark in row.remarks() {
            let _ = writeln!(text, "  {remark}");
        }
    }
    let complete = rows
        .iter()
        .filter(|row| row.state == State::Complete.word());
    let (all, complete) = (say::counted(rows.len() as u64, "backup"), complete.count());
    let _ = writeln!(text, "{all}, {complete} complete, in \"{place}\"");
    text
}
