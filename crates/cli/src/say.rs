//! What the command says to people: on standard error, in the server's message style.
//!
//! Guarantees: a message that cannot be written is dropped, since losing it is better than losing the
//! exit status; output to a pipe that has lost its reader is a success. Standard error goes to the
//! server's log when the server runs the command. Left to others: the words.

use crate::exit::Outcome;
use crate::progress;
use archive::Error;
use serde::Serialize;
use std::io::{self, ErrorKind, Write};

/// An error, its hint on a line of its own.
pub(crate) fn error(message: &str, hint: Option<&str>) {
    line("error", message);
    if let Some(hint) = hint {
        line("hint", hint);
    }
}

/// An error of the archive, as it words itself.
pub(crate) fn failure(failure: &Error) {
    error(&failure.to_string(), failure.hint());
}

/// Something that did not go as planned and is survived.
pub(crate) fn warning(message: &str) {
    line("warning", message);
}

/// The same with advice, on a line of its own.
pub(crate) fn warning_with_hint(message: &str, hint: Option<&str>) {
    warning(message);
    if let Some(hint) = hint {
        line("hint", hint);
    }
}

/// Something for `--verbose`.
pub(crate) fn note(message: &str) {
    line("note", message);
}

/// A panic, in one line.
pub(crate) fn bug(message: &str) {
    line(
        "error",
        &format!("internal error, please report this bug: {message}"),
    );
}

fn line(kind: &str, message: &str) {
    progress::apart(|| {
        let _ = writeln!(io::stderr().lock(), "walden: {kind}: {message}");
    });
}

/// `1 segment`, `2 segments`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// Writes a whole result to standard output.
pub(crate) fn output(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Outcome::Done,
        // The reader, `head` say, has seen enough.
        Err(cause) if cause.kind() == ErrorKind::BrokenPipe => Outcome::Done,
        Err(cause) => {
            failure(&Error::io("could not write to standard output", cause));
            Outcome::Failed
        }
    }
}

/// Writes one JSON document to standard output.
pub(crate) fn json(document: &impl Serialize) -> Outcome {
    match serde_json::to_string_pretty(document) {
        Ok(text) => output(&(text + "\n")),
        Err(cause) => {
            error(&format!("could not write JSON: {cause}"), None);
            Outcome::Failed
        }
    }
}
