//! What comes back from a store is bounded here, before the client library sees it, which takes in whatever comes.
//!
//! Guarantees: the body of an answer that is no object is read up to a limit, and what is asked for as a listing is read as
//! one (`listing.rs`) or is an error. An object comes as it is: it is as long as its header says or an error, and nothing of
//! it is kept. No size that the other side names is reserved.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use object_store::client::{
    HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};

use super::listing::{self, Dialect, Page};

/// How much of the body of an answer that is no success is read, in bytes: its code and its message are at the beginning.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// The longest page of a listing that is read, in bytes: 5000 blobs of Azure take about five million.
const LISTING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The longest answer of any other kind, in bytes: tokens, and what S3 says about parts.
const SMALL_BYTES_MAX: usize = 1024 * 1024;

/// What a request is answered with if all goes well; goes along with it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    /// A listing. The library gets one with nothing in it, and the page is in the extensions of what it answers.
    Listing(Dialect),
    /// The body of an object.
    Object,
}

impl Expected {
    /// What to give the library along with a request.
    pub(super) fn extensions(self) -> http::Extensions {
        let mut extensions = http::Extensions::new();
        extensions.insert(self);
        extensions
    }
}

/// The client that requests are made with. See the file's header.
#[derive(Debug)]
pub(super) struct Bounded {
    pub(super) client: reqwest::Client,
}

/// What the trait wants, which has its methods made by a macro.
type Answering<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Bounded {
    fn call<'s, 'a>(&'s self, request: HttpRequest) -> Answering<'a>
    where
        's: 'a,
        Self: 'a,
    {
        let expected = request.extensions().get::<Expected>().copied();
        Box::pin(async move { bounded(asked(&self.client, request).await?, expected).await })
    }
}

/// Makes a request. An error's kind is no better than reqwest's: the library tries nothing again.
async fn asked(client: &reqwest::Client, request: HttpRequest) -> Result<HttpResponse, HttpError> {
    let (parts, body) = request.into_parts();
    let url = parts.uri.to_string().parse();
    let url = url.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
    let mut request = reqwest::Request::new(parts.method, url);
    *request.headers_mut() = parts.headers;
    *request.body_mut() = Some(match body.as_bytes() {
        Some(bytes) => bytes.clone().into(),
        None => reqwest::Body::wrap(body),
    });
    let answer = client.execute(request).await.map_err(failed)?;
    let (parts, body) = http::Response::from(answer).into_parts();
    let body = HttpResponseBody::new(body.map_err(failed));
    Ok(HttpResponse::from_parts(parts, body))
}

fn failed(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_decode() {
        HttpErrorKind::Decode
    } else {
        HttpErrorKind::Unknown
    };
    // A URL may hold a signature.
    HttpError::new(kind, error.without_url())
}

async fn bounded(
    answer: HttpResponse,
    expected: Option<Expected>,
) -> Result<HttpResponse, HttpError> {
    let (mut parts, body) = answer.into_parts();
    if !parts.status.is_success() {
        let beginning = read(body, ERROR_BYTES_MAX).await?.bytes;
        // What is no text would be an error of the library's, and the status be lost.
        let text = String::from_utf8_lossy(&beginning).into_owned();
        return Ok(HttpResponse::from_parts(parts, text.into()));
    }
    let body = match expected {
        Some(Expected::Listing(dialect)) => {
            let page = page(dialect, body).await?;
            parts.extensions.insert(Arc::new(page));
            dialect.nothing().to_owned().into()
        }
        Some(Expected::Object) => body,
        None => HttpResponseBody::new(Limited {
            body,
            left: SMALL_BYTES_MAX,
        }),
    };
    Ok(HttpResponse::from_parts(parts, body))
}

async fn page(dialect: Dialect, body: HttpResponseBody) -> Result<Page, HttpError> {
    let read = read(body, LISTING_BYTES_MAX).await?;
    if !read.is_all {
        return Err(wrong(format!(
            "the store's answer is not a complete listing: it is longer than {LISTING_BYTES_MAX} bytes"
        )));
    }
    listing::parse(dialect, &read.bytes).map_err(|why| {
        wrong(format!(
            "the store's answer is not a complete listing: {why}"
        ))
    })
}

/// The beginning of a body, and whether that is all of it.
struct Beginning {
    bytes: Vec<u8>,
    is_all: bool,
}

async fn read(body: HttpResponseBody, bytes_max: usize) -> Result<Beginning, HttpError> {
    let mut pieces = body.bytes_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        let room = bytes_max - bytes.len();
        let taken = piece.get(..room).unwrap_or(&piece);
        bytes
            .try_reserve(taken.len())
            .map_err(|_| wrong("there is no memory for the store's answer"))?;
        bytes.extend_from_slice(taken);
        if taken.len() < piece.len() {
            let is_all = false;
            return Ok(Beginning { bytes, is_all });
        }
    }
    let is_all = true;
    Ok(Beginning { bytes, is_all })
}

fn wrong(text: impl Into<String>) -> HttpError {
    HttpError::new(HttpErrorKind::Decode, std::io::Error::other(text.into()))
}

/// A body that is an error from its limit on, and says nothing of its size before.
struct Limited {
    body: HttpResponseBody,
    left: usize,
}

impl fmt::Debug for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Limited").field(&self.left).finish()
    }
}

impl Body for Limited {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(piece) = frame.data_ref()
        {
            match self.left.checked_sub(piece.len()) {
                Some(left) => self.left = left,
                None => {
                    return Poll::Ready(Some(Err(wrong(format!(
                        "the store's answer is longer than {SMALL_BYTES_MAX} bytes"
                    )))));
                }
            }
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use http::StatusCode;

    /// A body that never ends, and is there at once.
    struct Endless;

    impl Body for Endless {
        type Data = Bytes;
        type Error = HttpError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 4000])))))
        }

        fn size_hint(&self) -> http_body::SizeHint {
            let mut hint = http_body::SizeHint::new();
            hint.set_lower(1 << 50);
            hint
        }
    }

    fn answered(status: u16, expected: Option<Expected>) -> Result<HttpResponse, HttpError> {
        let mut answer = HttpResponse::new(HttpResponseBody::new(Endless));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        bounded(answer, expected).now_or_never().unwrap()
    }

    #[test]
    fn an_endless_error_is_read_as_far_as_it_may_matter() {
        for expected in [
            None,
            Some(Expected::Object),
            Some(Expected::Listing(Dialect::S3)),
        ] {
            let answer = answered(503, expected).unwrap();
            let body = answer.into_body().bytes().now_or_never().unwrap().unwrap();
            assert_eq!(body.len(), ERROR_BYTES_MAX);
        }
    }

    #[test]
    fn an_endless_answer_is_an_error_unless_it_is_an_object() {
        let error = answered(200, Some(Expected::Listing(Dialect::Azure)))
            .err()
            .unwrap();
        assert!(error.to_string().contains("longer than"), "{error}");
        let answer = answered(200, None).unwrap();
        let error = answer
            .into_body()
            .bytes()
            .now_or_never()
            .unwrap()
            .err()
            .unwrap();
        assert!(error.to_string().contains("longer than"), "{error}");
        // An object is left to its reader.
        let mut pieces = answered(200, Some(Expected::Object))
            .unwrap()
            .into_body()
            .bytes_stream();
        for _ in 0..10_000 {
            assert!(pieces.next().now_or_never().unwrap().unwrap().is_ok());
        }
    }

    #[test]
    fn a_listing_reaches_its_reader_beside_the_library() {
        let text = "<ListBucketResult><IsTruncated>true</IsTruncated>\
             <NextContinuationToken>x</NextContinuationToken></ListBucketResult>";
        let answer = HttpResponse::new(text.to_owned().into());
        let expected = Some(Expected::Listing(Dialect::S3));
        let answer = bounded(answer, expected).now_or_never().unwrap().unwrap();
        let page = answer.extensions().get::<Arc<Page>>().unwrap();
        assert_eq!(page.next.as_deref(), Some("x"));
        let wrong = HttpResponse::new("<html/>".to_owned().into());
        let error = bounded(wrong, expected)
            .now_or_never()
            .unwrap()
            .err()
            .unwrap();
        assert!(
            error.to_string().contains("not a complete listing"),
            "{error}"
        );
    }
}
