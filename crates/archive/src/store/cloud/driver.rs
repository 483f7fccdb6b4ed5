//! The thread that talks to an object store, and how others have it do so.
//!
//! Guarantees: everything asynchronous, connections and name look-ups included, runs on threads that this one starts,
//! which inherit its blocked signals; the caller only waits. Dropping the driver ends the thread and gives up whatever
//! is under way, without waiting.

use std::future::Future;
use std::sync::mpsc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::base::spawn::Spawn;
use crate::error::Error;

/// Name look-ups at once, each on a thread of its own, which a resolver that hangs keeps.
const LOOK_UPS_MAX: usize = 4;

/// The thread. See the file's header.
pub(super) struct Driver {
    handle: Handle,
    /// Dropped with the driver, which the thread waits for.
    _stop: oneshot::Sender<()>,
}

impl Driver {
    /// Fails with [`crate::ErrorKind::Unavailable`] if no thread can be started.
    pub(super) fn start(spawn: Spawn) -> Result<Driver, Error> {
        let could_not = |cause| Error::io("could not start a thread", cause);
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(LOOK_UPS_MAX)
            .build()
            .map_err(could_not)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let drive = move || {
            // Nothing is ever sent: the other end is dropped.
            drop(runtime.block_on(stopped));
            // A name look-up that hangs is not waited for.
            runtime.shutdown_background();
        };
        spawn("walden store", Box::new(drive)).map_err(could_not)?;
        Ok(Driver {
            handle,
            _stop: stop,
        })
    }

    /// Runs a piece of work on the thread, and waits for it.
    ///
    /// Fails with [`crate::ErrorKind::Unavailable`] if it ends without an answer, which takes a panic.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let (tell, told) = mpsc::sync_channel(1);
        self.start_work(async move {
            // The receiver is gone only after a panic of its own.
            drop(tell.send(work.await));
        });
        told.recv()
            .map_err(|_| Error::unavailable("a request ended without an answer"))
    }

    /// Runs a piece of work on the thread, without waiting for it.
    pub(super) fn start_work(&self, work: impl Future<Output = ()> + Send + 'static) {
        // Its end is told through channels of its own.
        drop(self.handle.spawn(work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::spawn::spawn_plainly;
    use std::time::Duration;

    #[test]
    fn work_runs_on_the_thread_and_its_end_is_the_callers() {
        let driver = Driver::start(spawn_plainly).unwrap();
        let name = || std::thread::current().name().map(str::to_owned);
        assert_eq!(
            driver.run(async move { name() }).unwrap().as_deref(),
            Some("walden store")
        );
        assert_ne!(name().as_deref(), Some("walden store"));
    }

    #[test]
    fn a_panic_is_an_error_of_its_caller_alone() {
        let driver = Driver::start(spawn_plainly).unwrap();
        let planted: Result<(), Error> = driver.run(async { panic!("planted") });
        assert!(planted.is_err());
        assert_eq!(driver.run(async { 7 }).unwrap(), 7);
    }

    #[test]
    fn what_is_under_way_is_given_up_with_the_driver() {
        let driver = Driver::start(spawn_plainly).unwrap();
        let (held, told) = mpsc::channel::<()>();
        driver.start_work(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        drop(driver);
        // The work is dropped, and what it held with it.
        assert_eq!(
            told.recv_timeout(Duration::from_secs(30)),
            Err(mpsc::RecvTimeoutError::Disconnected)
        );
    }
}
