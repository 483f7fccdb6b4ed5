//! Background workers: registering one while the library is preloaded, and its main function.

use super::guard::guard;
use super::load::{self, Loading};
use super::process::Process;
use super::speech::Speech;
use super::{panics, signals};
use crate::Failure;
use abi::Major;
use abi::worker::{
    BG_WORKER_START_POSTMASTER_START, BGWORKER_SHMEM_ACCESS, BackgroundWorker, BackgroundWorker15,
    BackgroundWorker17,
};
use core::ffi::{CStr, c_char, c_int};
use core::mem::MaybeUninit;
use std::time::Duration;

/// A worker's own work. Returning `Ok` ends the worker for good, unless it was told to end by SIGTERM; `Err`
/// is reported. In both other cases the server starts the worker again after
/// [`Registration::restart_after`], if it is not shutting down itself.
pub type Main = fn(Process) -> Result<(), Failure>;

/// What the server needs to know to start a worker before recovery begins.
#[derive(Clone, Copy, Debug)]
pub struct Registration<'a> {
    /// Shown in `ps` and in the log; at most 95 bytes. (`pg_stat_activity` lists only processes that have
    /// gone through the start of a database connection, which this one has not.)
    pub name: &'static CStr,
    /// The library: a path, or a name that the server's search finds. At most 95 bytes in 15 and 16, 1023
    /// later.
    pub library: &'a CStr,
    /// The exported function.
    pub function: &'static CStr,
    /// The pause before a failed worker is started again; whole seconds.
    pub restart_after: Duration,
}

impl Loading {
    /// Registers a worker with access to shared memory and without a database connection.
    ///
    /// # Errors
    /// When the library is not being preloaded, or what the server raises.
    pub fn register_worker(self, registration: Registration<'_>) -> Result<(), Failure> {
        if !self.preloading() {
            return Err(Failure::new(
                "cannot register a background worker outside shared_preload_libraries",
            ));
        }
        if load::major(self.process()) >= Major(17) {
            let mut worker: BackgroundWorker17 = filled(registration);
            self.register((&raw mut worker).cast())
        } else {
            let mut worker: BackgroundWorker15 = filled(registration);
            self.register((&raw mut worker).cast())
        }
    }

    fn register(self, worker: *mut core::ffi::c_void) -> Result<(), Failure> {
        // SAFETY: the struct of the running major; the server copies it (bgworker.c).
        guard(self.process(), move || unsafe {
            abi::worker::RegisterBackgroundWorker(worker)
        })?;
        Ok(())
    }
}

fn filled<const N: usize>(registration: Registration<'_>) -> BackgroundWorker<N> {
    let worker = MaybeUninit::<BackgroundWorker<N>>::zeroed();
    // SAFETY: integers and byte arrays only, for which zeros are valid.
    let mut worker = unsafe { worker.assume_init() };
    copy(&mut worker.bgw_name, registration.name);
    copy(&mut worker.bgw_type, registration.name);
    worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
    worker.bgw_start_time = BG_WORKER_START_POSTMASTER_START;
    worker.bgw_restart_time =
        c_int::try_from(registration.restart_after.as_secs()).unwrap_or(c_int::MAX);
    copy(&mut worker.bgw_library_name, registration.library);
    copy(&mut worker.bgw_function_name, registration.function);
    worker
}

fn copy<const N: usize>(to: &mut [c_char; N], from: &CStr) {
    for (to, from) in to.iter_mut().take(N - 1).zip(from.to_bytes()) {
        *to = c_char::from_ne_bytes([*from]);
    }
}

/// Runs a worker from its exported function.
///
/// # Safety
/// Called by the server as the main function of a background worker.
pub unsafe fn run(main: Main) {
    // SAFETY: this is the main thread of a worker without transactions.
    let process = unsafe { Process::in_callback() };
    signals::set_up_worker(load::major(process));
    // Modules may open files and wait through the server, which then asks for an owner of resources.
    // SAFETY: once per process, before anything else (resowner.c); a failure is met again by its users.
    let _ = guard(process, || unsafe {
        abi::process::CreateAuxProcessResourceOwner()
    });
    if let Some(speech) = finished(process, main) {
        let speech = &speech;
        // SAFETY: below ERROR and under the guard.
        let _ = guard(process, move || unsafe { speech.speak() });
    } else if !process.shutdown_requested() {
        return;
    }
    // A worker that was told to end by SIGTERM ends with status 1 too, as the server's own do (`die`): a
    // server that is ending does not start it again, and another one has to. SAFETY: this frame owns nothing;
    // status 1 asks the server to start the worker again.
    unsafe { abi::process::proc_exit(1) };
}

fn finished(process: Process, main: Main) -> Option<Speech> {
    let outcome = panics::caught(|| main(process));
    let failure = outcome.and_then(|outcome| outcome).err()?;
    Some(Speech::of_failure(abi::elog::WARNING, &failure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_too_long_is_cut_and_stays_terminated() {
        let mut to = [0; 4];
        copy(&mut to, c"walden");
        assert_eq!(to.map(|c| c.to_ne_bytes()[0]), *b"wal\0");
    }
}
