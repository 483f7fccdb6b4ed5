//! A body that breaks off.
//!
//! Guarantees that what comes before is sent before the failure ends the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::stores::serve;

/// The beginning of another body.
pub(super) struct Cut {
    inner: serve::Body,
    left: u64,
    length: SizeHint,
    is_sent: bool,
}

impl Cut {
    /// Breaks off after so many bytes. It still says that it is as long as before.
    pub(super) fn after(inner: serve::Body, bytes: u64) -> Cut {
        Cut {
            length: inner.size_hint(),
            inner,
            left: bytes,
            is_sent: false,
        }
    }
}

impl Body for Cut {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            if !self.is_sent {
                // Gives the connection the time to send what it has.
                self.is_sent = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(Some(Err(io::Error::other("cut off"))));
        }
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        polled.map_ok(|frame| {
            let left = usize::try_from(self.left).unwrap_or(usize::MAX);
            frame.map_data(|mut data| {
                data.truncate(left);
                self.left -= data.len() as u64;
                data
            })
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.length
    }
}
