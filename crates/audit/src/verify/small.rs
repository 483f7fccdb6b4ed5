//! The small files: timeline history files and backup history files.
//!
//! Guarantees that each is read, and that what cannot be understood is a finding. How histories fit together, and the WAL, is
//! left to `histories`.

use std::ops::ControlFlow;

use archive::{Archive, Cancel, Error, ErrorKind, Reading};
use wal::{TimelineHistory, WalFileName};

use crate::backup_history::BackupHistory;
use crate::finding::{Finding, Kind, Severity};
use crate::inventory::Inventory;
use crate::lineage::Lineage;

/// The longest file believed, in bytes; the archive believes no longer ones either.
const BYTES_MAX: usize = 1024 * 1024;

/// What to do about an object that is not what was archived.
pub(crate) const BRING_IT_BACK: &str = "Bring the object back from a copy of the archive. Without it, take a new base backup: no \
     recovery from an older one gets over this place.";

/// Reads whole small files.
pub(crate) struct Small<'a> {
    reading: Reading<'a>,
    cancel: &'a Cancel,
    findings: Vec<Finding>,
}

/// Reads all timeline and backup history files.
pub(crate) fn read(
    archive: &Archive,
    inventory: &Inventory,
    cancel: &Cancel,
) -> (Lineage, Vec<Finding>) {
    let mut small = Small {
        reading: archive.reading(),
        cancel,
        findings: Vec::new(),
    };
    let mut lineage = Lineage::default();
    for (timeline, files) in &inventory.timelines {
        let name = WalFileName::TimelineHistory(*timeline);
        let key = name.to_string();
        if files.has_history
            && let Some(contents) = small.one(&key)
        {
            match TimelineHistory::parse(*timeline, &contents) {
                Ok(history) => lineage.add(history),
                Err(why) => small.damaged(&key, &why.to_string()),
            }
        }
        for (segment, offset) in &files.backups {
            let (segment, offset) = (*segment, *offset);
            let name = WalFileName::BackupHistory { segment, offset };
            let key = name.to_string();
            if let Some(contents) = small.one(&key)
                && let Err(why) =
                    BackupHistory::parse(&contents).and_then(|label| label.fits(&name))
            {
                let message = format!("backup history file \"{key}\" is not valid: {why}");
                let kind = Kind::BackupHistory;
                let finding = Finding::new(Severity::Warning, kind, key, message);
                small
                    .findings
                    .push(finding.hint(
                        "Recovery does not read it; the backup itself says where it begins.",
                    ));
            }
        }
    }
    (lineage, small.findings)
}

impl Small<'_> {
    fn damaged(&mut self, key: &str, why: &str) {
        let message = match why.contains(key) {
            true => why.to_owned(),
            false => format!("archive file \"{key}\" is not valid: {why}"),
        };
        let finding = Finding::error(Kind::Damaged, key, message);
        self.findings.push(finding.hint(
            "Bring it back from a copy of the archive, or from the pg_wal of a server on that timeline.",
        ));
    }

    fn one(&mut self, key: &str) -> Option<Vec<u8>> {
        let mut contents = Vec::new();
        let read = self.reading.read(key, self.cancel, &mut |piece| {
            contents.extend_from_slice(piece);
            match contents.len() > BYTES_MAX {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        match read {
            Ok(Some(_)) if contents.len() > BYTES_MAX => {
                self.damaged(key, &format!("it is longer than {BYTES_MAX} bytes"));
                None
            }
            Ok(Some(_)) => Some(contents),
            Ok(None) => {
                self.findings.push(removed(key));
                None
            }
            Err(why) => {
                self.findings.push(unreadable(key, &why));
                None
            }
        }
    }
}

/// An object that was listed and is not there.
pub(crate) fn removed(key: &str) -> Finding {
    let message = format!("archive file \"{key}\" was listed, and is gone");
    Finding::new(Severity::Warning, Kind::Removed, key, message)
        .hint("If an archive cleanup has run meanwhile, all is well.")
}

/// An object that could not be read: it is damaged, or packed in another way, or it cannot be told whether it is.
pub(crate) fn unreadable(key: &str, why: &Error) -> Finding {
    if why.is_no_file() {
        // Not for good: a run that goes on later looks again.
        let finding = Finding::error(Kind::NotRead, key, why.to_string());
        return finding.hint(
            "Something that is no file has a WAL file's name: bring the file back, or mount what the link leads to.",
        );
    }
    if why.is_packed() {
        let finding = Finding::error(Kind::Unreadable, key, why.to_string());
        return finding.hint(why.hint().unwrap_or_default());
    }
    if why.kind() != ErrorKind::Damaged {
        return Finding::not_read(key, why);
    }
    let hint = match why.hint() {
        Some(hint) => format!("{hint} {BRING_IT_BACK}"),
        None => BRING_IT_BACK.to_owned(),
    };
    Finding::error(Kind::Damaged, key, why.to_string()).hint(hint)
}
