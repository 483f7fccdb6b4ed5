//! Uploads in parts that will not be finished: of processes that were killed meanwhile.
//!
//! S3 and Google's store keep the parts of such an upload until it is given up; they have no name, and not a listing
//! of objects shows them. The client library cannot list them either, so they are asked for here, with its credentials
//! and its signatures. Azure has no such list: there, parts belong to the object that they are for, and go by themselves.
//!
//! Guarantees: an answer that is not understood names no upload; what is asked, and answered, is bounded. No text of an
//! error holds the URL that was asked, which is signed.
//!
//! Leaves to `store.rs` which of them are left behind, and giving them up.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use object_store::aws::AmazonS3;
use object_store::gcp::GcpCredentialProvider;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{Error as StoreError, MultipartId, Result as StoreResult};
use serde::Deserialize;
use url::Url;

/// What a list of uploads is called.
const ROOT: &str = "ListMultipartUploadsResult";

/// How long a signature lasts: longer than any try of a request.
const SIGNED_FOR: Duration = Duration::from_secs(300);

/// How many are told at once; more than services give.
const PAGE_UPLOADS: &str = "1000";

/// The longest answer that is read, in bytes: a thousand uploads take about half a million.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How much of an answer is read that is none.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// The longest name, mark or time that is believed, in bytes.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// Where Google's store is, unless the location says otherwise.
const GOOGLE: &str = "https://storage.googleapis.com";

/// Asks for uploads that have been begun, and neither finished nor given up.
pub(super) struct Unfinished {
    client: reqwest::Client,
    service: Service,
}

enum Service {
    S3(Arc<AmazonS3>),
    Gcs {
        bucket: String,
        /// `None` if requests are made without.
        credentials: Option<GcpCredentialProvider>,
    },
}

/// An unfinished upload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Upload {
    /// The name of the object that was to come of it, prefix included.
    pub(super) name: String,
    pub(super) id: MultipartId,
    /// By the store's clock; `None` if it does not tell.
    pub(super) begun: Option<SystemTime>,
}

/// Some of them, and where the next page begins if there are more.
pub(super) type Page = (Vec<Upload>, Option<Marker>);

/// Where the next page of a listing begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    name: String,
    id: String,
}

impl Unfinished {
    pub(super) fn in_s3(client: reqwest::Client, store: Arc<AmazonS3>) -> Unfinished {
        let service = Service::S3(store);
        Unfinished { client, service }
    }

    pub(super) fn in_gcs(
        client: reqwest::Client,
        endpoint: Option<&str>,
        bucket: &str,
        credentials: Option<GcpCredentialProvider>,
    ) -> Unfinished {
        let endpoint = endpoint.unwrap_or(GOOGLE).trim_end_matches('/');
        let service = Service::Gcs {
            bucket: format!("{endpoint}/{bucket}"),
            credentials,
        };
        Unfinished { client, service }
    }

    /// One page of those whose names begin so, and where the next one begins.
    pub(super) async fn page(&self, prefix: &str, after: Option<&Marker>) -> StoreResult<Page> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut query = vec![
            pair("uploads", ""),
            pair("prefix", prefix),
            pair("max-uploads", PAGE_UPLOADS),
        ];
        if let Some(after) = after {
            query.push(pair("key-marker", &after.name));
            query.push(pair("upload-id-marker", &after.id));
        }
        parsed(&self.asked(query).await?)
    }

    async fn asked(&self, query: Vec<(String, String)>) -> StoreResult<String> {
        let request = match &self.service {
            Service::S3(store) => {
                let options = SignedUrlOptions::new().with_query(query);
                let bucket = Path::default();
                let url = store
                    .signed_url_opts(Method::GET, &bucket, SIGNED_FOR, &options)
                    .await?;
                self.client.get(url)
            }
            Service::Gcs {
                bucket,
                credentials,
            } => {
                let url = Url::parse_with_params(bucket, query).map_err(failed)?;
                let request = self.client.get(url);
                match credentials {
                    Some(credentials) => {
                        request.bearer_auth(&credentials.get_credential().await?.bearer)
                    }
                    None => request,
                }
            }
        };
        let without_url = |error: reqwest::Error| failed(error.without_url());
        let mut answer = request.send().await.map_err(without_url)?;
        let status = answer.status();
        let mut text: Vec<u8> = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(without_url)? {
            if status == StatusCode::OK && text.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(failed(format!(
                    "the answer is longer than {ANSWER_BYTES_MAX} bytes"
                )));
            }
            let reserved = text.try_reserve(piece.len());
            reserved.map_err(|_| failed("there is no memory for the answer"))?;
            text.extend_from_slice(&piece);
            if status != StatusCode::OK && text.len() >= ERROR_BYTES_MAX {
                break;
            }
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        match status {
            StatusCode::OK => Ok(text),
            // As the client library puts it, for `failure.rs`.
            _ => Err(failed(format!("status code: {status}: {text}"))),
        }
    }
}

fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Generic {
        store: "uploads",
        source: source.into(),
    }
}

/// The answer of both services, as far as it matters.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: String,
    #[serde(default)]
    next_upload_id_marker: String,
    #[serde(default)]
    upload: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    key: String,
    upload_id: String,
    #[serde(default)]
    initiated: String,
}

/// The name of the outermost element, if the text begins as XML does.
fn root_of(text: &str) -> Option<&str> {
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    if let Some(declared) = rest.strip_prefix("<?xml") {
        rest = declared.split_once("?>")?.1.trim_start();
    }
    rest.strip_prefix('<')?.split([' ', '>', '\n', '/']).next()
}

fn parsed(text: &str) -> StoreResult<Page> {
    // Another root is another answer, and what stands in it is not looked at.
    if root_of(text) != Some(ROOT) {
        return Err(failed("the answer is not a list of uploads"));
    }
    let answer: Answer =
        quick_xml::de::from_str(text).map_err(|_| failed("the answer is not understood"))?;
    let is_believed = |listed: &Listed| {
        [&listed.key, &listed.upload_id]
            .iter()
            .all(|text| text.len() <= TEXT_BYTES_MAX)
    };
    let uploads = answer.upload.into_iter().filter(is_believed);
    let uploads = uploads.map(|listed| Upload {
        begun: humantime::parse_rfc3339(&listed.initiated).ok(),
        name: listed.key,
        id: listed.upload_id,
    });
    let next = Marker {
        name: answer.next_key_marker,
        id: answer.next_upload_id_marker,
    };
    let is_believed = next.name.len() <= TEXT_BYTES_MAX && next.id.len() <= TEXT_BYTES_MAX;
    let goes_on = answer.is_truncated && is_believed && !next.name.is_empty();
    Ok((uploads.collect(), goes_on.then_some(next)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(inside: &str) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <ListMultipartUploadsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n{inside}\n\
             </ListMultipartUploadsResult>"
        )
    }

    #[test]
    fn uploads_are_told_with_their_names_and_when_they_were_begun() {
        let text = page(
            "<Bucket>wal</Bucket><KeyMarker></KeyMarker><UploadIdMarker/><MaxUploads>1000</MaxUploads>\
             <IsTruncated>false</IsTruncated>\
             <Upload><Key>main/a&amp;b</Key><UploadId>one</UploadId>\
               <Initiator><ID>me</ID></Initiator><Owner><ID>me</ID></Owner>\
               <StorageClass>STANDARD</StorageClass><Initiated>2026-11-20T10:00:00.500Z</Initiated></Upload>\
             <CommonPrefixes><Prefix>main/x/</Prefix></CommonPrefixes>\
             <Upload><Key>main/c</Key><UploadId>two</UploadId></Upload>",
        );
        let (uploads, next) = parsed(&text).unwrap();
        assert_eq!(next, None);
        let told: Vec<_> = uploads
            .iter()
            .map(|upload| (upload.name.as_str(), upload.id.as_str()))
            .collect();
        assert_eq!(told, [("main/a&b", "one"), ("main/c", "two")]);
        let begun = uploads[0].begun.unwrap();
        let shown = humantime::format_rfc3339_millis(begun).to_string();
        assert_eq!(shown, "2026-11-20T10:00:00.500Z");
        assert_eq!(uploads[1].begun, None);
    }

    #[test]
    fn the_next_page_begins_where_the_store_says() {
        let text = page(
            "<IsTruncated>true</IsTruncated><NextKeyMarker>main/c</NextKeyMarker>\
             <NextUploadIdMarker>two</NextUploadIdMarker>",
        );
        let (uploads, next) = parsed(&text).unwrap();
        assert!(uploads.is_empty());
        let next = next.unwrap();
        assert_eq!((next.name.as_str(), next.id.as_str()), ("main/c", "two"));
        // Without one there is no going on, or it would begin anew forever.
        let (_, next) = parsed(&page("<IsTruncated>true</IsTruncated>")).unwrap();
        assert_eq!(next, None);
    }

    #[test]
    fn an_answer_of_another_kind_names_no_upload() {
        let other = "<ListBucketResult><Contents><Key>main/x</Key></Contents></ListBucketResult>";
        let no_names = page("<Upload><UploadId>one</UploadId></Upload>");
        for text in ["", "{}", "<html><p>Welcome", other, no_names.as_str()] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
