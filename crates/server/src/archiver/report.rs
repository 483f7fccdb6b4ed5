//! What the archiver tells the server's log: where and how it archives, each file, and the beginning and the end of trouble.

use crate::settings;
use crate::status;
use archive::{ArchivingNote, Pending, Place, Put};
use module::{Failure, Level, Process, Report, WalFileName};
use std::path::Path;

/// What the log is told when an archive has been opened: all that decides what is stored, and how.
pub(super) fn beginning(process: Process, place: &Place) -> String {
    let options = &place.options;
    let encrypted = match options.recipients.len() {
        0 => "not encrypted".to_owned(),
        1 => "encrypted for 1 recipient".to_owned(),
        keys => format!("encrypted for {keys} recipients"),
    };
    let jobs = match settings::archiving_limits(process).jobs {
        1 => "1 job".to_owned(),
        jobs => format!("{jobs} jobs"),
    };
    format!(
        "archiving to \"{}\" with Walden {}: compression {}, {encrypted}, {jobs}",
        place.location,
        env!("CARGO_PKG_VERSION"),
        options.compression
    )
}

/// A file that is archived; `how` says how that went.
pub(super) fn archived(process: Process, file: &WalFileName, put: Put, how: &str) {
    status::archiver::archived(put);
    let mut level = Level::Debug1;
    let message = match put {
        Put::Stored {
            bytes_in,
            bytes_out,
        } => format!("archived file \"{file}\"{how}: {bytes_in} bytes stored as {bytes_out}"),
        Put::AlreadyStored => {
            format!("file \"{file}\" is in the archive already, with the same contents")
        }
        Put::AsPartial => {
            level = Level::Log;
            format!(
                "archived file \"{file}\" as \"{file}.partial\"{how}: its timeline was left inside it"
            )
        }
    };
    process.report(&Report::new(level, message));
}

/// What the log is told, and the status with it.
pub(super) fn report_of(note: ArchivingNote) -> Report {
    let text = match note {
        ArchivingNote::Retrying {
            name,
            cause,
            hint,
            is_denied,
        } => {
            let text = Failure::new(format!("could not archive file \"{name}\" yet: {cause}"))
                .detail("It is tried again until \"walden.archive_timeout\" has passed.");
            let text = match hint {
                Some(hint) => text.hint(hint),
                None => text,
            };
            status::archiver::in_trouble(&name, is_denied, &text);
            text
        }
        ArchivingNote::Recovered { name, after } => {
            let text = Failure::new(format!(
                "archived file \"{name}\" after {} s in which no file could be archived",
                after.as_secs()
            ));
            match Pending::count(Path::new(status::archiver::ARCHIVE_STATUS)) {
                // The server has not noted this one yet.
                Ok(Pending { files: 2, .. }) => text.detail("1 more file is to be archived."),
                Ok(pending) => {
                    let more = pending.files.saturating_sub(1);
                    text.detail(format!("{more} more files are to be archived."))
                }
                Err(_) => text,
            }
        }
        ArchivingNote::Warning(text) => return Report::new(Level::Warning, text),
    };
    Report::of(Level::Log, text)
}
