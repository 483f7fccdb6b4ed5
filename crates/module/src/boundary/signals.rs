//! Signals: none for helper threads, the server's own handlers for a worker's main thread.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use abi::Major;

/// Starts a thread with all signals blocked, as every thread inside a server process must be: the server's
/// handlers expect to run on the main thread.
///
/// # Errors
/// When the signal mask cannot be changed or the thread cannot be started.
pub fn spawn_with_signals_blocked<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    // The new thread inherits the mask, so it is set around the start and there is no moment in between.
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills the set it is given.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `all` was filled; `before` receives the present mask.
    let blocked =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    if blocked != 0 {
        return Err(io::Error::from_raw_os_error(blocked));
    }
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work);
    // SAFETY: `before` was filled by the successful call above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), core::ptr::null_mut()) };
    thread
}

/// Gives a background worker the server's handlers for reload and for an orderly end, and lets signals in.
///
/// The default of a worker ends it from inside the handler with FATAL, at any place; `die` leaves that to the
/// next check for interrupts (postgres.c, `die`; bgworker.c, `bgworker_die`; 15 to 19).
pub(crate) fn set_up_worker(major: Major) {
    MAJOR.store(major.0, Ordering::Relaxed);
    handle(libc::SIGHUP, on_reload);
    handle(libc::SIGTERM, on_terminate);
    // SAFETY: unblocks the signals of this process; its handlers are in place.
    unsafe { abi::worker::BackgroundWorkerUnblockSignals() };
}

/// The server's major, for its handlers, whose arguments depend on it.
static MAJOR: AtomicU32 = AtomicU32::new(Major::NEWEST.0);

/// From 17 on the server's handlers leave it to the code around them to save `errno` (port/pqsignal.c); up to 16
/// they do it themselves, and twice does no harm.
unsafe extern "C-unwind" fn on_reload(signal: libc::c_int) {
    let errno = ErrnoSaved::now();
    // SAFETY: the server's own handler, called as a handler.
    unsafe {
        abi::process::handle_signal(abi::process::SignalHandlerForConfigReload, major(), signal)
    };
    errno.restore();
}

unsafe extern "C-unwind" fn on_terminate(signal: libc::c_int) {
    let errno = ErrnoSaved::now();
    // SAFETY: as above. It only sets flags and the latch (postgres.c, `die`).
    unsafe { abi::process::handle_signal(abi::process::die, major(), signal) };
    errno.restore();
}

fn major() -> Major {
    Major(MAJOR.load(Ordering::Relaxed))
}

struct ErrnoSaved(libc::c_int);

impl ErrnoSaved {
    fn now() -> Self {
        // SAFETY: the calling thread's own errno; async-signal-safe.
        let place = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        Self(unsafe { *place })
    }

    fn restore(self) {
        // SAFETY: as above.
        let place = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        unsafe { *place = self.0 };
    }
}

fn handle(signal: libc::c_int, handler: unsafe extern "C-unwind" fn(libc::c_int)) {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeros is a valid sigaction: default handler, empty mask, no flags.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler is the server's own and async-signal-safe; the old action is not wanted. Failure
    // is possible for invalid signal numbers only.
    unsafe { libc::sigaction(signal, action, core::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocked_now() -> bool {
        let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: asks for the present mask.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, core::ptr::null(), mask.as_mut_ptr()) };
        // SAFETY: filled by the call above.
        unsafe { libc::sigismember(mask.as_ptr(), libc::SIGHUP) == 1 }
    }

    #[test]
    fn a_helper_thread_has_its_signals_blocked_and_its_starter_does_not() -> io::Result<()> {
        let helper = spawn_with_signals_blocked("test", blocked_now)?;
        assert!(helper.join().unwrap());
        assert!(!blocked_now());
        Ok(())
    }
}
