//! Metrics over HTTP: `GET /metrics`, and nothing else.
//!
//! Guarantees: few connections at a time, each for a short while and with a bounded request; one scrape after the other. Ends
//! with SIGTERM or SIGINT, as a process without handlers does.

use super::Collector;
use super::text::Format;
use crate::exit::Outcome;
use crate::say;
use archive::Error;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How many connections there may be at a time; more wait.
const CONNECTIONS_MAX: usize = 16;

/// How long a connection may last. A scraper that keeps it for longer makes another one.
const CONNECTION_MAX: Duration = Duration::from_secs(120);

/// How long the head of a request may take to come, and how large it may be.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Serves until the process is ended.
pub(super) fn serve(address: SocketAddr, collector: Collector) -> Result<Outcome, Error> {
    let what = || format!("could not serve metrics at {address}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(CONNECTIONS_MAX)
        .build()
        .map_err(|cause| Error::io(what(), cause))?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|cause| Error::io(what(), cause))?;
        let here = listener.local_addr().unwrap_or(address);
        say::note(&format!("serving http://{here}/metrics"));
        let collector = Arc::new(Mutex::new(collector));
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return Ok(Outcome::Done);
            };
            // A connection that was given up before it was taken, or no descriptor left: the next one may do.
            let Ok((stream, _)) = listener.accept().await else {
                tokio::task::yield_now().await;
                continue;
            };
            let collector = Arc::clone(&collector);
            tokio::spawn(async move {
                drop(timeout(CONNECTION_MAX, connection(stream, collector)).await);
                drop(place);
            });
        }
    })
}

async fn connection(stream: TcpStream, collector: Arc<Mutex<Collector>>) {
    let service = service_fn(|request| answer(request, Arc::clone(&collector)));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // The other side has gone, or does not speak HTTP; nobody is left to tell.
    drop(served);
}

async fn answer(
    request: Request<Incoming>,
    collector: Arc<Mutex<Collector>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    if request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
        *response.body_mut() = Full::from("metrics are at /metrics\n");
        return Ok(response);
    }
    if request.method() != Method::GET {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        let headers = response.headers_mut();
        headers.insert(ALLOW, hyper::header::HeaderValue::from_static("GET"));
        return Ok(response);
    }
    let accept = request.headers().get(ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    let collected = spawn_blocking(move || {
        let mut collector = collector.lock().unwrap_or_else(PoisonError::into_inner);
        collector.page(format)
    });
    match collected.await {
        Ok(text) => {
            let kind = hyper::header::HeaderValue::from_static(format.content_type());
            response.headers_mut().insert(CONTENT_TYPE, kind);
            *response.body_mut() = Full::from(text);
        }
        Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
    }
    Ok(response)
}
