//! From the error of an archive, or of a configuration file, to what the server's log shows.

use module::Failure;

/// The same message and hint.
pub(crate) fn of_archive(error: archive::Error) -> Failure {
    let failure = Failure::new(error.to_string());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The same message and hint, made fit to be shown: a configuration file is as people have written it.
pub(crate) fn of_conf(error: pgconf::Error) -> Failure {
    let kind = match error.kind() {
        pgconf::ErrorKind::Unavailable => archive::ErrorKind::Unavailable,
        pgconf::ErrorKind::Unusable => archive::ErrorKind::Unusable,
    };
    let shown = archive::Error::new(kind, error.to_string());
    of_archive(match error.hint() {
        Some(hint) => shown.with_hint(hint),
        None => shown,
    })
}

/// The same hint under a message that says what was being done.
pub(crate) fn while_doing(what: &str, error: &archive::Error) -> Failure {
    let failure = Failure::new(format!("{what}: {error}"));
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
