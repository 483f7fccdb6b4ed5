//! A small blocking HTTP client: the lab's own, beside the client under test.
//!
//! Guarantees that one question takes at most [`ANSWER_MAX`]. One connection each; plain HTTP on loopback only. May be
//! used inside a runtime.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long an answer may take; a store that starts is asked again.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Sends a request to this port of 127.0.0.1.
///
/// # Errors
///
/// When there is no answer in time, or none in HTTP.
pub(super) fn ask<B>(port: u16, request: Request<B>) -> Result<Response<Bytes>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let question = format!("{} {}", request.method(), request.uri());
    // In a thread of its own, because a runtime cannot be waited for from inside another.
    let asking = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("could not start a runtime")?
            .block_on(async { tokio::time::timeout(ANSWER_MAX, exchange(port, request)).await })
            .context("no answer in time")?
    });
    asking
        .join()
        .map_err(|_| anyhow!("panicked"))
        .flatten()
        .with_context(|| format!("could not ask \"{question}\""))
}

async fn exchange<B>(port: u16, request: Request<B>) -> Result<Response<Bytes>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut sender = connect(port).await?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

/// A connection of its own for one request.
pub(super) async fn connect<B>(port: u16) -> Result<hyper::client::conn::http1::SendRequest<B>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the exchange; what goes wrong is seen by the sender.
    tokio::spawn(connection);
    Ok(sender)
}
