//! What the recovery worker says while its server lets no session in: before a recovery is consistent, and on a standby without
//! `hot_standby`.
//!
//! Guarantees: it is asked once, and waited for no longer than a deadline. Left to others: when to ask it, and what to make of
//! the document, which is the one that sessions are shown.

use archive::{Error, ErrorKind};
use status::Status;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::{Answer, Request, SOCKET_PATH};

/// How long the answer may take. A thread of the worker's gives it, whatever its modules are doing.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(3);

/// Asks the worker of this data directory.
///
/// # Errors
/// When there is none, when it lets this user not in, or when it is of another version.
pub(crate) fn document(directory: &Path) -> Result<Status, Error> {
    let unanswered = |why: String| Error::new(ErrorKind::Unavailable, why);
    let opened = File::open(directory).map_err(|cause| {
        let what = format!("could not open directory \"{}\"", directory.display());
        Error::io(what, cause)
    })?;
    // A socket's path has 107 bytes at most, and a data directory's may have more.
    let here = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    let socket = here.join(SOCKET_PATH);
    let answer = wire::ask(&socket, &Request::Status, Duration::ZERO, ANSWER_WAIT_MAX);
    match answer.map_err(|error| unanswered(error.to_string()))? {
        Answer::Status(document) => serde_json::from_str(&document)
            .map_err(|cause| unanswered(format!("its status is not understood: {cause}"))),
        Answer::CouldNotTell(why) => Err(unanswered(why)),
        Answer::Done | Answer::Absent | Answer::Reported => {
            Err(unanswered("it gave an invalid answer".to_owned()))
        }
    }
}
