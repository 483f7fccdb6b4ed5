//! What `walden check` says of encryption: whether new files are, and whether what is archived can be read again.
//!
//! Guarantees: nothing secret is shown, and nothing is written. Left to others: whether the identities open what is
//! stored already, which takes reading it.

use crate::check_line::Line;
use archive::{IdentityFile, Options, round_trip};

/// Where nothing is encrypted and nothing is set up for it, nothing is said.
pub(crate) fn check(options: &Options, lines: &mut Vec<Line>) {
    let recipients = &options.recipients;
    match (recipients.is_empty(), &options.identity_file) {
        (true, None) => {}
        (false, None) => lines.push(Line::passed(format!(
            "new files are encrypted for {recipients}; restoring needs an identity file"
        ))),
        (true, Some(file)) => lines.push(match file.recipients() {
            Ok(ours) => Line::passed(format!(
                "identity file \"{file}\" opens files that are encrypted for {ours}; new files are not encrypted"
            )),
            Err(error) => Line::error(&error, "Correct walden.identity_file."),
        }),
        (false, Some(file)) => lines.push(match round_trip(recipients, file) {
            Ok(()) => Line::passed(format!(
                "files that are encrypted for {recipients} can be read with identity file \"{file}\""
            )),
            Err(error) => Line::error(
                &error,
                "Add the identity of a recipient to the file, or that identity's public key to walden.recipients.",
            ),
        }),
    }
    if let Some(file) = &options.identity_file {
        permissions(file, lines);
    }
}

/// A file that cannot be looked at has failed above already.
fn permissions(file: &IdentityFile, lines: &mut Vec<Line>) {
    if let Ok(Some(mode)) = file.open_to_others() {
        lines.push(Line::warning(
            format!("identity file \"{file}\" is open to others, its mode is {mode:04o}"),
            format!("Let the server's user alone read it: chmod 600 {file}"),
        ));
    }
}
