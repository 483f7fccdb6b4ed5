//! Who runs this program, and what that changes: a standby's startup process, another server's, a person.
//!
//! Guarantees: a server that must go on (`recovery::Phase`) is not taken down by a failed restore; a command
//! that a server runs ends with the server. Left to others: everything about the file itself.

use crate::exit::Outcome;
use crate::say;
use recovery::Phase;
use rustix::process::{Signal, set_parent_process_death_signal};
use std::path::Path;

/// The one message of every restore that could not tell, and its end.
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
    if may_stop(dest) {
        Outcome::Failed
    } else {
        Outcome::FailedServerGoesOn
    }
}

/// Whether the one who asks may be stopped by "could not tell", and is worth retrying for: everybody but
/// the startup process of a standby or of a recovery that is ending.
pub(crate) fn may_stop(dest: &Path) -> bool {
    !is_servers_own(dest) || Phase::of(Path::new(".")).stops()
}

/// Whether the one who asks is a server's startup process.
pub(crate) fn is_servers_own(dest: &Path) -> bool {
    dest == Path::new("pg_wal/RECOVERYXLOG") || dest == Path::new("pg_wal/RECOVERYHISTORY")
}

/// How many parents are looked at: a shell or two, and a wrapper, stand between a server and its command.
const PARENTS_MAX: usize = 8;

/// Whether the server of this data directory runs this command: its postmaster is among this process's parents.
pub(crate) fn is_server_of(data_dir: &Path) -> bool {
    // The first line (`CreateLockFile`, miscinit.c, 15 to 18).
    let lock_file = std::fs::read_to_string(data_dir.join("postmaster.pid")).unwrap_or_default();
    let first = lock_file.lines().next().unwrap_or_default();
    let Ok(postmaster) = first.trim().parse::<u32>() else {
        return false;
    };
    let mut process: u32 = std::process::id();
    for _ in 0..PARENTS_MAX {
        match parent_of(process) {
            Some(parent) if parent == postmaster => return true,
            Some(parent) => process = parent,
            None => return false,
        }
    }
    false
}

/// The fourth field of its `stat`, the second after the name in brackets, which may hold anything (proc(5)).
fn parent_of(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

/// Ends this process when its parent does: the server does not wait for a command that it has left.
pub(crate) fn die_with_parent() {
    // Refused on a kernel that cannot; every wait is bounded without it.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
}
