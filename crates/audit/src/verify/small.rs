//! The small files: timeline history files and backup history files.
//!
//! Guarantees that each is read in every form it has, that twins are compared, and that what cannot be understood is a
//! finding. How histories fit together, and the WAL, is left to `histories`.

use std::ops::ControlFlow;

use archive::{Archive, Cancel, Error, ErrorKind, Reading};
use wal::{TimelineHistory, WalFileName};

use crate::backup_history::BackupHistory;
use crate::finding::{Finding, Kind, Severity};
use crate::inventory::{Form, Inventory};
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
        if let Some((key, contents)) = small.contents(&name, &files.history) {
            match TimelineHistory::parse(*timeline, &contents) {
                Ok(history) => lineage.add(history),
                Err(why) => small.damaged(&key, &why.to_string()),
            }
        }
        for ((segment, offset), forms) in &files.backups {
            let (segment, offset) = (*segment, *offset);
            let name = WalFileName::BackupHistory { segment, offset };
            if let Some((key, contents)) = small.contents(&name, forms)
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

    /// The contents, under the first key that has them; every other key is compared.
    fn contents(&mut self, name: &WalFileName, forms: &[Form]) -> Option<(String, Vec<u8>)> {
        let mut first: Option<(String, Vec<u8>)> = None;
        for form in forms {
            let key = form.key(name);
            let Some(contents) = self.one(&key) else {
                continue;
            };
            match &first {
                None => first = Some((key, contents)),
                Some((twin, of_twin)) => {
                    self.findings.push(twins(twin, &key, *of_twin == contents))
                }
            }
        }
        first
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

/// An object that could not be read: it is damaged, or it cannot be told whether it is.
pub(crate) fn unreadable(key: &str, why: &Error) -> Finding {
    if why.kind() != ErrorKind::Damaged {
        return Finding::not_read(key, why);
    }
    let hint = match why.hint() {
        Some(hint) => format!("{hint} {BRING_IT_BACK}"),
        None => BRING_IT_BACK.to_owned(),
    };
    Finding::error(Kind::Damaged, key, why.to_string()).hint(hint)
}

/// One name in two forms.
pub(crate) fn twins(one: &str, other: &str, are_equal: bool) -> Finding {
    match are_equal {
        true => {
            let message = format!("\"{one}\" and \"{other}\" have the same contents");
            Finding::new(Severity::Note, Kind::EqualTwins, other, message)
                .hint("One of the two may go; it costs nothing but room.")
        }
        false => {
            let message = format!("\"{one}\" and \"{other}\" have different contents");
            Finding::error(Kind::DifferentTwins, other, message).hint(
                "Find out which one is right and move the other away. Until then neither is restored.",
            )
        }
    }
}
