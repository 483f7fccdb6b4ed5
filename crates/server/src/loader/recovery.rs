//! A hosted recovery module.
//!
//! Guarantees: a library is asked only for callbacks it has; its state is the same from startup to shutdown, which
//! runs once on any orderly exit of the worker, the end of a callback by FATAL included.

use super::{Memory, call_for_good, end_with_process, find};
use crate::settings::Job;
use abi::Datum;
use abi::recovery_module::{RecoveryModuleCallbacks, RecoveryModuleInit, RecoveryModuleState};
use core::ffi::{CStr, c_int, c_void};
use module::{Failure, Process};
use std::ptr;

/// The symbol every recovery module has.
const INIT: &CStr = c"_PG_recovery_module_init";

/// A loaded recovery module.
pub(crate) struct Library {
    callbacks: RecoveryModuleCallbacks,
    state: *mut RecoveryModuleState,
    memory: Memory,
}

impl Library {
    /// Loads the library, initialises it and calls its startup callback.
    ///
    /// Fails when it cannot be loaded, is no recovery module, or raises ERROR. Then its shutdown will not be called.
    pub(crate) fn load(process: Process, name: &str) -> Result<&'static Self, Failure> {
        let found = find(process, name, INIT, "recovery")?;
        // SAFETY: the symbol of that name has this type, by the interface (recovery_module.h).
        let init = unsafe { core::mem::transmute::<*mut c_void, RecoveryModuleInit>(found.init) };
        // SAFETY: the module's own function.
        let callbacks = call_for_good(process, move || unsafe { init() })?;
        // SAFETY: null, or a struct of the process's lifetime, by the interface.
        let callbacks = unsafe { callbacks.as_ref() }.copied().ok_or_else(|| {
            Failure::new(format!("{} returned no callbacks", INIT.to_string_lossy()))
        })?;
        let state = found.fresh_state();
        if let Some(startup) = callbacks.startup_cb {
            // SAFETY: the module's own callback with the state made for it.
            call_for_good(process, move || unsafe { startup(state) })?;
        }
        // Only now: a module that cannot start is tried again with each request, and would cost this much each time.
        let memory = Memory::new(process, c"walden recovery module")?;
        // Leaked: libraries are never unloaded, and shutdown runs while the process ends.
        let library: &'static Self = Box::leak(Box::new(Self {
            callbacks,
            state,
            memory,
        }));
        end_with_process(process, library, shut_down)?;
        Ok(library)
    }

    /// Whether it has the callback for a job.
    pub(crate) fn does(&self, job: Job) -> bool {
        match job {
            Job::Restore => self.callbacks.restore_cb.is_some(),
            Job::ArchiveCleanup => self.callbacks.archive_cleanup_cb.is_some(),
            Job::RecoveryEnd => self.callbacks.recovery_end_cb.is_some(),
        }
    }

    /// Asks for a file; true when the module says it is there, false when it is not in the archive.
    pub(crate) fn restore(
        &self,
        process: Process,
        file: &CStr,
        path: &CStr,
        last: &CStr,
    ) -> Result<bool, Failure> {
        let callback = self.callbacks.restore_cb.ok_or_else(|| lacks("restore"))?;
        let state = self.state;
        // SAFETY: the module's own callback with its state; the strings outlive the call.
        let restored = self.memory.call(process, move || unsafe {
            callback(state, file.as_ptr(), path.as_ptr(), last.as_ptr())
        })?;
        Ok(restored)
    }

    /// Tells that files before `last` may go.
    pub(crate) fn archive_cleanup(&self, process: Process, last: &CStr) -> Result<(), Failure> {
        let callback = self
            .callbacks
            .archive_cleanup_cb
            .ok_or_else(|| lacks("archive cleanup"))?;
        let state = self.state;
        // SAFETY: as in `restore`.
        let call = move || unsafe { callback(state, last.as_ptr()) };
        self.memory.call(process, call)?;
        Ok(())
    }

    /// Tells that recovery has ended.
    pub(crate) fn recovery_end(&self, process: Process, last: &CStr) -> Result<(), Failure> {
        let callback = self
            .callbacks
            .recovery_end_cb
            .ok_or_else(|| lacks("recovery end"))?;
        let state = self.state;
        // SAFETY: as in `restore`.
        let call = move || unsafe { callback(state, last.as_ptr()) };
        self.memory.call(process, call)?;
        Ok(())
    }
}

/// Lets a library end. Called by the server while the worker exits.
unsafe extern "C-unwind" fn shut_down(_status: c_int, library: Datum) {
    let library = ptr::with_exposed_provenance::<Library>(library);
    // SAFETY: given to the server together with this function by `load`; never freed.
    let library = unsafe { &*library };
    if let Some(shutdown) = library.callbacks.shutdown_cb {
        // SAFETY: the module's own callback with its state; this frame owns nothing.
        unsafe { shutdown(library.state) };
    }
}

fn lacks(callback: &str) -> Failure {
    Failure::new(format!("the recovery module has no {callback} callback"))
}
