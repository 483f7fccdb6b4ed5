//! Who runs this program, and what that changes: a standby's startup process, another server's, a person.
//!
//! Guarantees: a standby is never taken down by a failed restore; a command that a server runs ends with
//! the server. Left to others: everything about the file itself.

use crate::exit::Outcome;
use crate::say;
use rustix::process::{Signal, set_parent_process_death_signal};
use std::path::Path;

/// The one message of every restore that could not tell, and the standby's exception.
///
/// A standby asks again by itself and can stream meanwhile, but it stops over a status above 125. So
/// there the failure is a line in the log.
pub(crate) fn could_not_restore(
    file: &str,
    dest: &Path,
    cause: &str,
    hint: Option<&str>,
) -> Outcome {
    let prefix = format!("could not restore \"{file}\"");
    let message = match cause.strip_prefix(prefix.as_str()) {
        Some(_) => cause.to_owned(),
        None => format!("{prefix}: {cause}"),
    };
    say::error(&message, hint);
    could_not_tell(dest)
}

/// How a restore ends that could not tell, once the reason has been said.
pub(crate) fn could_not_tell(dest: &Path) -> Outcome {
    if is_standby(dest) {
        Outcome::FailedOnStandby
    } else {
        Outcome::Failed
    }
}

/// Whether the one who asks is a standby's startup process: it runs the command in the data directory,
/// with one of two paths (`RestoreArchivedFile`, `xlogarchive.c`, 15 to 18).
pub(crate) fn is_standby(dest: &Path) -> bool {
    is_servers_own(dest) && wire::standby_requested(Path::new("."))
}

/// Whether the one who asks is a server's startup process.
pub(crate) fn is_servers_own(dest: &Path) -> bool {
    dest == Path::new("pg_wal/RECOVERYXLOG") || dest == Path::new("pg_wal/RECOVERYHISTORY")
}

/// Ends this process when its parent does: the server does not wait for a command that it has left.
pub(crate) fn die_with_parent() {
    // Refused on a kernel that cannot; every wait is bounded without it.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
}
