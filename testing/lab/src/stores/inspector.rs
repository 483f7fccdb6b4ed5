//! The lab's own client of a store: what is in it, in the store's own protocol.
//!
//! Guarantees that what is told comes from the store itself, not from files behind its back, and over a connection
//! that no proxy sees. Requests are signed by the `object_store` crate, whose other parts are not used here.
//! Leaves what to expect to tests.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpRequest, HttpRequestBody};

use crate::stores::http;
use crate::stores::make::{AZURITE_ACCOUNT, AZURITE_KEY, Make};

/// The region that requests are signed for; the stores take any.
pub const REGION: &str = "us-east-1";

/// What is put and taken away again to see whether a store works.
const PROBE: &str = ".lab-probe";

/// A signed view of one bucket or container.
pub(super) struct Inspector {
    pub(super) make: Make,
    pub(super) port: u16,
    pub(super) bucket: String,
}

impl Inspector {
    /// Creates the bucket or container unless it is there; then puts an object, reads it and removes it.
    pub(super) fn prepare(&self) -> Result<()> {
        let created = self.ask(Method::PUT, "", "restype=container", b"")?;
        let there = [StatusCode::CREATED, StatusCode::OK, StatusCode::CONFLICT];
        ensure!(there.contains(&created.status()), "{}", described(&created));
        let contents = b"Does it take objects, and give them back?";
        let put = self.ask(Method::PUT, PROBE, "", contents)?;
        ensure!(put.status().is_success(), "{}", described(&put));
        let got = self.ask(Method::GET, PROBE, "", b"")?;
        ensure!(got.body().as_ref() == contents, "{}", described(&got));
        let removed = self.ask(Method::DELETE, PROBE, "", b"")?;
        ensure!(removed.status().is_success(), "{}", described(&removed));
        Ok(())
    }

    /// Removes the bucket with all that is in it.
    pub(super) fn remove_all(&self) -> Result<()> {
        let removed = self.ask(Method::DELETE, "", "", b"")?;
        ensure!(removed.status().is_success(), "{}", described(&removed));
        Ok(())
    }

    /// How many requests about the bucket SeaweedFS has counted, by what it tells on its port for metrics.
    pub(super) fn requests(&self, port: u16) -> Result<u64> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = Uri::from_static("/metrics");
        request
            .headers_mut()
            .insert(HOST, format!("127.0.0.1:{port}").parse()?);
        let answer = http::ask(port, request)?;
        ensure!(answer.status().is_success(), "{}", described(&answer));
        counted(&String::from_utf8_lossy(answer.body()), &self.bucket)
    }

    /// Names and sizes of all objects, sorted.
    pub(super) fn objects(&self) -> Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        for page in self.pages("")? {
            let (element, key, size) = match self.make {
                Make::Azurite => ("Blob", "Name", "Content-Length"),
                _ => ("Contents", "Key", "Size"),
            };
            for object in elements(&page, element) {
                let key = text(object, key).context("an object without a name")?;
                let size = text(object, size).context("an object without a size")?;
                found.push((key, size.parse().context("a size that is no number")?));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Names of objects with unfinished uploads in parts, sorted.
    pub(super) fn unfinished_uploads(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        if self.make == Make::Azurite {
            // A blob that has only parts is listed beside the finished ones.
            let finished = self.objects()?;
            for page in self.pages("&include=uncommittedblobs")? {
                for name in elements(&page, "Blob").filter_map(|blob| text(blob, "Name")) {
                    if !finished.iter().any(|(known, _)| *known == name) {
                        found.push(name);
                    }
                }
            }
        } else {
            let answer = self.ask(Method::GET, "", "uploads=", b"")?;
            ensure!(answer.status().is_success(), "{}", described(&answer));
            let page = String::from_utf8_lossy(answer.body()).into_owned();
            ensure!(
                text(&page, "IsTruncated").as_deref() != Some("true"),
                "more unfinished uploads than fit into one answer"
            );
            found.extend(elements(&page, "Upload").filter_map(|upload| text(upload, "Key")));
        }
        found.sort();
        Ok(found)
    }

    /// The pages of a listing.
    fn pages(&self, more: &str) -> Result<Vec<String>> {
        let (list, next, resume) = match self.make {
            Make::Azurite => ("restype=container&comp=list", "NextMarker", "marker"),
            _ => ("list-type=2", "NextContinuationToken", "continuation-token"),
        };
        let mut pages = Vec::new();
        let mut after = String::new();
        loop {
            let answer = self.ask(Method::GET, "", &format!("{list}{more}{after}"), b"")?;
            ensure!(answer.status().is_success(), "{}", described(&answer));
            let page = String::from_utf8_lossy(answer.body()).into_owned();
            let token = text(&page, next).filter(|token| !token.is_empty());
            pages.push(page);
            match token {
                Some(token) => after = format!("&{resume}={}", encoded(&token)),
                None => return Ok(pages),
            }
        }
    }

    /// Asks about the bucket, or about one of its objects.
    fn ask(
        &self,
        method: Method,
        key: &str,
        query: &str,
        body: &'static [u8],
    ) -> Result<Response<Bytes>> {
        // S3 knows no kinds of things to create.
        let query = match self.make {
            Make::Azurite => query,
            _ => query.trim_start_matches("restype=container"),
        };
        let account = match self.make {
            Make::Azurite => format!("/{AZURITE_ACCOUNT}"),
            _ => String::new(),
        };
        let slash = if key.is_empty() { "" } else { "/" };
        let mark = if query.is_empty() { "" } else { "?" };
        let place = format!("127.0.0.1:{}", self.port);
        let path = format!("{account}/{}{slash}{key}{mark}{query}", self.bucket);
        let mut request = HttpRequest::new(HttpRequestBody::from(Bytes::from_static(body)));
        *request.method_mut() = method.clone();
        *request.uri_mut() = format!("http://{place}{path}").parse()?;
        if method == Method::PUT {
            let length = HeaderValue::from(body.len());
            request.headers_mut().insert(CONTENT_LENGTH, length);
        }
        self.sign(&mut request)?;
        *request.uri_mut() = path.parse::<Uri>()?;
        request.headers_mut().insert(HOST, place.parse()?);
        http::ask(self.port, request)
    }

    fn sign(&self, request: &mut HttpRequest) -> Result<()> {
        match self.make {
            Make::GcsFake => bail!("the fake is looked at from inside"),
            Make::Azurite => {
                let kind = HeaderName::from_static("x-ms-blob-type");
                let block = HeaderValue::from_static("BlockBlob");
                request.headers_mut().insert(kind, block);
                let key = AzureCredential::AccessKey(AzureAccessKey::try_new(AZURITE_KEY)?);
                AzureAuthorizer::new(&key, AZURITE_ACCOUNT).try_authorize(request)?;
            }
            _ => {
                let (access, secret) = self.make.s3_keys();
                let credential = AwsCredential {
                    key_id: access.to_owned(),
                    secret_key: secret.to_owned(),
                    token: None,
                };
                AwsAuthorizer::new(&credential, "s3", REGION).try_authorize(request, None)?;
            }
        }
        Ok(())
    }
}

/// The sum of the counters of this bucket's requests, one for each kind of request and answer.
fn counted(metrics: &str, bucket: &str) -> Result<u64> {
    let label = format!("bucket=\"{bucket}\"");
    let mut sum = 0;
    for line in metrics.lines() {
        if line.starts_with("SeaweedFS_s3_request_total{") && line.contains(&label) {
            let count = line.rsplit(' ').next().unwrap_or_default();
            sum += count
                .parse::<u64>()
                .with_context(|| format!("{line:?} ends in no count"))?;
        }
    }
    Ok(sum)
}

fn described(answer: &Response<Bytes>) -> String {
    let body = String::from_utf8_lossy(answer.body());
    format!("it answered {}: {body}", answer.status())
}

/// What stands between the tags of each element of this name, in order.
pub(super) fn elements<'t>(page: &'t str, name: &str) -> impl Iterator<Item = &'t str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    page.split(&open)
        .skip(1)
        .filter_map(|rest| rest.split(&close).next())
        .collect::<Vec<_>>()
        .into_iter()
}

/// The text of the first element of this name.
pub(super) fn text(page: &str, name: &str) -> Option<String> {
    let found = elements(page, name).next()?;
    let plain = found
        .replace("&quot;", "\"")
        .replace("&#34;", "\"")
        .replace("&lt;", "<")
        .replace("&gt;", ">");
    Some(plain.replace("&amp;", "&"))
}

/// A value for a query.
fn encoded(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
