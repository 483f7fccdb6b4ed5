//! Secrets in every place where they do not belong, or not like this: no message, hint or debug output repeats them.
//!
//! A text counts as repeated from eight characters on, in either case, and also as the numbers of its bytes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may panic"
)]

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use walden_archive::{
    Address, CloudStore, Error, IdentityFile, Location, Recipients, spawn_plainly,
};

/// What a secret access key of S3 looks like, a storage account's key, an age identity's, and a line of a private key.
const SECRETS: [&str; 4] = [
    "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "Zm9vYmFyYmF6cXV4c3RvcmFnZWFjY291bnRrZXkwMTIzNDU2Nzg5+/==",
    "1QL3Z7HJY54PW3HYWW5AYYFG7ZQGVC7W3J2ELW8ZMRJ2KG5SFN9AQMCAC8P",
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj",
];

/// How long a piece of a secret must be to count.
const PIECE: usize = 8;

/// What is obeyed by a terminal.
const ODD: &str = "\u{1b}]0;owned\u{7}\u{202e}";

fn everything_said(error: &Error) -> String {
    let mut said = format!("{error}\n{:?}\n{error:?}\n{error:#?}", error.hint());
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        said += &format!("\n{error}\n{error:?}");
        cause = error.source();
    }
    said
}

#[track_caller]
fn must_not_repeat(said: &str, input: &str) {
    let lower = said.to_ascii_lowercase();
    for secret in SECRETS.map(str::to_ascii_lowercase) {
        for start in 0..=secret.len() - PIECE {
            let piece = &secret[start..start + PIECE];
            assert!(!lower.contains(piece), "{piece:?} of {input:?} in {said}");
        }
    }
    for secret in SECRETS {
        let numbers: Vec<_> = secret
            .bytes()
            .take(PIECE)
            .map(|byte| byte.to_string())
            .collect();
        assert!(
            !said.contains(&numbers.join(", ")),
            "{input:?} in numbers in {said}"
        );
    }
    let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!said.contains(obeyed), "{input:?}: {said:?}");
    assert!(
        said.len() < 20_000,
        "{} bytes are said of {input:?}",
        said.len()
    );
}

/// What is said of a text that may be refused.
fn must_not_repeat_in<T: std::str::FromStr<Err = Error> + Debug>(input: &str) -> bool {
    match input.parse::<T>() {
        Ok(_) => false,
        Err(error) => {
            must_not_repeat(&everything_said(&error), input);
            true
        }
    }
}

#[test]
fn no_refused_location_is_repeated() {
    let mut refused = 0;
    for secret in SECRETS {
        let encoded = secret.replace('/', "%2F");
        for text in [
            secret.to_owned(),
            format!("{secret}{ODD}"),
            format!("key:{secret}@bucket"),
            format!("{secret}:x@bucket"),
            format!("s3//AKIA:{secret}@bucket/wal"),
            format!("s3:/AKIA:{secret}@bucket/wal"),
            format!("s3://AKIA:{encoded}@bucket/wal"),
            format!("S3://{encoded}@bucket/wal"),
            format!("s3://AKIA%3A{encoded}%40bucket/wal"),
            format!("s3://bucket:{encoded}/wal"),
            format!("s3://bucket/AKIA:{secret}@wal"),
            format!("s3://bucket/{ODD}{secret}"),
            format!("s3://bucket/wal#{secret}"),
            format!("s3://bucket/wal?{encoded}"),
            format!("s3://bucket/wal?{encoded}=1"),
            format!("s3://bucket/wal?secret_access_key={secret}"),
            format!("s3://bucket/wal?region={encoded}%1b[2J"),
            format!("s3://bucket/wal?region={encoded}%20"),
            format!("s3://bucket/wal?path_style={encoded}"),
            format!("s3://bucket/wal?sse={encoded}"),
            format!("s3://bucket/wal?credentials_file={encoded}"),
            format!("s3://bucket/wal?credentials_file=/etc/{encoded}%1b[2J"),
            format!("s3://bucket/wal?endpoint=http://u:{encoded}@host"),
            format!("s3://bucket/wal?endpoint={encoded}"),
            format!("s3://bucket/wal?endpoint=http://host/%3F{encoded}"),
            format!("s3://bucket/wal?proxy=http://u:{encoded}@host"),
            format!("gs://bucket/wal?key={encoded}"),
            format!("az://account:{encoded}@container"),
            format!("az://container?account=a&sas={encoded}"),
            format!("az://container?account={encoded}%0a"),
            format!("file://u:{secret}@host/srv/wal"),
            format!("file://{secret}/srv"),
            format!("sftp://u:{secret}@host"),
            format!("/srv/wal{ODD}"),
        ] {
            refused += u32::from(must_not_repeat_in::<Location>(&text));
            must_not_repeat_in::<Address>(&text);
        }
    }
    // Some can be names of files or of buckets, as far as one can tell.
    assert!(refused > 100, "{refused}");
}

#[test]
fn no_line_of_a_credentials_file_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("credentials");
    let mut refused = 0;
    for secret in SECRETS {
        let one_key = |key: &str, value: &str| {
            format!("AWS_ACCESS_KEY_ID=A\nAWS_SECRET_ACCESS_KEY=b\n{key}={value}\n")
        };
        for text in [
            secret.to_owned(),
            format!("{secret}\n"),
            format!("{secret}=\n"),
            format!("{secret}=={ODD}\n"),
            format!("= {secret}\n"),
            format!("AWS_SECRET_ACCESS_KEY {secret}\n"),
            format!("AWS_SECRET_ACCESS_KEY: {secret}\n"),
            format!("AWS_{secret} = x\n"),
            format!("AWS_SECRET_ACCESS_KEY = {secret}\n"),
            format!("AZURE_STORAGE_ACCOUNT_KEY = {secret}x\n"),
            format!("AZURE_STORAGE_SAS_KEY = {secret}\n"),
            format!("AZURE_STORAGE_SAS_KEY = ?{secret}&sig\n"),
            one_key("AWS_REGION", secret),
            one_key("AWS_ENDPOINT_URL", &format!("http://u:{secret}@")),
            one_key(&format!("aws_{secret}"), "x"),
            format!("\"{secret}\""),
            format!("[\"{secret}\"]"),
            format!("{{\"{secret}\": 1}}"),
            format!("{{\"type\": \"{secret}\"}}"),
            format!("{{\"private_key\": [\"{secret}\"]}}"),
            key_file(&format!(
                "-----BEGIN PRIVATE KEY-----\\\\n{secret}\\\\n-----END PRIVATE KEY-----\\\\n"
            )),
            key_file(&format!(
                "-----BEGIN PRIVATE KEY-----\\n{secret}\\n-----END PRIVATE KEY-----\\n"
            )),
            key_file(&format!(
                "-----BEGIN PRIVATE KEY----- {secret} -----END PRIVATE KEY-----"
            )),
            key_file(&format!("-----BEGIN RSA PRIVATE KEY-----\\n{secret}")),
            key_file(&format!(
                "-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n"
            )),
            key_file(secret),
            key_file(""),
            format!("{secret}\u{0}{ODD}"),
        ] {
            fs::write(&path, &text).unwrap();
            for place in [
                "s3://bucket/wal?region=eu",
                "gs://bucket/wal?",
                "az://container/wal?account=a",
            ] {
                refused += u32::from(!opens(place, &path, &text));
            }
        }
    }
    assert!(refused > 200, "{refused}");
}

/// The key file of a service account with this in the place of its key.
fn key_file(key: &str) -> String {
    format!(
        "{{\"type\": \"service_account\", \"private_key_id\": \"1\", \"client_email\": \"a@b\", \"private_key\": \"{key}\"}}"
    )
}

fn opens(place: &str, credentials: &Path, text: &str) -> bool {
    let url = format!("{place}&credentials_file={}", credentials.display()).replace("?&", "?");
    let address: Address = url.parse().unwrap();
    match CloudStore::open(&address, spawn_plainly) {
        Ok(store) => {
            must_not_repeat(&format!("{store:?}"), text);
            true
        }
        Err(error) => {
            must_not_repeat(&everything_said(&error), text);
            false
        }
    }
}

#[test]
fn no_line_of_an_identity_file_and_no_wrong_recipient_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity");
    for secret in SECRETS {
        for text in [
            secret.to_owned(),
            format!("AGE-SECRET-KEY-{secret}"),
            format!("AGE-SECRET-KEY-{}", secret.to_lowercase()),
            format!("AGE-SECRET-KEY-\n{secret}\n"),
            format!("ECRET-KEY-{secret}"),
            format!("# {secret}{ODD}\n"),
            format!("{ODD}{secret}"),
            format!("\"{secret}\""),
        ] {
            fs::write(&path, &text).unwrap();
            let file: IdentityFile = path.to_str().unwrap().parse().unwrap();
            let error = file.recipients().unwrap_err();
            must_not_repeat(&everything_said(&error), &text);
            must_not_repeat(&format!("{file:?}"), &text);
            assert!(must_not_repeat_in::<Recipients>(&text) || text.starts_with('#'));
            must_not_repeat_in::<IdentityFile>(&text);
        }
    }
    let odd = format!("age1{ODD}");
    assert!(must_not_repeat_in::<Recipients>(&odd));
}
