//! A fake of Google Cloud Storage: the part of its XML API that the `object_store` crate asks for.
//!
//! It is a fake, and no more than that: one bucket, in memory, no authentication, no checksums. Guarantees what the
//! API promises of preconditions: `x-goog-if-generation-match: 0` creates an object or answers 412, for a single
//! request, for the completion of an upload in parts and for a copy, and of several at once one wins. Objects live as
//! long as this, also while it is closed.

mod api;
mod objects;
mod text;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use hyper::Response;
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::stores::serve::{Body, Handler, Server};
use objects::Objects;

/// The fake, closed at first.
pub(super) struct Fake {
    server: Server<Bucket>,
}

/// One bucket, and whether it answers.
struct Bucket {
    name: String,
    objects: Mutex<Objects>,
    paused: watch::Sender<bool>,
}

impl Fake {
    pub(super) fn new(bucket: &str) -> Result<Fake> {
        let bucket = Bucket {
            name: bucket.to_owned(),
            objects: Mutex::default(),
            paused: watch::Sender::new(false),
        };
        Ok(Fake {
            server: Server::new("gcs-fake", Arc::new(bucket))?,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.server.port()
    }

    pub(super) fn open(&self) -> Result<()> {
        self.server.open()
    }

    pub(super) fn close(&self) -> Result<()> {
        self.server.close()
    }

    /// Answers nothing while it is paused; what came meanwhile is answered afterwards.
    pub(super) fn pause(&self, paused: bool) {
        self.server.handler().paused.send_replace(paused);
    }

    pub(super) fn objects(&self) -> Vec<(String, u64)> {
        self.server.handler().objects().sizes()
    }

    pub(super) fn unfinished_uploads(&self) -> Vec<String> {
        self.server.handler().objects().unfinished()
    }
}

impl Bucket {
    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handler for Bucket {
    async fn handle(self: Arc<Self>, request: hyper::Request<Incoming>) -> Option<Response<Body>> {
        let mut paused = self.paused.subscribe();
        let (head, body) = request.into_parts();
        let asked = api::Asked::read(head, body).await?;
        paused.wait_for(|paused| !paused).await.ok()?;
        let answer = asked.answer(&self.name, &mut self.objects());
        Some(answer)
    }
}
