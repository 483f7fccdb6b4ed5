//! A restore without an engine: one file, on the caller's thread, under the rules of a [`Question`].

use std::path::Path;

use archive::{Answer, Archive, Cancel, Error};
use wal::SystemIdentifier;

use crate::judge::Question;

/// Restores a file as `dest`, which must not exist. `system`: whose WAL it must be, if that is known.
///
/// Fails when it cannot be told, or must not: see [`Archive::get`] for the kinds. What the server goes on without is not yet
/// "absent" then: see [`Question::failed`].
pub fn restore(
    archive: &Archive,
    question: &Question,
    dest: &Path,
    system: Option<SystemIdentifier>,
    cancel: &Cancel,
) -> Result<Answer, Error> {
    if question.is_never_written() {
        return Ok(Answer::Absent(Vec::new()));
    }
    archive.get_ruled(question.name(), dest, system, question, cancel)
}
