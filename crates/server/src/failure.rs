//! From an archive's error to what the server's log shows.

use module::Failure;

/// The same message and hint.
pub(crate) fn of_archive(error: archive::Error) -> Failure {
    let failure = Failure::new(error.to_string());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The same hint under a message that says what was being done.
pub(crate) fn while_doing(what: &str, error: &archive::Error) -> Failure {
    let failure = Failure::new(format!("{what}: {error}"));
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
