//! Work with a deadline: a person waits for an answer, even for none, and a file system or a store may give none for ever.
//!
//! Guarantees an answer within the time. A thread that is stuck then stays, and ends with this process.

use archive::{Error, ErrorKind};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// Does the work on a thread of its own; `what` has not answered if it takes longer.
pub(crate) fn within<T: Send + 'static>(
    what: &str,
    wait_max: Duration,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (tell, told) = sync_channel(1);
    let run = move || {
        // The receiver may have gone; then the answer is not wanted.
        let _ = tell.send(work());
    };
    archive::spawn_plainly("walden", Box::new(run))
        .map_err(|cause| Error::io("could not start a thread", cause))?;
    told.recv_timeout(wait_max).unwrap_or_else(|_| {
        let seconds = wait_max.as_secs();
        let message = format!("{what} has not answered within {seconds} s");
        Err(Error::new(ErrorKind::Unavailable, message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_takes_too_long_is_an_error_that_names_it() {
        let long = Duration::from_secs(60);
        assert_eq!(within("x", long, || Ok(7)).unwrap(), 7);
        let (_keep, never) = sync_channel::<()>(0);
        let stuck = move || {
            let _ = never.recv();
            Ok(())
        };
        let error = within("archive \"x\"", Duration::ZERO, stuck).unwrap_err();
        assert_eq!(
            error.to_string(),
            "archive \"x\" has not answered within 0 s"
        );
    }
}
