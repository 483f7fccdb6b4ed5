//! The fake's requests and answers.
//!
//! Guarantees that a request that is not known is refused (400), so that a client that asks for more than the fake can
//! do is noticed. Leaves what is stored to `objects.rs`.

use std::collections::HashMap;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH};
use hyper::header::{IF_NONE_MATCH, LAST_MODIFIED, RANGE};
use hyper::http::request::Parts;
use hyper::http::response::Builder;
use hyper::{HeaderMap, Method, Response, StatusCode};

use super::objects::{Object, Objects, Refused};
use super::text::{Date, decoded, escaped};
use crate::stores::inspector::{elements, text};
use crate::stores::serve::{Body, full};

/// The most names in one page of a list.
const PAGE_KEYS_MAX: usize = 1000;

/// A request, read to its end.
pub(super) struct Asked {
    method: Method,
    bucket: String,
    key: String,
    query: HashMap<String, String>,
    headers: HeaderMap,
    body: Bytes,
}

impl Asked {
    /// Reads it; none when the client breaks off.
    pub(super) async fn read(head: Parts, body: Incoming) -> Option<Asked> {
        let path = head.uri.path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let query = head.uri.query().unwrap_or_default().split('&');
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name, true), decoded(value, true))
        };
        Some(Asked {
            bucket: decoded(bucket, false),
            key: decoded(key, false),
            query: query.filter(|pair| !pair.is_empty()).map(pair).collect(),
            method: head.method,
            headers: head.headers,
            body: body.collect().await.ok()?.to_bytes(),
        })
    }

    /// Carries the request out and answers it.
    pub(super) fn answer(self, bucket: &str, objects: &mut Objects) -> Response<Body> {
        if self.bucket != bucket {
            return error(StatusCode::NOT_FOUND, "NoSuchBucket");
        }
        let done = match (&self.method, self.upload()) {
            _ if self.key.is_empty() => self.about_bucket(objects),
            (&Method::GET | &Method::HEAD, None) => self.get(objects),
            (&Method::PUT, None) => self.put(objects),
            (&Method::DELETE, None) => objects
                .delete(&self.key, self.required())
                .map(|()| empty(StatusCode::NO_CONTENT)),
            (&Method::POST, None) if self.query.contains_key("uploads") => Ok(self.begin(objects)),
            (&Method::PUT, Some(id)) => self.part(objects, id),
            (&Method::POST, Some(id)) => self.complete(objects, id),
            (&Method::DELETE, Some(id)) => objects
                .abort(id, &self.key)
                .map(|()| empty(StatusCode::NO_CONTENT)),
            _ => Ok(error(StatusCode::BAD_REQUEST, "NotKnownToTheFake")),
        };
        done.unwrap_or_else(refusal)
    }

    fn upload(&self) -> Option<&str> {
        self.query.get("uploadId").map(String::as_str)
    }

    fn header(&self, name: impl hyper::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The generation that the object must have; one that cannot be read matches none.
    fn required(&self) -> Option<u64> {
        let required = self.header("x-goog-if-generation-match")?;
        Some(required.parse().unwrap_or(u64::MAX))
    }

    fn about_bucket(&self, objects: &Objects) -> Result<Response<Body>, Refused> {
        Ok(match self.method {
            Method::GET if self.query.contains_key("uploads") => self.uploads(objects),
            Method::GET if self.asks("list-type") == "2" => self.list(objects),
            Method::GET | Method::HEAD if self.query.is_empty() => empty(StatusCode::OK),
            _ => error(StatusCode::BAD_REQUEST, "NotKnownToTheFake"),
        })
    }

    fn asks(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// The token of a next page is the last name of this one.
    fn list(&self, objects: &Objects) -> Response<Body> {
        let (prefix, delimiter) = (self.asks("prefix"), self.asks("delimiter"));
        let after = self
            .asks("start-after")
            .max(self.asks("continuation-token"));
        let max = self.asks("max-keys").parse().unwrap_or(PAGE_KEYS_MAX);
        let max = max.min(PAGE_KEYS_MAX);
        let (mut page, mut count, mut last) = (String::new(), 0, String::new());
        let (mut folder, mut is_truncated) = (None, false);
        for (key, object) in objects.list(prefix, after) {
            let rest = key.strip_prefix(prefix).unwrap_or(key);
            let end = rest.find(delimiter).filter(|_| !delimiter.is_empty());
            let name = match end {
                Some(end) => key.get(..prefix.len() + end + delimiter.len()),
                None => Some(key),
            };
            // Of what is behind a delimiter only the beginning is told, once, also when a page ended within it.
            let is_known = end.is_some()
                && (folder == name || name.is_some_and(|name| after.starts_with(name)));
            if is_known {
                last = key.to_owned();
                continue;
            }
            if count == max {
                is_truncated = true;
                break;
            }
            count += 1;
            last = key.to_owned();
            if end.is_some() {
                folder = name;
                let name = escaped(name.unwrap_or(key));
                page += &format!("<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>");
            } else {
                page += &format!(
                    "<Contents><Key>{}</Key><Generation>{}</Generation><LastModified>{}</LastModified>\
                     <ETag>{}</ETag><Size>{}</Size></Contents>",
                    escaped(key),
                    object.generation,
                    Date::of(object.modified).iso(),
                    escaped(&object.etag()),
                    object.data.len()
                );
            }
        }
        let next = if is_truncated {
            let token = escaped(&last);
            format!("<NextContinuationToken>{token}</NextContinuationToken>")
        } else {
            String::new()
        };
        xml(format!(
            "<ListBucketResult><Name>{}</Name><Prefix>{}</Prefix><KeyCount>{count}</KeyCount>\
             <IsTruncated>{is_truncated}</IsTruncated>{next}{page}</ListBucketResult>",
            escaped(&self.bucket),
            escaped(prefix)
        ))
    }

    /// The next page begins behind the last upload of this one.
    fn uploads(&self, objects: &Objects) -> Response<Body> {
        let after = (self.asks("key-marker"), self.asks("upload-id-marker"));
        let max = self.asks("max-uploads").parse().unwrap_or(PAGE_KEYS_MAX);
        let mut found = objects.uploads();
        found.retain(|(key, id, _)| key.starts_with(self.asks("prefix")) && (*key, *id) > after);
        let is_truncated = found.len() > max.min(PAGE_KEYS_MAX);
        found.truncate(max.min(PAGE_KEYS_MAX));
        let mut page = String::new();
        if let Some((key, id, _)) = found.last().filter(|_| is_truncated) {
            let key = escaped(key);
            page += &format!(
                "<NextKeyMarker>{key}</NextKeyMarker><NextUploadIdMarker>{id}</NextUploadIdMarker>"
            );
        }
        for (key, id, begun) in found {
            let (key, begun) = (escaped(key), Date::of(begun).iso());
            page += &format!(
                "<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{begun}</Initiated></Upload>"
            );
        }
        xml(format!(
            "<ListMultipartUploadsResult><IsTruncated>{is_truncated}</IsTruncated>{page}</ListMultipartUploadsResult>"
        ))
    }

    fn get(&self, objects: &Objects) -> Result<Response<Body>, Refused> {
        let object = objects.get(&self.key)?;
        let generation = object.generation.to_string();
        if self
            .query
            .get("generation")
            .is_some_and(|asked| *asked != generation)
        {
            return Err(Refused::NoSuchKey);
        }
        let is_meant = |tags: &str| tags == "*" || tags.split(", ").any(|tag| tag == object.etag());
        if self.header(IF_MATCH).is_some_and(|tags| !is_meant(tags)) {
            return Err(Refused::Precondition);
        }
        if self.header(IF_NONE_MATCH).is_some_and(is_meant) {
            return Ok(empty(StatusCode::NOT_MODIFIED));
        }
        let (status, from, to) = match self.header(RANGE) {
            None => (StatusCode::OK, 0, object.data.len()),
            Some(range) => match within(range, object.data.len()) {
                Some((from, to)) => (StatusCode::PARTIAL_CONTENT, from, to),
                None => return Ok(error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange")),
            },
        };
        let mut answer = describing(object).status(status);
        answer = answer
            .header(LAST_MODIFIED, Date::of(object.modified).http())
            .header(ACCEPT_RANGES, "bytes")
            .header(CONTENT_LENGTH, to - from);
        if status == StatusCode::PARTIAL_CONTENT {
            let range = format!(
                "bytes {from}-{}/{}",
                to.saturating_sub(1),
                object.data.len()
            );
            answer = answer.header(CONTENT_RANGE, range);
        }
        let is_wanted = self.method == Method::GET;
        let data = is_wanted.then(|| object.data.slice(from..to));
        Ok(finish(answer, data.unwrap_or_default()))
    }

    fn put(&self, objects: &mut Objects) -> Result<Response<Body>, Refused> {
        let data = match self.header("x-goog-copy-source") {
            None => self.body.clone(),
            Some(source) => {
                let source = decoded(source.trim_start_matches('/'), false);
                let (_, key) = source.split_once('/').ok_or(Refused::NoSuchKey)?;
                objects.get(key)?.data.clone()
            }
        };
        let metadata = self.headers.iter().filter_map(|(name, value)| {
            let is_kept = name.as_str().starts_with("x-goog-meta-");
            is_kept.then(|| Some((name.to_string(), value.to_str().ok()?.to_owned())))?
        });
        let object = objects.put(&self.key, data, metadata.collect(), self.required())?;
        let body = match self.header("x-goog-copy-source") {
            None => String::new(),
            Some(_) => format!(
                "<CopyObjectResult><ETag>{}</ETag><LastModified>{}</LastModified></CopyObjectResult>",
                escaped(&object.etag()),
                Date::of(object.modified).iso()
            ),
        };
        Ok(finish(describing(&object), body))
    }

    fn begin(&self, objects: &mut Objects) -> Response<Body> {
        let id = objects.begin(&self.key);
        xml(format!(
            "<InitiateMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key>\
             <UploadId>{id}</UploadId></InitiateMultipartUploadResult>",
            escaped(&self.bucket),
            escaped(&self.key)
        ))
    }

    fn part(&self, objects: &mut Objects, id: &str) -> Result<Response<Body>, Refused> {
        let number = self.asks("partNumber").parse();
        let number = number.map_err(|_| Refused::InvalidPart)?;
        let etag = objects.part(id, &self.key, number, self.body.clone())?;
        Ok(finish(Response::builder().header(ETAG, etag), ""))
    }

    fn complete(&self, objects: &mut Objects, id: &str) -> Result<Response<Body>, Refused> {
        let asked = String::from_utf8_lossy(&self.body);
        let mut parts = Vec::new();
        for part in elements(&asked, "Part") {
            let number = text(part, "PartNumber").and_then(|number| number.parse().ok());
            let etag = text(part, "ETag");
            parts.push(number.zip(etag).ok_or(Refused::InvalidPart)?);
        }
        if parts.is_empty() {
            return Err(Refused::InvalidPart);
        }
        let object = objects.complete(id, &self.key, &parts, self.required())?;
        let body = format!(
            "<CompleteMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key><ETag>{}</ETag>\
             </CompleteMultipartUploadResult>",
            escaped(&self.bucket),
            escaped(&self.key),
            escaped(&object.etag())
        );
        Ok(finish(describing(&object), body))
    }
}

fn refusal(refused: Refused) -> Response<Body> {
    let (status, code) = match refused {
        Refused::Precondition => (StatusCode::PRECONDITION_FAILED, "PreconditionFailed"),
        Refused::NoSuchKey => (StatusCode::NOT_FOUND, "NoSuchKey"),
        Refused::NoSuchUpload => (StatusCode::NOT_FOUND, "NoSuchUpload"),
        Refused::InvalidPart => (StatusCode::BAD_REQUEST, "InvalidPart"),
        Refused::EntityTooSmall => (StatusCode::BAD_REQUEST, "EntityTooSmall"),
    };
    error(status, code)
}

fn error(status: StatusCode, code: &str) -> Response<Body> {
    let mut answer = xml(format!("<Error><Code>{code}</Code></Error>"));
    *answer.status_mut() = status;
    answer
}

fn empty(status: StatusCode) -> Response<Body> {
    finish(Response::builder().status(status), "")
}

fn xml(body: String) -> Response<Body> {
    let answer = Response::builder().header(CONTENT_TYPE, "application/xml; charset=UTF-8");
    finish(answer, body)
}

fn describing(object: &Object) -> Builder {
    let kept = object.metadata.iter();
    kept.fold(Response::builder(), |answer, (name, value)| {
        answer.header(name, value)
    })
    .header(ETAG, object.etag())
    .header("x-goog-generation", object.generation)
    .header("x-goog-metageneration", 1)
    .header("x-goog-stored-content-length", object.data.len())
}

/// The headers are the fake's own; if they were wrong all the same, the client hears of it.
fn finish(answer: Builder, body: impl Into<Bytes>) -> Response<Body> {
    answer.body(full(body)).unwrap_or_else(|error| {
        let mut answer = Response::new(full(error.to_string()));
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        answer
    })
}

/// The bytes that a `Range` header asks for, from and to before; none when there are none of them.
fn within(range: &str, length: usize) -> Option<(usize, usize)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (from, to) = match (from, to) {
        ("", last) => (length.saturating_sub(last.parse().ok()?), length),
        (from, "") => (from.parse().ok()?, length),
        (from, to) => (
            from.parse().ok()?,
            to.parse::<usize>().ok()?.checked_add(1)?,
        ),
    };
    let to = to.min(length);
    (from < to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_what_is_there() {
        assert_eq!(within("bytes=0-9", 100), Some((0, 10)));
        assert_eq!(within("bytes=90-200", 100), Some((90, 100)));
        assert_eq!(within("bytes=95-", 100), Some((95, 100)));
        assert_eq!(within("bytes=-10", 100), Some((90, 100)));
        assert_eq!(within("bytes=100-", 100), None);
        assert_eq!(within("lines=1-2", 100), None);
    }
}
