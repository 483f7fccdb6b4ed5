//! A reverse proxy for one store that counts requests, and makes them late, or fail, as it is told.
//!
//! Guarantees that what it does not disturb passes unchanged, streaming: method, path, query, headers and bodies; `Host`
//! is among the headers, so a client's signature stays true. Each request has a connection of its own to the store.
//! Every request is recorded, also one that never gets there. It speaks HTTP/1.1 to both sides, and listens at first.
//! Also serves clients that take it for a forward proxy, whatever host they name.

mod behaviour;
mod cut;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Response, StatusCode, Uri, Version};
use tokio::sync::watch;

use crate::stores::Store;
use crate::stores::http::connect;
use crate::stores::serve::{Body, Handler, Server, full};
use cut::Cut;

pub use behaviour::{Behaviour, Fault};

/// A request that a proxy has seen.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// Path and query, as they were sent.
    pub path: String,
    /// When the request arrived.
    pub at: Instant,
    /// The status that was sent, or that the store answered when it was not; `None` while there is no answer.
    pub status: Option<u16>,
    /// How long the answer took; `None` while there is none.
    pub took: Option<Duration>,
    /// How it was made to fail.
    pub fault: Option<Fault>,
}

/// A proxy. Dropped, its connections are reset.
pub struct Proxy {
    server: Server<Relay>,
}

impl Proxy {
    /// A proxy for a store, which passes everything.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn to(store: &Store<'_>) -> Result<Proxy> {
        Proxy::to_port(store.port())
    }

    /// A proxy for the server on this port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// As [`Proxy::to`].
    pub fn to_port(port: u16) -> Result<Proxy> {
        let relay = Relay {
            upstream: port,
            behaviour: watch::Sender::new(Arc::new(Behaviour::default())),
            record: Mutex::default(),
        };
        let server = Server::new("proxy", Arc::new(relay))?;
        server.open()?;
        Ok(Proxy { server })
    }

    /// The TCP port of 127.0.0.1 that the proxy listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Does something else from now on; requests that are stalled are treated so, too.
    ///
    /// # Errors
    ///
    /// When it cannot stop listening, or listen again.
    pub fn behave(&self, behaviour: Behaviour) -> Result<()> {
        let relay = self.server.handler();
        relay.record().faults = 0;
        let refuses = behaviour.refuses();
        if refuses {
            // First, or a request that stalls could go on to the store.
            self.server.close()?;
        }
        relay.behaviour.send_replace(Arc::new(behaviour));
        if refuses { Ok(()) } else { self.server.open() }
    }

    /// All requests since the last [`Proxy::clear`], in the order in which they came.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        let record = self.server.handler().record();
        record.requests.values().cloned().collect()
    }

    /// Forgets the requests that it has seen.
    pub fn clear(&self) {
        self.server.handler().record().requests.clear();
    }
}

/// What answers the proxy's clients.
struct Relay {
    upstream: u16,
    behaviour: watch::Sender<Arc<Behaviour>>,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    requests: std::collections::BTreeMap<u64, Request>,
    next: u64,
    counts: HashMap<(String, String), u64>,
    faults: u64,
}

impl Handler for Relay {
    async fn handle(self: Arc<Self>, request: hyper::Request<Incoming>) -> Option<Response<Body>> {
        let method = request.method().as_str().to_owned();
        let uri = request.uri();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = path.to_owned();
        let (number, count) = self.note(&method, &path);
        let fault = self.wait_for_fate(&method, &path, count, number).await;
        match fault {
            None => self.forward(request, number).await,
            Some(Fault::Status(status)) => {
                // A client that is still sending would see a reset and not this.
                let mut body = request.into_body();
                while let Some(Ok(_)) = body.frame().await {}
                self.answered(number, status);
                Some(refusal(status))
            }
            Some(Fault::ResetBefore | Fault::Stall) => None,
            Some(Fault::ResetAfter) => {
                let answer = self.forward(request, number).await?;
                // The store may do its work while it sends.
                let _ = answer.into_body().collect().await;
                None
            }
            Some(Fault::Truncated) => {
                let answer = self.forward(request, number).await?;
                let length = answer.body().size_hint().exact();
                if length == Some(0) || method == "HEAD" {
                    return None;
                }
                let half = length.unwrap_or(0) / 2;
                Some(answer.map(|body| Cut::after(body, half).boxed_unsync()))
            }
        }
    }
}

impl Relay {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request; its number, and how often its method and path have been seen.
    fn note(&self, method: &str, path: &str) -> (u64, u64) {
        let mut record = self.record();
        let count = record.counts.entry((method.to_owned(), path.to_owned()));
        let count = *count.and_modify(|count| *count += 1).or_insert(1);
        let number = record.next;
        record.next += 1;
        let request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            at: Instant::now(),
            status: None,
            took: None,
            fault: None,
        };
        record.requests.insert(number, request);
        (number, count)
    }

    fn answered(&self, number: u64, status: u16) {
        if let Some(request) = self.record().requests.get_mut(&number) {
            request.status = Some(status);
            request.took = Some(request.at.elapsed());
        }
    }

    /// Lets a request be late, and stalled; then says how it fails.
    async fn wait_for_fate(
        &self,
        method: &str,
        path: &str,
        count: u64,
        number: u64,
    ) -> Option<Fault> {
        let mut changes = self.behaviour.subscribe();
        let mut was_late = false;
        loop {
            let behaviour = Arc::clone(&changes.borrow_and_update());
            let (latency, fault) = behaviour.fate(method, path, count);
            if !was_late && !latency.is_zero() {
                was_late = true;
                tokio::time::sleep_until(tokio::time::Instant::now() + latency).await;
            }
            let fault = fault.filter(|_| self.has_faults_left(&behaviour));
            if let Some(request) = self.record().requests.get_mut(&number) {
                request.fault = fault;
            }
            if fault != Some(Fault::Stall) {
                return fault;
            }
            // Fails when the proxy is gone, and this with it.
            changes.changed().await.ok()?;
        }
    }

    fn has_faults_left(&self, behaviour: &Behaviour) -> bool {
        let mut record = self.record();
        let left = behaviour.times_max().is_none_or(|max| record.faults < max);
        record.faults += u64::from(left);
        left
    }

    /// The store's answer; none when it cannot be reached, or breaks off.
    async fn forward(
        &self,
        mut request: hyper::Request<Incoming>,
        number: u64,
    ) -> Option<Response<Body>> {
        let mut path = request.uri().clone().into_parts();
        (path.scheme, path.authority) = (None, None);
        *request.uri_mut() = Uri::from_parts(path).ok()?;
        *request.version_mut() = Version::HTTP_11;
        let mut sender = connect(self.upstream).await.ok()?;
        let answer = sender.send_request(request).await.ok()?;
        self.answered(number, answer.status().as_u16());
        Some(answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync()))
    }
}

/// An answer of the proxy's own, in the words of S3.
fn refusal(status: u16) -> Response<Body> {
    let code = match status {
        403 => "AccessDenied",
        404 => "NoSuchKey",
        429 | 503 => "SlowDown",
        _ => "InternalError",
    };
    let text = format!("<Error><Code>{code}</Code><Message>made up by a proxy</Message></Error>");
    let mut answer = Response::new(full(text));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    let xml = hyper::header::HeaderValue::from_static("application/xml");
    answer.headers_mut().insert(CONTENT_TYPE, xml);
    answer
}
