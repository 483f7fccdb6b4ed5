//! The address of an archive in an object store: `s3:`, `gs:` and `az:` URLs, parsed at the edge.
//!
//! Guarantees: an [`Address`] names a bucket and knows every option it carries; an option that is not known, given
//! twice or not of its kind is refused by name. No address holds a secret: user names, passwords and keys in a URL are
//! refused, because `SHOW walden.archive` prints it. Whether the bucket exists is the store's question.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

use crate::base::printable::is_plain_text;
use crate::error::Error;

/// The kinds of object stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Amazon S3 and what speaks its language.
    S3,
    /// Google Cloud Storage, by its XML interface.
    Gcs,
    /// Azure Blob Storage, with block blobs.
    Azure,
}

/// A bucket (a container, on Azure), a prefix in it, and how to get there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Kind of store.
    pub service: Service,
    /// Name of the bucket, or of the container on Azure.
    pub bucket: String,
    /// What all keys begin with, without slashes at its ends; empty for none.
    pub prefix: String,
    /// The options of the URL.
    pub options: AddressOptions,
}

/// What the query of the URL says; what is not given is the service's own default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct AddressOptions {
    /// Where the service is, `http:` or `https:`. Not for the service itself, but for others that speak its language.
    pub endpoint: Option<String>,
    /// Region of the bucket, on S3 only.
    pub region: Option<String>,
    /// The bucket stands in the path and not in the host name (S3).
    pub path_style: Option<bool>,
    /// Storage account, on Azure only.
    pub account: Option<String>,
    /// A file with the credentials.
    pub credentials_file: Option<PathBuf>,
    /// A file with the certificates of the authorities to trust, PEM, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A proxy to go through.
    pub proxy: Option<String>,
    /// The class that objects are stored in (S3, GCS).
    pub storage_class: Option<String>,
    /// The store's own encryption: `AES256` or `aws:kms` (S3).
    pub sse: Option<String>,
    /// Which of its keys it encrypts with, for `aws:kms` (S3).
    pub sse_kms_key_id: Option<String>,
    /// Use the store although it cannot create an object only if it is absent.
    pub unsafe_overwrite: Option<bool>,
}

/// The longest name of a bucket: Google's, with dots.
const BUCKET_BYTES_MAX: usize = 222;

/// The longest name of an option that is repeated when it is not known.
const OPTION_BYTES_MAX: usize = 24;

impl Service {
    pub(crate) fn of_scheme(scheme: &str) -> Option<Service> {
        Some(match scheme {
            "s3" => Service::S3,
            "gs" => Service::Gcs,
            "az" => Service::Azure,
            _ => return None,
        })
    }

    /// Scheme of the URL: `s3`, `gs` or `az`.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Service::S3 => "s3",
            Service::Gcs => "gs",
            Service::Azure => "az",
        }
    }

    /// The names of the options there are, in the order in which an address shows them.
    fn options(self) -> &'static [&'static str] {
        match self {
            Service::S3 => &[
                "endpoint",
                "region",
                "path_style",
                "credentials_file",
                "ca_file",
                "proxy",
                "storage_class",
                "sse",
                "sse_kms_key_id",
                "unsafe_overwrite",
            ],
            Service::Gcs => &[
                "endpoint",
                "credentials_file",
                "ca_file",
                "proxy",
                "storage_class",
                "unsafe_overwrite",
            ],
            Service::Azure => &[
                "account",
                "endpoint",
                "credentials_file",
                "ca_file",
                "proxy",
                "unsafe_overwrite",
            ],
        }
    }
}

impl AddressOptions {
    /// Takes one option of a URL.
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        if !is_plain_text(value) {
            return Err("has characters that cannot be shown".to_owned());
        }
        match name {
            "endpoint" => once(&mut self.endpoint, endpoint(value)?),
            "proxy" => once(&mut self.proxy, endpoint(value)?),
            "region" => once(&mut self.region, word(value)?),
            "account" => once(&mut self.account, word(value)?),
            "storage_class" => once(&mut self.storage_class, word(value)?),
            "sse_kms_key_id" => once(&mut self.sse_kms_key_id, word(value)?),
            "sse" if ["AES256", "aws:kms"].contains(&value) => {
                once(&mut self.sse, value.to_owned())
            }
            "sse" => Err("is \"AES256\" or \"aws:kms\"".to_owned()),
            "path_style" => once(&mut self.path_style, truth(value)?),
            "unsafe_overwrite" => once(&mut self.unsafe_overwrite, truth(value)?),
            "credentials_file" => once(&mut self.credentials_file, file(value)?),
            "ca_file" => once(&mut self.ca_file, file(value)?),
            _ => Err("is not known".to_owned()),
        }
    }

    /// The option as it stands in a URL.
    fn shown(&self, name: &str) -> Option<String> {
        let text = |value: &Option<String>| value.clone();
        let path = |value: &Option<PathBuf>| value.as_ref().map(|path| path.display().to_string());
        match name {
            "endpoint" => text(&self.endpoint),
            "proxy" => text(&self.proxy),
            "region" => text(&self.region),
            "account" => text(&self.account),
            "storage_class" => text(&self.storage_class),
            "sse" => text(&self.sse),
            "sse_kms_key_id" => text(&self.sse_kms_key_id),
            "path_style" => self.path_style.map(|it| it.to_string()),
            "unsafe_overwrite" => self.unsafe_overwrite.map(|it| it.to_string()),
            "credentials_file" => path(&self.credentials_file),
            "ca_file" => path(&self.ca_file),
            _ => None,
        }
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err("is given twice".to_owned()),
    }
}

fn truth(value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("is \"true\" or \"false\"".to_owned()),
    }
}

/// A name without blanks, quotes and the like; such values become headers.
fn word(value: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
    if !value.is_empty() && value.chars().all(allowed) {
        return Ok(value.to_owned());
    }
    Err("is empty or has invalid characters".to_owned())
}

fn file(value: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(value);
    if path.is_absolute() {
        return Ok(path);
    }
    Err("is not an absolute path".to_owned())
}

/// `http://host:port` or `https://host:port`, perhaps with a path.
fn endpoint(value: &str) -> Result<String, String> {
    let url = Url::parse(value).map_err(|error| format!("is not a URL: {error}"))?;
    if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
        return Err("is not an \"http:\" or \"https:\" URL".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or a password, which all users could read".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or a fragment".to_owned());
    }
    Ok(value.trim_end_matches('/').to_owned())
}

impl Address {
    /// What to call it in messages: without the options.
    #[must_use]
    pub fn place(&self) -> String {
        let mut place = format!("{}://{}", self.service.scheme(), self.bucket);
        if !self.prefix.is_empty() {
            place.push('/');
            place.push_str(&self.prefix);
        }
        place
    }
}

impl FromStr for Address {
    type Err = Error;

    /// Accepts `s3://BUCKET[/PREFIX][?OPTION=VALUE&…]`, likewise `gs:` and `az:`.
    fn from_str(text: &str) -> Result<Address, Error> {
        // What a URL that cannot be parsed holds is not known, so it is not repeated.
        let url = Url::parse(text)
            .map_err(|error| Error::unusable(format!("archive location is not a URL: {error}")))?;
        let service = Service::of_scheme(url.scheme())
            .ok_or_else(|| Error::unusable("archive location scheme is not supported"))?;
        let scheme = service.scheme();
        if !url.username().is_empty() || url.password().is_some() || url.port().is_some() {
            return Err(Error::unusable(format!(
                "archive location \"{scheme}:\" holds a user name, a password or a port"
            ))
            .with_hint(
                "Give credentials in the environment or by \"credentials_file\", and a host by \"endpoint\".",
            ));
        }
        let bucket = url.host_str().unwrap_or_default().to_owned();
        if bucket.is_empty() {
            return Err(
                Error::unusable(format!("archive location \"{scheme}:\" names no bucket"))
                    .with_hint(format!("Write {scheme}://BUCKET/PREFIX.")),
            );
        }
        // A name that cannot be one is not repeated: it may hold what does not belong there.
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if bucket.len() > BUCKET_BYTES_MAX || !bucket.chars().all(allowed) {
            return Err(Error::unusable(format!(
                "invalid bucket name in archive location \"{scheme}:\""
            ))
            .with_hint("Names have letters, digits, \"-\", \"_\" and \".\"."));
        }
        if url.fragment().is_some() {
            return Err(Error::unusable(format!(
                "archive location \"{scheme}://{bucket}\" has a fragment (\"#\")"
            )));
        }
        let prefix = prefix_of(&url, scheme, &bucket)?;
        let mut options = AddressOptions::default();
        for (name, value) in url.query_pairs() {
            let known = service.options();
            let set = if known.contains(&&*name) {
                options.set(&name, &value)
            } else {
                Err("is not known".to_owned())
            };
            set.map_err(|why| {
                // The value is not repeated: it may be a secret that does not belong there.
                let is_word = name.len() <= OPTION_BYTES_MAX
                    && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                let shown = if is_word {
                    format!("option \"{name}\"")
                } else {
                    "an option".to_owned()
                };
                Error::unusable(format!(
                    "{shown} of archive location \"{scheme}://{bucket}\" {why}"
                ))
                .with_hint(format!("Options are: {}.", known.join(", ")))
            })?;
        }
        Ok(Address {
            service,
            bucket,
            prefix,
            options,
        })
    }
}

/// The path of the URL, as keys begin with it.
fn prefix_of(url: &Url, scheme: &str, bucket: &str) -> Result<String, Error> {
    let prefix = url.path().trim_matches('/');
    let is_right = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.=".contains(c);
        !part.is_empty() && part != "." && part != ".." && part.chars().all(allowed)
    };
    if prefix.is_empty() || prefix.split('/').all(is_right) {
        return Ok(prefix.to_owned());
    }
    Err(Error::unusable(format!(
        "invalid prefix in archive location \"{scheme}://{bucket}\""
    ))
    .with_hint("Use letters, digits, \"-\", \"_\", \".\" and \"=\", with single slashes between."))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())?;
        let given = self.service.options().iter();
        let given = given.filter_map(|name| Some((name, self.options.shown(name)?)));
        for (index, (name, value)) in given.enumerate() {
            let mark = if index == 0 { '?' } else { '&' };
            write!(f, "{mark}{name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_says_again_what_it_was_told() {
        for text in [
            "s3://bucket",
            "s3://bucket/a/b?endpoint=http://127.0.0.1:9000&region=us-east-1&path_style=true",
            "gs://bucket/wal?credentials_file=/etc/walden/gcs.json",
            "az://container/wal?account=name&endpoint=http://127.0.0.1:10000/name",
            "s3://bucket?sse=aws:kms&sse_kms_key_id=arn:aws:kms:eu:1:key/2&unsafe_overwrite=true",
        ] {
            assert_eq!(address(text).to_string(), text);
        }
        assert_eq!(address("s3://bucket//wal/").prefix, "wal");
        assert_eq!(
            address("s3://bucket/?region=eu").to_string(),
            "s3://bucket?region=eu"
        );
    }

    #[test]
    fn what_cannot_be_an_address_is_refused_and_says_why() {
        for (text, why) in [
            ("s3://", "names no bucket"),
            ("s3:///wal", "names no bucket"),
            ("ftp://bucket", "not supported"),
            ("s3://bucket/a//b", "invalid prefix"),
            ("s3://bucket/a%20b", "invalid prefix"),
            ("s3://bucket/#x", "fragment"),
            ("s3://bucket?regoin=eu", "\"regoin\""),
            ("gs://bucket?region=eu", "is not known"),
            ("s3://bucket?region=a&region=b", "given twice"),
            ("s3://bucket?path_style=yes", "\"true\" or \"false\""),
            ("s3://bucket?ca_file=ca.pem", "absolute"),
            ("s3://bucket?endpoint=127.0.0.1:9000", "URL"),
            ("s3://bucket?sse=none", "AES256"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn no_secret_is_taken_or_repeated() {
        for text in [
            "s3://AKIA:hushhush@bucket",
            "s3://bucket?endpoint=http://me:hushhush@host",
            "s3://bucket?secret_access_key=hushhush",
            "s3://bucket?proxy=http://me:hushhush@host:3128",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            let said = format!("{error} {:?} {:?}", error.hint(), error);
            assert!(!said.contains("hushhush"), "{said}");
        }
    }
}
