//! An HTTP/1.1 server on loopback, in a thread of its own: what the proxy and the fake of Google's store have in common.
//!
//! Guarantees that it answers only between [`Server::open`] and [`Server::close`], that its port is its own all the
//! time, and that thread and connections end when it is dropped. Leaves to its [`Handler`] what to answer.

use std::convert::Infallible;
use std::future::Future;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::set_socket_linger;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

use crate::stores::ports::Port;
use crate::wait::wait_until;

/// A body that may come from elsewhere while it is sent.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What answers requests.
pub(super) trait Handler: Send + Sync + 'static {
    /// The answer; `None` tears the connection down without one (the client sees a reset).
    fn handle(
        self: Arc<Self>,
        request: hyper::Request<Incoming>,
    ) -> impl Future<Output = Option<hyper::Response<Body>>> + Send;
}

/// A body that is there already.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    let never = |error: Infallible| match error {};
    Full::new(bytes.into()).map_err(never).boxed_unsync()
}

/// A server, closed at first.
pub(super) struct Server<H> {
    handler: Arc<H>,
    port: Port,
    runtime: Handle,
    accepting: Mutex<Option<AbortHandle>>,
    over: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl<H: Handler> Server<H> {
    /// Takes a port and starts the thread.
    pub(super) fn new(name: &str, handler: Arc<H>) -> Result<Server<H>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("could not start a runtime")?;
        let (over, end) = oneshot::channel();
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // Comes when the server is dropped.
                let _ = runtime.block_on(end);
            })
            .context("could not start a thread")?;
        Ok(Server {
            handler,
            port: Port::take()?,
            runtime: handle,
            accepting: Mutex::new(None),
            over: Some(over),
            thread: Some(thread),
        })
    }

    pub(super) fn handler(&self) -> &Arc<H> {
        &self.handler
    }

    pub(super) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Takes connections from now on.
    pub(super) fn open(&self) -> Result<()> {
        let mut accepting = self.accepting();
        if accepting.is_none() {
            let task = accept(self.port.listen()?, Arc::clone(&self.handler));
            *accepting = Some(self.runtime.spawn(task).abort_handle());
        }
        Ok(())
    }

    /// Refuses connections from now on, and resets those there are.
    pub(super) fn close(&self) -> Result<()> {
        match self.accepting().take() {
            None => Ok(()),
            Some(task) => {
                task.abort();
                wait_until("a closed port", || Ok(task.is_finished()))
            }
        }
    }

    fn accepting(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H> Drop for Server<H> {
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Takes connections until it is aborted, which ends them too.
async fn accept<H: Handler>(listener: TcpListener, handler: Arc<H>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(converse(stream, Arc::clone(&handler)));
            }
            // A client that is gone already, or too many open files: none of the listener's making.
            Err(_) => tokio::task::yield_now().await,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Tears a connection down when it is dropped before it ended in order.
struct Reset(Option<OwnedFd>);

impl Drop for Reset {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            // Closing it now sends RST and not FIN.
            let _ = set_socket_linger(socket, Some(Duration::ZERO));
        }
    }
}

async fn converse<H: Handler>(stream: tokio::net::TcpStream, handler: Arc<H>) {
    let Ok(socket) = stream.as_fd().try_clone_to_owned() else {
        return;
    };
    let mut reset = Reset(Some(socket));
    let torn = Arc::new(AtomicBool::new(false));
    let _ = stream.set_nodelay(true);
    let tears = Arc::clone(&torn);
    let service = service_fn(move |request| {
        let (answer, tears) = (Arc::clone(&handler).handle(request), Arc::clone(&tears));
        async move {
            let answer = answer.await;
            tears.store(answer.is_none(), Ordering::Relaxed);
            answer.ok_or_else(|| std::io::Error::other("torn"))
        }
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    // What went wrong is seen by the client.
    let _ = connection.await;
    if !torn.load(Ordering::Relaxed) {
        reset.0 = None;
    }
}
