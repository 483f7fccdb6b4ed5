//! What an object store has answered instead of what was asked for, in words for people.
//!
//! Guarantees: one line; the store's own code and message where it gives them, never a whole page; no credentials, which
//! stand in headers that no answer repeats, and in no URL that is shown. "Not there" is said of an object only if the
//! store has looked for the object: a bucket that is not there, or a page of some other server, is a failure.

use std::fmt;

use object_store::Error as StoreError;

use crate::base::printable::printable;
use crate::error::{Error, ErrorKind, Mark};

/// The longest text of an answer that is repeated, in bytes.
const TEXT_BYTES_MAX: usize = 300;

/// The longest word of an answer that is repeated where its text is not, in bytes.
const WORD_BYTES_MAX: usize = 40;

/// What is named as the store where credentials could not be had, which another service gives.
pub(super) const CREDENTIALS: &str = "credentials";

/// Codes that say that it is not the object that is missing (S3 and GCS; Azure).
const NO_BUCKET: [&str; 4] = [
    "NoSuchBucket",
    "ContainerNotFound",
    "ContainerBeingDeleted",
    "AccountNotFound",
];

/// Codes that say that the object is missing (S3 and GCS; Azure).
const NO_OBJECT: [&str; 2] = ["NoSuchKey", "BlobNotFound"];

/// What to make of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The store has looked, and there is no such object.
    Absent,
    /// There is no such thing, and the answer does not say what it has looked for.
    PerhapsAbsent,
    /// There is such an object already.
    Exists,
    /// The store has too much to do.
    Throttled,
    /// It may work at once if it is tried again: an error of the server, or on the way.
    Passing,
    /// Any other failure.
    Other,
}

impl Meaning {
    /// For callers that lose nothing when it is not so.
    pub(super) fn may_be_absent(self) -> bool {
        matches!(self, Meaning::Absent | Meaning::PerhapsAbsent)
    }
}

/// A request that was not answered as it should be.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) meaning: Meaning,
    text: String,
    /// What HTTP calls it, if there was an answer at all.
    status: Option<u16>,
    /// The store has not been asked: there are no credentials to ask with.
    is_of_credentials: bool,
}

impl Failure {
    /// Nothing has come for so long.
    pub(super) fn silence(seconds: u64) -> Failure {
        Failure {
            meaning: Meaning::Passing,
            text: format!("no answer within {seconds} s"),
            status: None,
            is_of_credentials: false,
        }
    }

    /// So little has come in so long.
    pub(super) fn trickle(bytes: u64, seconds: u64) -> Failure {
        Failure {
            text: format!("only {bytes} bytes within {seconds} s"),
            ..Failure::silence(seconds)
        }
    }

    pub(super) fn of(error: &StoreError) -> Failure {
        let whole = whole_text(error);
        let status = status_in(&whole);
        let code = between(&whole, "<Code>", "</Code>");
        let elsewhere = code.is_some_and(|code| NO_BUCKET.contains(&code));
        let is_of_credentials =
            matches!(error, StoreError::Generic { store, .. } if *store == CREDENTIALS);
        let meaning = match (error, status) {
            _ if elsewhere => Meaning::Other,
            (_, Some(403 | 404)) if is_of_credentials => Meaning::Other,
            // Without a code it may be the page of some other server; only the answer to HEAD has never one.
            (StoreError::NotFound { .. }, _)
                if code.is_some_and(|code| NO_OBJECT.contains(&code)) =>
            {
                Meaning::Absent
            }
            (StoreError::NotFound { .. }, _) => Meaning::PerhapsAbsent,
            (
                StoreError::AlreadyExists { .. }
                | StoreError::Precondition { .. }
                | StoreError::NotModified { .. },
                _,
            ) => Meaning::Exists,
            (_, Some(429 | 503)) => Meaning::Throttled,
            (_, Some(408 | 500..=599)) => Meaning::Passing,
            (_, Some(_)) => Meaning::Other,
            // It has not come to an answer.
            (StoreError::Generic { .. }, None) => Meaning::Passing,
            (_, None) => Meaning::Other,
        };
        let message = between(&whole, "<Message>", "</Message>");
        let text = match (status, code, message) {
            (Some(status), Some(code), Some(message)) => format!("{status} {code}: {message}"),
            (Some(status), Some(code), None) => format!("{status} {code}"),
            // What gives credentials answers with them, in whatever form.
            (Some(status), None, _) if is_of_credentials => oauth(status, &whole),
            (Some(_), None, _) => after_status(&whole).to_owned(),
            (None, ..) => first_cause(error),
        };
        let text = if is_of_credentials {
            format!("could not get credentials: {text}")
        } else {
            text
        };
        Failure {
            meaning,
            text: printable(&one_line(&text)),
            status,
            is_of_credentials,
        }
    }

    /// The store does not do such a thing, or not for us.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.status, Some(400 | 403 | 404 | 405 | 501))
    }

    /// As an error of the archive; `what` says what could not be done.
    pub(super) fn error(&self, what: &str) -> Error {
        let error = Error::new(ErrorKind::Unavailable, format!("{what}: {}", self.text));
        let is_denied = self.is_of_credentials || matches!(self.status, Some(401 | 403));
        let error = if is_denied {
            error.marked(Mark::Denied)
        } else {
            error
        };
        match self.hint() {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        let says = |word: &str| self.text.contains(word);
        if self.is_of_credentials {
            return Some(
                "Set them in the environment of the server, or name a file that holds them with the option \
                 \"credentials_file\"; where there are none the cloud's own service is asked, which this machine has to reach.",
            );
        }
        if NO_BUCKET.iter().any(|code| says(code)) {
            return Some("Does the bucket exist, and is its name right? Walden creates none.");
        }
        if says("SignatureDoesNotMatch")
            || says("InvalidAccessKeyId")
            || says("AuthenticationFailed")
        {
            return Some("The credentials are wrong, or the clock of this machine is.");
        }
        if says("RequestTimeTooSkewed") || says("certificate expired") {
            return Some("The clock of this machine is wrong.");
        }
        if matches!(self.status, Some(401 | 403)) {
            return Some("Do the credentials allow to list, read and write here?");
        }
        if says("not valid for name") {
            return Some("Write the endpoint with a name that its certificate is for.");
        }
        if says("certificate") {
            return Some(
                "Name the file of the authority's certificate with the option \"ca_file\".",
            );
        }
        if says("region") || says("PermanentRedirect") {
            return Some("Name the bucket's region with the option \"region\".");
        }
        if says("InvalidContentType") || says("HTTP request to an HTTPS server") {
            return Some(
                "Does the endpoint begin with \"http:\" or \"https:\", as the store has it?",
            );
        }
        if self.meaning == Meaning::Passing && self.status.is_none() {
            return Some(
                "Is the endpoint right, does the store run, and can this machine reach it?",
            );
        }
        None
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The message with those of its causes that it does not hold yet.
fn whole_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(" - ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// The HTTP status that the client library names.
fn status_in(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(found, _)| found)
}

/// The status with what came with it.
fn after_status(text: &str) -> &str {
    text.split_once("status code: ")
        .map_or(text, |(_, rest)| rest)
}

/// The status, with the one word that says what is wrong where the answer has it as it should.
fn oauth(status: u16, whole: &str) -> String {
    let word = between(whole, "\"error\"", ",").and_then(|rest| {
        let word = rest.trim_matches([':', ' ', '"', '}', '\n']);
        let is_word = word.len() <= WORD_BYTES_MAX
            && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_word.then_some(word)
    });
    match word {
        Some(word) => format!("{status} {word}"),
        None => status.to_string(),
    }
}

/// Where it began: "Connection refused", not the layers that passed it on.
fn first_cause(error: &StoreError) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    // They repeat what they do not understand, which may be a token, or a file with a key.
    if cause.is::<serde_json::Error>() || cause.is::<quick_xml::DeError>() {
        return "the answer is not understood".to_owned();
    }
    let text = cause.to_string();
    text.split(" (os error ")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if line.len() + word.len() >= TEXT_BYTES_MAX {
            line.push_str(" ...");
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> StoreError {
        StoreError::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    fn not_found(text: &str) -> StoreError {
        StoreError::NotFound {
            path: "a/b".to_owned(),
            source: text.to_owned().into(),
        }
    }

    #[test]
    fn an_answer_is_told_by_its_code_and_message() {
        let text = "Error performing GET http://127.0.0.1:9/b/a in 3ms - Server returned non-2xx status code: \
                    403 Forbidden: <Error>\n<Code>AccessDenied</Code><Message>Access \n Denied.</Message></Error>";
        let failure = Failure::of(&generic(text));
        assert_eq!(failure.meaning, Meaning::Other);
        let error = failure.error("could not read object \"s3://b/a\"");
        assert_eq!(
            error.to_string(),
            "could not read object \"s3://b/a\": 403 AccessDenied: Access Denied."
        );
        assert!(error.hint().is_some() && error.is_denied());
    }

    #[test]
    fn only_an_object_that_was_looked_for_is_absent() {
        let no_key = "status code: 404 Not Found: <Error><Code>NoSuchKey</Code></Error>";
        assert_eq!(Failure::of(&not_found(no_key)).meaning, Meaning::Absent);
        for code in NO_BUCKET {
            let text = format!("status code: 404 Not Found: <Error><Code>{code}</Code></Error>");
            let failure = Failure::of(&not_found(&text));
            assert_eq!(failure.meaning, Meaning::Other, "{code}");
        }
        let page = "status code: 404 Not Found: 404 page not found";
        assert_eq!(
            Failure::of(&not_found(page)).meaning,
            Meaning::PerhapsAbsent
        );
    }

    #[test]
    fn credentials_that_cannot_be_had_say_so_and_are_no_word_of_the_store() {
        for (text, meaning) in [
            ("status code: 404 Not Found: ", Meaning::Other),
            ("status code: 403 Forbidden: ", Meaning::Other),
            ("no answer within 8 s", Meaning::Passing),
        ] {
            let failure = Failure::of(&StoreError::Generic {
                store: CREDENTIALS,
                source: text.to_owned().into(),
            });
            assert_eq!(failure.meaning, meaning, "{text}");
            let error = failure.error("could not read object \"s3://b/a\"");
            let said = error.to_string();
            assert!(said.contains("\": could not get credentials: "), "{said}");
            assert!(
                error
                    .hint()
                    .is_some_and(|hint| hint.contains("credentials_file"))
            );
        }
    }

    #[test]
    fn what_keeps_a_store_from_answering_names_its_cure() {
        for (text, cure) in [
            ("Connection refused (os error 111)", "endpoint"),
            ("invalid peer certificate: UnknownIssuer", "ca_file"),
            (
                "invalid peer certificate: certificate not valid for name \"x\"",
                "certificate is for",
            ),
            (
                "received corrupt message of type InvalidContentType",
                "http:",
            ),
            (
                "status code: 400 Bad Request: Client sent an HTTP request to an HTTPS server.",
                "https:",
            ),
            (
                "status code: 301 Moved: <Error><Code>PermanentRedirect</Code></Error>",
                "region",
            ),
            (
                "status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code></Error>",
                "credentials are wrong",
            ),
        ] {
            let error = Failure::of(&generic(text)).error("x");
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains(cure), "{text}: {hint}");
        }
    }

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        for (text, meaning) in [
            (
                "status code: 503 Service Unavailable: x",
                Meaning::Throttled,
            ),
            ("status code: 429 Too Many Requests: x", Meaning::Throttled),
            (
                "status code: 500 Internal Server Error: x",
                Meaning::Passing,
            ),
            ("status code: 400 Bad Request: x", Meaning::Other),
            (
                "error sending request: connection refused",
                Meaning::Passing,
            ),
        ] {
            assert_eq!(Failure::of(&generic(text)).meaning, meaning, "{text}");
        }
    }

    #[test]
    fn a_page_of_another_server_is_cut_short() {
        let text = format!(
            "status code: 400 Bad Request: {}",
            "<p>word</p>\n".repeat(1000)
        );
        let shown = Failure::of(&generic(&text)).error("x").to_string();
        assert!(
            shown.len() < TEXT_BYTES_MAX + 20 && !shown.contains('\n'),
            "{shown}"
        );
    }
}
